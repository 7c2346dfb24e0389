"""What tests of several folders share: ECG files of every format, and one small three-way model with its study."""

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from einthoven import pipeline
from einthoven.config import load_recipe


@pytest.fixture(scope="session")
def make() -> ModuleType:
    """tests/ecg_files.py."""
    spec = importlib.util.spec_from_file_location("ecg_files", Path(__file__).with_name("ecg_files.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def samples(make: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One file of every format that states all of its own."""
    files: dict[str, bytes] = make.every(tmp_path_factory.mktemp("edf"))
    return files


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model directory of ECG, codes and text, and its study. Who changes them takes a copy."""
    folder = tmp_path_factory.mktemp("trained")
    settings = (
        "source.subjects=60", 'space.modalities=["ecg","codes","text"]', "training.epochs=1",
        "evaluation.control=false", "evaluation.label_fractions=[0.5,1.0]", "evaluation.subsets=2",
    )  # fmt: skip
    recipe = load_recipe(Path(__file__).with_name("tiny.toml"), settings)
    model, study = folder / "model", folder / "study"
    pipeline.ingest(recipe.source, None, study)
    pipeline.pair(recipe, study)
    pipeline.align(recipe, study, model)
    return model, study


@pytest.fixture(scope="module")
def place(trained: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of both, "model" and "study", for the tests of a file that write into them."""
    copy = tmp_path_factory.mktemp("copy")
    for directory in trained:
        shutil.copytree(directory, copy / directory.name)
    return copy

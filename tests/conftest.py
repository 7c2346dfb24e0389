"""ECG files of every format, for the tests that ask for them: their writers take a second to import."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


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

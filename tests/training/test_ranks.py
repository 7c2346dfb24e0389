"""Several processes, as `torchrun` starts them, against one: the real command on a tiny study."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from einthoven import pipeline
from einthoven.config import Recipe, load_recipe
from einthoven.model_directory import load

TINY = Path(__file__).parents[1] / "tiny.toml"
PAIRS = 32  # of the train split: a number that two processes can share
SETTINGS = (
    "source.subjects=28", 'space.modalities=["ecg","codes","text"]', "augmentation.code_queries=0.5",
    # what is drawn in the batch is the same whatever the number of processes; dropout is each process's own
    "ecg.dropout=0", "text.dropout=0", "codes.dropout=0",
    "training.epochs=25", f"training.batch={PAIRS // 2}", "training.validate_every=25",
    "evaluation.control=false", "evaluation.label_fractions=[1.0]",
)  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = tmp_path_factory.mktemp("ranks") / "study"
    recipe = recipe_of()
    pipeline.ingest(recipe.source, None, study)
    pipeline.pair(recipe, study)
    return study


def recipe_of(*settings: str) -> Recipe:
    return load_recipe(TINY, (*SETTINGS, *settings))


def torchrun(command: Sequence[str | Path], settings: Sequence[str] = (), ranks: int = 2) -> str:
    """What the command of einthoven said, run by several processes."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    chosen = [word for setting in (*SETTINGS, *settings) for word in ("--set", setting)]
    words = [*start, "-m", "einthoven", *map(str, command), "--recipe", str(TINY), *chosen]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def counts(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "manifest.json").read_text())["counts"]


def test_two_processes_train_what_one_does(study: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    said = torchrun(["align", study, "--out", two])
    assert said.count("validation_mrr") == 1  # the first process speaks
    pipeline.align(recipe_of(), study, one)
    losses = [[epoch["loss"] for epoch in counts(place)["history"]] for place in (one, two)]
    assert counts(one)["pairs"] == PAIRS and counts(one)["step"] == 50
    assert np.allclose(*losses, rtol=0, atol=1e-4), np.abs(np.subtract(*losses)).max()
    assert losses[0][-1] < 0.95 * losses[0][0]
    first, second = load(one), load(two)
    strip = np.random.default_rng(0).standard_normal((4, 12, 500))
    assert np.allclose(first.encode_ecg(strip, 100), second.encode_ecg(strip, 100), atol=1e-3)

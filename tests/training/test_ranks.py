"""Several processes, as `torchrun` starts them, against one: the real commands on a tiny study."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.processes import torchrun
from torch.distributed.run import get_args_parser

from einthoven import cli, pipeline
from einthoven.config import Recipe, load_recipe
from einthoven.embed import matrix, table_of
from einthoven.errors import EinthovenError
from einthoven.model_directory import load

TINY = Path(__file__).parents[1] / "tiny.toml"
PAIRS = 32  # of the train split: a number that two processes can share
SETTINGS = (
    "source.subjects=28", 'space.modalities=["ecg","codes","text"]', "augmentation.code_queries=0.5",
    # what is drawn for a batch is the same whatever the number of processes; dropout is each process's own
    "ecg.dropout=0", "text.dropout=0", "codes.dropout=0",
    "pretraining.epochs=5", "pretraining.precision=fp32", "pretraining.batch=16", "vocabulary.floor=2",
    # slower and softer than usual: training blows up what two orders of summation differ by
    "training.learning_rate=2e-4", "space.temperature=0.2",
    "training.epochs=25", f"training.batch={PAIRS // 2}", "training.validate_every=25",
    "evaluation.control=false", "evaluation.label_fractions=[1.0]",
)  # fmt: skip

COMMANDS = """
import json, sys
from einthoven import cli, embed
embed.PART = 8
for words in json.loads(sys.argv[1]):
    cli.app(words, standalone_mode=False)
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = tmp_path_factory.mktemp("ranks") / "study"
    recipe = recipe_of()
    pipeline.ingest(recipe.source, None, study)
    pipeline.pair(recipe, study)
    return study


def recipe_of() -> Recipe:
    return load_recipe(TINY, SETTINGS)


def together(place: Path, *commands: list[str], ranks: int = 2) -> str:
    """What commands of einthoven said, run by several processes, one after the other."""
    script = place / "commands.py"
    script.write_text(COMMANDS)
    return torchrun(script, json.dumps(commands), ranks=ranks)


def chosen() -> list[str]:
    return ["--recipe", str(TINY), *(word for setting in SETTINGS for word in ("--set", setting))]


def counts(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "manifest.json").read_text())["counts"]


def test_two_processes_train_and_embed_as_one_does(study: Path, trained: tuple[Path, Path], tmp_path: Path) -> None:
    one, two, (model, _) = tmp_path / "one", tmp_path / "two", trained
    embed, align = ["embed", str(model), str(study)], ["align", str(study), "--out", str(two), *chosen()]
    said = together(tmp_path, embed, align)
    assert said.count("embedded") == 1 and said.count("validation_mrr") == 1  # the first process speaks
    assert together(tmp_path, align).count("unchanged, nothing to do") == 1
    shared = pq.read_table(table_of(model).at(study))
    table_of(model).at(study).unlink()
    pipeline.embed(model, study)
    alone = pq.read_table(table_of(model).at(study))
    assert shared["recording_id"].equals(alone["recording_id"]) and len(alone) > 32
    assert np.allclose(matrix(shared["fine"]), matrix(alone["fine"]), atol=1e-5)

    pipeline.align(recipe_of(), study, one)
    losses = [[epoch["loss"] for epoch in counts(place)["history"]] for place in (one, two)]
    assert counts(one)["pairs"] == PAIRS and counts(one)["step"] == 50
    assert np.allclose(*losses, rtol=0, atol=1e-4), np.abs(np.subtract(*losses)).max()
    assert losses[0][-1] < 0.95 * losses[0][0]
    strip = np.random.default_rng(0).standard_normal((4, 12, 500))
    assert np.allclose(load(one).encode_ecg(strip, 100), load(two).encode_ecg(strip, 100), atol=1e-3)


def test_two_processes_pretrain_as_one_does(study: Path, tmp_path: Path) -> None:
    together(tmp_path, ["pretrain", str(study), "--out", str(tmp_path / "two"), *chosen()])
    pipeline.pretrain(recipe_of(), study, tmp_path / "one")
    one, two = (counts(tmp_path / name)["history"] for name in ("one", "two"))
    assert len(one) == 5 and one[-1]["loss"] < one[0]["loss"]
    for name in ("loss", "validation_loss"):
        assert np.allclose([each[name] for each in one], [each[name] for each in two], rtol=0, atol=1e-4), (one, two)


@pytest.mark.parametrize("command", ["finetune", "ingest", "run"])
def test_what_one_process_does_is_refused_to_several(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    words = {
        "finetune": ["MODEL", "STUDY", "--labels", "classes", "--out", "OUT"],
        "ingest": ["simulated", "STUDY"],
        "run": ["R", "--study", "S"],
    }
    with pytest.raises(EinthovenError, match=f"{command} is the work of one process: run it without torchrun"):
        cli.app([command, *words[command]], standalone_mode=False)


def test_the_batch_script_is_one_that_a_shell_and_torchrun_understand(tmp_path: Path) -> None:
    """With stand-ins for the cluster's own commands, which print what they are given."""
    script = Path(__file__).parents[2] / "recipes" / "slurm.sh"
    for name, said in (("scontrol", "echo node-a"), ("srun", 'echo "$@"')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{said}\n")
        (tmp_path / name).chmod(0o755)
    given = {"SLURM_JOB_NODELIST": "node-[a-b]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "7"}
    environment = os.environ | given | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "STUDY": "/s", "MODEL": "/m"}
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    lines = [line.split("torchrun ")[1].split() for line in done.stdout.splitlines()]
    for line, command in zip(lines, ("align", "embed"), strict=True):
        asked = get_args_parser().parse_args(line)
        assert (asked.nnodes, asked.nproc_per_node, asked.rdzv_endpoint) == ("2", "8", "node-a:29500")
        assert asked.module and asked.training_script == "einthoven" and asked.training_script_args[0] == command

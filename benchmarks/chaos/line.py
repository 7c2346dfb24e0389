"""The line of stages that is disturbed: small, simulated, each a command of einthoven with what it starts from."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import wfdb

from einthoven.schema import LEADS
from einthoven.simulation.heart import simulate
from einthoven.study import read_manifest, stage_manifest, write_manifest

RECIPE = """
[source]
name = "simulated"
subjects = 40

[ecg]
width = 8
blocks = [1, 1]

[text]
hidden = 32
layers = 1

[codes]
hidden = 32
layers = 1
heads = 4

[space]
modalities = ["ecg", "codes", "text"]

[pretraining]
epochs = 3
batch = 32
precision = "fp32"

[training]
batch = 16
epochs = 3
precision = "fp32"

[finetuning]
batch = 16
epochs = 2
min_steps = 1
validations = 2
precision = "fp32"

[evaluation]
control = false
resamples = 5
label_fractions = [1.0]
subsets = 1
"""

RECORDS = 150  # of the WFDB source: three chunks of loading.py


@dataclass(frozen=True)
class Stage:
    """A command, run in the directory of the line."""

    name: str
    arguments: tuple[str, ...]


def _stage(name: str, words: str, recipe: bool = False) -> Stage:
    return Stage(name, (*words.split(), *(("--recipe", "recipe.toml") if recipe else ())))


STAGES = (
    _stage("ingest simulated", "ingest simulated study", recipe=True),
    _stage("ingest challenge", "ingest challenge wfdb challenge"),
    _stage("entities", "entities study", recipe=True),
    _stage("pair", "pair study", recipe=True),
    _stage("export meds", "export meds study meds"),
    _stage("ingest meds", "ingest meds meds imported"),
    _stage("rechart", "rechart real recharted"),
    _stage("pretrain", "pretrain study --out encoder", recipe=True),
    _stage("align", "align study --out model", recipe=True),
    _stage("calibrate", "calibrate model study --set evaluation.false_alarm=0.1"),
    _stage("embed", "embed model study"),
    _stage("evaluate", "evaluate model study --split train --out report", recipe=True),
    _stage("index", "index model study"),
    _stage("finetune", "finetune model study --labels classes --out classifier", recipe=True),
)
"""In an order in which each finds what it needs."""


def begin(place: Path, seed: int) -> None:
    """What the first stages start from: a recipe, and a folder of WFDB records."""
    place.mkdir(parents=True)
    (place / "recipe.toml").write_text(RECIPE)
    random = np.random.default_rng(seed)
    folder = place / "wfdb" / "georgia"
    folder.mkdir(parents=True)
    signals = simulate([frozenset({"AFIB" if i % 3 else "NORM"}) for i in range(RECORDS)], random, 100, 10.0)
    for i, signal in enumerate(signals):
        codes = "164889003" if i % 3 else "426783006"
        wfdb.wrsamp(
            f"E{i:05d}", 100, ["mV"] * 12, list(LEADS), d_signal=signal.T.astype(int), fmt=["16"] * 12,
            adc_gain=[1000.0] * 12, baseline=[0] * 12, write_dir=str(folder),
            comments=[f"Age: {40 + i % 40}", f"Sex: {'Male' if i % 2 else 'Female'}", f"Dx: {codes}"],
        )  # fmt: skip


def after(stage: Stage, place: Path) -> None:
    """What a later stage needs beside: for `rechart`, the simulated study under a manifest that calls it real."""
    if stage.name == "entities":
        shutil.copytree(place / "study", place / "real")
        manifest = stage_manifest(place / "real", "ingest")
        content = read_manifest(manifest) or {}
        write_manifest(manifest, {**content, "counts": {**content["counts"], "data_kind": "real"}})

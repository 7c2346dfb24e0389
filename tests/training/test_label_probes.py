"""`einthoven probe`: probes for labels of a file, each on the recordings of which it is known."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from einthoven import cli, pipeline, schema
from einthoven.config import Evaluation, Source, load_recipe
from einthoven.embed import embed_rows
from einthoven.errors import EinthovenError
from einthoven.evaluation.transfer import fit_probes, probe_metrics
from einthoven.labelling import probe_stage
from einthoven.model_directory import load
from einthoven.study import read_table
from einthoven.waveforms.store import Store

TINY = [
    "ecg.width=8", "ecg.blocks=[1]", "text.hidden=32", "text.layers=1", "training.epochs=1",
    "training.precision=fp32", "evaluation.subsets=1", "evaluation.resamples=5",
]  # fmt: skip
OPTIONS = Evaluation(resamples=5, label_fractions=(0.5, 1.0), subsets=2, control=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("probe")
    pipeline.ingest(Source(name="simulated", subjects=80), None, path / "study")
    pipeline.pair(load_recipe(None, TINY), path / "study")
    pipeline.align(load_recipe(None, TINY), path / "study", path / "model")
    rows = read_table(schema.RECORDINGS, path / "study")
    old = [None if age < 40 else int(age > 60) for age in rows["age"].to_pylist()]
    one = [0] * len(rows)
    pq.write_table(pa.table({"recording_id": rows["recording_id"], "old": old, "none": one}), path / "l.parquet")
    return path


def test_a_probe_is_fitted_where_its_label_is_known(place: Path, capsys) -> None:
    out = place / "out"
    asked = [
        "probe",
        str(place / "model"),
        str(place / "study"),
        "--labels",
        str(place / "l.parquet"),
        "--out",
        str(out),
    ]
    for setting in ("resamples=5", "label_fractions=[0.5,1.0]", "subsets=2"):
        asked += ["--set", f"evaluation.{setting}"]
    cli.app(asked, standalone_mode=False)
    found = json.loads((out / "probe.json").read_text())["labels"]
    rows = read_table(schema.RECORDINGS, place / "study")
    age, split = rows["age"].to_numpy(), np.array(rows["split"].to_pylist())
    store, model = Store.open(place / "study"), load(place / "model")
    parts = [np.flatnonzero((split == name) & (age >= 40)) for name in ("train", "validation")]
    features = [embed_rows(model, store, rows["row"].to_numpy()[p], lambda i, n: None).features for p in parts]
    labels, subjects = ([array[p] for p in parts] for array in ((age > 60)[:, None], rows["subject_id"].to_numpy()))
    probes = fit_probes(features[0], labels[0], subjects[0], ("old",), fractions=(0.5, 1.0), subsets=2)
    expected = probe_metrics(probes, features[1], labels[1], subjects[1], ("old",), resamples=5)
    assert found["old"]["model"] == json.loads(json.dumps(expected))
    assert found["old"]["validation"]["positive"] == labels[1].sum() and "random_init" in found["old"]
    assert found["none"]["left_out"] == "one-sided labels"
    said = capsys.readouterr().out
    assert "simulated data, validation split" in said and "left out: one-sided labels" in said


def test_what_cannot_be_probed_is_told(place: Path, tmp_path: Path) -> None:
    model, study = place / "model", place / "study"
    with pytest.raises(EinthovenError, match="a matter of regression"):
        probe_stage(model, study, "age", tmp_path / "a", OPTIONS)
    with pytest.raises(EinthovenError, match="from the train split the classifier learns"):
        probe_stage(model, study, "classes", tmp_path / "b", OPTIONS, "train")
    rows = read_table(schema.RECORDINGS, study, ["recording_id"])
    pq.write_table(rows.append_column("x", pa.array([1] * len(rows))), tmp_path / "x.parquet")
    with pytest.raises(EinthovenError, match="no label has both a 0 and a 1"):
        probe_stage(model, study, str(tmp_path / "x.parquet"), tmp_path / "c", OPTIONS)

"""Detectors through the command line: kept with a model, chosen anew, measured."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from einthoven import cli, indexing, pipeline, schema
from einthoven.classifier import Classifier, Head
from einthoven.config import Recipe, Source, load_recipe
from einthoven.errors import EinthovenError
from einthoven.evaluation.labels import of_class
from einthoven.evaluation.outliers import FILE, load_outliers
from einthoven.model_directory import load
from einthoven.search.archive import Hit, Query
from einthoven.study import fingerprint, read_manifest, stage_manifest, write_manifest
from einthoven.training import outliers as training
from einthoven.training.probes import load_probes
from einthoven.waveforms.corruptions import CORRUPTIONS

TINY = {
    "ecg.width": "8", "ecg.blocks": "[1]", "text.hidden": "32", "text.layers": "1", "training.epochs": "1",
    "training.precision": "fp32", "evaluation.subsets": "1", "evaluation.resamples": "5",
}  # fmt: skip


def recipe(**changes: str) -> Recipe:
    return load_recipe(None, [f"{k}={v}" for k, v in {**TINY, **changes}.items()])


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("outliers")
    pipeline.ingest(Source(name="simulated", subjects=80), None, path / "study")
    pipeline.pair(recipe(), path / "study")
    pipeline.align(recipe(), path / "study", path / "model")
    return path


def test_align_keeps_every_detector_with_a_threshold(place: Path) -> None:
    found = load_outliers(place / "model")
    assert (found.chosen, found.false_alarm) == ("exposure", 0.05)
    assert {"exposure", "early", "mahalanobis", "neighbours", "energy", "vim", "prompts"} <= set(found.detectors)
    rows = pq.read_table(schema.RECORDINGS.at(place / "study"))["split"].to_pylist()
    assert (found.fitted, found.calibrated) == (rows.count("train"), rows.count("validation"))
    outcome = pipeline.align(recipe(), place / "study", place / "model")
    assert not outcome.fresh and outcome.counts["outliers"]["chosen"] == "exposure"


def test_another_detector_is_chosen_without_training_anew(place: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(place / "model", model)
    weights = (model / "model.safetensors").stat().st_mtime_ns
    outcome = pipeline.align(
        recipe(**{"evaluation.detector": "mahalanobis", "evaluation.false_alarm": "0.2"}), place / "study", model
    )
    found = load_outliers(model)
    assert outcome.fresh and (found.chosen, found.false_alarm) == ("mahalanobis", 0.2)
    assert (model / "model.safetensors").stat().st_mtime_ns == weights
    kept = load_outliers(place / "model").detectors
    assert all(found.detectors[name].threshold <= kept[name].threshold for name in kept)


def test_what_cannot_be_calibrated_is_told(place: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(place / "study", other)
    path = schema.RECORDINGS.at(other)
    rows = pq.read_table(path)
    split = rows.schema.get_field_index("split")
    pq.write_table(rows.set_column(split, rows.schema.field(split), [["test"] * len(rows)]), path)
    made = read_manifest(stage_manifest(other, "ingest"))
    assert made is not None
    made["outputs"][path.name] = fingerprint(path)
    write_manifest(stage_manifest(other, "ingest"), made)
    shutil.copytree(place / "model", tmp_path / "model")
    with pytest.raises(EinthovenError, match="a train and a validation split"):
        pipeline.calibrate(tmp_path / "model", other, recipe().evaluation)
    with pytest.raises(EinthovenError, match="no outlier detectors"):
        load_outliers(tmp_path / "model")
    with pytest.raises(EinthovenError, match="is no model directory"):
        pipeline.calibrate(tmp_path / "nowhere", place / "study", recipe().evaluation)
    (tmp_path / "model" / "probes.safetensors").unlink()
    with pytest.raises(EinthovenError, match=r"no classes of findings.*set evaluation\.detector=exposure"):
        pipeline.calibrate(tmp_path / "model", place / "study", recipe(**{"evaluation.detector": "energy"}).evaluation)
    with pytest.raises(EinthovenError, match="detector among exposure"):
        recipe(**{"evaluation.detector": "magic"})


def test_outliers_are_measured_and_reported(place: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    pipeline.ingest(Source(name="simulated", subjects=20, sampling_rate=500, seed=3), None, tmp_path / "abroad")
    kinds = {name: one for name, one in CORRUPTIONS.items() if name in ("flat", "wrong gain", "mains")}
    monkeypatch.setattr("einthoven.evaluation.outlier_protocol.CORRUPTIONS", kinds)
    arguments = ["outliers", str(place / "model"), str(place / "study"), "--split", "train",
                 "--out", str(tmp_path / "r"), "--other", str(tmp_path / "abroad"), "--set",
                 "evaluation.resamples=5", "--against", str(tmp_path / "scratch")]  # fmt: skip
    head = Head(task="classes", labels=("MI",), mean=(0.0,), scale=(1.0,))
    Classifier(recipe().ecg, head, {}).save(tmp_path / "scratch")
    cli.app(arguments, standalone_mode=False)
    result = json.loads((tmp_path / "r" / "outliers.json").read_text())
    assert result["data_kind"] == "simulated" and result["not_possible"] == ["mains"]
    assert [row["name"] for row in result["rows"]] == ["flat"] * 5 + ["wrong gain"] * 5 + [
        "abroad",
        "mean of 2 corruptions",
    ]
    for row in result["rows"]:
        for series in ("model", "random_init"):
            assert set(row[series]) == set(result["detectors"])
    assert result["against"] == "scratch"
    for row in result["rows"]:
        assert {"exposure", "early", "neighbours"} <= set(row["against"])
        assert (0 <= row["unforeseen"]["auroc"]["value"] <= 1) if row["kind"] != "study" else "unforeseen" not in row
    foreseen, kept_from = result["rows"][-1]["model"]["exposure"], result["rows"][-1]["unforeseen"]
    assert foreseen["auroc"]["value"] > kept_from["auroc"]["value"]
    loud = result["rows"][9]["model"]["mahalanobis"]
    assert loud["auroc"]["value"] > 0.95 and loud["fpr95"]["value"] < 0.2 and loud["flagged"] > 0.9
    page = (tmp_path / "r" / "outliers.html").read_text()
    assert page.count("<svg") == 3 and "simulated" in page and "not a medical device" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    capsys.readouterr()
    cli.app(arguments, standalone_mode=False)
    assert "unchanged, nothing to do" in capsys.readouterr().out


def asked(model: Path, study: Path, top: int) -> list[Hit]:
    return indexing.open_archive(model, study).search(Query(text="infarct", top=top)).hits


def test_a_model_without_detectors_is_told_and_still_searches(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "model", tmp_path / "bare")
    (tmp_path / "bare" / FILE).unlink()
    with pytest.raises(EinthovenError, match="einthoven calibrate"):
        pipeline.outliers(tmp_path / "bare", place / "study", "test", (), tmp_path / "r", recipe().evaluation, "")
    assert [h.outlier for h in asked(tmp_path / "bare", place / "study", 2)] == [None, None]


def test_search_flags_what_the_chosen_detector_flags(place: Path) -> None:
    from einthoven.embed import matrix, table_of

    hits = asked(place / "model", place / "study", 1000)
    rows = pq.read_table(table_of(place / "model").at(place / "study"))
    one = load_outliers(place / "model").detectors["exposure"]
    above = one.detector.score(matrix(rows["early"])) > one.threshold
    expected = dict(zip(rows["recording_id"].to_pylist(), above.tolist(), strict=True))
    assert {hit.recording_id: hit.outlier for hit in hits} == expected
    assert 0 < np.mean(list(expected.values())) < 0.3


def test_a_class_that_was_held_out_is_seen_by_nothing_and_measured(place: Path, tmp_path: Path, monkeypatch) -> None:
    study, model = place / "study", tmp_path / "model"
    with pytest.raises(EinthovenError, match=r"no super-class 'XYZ'.*it has NORM"):
        pipeline.align(recipe(**{"training.without_class": "XYZ"}), study, tmp_path / "none")
    pipeline.align(recipe(**{"training.without_class": "MI"}), study, model)
    gone = set(of_class(study, "MI"))
    recordings = pq.read_table(schema.RECORDINGS.at(study)).to_pylist()
    left = [r for r in recordings if r["split"] == "train" and r["recording_id"] not in gone]
    assert gone and load(model).card["without_class"] == "MI"
    assert load_outliers(model).fitted == len(left)
    counts = read_manifest(model / "manifest.json")["counts"]  # type: ignore[index]
    assert counts["pairs"] <= len(left)
    _, probes = load_probes(model / "probes.safetensors")  # type: ignore[misc]
    assert all("MI" in probe.unlearnt for probe in probes["model"])
    monkeypatch.setattr("einthoven.evaluation.outlier_protocol.CORRUPTIONS", {"clipped": CORRUPTIONS["clipped"]})
    pipeline.outliers(model, study, "train", (), tmp_path / "r", recipe().evaluation, "")
    rows = json.loads((tmp_path / "r" / "outliers.json").read_text())["rows"]
    (held,) = [row for row in rows if row["kind"] == "class"]
    assert held["name"] == "MI" and held["recordings"] == len([r for r in recordings if r["split"] == "train"]) - len(
        left
    )


def test_a_model_without_probes_of_its_control_has_no_control_to_read_them(place: Path) -> None:
    assert training.whole_probe(place / "model", "random_init") is not None
    assert training.whole_probe(place / "model", "of nobody") is None


def test_a_large_split_is_sampled_by_seed(place: Path) -> None:
    few = [training.sample(place / "study", "train", 10, seed)["recording_id"].to_pylist() for seed in (0, 0, 1)]
    assert len(few[0]) == 10 and few[0] == few[1] != few[2] and few[0] == sorted(few[0])

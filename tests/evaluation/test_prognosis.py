"""What comes after an ECG: each rule by hand, all of them against a naive loop, and the files others read."""

from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path

import meds
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from einthoven import cli, pipeline, schema
from einthoven.config import Source
from einthoven.errors import EinthovenError
from einthoven.evaluation.prognosis import BEFORE, SHORT, UNDATED, Labels, Outcome, labels_of
from einthoven.evaluation.targets import read_file
from einthoven.export.meds import LABELS
from einthoven.study import read_table, write_table

NOW = datetime(2020, 1, 1, 12)
FAILURE = Outcome(name="heart failure", patterns=("ICD10CM/I50*",), within=100)


def day(number: float) -> datetime:
    return NOW + timedelta(days=number)


def study(folder: Path, events: list[tuple[int, datetime | None, str]], recorded: list[datetime | None]) -> Path:
    """Patient i has recording i; all of them are of the train split."""
    rows = [
        {"recording_id": f"r{i}", "subject_id": i, "time": time, "split": "train", "row": i}
        for i, time in enumerate(recorded)
    ]
    coded = [{"subject_id": who, "time": time, "code": code} for who, time, code in events]
    write_table(schema.RECORDINGS, folder, pa.Table.from_pylist(rows, schema=schema.RECORDINGS.columns))
    write_table(schema.EVENTS, folder, pa.Table.from_pylist(coded, schema=schema.EVENTS.columns))
    write_table(schema.NOTES, folder, schema.NOTES.columns.empty_table())
    return folder


def said(labels: Labels) -> dict[str, bool]:
    return {row["recording_id"]: row["positive"] for row in labels.recordings.to_pylist()}


def test_each_rule_decides_its_recording(tmp_path: Path) -> None:
    events = [
        (0, day(50), "ICD10CM/I50.9"),  # in time, though the record ends there
        (1, day(101), "ICD10CM/I50.9"),  # too late, and the record is long enough
        (2, day(-3), "ICD10CM/I50.9"), (2, day(50), "ICD10CM/I50.9"),  # had it before
        (3, day(99), "ICD10CM/I10"),  # the record ends too early
        (4, day(100), "ICD10CM/I10"),  # it goes on for long enough
        (5, day(1), "ICD10CM/I10"),  # a recording without a time
        (6, None, "ICD10CM/I50.1"), (6, day(200), "ICD10CM/I10"),  # had it, at whatever time
        (7, NOW, "ICD10CM/I50.9"), (7, day(200), "ICD10CM/I10"),  # at the moment of the ECG is not after it
        (8, day(100), "ICD10CM/I50.9"),  # the last moment counts
    ]  # fmt: skip
    found = labels_of(study(tmp_path, events, [*[NOW] * 5, None, *[NOW] * 3]), FAILURE)
    assert said(found) == {"r0": True, "r1": False, "r4": False, "r8": True}
    assert found.left_out == {BEFORE: 3, UNDATED: 1, SHORT: 1} and found.codes == ("ICD10CM/I50.1", "ICD10CM/I50.9")
    assert found.counts()["train"] == {"positive": 2, "negative": 2}


def test_a_gap_takes_what_follows_at_once_for_what_was_there(tmp_path: Path) -> None:
    events = [(0, day(2), "ICD10CM/I50.9"), (1, day(8), "ICD10CM/I50.9"), (2, day(400), "ICD10CM/I10")]
    place = study(tmp_path, events, [NOW] * 3)
    assert labels_of(place, FAILURE).counts()["train"] == {"positive": 2, "negative": 1}
    gapped = Outcome(name="x", patterns=("ICD10CM/I50*",), within=100, gap=7)
    found = labels_of(place, gapped)
    assert found.recordings["recording_id"].to_pylist() == ["r1", "r2"] and found.left_out == {BEFORE: 1}


def test_a_simulated_study_is_labelled_as_a_naive_loop_does(tmp_path: Path) -> None:
    place = tmp_path / "study"
    pipeline.ingest(Source(name="simulated", subjects=150), None, place)
    found = labels_of(place, Outcome(name="AF", patterns=("DIAGNOSIS//ICD//10//I48*",), within=120))
    events = read_table(schema.EVENTS, place).to_pylist()
    recordings, notes = (read_table(t, place).to_pylist() for t in (schema.RECORDINGS, schema.NOTES))
    expected, left_out = {}, 0
    for one in recordings:
        own = [row for row in (*events, *notes, *recordings) if row["subject_id"] == one["subject_id"]]
        family = [r["time"] for r in own if fnmatchcase(r.get("code") or "", "DIAGNOSIS//ICD//10//I48*")]
        limit = one["time"] + timedelta(days=120)
        if min(family, default=day(1e5)) <= one["time"]:
            left_out += 1
        elif min(family, default=day(1e5)) <= limit:
            expected[one["recording_id"]] = True
        elif max(r["time"] for r in own) >= limit:
            expected[one["recording_id"]] = False
        else:
            left_out += 1
    assert said(found) == expected
    assert sum(found.left_out.values()) == left_out > 0 and set(expected.values()) == {True, False}


def test_the_files_are_those_that_finetune_and_meds_read(tmp_path: Path, capsys) -> None:
    place = tmp_path / "study"
    pipeline.ingest(Source(name="simulated", subjects=60), None, place)
    asked = ["labels", str(place), "--code", "DIAGNOSIS//ICD//10//I48*", "--within", "120", "--name", "AF, later"]
    with pytest.raises(EinthovenError, match="--name"):
        cli.app([*asked, "--out", str(tmp_path / "l.csv")], standalone_mode=False)
    asked[-1] = "AF later"
    for name in ("l.csv", "l.parquet"):
        out = ["--out", str(tmp_path / name), "--meds", str(tmp_path / "meds.parquet")]
        cli.app([*asked, *out], standalone_mode=False)
    one, other = read_file(tmp_path / "l.csv"), read_file(tmp_path / "l.parquet")
    assert one.recording_ids == other.recording_ids and one.labels == ("AF later",)
    assert one.task == "classes" and one.values.tolist() == other.values.tolist()
    labels = pq.read_table(tmp_path / "meds.parquet")
    meds.LabelSchema.validate(labels)
    assert labels.schema.equals(LABELS)
    assert sum(labels["boolean_value"].to_pylist()) == one.values.sum() and len(labels) == len(one.values)
    assert "simulated data" in capsys.readouterr().out


def test_what_cannot_be_labelled_is_told(tmp_path: Path) -> None:
    place = study(tmp_path, [(0, day(-1), "ICD10CM/I50.9")], [NOW])
    with pytest.raises(EinthovenError, match="no recording can be labelled \\(1 had_it_before\\)"):
        labels_of(place, FAILURE)
    with pytest.raises(EinthovenError, match="no code matches --code ICD10CM/J\\*"):
        labels_of(place, Outcome(name="x", patterns=("ICD10CM/J*",), within=1))
    for wrong in ({"within": 0}, {"within": 5, "gap": 5}, {"patterns": ("",)}, {"within": float("nan")}):
        with pytest.raises(EinthovenError, match="expected"):
            Outcome(**{"name": "x", "patterns": ("a",), "within": 1.0, **wrong})

import csv
from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pytest

from einthoven import pipeline, schema
from einthoven.config import Source
from einthoven.evaluation.labels import ORDER, SNOMED_FILE, own_findings, super_classes
from einthoven.study import write_table

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def rows(table, columns):
    length = len(next(iter(columns.values())))
    return pa.table({f.name: pa.array(columns.get(f.name, [None] * length), f.type) for f in table.columns})


def test_a_recordings_own_codes_give_its_classes_and_only_they(tmp_path):
    recordings = {"recording_id": ["r1", "r2", "r3", "r4"], "subject_id": [1, 1, 2, 3], "split": ["train"] * 4}
    write_table(schema.RECORDINGS, tmp_path, rows(schema.RECORDINGS, recordings))
    codes = {
        "code": ["SCP//IMI", "SCP//LVH", "SCP//NORM", "SCP//SR", "AGE", "SCP_SUBCLASS//IMI"],
        "parent_codes": [
            ["SCP_CLASS//MI", "ICD//I21"],
            ["SCP_CLASS//HYP"],
            ["SCP_CLASS//NORM"],
            [],
            None,
            ["SCP_CLASS//MI"],
        ],
    }
    write_table(schema.CODES, tmp_path, rows(schema.CODES, codes))
    events = {
        "subject_id": [1, 1, 1, 2, 3, 3],
        "code": ["SCP//IMI", "SCP//LVH", "SCP//NORM", "SCP//SR", "SCP//IMI", "UNKNOWN"],
        "numeric_value": [0.0, 100.0, 100.0, 0.0, 50.0, None],  # a likelihood of 0 counts, as published
        "recording_id": ["r1", "r1", "r2", "r3", None, "r4"],  # r4's patient has an event of no recording
    }
    write_table(schema.EVENTS, tmp_path, rows(schema.EVENTS, events))
    found = super_classes(tmp_path)
    assert found.classes == ("NORM", "MI", "HYP")
    assert found.recording_ids == ("r1", "r2")
    assert found.labels.tolist() == [[False, True, True], [True, False, False]]
    assert found.without_class == 2
    assert found.codes_of == {"NORM": ("SCP//NORM",), "MI": ("SCP//IMI",), "HYP": ("SCP//LVH",)}


def test_a_study_without_classes_has_no_rows(tmp_path):
    write_table(
        schema.RECORDINGS,
        tmp_path,
        rows(schema.RECORDINGS, {"recording_id": ["r1"], "subject_id": [1], "split": ["test"]}),
    )
    write_table(schema.CODES, tmp_path, rows(schema.CODES, {"code": []}))
    write_table(schema.EVENTS, tmp_path, rows(schema.EVENTS, {"code": []}))
    found = super_classes(tmp_path)
    assert found.labels.shape == (0, 0) and found.without_class == 1


def test_own_findings_are_the_recordings_and_no_measurements(tmp_path):
    codes = ["SCP//IMI", "ECG//QRS_DURATION", "SCP//LVH", "DIAGNOSIS//ICD//10//I21", "SCP//IMI"]
    events = {"subject_id": [1, 1, 1, 1, 2], "code": codes, "recording_id": ["r1", "r1", "r1", None, "r2"]}
    write_table(schema.EVENTS, tmp_path, rows(schema.EVENTS, events))
    assert own_findings(tmp_path, ["r2", "r0", "r1"]) == [{"SCP//IMI"}, set(), {"SCP//IMI", "SCP//LVH"}]


def test_snomed_codes_have_the_classes_of_ptb_xls_statements(tmp_path):
    recordings = {"recording_id": list("abcd"), "subject_id": [1, 2, 3, 4], "split": ["train"] * 4}
    write_table(schema.RECORDINGS, tmp_path, rows(schema.RECORDINGS, recordings))
    names = {"a": ("164873001", "426783006"), "b": ("426783006",), "c": ("164889003",), "d": ("59118001", "164865005")}
    pairs = [(who, f"DX//SNOMED//{code}") for who, codes in names.items() for code in codes]
    write_table(schema.CODES, tmp_path, rows(schema.CODES, {"code": sorted({code for _, code in pairs})}))
    events = {
        "subject_id": [1] * len(pairs),
        "code": [code for _, code in pairs],
        "recording_id": [who for who, _ in pairs],
    }
    write_table(schema.EVENTS, tmp_path, rows(schema.EVENTS, events))
    found = super_classes(tmp_path)
    assert found.classes == ("NORM", "MI", "CD", "HYP") and found.recording_ids == ("a", "b", "d")
    expected = [[0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 1, 0]]  # sinus rhythm is normal only where nothing else is said
    assert found.labels.astype(int).tolist() == expected and found.without_class == 1  # atrial fibrillation has none
    assert found.codes_of["NORM"] == ("DX//SNOMED//426783006",) and found.codes_of["HYP"] == ("DX//SNOMED//164873001",)


def test_the_table_of_snomed_codes_is_that_of_the_challenges_and_of_ptb_xl():
    def read(package, name):
        text = files(package).joinpath(name).read_text(encoding="utf-8")
        return list(csv.DictReader(text.splitlines(), delimiter="\t"))

    table = read("einthoven.evaluation", SNOMED_FILE)
    challenge = {row["snomed"]: row["name"] for row in read("einthoven.sources", "challenge_codes.tsv")}
    assert len({row["snomed"] for row in table}) == len(table) == 39
    assert all(challenge[row["snomed"]] == row["name"] and row["class"] in ORDER for row in table)
    statements = SHARED / "ptbxl-1.0.3-100hz" / "scp_statements.csv"
    if not statements.is_file():
        pytest.skip(f"{statements} is not on this machine")
    with statements.open(newline="") as file:
        classes = {row[""]: row["diagnostic_class"] for row in csv.DictReader(file)}
    assert all(classes[row["statement"]] == row["class"] for row in table if row["statement"])


def test_challenge_headers_of_ptb_xl_have_ptb_xls_classes(tmp_path):
    source, labels = SHARED / "cinc2020-2021-mix" / "HR", SHARED / "ptbxl-1.0.3-100hz" / "ptbxl_labels_all.csv"
    if not source.is_dir() or not labels.is_file():
        pytest.skip(f"{source} or {labels} is not on this machine")
    pipeline.ingest(Source(name="challenge", sampling_rate=100), source, tmp_path / "study")
    with labels.open(newline="") as file:
        told = {f"challenge-HR{int(r['ecg_id']):05d}": set(r["superclass"].split(";")) for r in csv.DictReader(file)}
    found = super_classes(tmp_path / "study")
    wrong = {
        name: {c for c, holds in zip(found.classes, row, strict=True) if holds} - told[name]
        for name, row in zip(found.recording_ids, found.labels, strict=True)
    }
    assert len(wrong) == 26
    # of 3 the header says first degree AV block, which the database does not
    assert {name: of for name, of in wrong.items() if of} == {"challenge-HR00003": {"CD"}}

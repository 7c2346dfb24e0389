"""MEDS: events as published, texts as notes, splits as they are official; what is not MEDS is told."""

import json
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import meds
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from einthoven import schema
from einthoven.cli import app
from einthoven.config import Source
from einthoven.errors import EinthovenError
from einthoven.pairing.splits import split_of
from einthoven.pipeline import ingest
from einthoven.study import read_table
from einthoven.waveforms.standardise import to_microvolts
from einthoven.waveforms.store import Store

DAY = datetime(2180, 1, 31, 12)
COLUMNS = meds.DataSchema.schema()


def event(subject: int | None, code: str | None, text: str | None = None, **more: Any) -> dict[str, Any]:
    return {"subject_id": subject, "time": DAY, "code": code, "text_value": text, **more}


def write_events(file: Path, rows: list[dict[str, Any]], columns: pa.Schema = COLUMNS) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    loose = pa.schema([field.with_nullable(True) for field in columns])
    pq.write_table(pa.Table.from_pylist(rows, schema=loose), file, row_group_size=2)


def write_splits(folder: Path, rows: list[tuple[int, str]]) -> None:
    ids, names = zip(*rows, strict=True)
    pq.write_table(
        pa.table({"subject_id": pa.array(ids, pa.int64()), "split": names}), folder / meds.subject_splits_filepath
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards of three subjects, and a list of four recordings beside the dataset."""
    root = tmp_path / "dataset"
    (root / "metadata").mkdir(parents=True)
    write_events(root / "data" / "0.parquet", [event(1, "DX//2"), event(1, "DX//1"), event(1, "REPORT//ECG", "sinus")])
    write_events(
        root / "data" / "more" / "1.parquet", [event(2, "REPORT//X", "quiet"), event(3, "LAB", numeric_value=1)]
    )
    write_list(root, "a,1,,\nb,2,,\nc,3,,\nd,9,,\n")
    return root


def write_list(folder: Path, lines: str) -> None:
    (folder.parent / "ecgs.csv").write_text("recording_id,subject_id,split,file\n" + lines)


def run(folder: Path, **kinds: str) -> tuple[Path, dict[str, Any]]:
    study = folder.parent / "study"
    patterns = {name.replace("__", "//").replace("_any", "*"): kind for name, kind in kinds.items()}
    source = Source(name="meds", recordings=str(folder.parent / "ecgs.csv"), note_kinds=patterns)
    return study, ingest(source, folder, study).counts


def table(of: schema.Table, study: Path) -> list[dict[str, Any]]:
    return read_table(of, study).to_pylist()


def test_a_dataset_becomes_a_study(folder: Path) -> None:
    study, counts = run(folder)
    splits = [split_of(subject) for subject in (1, 2, 3, 9)]
    assert counts == {
        "data_kind": "real",
        "recordings": {name: splits.count(name) for name in schema.SPLITS},
        "without_signal": 4,
        "flags": {},
        "subjects": 4,
        "subjects_without_events": 1,
        "subjects_split_by_hash": 4,
        "events": 5,
        "codes_without_metadata": 5,
        "notes": 0,
        "texts": {"not_notes": 2, "blank": 0},
        "excluded": {},
    }
    events = table(schema.EVENTS, study)
    assert [(e["subject_id"], e["code"]) for e in events] == [
        (1, "DX//1"), (1, "DX//2"), (1, "REPORT//ECG"), (2, "REPORT//X"), (3, "LAB"),
    ]  # fmt: skip
    assert events[4] == {
        "subject_id": 3,
        "time": DAY,
        "code": "LAB",
        "numeric_value": 1.0,
        "text_value": None,
        "recording_id": None,
    }
    assert [c["code"] for c in table(schema.CODES, study)] == ["DX//1", "DX//2", "LAB", "REPORT//ECG", "REPORT//X"]
    assert table(schema.NOTES, study) == table(schema.EXCLUDED, study) == []
    assert not (study / ".scratch").exists() and not (study / schema.WAVEFORMS).exists()


def test_texts_become_notes_by_code_then_by_pattern(folder: Path) -> None:
    write_events(
        folder / "data" / "2.parquet",
        [event(4, "NOTE//echo", "ef 60"), event(4, "REPORT//X", " \n"), event(4, "TEXT", "?")],
    )
    study, counts = run(folder, REPORT___any="clinical", REPORT__ECG="ecg")
    notes = {n["code"]: n for n in table(schema.NOTES, study)}
    assert {code: (n["kind"], n["text"], n["subject_id"]) for code, n in notes.items()} == {
        "REPORT//ECG": ("ecg", "sinus", 1),
        "REPORT//X": ("clinical", "quiet", 2),
        "NOTE//echo": ("echo", "ef 60", 4),
    }
    assert (counts["notes"], counts["texts"], counts["events"]) == (3, {"not_notes": 1, "blank": 1}, 8)
    assert notes["REPORT//ECG"]["note_id"] == "meds-1-1" and notes["REPORT//ECG"]["time"] == DAY


def test_note_ids_do_not_depend_on_shards(folder: Path) -> None:
    rows = [event(5, "NOTE//ecg", text) for text in ("one", "two", "two", "three")]
    write_events(folder / "data" / "2.parquet", rows)
    first = table(schema.NOTES, run(folder)[0])
    write_events(folder / "data" / "2.parquet", rows[::-1])
    assert table(schema.NOTES, run(folder)[0]) == first and len({n["note_id"] for n in first}) == 4


def test_extra_columns_and_the_recording_stay(folder: Path) -> None:
    columns = pa.schema([*COLUMNS, ("unit", pa.dictionary(pa.int32(), pa.string())), ("recording_id", pa.string())])
    rows = [event(5, "NOTE//ecg", "text", recording_id="a", unit=None), event(5, "K", unit="mmol", recording_id=None)]
    write_events(folder / "data" / "2.parquet", rows, columns)
    study, _ = run(folder)
    found = read_table(schema.EVENTS, study)
    assert found.schema.field("unit").type == pa.dictionary(pa.int32(), pa.string())
    assert [(e["code"], e["unit"], e["recording_id"]) for e in found.to_pylist()[-2:]] == [
        ("K", "mmol", None), ("NOTE//ecg", None, "a"),
    ]  # fmt: skip
    assert table(schema.NOTES, study)[0]["recording_id"] == "a"


def test_columns_that_may_be_absent_and_writers_that_differ(folder: Path) -> None:
    """Polars writes large strings; MEDS lets both values be left out."""
    columns = pa.schema([*list(COLUMNS)[:2], ("code", pa.large_string())])
    write_events(folder / "data" / "0.parquet", [event(1, "A")], columns)
    write_events(folder / "data" / "more" / "1.parquet", [event(2, "B")], columns)
    study, counts = run(folder)
    assert counts["events"] == 2 and read_table(schema.EVENTS, study).schema.equals(schema.EVENTS.columns)


def test_rows_without_subject_or_code_are_listed(folder: Path) -> None:
    write_events(
        folder / "data" / "2.parquet",
        [event(5, "A"), event(5, "B"), event(None, "C"), event(6, None), event(6, "D"), event(None, None)],
    )
    study, counts = run(folder)
    assert counts["excluded"] == {"bad-row": 3} and counts["events"] == 8
    assert [(e["source_file"], e["source_row"], e["detail"]) for e in table(schema.EXCLUDED, study)] == [
        ("data/2.parquet", 3, "column subject_id: empty"),
        ("data/2.parquet", 4, "column code: empty"),
        ("data/2.parquet", 6, "column subject_id: empty"),
    ]


def test_official_splits_are_honoured(folder: Path) -> None:
    write_splits(folder, [(1, "held_out"), (2, "tuning"), (77, "train")])
    write_list(folder, "a,1,test,\nb,2,,\nc,3,validation,\nd,9,,\n")
    study, counts = run(folder)
    assert {r["recording_id"]: r["split"] for r in table(schema.RECORDINGS, study)} == {
        "a": "test", "b": "validation", "c": "validation", "d": split_of(9),
    }  # fmt: skip
    assert counts["subjects_split_by_hash"] == 1


def test_signals_lie_below_the_list(folder: Path) -> None:
    values = np.cumsum(np.random.default_rng(0).integers(-9, 10, (12, 5000)), axis=1).astype(np.int16)
    lines = ["x 12 500 5000"] + [
        f"x.dat 16 1000.0(0)/mV 16 0 0 {v.astype(int).sum() & 0xFFFF} 0 {n}"
        for v, n in zip(values, schema.LEADS, strict=True)
    ]
    (folder.parent / "x.hea").write_text("\n".join(lines) + "\n")
    (folder.parent / "x.dat").write_bytes(values.T.astype("<i2").tobytes())
    write_list(folder, "a,1,,x\nb,2,,gone\nc,3,,../x\n")
    study, counts = run(folder)
    assert counts["without_signal"] == 1 and counts["excluded"] == {"outside-folder": 1}
    assert np.array_equal(Store.open(study).read([0])[0], values)


def test_code_metadata_is_kept(folder: Path) -> None:
    codes = {
        "code": ["LAB", None, "DX//1", "LAB", "UNUSED"],
        "description": ["lab", "x", None, "again", "u"],
        "loinc": [1, 2, 3, 4, 5],
    }
    pq.write_table(pa.table(codes), folder / meds.code_metadata_filepath)
    study, counts = run(folder)
    found = table(schema.CODES, study)
    assert [(c["code"], c["description"], c["loinc"]) for c in found if c["loinc"]] == [
        ("DX//1", None, 3), ("LAB", "lab", 1), ("UNUSED", "u", 5),
    ]  # fmt: skip
    assert counts["codes_without_metadata"] == 3 and counts["excluded"] == {"bad-row": 1, "duplicate-code": 1}
    assert [(e["source_file"], e["source_row"]) for e in table(schema.EXCLUDED, study)] == [
        (meds.code_metadata_filepath, 2),
        (meds.code_metadata_filepath, 4),
    ]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("subject_id", pa.int32()),
        ("subject_id", pa.string()),
        ("time", pa.timestamp("ns")),
        ("time", pa.timestamp("us", "UTC")),
        ("time", pa.date32()),
        ("code", pa.dictionary(pa.int32(), pa.string())),
        ("numeric_value", pa.float64()),
        ("text_value", pa.binary()),
        ("recording_id", pa.int64()),
        ("einthoven_note_id", pa.int64()),
    ],
)
def test_a_column_of_another_type_is_told(folder: Path, column: str, kind: pa.DataType) -> None:
    fields = {field.name: field.type for field in COLUMNS} | {column: kind}
    write_events(folder / "data" / "x.parquet", [], pa.schema(list(fields.items())))
    with pytest.raises(EinthovenError) as caught:
        run(folder)
    assert f"x.parquet: column {column!r} is {kind}, expected" in str(caught.value)


def test_a_column_of_two_types_is_told(folder: Path) -> None:
    for name, kind in (("x", pa.int64()), ("y", pa.int32())):
        write_events(folder / "data" / f"{name}.parquet", [], pa.schema([*COLUMNS, ("extra", kind)]))
    with pytest.raises(
        EinthovenError, match=r"y.parquet: column 'extra' is int32, expected int64 as in data/x.parquet"
    ):
        run(folder)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (list(COLUMNS)[:2], r"column 'code' \(string\) is missing"),
        ([*COLUMNS, ("Code", pa.string())], "column 'Code' comes twice"),
        ([*COLUMNS, ("x", pa.decimal256(70, 2))], "column 'x' is decimal.*, which is not kept"),
        ([*COLUMNS, ("x", pa.list_(pa.time64("ns")))], "column 'x' is .*, which is not kept"),
        ([*COLUMNS, ("x", pa.timestamp("ns", "UTC"))], "column 'x' is .*, which is not kept"),
    ],
)
def test_other_columns_that_cannot_be(folder: Path, columns: list[Any], told: str) -> None:
    write_events(folder / "data" / "x.parquet", [], pa.schema(columns))
    with pytest.raises(EinthovenError, match=told):
        run(folder)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([(1, "train"), (2, "external")], "row 2, column split: expected one of train, tuning, held_out"),
        ([(1, "train"), (2, None)], "row 2, column split"),
        ([(1, "train"), (None, "train")], "row 2, column subject_id: empty"),
        ([(1, "train"), (2, "train"), (1, "tuning")], "row 1: this subject is in two splits"),
    ],
)
def test_splits_that_are_none(folder: Path, rows: list[Any], told: str) -> None:
    write_splits(folder, rows)
    with pytest.raises(EinthovenError, match=told):
        run(folder)


def test_a_list_against_the_official_split_is_told(folder: Path) -> None:
    write_splits(folder, [(1, "held_out"), (2, "train")])
    write_list(folder, "b,2,,\na,1,train,\n")
    with pytest.raises(
        EinthovenError, match=r"ecgs.csv, row 2, column split: the subject is in 'held_out'.*'test' here"
    ):
        run(folder)


def spoil_about(folder: Path) -> None:
    (folder / meds.dataset_metadata_filepath).write_text("[1]")


def spoil_kind(folder: Path) -> None:
    (folder / meds.dataset_metadata_filepath).write_text(json.dumps({"data_kind": "unreal"}))


def spoil_shard(folder: Path) -> None:
    file = folder / "data" / "0.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:4] + bytes(len(content) - 400) + content[-396:])


def spoil_shard_with_nulls(folder: Path) -> None:
    write_events(folder / "data" / "0.parquet", [event(None, "A"), event(1, None)])
    spoil_shard(folder)


def spoil_list(folder: Path) -> None:
    write_list(folder, "")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (spoil_about, "expected a JSON object"),
        (spoil_kind, "data_kind, where it is given, is one of real"),
        (spoil_shard, "could not be made|cannot be read|damaged"),
        (spoil_shard_with_nulls, r"0\.parquet cannot be read"),
        (spoil_list, "no recording can be used"),
        (lambda folder: (folder / "data" / "x.parquet").write_bytes(b"PAR1"), "x.parquet cannot be read"),
        (lambda folder: (folder / "data").rename(folder / "events"), "holds no .*parquet: give the directory"),
        (lambda folder: (folder.parent / "ecgs.csv").unlink(), "ecgs.csv: no such table of recordings"),
    ],
)
def test_what_is_no_dataset(folder: Path, spoil: Any, told: str) -> None:
    spoil(folder)
    with pytest.raises(EinthovenError, match=told):
        run(folder)


def test_without_a_list_of_recordings_it_is_told_how_to_make_one(folder: Path) -> None:
    with pytest.raises(EinthovenError, match=r"recordings = .*recording_id, subject_id"):
        ingest(Source(name="meds"), folder, folder.parent / "study")


def test_a_simulated_dataset_stays_simulated(folder: Path) -> None:
    (folder / meds.dataset_metadata_filepath).write_text(json.dumps({"data_kind": "simulated"}))
    assert run(folder)[1]["data_kind"] == "simulated"


def test_recordings_in_the_formats_of_devices(folder: Path, make: ModuleType) -> None:
    write_list(folder, "a,1,,muse.xml\nb,2,,ecg.dcm\nc,3,,scan.pdf\n")
    (folder.parent / "muse.xml").write_bytes(make.muse())
    (folder.parent / "ecg.dcm").write_bytes(make.dicom())
    (folder.parent / "scan.pdf").write_bytes(b"%PDF-1.7")
    study = folder.parent / "study"
    told = CliRunner().invoke(
        app, ["ingest", "meds", str(folder), str(study), "--set", f"source.recordings={folder.parent / 'ecgs.csv'}"]
    )
    assert told.exit_code == 0, told.output
    rows = table(schema.RECORDINGS, study)
    assert [(r["recording_id"], r["row"], r["leads"], r["source_rate"]) for r in rows] == [
        ("a", 0, 4095, 500.0), ("b", 1, 4095, 500.0),
    ]  # fmt: skip
    assert [e["reason"] for e in table(schema.EXCLUDED, study)] == ["unknown-format"]
    expected = to_microvolts(make.MILLIVOLTS)
    for signal in Store.open(study).read([0, 1]):
        assert np.array_equal(signal[make.EIGHT, : make.COUNT], expected[make.EIGHT])
    assert make.SECRET.encode() not in b"".join(f.read_bytes() for f in study.rglob("*") if f.is_file())

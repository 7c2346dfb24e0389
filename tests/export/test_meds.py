"""The round trip through MEDS is exact, and what is exported is MEDS by the standard's own schemas."""

import json
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import meds
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from einthoven import cli, pipeline, schema
from einthoven.config import Source
from einthoven.errors import EinthovenError
from einthoven.export import meds as exporter
from einthoven.pairing.splits import split_of
from einthoven.study import read_table

EXTRA = {
    "unit": pa.string(),
    "hadm_id": pa.int32(),
    "bedside": pa.bool_(),
    "end": pa.timestamp("us", "Europe/Berlin"),
    "cost": pa.decimal128(9, 2),
    "tags": pa.large_list(pa.large_string()),
    "priority": pa.dictionary(pa.int32(), pa.string()),
    "recording_id": pa.string(),
    "nothing": pa.null(),
    "fine": pa.timestamp("ns"),
    "parts": pa.list_(pa.struct([("of", pa.list_(pa.float16()))])),
}
KINDS = {"REPORT//ECG": "ecg", "REPORT//*": "clinical"}
CODES = ("LAB//1", "REPORT//ECG", "REPORT//DISCHARGE", "NOTE//echo", "TEXT//OTHER", "MEDS_BIRTH", "Æ//∅")
FEW_SUBJECTS = (-3, 0, 7, 2**62)
LONG_AGO = datetime(1, 1, 1)
MEDS_SPLIT = {"train": "train", "validation": "tuning", "test": "held_out"}


def cells(kind: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_timestamp(kind):
        return st.datetimes(datetime(1950, 1, 1), datetime(2200, 1, 1))
    return {
        pa.int32(): st.integers(-(2**31), 2**31 - 1),
        pa.bool_(): st.booleans(),
        pa.decimal128(9, 2): st.decimals(-9999, 9999, places=2),
        pa.large_list(pa.large_string()): st.lists(st.text(max_size=3), max_size=2),
        pa.null(): st.none(),
        EXTRA["parts"]: st.just([{"of": [1.5, None]}, None]),
    }.get(kind, st.text(max_size=5))


def rows(extra: list[str]) -> st.SearchStrategy[list[dict[str, Any]]]:
    columns = {
        "subject_id": st.sampled_from(FEW_SUBJECTS),
        "time": st.none() | st.datetimes(datetime(1890, 1, 1), datetime(2200, 1, 1)),
        "code": st.sampled_from(CODES),
        "numeric_value": st.none() | st.floats(width=32, allow_nan=False),
        "text_value": st.none() | st.text(max_size=12) | st.just(" "),
    }
    columns |= {name: st.none() | cells(EXTRA[name]) for name in extra}
    return st.lists(st.fixed_dictionaries(columns), max_size=12)


@st.composite
def datasets(draw: Any) -> dict[str, Any]:
    extra = draw(st.lists(st.sampled_from(sorted(EXTRA)), unique=True))
    return {
        "extra": extra,
        "rows": draw(rows(extra)),
        "splits": draw(
            st.dictionaries(st.sampled_from((*FEW_SUBJECTS, 99)), st.sampled_from(list(MEDS_SPLIT.values())))
        ),
        "described": draw(st.sets(st.sampled_from(CODES))),
        "files": draw(st.sampled_from((("0",), ("train/0", "tuning/0"), ("a=1/x", "b/c/0", "b/c/1")))),
        "name": draw(st.none() | st.text(max_size=5)),
    }


def write_dataset(folder: Path, made: dict[str, Any]) -> None:
    """A valid MEDS dataset: each subject in one file, by time."""
    columns = pa.schema([*meds.DataSchema.schema(), *((name, EXTRA[name]) for name in made["extra"])])
    order = sorted(made["rows"], key=lambda r: (r["subject_id"], r["time"] is not None, r["time"] or LONG_AGO))
    for place, name in enumerate(made["files"]):
        file = folder / "data" / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        part = [r for r in order if FEW_SUBJECTS.index(r["subject_id"]) % len(made["files"]) == place]
        pq.write_table(pa.Table.from_pylist(part, schema=columns), file)
    (folder / "metadata").mkdir()
    codes = sorted(made["described"] | {r["code"] for r in made["rows"]})
    described = {
        "description": [None if i == 1 else "ä" for i in range(len(codes))],
        "parent_codes": [[c] for c in codes],
    }
    columns = pa.schema([*meds.CodeMetadataSchema.schema(), ("frequency", pa.int16())])
    codes = pa.table({"code": codes, **described, "frequency": range(len(codes))}, schema=columns)
    pq.write_table(codes, folder / meds.code_metadata_filepath)
    splits = pa.table([list(made["splits"]), list(made["splits"].values())], schema=meds.SubjectSplitSchema.schema())
    pq.write_table(splits, folder / meds.subject_splits_filepath)
    about = {"meds_version": "0.4.1", "etl_name": "other", "code_modifier_columns": ["unit"]}
    about |= {} if made["name"] is None else {"dataset_name": made["name"]}
    (folder / meds.dataset_metadata_filepath).write_text(json.dumps(about))
    (folder.parent / "ecgs.csv").write_text(
        "recording_id,subject_id\n" + "".join(f"r{s},{s}\n" for s in (*FEW_SUBJECTS, 5))
    )


def read_data(folder: Path) -> pa.Table:
    """All events; checks what MEDS asks of shards."""
    parts, owners = [], Counter[int]()
    for file in sorted((folder / "data").rglob("*.parquet")):
        part = pq.ParquetFile(file).read()
        meds.DataSchema.validate(part)
        keys = [
            (s, t is not None, t or LONG_AGO)
            for s, t in zip(*(part[c].to_pylist() for c in ("subject_id", "time")), strict=True)
        ]
        assert keys == sorted(keys)
        owners.update(set(part["subject_id"].to_pylist()))
        parts.append(part)
    assert set(owners.values()) <= {1}
    return pa.concat_tables(parts)


def multiset(table: pa.Table, names: list[str]) -> Counter[str]:
    return Counter(repr(list(row.items())) for row in table.select(names).to_pylist())


def source(folder: Path, **changes: Any) -> Source:
    return Source(name="meds", recordings=str(folder / "ecgs.csv"), note_kinds=KINDS, **changes)


def assert_valid(folder: Path) -> None:
    meds.CodeMetadataSchema.validate(pq.ParquetFile(folder / meds.code_metadata_filepath).read())
    meds.SubjectSplitSchema.validate(pq.ParquetFile(folder / meds.subject_splits_filepath).read())
    meds.DatasetMetadataSchema.validate(json.loads((folder / meds.dataset_metadata_filepath).read_text()))


def assert_same_study(first: Path, second: Path, tables: tuple[schema.Table, ...]) -> None:
    for table in tables:
        one, two = (pq.ParquetFile(table.at(study)).read() for study in (first, second))
        assert one.schema.equals(two.schema) and one.to_pylist() == two.to_pylist(), table.path


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(made=datasets())
def test_the_round_trip_is_exact(tmp_path_factory: pytest.TempPathFactory, made: dict[str, Any]) -> None:
    """export(ingest(X)) is X, and ingest(export(study)) is the study."""
    folder: Path = tmp_path_factory.mktemp("meds")
    write_dataset(folder / "X", made)
    pipeline.ingest(source(folder), folder / "X", folder / "study")
    pipeline.export_meds(folder / "study", folder / "Y")
    assert_valid(folder / "Y")
    before, after = read_data(folder / "X"), read_data(folder / "Y")
    names = [
        name for name in before.column_names if name != "recording_id" or before[name].null_count < before.num_rows
    ]
    assert set(after.column_names) == set(names)
    assert all(after.schema.field(name).type == before.schema.field(name).type for name in names)
    assert multiset(after, names) == multiset(before, names)
    codes = [pq.ParquetFile(folder / d / meds.code_metadata_filepath).read() for d in "XY"]
    assert codes[0].equals(codes[1].cast(codes[0].schema))
    splits = [dict(pq.read_table(folder / d / meds.subject_splits_filepath).to_pydict().items()) for d in "XY"]
    official, given = (dict(zip(s["subject_id"], s["split"], strict=True)) for s in splits)
    hashed = {s: MEDS_SPLIT[split_of(s)] for s in (*FEW_SUBJECTS, 5) if s not in official}
    assert given == official | hashed
    about = [json.loads((folder / d / meds.dataset_metadata_filepath).read_text()) for d in "XY"]
    assert about[1] == about[0] | {"data_kind": "real"}
    pipeline.ingest(Source(name="meds", note_kinds=KINDS), folder / "Y", folder / "again")
    assert_same_study(folder / "study", folder / "again", (schema.EVENTS, schema.CODES, schema.NOTES))
    pipeline.export_meds(folder / "again", folder / "Z")
    assert read_data(folder / "Z").equals(after)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study: Path = tmp_path_factory.mktemp("simulated") / "study"
    pipeline.ingest(Source(name="simulated", subjects=25), None, study)
    return study


def test_a_study_of_another_source_comes_back(simulated: Path, tmp_path: Path) -> None:
    """Its notes are no events: they travel as events and return as notes."""
    counts = pipeline.export_meds(simulated, tmp_path / "OUT").counts
    assert_valid(tmp_path / "OUT")
    events, notes = read_table(schema.EVENTS, simulated), read_table(schema.NOTES, simulated)
    data = read_data(tmp_path / "OUT").to_pylist()
    assert counts["rows"] == len(data) == events.num_rows + notes.num_rows and notes.num_rows > 0
    texts = Counter(
        (r["subject_id"], r["time"], r["code"], r["text_value"]) for r in data if r["code"].startswith("NOTE//")
    )
    assert texts == Counter((n["subject_id"], n["time"], f"NOTE//{n['kind']}", n["text"]) for n in notes.to_pylist())
    about = json.loads((tmp_path / "OUT" / meds.dataset_metadata_filepath).read_text())
    assert (about["dataset_name"], about["etl_name"], about["data_kind"]) == ("simulated", "einthoven", "simulated")
    assert set(about["other_extension_columns"]) == {"recording_id", "einthoven_note_id"}
    described = set(pq.read_table(tmp_path / "OUT" / meds.code_metadata_filepath)["code"].to_pylist())
    assert {r["code"] for r in data} <= described
    again = pipeline.ingest(Source(name="meds"), tmp_path / "OUT", tmp_path / "again").counts
    assert (again["data_kind"], again["notes"]) == ("simulated", notes.num_rows)
    assert again["without_signal"] == counts["recordings"] and again["subjects_split_by_hash"] == 0
    for table in (schema.EVENTS, schema.NOTES, schema.CODES):
        one, two = read_table(table, simulated), read_table(table, tmp_path / "again")
        assert one.schema.equals(two.schema) and multiset(one, one.column_names) == multiset(two, one.column_names), (
            table.path
        )
    kept = ["recording_id", "subject_id", "time", "split", "age", "age_over_89", "sex", "device", "site"]
    one, two = read_table(schema.RECORDINGS, simulated), read_table(schema.RECORDINGS, tmp_path / "again")
    assert multiset(one, kept) == multiset(two, kept)
    pipeline.export_meds(tmp_path / "again", tmp_path / "OUT2")
    assert read_data(tmp_path / "OUT2").equals(read_data(tmp_path / "OUT"))


def test_shards_are_bounded_and_divide_no_subject(
    simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "SHARD_ROWS", 40)
    counts = pipeline.export_meds(simulated, tmp_path / "OUT").counts
    files = list((tmp_path / "OUT" / "data").rglob("*.parquet"))
    rows = read_data(tmp_path / "OUT")
    largest = max(Counter(rows["subject_id"].to_pylist()).values())
    assert len(files) == counts["shards"] > 4 and rows.num_rows == counts["rows"]
    assert all(pq.read_metadata(file).num_rows < 40 + largest for file in files)
    splits = pq.read_table(tmp_path / "OUT" / meds.subject_splits_filepath).to_pylist()
    split = {row["subject_id"]: row["split"] for row in splits}
    assert all({split[s] for s in pq.read_table(f)["subject_id"].to_pylist()} == {f.parent.name} for f in files)
    assert {
        split[r["subject_id"]] == MEDS_SPLIT[r["split"]] for r in read_table(schema.RECORDINGS, simulated).to_pylist()
    } == {True}


def test_a_second_export_does_nothing_and_a_foreign_directory_is_safe(
    simulated: Path, tmp_path: Path, capsys: Any
) -> None:
    command = ["export", "meds", str(simulated), str(tmp_path / "OUT")]
    cli.app(command, standalone_mode=False)
    cli.app(command, standalone_mode=False)
    said = capsys.readouterr().out
    assert "waveforms not copied" in said and "unchanged, nothing to do" in said
    (tmp_path / "OUT" / "recordings.parquet").unlink()
    assert pipeline.export_meds(simulated, tmp_path / "OUT").fresh
    assert sorted(p.name for p in tmp_path.iterdir()) == ["OUT"]
    foreign = tmp_path / "foreign"
    write_dataset(foreign, {"extra": [], "rows": [], "splits": {}, "described": set(), "files": ("0",), "name": "x"})
    before = sorted(foreign.rglob("*"))
    with pytest.raises(EinthovenError, match="exists and holds no export"):
        pipeline.export_meds(simulated, foreign)
    assert sorted(foreign.rglob("*")) == before
    with pytest.raises(EinthovenError, match="holds the study itself"):
        pipeline.export_meds(simulated, simulated.parent)
    with pytest.raises(EinthovenError, match="not a complete study"):
        pipeline.export_meds(tmp_path / "OUT", tmp_path / "other")
    with pytest.raises(EinthovenError, match="unknown format; known: meds"):
        cli.app(["export", "csv", str(simulated), str(tmp_path / "other")], standalone_mode=False)


def test_what_a_killed_export_left_goes(simulated: Path, tmp_path: Path) -> None:
    (tmp_path / ".OUT.1.tmp" / "data").mkdir(parents=True)
    (tmp_path / "OUT.exporting" / "spill").mkdir(parents=True)
    (tmp_path / "OUT.exporting" / "work.duckdb").write_bytes(b"half")
    pipeline.export_meds(simulated, tmp_path / "OUT")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["OUT"]

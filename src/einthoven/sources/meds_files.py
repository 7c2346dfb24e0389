"""A MEDS 0.4 dataset on disk: where its files lie, what their columns must be, what it says of itself.

Of Arrow's types for one thing any is taken (`string`, `large_string`, `string_view`; lists likewise), since Parquet
stores them alike and writers differ. All else must be as MEDS has it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.sources.faults import reading

DATA: Final = "data"
CODES: Final = "metadata/codes.parquet"
SUBJECT_SPLITS: Final = "metadata/subject_splits.parquet"
DATASET: Final = "metadata/dataset.json"
RECORDINGS: Final = "recordings.parquet"
"""At the root of what we export, in the columns of archive.py."""

SPLITS: Final = {"train": "train", "tuning": "validation", "held_out": "test"}
"""MEDS's name of a split -> ours."""

NOTE: Final = "NOTE//"
"""Followed by one of NOTE_KINDS: the code under which a note that was no event is exported."""

NOTE_ID: Final = "einthoven_note_id"
"""The extra column that tells such a row from the events; it holds the note's id."""

MAX_JSON: Final = 1 << 20  # bytes of dataset.json
BATCH: Final = 1 << 18

SPLIT_COLUMNS: Final = pa.schema([("subject_id", pa.int64()), ("split", pa.string())])


@dataclass(frozen=True)
class Shards:
    """The files of `data/`, and the columns that any of them has beyond those of schema.EVENTS."""

    files: tuple[Path, ...]
    present: frozenset[str]  # of schema.EVENTS
    extra: pa.Schema
    rows: int


def shards(folder: Path) -> Shards:
    """The event files, their columns checked; EinthovenError naming file and column where one is not as it must be."""
    files = sorted(f for f in (folder / DATA).rglob("*.parquet") if not f.name.startswith(".") and f.is_file())
    if not files:
        raise EinthovenError(f"{folder / DATA} holds no *.parquet: give the directory of a MEDS dataset, above `data`.")
    extra: dict[str, pa.Field] = {}
    origin: dict[str, Path] = {}
    present: set[str] = set()
    rows = 0
    for file in files:
        found = columns_of(file, schema.EVENTS.columns, ("subject_id", "time", "code"))
        rows += pq.read_metadata(file).num_rows
        for field in found:
            if field.name in schema.EVENTS.columns.names:
                present.add(field.name)
            elif extra.setdefault(field.name, field.remove_metadata().with_nullable(True)).type != field.type:
                other = f"{extra[field.name].type} as in {origin[field.name].relative_to(folder)}"
                raise EinthovenError(f"{file}: column {field.name!r} is {field.type}, expected {other}.")
            elif _finer_than_duckdb(field.type):
                raise EinthovenError(f"{file}: column {field.name!r} is {field.type}, which is not kept; convert it.")
            origin.setdefault(field.name, file)
    _refuse_twins([*schema.EVENTS.columns.names, *extra], folder / DATA)
    if NOTE_ID in extra and not _same(extra[NOTE_ID].type, pa.string()):
        raise EinthovenError(f"{origin[NOTE_ID]}: column {NOTE_ID!r} is {extra[NOTE_ID].type}, expected string.")
    return Shards(tuple(files), frozenset(present), pa.schema(list(extra.values())), rows)


def columns_of(file: Path, expected: pa.Schema, required: tuple[str, ...]) -> pa.Schema:
    """The columns of a Parquet file; those in `expected` must have its types, and `required` ones be there."""
    with reading(file):
        found = pq.read_schema(file)
    _refuse_twins(found.names, file)
    for field in expected:
        if field.name in found.names:
            kind = found.field(field.name).type
            if not _same(kind, field.type):
                raise EinthovenError(f"{file}: column {field.name!r} is {kind}, expected {field.type}; convert it.")
        elif field.name in required:
            raise EinthovenError(f"{file}: column {field.name!r} ({field.type}) is missing.")
    return found


def _refuse_twins(names: list[str], where: Path) -> None:
    """DuckDB does not tell columns apart by case."""
    seen: set[str] = set()
    for name in names:
        if name.casefold() in seen:
            raise EinthovenError(f"{where}: column {name!r} comes twice, perhaps in another case; rename one.")
        seen.add(name.casefold())


def _same(found: pa.DataType, expected: pa.DataType) -> bool:
    return _plain(found).equals(_plain(expected))


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_list_view(kind):
        return pa.list_(_plain(kind.value_type))
    return kind


def _finer_than_duckdb(kind: pa.DataType) -> bool:
    """Whether DuckDB would round: decimals of more than 38 digits, nanoseconds of the day or of a zone."""
    if kind.num_fields:
        return any(_finer_than_duckdb(kind.field(i).type) for i in range(kind.num_fields))
    zoned = pa.types.is_timestamp(kind) and kind.unit == "ns" and kind.tz is not None
    return zoned or kind.equals(pa.time64("ns")) or (pa.types.is_decimal(kind) and kind.precision > 38)


def rows_without_key(file: Path, name: str) -> Iterator[pa.RecordBatch]:
    """EXCLUDED rows, in batches, for rows without subject or code; row groups known to have none are skipped."""
    with pq.ParquetFile(file) as parquet:
        first = 1
        for group in range(parquet.num_row_groups):
            whole = parquet.metadata.row_group(group)
            start, first = first, first + whole.num_rows
            if not _may_have_nulls(whole):
                continue
            for batch in parquet.iter_batches(BATCH, row_groups=[group], columns=["subject_id", "code"]):
                yield _without_key(batch, start, name)
                start += batch.num_rows


def _may_have_nulls(group: Any) -> bool:
    chunks = (group.column(i) for i in range(group.num_columns))
    keys = [chunk.statistics for chunk in chunks if chunk.path_in_schema in ("subject_id", "code")]
    return any(found is None or not found.has_null_count or found.null_count for found in keys)


def _without_key(batch: pa.RecordBatch, start: int, name: str) -> pa.RecordBatch:
    no_subject, no_code = (pc.is_null(batch[column]) for column in ("subject_id", "code"))
    numbers = pa.array(range(start, start + batch.num_rows), pa.int64()).filter(pc.or_(no_subject, no_code))
    details = pc.if_else(no_subject, "column subject_id: empty", "column code: empty")
    return pa.RecordBatch.from_arrays(
        [
            pa.nulls(len(numbers), pa.string()),
            pa.array([name] * len(numbers), pa.string()),
            numbers,
            pa.array(["bad-row"] * len(numbers), pa.string()),
            details.filter(pc.or_(no_subject, no_code)),
        ],
        schema=schema.EXCLUDED.columns,
    )


def subject_splits(folder: Path) -> pa.Table:
    """The official splits, one row per subject, by subject; empty where the dataset has none.

    EinthovenError naming the row for a split that is not one of SPLITS and for a subject that is in two.
    """
    file = folder / SUBJECT_SPLITS
    if not file.exists():
        return SPLIT_COLUMNS.empty_table()
    found = columns_of(file, SPLIT_COLUMNS, tuple(SPLIT_COLUMNS.names))
    beyond = set(found.names) - set(SPLIT_COLUMNS.names)
    if beyond:
        raise EinthovenError(f"{file}: column {min(beyond)!r} has no place here; MEDS allows subject_id and split.")
    table = read(file).select(SPLIT_COLUMNS.names).cast(SPLIT_COLUMNS)
    row = pc.index(pc.is_valid(table["subject_id"]), False).as_py()
    if row >= 0:
        raise EinthovenError(f"{file}, row {row + 1}, column subject_id: empty; remove the row.")
    row = pc.index(pc.is_in(table["split"], pa.array(list(SPLITS))), False).as_py()
    if row >= 0:
        raise EinthovenError(f"{file}, row {row + 1}, column split: expected one of {', '.join(SPLITS)}; correct it.")
    distinct = table.group_by(SPLIT_COLUMNS.names).aggregate([]).select(SPLIT_COLUMNS.names).sort_by("subject_id")
    ids = distinct["subject_id"].combine_chunks()
    twice = pc.index(pc.equal(ids[1:], ids[:-1]), True).as_py()
    if twice >= 0:
        row = pc.index(table["subject_id"], ids[twice]).as_py()
        raise EinthovenError(f"{file}, row {row + 1}: this subject is in two splits; a patient belongs to one.")
    return distinct.combine_chunks()


def dataset(folder: Path) -> dict[str, Any]:
    """What `metadata/dataset.json` says; {} where it is not there."""
    file = folder / DATASET
    if not file.exists():
        return {}
    expected = f"{file}: expected a JSON object of at most {MAX_JSON} bytes; correct or remove it."
    if file.stat().st_size > MAX_JSON:
        raise EinthovenError(expected)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise EinthovenError(expected) from None
    if not isinstance(found, dict):
        raise EinthovenError(expected)
    return found


def read(file: Path) -> pa.Table:
    """A whole metadata file, which is bounded by the number of subjects or codes."""
    with reading(file):
        return pq.ParquetFile(file).read()

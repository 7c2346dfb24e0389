"""The tables of a source (CSV, gzipped CSV or Parquet, in any folder) as Ibis expressions, checked row by row.

Files are read once, into a scratch database beside the study, so that sources larger than memory work. A cell that
cannot be understood keeps its row out, into EXCLUDED: nothing is guessed and nothing is lost. Cells are never quoted.
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import duckdb
import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.sources import table_files
from einthoven.study import atomic, remove

DEPTH: Final = 6
ROWS: Final = 1 << 14  # of a batch: 160 MB of discharge letters
GROUP_ROWS, GROUP_BYTES = 1 << 20, 64 << 20
"""A row group of the Parquet files written ends at either."""


@dataclass(frozen=True)
class SourceTable:
    """A table of a source. `rows` has the columns asked for, by lower-case name, and `source_row` (int64, from 1)."""

    file: str  # relative to the source
    rows: Any  # ibis.Table


class Tables:
    """The tables below a folder. Use as `with Tables.of(folder, study) as tables:`."""

    def __init__(self, folder: Path, engine: Any) -> None:
        self.folder, self.engine = folder, engine
        self._files = sorted(_walk(folder, DEPTH))
        self._read = 0

    @classmethod
    @contextmanager
    def of(cls, folder: Path, study: Path) -> Iterator["Tables"]:
        """Open the folder; the scratch database lies below `study` and is deleted at the end."""
        scratch = study / ".scratch"
        remove(scratch)
        scratch.mkdir(parents=True)
        engine = connect(scratch)
        try:
            yield cls(folder, engine)
        finally:
            engine.disconnect()
            shutil.rmtree(scratch, ignore_errors=True)

    def find(self, *stems: str) -> Path | None:
        """The one file whose name without suffix is among `stems`, whatever its case; EinthovenError if several are.

        A stem may be a pattern: "*machine_measurements".
        """
        wanted = [name.casefold() for name in stems]
        found = [f for f in self._files if any(fnmatchcase(table_files.stem(f).casefold(), name) for name in wanted)]
        if len(found) > 1:
            names = " and ".join(str(file.relative_to(self.folder)) for file in found[:2])
            raise EinthovenError(f"{self.folder}: found both {names}. Keep one of them.")
        return found[0] if found else None

    def read(
        self, *stems: str, required: Sequence[str], optional: Sequence[str] = ()
    ) -> tuple[SourceTable, list[dict[str, Any]]] | None:
        """The table of that name, and EXCLUDED rows for lines that do not have as many fields as the heading.

        None if there is no such file; EinthovenError naming the column where a required one is missing. Columns of
        CSV are text ("" is null), those of Parquet have their own types; absent optional columns are null.
        """
        file = self.find(*stems)
        return None if file is None else self.read_file(file, required, optional)

    def read_file(
        self, file: Path, required: Sequence[str], optional: Sequence[str] = ()
    ) -> tuple[SourceTable, list[dict[str, Any]]]:
        """As `read`, for a file named by its path."""
        name = str(file.relative_to(self.folder)) if file.is_relative_to(self.folder) else file.name
        columns = table_files.places(file, required, optional)
        table, self._read = f"source_{self._read}", self._read + 1
        excluded = table_files.load(self.engine, file, table, columns, name)
        return SourceTable(name, self.engine.table(table)), excluded


def connect(scratch: Path) -> Any:
    """A DuckDB database in a directory, which spills there instead of running out of memory."""
    engine = ibis.duckdb.connect(str(scratch / "work.duckdb"), temp_directory=str(scratch / "spill"))
    engine.raw_sql("SET enable_progress_bar = false")
    engine.raw_sql("SET TimeZone = 'UTC'")  # or times with a zone would become those of this machine
    return engine


@dataclass(frozen=True)
class Checked:
    """The rows whose cells all have their type, and EXCLUDED rows (an ibis.Table) for the others."""

    kept: Any  # ibis.Table: the columns checked, typed, and `source_row`
    refused: Any  # ibis.Table: source_file, source_row, reason, detail


def checked(table: SourceTable, types: Mapping[str, str], required: Sequence[str]) -> Checked:
    """Cast columns to Ibis types ("int64", "timestamp(6)", "string"…); `required` ones must not be empty.

    A row that breaks this is refused with the reason bad-row and a detail that names the column, not the cell. Cells
    lose the spaces around them, but for the kind "text", which is kept as it is. A zone after a time is ignored: a
    time is the wall clock's. A NaN is empty. EinthovenError: a Parquet column of a type that cannot be meant.
    """
    rows = table.rows
    cast: dict[str, Any] = {}
    verdict = ibis.null("string")
    for column, kind in reversed(list(types.items())):
        _refuse_type(table.file, column, rows[column].type(), kind)
        cell, value = _cell(rows[column], kind)
        cast[column] = value
        verdict = ibis.ifelse(cell.notnull() & value.isnull(), f"column {column}: expected {_WORDS[kind]}", verdict)
        if column in required:
            verdict = ibis.ifelse(cell.isnull(), f"column {column}: empty", verdict)
    judged = rows.select("source_row", verdict=verdict, **cast)
    refused = judged.filter(judged.verdict.notnull())
    return Checked(
        judged.filter(judged.verdict.isnull()).select("source_row", *types),
        refusals(refused, table.file, "bad-row", refused.verdict),
    )


_WORDS: Final = {
    "int64": "a whole number",
    "float64": "a number",
    "float32": "a number",
    "timestamp(6)": "a date and time such as 2180-01-31 12:00:00",
    "date": "a date such as 2180-01-31",
    "string": "text",
    "text": "text",
}

_NUMBER: Final = r"^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$"
_DATE: Final = r"^[0-9]{4}[-/][0-9]{1,2}[-/][0-9]{1,2}([ T]|$)"
_PATTERNS: Final = {
    "int64": r"^[+-]?[0-9]+([.]0*)?$",
    "float64": _NUMBER,
    "float32": _NUMBER,
    "timestamp(6)": _DATE,
    "date": _DATE,
}
"""What a cell must look like: DuckDB by itself rounds "1.5", and reads "0x10", "5/7/21" and "infinity"."""


def _cell(cell: Any, kind: str) -> tuple[Any, Any]:
    """A column without its empty cells, and its values: null where a cell is not of the kind."""
    found = cell.type()
    if found.is_floating():
        cell = ibis.ifelse(cell.isnan(), ibis.null(found), cell)
        if kind == "int64":
            return cell, ibis.ifelse(cell == cell.floor(), cell.try_cast(kind), ibis.null(kind))
    if not found.is_string():
        return cell, cell.try_cast("string" if kind == "text" else kind)
    if kind == "text":
        cell = ibis.ifelse(cell.strip() == "", ibis.null("string"), cell)
        return cell, cell
    cell = cell.strip().nullif("")
    if kind == "string":
        return cell, cell
    if kind.startswith("float"):
        cell = ibis.ifelse(cell.lower() == "nan", ibis.null("string"), cell)
    return cell, ibis.ifelse(cell.re_search(_PATTERNS[kind]), cell.try_cast(kind), ibis.null(kind))


def _refuse_type(file: str, column: str, found: Any, kind: str) -> None:
    """Only what a Parquet file can hold: columns of CSV are text."""
    if kind in ("string", "text"):
        fits = not found.is_nested() and not found.is_binary()
    elif kind in ("date", "timestamp(6)"):
        fits = found.is_string() or found.is_date() or found.is_timestamp()
    else:
        fits = found.is_string() or found.is_numeric()
    if not fits:
        raise EinthovenError(f"{file}: column {column!r}: expected {_WORDS[kind]}, the file holds {found}.")


def refusals(rows: Any, file: str, reason: str, detail: Any) -> Any:
    """EXCLUDED rows for an ibis.Table with `source_row`; `detail` is a string or an expression of it."""
    return rows.select(
        recording_id=ibis.null("string"),
        source_file=ibis.literal(file),
        source_row=rows.source_row.cast("int64"),
        reason=ibis.literal(reason),
        detail=ibis.literal(detail) if isinstance(detail, str) else detail,
    )


def write_excluded(study: Path, refused: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Write EXCLUDED: the rows of ibis.Tables, as `refusals` makes them, and others; their number by reason."""
    columns = pa.schema([pa.field(field.name, field.type) for field in schema.EXCLUDED.columns])
    others = ibis.memtable(pa.Table.from_pylist(list(rows), schema=columns))
    order = ("source_file", "source_row", "recording_id", "reason")
    write_rows(schema.EXCLUDED, study, ibis.union(others, *refused) if refused else others, order)
    reasons = pq.read_table(schema.EXCLUDED.at(study), columns=["reason"], read_dictionary=["reason"])["reason"]
    return dict(sorted((count["values"], count["counts"]) for count in reasons.value_counts().to_pylist()))


def write_rows(table: schema.Table, study: Path, rows: Any, order: Sequence[Any] = ()) -> int:
    """Stream an ibis.Table into a table of the schema, atomically, in an order; the number of rows.

    Columns that the table does not have are kept, after its own.
    """
    ordered = rows.order_by(list(order)) if order else rows
    extra = [name for name in rows.columns if name not in table.columns.names]
    ordered = ordered.select(*table.columns.names, *extra)
    count = 0
    with atomic(table.at(study)) as temporary, _translated(table.path), _batches(ordered) as batches:
        found = batches.schema
        columns = pa.schema([*table.columns, *(found.field(name) for name in extra)])
        with pq.ParquetWriter(temporary, columns) as writer:
            for group in _groups(batches):
                writer.write_table(pa.Table.from_batches(group).cast(columns))
                count += sum(batch.num_rows for batch in group)
    return count


EVENT_ORDER: Final = ("subject_id", ibis.asc("time", nulls_first=True), "code")
"""MEDS order: by subject, then time, static events first; then by code, so that equal sources give equal files."""

NOTE_ORDER: Final = ("subject_id", "time", "note_id")


@contextmanager
def _batches(rows: Any) -> Iterator[pa.RecordBatchReader]:
    reader = rows.to_pyarrow_batches(chunk_size=ROWS)
    try:
        yield reader
    finally:
        reader.close()


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    group: list[pa.RecordBatch] = []
    for batch in batches:
        group.append(batch)
        if sum(b.num_rows for b in group) >= GROUP_ROWS or sum(b.nbytes for b in group) >= GROUP_BYTES:
            yield group
            group = []
    if group:
        yield group


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """DuckDB's messages may quote cells, so they are not passed on."""
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise EinthovenError(f"{name}: out of memory or of disk space while it was written; free some.") from None
    except duckdb.Error as error:
        raise EinthovenError(f"{name} could not be made: {type(error).__name__}. The source may be damaged.") from None


WAVEFORM_FOLDERS: Final = re.compile(r"p\d{2,}|records\d+")
"""Folders of waveforms, with too many files to look through: MIMIC-IV-ECG's p1000, PTB-XL's records500."""


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    """Files with a table's suffix; folders of waveforms are not entered."""
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise EinthovenError(f"{folder} cannot be listed ({type(error).__name__}).") from None
    for entry in entries:
        if entry.is_dir():
            if depth and not entry.name.startswith(".") and not WAVEFORM_FOLDERS.fullmatch(entry.name):
                yield from _walk(Path(entry.path), depth - 1)
        elif entry.name.casefold().endswith(table_files.SUFFIXES) and entry.is_file():
            yield Path(entry.path)

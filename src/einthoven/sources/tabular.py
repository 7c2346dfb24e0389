"""The tables of a source (CSV, gzipped CSV or Parquet, in any folder) as Ibis expressions, checked row by row.

Files are read once, into a scratch database beside the study, so that sources larger than memory work. A cell that
cannot be understood keeps its row out, into EXCLUDED: nothing is guessed and nothing is lost. Cells are never quoted.
"""

import csv
import gzip
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.study import atomic, remove

SUFFIXES: Final = (".csv", ".csv.gz", ".parquet")
DEPTH: Final = 6
MAX_CELL: Final = 64 << 20  # bytes of one CSV cell; a longer one is not a note
ROWS: Final = 1 << 16


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
        """The one file whose name without suffix is among `stems`, whatever its case; EinthovenError if several are."""
        found = [file for file in self._files if _stem(file).casefold() in {stem.casefold() for stem in stems}]
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
        table = f"source_{len(self.engine.list_tables())}"
        heading = _heading(file)
        places = {column.casefold(): column for column in heading}
        for column in required:
            if column not in places:
                found = ", ".join(map(repr, heading[:40])) or "an empty file"
                raise EinthovenError(f"{file}: column {column!r} is missing. Found: {found}.")
        wanted = [*required, *optional]
        excluded = _load(self.engine, file, table, {column: places.get(column) for column in wanted}, name)
        return SourceTable(name, self.engine.table(table)), excluded


def connect(scratch: Path) -> Any:
    """A DuckDB database in a directory, which spills there instead of running out of memory."""
    engine = ibis.duckdb.connect(str(scratch / "work.duckdb"), temp_directory=str(scratch / "spill"))
    engine.raw_sql("SET enable_progress_bar = false")
    engine.raw_sql("SET TimeZone = 'UTC'")  # times with a zone would else depend on the machine's
    return engine


@dataclass(frozen=True)
class Checked:
    """The rows whose cells all have their type, and EXCLUDED rows (an ibis.Table) for the others."""

    kept: Any  # ibis.Table: the columns checked, typed, and `source_row`
    refused: Any  # ibis.Table: source_file, source_row, reason, detail


def checked(table: SourceTable, types: Mapping[str, str], required: Sequence[str]) -> Checked:
    """Cast columns to Ibis types ("int64", "timestamp(6)", "string"…); `required` ones must not be empty.

    A row that breaks this is refused with the reason bad-row and a detail that names the column, not the cell.
    """
    rows = table.rows
    cast: dict[str, Any] = {}
    verdict = ibis.null("string")
    for column, kind in reversed(list(types.items())):
        cell = rows[column]
        if cell.type().is_string():
            cell = cell.strip().nullif("")
        value = _value(cell, kind)
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


def _value(cell: Any, kind: str) -> Any:
    """The cell as an Ibis type, null where it is not one: DuckDB would round 1.5 to patient 2, and has no last year."""
    given = cell.type()
    if kind == "string" and given.is_string():
        return cell
    value = cell.try_cast(kind)
    if kind == "int64" and given.is_string():
        return ibis.ifelse(cell.re_search(r"^[+-]?[0-9]+(\.0*)?$"), value, None)
    if kind == "int64" and not given.is_integer():
        return ibis.ifelse(cell == value, value, None)
    if kind in ("timestamp(6)", "date"):
        return ibis.ifelse(value.year().between(1, 9999), value, None)
    return value


_WORDS: Final = {
    "int64": "a whole number",
    "float64": "a number",
    "float32": "a number",
    "timestamp(6)": "a date and time such as 2180-01-31 12:00:00",
    "date": "a date such as 2180-01-31",
    "string": "text",
}


def refusals(rows: Any, file: str, reason: str, detail: Any) -> Any:
    """EXCLUDED rows for an ibis.Table with `source_row`; `detail` is a string or an expression of it."""
    return rows.select(
        recording_id=ibis.null("string"),
        source_file=ibis.literal(file),
        source_row=rows.source_row.cast("int64"),
        reason=ibis.literal(reason),
        detail=ibis.literal(detail) if isinstance(detail, str) else detail,
    )


def write_rows(
    table: schema.Table, study: Path, rows: Any, order: Sequence[Any] = (), types: pa.Schema | None = None
) -> int:
    """Stream an ibis.Table into a table of the schema, atomically, in an order; the number of rows.

    Columns that the table does not have are kept, after its own, with the type they have in `types` if they are there.
    """
    ordered = rows.order_by(list(order)) if order else rows
    extra = [name for name in rows.columns if name not in table.columns.names]
    ordered = ordered.select(*table.columns.names, *extra)
    count = 0
    with atomic(table.at(study)) as temporary, stream(table.path, ordered) as batches:
        found = batches.schema
        kept = [types.field(name) if types and name in types.names else found.field(name) for name in extra]
        columns = pa.schema([*table.columns, *kept])
        with pq.ParquetWriter(temporary, columns) as writer:
            for batch in batches:
                writer.write_table(cast(batch, columns))
                count += batch.num_rows
    return count


@contextmanager
def stream(name: str, rows: Any) -> Iterator[pa.RecordBatchReader]:
    """The rows of an ibis.Table in bounded batches; `name` is what errors call it."""
    with _translated(name), _batches(rows) as batches:
        yield batches


def cast(batch: pa.RecordBatch, columns: pa.Schema) -> pa.Table:
    """A batch as a table of these columns, in their order and with their Arrow types, which DuckDB has fewer of."""
    cells = [
        pa.nulls(batch.num_rows) if pa.types.is_null(field.type) else batch.column(field.name).cast(field.type)
        for field in columns
    ]
    return pa.Table.from_arrays(cells, schema=columns)


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


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """DuckDB's messages may quote cells, so they are not passed on."""
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise EinthovenError(f"{name}: out of memory or of disk space while it was written; free some.") from None
    except duckdb.Error as error:
        raise EinthovenError(f"{name} could not be made: {type(error).__name__}. The source may be damaged.") from None


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    """Files with a table's suffix; the large folders of waveforms are not entered."""
    for entry in os.scandir(folder):
        if entry.is_dir() and depth and not entry.name.startswith(".") and entry.name not in WAVEFORM_FOLDERS:
            yield from _walk(Path(entry.path), depth - 1)
        elif entry.name.casefold().endswith(SUFFIXES) and entry.is_file():
            yield Path(entry.path)


WAVEFORM_FOLDERS: Final = ("files", "records", "records100", "records500")


def _stem(file: Path) -> str:
    for suffix in SUFFIXES:
        if file.name.casefold().endswith(suffix):
            return file.name[: -len(suffix)]
    return file.name


def _heading(file: Path) -> list[str]:
    try:
        if file.name.casefold().endswith(".parquet"):
            return list(pq.read_schema(file).names)
        with _text(file) as lines:
            return next(csv.reader(lines), [])
    except UnicodeDecodeError:
        raise EinthovenError(f"{file} is not UTF-8 text; export it as UTF-8.") from None
    except (OSError, EOFError, csv.Error, pa.ArrowException) as error:
        raise EinthovenError(f"{file} cannot be read ({type(error).__name__}); copy it again.") from None


def _text(file: Path) -> Any:
    opener: Any = gzip.open if file.name.casefold().endswith(".gz") else open
    return opener(file, "rt", encoding="utf-8-sig", newline="")


def _load(engine: Any, file: Path, table: str, columns: Mapping[str, str | None], name: str) -> list[dict[str, Any]]:
    """Copy the columns into a table of the engine; EXCLUDED rows for lines that are no row."""
    chosen = ", ".join(f"{_quoted(old) if old else 'NULL::VARCHAR'} AS {_quoted(new)}" for new, old in columns.items())
    path = "'" + str(file).replace("'", "''") + "'"
    if file.name.casefold().endswith(".parquet"):
        origin = f"read_parquet({path})"
    else:
        options = f"all_varchar=true, header=true, delim=',', quote='\"', escape='\"', max_line_size={MAX_CELL}"
        origin = f"read_csv({path}, {options})"
    make = f"CREATE OR REPLACE TABLE {table} AS SELECT row_number() OVER () AS source_row, {chosen} FROM {origin}"
    try:
        engine.raw_sql(make)
    except duckdb.Error as error:
        if origin.startswith("read_parquet"):
            raise EinthovenError(f"{file} cannot be read ({type(error).__name__}); copy it again.") from None
        return _load_slowly(engine, file, table, columns, name)
    return []


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _load_slowly(
    engine: Any, file: Path, table: str, columns: Mapping[str, str | None], name: str
) -> list[dict[str, Any]]:
    """A CSV that DuckDB refuses, line by line: what is a row is read, what is not is excluded."""
    engine.raw_sql(
        f"CREATE OR REPLACE TABLE {table} (source_row BIGINT, {', '.join(f'{_quoted(c)} VARCHAR' for c in columns)})"
    )
    kinds = pa.schema([("source_row", pa.int64()), *((column, pa.string()) for column in columns)])
    excluded: list[dict[str, Any]] = []
    for part in _parts(_lines(file, columns, name, excluded)):
        engine.con.register("part", pa.Table.from_pylist(part, schema=kinds))
        engine.raw_sql(f"INSERT INTO {table} SELECT * FROM part")
        engine.con.unregister("part")
    return excluded


def _lines(
    file: Path, columns: Mapping[str, str | None], name: str, excluded: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    limit = csv.field_size_limit(MAX_CELL)
    try:
        with _text(file) as lines:
            reader = csv.reader(lines)
            places = {column: place for place, column in enumerate(next(reader, []))}
            for number, cells in enumerate(filter(None, reader), start=1):
                if len(cells) != len(places):
                    detail = f"{len(cells)} fields, the heading has {len(places)}"
                    excluded.append({"source_file": name, "source_row": number, "reason": "bad-row", "detail": detail})
                    continue
                row = {column: cells[places[old]] or None for column, old in columns.items() if old}
                yield {"source_row": number, **row}
    except UnicodeDecodeError:
        raise EinthovenError(f"{file} is not UTF-8 text; export it as UTF-8.") from None
    except (OSError, EOFError, csv.Error) as error:
        raise EinthovenError(f"{file} cannot be read as CSV ({type(error).__name__}); copy it again.") from None
    finally:
        csv.field_size_limit(limit)


def _parts(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    part: list[dict[str, Any]] = []
    for row in rows:
        part.append(row)
        if len(part) == ROWS:
            yield part
            part = []
    if part:
        yield part

"""The tables of a source (CSV, gzipped CSV or Parquet, in any folder) as Ibis expressions, checked row by row.

Files are read once, into a scratch database beside the study, so that sources larger than memory work.
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from einthoven.sources.cells import SourceTable, checked, refusals
from einthoven.sources.faults import making
from einthoven.study import atomic, remove, write_table

__all__ = [
    "NOTE_ORDER",
    "SourceTable",
    "Tables",
    "cast",
    "checked",
    "connect",
    "event_order",
    "filled",
    "refusals",
    "stream",
    "write_events",
    "write_excluded",
    "write_list",
    "write_rows",
]

DEPTH: Final = 6
ROWS: Final = 1 << 14  # of a batch: 160 MB of discharge letters
GROUP_ROWS, GROUP_BYTES = 1 << 20, 64 << 20
"""A row group of the Parquet files written ends at either."""


class Tables:
    """The tables below a folder. Use as `with Tables.of(folder, study) as tables:`."""

    def __init__(self, folder: Path, engine: Any) -> None:
        self.folder, self.engine = folder, engine
        self._files = sorted(_walk(folder, DEPTH))
        self._read = 0
        self._stored: set[str] = set()

    @classmethod
    @contextmanager
    def of(cls, folder: Path, study: Path) -> Iterator["Tables"]:
        """Open the folder; the scratch database lies below `study` and is deleted at the end."""
        scratch = study / ".scratch"
        remove(scratch)
        scratch.mkdir(parents=True)
        engine = connect(scratch)
        try:
            with making(f"{folder}: the study's tables"):
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
        table = self.unused()
        excluded = table_files.load(self.engine, file, table, columns, name)
        return SourceTable(name, self.engine.table(table)), excluded

    def unused(self) -> str:
        """A name for a table of the scratch database."""
        self._read += 1
        return f"table_{self._read}"

    def drop(self, name: str) -> None:
        """Free a table of the scratch database."""
        self.engine.raw_sql(f"DROP TABLE {name}")  # sqlglot 30.30 makes nothing of Ibis 12's own drop_table

    def stored(self, name: str, rows: Any) -> Any:
        """Rows as the table of a name in the scratch database, appended if there are some.

        They are an ibis.Table of that database, without any memtable in it, or Arrow's.
        """
        head = f"INSERT INTO {name} BY NAME" if name in self._stored else f"CREATE TABLE {name} AS"
        with making(name):
            if isinstance(rows, pa.Table | pa.RecordBatchReader):
                self.engine.con.register("einthoven_rows", rows)
                self.engine.raw_sql(f"{head} SELECT * FROM einthoven_rows")
                self.engine.con.unregister("einthoven_rows")
            else:
                self.engine.raw_sql(f"{head} {self.engine.compile(rows)}")
        self._stored.add(name)
        return self.engine.table(name)


def connect(scratch: Path) -> Any:
    """A DuckDB database in a directory, which spills there instead of running out of memory."""
    try:
        engine = ibis.duckdb.connect(str(scratch / "work.duckdb"), temp_directory=str(scratch / "spill"))
    except duckdb.IOException:
        raise EinthovenError(f"{scratch} cannot be written: is the disk full? Free some space and repeat.") from None
    engine.raw_sql("SET enable_progress_bar = false")
    # DuckDB 1.5 makes a filter of a join that it cannot apply to rows in Arrow's memory, and then refuses the query
    engine.raw_sql("SET disabled_optimizers = 'join_filter_pushdown'")
    engine.raw_sql("SET TimeZone = 'UTC'")  # or times with a zone would become those of this machine
    return engine


def write_excluded(study: Path, refused: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Write EXCLUDED: the rows of ibis.Tables, as `refusals` makes them, and others; their number by reason."""
    columns = pa.schema([pa.field(field.name, field.type) for field in schema.EXCLUDED.columns])
    others = ibis.memtable(pa.Table.from_pylist(list(rows), schema=columns))
    order = ("source_file", "source_row", "recording_id", "reason", "detail")
    write_rows(schema.EXCLUDED, study, ibis.union(others, *refused) if refused else others, order)
    reasons = pq.read_table(schema.EXCLUDED.at(study), columns=["reason"], read_dictionary=["reason"])["reason"]
    return dict(sorted((count["values"], count["counts"]) for count in reasons.value_counts().to_pylist()))


def write_list(table: schema.Table, study: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows that are in memory, in their order; what a row does not name is null."""
    write_table(table, study, pa.Table.from_pylist(list(rows), schema=table.columns))


def write_events(study: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write EVENTS that are in memory, in their order; what a row does not name is null."""
    nullable = pa.schema([field.with_nullable(True) for field in schema.EVENTS.columns])
    events = ibis.memtable(pa.Table.from_pylist(list(rows), schema=nullable))
    write_rows(schema.EVENTS, study, events, event_order(events))


def filled(table: schema.Table, rows: Any) -> Any:
    """An ibis.Table in the columns of a table of the schema, their order and types; null where `rows` has none."""
    kinds = {name: kind.copy(nullable=True) for name, kind in ibis.Schema.from_pyarrow(table.columns).items()}
    return rows.select(
        **{name: rows[name].cast(kind) if name in rows.columns else ibis.null(kind) for name, kind in kinds.items()}
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
            for group in _groups(batches):
                writer.write_table(pa.concat_tables([cast(batch, columns) for batch in group]))
                count += sum(batch.num_rows for batch in group)
    return count


@contextmanager
def stream(name: str, rows: Any) -> Iterator[pa.RecordBatchReader]:
    """The rows of an ibis.Table in bounded batches; `name` is what errors call it."""
    with making(name), _batches(rows) as batches:
        yield batches


def cast(batch: pa.RecordBatch, columns: pa.Schema) -> pa.Table:
    """A batch as a table of these columns, in their order and with their Arrow types, which DuckDB has fewer of."""
    cells = [
        pa.nulls(batch.num_rows) if pa.types.is_null(field.type) else batch.column(field.name).cast(field.type)
        for field in columns
    ]
    return pa.Table.from_arrays(cells, schema=columns)


def event_order(rows: Any) -> list[Any]:
    """MEDS order of an ibis.Table of events: by subject, then time, static events first; then by code, then the rest.

    The rest, so that equal sources give equal files; as a hash, because it is short, and because DuckDB gives a column
    that it sorts by without the sign of its zeros.
    """
    others = {name: rows[name] for name in rows.columns if name not in ("subject_id", "time", "code")}
    return ["subject_id", ibis.asc("time", nulls_first=True), "code", ibis.struct(others).hash()]


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

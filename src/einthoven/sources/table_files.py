"""One file (CSV, gzipped CSV or Parquet) -> a table of DuckDB, with EXCLUDED rows for its lines that are no row.

A CSV is UTF-8, comma-separated, with a heading and double quotes (RFC 4180). DuckDB reads it in parallel; what it
refuses is read again line by line, so that one bad line costs one row. Cells are never quoted in messages.
"""

import csv
import gzip
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from einthoven.errors import EinthovenError
from einthoven.sources.cells import exclusion
from einthoven.sources.faults import reading

SUFFIXES: Final = (".csv", ".csv.gz", ".parquet")
MAX_CELL: Final = 64 << 20  # characters of one line or quoted cell; a longer one is not a note
MAX_PART: Final = 16 << 20  # characters of the rows that Python holds at once
PART_ROWS: Final = 1 << 14


def stem(file: Path) -> str:
    """The file's name without the suffix of a table."""
    for suffix in SUFFIXES:
        if file.name.casefold().endswith(suffix):
            return file.name[: -len(suffix)]
    return file.name


def is_parquet(file: Path) -> bool:
    return file.name.casefold().endswith(".parquet")


def heading(file: Path) -> list[str]:
    """The names of the columns; of CSV without spaces around them."""
    with reading(file):
        if is_parquet(file):
            return list(pq.read_schema(file).names)
        with closing(_lines(file)) as lines:
            return [name.strip() for name in next(csv.reader(lines), [])]


def places(file: Path, required: Sequence[str], optional: Sequence[str]) -> dict[str, int | None]:
    """The place of each column, whatever its case; None: not there. EinthovenError: a required one is missing."""
    names = heading(file)
    folded = [name.casefold() for name in names]
    found: dict[str, int | None] = {}
    for column in [*required, *optional]:
        if folded.count(column.casefold()) > 1:
            raise EinthovenError(f"{file}: column {column!r} is there more than once. Keep one of them.")
        if column.casefold() in folded:
            found[column] = folded.index(column.casefold())
        elif column in required:
            listed = ", ".join(map(repr, names[:40])) or "an empty file"
            raise EinthovenError(f"{file}: column {column!r} is missing. Found: {listed}.")
        else:
            found[column] = None
    return found


def load(engine: Any, file: Path, table: str, columns: Mapping[str, int | None], name: str) -> list[dict[str, Any]]:
    """Copy columns (name -> place) into a table of an ibis DuckDB backend, with `source_row` from 1, in file order."""
    if is_parquet(file):
        with reading(file):
            engine.raw_sql(_copy(table, columns, heading(file), f"read_parquet({_literal(file)})"))
        return []
    if file.name.casefold().endswith(".gz"):
        _verify(file)
    names = [f"c{place}" for place in range(len(heading(file)))]
    kinds = ", ".join(f"'{column}': 'VARCHAR'" for column in names)
    # Nothing is sniffed: DuckDB's guesses skip leading lines and take "#" for the start of a comment.
    options = f"auto_detect=false, columns={{{kinds}}}, header=true, delim=',', quote='\"', escape='\"'"
    origin = f"read_csv({_literal(file)}, {options}, max_line_size={MAX_CELL})"
    with reading(file):
        try:
            engine.raw_sql(_copy(table, columns, names, origin))
        except duckdb.InvalidInputException:
            return _load_slowly(engine, file, table, columns, name)
    return []


def _copy(table: str, columns: Mapping[str, int | None], names: Sequence[str], origin: str) -> str:
    """SQL that makes a table of the columns."""
    chosen = ", ".join(
        f"{'NULL::VARCHAR' if place is None else _quoted(names[place])} AS {_quoted(column)}"
        for column, place in columns.items()
    )
    return f"CREATE OR REPLACE TABLE {table} AS SELECT row_number() OVER () AS source_row, {chosen} FROM {origin}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(file: Path) -> str:
    """The path for SQL, nothing in it a pattern."""
    plain = "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(file))
    return "'" + plain.replace("'", "''") + "'"


def _verify(file: Path) -> None:
    """Refuse a gzip file that was cut or altered: DuckDB takes it for a shorter one."""
    with reading(file), gzip.open(file) as stream:
        while stream.read(1 << 20):
            pass


def _lines(file: Path) -> Generator[str, None, None]:
    """The lines of a text file, none of them longer than MAX_CELL."""
    opener: Any = gzip.open if file.name.casefold().endswith(".gz") else open
    with opener(file, "rt", encoding="utf-8-sig", newline="") as stream:
        while line := stream.readline(MAX_CELL):
            if len(line) == MAX_CELL:
                raise EinthovenError(f"{file} has a line of more than {MAX_CELL} characters; expected a CSV.")
            yield line


def _load_slowly(
    engine: Any, file: Path, table: str, columns: Mapping[str, int | None], name: str
) -> list[dict[str, Any]]:
    """A CSV that DuckDB refuses: what is a row is read, what is not is excluded."""
    kinds = ", ".join(f"{_quoted(column)} VARCHAR" for column in columns)
    engine.raw_sql(f"CREATE OR REPLACE TABLE {table} (source_row BIGINT, {kinds})")
    types = pa.schema([("source_row", pa.int64()), *((column, pa.large_string()) for column in columns)])
    excluded: list[dict[str, Any]] = []
    for part in _parts(_rows(file, columns, name, excluded)):
        engine.con.register("einthoven_part", pa.Table.from_pylist(part, schema=types))
        engine.raw_sql(f"INSERT INTO {table} SELECT * FROM einthoven_part")
        engine.con.unregister("einthoven_part")
    return excluded


def _rows(
    file: Path, columns: Mapping[str, int | None], name: str, excluded: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    with closing(_cells(file)) as rows:
        width = len(next(rows, None) or [])
        for number, cells in enumerate(filter(lambda row: row != [], rows), start=1):
            if cells is not None and len(cells) == width:
                yield {"source_row": number} | {c: cells[p] or None for c, p in columns.items() if p is not None}
                continue
            found = "text after a closing quote" if cells is None else f"{len(cells)} fields, the heading has {width}"
            excluded.append(exclusion("bad-row", found, name, number))


def _cells(file: Path) -> Generator[list[str] | None, None, None]:
    """The cells of each line; None: not a row. A quote that is never closed is an EinthovenError."""
    before = csv.field_size_limit(MAX_CELL)
    try:
        with reading(file), closing(_lines(file)) as lines:
            reader = csv.reader(lines, strict=True)
            while True:
                try:
                    yield next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    if "expected after" not in str(error):  # the end of the file, or a cell beyond the limit
                        place = f"{file}, before line {reader.line_num + 1}"
                        raise EinthovenError(f"{place}: a quoted cell does not end. Export or copy it again.") from None
                    yield None
    finally:
        csv.field_size_limit(before)


def _parts(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    part: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        part.append(row)
        size += sum(len(cell) for cell in row.values() if isinstance(cell, str))
        if len(part) == PART_ROWS or size > MAX_PART:
            yield part
            part, size = [], 0
    if part:
        yield part

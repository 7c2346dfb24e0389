"""NDJSON files as bulk export writes them, read line by line, and the staging tables that their rows go to.

At no time is more than a line, and a batch of rows, in memory.
"""

import gzip
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import ibis
import pyarrow as pa

from einthoven.sources.faults import reading
from einthoven.sources.fhir_ecg import Place
from einthoven.sources.fhir_elements import ResourceError
from einthoven.sources.fhir_resources import Event, Medication, Note, Patient, Row

SUFFIXES: Final = (".ndjson", ".ndjson.gz")
DEPTH: Final = 6
MAX_LINE: Final = 64 << 20  # bytes
ROWS: Final = 1 << 16  # of a batch
BATCH_TEXT: Final = 64 << 20  # characters of notes in a batch
TOLD: Final = 1 << 14  # lines between two calls of progress


class Line(NamedTuple):
    """A line that is not blank. `data` is None where it is longer than MAX_LINE."""

    number: int  # from 1
    offset: int  # bytes, of the decompressed file
    data: bytes | None


def ndjson_files(folder: Path, depth: int = DEPTH) -> list[Path]:
    """The files below a folder, by name."""
    found: list[Path] = []
    for entry in os.scandir(folder):
        if entry.is_dir() and depth and not entry.name.startswith("."):
            found += ndjson_files(Path(entry.path), depth - 1)
        elif entry.name.casefold().endswith(SUFFIXES) and entry.is_file():
            found.append(Path(entry.path))
    return sorted(found)


def lines_of(file: Path, told: Callable[[int], None]) -> Iterator[Line]:
    """The lines of a file; `told` hears how many bytes of it were read. EinthovenError where it is damaged."""
    with reading(file), file.open("rb") as raw:
        packed = file.name.casefold().endswith(".gz")
        stream = io.BufferedReader(gzip.GzipFile(fileobj=raw), 1 << 20) if packed else raw
        yield from _lines(stream, lambda: told(raw.tell()))


def _lines(stream: Any, told: Callable[[], None]) -> Iterator[Line]:
    number = offset = 0
    while data := stream.readline(MAX_LINE + 1):
        number += 1
        length, too_long = len(data), len(data) > MAX_LINE
        while too_long and not data.endswith(b"\n") and (data := stream.readline(MAX_LINE)):
            length += len(data)
        if too_long or not data.isspace():
            yield Line(number, offset, None if too_long else data)
        offset += length
        if number % TOLD == 0:
            told()


def parse_line(line: Line) -> dict[str, Any]:
    """The object of a line; ResourceError("bad-json") if it is none."""
    if line.data is None:
        raise ResourceError("bad-json", f"expected a line of at most {MAX_LINE} bytes")
    try:
        found = _DECODER.decode(line.data.decode("utf-8-sig" if line.number == 1 else "utf-8"))
    except (ValueError, RecursionError):
        raise ResourceError("bad-json", "expected one JSON object on the line, in UTF-8") from None
    if not isinstance(found, dict):
        raise ResourceError("bad-json", "expected a JSON object, found another value")
    return found


def _no_number(name: str) -> float:
    raise ValueError(name)


_DECODER: Final = json.JSONDecoder(parse_constant=_no_number)  # NaN and Infinity are no JSON


_LINE: Final = [("source_file", pa.string()), ("source_row", pa.int64())]
_WHERE: Final = [*_LINE, ("key", pa.string())]
STAGES: Final = {
    "patients": pa.schema(
        [
            *_WHERE,
            ("subject_id", pa.int64()),
            ("birth", pa.timestamp("us")),
            ("death", pa.timestamp("us")),
            ("gender", pa.string()),
        ]
    ),
    "events": pa.schema(
        [
            *_WHERE,
            ("subject_id", pa.int64()),
            ("time", pa.timestamp("us")),
            ("code", pa.string()),
            ("description", pa.string()),
            ("medication", pa.string()),
        ]
    ),
    "medications": pa.schema([*_WHERE, ("code", pa.string()), ("description", pa.string())]),
    "notes": pa.schema(
        [
            *_WHERE,
            ("note_id", pa.string()),
            ("subject_id", pa.int64()),
            ("time", pa.timestamp("us")),
            ("kind", pa.string()),
            ("text", pa.string()),
            ("about", pa.list_(pa.string())),
        ]
    ),
    "refused_lines": pa.schema([*_LINE, ("reason", pa.string()), ("detail", pa.string())]),
}
"""The rows of fhir_resources, each with its file and line."""

_STAGE_OF: Final = {Patient: "patients", Event: "events", Medication: "medications", Note: "notes"}


class Staging:
    """Rows on their way into the tables STAGES of a DuckDB database. Use as `with Staging(engine) as staging:`."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._waiting: dict[str, list[tuple[Any, ...]]] = {name: [] for name in STAGES}
        self._text = 0

    def __enter__(self) -> Self:
        for name, columns in STAGES.items():
            self._engine.create_table(name, ibis.memtable(columns.empty_table()))
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        for name in STAGES if kind is None else ():
            self._flush(name)

    def add(self, file: str, line: int, row: Row) -> None:
        if isinstance(row, Note):
            self._text += len(row.text)
        self._put(_STAGE_OF[type(row)], (file, line, *row))

    def refuse(self, file: str, line: int, error: ResourceError) -> None:
        self._put("refused_lines", (file, line, error.reason, error.detail))

    def _put(self, name: str, values: tuple[Any, ...]) -> None:
        waiting = self._waiting[name]
        waiting.append(values)
        if len(waiting) == ROWS or self._text > BATCH_TEXT:
            self._flush(name)

    def _flush(self, name: str) -> None:
        waiting, columns = self._waiting[name], STAGES[name]
        if not waiting:
            return
        values = zip(*waiting, strict=True)
        arrays = [pa.array(list(column), kind) for column, kind in zip(values, columns.types, strict=True)]
        self._engine.con.register("part", pa.table(arrays, schema=columns))
        self._engine.raw_sql(f"INSERT INTO {name} SELECT * FROM part")
        self._engine.con.unregister("part")
        waiting.clear()
        if name == "notes":
            self._text = 0


class Spool:
    """Where the signals of recordings can be read again: the file itself, or a copy of the lines of a packed one."""

    def __init__(self, file: Path) -> None:
        self._path = file
        self._copy = file.open("wb")

    def place(self, file: Path, line: Line) -> Place:
        data = line.data or b""
        if not file.name.casefold().endswith(".gz"):
            return Place(file, line.offset, len(data))
        offset = self._copy.tell()
        self._copy.write(data)
        return Place(self._path, offset, len(data))

    def close(self) -> None:
        self._copy.close()

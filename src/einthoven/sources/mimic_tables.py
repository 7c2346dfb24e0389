"""The published tables of MIMIC-IV, MIMIC-IV-ECG and MIMIC-IV-Note: their columns, read and checked.

Any of them may be absent, and is then empty. A whole hospital's rows are never in Python: all are Ibis expressions.
"""

from dataclasses import dataclass
from typing import Final

import ibis
import pyarrow as pa

from einthoven.errors import EinthovenError
from einthoven.sources.screening import Screening
from einthoven.sources.tabular import SourceTable, Tables

NOTHING: Final = "(absent)"
"""The file of a table that is not there."""


@dataclass(frozen=True)
class Layout:
    """What is read of a table, by lower-case column."""

    types: dict[str, str]  # as `tabular.checked` takes them
    needed: tuple[str, ...]  # columns that must be there
    filled: tuple[str, ...]  # columns whose cells must not be empty
    stems: tuple[str, ...] = ()  # other names of the file
    day: str | None = None  # a column of dates, which copies write as M/D/YYYY
    codes: tuple[str, ...] = ()  # columns of codes, which lose their leading zeros where a copy made them numbers


REPORTS: Final = tuple(f"report_{i}" for i in range(18))
MEASURED: Final = ("rr_interval", "p_onset", "qrs_onset", "qrs_end", "t_end", "p_axis", "qrs_axis", "t_axis")
"""Milliseconds (an onset or end: from the start of the strip) and degrees."""

_PERSON, _STAY, _STUDY = {"subject_id": "int64"}, {"hadm_id": "int64"}, {"study_id": "int64"}
_ICD: Final = {"icd_code": "string", "icd_version": "int64"}
_NOTE: Final = Layout(
    {"note_id": "string", **_PERSON, "note_type": "string", "charttime": "timestamp(6)", "text": "text"},
    ("note_id", "subject_id", "charttime", "text"),
    ("note_id", "subject_id", "text"),
)
_TITLES: Final = Layout({**_ICD, "long_title": "string"}, (*_ICD, "long_title"), tuple(_ICD), codes=("icd_code",))

LAYOUTS: Final = {
    "patients": Layout(
        {**_PERSON, "gender": "string", "anchor_age": "int64", "anchor_year": "int64", "dod": "date"},
        ("subject_id", "gender", "anchor_age", "anchor_year"),
        ("subject_id",),
    ),
    "admissions": Layout(
        {**_PERSON, **_STAY}
        | dict.fromkeys(("admittime", "dischtime", "deathtime"), "timestamp(6)")
        | dict.fromkeys(("admission_type", "admission_location", "discharge_location"), "string"),
        ("subject_id", "hadm_id", "admittime", "dischtime"),
        ("subject_id", "hadm_id"),
    ),
    "diagnoses_icd": Layout(
        {**_PERSON, **_STAY, **_ICD},
        ("subject_id", "hadm_id", *_ICD),
        ("subject_id", *_ICD),
        codes=("icd_code",),
    ),
    "procedures_icd": Layout(
        {**_PERSON, "chartdate": "date", **_ICD},
        ("subject_id", "chartdate", *_ICD),
        ("subject_id", *_ICD),
        day="chartdate",
        codes=("icd_code",),
    ),
    "hcpcsevents": Layout(
        {**_PERSON, "chartdate": "date", "hcpcs_cd": "string", "short_description": "string"},
        ("subject_id", "chartdate", "hcpcs_cd"),
        ("subject_id", "hcpcs_cd"),
        stems=("hcpcsevent",),
        day="chartdate",
        codes=("hcpcs_cd",),
    ),
    "prescriptions": Layout(
        {**_PERSON, "starttime": "timestamp(6)", "stoptime": "timestamp(6)", "drug": "string"},
        ("subject_id", "starttime", "drug"),
        ("subject_id", "drug"),
    ),
    "d_icd_diagnoses": _TITLES,
    "d_icd_procedures": _TITLES,
    "d_hcpcs": Layout(
        dict.fromkeys(("code", "long_description", "short_description"), "string"),
        ("code",),
        ("code",),
        codes=("code",),
    ),
    "record_list": Layout(
        {**_PERSON, **_STUDY, "ecg_time": "timestamp(6)", "path": "string"},
        ("subject_id", "study_id", "ecg_time", "path"),
        ("subject_id", "study_id"),
    ),
    "machine_measurements": Layout(
        {**_PERSON, **_STUDY, "ecg_time": "timestamp(6)"} | dict.fromkeys(("cart_id", *MEASURED, *REPORTS), "string"),
        ("subject_id", "study_id", "ecg_time"),
        ("subject_id", "study_id"),
        stems=("*machine_measurements",),
    ),
    "waveform_note_links": Layout(
        {**_PERSON, **_STUDY, "note_id": "string"},
        ("subject_id", "study_id", "note_id"),
        ("subject_id", "study_id", "note_id"),
    ),
    "discharge": _NOTE,
    "radiology": _NOTE,
}


class Published(Screening):
    """The tables of one copy; `absent` are the names in LAYOUTS that it does not have."""

    def __init__(self, tables: Tables) -> None:
        super().__init__(tables)
        self.absent: list[str] = []

    def take(self, name: str, key: str | None = None) -> SourceTable:
        """The rows of a table that can be understood, without those that repeat a `key` (the first is kept)."""
        layout = LAYOUTS[name]
        optional = [column for column in layout.types if column not in layout.needed]
        found = self.tables.read(name, *layout.stems, required=layout.needed, optional=optional)
        if found is None:
            self.absent.append(name)
            return SourceTable(NOTHING, self.tables.stored(f"absent_{name}", _empty(layout)))
        raw, lines = found
        self.exclude(lines)
        kept = self.check(_readable(raw, layout), layout.types, layout.filled)
        self.tables.drop(raw.rows.get_name())
        return kept if key is None else self.first_of(kept, key)


def _readable(table: SourceTable, layout: Layout) -> SourceTable:
    """The table with its dates in the order of ISO 8601; EinthovenError if its codes are numbers."""
    for column in layout.codes:
        if table.rows[column].type().is_numeric():
            raise EinthovenError(
                f"{table.file}: column {column!r} holds numbers, so leading zeros are lost (0389 is not 389). "
                "Make it text from the published file."
            )
    return table if layout.day is None else month_first(table, layout.day)


def _empty(layout: Layout) -> pa.Table:
    kinds = {"source_row": "int64"} | {name: "string" if k == "text" else k for name, k in layout.types.items()}
    return ibis.schema(kinds).to_pyarrow().empty_table()


_SLASHED: Final = r"^([0-9]{1,2})/([0-9]{1,2})/([0-9]{4})$"


def month_first(table: SourceTable, column: str) -> SourceTable:
    """Dates written M/D/YYYY as YYYY-M-D, if the file itself proves that order.

    It does if some cell has a second number above 12 and none a first one. Else such cells stay as they are, and are
    refused when their type is checked: the 5th of July and the 7th of May are not told apart by a guess.
    """
    cell = table.rows[column]
    if not cell.type().is_string():
        return table
    text = cell.strip()
    slashed = text.re_search(_SLASHED)
    first, second, year = (text.re_extract(_SLASHED, place) for place in (1, 2, 3))
    found = table.rows.aggregate(
        proof=(slashed & (second.try_cast("int64") > 12)).any(),
        against=(slashed & (first.try_cast("int64") > 12)).any(),
    )
    seen = found.to_pyarrow().to_pylist()[0]
    if seen["against"] or not seen["proof"]:
        return table
    iso = ibis.ifelse(slashed, year + "-" + first + "-" + second, cell)
    return SourceTable(table.file, table.rows.mutate(**{column: iso}))

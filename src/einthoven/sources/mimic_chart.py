"""MIMIC-IV's `hosp` module -> events and codes, named as MIMIC_IV_MEDS names them.

ICD codes are keyed by (version, code), since 493 strings are codes of both, and are written without a dot.
"""

from dataclasses import dataclass
from typing import Any, Final

import ibis

from einthoven.sources.codes import DIAGNOSIS, PROCEDURE, event, person_events, written
from einthoven.sources.mimic_tables import Published
from einthoven.sources.tabular import SourceTable

ADULTS: Final = 89
"""Anchor ages above it are all published as 91, so that the year of birth is unknown."""

_DATED_BY: Final = {"discharge": "dischtime", "admission": "admittime"}


@dataclass(frozen=True)
class Chart:
    """What the module says; all but `people` as ibis.Tables."""

    events: list[Any]  # columns of EVENTS
    titles: list[Any]  # code, description
    people: SourceTable  # columns of `patients`, one row each


def read_chart(published: Published, diagnosis_time: str) -> Chart:
    """Events of every patient. Reasons of exclusion: bad-row, duplicate-id, no-admission, no-time."""
    stays, people = published.take("admissions", "hadm_id"), _people(published)
    diagnoses = _icd(published, "diagnoses_icd", DIAGNOSIS)
    procedures = _icd(published, "procedures_icd", PROCEDURE)
    hcpcs = published.take("hcpcsevents")
    hcpcs = SourceTable(hcpcs.file, hcpcs.rows.mutate(code=_hcpcs(hcpcs.rows.hcpcs_cd)))
    events = [
        *_stay_events(published, stays),
        *_people_events(people.rows, stays.rows),
        _diagnosis_events(published, diagnoses, stays.rows, diagnosis_time),
        _day_events(published, procedures),
        _day_events(published, hcpcs),
        *_medication_events(published, published.take("prescriptions")),
    ]
    return Chart(events, _titles(published, hcpcs.rows), people)


def _people(published: Published) -> SourceTable:
    people = published.take("patients", "subject_id")
    age, year = people.rows.anchor_age, people.rows.anchor_year
    plausible = (age.isnull() | age.between(0, 120)) & (year.isnull() | year.between(1000, 9000))
    return published.keep(people, plausible, "bad-row", "column anchor_age or anchor_year: not plausible")


def _timed(published: Published, table: SourceTable, column: str) -> Any:
    """Rows that have a time; the others are listed."""
    return published.keep(table, table.rows[column].notnull(), "no-time", f"column {column}: empty").rows


def _stay_events(published: Published, stays: SourceTable) -> list[Any]:
    begun, ended = _timed(published, stays, "admittime"), _timed(published, stays, "dischtime")
    kind, origin, goal = (
        cell.fill_null("UNK") for cell in (begun.admission_type, begun.admission_location, ended.discharge_location)
    )
    return [
        event(begun, "HOSPITAL_ADMISSION//" + kind + "//" + origin, begun.admittime),
        event(ended, "HOSPITAL_DISCHARGE//" + goal, ended.dischtime),
    ]


def _people_events(people: Any, stays: Any) -> list[Any]:
    """GENDER (static), MEDS_BIRTH (1 January of the year) and MEDS_DEATH (the hour, if in hospital, else the day)."""
    born = people.filter(people.anchor_age <= ADULTS, people.anchor_year.notnull())
    born = born.select("subject_id", birth=ibis.date((born.anchor_year - born.anchor_age).cast("int32"), 1, 1))
    died = stays.group_by("subject_id").agg(hour=stays.deathtime.min())
    dead = people.select("subject_id", "dod").outer_join(died, "subject_id")
    dead = dead.select(
        subject_id=ibis.coalesce(dead.subject_id, dead.subject_id_right),
        death=ibis.coalesce(dead.hour, dead.dod.cast("timestamp(6)")),
    )
    known = people.select("subject_id", "gender")
    return [*person_events(known), *person_events(born), *person_events(dead)]


def _diagnosis_events(published: Published, diagnoses: SourceTable, stays: Any, diagnosis_time: str) -> Any:
    column = _DATED_BY[diagnosis_time]
    dates = stays.select("subject_id", "hadm_id", column, stay=stays.hadm_id)
    dated = SourceTable(diagnoses.file, diagnoses.rows.left_join(dates, ["subject_id", "hadm_id"]))
    detail = "column hadm_id: the patient has no such row in admissions, so the diagnosis has no time"
    dated = published.keep(dated, dated.rows.stay.notnull(), "no-admission", detail)
    rows = published.keep(dated, dated.rows[column].notnull(), "no-time", f"column {column} of admissions: empty").rows
    return event(rows, rows.code, rows[column])


def _day_events(published: Published, table: SourceTable) -> Any:
    rows = _timed(published, table, "chartdate")
    return event(rows, rows.code, rows.chartdate.cast("timestamp(6)"))


def _medication_events(published: Published, prescriptions: SourceTable) -> list[Any]:
    rows = _timed(published, prescriptions, "starttime")
    ended = rows.filter(rows.stoptime.notnull())
    return [
        event(rows, "MEDICATION//START//" + rows.drug, rows.starttime),
        event(ended, "MEDICATION//STOP//" + ended.drug, ended.stoptime),
    ]


def _icd(published: Published, name: str, kind: str) -> SourceTable:
    """A table with `icd_code` and `icd_version`, and of each row its `code`."""
    table = published.take(name)
    detail = "column icd_version: expected 9 or 10"
    table = published.keep(table, table.rows.icd_version.isin((9, 10)), "bad-row", detail)
    named = f"{kind}//ICD//" + table.rows.icd_version.cast("string") + "//" + table.rows.icd_code
    return SourceTable(table.file, table.rows.mutate(code=written(named)))


def _hcpcs(code: Any) -> Any:
    return written(f"{PROCEDURE}//HCPCS//" + code.upper())


def _titles(published: Published, hcpcs: Any) -> list[Any]:
    """Tables of `code` and `description`, the better ones first."""
    names = published.take("d_hcpcs").rows
    longest = ibis.coalesce(names.long_description, names.short_description)
    titles = [names.select(code=_hcpcs(names.code), description=longest)]
    for name, kind in (("d_icd_diagnoses", DIAGNOSIS), ("d_icd_procedures", PROCEDURE)):
        rows = _icd(published, name, kind).rows
        titles.append(rows.select("code", description=rows.long_title))
    return [*titles, hcpcs.select("code", description=hcpcs.short_description)]

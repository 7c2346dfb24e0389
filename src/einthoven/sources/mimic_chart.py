"""MIMIC-IV's `hosp` module -> events and codes, named as MIMIC_IV_MEDS names them.

ICD codes are keyed by (version, code), since 493 strings are codes of both, and are written without a dot.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ibis

from einthoven import schema
from einthoven.sources.mimic_tables import Published
from einthoven.sources.tabular import SourceTable, write_rows

ADULTS: Final = 89
"""Anchor ages above it are all published as 91, so that the year of birth is unknown."""

_DATED_BY: Final = {"discharge": "dischtime", "admission": "admittime"}


@dataclass(frozen=True)
class Chart:
    """What the module says; all but `people` as ibis.Tables."""

    events: list[Any]  # columns of EVENTS
    titles: Any  # code, description
    parents: Any  # code, parent: of ICD codes longer than their category
    people: SourceTable  # columns of `patients`, one row each


def event(rows: Any, code: Any, time: Any, value: Any = None, recording_id: Any = None) -> Any:
    """EVENTS rows, one for each of an ibis.Table with `subject_id`; `code` and the others are expressions of it."""
    return rows.select(
        "subject_id",
        time=time,
        code=code,
        numeric_value=ibis.null("float32") if value is None else value.cast("float32"),
        text_value=ibis.null("string"),
        recording_id=ibis.null("string") if recording_id is None else recording_id,
    )


def read_chart(published: Published, diagnosis_time: str) -> Chart:
    """Events of every patient. Reasons of exclusion: bad-row, duplicate-id, no-admission, no-time."""
    stays, people = published.take("admissions", "hadm_id"), _people(published)
    diagnoses = _icd(published, "diagnoses_icd", "DIAGNOSIS")
    procedures = _icd(published, "procedures_icd", "PROCEDURE")
    hcpcs = published.take("hcpcsevents")
    hcpcs = SourceTable(hcpcs.file, hcpcs.rows.mutate(code="HCPCS//" + hcpcs.rows.hcpcs_cd.upper()))
    events = [
        *_stay_events(published, stays),
        *_people_events(people.rows, stays.rows),
        _diagnosis_events(published, diagnoses, stays.rows, diagnosis_time),
        _day_events(published, procedures),
        _day_events(published, hcpcs),
        *_medication_events(published, published.take("prescriptions")),
    ]
    parents = _parents(diagnoses.rows, procedures.rows)
    return Chart(events, _titles(published, hcpcs.rows), parents, people)


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
    known = people.filter(people.gender.notnull())
    born = people.filter(people.anchor_age <= ADULTS, people.anchor_year.notnull())
    year = (born.anchor_year - born.anchor_age).cast("int32")
    died = stays.group_by("subject_id").agg(hour=stays.deathtime.min())
    dead = people.select("subject_id", "dod").outer_join(died, "subject_id")
    dead = dead.select(
        subject_id=ibis.coalesce(dead.subject_id, dead.subject_id_right),
        at=ibis.coalesce(dead.hour, dead.dod.cast("timestamp(6)")),
    )
    dead = dead.filter(dead["at"].notnull())
    return [
        event(known, "GENDER//" + known.gender.upper(), ibis.null("timestamp(6)")),
        event(born, ibis.literal("MEDS_BIRTH"), ibis.date(year, 1, 1).cast("timestamp(6)")),
        event(dead, ibis.literal("MEDS_DEATH"), dead["at"]),
    ]


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
    """A table with `icd_code` and `icd_version`, and of each row its `code` and `parent` (null: it has none)."""
    table = published.take(name)
    detail = "column icd_version: expected 9 or 10"
    table = published.keep(table, table.rows.icd_version.isin((9, 10)), "bad-row", detail)
    rows = table.rows.mutate(icd_code=table.rows.icd_code.replace(".", "").upper())
    prefix = f"{kind}//ICD//" + rows.icd_version.cast("string") + "//"
    category = rows.icd_code.left(_category_length(rows, kind))
    parent = ibis.ifelse(category == rows.icd_code, ibis.null("string"), prefix + category)
    return SourceTable(table.file, rows.mutate(code=prefix + rows.icd_code, parent=parent))


def _category_length(rows: Any, kind: str) -> Any:
    """Characters of an ICD category: I48 of I4891, 427 of 42731, E885 of E8859; procedures: 54 of 5491, 0W9 of 0W9G3ZZ.

    ICD-10-PCS has no categories: its first three characters are section, body system and operation.
    """
    older = rows.icd_version == 9
    if kind == "PROCEDURE":
        return ibis.ifelse(older, 2, 3)
    return ibis.ifelse(older & rows.icd_code.startswith("E"), 4, 3)


def _parents(*coded: Any) -> Any:
    """`code` and `parent`, one row for each code that has one."""
    pairs = ibis.union(*(rows.select("code", "parent").distinct() for rows in coded))
    return pairs.filter(pairs.parent.notnull())


def _titles(published: Published, hcpcs: Any) -> Any:
    """`code` and `description`, one row for each code that the copy has a title of."""
    names = published.take("d_hcpcs").rows
    longest = ibis.coalesce(names.long_description, names.short_description)
    parts = [names.select(code="HCPCS//" + names.code.upper(), description=longest)]
    for name, kind in (("d_icd_diagnoses", "DIAGNOSIS"), ("d_icd_procedures", "PROCEDURE")):
        rows = _icd(published, name, kind).rows
        parts.append(rows.select("code", description=rows.long_title))
    own = hcpcs.select("code", description=hcpcs.short_description).anti_join(parts[0], "code")
    titles = ibis.union(*parts, own)
    return titles.filter(titles.description.notnull()).group_by("code").agg(description=titles.description.min())


def write_codes(study: Path, events: Any, titles: Any, parents: Any) -> int:
    """Write CODES: the codes of EVENTS and their parents."""
    used = events.select("code").distinct()
    above = used.inner_join(parents, "code")
    every = ibis.union(used, above.select(code=above.parent), distinct=True)
    found = every.left_join(titles, "code").drop("code_right").left_join(parents, "code")
    none = ibis.literal([], "array<string>")
    listed = ibis.ifelse(found.parent.isnull(), none, ibis.array([found.parent]))
    return write_rows(schema.CODES, study, found.select("code", "description", parent_codes=listed), ("code",))

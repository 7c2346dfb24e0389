"""OMOP CDM 5.3 or 5.4 (files, DuckDB, or any database Ibis connects to) and an ECG archive beside it -> tables.

CONDITION_OCCURRENCE, PROCEDURE_OCCURRENCE and DRUG_EXPOSURE become events named by vocabulary and code of their
concept, ICD as MIMIC_IV_MEDS writes it; PERSON and DEATH become MEDS_BIRTH, GENDER and MEDS_DEATH; NOTE and NOTE_NLP
are read by omop_notes.py. The recordings are those of the table that `recordings` names (archive.py).

Reasons of exclusion: bad-row, duplicate-id, no-time, no-code, no-birth; those of notes and of recordings.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ibis

from einthoven import config as configuration
from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.sources.archive import (
    Entry,
    completed,
    listed,
    patients_of,
    recording_counts,
    refuse_none,
    store_recordings,
)
from einthoven.sources.codes import (
    DIAGNOSIS,
    MEDICATION,
    PROCEDURE,
    VOCABULARIES,
    event,
    person_events,
    write_codes,
    written,
)
from einthoven.sources.omop_notes import read_notes
from einthoven.sources.omop_tables import Cdm, opened
from einthoven.sources.tabular import SourceTable, event_order, write_rows
from einthoven.study import write_table
from einthoven.waveforms.loading import ecg_reader


@dataclass(frozen=True)
class _Domain:
    """One of the CDM's event tables: its columns begin with `column`, its times with `time`."""

    table: str
    column: str
    time: str
    prefix: str

    @property
    def types(self) -> dict[str, str]:
        return {
            "person_id": "int64",
            f"{self.time}_datetime": "timestamp(6)",
            f"{self.time}_date": "timestamp(6)",
            f"{self.column}_concept_id": "int64",
            f"{self.column}_source_concept_id": "int64",
            f"{self.column}_source_value": "string",
        }


DOMAINS: Final = (
    _Domain("condition_occurrence", "condition", "condition_start", DIAGNOSIS),
    _Domain("procedure_occurrence", "procedure", "procedure", PROCEDURE),
    _Domain("drug_exposure", "drug", "drug_exposure_start", MEDICATION),
)

PROCEDURES: Final = ("ICD9Proc", "ICD10PCS")
"""ICD-9's procedures share code strings with its diagnoses: 37.1 and 371."""

GENDERS: Final = {8507: "M", 8532: "F"}
"""Concepts of the Gender vocabulary, fixed by OMOP."""

CODE: Final = r"^[A-Za-z0-9._/-]{1,20}$"
"""A source value that can be a code. What else stands there is free text, which may name somebody."""


def ingest(
    config: configuration.Source,
    source: Path | str,
    study: Path,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write RECORDINGS, EVENTS, CODES, NOTES, SUPPLIED_ENTITIES, EXCLUDED and the waveform store; return counts.

    `source` is a folder of CSV or Parquet tables, a DuckDB file (a Path) or a connection string of Ibis, with
    `?schema=` where the CDM is not in the default one. EinthovenError if a needed table or column is missing, if no
    person or recording can be used, or if the recordings are of nobody in PERSON.
    """
    if config.recordings is None:
        raise EinthovenError(_NO_RECORDINGS)
    table = Path(config.recordings)
    with opened(source, study) as cdm:
        entries, bad_entries = listed(cdm.tables, table)
        concepts = read_concepts(cdm)
        persons = _read_persons(cdm, concepts)
        coded = _read_events(cdm, concepts, config.omop_concepts == "source")
        rows = ibis.union(event(coded, coded.code, coded.time), *person_events(persons), *_deaths(cdm))
        counts: dict[str, Any] = {"events": write_rows(schema.EVENTS, study, rows, event_order(rows))}
        counts["unmapped"] = int(coded.filter(~coded.mapped).count().to_pyarrow().as_py())
        write_codes(
            study, rows, [coded, concepts.select(code=concepts.kind + "//" + concepts.code, description="name")]
        )
        counts |= read_notes(cdm, config, concepts, study)
        entries, unknown = _with_persons(entries, persons)
        recordings, failed = store_recordings(entries, ecg_reader(table.parent), study, config.sampling_rate, progress)
        refuse_none(len(recordings), table, bad_entries + failed, "Correct the table, or copy its files again.")
        write_table(schema.RECORDINGS, study, recordings)
        cdm.exclude(bad_entries + failed)
        counts["excluded"] = cdm.write_excluded(study)
    return recording_counts(recordings) | counts | {"data_kind": schema.REAL, "without_person": unknown}


_NO_RECORDINGS: Final = (
    "omop: an OMOP CDM holds no ECGs. Name the table of your recordings, a CSV with at least the columns recording_id "
    "and subject_id (OMOP's person_id), and where known time, file, age, sex: in a recipe, [source] recordings = "
    '"ecgs.csv", then `--recipe`.'
)


def read_concepts(cdm: Cdm) -> Any:
    """CONCEPT as concept_id, name, domain, code ("SNOMED//49436004", "ICD//10//I48"); without 0, the unmapped."""
    types = {
        "concept_id": "int64",
        "concept_name": "string",
        "domain_id": "string",
        "vocabulary_id": "string",
        "concept_code": "string",
    }
    found = cdm.need("concept", types, ("concept_id", "vocabulary_id", "concept_code"))
    rows = cdm.first_of(found, "concept_id").rows
    rows = rows.filter(rows.concept_id != 0)
    vocabulary = rows.vocabulary_id.cases(*VOCABULARIES.items(), else_=rows.vocabulary_id)
    named = rows.select(
        "concept_id",
        name=rows.concept_name,
        domain=rows.domain_id,
        code=written(vocabulary + "//" + rows.concept_code),
        kind=ibis.ifelse(rows.vocabulary_id.isin(PROCEDURES), PROCEDURE, DIAGNOSIS),
    )
    return cdm.tables.stored("concepts", named)


def _read_persons(cdm: Cdm, concepts: Any) -> Any:
    """PERSON as subject_id, birth (timestamp or null), gender (a word or null)."""
    whole = ("person_id", "gender_concept_id", "year_of_birth", "month_of_birth", "day_of_birth")
    types = dict.fromkeys(whole, "int64") | {"birth_datetime": "timestamp(6)"}
    found = cdm.need("person", types, ("person_id",))
    if not found.rows.count().to_pyarrow().as_py():
        raise EinthovenError(
            "PERSON: no row can be used. person_id must be a whole number below 2**63, as the CDM says."
        )
    found = cdm.first_of(found, "person_id")
    rows = found.rows
    parts = (rows.year_of_birth, rows.month_of_birth.fill_null(1), rows.day_of_birth.fill_null(1))
    year, month, day = (part.cast("string") for part in parts)
    spelled = year.lpad(4, "0") + "-" + month.lpad(2, "0") + "-" + day.lpad(2, "0")
    birth = ibis.coalesce(rows.birth_datetime, spelled.try_cast("timestamp(6)"))
    cdm.refuse(found, rows.filter(birth.isnull()), "no-birth", "no date of birth, or none that exists")
    rows = rows.mutate(birth=birth).left_join(concepts, rows.gender_concept_id == concepts.concept_id)
    gender = rows.gender_concept_id.cases(*GENDERS.items(), else_=rows.code.split("//")[-1])
    return cdm.tables.stored("persons", rows.select(subject_id=rows.person_id, birth=rows.birth, gender=gender))


def _read_events(cdm: Cdm, concepts: Any, prefer_source: bool) -> Any:
    found = [_coded(cdm, domain, concepts, prefer_source) for domain in DOMAINS]
    there = [rows for rows in found if rows is not None]
    if not there:
        raise cdm.missing(*(domain.table for domain in DOMAINS))
    return ibis.union(*there) if len(there) > 1 else there[0]


def _coded(cdm: Cdm, domain: _Domain, concepts: Any, prefer_source: bool) -> Any | None:
    """An event table as subject_id, time, code, description, mapped (a concept named it); None where it is absent."""
    table = cdm.load(domain.table, domain.types, ("person_id",))
    if table is None:
        return None
    rows, column = table.rows, domain.column
    source = concepts.select(source_id="concept_id", source_code="code", source_name="name")
    standard = concepts.select(standard_id="concept_id", standard_code="code", standard_name="name")
    rows = rows.left_join(source, rows[f"{column}_source_concept_id"] == source.source_id)
    rows = rows.left_join(standard, rows[f"{column}_concept_id"] == standard.standard_id)
    first, second = ("source", "standard") if prefer_source else ("standard", "source")
    by_concept = ibis.coalesce(rows[f"{first}_code"], rows[f"{second}_code"])
    value = rows[f"{column}_source_value"]
    named = cdm.tables.stored(
        f"events_{column}",
        rows.select(
            "source_row",
            subject_id=rows.person_id,
            time=ibis.coalesce(rows[f"{domain.time}_datetime"], rows[f"{domain.time}_date"]),
            code=written(domain.prefix + "//" + ibis.coalesce(by_concept, "SOURCE//" + value)),
            description=ibis.ifelse(rows[f"{first}_code"].notnull(), rows[f"{first}_name"], rows[f"{second}_name"]),
            mapped=by_concept.notnull(),
            known=by_concept.notnull() | value.re_search(CODE),
        ),
    )
    cdm.tables.drop(domain.table)
    found = SourceTable(table.file, named)
    found = cdm.keep(found, named.time.notnull(), "no-time", f"columns {domain.time}_datetime and _date: empty")
    detail = f"columns {column}_concept_id, _source_concept_id and _source_value: nothing that names a code"
    found = cdm.keep(found, found.rows.code.notnull(), "no-code", detail)
    detail = f"column {column}_source_value: free text, and neither concept_id is in CONCEPT"
    return cdm.keep(found, found.rows.known, "no-concept", detail).rows


def _deaths(cdm: Cdm) -> list[Any]:
    """MEDS_DEATH, where there is DEATH."""
    types = {"person_id": "int64", "death_datetime": "timestamp(6)", "death_date": "timestamp(6)"}
    deaths = cdm.load("death", types, ("person_id",))
    if deaths is None:
        return []
    time = ibis.coalesce(deaths.rows.death_datetime, deaths.rows.death_date)
    dead = cdm.keep(deaths, time.notnull(), "no-time", "columns death_datetime and death_date: empty").rows
    return person_events(
        dead.select(subject_id=dead.person_id, death=ibis.coalesce(dead.death_datetime, dead.death_date))
    )


def _with_persons(entries: list[Entry], persons: Any) -> tuple[list[Entry], int]:
    """The recordings with age and sex from PERSON where their table has none; how many are of nobody there."""
    known = patients_of(entries, persons)
    unknown = sum(entry.subject_id not in known for entry in entries)
    if entries and unknown == len(entries):
        raise EinthovenError("No recording is of a person in PERSON: its subject_id must be OMOP's person_id.")
    found = [completed(e, known[e.subject_id]) if e.subject_id in known else e for e in entries]
    return found, unknown

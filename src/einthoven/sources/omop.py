"""OMOP CDM 5.3 or 5.4 (files, DuckDB, or any database Ibis connects to) and an ECG archive beside it -> tables.

CONDITION_OCCURRENCE, PROCEDURE_OCCURRENCE and DRUG_EXPOSURE become events named by vocabulary and code of their
concept, ICD as MIMIC_IV_MEDS writes it; PERSON and DEATH become MEDS_BIRTH, GENDER and MEDS_DEATH; NOTE and NOTE_NLP
are read by omop_notes.py. The recordings are those of the table that `recordings` names (archive.py).

Reasons of exclusion: bad-row, duplicate-id, no-time, no-code, no-birth; those of notes and of recordings.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import ibis
import pyarrow as pa

from einthoven import config as configuration
from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.sources.archive import Entry, listed, store_recordings
from einthoven.sources.omop_notes import read_notes
from einthoven.sources.omop_tables import Cdm, opened
from einthoven.sources.tabular import EVENT_ORDER, write_rows
from einthoven.study import write_table
from einthoven.waveforms.loading import wfdb_reader


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
    _Domain("condition_occurrence", "condition", "condition_start", "DIAGNOSIS"),
    _Domain("procedure_occurrence", "procedure", "procedure", "PROCEDURE"),
    _Domain("drug_exposure", "drug", "drug_exposure_start", "MEDICATION//START"),
)

ICD: Final = {"ICD9CM": "ICD//9", "ICD9Proc": "ICD//9", "ICD10": "ICD//10", "ICD10CM": "ICD//10", "ICD10PCS": "ICD//10"}
"""Vocabularies whose codes are written as MIMIC_IV_MEDS does, without a dot: hospitals then share a vocabulary."""

PROCEDURES: Final = ("ICD9Proc", "ICD10PCS")
"""ICD-9's procedures share code strings with its diagnoses: 37.1 and 371."""

CATEGORY: Final = (
    r"^(DIAGNOSIS//ICD//9//E...|DIAGNOSIS//ICD//9//[^E]..|DIAGNOSIS//ICD//10//..."
    r"|PROCEDURE//ICD//9//..|PROCEDURE//ICD//10//...).+$"
)
"""The category of an ICD code, as the mimic source has it: I48 of I4891, E885 of E8859; 54 of procedure 5491."""

MALE, FEMALE = 8507, 8532
"""Concepts of the Gender vocabulary, fixed by OMOP."""


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
        persons = _read_persons(cdm)
        coded = _read_events(cdm, concepts, config.omop_concepts == "source")
        rows = coded.select("subject_id", "time", "code").union(*_static(cdm, persons, concepts))
        counts: dict[str, Any] = {"events": _write_events(study, rows)}
        counts["unmapped"] = int(coded.filter(~coded.mapped).count().to_pyarrow().as_py())
        _write_codes(study, rows, coded, concepts)
        counts |= read_notes(cdm, config, concepts, study)
        entries, unknown = _with_persons(entries, persons)
        recordings, failed = store_recordings(entries, wfdb_reader(table.parent), study, config.sampling_rate, progress)
        if not len(recordings):
            raise EinthovenError(f"{table}: no recording can be used; {len(bad_entries) + len(failed)} were refused.")
        write_table(schema.RECORDINGS, study, recordings)
        cdm.refuse_lines(bad_entries + failed)
        counts["excluded"] = cdm.write_excluded(study)
    splits = Counter(recordings["split"].to_pylist())
    return counts | {
        "data_kind": schema.REAL,
        "recordings": {split: splits[split] for split in schema.SPLITS},
        "subjects": len(recordings["subject_id"].unique()),
        "without_person": unknown,
    }


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
    rows = cdm.first_of(found, "concept", "concept_id")
    rows = rows.filter(rows.concept_id != 0)
    icd = rows.vocabulary_id.isin(list(ICD))
    vocabulary = rows.vocabulary_id.cases(*ICD.items(), else_=rows.vocabulary_id)
    code = ibis.ifelse(icd, rows.concept_code.replace(".", "").upper(), rows.concept_code)
    named = rows.select(
        "concept_id",
        name=rows.concept_name,
        domain=rows.domain_id,
        code=vocabulary + "//" + code,
        procedure=rows.vocabulary_id.isin(PROCEDURES),
    )
    return cdm.engine.create_table("concepts", named)


def _read_persons(cdm: Cdm) -> Any:
    """PERSON as subject_id, birth (timestamp or null), gender (concept)."""
    whole = ("person_id", "gender_concept_id", "year_of_birth", "month_of_birth", "day_of_birth")
    types = dict.fromkeys(whole, "int64") | {"birth_datetime": "timestamp(6)"}
    found = cdm.need("person", types, ("person_id",))
    if not found.count().to_pyarrow().as_py():
        raise EinthovenError(
            "PERSON: no row can be used. person_id must be a whole number below 2**63, as the CDM says."
        )
    rows = cdm.first_of(found, "person", "person_id")
    parts = (rows.year_of_birth, rows.month_of_birth.fill_null(1), rows.day_of_birth.fill_null(1))
    year, month, day = (part.cast("string") for part in parts)
    spelled = year.lpad(4, "0") + "-" + month.lpad(2, "0") + "-" + day.lpad(2, "0")
    birth = ibis.coalesce(rows.birth_datetime, spelled.try_cast("timestamp(6)"))
    cdm.refuse(rows.filter(birth.isnull()), "person", "no-birth", "no date of birth, or none that exists")
    persons = rows.select(subject_id=rows.person_id, birth=birth, gender=rows.gender_concept_id)
    return cdm.engine.create_table("persons", persons)


def _read_events(cdm: Cdm, concepts: Any, prefer_source: bool) -> Any:
    found = [_coded(cdm, domain, concepts, prefer_source) for domain in DOMAINS]
    there = [rows for rows in found if rows is not None]
    if not there:
        raise cdm.missing(*(domain.table for domain in DOMAINS))
    return ibis.union(*there) if len(there) > 1 else there[0]


def _coded(cdm: Cdm, domain: _Domain, concepts: Any, prefer_source: bool) -> Any | None:
    """An event table as subject_id, time, code, name, mapped (a concept named it); None where it is absent."""
    rows = cdm.load(domain.table, domain.types, ("person_id",))
    if rows is None:
        return None
    column = domain.column
    source = concepts.select(source_id="concept_id", source_code="code", source_name="name")
    standard = concepts.select(standard_id="concept_id", standard_code="code", standard_name="name")
    rows = rows.left_join(source, rows[f"{column}_source_concept_id"] == source.source_id)
    rows = rows.left_join(standard, rows[f"{column}_concept_id"] == standard.standard_id)
    first, second = ("source", "standard") if prefer_source else ("standard", "source")
    by_concept = ibis.coalesce(rows[f"{first}_code"], rows[f"{second}_code"])
    code = ibis.coalesce(by_concept, "SOURCE//" + rows[f"{column}_source_value"])
    found = cdm.engine.create_table(
        f"events_{column}",
        rows.select(
            "source_row",
            subject_id=rows.person_id,
            time=ibis.coalesce(rows[f"{domain.time}_datetime"], rows[f"{domain.time}_date"]),
            code=domain.prefix + "//" + code,
            name=ibis.ifelse(rows[f"{first}_code"].notnull(), rows[f"{first}_name"], rows[f"{second}_name"]),
            mapped=by_concept.notnull(),
        ),
    )
    cdm.drop(domain.table)
    timeless = found.time.isnull()
    cdm.refuse(found.filter(timeless), domain.table, "no-time", f"columns {domain.time}_datetime and _date: empty")
    detail = f"columns {column}_concept_id, _source_concept_id and _source_value: nothing that names a code"
    cdm.refuse(found.filter(~timeless & found.code.isnull()), domain.table, "no-code", detail)
    return found.filter(~timeless & found.code.notnull()).drop("source_row")


def _static(cdm: Cdm, persons: Any, concepts: Any) -> Sequence[Any]:
    """MEDS_BIRTH, GENDER (without a time) and MEDS_DEATH, as subject_id, time, code."""
    known = persons.left_join(concepts, persons.gender == concepts.concept_id)
    gender = ibis.cases((known.gender == MALE, "M"), (known.gender == FEMALE, "F"), else_=known.code.split("//")[-1])
    genders = known.select("subject_id", time=ibis.null("timestamp(6)"), code="GENDER//" + gender)
    births = persons.select("subject_id", time=persons.birth, code=ibis.literal("MEDS_BIRTH"))
    found = [genders.filter(genders.code.notnull()), births.filter(births.time.notnull())]
    types = {"person_id": "int64", "death_datetime": "timestamp(6)", "death_date": "timestamp(6)"}
    deaths = cdm.load("death", types, ("person_id",))
    if deaths is not None:
        time = ibis.coalesce(deaths.death_datetime, deaths.death_date)
        cdm.refuse(deaths.filter(time.isnull()), "death", "no-time", "columns death_datetime and death_date: empty")
        dead = deaths.select(subject_id=deaths.person_id, time=time, code=ibis.literal("MEDS_DEATH"))
        found.append(dead.filter(dead.time.notnull()))
    return found


def _write_events(study: Path, rows: Any) -> int:
    absent = {"numeric_value": "float32", "text_value": "string", "recording_id": "string"}
    filled = rows.mutate(**{name: ibis.null(kind) for name, kind in absent.items()})
    return write_rows(schema.EVENTS, study, filled, EVENT_ORDER)


def _write_codes(study: Path, rows: Any, coded: Any, concepts: Any) -> None:
    """Every code of an event with its concept's name; above an ICD code its category."""
    names = coded.group_by("code").agg(name=coded.name.min())
    used = rows.select("code").distinct().left_join(names, "code").select("code", "name")
    head = used.code.re_extract(CATEGORY, 1).nullif("")
    codes = used.select("code", description=used.name, parent=head)
    above = codes.filter(codes.parent.notnull()).select(code="parent").distinct().anti_join(codes, "code")
    prefix = ibis.ifelse(concepts.procedure, "PROCEDURE//", "DIAGNOSIS//")
    titles = concepts.group_by(code=prefix + concepts.code).agg(description=concepts.name.min())
    above = above.left_join(titles, "code").select("code", "description", parent=ibis.null("string"))
    every = codes.union(above)
    none = ibis.literal([], "array<string>")
    parents = ibis.ifelse(every.parent.isnull(), none, ibis.array([every.parent]))
    write_rows(schema.CODES, study, every.select("code", "description", parent_codes=parents), ("code",))


def _with_persons(entries: list[Entry], persons: Any) -> tuple[list[Entry], int]:
    """The recordings with age and sex from PERSON where their table has none; how many are of nobody there."""
    wanted = ibis.memtable(pa.table({"subject_id": pa.array({e.subject_id for e in entries}, pa.int64())}))
    known = {row["subject_id"]: row for row in persons.semi_join(wanted, "subject_id").to_pyarrow().to_pylist()}
    unknown = sum(entry.subject_id not in known for entry in entries)
    if entries and unknown == len(entries):
        raise EinthovenError("No recording is of a person in PERSON: its subject_id must be OMOP's person_id.")
    return [_completed(entry, known.get(entry.subject_id)) for entry in entries], unknown


def _completed(entry: Entry, person: dict[str, Any] | None) -> Entry:
    if person is None:
        return entry
    sex = {MALE: "male", FEMALE: "female"}.get(person["gender"])
    return replace(
        entry, sex=entry.sex or sex, age=_age(person["birth"], entry.time) if entry.age is None else entry.age
    )


def _age(birth: datetime | None, time: datetime | None) -> float | None:
    """Years; None where either is unknown or birth comes later."""
    if birth is None or time is None or birth > time:
        return None
    return (time - birth).total_seconds() / (365.25 * 86400)

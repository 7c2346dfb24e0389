"""OMOP: one CDM gives one study, whatever it is kept in; what cannot be used is told; no password is."""

import csv
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
import pytest

from einthoven import pipeline, schema
from einthoven.cli import command_line
from einthoven.config import Source
from einthoven.errors import EinthovenError
from einthoven.sources.omop import ingest
from einthoven.study import read_table

GIBLEED = Path(__file__).resolve().parents[3] / "shared" / "data" / "omop-eunomia-gibleed"
SERVER = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
TABLES = (schema.RECORDINGS, schema.EVENTS, schema.CODES, schema.NOTES, schema.SUPPLIED_ENTITIES)
SECRET = "s3cret-word"

CONCEPTS = [  # id, name, domain, vocabulary, code
    (0, "No matching concept", "Metadata", "None", "No matching concept"),
    (1, "Atrial fibrillation", "Condition", "SNOMED", "49436004"),
    (2, "Paroxysmal atrial fibrillation", "Condition", "ICD10CM", "I48.0"),
    (3, "Atrial fibrillation and flutter", "Condition", "ICD10CM", "I48"),
    (4, "Chest pain", "Condition", "ICD10CM", "R07.4"),
    (5, "Left heart cardiac catheterization", "Procedure", "ICD9Proc", "37.22"),
    (6, "metoprolol", "Drug", "RxNorm", "6918"),
    (7, "Left axis deviation", "Observation", "SNOMED", "39732003"),
    (8, "Discharge summary", "Note", "Note Type", "discharge"),
    (9, "ECG report", "Note", "Note Class", "ecg"),
    (10, "Ward 7", "Visit", "Visit", "W7"),
    (11, "Chest pain", "Condition", "ICD9CM", "786.50"),
    (12, "Accident in home", "Condition", "ICD9CM", "E849.0"),
    (13, "A operation", "Procedure", "ICD9Proc", "E8.49"),
    (14, "Other operations on heart", "Procedure", "ICD9Proc", "37"),
    (15, "Electrocardiogram", "Procedure", "CPT4", "93000"),
    (16, "Hospital observation", "Procedure", "HCPCS", "G0378"),
    (17, "Vorhofflimmern, paroxysmal", "Condition", "ICD10GM", "I48.0"),
    (8551, "UNKNOWN", "Gender", "Gender", "U"),
]
CDM: dict[str, list[dict[str, Any]]] = {
    "concept": [
        dict(zip(("concept_id", "concept_name", "domain_id", "vocabulary_id", "concept_code"), row, strict=True))
        for row in CONCEPTS
    ],
    "person": [
        {"person_id": 11, "gender_concept_id": 8507, "year_of_birth": 1950, "month_of_birth": 3, "day_of_birth": 9},
        {
            "person_id": 12,
            "gender_concept_id": 8532,
            "year_of_birth": 1900,
            "month_of_birth": None,
            "day_of_birth": None,
        },
        {"person_id": 13, "gender_concept_id": 0, "year_of_birth": 1980, "month_of_birth": 2, "day_of_birth": 1},
    ],
    "death": [{"person_id": 12, "death_date": "2020-06-01"}],
    "condition_occurrence": [
        {
            "person_id": person,
            "condition_concept_id": standard,
            "condition_source_concept_id": source,
            "condition_source_value": value,
        }
        for person, standard, source, value in (
            (11, 1, 2, "x"),
            (11, 1, 0, "x"),
            (12, 0, 99, "Q7"),
            (12, 0, 12, None),
            (13, 0, 0, None),
        )
    ],
    "procedure_occurrence": [
        {"person_id": 11, "procedure_concept_id": 0, "procedure_source_concept_id": 5, "procedure_date": "2020-02-02"}
    ],
    "drug_exposure": [{"person_id": 13, "drug_concept_id": 6, "drug_exposure_start_date": "2020-03-03"}],
    "note": [
        {
            "note_id": 1,
            "person_id": 11,
            "note_class_concept_id": 9,
            "note_title": "Echo",
            "note_text": " \n AF is new.",
        },
        {"note_id": 2, "person_id": 12, "note_class_concept_id": 0, "note_title": "ECHO ", "note_text": "Née: AF?"},
        {"note_id": 3, "person_id": 12, "note_class_concept_id": 10, "note_title": None, "note_text": "Nothing new."},
        {"note_id": 4, "person_id": 13, "note_class_concept_id": 0, "note_title": None, "note_text": " "},
    ],
    "note_nlp": [
        {"note_id": 1, "note_nlp_concept_id": 1, "offset": "3", "lexical_variant": "AF", "term_exists": "Y"},
        {"note_id": 2, "note_nlp_concept_id": 1, "offset": None, "lexical_variant": "AF", "term_exists": "N"},
        {"note_id": 2, "note_nlp_concept_id": 4, "offset": "5-7", "lexical_variant": "AF", "term_temporal": "Past"},
        {"note_id": 2, "note_nlp_concept_id": 0, "offset": "5", "lexical_variant": "AF"},
        {"note_id": 2, "note_nlp_concept_id": 10, "offset": "5", "lexical_variant": "AF"},
        {"note_id": 4, "note_nlp_concept_id": 6, "offset": "0", "lexical_variant": "AF"},
        {"note_id": 3, "note_nlp_concept_id": 7, "offset": "11", "lexical_variant": "too long"},
    ],
}
for number, row in enumerate(CDM["condition_occurrence"], start=1):
    row |= {"condition_start_date": f"2020-01-0{number}", "condition_start_datetime": None}
CDM["condition_occurrence"][0]["condition_start_datetime"] = "2020-01-01 08:30:00"
for row in CDM["note"]:
    row |= {"note_date": "2020-01-05", "note_datetime": None, "note_type_concept_id": 8}
for row in CDM["note_nlp"]:
    row |= {"term_modifiers": "subject=patient, certainty=low" if row["note_nlp_concept_id"] == 7 else None}
    row |= {"term_exists": row.get("term_exists"), "term_temporal": row.get("term_temporal")}

KINDS = {"ecg REPORT": "ecg", "echo": "echo"}


def column_type(column: str) -> str:
    if column.endswith("_date"):
        return "DATE"
    if column.endswith("_datetime"):
        return "TIMESTAMP"
    whole = column.endswith("_id") and column not in ("domain_id", "vocabulary_id")
    return "INTEGER" if whole or column.endswith("_of_birth") else "VARCHAR(250)"


def columns_of(name: str) -> list[str]:
    return list(dict.fromkeys(column for row in CDM[name] for column in row))


def write_csv(folder: Path, cdm: dict[str, list[dict[str, Any]]] = CDM, *, upper: bool = True) -> Path:
    """The tables as CSV, their names and columns in upper case as many exports have them."""
    folder.mkdir()
    for name, rows in cdm.items():
        columns = columns_of(name)
        with (folder / f"{name.upper() if upper else name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([column.upper() if upper else column for column in columns])
            writer.writerows([row.get(column) for column in columns] for row in rows)
    return folder


def write_sql(execute: Any, mark: str, within: str = "") -> None:
    """The tables by SQL, in a schema, each with its key where the CDM gives it one."""
    for name, rows in CDM.items():
        columns = columns_of(name)
        key = [f"{name}_id"] if f"{name}_id" not in columns and name != "death" else []
        definitions = [f'"{column}" {column_type(column)}' for column in (*key, *columns)]
        execute(f"CREATE TABLE {within}{name} ({', '.join(definitions)})")
        for number, row in enumerate(rows, start=100):
            values = [*(number for _ in key), *(row.get(column) for column in columns)]
            execute(f"INSERT INTO {within}{name} VALUES ({', '.join([mark] * len(values))})", values)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four recordings: of a man, of a woman over 89, of a person of unknown sex, of nobody in PERSON."""
    file = tmp_path_factory.mktemp("archive") / "ecgs.csv"
    rows = ["a,11,2020-01-02 10:00:00,", "b,12,2020-01-02 10:00:00,", "c,13,,", "d,14,2020-01-02 10:00:00,33"]
    file.write_text("\n".join(["recording_id,subject_id,time,age", *rows]) + "\n")
    return file


@pytest.fixture(scope="module")
def settings_of(recordings: Path) -> Source:
    return Source(name="omop", recordings=str(recordings), note_kinds=KINDS)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, settings_of: Source) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("omop")
    return folder / "study", ingest(settings_of, write_csv(folder / "cdm"), folder / "study")


def rows(of: schema.Table, where: Path) -> list[dict[str, Any]]:
    return read_table(of, where).to_pylist()


def test_events_are_named_by_their_concepts(study: tuple[Path, dict[str, Any]]) -> None:
    found = [(row["subject_id"], row["time"], row["code"]) for row in rows(schema.EVENTS, study[0])]
    day = datetime
    assert found == [
        (11, None, "GENDER//M"),
        (11, day(1950, 3, 9), "MEDS_BIRTH"),
        (11, day(2020, 1, 1, 8, 30), "DIAGNOSIS//ICD//10//I480"),
        (11, day(2020, 1, 2), "DIAGNOSIS//SNOMED//49436004"),
        (11, day(2020, 2, 2), "PROCEDURE//ICD//9//3722"),
        (12, None, "GENDER//F"),
        (12, day(1900, 1, 1), "MEDS_BIRTH"),
        (12, day(2020, 1, 3), "DIAGNOSIS//SOURCE//Q7"),
        (12, day(2020, 1, 4), "DIAGNOSIS//ICD//9//E8490"),
        (12, day(2020, 6, 1), "MEDS_DEATH"),
        (13, day(1980, 2, 1), "MEDS_BIRTH"),
        (13, day(2020, 3, 3), "MEDICATION//START//RxNorm//6918"),
    ]
    assert study[1]["events"] == len(found) and study[1]["unmapped"] == 1


def test_codes_have_names_and_icd_categories(study: tuple[Path, dict[str, Any]]) -> None:
    codes = {row["code"]: (row["description"], row["parent_codes"]) for row in rows(schema.CODES, study[0])}
    assert codes["DIAGNOSIS//ICD//10//I480"] == ("Paroxysmal atrial fibrillation", ["DIAGNOSIS//ICD//10//I48"])
    assert codes["DIAGNOSIS//ICD//10//I48"] == ("Atrial fibrillation and flutter", [])
    assert codes["DIAGNOSIS//ICD//9//E8490"] == ("Accident in home", ["DIAGNOSIS//ICD//9//E849"])
    assert codes["DIAGNOSIS//ICD//9//E849"] == codes["DIAGNOSIS//SOURCE//Q7"] == (None, [])
    assert codes["PROCEDURE//ICD//9//3722"] == ("Left heart cardiac catheterization", ["PROCEDURE//ICD//9//37"])
    assert codes["PROCEDURE//ICD//9//37"] == ("Other operations on heart", [])
    assert {row["code"] for row in rows(schema.EVENTS, study[0])} <= set(codes)


def test_notes_take_their_kind_from_class_then_type_then_title(study: tuple[Path, dict[str, Any]]) -> None:
    found = [(row["note_id"], row["subject_id"], row["kind"], row["text"]) for row in rows(schema.NOTES, study[0])]
    assert found == [
        ("omop-1", 11, "ecg", "AF is new."),
        ("omop-2", 12, "echo", "Née: AF?"),
        ("omop-3", 12, "clinical", "Nothing new."),
    ]


def test_mentions_lie_where_their_note_has_them(study: tuple[Path, dict[str, Any]]) -> None:
    texts = {row["note_id"]: row["text"] for row in rows(schema.NOTES, study[0])}
    found = rows(schema.SUPPLIED_ENTITIES, study[0])
    places = [(m["note_id"], texts[m["note_id"]][m["start"] : m["end"]], m["term"], m["label"]) for m in found]
    assert places == [
        ("omop-1", "AF", "Atrial fibrillation", "disease"),
        ("omop-2", "", "Atrial fibrillation", "disease"),
        ("omop-2", "AF", "Chest pain", "symptom"),
        ("omop-3", "", "Left axis deviation", "finding"),
    ]
    assert [m["code"] for m in found] == ["SNOMED//49436004", "SNOMED//49436004", "ICD//10//R074", "SNOMED//39732003"]
    assert [m["negated"] for m in found] == [False, True, False, False]
    assert [m["historical"] for m in found] == [False, False, True, False]
    assert [m["uncertain"] for m in found] == [False, False, False, True]
    assert not any(m["family"] or m["hypothetical"] for m in found)
    assert (study[1]["mentions"], study[1]["unplaced"]) == (4, 2)


def test_recordings_are_completed_from_person(study: tuple[Path, dict[str, Any]]) -> None:
    found = {row["recording_id"]: row for row in rows(schema.RECORDINGS, study[0])}
    assert [found[name]["sex"] for name in "abcd"] == ["male", "female", None, None]
    assert found["a"]["age"] == pytest.approx(69.82, abs=0.01) and found["a"]["age_over_89"] is False
    assert (found["b"]["age"], found["b"]["age_over_89"]) == (90.0, True)
    assert (found["c"]["age"], found["d"]["age"]) == (None, 33.0)
    assert study[1]["without_person"] == 1 and study[1]["subjects"] == 4 and study[1]["data_kind"] == "real"


def test_what_is_left_out_has_its_reason_and_row(study: tuple[Path, dict[str, Any]]) -> None:
    found = [(row["source_file"], row["source_row"], row["reason"]) for row in rows(schema.EXCLUDED, study[0])]
    assert found == [
        ("CONDITION_OCCURRENCE.csv", 5, "no-code"),
        ("NOTE.csv", 4, "empty-text"),
        ("NOTE_NLP.csv", 4, "no-concept"),
        ("NOTE_NLP.csv", 5, "other-domain"),
        ("NOTE_NLP.csv", 6, "no-note"),
    ]
    reasons = {"empty-text": 1, "no-code": 1, "no-concept": 1, "no-note": 1, "other-domain": 1}
    assert study[1]["excluded"] == reasons


def same(first: Path, second: Path) -> None:
    for table in TABLES:
        assert table.at(first).read_bytes() == table.at(second).read_bytes(), table.path


def test_duckdb_gives_the_same_study(study: tuple[Path, dict[str, Any]], settings_of: Source, tmp_path: Path) -> None:
    """A file by its path (through the pipeline) and a schema of it by a connection string."""
    file = tmp_path / "hospital.duckdb"
    with duckdb.connect(file) as con:
        con.execute("CREATE SCHEMA omop")
        write_sql(con.execute, "?", "omop.")
        for name in CDM:
            con.execute(f"CREATE VIEW {name} AS FROM omop.{name}")
    before = file.read_bytes()
    assert pipeline.ingest(settings_of, file, tmp_path / "one").fresh
    assert not pipeline.ingest(settings_of, file, tmp_path / "one").fresh
    same(study[0], tmp_path / "one")
    counts = ingest(settings_of, f"duckdb://{file}?schema=none,omop", tmp_path / "two")
    same(study[0], tmp_path / "two")
    assert counts == study[1] and file.read_bytes() == before
    keys = [row["source_row"] for row in rows(schema.EXCLUDED, tmp_path / "two")]
    assert keys == [104, 4, 103, 104, 105]


def test_parquet_of_version_5_3_gives_the_same_study(
    study: tuple[Path, dict[str, Any]], settings_of: Source, tmp_path: Path
) -> None:
    (tmp_path / "cdm").mkdir()
    with duckdb.connect() as con:
        write_sql(con.execute, "?")
        for name in CDM:
            con.execute(f"COPY {name} TO '{tmp_path / 'cdm' / name}.parquet'")
    ingest(settings_of, tmp_path / "cdm", tmp_path / "study")
    same(study[0], tmp_path / "study")


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of our own, on loopback, run by a user without rights and gone with the test; its connection string."""
    if SERVER is None or find_spec("psycopg") is None:
        pytest.skip("PostgreSQL is not installed" if SERVER is None else "psycopg (ibis-framework[postgres]) is absent")
    folder = tmp_path_factory.mktemp("postgres", numbered=True)
    become: dict[str, Any] = {}
    if os.getuid() == 0:  # which the server refuses to be
        folder = Path(shutil.copytree(folder, f"/tmp/{folder.name}-{os.getpid()}"))
        os.chown(folder, 65534, 65534)
        become = {"user": 65534, "group": 65534, "extra_groups": []}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def call(*command: str) -> None:
        subprocess.run(command, check=True, cwd=folder, capture_output=True, timeout=60, **become)

    (folder / "word").write_text(SECRET)
    initdb, control, data = str(SERVER / "initdb"), str(SERVER / "pg_ctl"), str(folder / "data")
    call(initdb, "-D", data, "-U", "reader", "-A", "scram-sha-256", "--pwfile", str(folder / "word"), "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    call(control, "-D", data, "-o", options, "-w", "-l", str(folder / "log"), "start")
    try:
        yield f"postgresql://reader:{SECRET}@127.0.0.1:{port}/postgres"
    finally:
        call(control, "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


def test_postgres_gives_the_same_study(
    postgres: str, study: tuple[Path, dict[str, Any]], settings_of: Source, tmp_path: Path
) -> None:
    import psycopg

    with psycopg.connect(postgres) as con:
        con.execute("CREATE SCHEMA cdm")
        write_sql(con.execute, "%s", "cdm.")
    outcome = pipeline.ingest(settings_of, f"{postgres}/cdm", tmp_path / "study")
    same(study[0], tmp_path / "study")
    assert outcome.counts == study[1]
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or SECRET.encode() not in file.read_bytes(), file
    with pytest.raises(EinthovenError, match=r"postgres database: there is no table CONCEPT.*\?schema="):
        ingest(settings_of, postgres, tmp_path / "other")
    with pytest.raises(EinthovenError, match="no connection") as caught:
        ingest(settings_of, postgres.replace(SECRET, f"not-{SECRET}"), tmp_path / "other")
    assert SECRET not in str(caught.value)


def test_the_standard_concept_may_name_an_event(settings_of: Source, tmp_path: Path) -> None:
    """And what PERSON, DEATH and the notes hold beside it may be absent."""
    cdm = {name: CDM[name] for name in ("concept", "person", "condition_occurrence")}
    counts = ingest(
        replace(settings_of, omop_concepts="standard"), write_csv(tmp_path / "cdm", cdm), tmp_path / "study"
    )
    found = [row["code"] for row in rows(schema.EVENTS, tmp_path / "study") if row["code"].startswith("DIAG")]
    af = "DIAGNOSIS//SNOMED//49436004"
    assert found == [af, af, "DIAGNOSIS//SOURCE//Q7", "DIAGNOSIS//ICD//9//E8490"]
    assert counts["notes"] == 0 and rows(schema.NOTES, tmp_path / "study") == []
    assert not schema.SUPPLIED_ENTITIES.at(tmp_path / "study").exists()


def test_codes_are_those_of_the_other_sources(settings_of: Source, tmp_path: Path) -> None:
    """A source value that is no code is never written: it may name somebody."""
    free = ["Smith, hip fracture", "x" * 21, "K92.2", "ICD_9/427-31"]
    conditions = [CDM["condition_occurrence"][2] | {"condition_source_value": value} for value in free]
    conditions.append(CDM["condition_occurrence"][0] | {"condition_source_concept_id": 17})
    procedures = [CDM["procedure_occurrence"][0] | {"procedure_source_concept_id": number} for number in (15, 16)]
    persons = [row | {"gender_concept_id": 8551, "year_of_birth": 1800} for row in CDM["person"]]
    cdm = CDM | {"condition_occurrence": conditions, "procedure_occurrence": procedures, "person": persons}
    study = tmp_path / "study"
    counts = ingest(settings_of, write_csv(tmp_path / "cdm", cdm), study)
    found = {row["code"] for row in rows(schema.EVENTS, study)}
    assert found == {
        *("DIAGNOSIS//SOURCE//K92.2", "DIAGNOSIS//SOURCE//ICD_9/427-31", "DIAGNOSIS//ICD//10//I480"),
        *("PROCEDURE//CPT//93000", "HCPCS//G0378", "MEDICATION//START//RxNorm//6918"),
        *("GENDER//UNKNOWN", "MEDS_BIRTH", "MEDS_DEATH"),
    }
    refused = [row for row in rows(schema.EXCLUDED, study) if row["source_file"] == "CONDITION_OCCURRENCE.csv"]
    assert [(row["source_row"], row["reason"]) for row in refused] == [(1, "no-concept"), (2, "no-concept")]
    assert counts["unmapped"] == 2 and "Smith" not in str(refused)
    ages = {row["recording_id"]: row["age"] for row in rows(schema.RECORDINGS, study)}
    assert ages == {"a": None, "b": None, "c": None, "d": 33.0}  # born in 1800 is an error, not an age


def test_bad_rows_are_excluded(settings_of: Source, tmp_path: Path) -> None:
    folder = write_csv(tmp_path / "cdm")
    for name, line in {
        "PERSON": "Bob,8507,1950,1,1\n11,8507,1951,1,1\n15,8507,1950,2,30\n",
        "CONCEPT": "1,Other,Condition,SNOMED,1\n",
        "DRUG_EXPOSURE": "11,6,soon\n11,6,\n11,6\n,6,2020-01-01\n",
        "NOTE": "3,12,10,,Again.,2020-01-05,,8\n",
    }.items():
        with (folder / f"{name}.csv").open("a") as file:
            file.write(line)
    ingest(settings_of, folder, tmp_path / "study")
    found = rows(schema.EXCLUDED, tmp_path / "study")
    assert {(row["source_file"], row["source_row"], row["reason"]) for row in found} >= {
        ("PERSON.csv", 4, "bad-row"),
        ("PERSON.csv", 5, "duplicate-id"),
        ("PERSON.csv", 6, "no-birth"),
        ("CONCEPT.csv", len(CONCEPTS) + 1, "duplicate-id"),
        ("DRUG_EXPOSURE.csv", 2, "bad-row"),
        ("DRUG_EXPOSURE.csv", 3, "no-time"),
        ("DRUG_EXPOSURE.csv", 4, "bad-row"),
        ("DRUG_EXPOSURE.csv", 5, "bad-row"),
        ("NOTE.csv", 5, "duplicate-id"),
    }
    assert not [row for row in found if "Bob" in row["detail"] or "soon" in row["detail"]]
    births = [row for row in rows(schema.EVENTS, tmp_path / "study") if row["code"] == "MEDS_BIRTH"]
    assert [row["subject_id"] for row in births] == [11, 12, 13]
    (af,) = [row for row in rows(schema.CODES, tmp_path / "study") if row["code"] == "DIAGNOSIS//SNOMED//49436004"]
    assert af["description"] == "Atrial fibrillation"


def without(name: str, column: str | None = None) -> dict[str, list[dict[str, Any]]]:
    cdm = {table: CDM[table] for table in ("concept", "person", "condition_occurrence")}
    if column is None:
        return {table: rows for table, rows in cdm.items() if table != name}
    return cdm | {name: [row | {column: f"{row[column]}-x"} for row in cdm[name]]}


@pytest.mark.parametrize(
    ("cdm", "expected"),
    [
        (without("concept"), r"cdm: there is no table CONCEPT"),
        (without("person"), r"cdm: there is no table PERSON"),
        (without("condition_occurrence"), r"no table CONDITION_OCCURRENCE or PROCEDURE_OCCURRENCE or DRUG_EXPOSURE"),
        (without("person", "person_id"), r"PERSON: no row can be used. person_id must be a whole number"),
    ],
)
def test_what_is_no_cdm_is_told(cdm: Any, expected: str, settings_of: Source, tmp_path: Path) -> None:
    with pytest.raises(EinthovenError, match=expected):
        ingest(settings_of, write_csv(tmp_path / "cdm", cdm), tmp_path / "study")


def test_recordings_must_be_named_and_of_these_persons(tmp_path: Path) -> None:
    folder = write_csv(tmp_path / "cdm", without(""))
    with pytest.raises(EinthovenError, match=r"Name the table of your recordings.*recording_id and subject_id"):
        ingest(Source(name="omop"), folder, tmp_path / "study")
    (tmp_path / "ecgs.csv").write_text("recording_id,subject_id\na,1\n")
    with pytest.raises(EinthovenError, match="must be OMOP's person_id"):
        ingest(Source(name="omop", recordings=str(tmp_path / "ecgs.csv")), folder, tmp_path / "study")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (f"nosuch://u:{SECRET}@host/db", "unknown kind of database. Known to Ibis: .*postgres"),
        (f"oracle://u:{SECRET}@host/db", r'oracle database: .*pip install "ibis-framework\[oracle\]"'),
        (f"duckdb:///no/such/{SECRET}.duckdb", r"duckdb database: no connection.*\(IOException\)"),
    ],
)
def test_a_connection_string_is_never_shown(address: str, expected: str, settings_of: Source, tmp_path: Path) -> None:
    with pytest.raises(EinthovenError, match=expected) as caught:
        pipeline.ingest(settings_of, address, tmp_path / "study")
    assert SECRET not in str(caught.value)
    with pytest.raises(EinthovenError, match="mimic is read from a directory") as caught:
        pipeline.ingest(replace(settings_of, name="mimic"), address, tmp_path / "study")
    assert SECRET not in str(caught.value)
    assert SECRET not in command_line(["run", "r.toml", "--source", address, f"--source={address}"])


@pytest.mark.skipif(not GIBLEED.is_dir(), reason="../shared/data/omop-eunomia-gibleed is not there")
def test_gibleed_as_published(tmp_path: Path) -> None:
    (tmp_path / "ecgs.csv").write_text("recording_id,subject_id,time\na,6,2000-01-01 10:00:00\n")
    counts = ingest(Source(name="omop", recordings=str(tmp_path / "ecgs.csv")), GIBLEED, tmp_path / "study")
    assert counts["events"] == 65_332 + 37_409 + 67_707 + 2 * 2_694
    assert (counts["unmapped"], counts["excluded"], counts["notes"]) == (0, {}, 0)
    with duckdb.connect() as con:
        con.execute(f"CREATE VIEW events AS FROM '{tmp_path}/study/events.parquet'")
        bleeds = con.execute("SELECT count(*) FROM events WHERE code = 'DIAGNOSIS//ICD//10//K922'").fetchone()
        raw = con.execute(
            f"SELECT count(*) FROM '{GIBLEED}/condition_occurrence.csv.gz' WHERE CONDITION_SOURCE_VALUE = 'K92.2'"
        ).fetchone()
    assert bleeds == raw == (479,)
    assert rows(schema.RECORDINGS, tmp_path / "study")[0]["sex"] == "female"

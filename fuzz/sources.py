"""The tables of every source, as `einthoven ingest` reads them: one small valid copy of each, damaged anywhere."""

import base64
import json
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from einthoven.sources.ptbxl_rows import COLUMNS
from fuzz.mutations import Tree
from fuzz.target import Run, Target
from fuzz.trees import Rows, archive, ingested, parquet, record, table

INPUTS: Final = {"ptbxl": 300, "mimic": 60, "meds": 100, "omop": 60, "fhir": 120, "challenge": 300}
"""An ingest of many tables takes a second."""


def ptbxl(folder: Path) -> tuple[list[Tree], Run]:
    statements = ",description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass\n" + "".join(
        f"{code},{said},1.0,,,{group},{group}\n"
        for code, said, group in (("NORM", "normal ECG", "NORM"), ("IMI", "infarct", "MI"))
    )
    known = {
        "patient_id": "100.0",
        "age": "56.0",
        "sex": 1,
        "site": "2.0",
        "device": "CS-12   E",
        "report": "sinusrhythmus",
        "recording_date": "1990-01-02 10:00:00",
        "scp_codes": "{'NORM': 100.0, 'IMI': 0.0}",
    }
    rows = [
        known
        | {
            "ecg_id": i,
            "patient_id": f"{100 + i}.0",
            "strat_fold": i,
            "filename_lr": f"records100/00000/{i:05d}_lr",
            "filename_hr": f"records500/00000/{i:05d}_hr",
        }
        for i in (1, 2, 9)
    ]
    rows = [{column: row.get(column, "") for column in COLUMNS} for row in rows]
    tree = {"source/ptbxl_database.csv": table(rows), "source/scp_statements.csv": statements.encode()}
    for i in (1, 2, 9):
        tree |= record(f"source/records100/00000/{i:05d}_lr")
    return ingested("ptbxl", [tree], folder)


def mimic(folder: Path) -> tuple[list[Tree], Run]:
    s, when = {"subject_id": 10000001}, "2150-03-01 10:00:00"
    reports = {f"report_{i}": "" for i in range(18)} | {"report_0": "Sinus rhythm"}
    measured = {
        "rr_interval": 800,
        "p_onset": 40,
        "qrs_onset": 200,
        "qrs_end": 290,
        "t_end": 600,
        "qrs_axis": -30,
        "p_axis": 29999,
        "t_axis": 32767,
    }
    stay = {
        "hadm_id": 21,
        "admittime": "2150-03-01 08:00:00",
        "dischtime": "2150-03-10 16:30:00",
        "deathtime": "",
        "admission_type": "URGENT",
        "admission_location": "EMERGENCY ROOM",
        "discharge_location": "HOME",
    }
    place = "files/p1000/p10000001/s41/41"
    note = {
        "note_id": "10000001-DS-1",
        "hadm_id": 21,
        "note_type": "DS",
        "note_seq": 1,
        "charttime": when,
        "storetime": when,
    }
    tables: dict[str, Rows] = {
        "hosp/patients": [s | {"gender": "F", "anchor_age": 60, "anchor_year": 2148, "dod": "2152-05-06"}],
        "hosp/admissions": [s | stay],
        "hosp/diagnoses_icd": [
            s | {"hadm_id": 21, "seq_num": 1, "icd_code": code, "icd_version": v}
            for code, v in (("I4891", 10), ("0389", 9))
        ],
        "hosp/procedures_icd": [s | {"chartdate": "2150-03-02", "icd_code": "5491", "icd_version": 9}],
        "hosp/prescriptions": [s | {"starttime": when, "stoptime": "", "drug": " Heparin "}],
        "hosp/d_icd_diagnoses": [
            {"icd_code": "I4891", "icd_version": 10, "long_title": "Unspecified atrial fibrillation"}
        ],
        "ecg/record_list": [s | {"study_id": 41, "file_name": 41, "ecg_time": when, "path": place}],
        "ecg/machine_measurements": [s | {"study_id": 41, "cart_id": 6848296, "ecg_time": when} | reports | measured],
        "note/discharge": [s | note | {"text": 'AF is new.\nNo "chest pain", denied.'}],
    }
    tree = {f"source/{name}.csv": table(rows) for name, rows in tables.items()} | record(f"source/ecg/{place}", 500)
    return ingested("mimic", [tree], folder)


def meds(folder: Path) -> tuple[list[Tree], Run]:
    kinds = [
        ("subject_id", pa.int64()),
        ("time", pa.timestamp("us")),
        ("code", pa.string()),
        ("numeric_value", pa.float32()),
        ("text_value", pa.large_string()),
    ]
    day = datetime.fromisoformat("2020-01-30T12:00")
    events = [
        {"subject_id": of, "time": day, "code": code, "numeric_value": 1.0, "text_value": text}
        for of, code, text in ((11, "DX//I48", None), (11, "REPORT//ECG", "sinus"), (12, "LAB//K", None))
    ]
    tree = archive() | {
        "source/data/0.parquet": parquet(events, pa.schema(kinds)),
        "source/metadata/subject_splits.parquet": parquet(
            [{"subject_id": 11, "split": "train"}, {"subject_id": 12, "split": "train"}]
        ),
        "source/metadata/codes.parquet": parquet([{"code": "DX//I48", "description": "AF", "parent_codes": ["DX//I"]}]),
        "source/metadata/dataset.json": json.dumps(
            {"dataset_name": "x", "meds_version": "0.4.0", "code_modifiers": []}
        ).encode(),
    }
    return ingested("meds", [tree], folder, "ecgs.csv")


OMOP: Final = {
    "concept": """concept_id,concept_name,domain_id,vocabulary_id,concept_code
1,Atrial fibrillation,Condition,SNOMED,49436004
2,Paroxysmal,Condition,ICD10CM,I48.0
6,metoprolol,Drug,RxNorm,6918
9,ECG report,Note,Note Class,ecg
""",
    "person": """person_id,gender_concept_id,year_of_birth,month_of_birth,day_of_birth,birth_datetime
11,8507,1950,3,9,
12,8507,1950,3,9,
""",
    "condition_occurrence": """condition_occurrence_id,person_id,condition_concept_id,condition_source_concept_id,\
condition_source_value,condition_start_date,condition_start_datetime,visit_occurrence_id
1,11,1,2,x,2020-01-30,2020-01-30 10:00:00,5
""",
    "drug_exposure": """drug_exposure_id,person_id,drug_concept_id,drug_exposure_start_date,\
drug_exposure_start_datetime,drug_source_value,drug_source_concept_id
1,12,6,2020-01-30,,,0
""",
    "death": """person_id,death_date,death_datetime
12,2021-01-01,
""",
    "note": """note_id,person_id,note_class_concept_id,note_type_concept_id,note_title,note_text,\
note_date,note_datetime,encoding_concept_id
1,11,9,0,Echo, AF is new.,2020-01-30,,0
""",
    "note_nlp": """note_nlp_id,note_id,offset,lexical_variant,note_nlp_concept_id,term_exists,\
term_modifiers,snippet,section_concept_id,nlp_date
1,1,1,AF,1,Y,,,0,2020-01-30
""",
}


def omop(folder: Path) -> tuple[list[Tree], Run]:
    made = {f"source/{name}.csv": rows.encode() for name, rows in OMOP.items()}
    return ingested("omop", [archive() | made], folder, "ecgs.csv")


OF: Final = {"subject": {"reference": "Patient/p1"}}
MDC: Final = "urn:oid:2.16.840.1.113883.6.24"


def concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, "display": "said"}]}


def fhir(folder: Path) -> tuple[list[Tree], Run]:
    text = base64.b64encode(b"<p>AF is <b>new</b></p>").decode()
    resources: list[dict[str, Any]] = [
        {"resourceType": "Patient", "id": "p1", "gender": "female", "birthDate": "1950-06-01"},
        {"resourceType": "Condition", "id": "c1", **OF}
        | {
            "code": concept("http://hl7.org/fhir/sid/icd-10-cm", "I48.91"),
            "onsetDateTime": "2020-05-31T10:00:00+02:00",
        },
        *observations(),
        {"resourceType": "MedicationRequest", "id": "m1", "status": "active", "intent": "order", **OF}
        | {"authoredOn": "2020"}
        | {"medicationCodeableConcept": concept("http://www.nlm.nih.gov/research/umls/rxnorm", "6918")},
        {"resourceType": "DocumentReference", "id": "d1", "status": "current", **OF, "date": "2020-06-02T08:00:00Z"}
        | {"content": [{"attachment": {"contentType": "text/html", "data": text}}]},
        {"resourceType": "Encounter", "id": "v1", "status": "finished", "class": {"code": "IMP"}, **OF}
        | {"period": {"start": "2020-05-30T10:00:00Z"}},
    ]
    lines: dict[str, str] = {}
    for one in resources:
        path = f"source/{one['resourceType']}.ndjson"
        lines[path] = lines.get(path, "") + json.dumps(one) + "\n"
    return ingested("fhir", [{path: said.encode() for path, said in lines.items()}], folder)


def observations() -> list[dict[str, Any]]:
    """An ECG of two leads, and a laboratory value."""
    values = np.cumsum(np.random.default_rng(0).integers(-9, 10, (2, 1000)), axis=1)
    parts = [
        {
            "code": concept(MDC, code),
            "valueSampledData": {
                "origin": {"value": 0, "unit": "uV"},
                "period": 2,
                "factor": 1,
                "dimensions": 1,
                "data": " ".join(map(str, row)),
            },
        }
        for code, row in zip(("131329", "131330"), values, strict=True)
    ]
    shared = {"resourceType": "Observation", "status": "final", **OF}
    return [
        {"id": "e1", **shared, "code": concept(MDC, "131328"), "component": parts}
        | {"effectiveDateTime": "2020-06-01T09:30:35.120+01:00"},
        {"id": "o1", **shared, "code": concept("http://loinc.org", "2823-3"), "effectiveDateTime": "2020-06"}
        | {"valueQuantity": {"value": 4.1, "unit": "mmol/L"}},
    ]


def challenge(folder: Path) -> tuple[list[Tree], Run]:
    tree = record("source/a/A0001", 500, 10, "#Age: 56", "#Sex: Female", "#Dx: 164889003,59118001", "#Rx: Unknown")
    tree |= record("source/b/100", 400, 7, "# Age: 61", "# Sex: Male", "# Chagas label: True", "# Patient ID: 77")
    return ingested("challenge", [tree], folder)


TARGETS: Final = tuple(
    Target(f"source-{made.__name__}", made, INPUTS[made.__name__])
    for made in (ptbxl, mimic, meds, omop, fhir, challenge)
)

"""MIMIC-IV: a small invented copy in every format, its bad rows, and the real linkage of the shared demo."""

import csv
import gzip
import io
import shutil
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import wfdb

from einthoven import schema
from einthoven.config import CODE_KINDS, Entities, Pairing, Source, TextEncoder
from einthoven.entities.extract import extract
from einthoven.errors import EinthovenError
from einthoven.pairing.pairs import pair
from einthoven.sources.mimic import ingest
from einthoven.sources.mimic_tables import LAYOUTS, month_first
from einthoven.sources.tabular import SourceTable
from einthoven.study import read_table
from einthoven.waveforms.store import Store

DEMO = Path(__file__).resolve().parents[3] / "shared" / "data" / "mimic-iv-demo-2.2"
LEADS = ["I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6"]  # the module's order
FOLDERS = {
    "mimiciv/3.1/hosp": (
        "patients admissions diagnoses_icd procedures_icd hcpcsevents prescriptions "
        "d_icd_diagnoses d_icd_procedures d_hcpcs"
    ),
    "mimic-iv-ecg/1.0": "record_list machine_measurements waveform_note_links",
    "mimic-iv-note/2.2/note": "discharge radiology",
}
Rows = list[dict[str, Any]]


def record(subject: int, study: int) -> str:
    return f"files/p{str(subject)[:4]}/p{subject}/s{study}/{study}"


def machine(subject: int, study: int, time: str, **more: Any) -> dict[str, Any]:
    reports = {f"report_{i}": "" for i in range(18)} | {"report_0": "Sinus rhythm", "report_2": "Borderline ECG."}
    measured = {"rr_interval": 800, "p_onset": 40, "qrs_onset": 200, "qrs_end": 290, "t_end": 600, "qrs_axis": -30}
    row = {"subject_id": subject, "study_id": study, "cart_id": 6848296, "ecg_time": time, **reports, **measured}
    return row | {"p_axis": 29999, "t_axis": 32767} | more


def tables() -> dict[str, Rows]:
    """Three patients; the first two with an admission, the first with four ECGs (the last without files)."""
    ecgs = [
        (10000001, 41, "2150-03-01 10:00:00"),
        (10000001, 42, "2150-03-09 10:00:00"),
        (10000002, 43, "2160-01-01 00:00:00"),
        (10000001, 44, "2151-01-01 10:00:00"),
    ]
    return {
        "patients": [
            {"subject_id": 10000001, "gender": "F", "anchor_age": 60, "anchor_year": 2148, "dod": "2152-05-06"},
            {"subject_id": 10000002, "gender": "M", "anchor_age": 91, "anchor_year": 2158, "dod": ""},
            {"subject_id": 10000003, "gender": "M", "anchor_age": 20, "anchor_year": 2100, "dod": "2101-01-01"},
        ],
        "admissions": [
            {
                "subject_id": 10000001,
                "hadm_id": 21,
                "admittime": "2150-03-01 08:00:00",
                "dischtime": "2150-03-10 16:30:00",
                "deathtime": "",
                "admission_type": "URGENT",
                "admission_location": "EMERGENCY ROOM",
                "discharge_location": "HOME",
            },
            {
                "subject_id": 10000002,
                "hadm_id": 22,
                "admittime": "2160-01-01 00:00:00",
                "dischtime": "2160-01-03 11:00:00",
                "deathtime": "2160-01-03 10:59:00",
                "admission_type": "EW EMER.",
                "admission_location": "",
                "discharge_location": "DIED",
            },
        ],
        "diagnoses_icd": [
            {"subject_id": 10000001, "hadm_id": 21, "seq_num": 1, "icd_code": "I4891", "icd_version": 10},
            {"subject_id": 10000001, "hadm_id": 21, "seq_num": 2, "icd_code": "I10", "icd_version": 10},
            {"subject_id": 10000001, "hadm_id": 21, "seq_num": 3, "icd_code": "E8859", "icd_version": 9},
            {"subject_id": 10000001, "hadm_id": 21, "seq_num": 4, "icd_code": "E8859", "icd_version": 10},
            {"subject_id": 10000002, "hadm_id": 22, "seq_num": 1, "icd_code": "0389", "icd_version": 9},
        ],
        "procedures_icd": [
            {"subject_id": 10000001, "chartdate": "2150-03-02", "icd_code": "5491", "icd_version": 9},
            {"subject_id": 10000001, "chartdate": "2150-03-13", "icd_code": "0W9G3ZZ", "icd_version": 10},
        ],
        "hcpcsevents": [
            {"subject_id": 10000002, "chartdate": "2160-01-02", "hcpcs_cd": "G0378", "short_description": "Hospital"},
            {"subject_id": 10000002, "chartdate": "2160-01-02", "hcpcs_cd": "99218", "short_description": "Care"},
        ],
        "prescriptions": [
            {
                "subject_id": 10000001,
                "starttime": "2150-03-01 12:00:00",
                "stoptime": "2150-03-02 12:00:00",
                "drug": " Heparin ",
            },
            {"subject_id": 10000001, "starttime": "2150-03-01 12:00:00", "stoptime": "", "drug": "Metoprolol"},
        ],
        "d_icd_diagnoses": [
            {"icd_code": "I4891", "icd_version": 10, "long_title": "Unspecified atrial fibrillation"},
            {"icd_code": "E885", "icd_version": 9, "long_title": "Fall on the same level"},
            {"icd_code": "E8859", "icd_version": 9, "long_title": "Fall from slipping"},
        ],
        "d_icd_procedures": [{"icd_code": "5491", "icd_version": 9, "long_title": "Percutaneous abdominal drainage"}],
        "d_hcpcs": [{"code": "G0378", "long_description": "Hospital observation, hour", "short_description": "x"}],
        "record_list": [
            {"subject_id": s, "study_id": n, "file_name": n, "ecg_time": t, "path": record(s, n)} for s, n, t in ecgs
        ],
        "machine_measurements": [machine(*ecg) for ecg in ecgs],
        "waveform_note_links": [{"subject_id": 10000001, "study_id": 41, "note_id": "10000001-EK-1"}],
        "discharge": [
            {
                "note_id": "10000001-DS-1",
                "subject_id": 10000001,
                "note_type": "DS",
                "charttime": "2150-03-10 00:00:00",
                "text": " \nChief Complaint:\n___ with palpitations, chest pain",
            },
            {
                "note_id": "10000001-EK-1",
                "subject_id": 10000001,
                "note_type": "EK",
                "charttime": "2150-03-01 11:00:00",
                "text": "Atrial fibrillation.",
            },
        ],
        "radiology": [
            {
                "note_id": "10000002-RR-1",
                "subject_id": 10000002,
                "note_type": "RR",
                "charttime": "2160-01-02 09:00:00",
                "text": "No effusion.",
            },
        ],
    }


def as_csv(rows: Rows) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_table(file: Path, rows: Rows, suffix: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file = file.with_name(file.name + suffix)
    if suffix == ".parquet":
        cells = [{name: None if cell == "" else cell for name, cell in row.items()} for row in rows]
        for row in cells:
            for name in row.keys() & {"ecg_time", "charttime", "admittime", "dischtime", "starttime", "stoptime"}:
                row[name] = row[name] and datetime.fromisoformat(row[name])
        pq.write_table(pa.Table.from_pylist(cells), file)
    elif suffix == ".csv.gz":
        file.write_bytes(gzip.compress(as_csv(rows).encode()))
    else:
        file.write_text(as_csv(rows))


def microvolts(study: int) -> np.ndarray:
    steps = np.random.default_rng(study).integers(-9, 10, (5000, 12))
    return np.cumsum(steps, axis=0)


def write_copy(folder: Path, suffix: str = ".csv.gz", **changes: Rows | None) -> Path:
    """A copy of the tables, those changed (None: absent), nested as a download is; ECGs 41 to 43 with their signal."""
    content = {name: rows for name, rows in (tables() | changes).items() if rows is not None}
    places = {name: place for place, names in FOLDERS.items() for name in names.split()}
    for name, rows in content.items():
        write_table(folder / "physionet.org/files" / places.get(name, "other") / name, rows, suffix)
    for row in tables()["record_list"][:3]:
        place = folder / "physionet.org/files/mimic-iv-ecg/1.0" / row["path"]
        place.parent.mkdir(parents=True)
        signal = microvolts(row["study_id"]) / 1000
        units, scale = ["mV"] * 12, [1000.0] * 12
        wfdb.wrsamp(
            place.name,
            500,
            units,
            LEADS,
            signal,
            fmt=["16"] * 12,
            adc_gain=scale,
            baseline=[0] * 12,
            write_dir=str(place.parent),
        )
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The study of the unchanged copy, and its counts."""
    place = tmp_path_factory.mktemp("whole")
    return place / "study", ingest(Source(name="mimic"), write_copy(place / "source"), place / "study")


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """Write a copy with some tables changed, ingest it; the study and the counts."""

    def built(config: Source | None = None, suffix: str = ".csv.gz", **changes: Rows | None) -> Any:
        source = tmp_path / f"source{len(list(tmp_path.iterdir()))}"
        write_copy(source, suffix, **changes)
        return tmp_path / "study", ingest(config or Source(name="mimic"), source, tmp_path / "study")

    return built


def rows_of(table: schema.Table, study: Path) -> Rows:
    return read_table(table, study).to_pylist()


def events_of(study: Path, prefix: str) -> list[tuple[int, str, str]]:
    return [
        (e["subject_id"] - 10000000, str(e["time"]), e["code"])
        for e in rows_of(schema.EVENTS, study)
        if e["code"].startswith(prefix)
    ]


def excluded_of(study: Path) -> list[tuple[str, str, int]]:
    found = rows_of(schema.EXCLUDED, study)
    return [(e["reason"], Path(e["source_file"]).name.partition(".")[0], e["source_row"]) for e in found]


def test_events(whole: tuple[Path, dict[str, Any]]) -> None:
    study, counts = whole
    assert (counts["data_kind"], counts["excluded"], counts["absent"]) == ("real", {}, [])
    assert (sum(counts["recordings"].values()), counts["subjects"], counts["without_signal"]) == (4, 2, 1)
    assert counts["diagnoses_dated_by"] == "discharge"
    events = rows_of(schema.EVENTS, study)
    assert counts["events"] == len(events) == 4 + 8 + 5 + 2 + 2 + 3 + 4 * 5
    keys = [(e["subject_id"], str(e["time"] or ""), e["code"]) for e in events]
    assert keys == sorted(keys)
    assert events_of(study, "DIAGNOSIS") == [
        (1, "2150-03-10 16:30:00", "DIAGNOSIS//ICD//10//E8859"),
        (1, "2150-03-10 16:30:00", "DIAGNOSIS//ICD//10//I10"),
        (1, "2150-03-10 16:30:00", "DIAGNOSIS//ICD//10//I4891"),
        (1, "2150-03-10 16:30:00", "DIAGNOSIS//ICD//9//E8859"),
        (2, "2160-01-03 11:00:00", "DIAGNOSIS//ICD//9//0389"),
    ]
    assert events_of(study, "PROCEDURE") == [
        (1, "2150-03-02 00:00:00", "PROCEDURE//ICD//9//5491"),
        (1, "2150-03-13 00:00:00", "PROCEDURE//ICD//10//0W9G3ZZ"),
        (2, "2160-01-02 00:00:00", "PROCEDURE//CPT//99218"),  # HCPCS's first level is CPT
    ]
    assert events_of(study, "HCPCS") == [(2, "2160-01-02 00:00:00", "HCPCS//G0378")]
    assert events_of(study, "MEDICATION") == [
        (1, "2150-03-01 12:00:00", "MEDICATION//START//Heparin"),
        (1, "2150-03-01 12:00:00", "MEDICATION//START//Metoprolol"),
        (1, "2150-03-02 12:00:00", "MEDICATION//STOP//Heparin"),
    ]
    assert events_of(study, "HOSPITAL") == [
        (1, "2150-03-01 08:00:00", "HOSPITAL_ADMISSION//URGENT//EMERGENCY ROOM"),
        (1, "2150-03-10 16:30:00", "HOSPITAL_DISCHARGE//HOME"),
        (2, "2160-01-01 00:00:00", "HOSPITAL_ADMISSION//EW EMER.//UNK"),
        (2, "2160-01-03 11:00:00", "HOSPITAL_DISCHARGE//DIED"),
    ]
    assert events_of(study, "GENDER") == [(1, "None", "GENDER//F"), (2, "None", "GENDER//M"), (3, "None", "GENDER//M")]
    assert events_of(study, "MEDS") == [  # not the birth of the second, whose age is only known to be over 89
        (1, "2088-01-01 00:00:00", "MEDS_BIRTH"),
        (1, "2152-05-06 00:00:00", "MEDS_DEATH"),
        (2, "2160-01-03 10:59:00", "MEDS_DEATH"),
        (3, "2080-01-01 00:00:00", "MEDS_BIRTH"),
        (3, "2101-01-01 00:00:00", "MEDS_DEATH"),
    ]


def test_parquet_gives_the_same(build: Any, whole: tuple[Path, dict[str, Any]]) -> None:
    study, counts = build(suffix=".parquet")
    assert counts == whole[1]
    for table in (schema.RECORDINGS, schema.EVENTS, schema.CODES, schema.NOTES):
        assert rows_of(table, study) == rows_of(table, whole[0])


def test_recordings_and_their_signals(whole: tuple[Path, dict[str, Any]]) -> None:
    study, _ = whole
    found = rows_of(schema.RECORDINGS, study)
    assert [(r["recording_id"], str(r["time"]), r["row"]) for r in found] == [
        ("mimic-41", "2150-03-01 10:00:00", 0),
        ("mimic-42", "2150-03-09 10:00:00", 1),
        ("mimic-44", "2151-01-01 10:00:00", None),
        ("mimic-43", "2160-01-01 00:00:00", 2),
    ]
    assert [(r["age"], r["age_over_89"], r["sex"], r["device"]) for r in found] == [
        (62.0, False, "female", "cart 6848296"),
        (62.0, False, "female", "cart 6848296"),
        (63.0, False, "female", "cart 6848296"),
        (90.0, True, "male", "cart 6848296"),
    ]
    assert found[0]["source_file"] == record(10000001, 41) and len({r["split"] for r in found[:3]}) == 1
    store = Store.open(study)
    assert (store.sampling_rate, store.samples, store.rows) == (500, 5000, 3)
    order = [LEADS.index(lead) for lead in schema.LEADS]
    for row, number in enumerate((41, 42, 43)):
        assert np.array_equal(store.read([row])[0], microvolts(number).T[order])


def test_machine_reports_and_measurements(whole: tuple[Path, dict[str, Any]]) -> None:
    study, counts = whole
    assert counts["notes"] == 4 + 3
    notes = {n["note_id"]: n for n in rows_of(schema.NOTES, study)}
    assert notes["mimic-44-report"] == {
        "note_id": "mimic-44-report",
        "subject_id": 10000001,
        "time": datetime(2151, 1, 1, 10),
        "kind": "ecg",
        "text": "Sinus rhythm. Borderline ECG",
        "recording_id": "mimic-44",
        "code": None,
    }
    values = {e["code"]: e["numeric_value"] for e in rows_of(schema.EVENTS, study) if e["recording_id"] == "mimic-44"}
    assert values == {  # the axes of P and T were not measured
        "ECG//RR_INTERVAL": 800,
        "ECG//PR_INTERVAL": 160,
        "ECG//QRS_DURATION": 90,
        "ECG//QT_INTERVAL": 400,
        "ECG//QRS_AXIS": -30,
    }
    codes = {c["code"]: c["description"] for c in rows_of(schema.CODES, study)}
    assert codes["ECG//QT_INTERVAL"] == "QT interval, milliseconds"


def test_notes(whole: tuple[Path, dict[str, Any]]) -> None:
    study, _ = whole
    notes = {n["note_id"]: n for n in rows_of(schema.NOTES, study)}
    letter, own = notes["10000001-DS-1"], notes["10000001-EK-1"]
    assert (letter["kind"], letter["recording_id"], str(letter["time"])) == ("clinical", None, "2150-03-10 00:00:00")
    assert letter["text"] == tables()["discharge"][0]["text"]
    assert (own["kind"], own["recording_id"]) == ("ecg", "mimic-41")
    assert notes["10000002-RR-1"]["kind"] == "radiology"
    keys = [(n["subject_id"], n["time"], n["note_id"]) for n in rows_of(schema.NOTES, study)]
    assert keys == sorted(keys)


def test_note_types_that_mimic_does_not_have(build: Any) -> None:
    with pytest.raises(EinthovenError, match="note_kinds 'Discharge': MIMIC's note types are DS"):
        build(Source(name="mimic", note_kinds={"Discharge": "clinical"}))


def test_codes_have_titles_and_categories_of_their_version(whole: tuple[Path, dict[str, Any]]) -> None:
    study, _ = whole
    codes = {c["code"]: (c["description"], c["parent_codes"]) for c in rows_of(schema.CODES, study)}
    assert codes["DIAGNOSIS//ICD//10//I4891"] == ("Unspecified atrial fibrillation", ["DIAGNOSIS//ICD//10//I48"])
    assert codes["DIAGNOSIS//ICD//10//I48"] == (None, []) and codes["DIAGNOSIS//ICD//10//I10"] == (None, [])
    assert codes["DIAGNOSIS//ICD//9//E8859"] == ("Fall from slipping", ["DIAGNOSIS//ICD//9//E885"])
    assert codes["DIAGNOSIS//ICD//9//E885"] == ("Fall on the same level", [])
    assert codes["DIAGNOSIS//ICD//10//E8859"] == (None, ["DIAGNOSIS//ICD//10//E88"])
    assert codes["DIAGNOSIS//ICD//9//0389"] == (None, ["DIAGNOSIS//ICD//9//038"])
    assert codes["PROCEDURE//ICD//9//5491"] == ("Percutaneous abdominal drainage", ["PROCEDURE//ICD//9//54"])
    assert codes["PROCEDURE//ICD//10//0W9G3ZZ"] == (None, ["PROCEDURE//ICD//10//0W9"])
    assert codes["HCPCS//G0378"] == ("Hospital observation, hour", []) and codes["PROCEDURE//CPT//99218"] == (
        "Care",
        [],
    )
    used = {e["code"] for e in rows_of(schema.EVENTS, study)}
    assert set(codes) == used | {parent for _, parents in codes.values() for parent in parents}


def test_diagnoses_that_cannot_be_dated(build: Any) -> None:
    diagnoses, stays = tables()["diagnoses_icd"], tables()["admissions"]
    diagnoses[0]["hadm_id"] = 99  # no such admission
    diagnoses[1]["hadm_id"] = 22  # another patient's
    diagnoses[2]["hadm_id"] = ""
    stays[1]["dischtime"] = ""
    stays.append(stays[0] | {"dischtime": "2199-01-01 00:00:00"})  # the same admission again
    study, counts = build(diagnoses_icd=diagnoses, admissions=stays)
    assert counts["excluded"] == {"duplicate-id": 1, "no-admission": 3, "no-time": 2}
    assert excluded_of(study) == [
        ("no-time", "admissions", 2),
        ("duplicate-id", "admissions", 3),
        ("no-admission", "diagnoses_icd", 1),
        ("no-admission", "diagnoses_icd", 2),
        ("no-admission", "diagnoses_icd", 3),
        ("no-time", "diagnoses_icd", 5),
    ]
    assert events_of(study, "DIAGNOSIS") == [(1, "2150-03-10 16:30:00", "DIAGNOSIS//ICD//10//E8859")]


def test_rows_that_cannot_be_used_are_listed(build: Any) -> None:
    content = tables()
    content["patients"] += [{"subject_id": 4, "gender": "F", "anchor_age": 20, "anchor_year": 99999, "dod": ""}]
    content["diagnoses_icd"][4]["icd_version"] = 11
    content["procedures_icd"][0]["chartdate"] = ""
    content["hcpcsevents"][0]["hcpcs_cd"] = ""
    content["prescriptions"][0]["starttime"] = "secret"
    content["prescriptions"][1]["starttime"] = ""
    content["discharge"][0]["text"] = " "
    content["radiology"] += [content["radiology"][0], content["discharge"][1]]
    content["machine_measurements"][0]["rr_interval"] = "fast"
    content["machine_measurements"][1]["subject_id"] = 10000002
    study, counts = build(**content)
    assert excluded_of(study) == [
        ("bad-row", "machine_measurements", 1),
        ("not-listed", "machine_measurements", 2),
        ("bad-row", "discharge", 1),
        ("duplicate-id", "radiology", 2),
        ("duplicate-id", "radiology", 3),
        ("bad-row", "diagnoses_icd", 5),
        ("bad-row", "hcpcsevents", 1),
        ("bad-row", "patients", 4),
        ("bad-row", "prescriptions", 1),
        ("no-time", "prescriptions", 2),
        ("no-time", "procedures_icd", 1),
    ]
    assert not any("secret" in e["detail"] for e in rows_of(schema.EXCLUDED, study))
    assert len(rows_of(schema.RECORDINGS, study)) == 4  # a bad measurement costs the measurements only
    assert counts["excluded"] == {"bad-row": 6, "duplicate-id": 2, "no-time": 2, "not-listed": 1}


def test_recordings_that_cannot_be_used_take_their_report_with_them(tmp_path: Path) -> None:
    source = write_copy(tmp_path / "source")
    archive = source / "physionet.org/files/mimic-iv-ecg/1.0"
    whole = (archive / record(10000001, 41)).with_suffix(".dat")
    whole.write_bytes(whole.read_bytes()[:1000])
    rows = tables()["record_list"]
    rows[1]["path"] = "../secret"
    rows[2]["ecg_time"] = ""
    rows.append(rows[3] | {"ecg_time": "2199-01-01 00:00:00"})
    write_table(archive / "record_list", rows, ".csv.gz")
    study = tmp_path / "study"
    counts = ingest(Source(name="mimic", sampling_rate=100), source, study)
    assert counts["excluded"] == {"duplicate-id": 1, "no-time": 1, "outside-folder": 1, "truncated": 1}
    kept = rows_of(schema.RECORDINGS, study)
    assert [(r["recording_id"], r["time"], r["age"]) for r in kept] == [
        ("mimic-44", datetime(2151, 1, 1, 10), 63.0),
        ("mimic-43", None, None),
    ]
    reports = [n["recording_id"] for n in rows_of(schema.NOTES, study) if n["kind"] == "ecg" and n["recording_id"]]
    assert reports == ["mimic-44", "mimic-43"]
    assert {e["recording_id"] for e in rows_of(schema.EVENTS, study)} == {None, "mimic-44"}
    (cut,) = [e for e in rows_of(schema.EXCLUDED, study) if e["reason"] == "truncated"]
    assert (cut["recording_id"], cut["source_row"]) == ("mimic-41", 1)
    assert Store.open(study).sampling_rate == 100


def test_settings_and_what_copies_write_otherwise(build: Any) -> None:
    content = tables()
    content["patients"][0] |= {"anchor_age": 91, "anchor_year": 2151}  # the ECGs of 2150 may be at 89 or less
    content["patients"][1] |= {"anchor_age": 20, "anchor_year": 2200, "gender": ""}
    unmeasured = {"rr_interval": 29999, "p_onset": 29999, "qrs_onset": 29999, "t_end": 0, "qrs_axis": ""}
    content["machine_measurements"][0] |= unmeasured | {"report_0": "", "report_2": " "}
    content["procedures_icd"][0]["chartdate"], content["procedures_icd"][1]["chartdate"] = "3/2/2150", "3/13/2150"
    for name in ("hcpcsevents", "machine_measurements"):
        content["hcpcsevent" if name == "hcpcsevents" else f"demo_{name}"] = content.pop(name)
    config = Source(name="mimic", diagnosis_time="admission", note_kinds={"DS": "surgical", "RR": "echo"})
    study, counts = build(config, hcpcsevents=None, machine_measurements=None, **content)
    assert counts["excluded"] == {} and counts["absent"] == [] and counts["diagnoses_dated_by"] == "admission"
    assert {time for _, time, _ in events_of(study, "DIAGNOSIS")} == {"2150-03-01 08:00:00", "2160-01-01 00:00:00"}
    kinds = {n["note_id"]: n["kind"] for n in rows_of(schema.NOTES, study)}
    assert (kinds["10000001-DS-1"], kinds["10000002-RR-1"]) == ("surgical", "echo")
    found = {r["recording_id"]: (r["age"], r["sex"]) for r in rows_of(schema.RECORDINGS, study)}
    assert found["mimic-41"] == (None, "female") and found["mimic-44"] == (90.0, "female")
    assert found["mimic-43"] == (None, None)
    assert [code for subject, _, code in events_of(study, "GENDER") if subject == 2] == []
    assert not [e for e in rows_of(schema.EVENTS, study) if e["recording_id"] == "mimic-41"]
    assert "mimic-41-report" not in {n["note_id"] for n in rows_of(schema.NOTES, study)}
    assert [time for _, time, _ in events_of(study, "PROCEDURE//ICD")] == ["2150-03-02 00:00:00", "2150-03-13 00:00:00"]


@pytest.mark.parametrize("names", ["record_list radiology", "machine_measurements diagnoses_icd"])
def test_any_subset(build: Any, names: str) -> None:
    wanted = names.split()
    study, counts = build(**{name: None for name in LAYOUTS if name not in wanted})
    assert set(counts["absent"]) == set(LAYOUTS) - set(wanted)
    assert counts["excluded"] == ({"no-admission": 5} if "diagnoses_icd" in wanted else {})
    recordings = rows_of(schema.RECORDINGS, study)
    assert len(recordings) == 4
    assert sum(r["row"] is not None for r in recordings) == (3 if "record_list" in wanted else 0)
    notes = {"machine_measurements": 4, "radiology": 1}
    assert len(rows_of(schema.NOTES, study)) == sum(notes.get(name, 0) for name in wanted)
    assert all(r["age"] is None and r["sex"] is None for r in recordings)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["3/2/2150", "3/13/2150", None], ["2150-3-2", "2150-3-13", None]),
        (["2150-03-02", " 3/13/2150 "], ["2150-03-02", "2150-3-13"]),
        (["3/2/2150", "4/5/2150"], None),  # the order is not proven
        (["3/13/2150", "13/3/2150"], None),  # contradicts itself
        (["13/3/2150", "1/2/2150"], None),  # the day first
        (["2150-03-02", ""], None),
        ([None, None], None),
    ],
)
def test_dates_with_the_month_first(cells: list[str | None], expected: list[str | None] | None) -> None:
    rows = ibis.memtable(pa.table({"chartdate": pa.array(cells, pa.string()), "source_row": range(len(cells))}))
    found = month_first(SourceTable("t.csv", rows), "chartdate").rows.order_by("source_row").to_pyarrow()
    assert found["chartdate"].to_pylist() == (cells if expected is None else expected)


def test_codes_that_a_copy_made_numbers(build: Any) -> None:
    rows = tables()["diagnoses_icd"]
    for row in rows:
        row["icd_code"] = 389
    with pytest.raises(EinthovenError, match=r"diagnoses_icd\.parquet: column 'icd_code' holds numbers"):
        build(suffix=".parquet", **dict.fromkeys(LAYOUTS) | {"diagnoses_icd": rows})


def test_what_is_no_mimic_is_told(tmp_path: Path, build: Any) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EinthovenError, match="no table of MIMIC-IV below it; expected some of patients, admissions"):
        ingest(Source(name="mimic"), tmp_path / "empty", tmp_path / "study")
    only: dict[str, Any] = dict.fromkeys(LAYOUTS)
    with pytest.raises(EinthovenError, match=r"prescriptions\.csv: column 'drug' is missing"):
        build(suffix=".csv", **only | {"prescriptions": [{"subject_id": 1, "starttime": "", "medication": "x"}]})
    outside = [row | {"path": "/etc/hostname"} for row in tables()["record_list"]]
    with pytest.raises(EinthovenError, match=r"no recording can be used .4 outside-folder"):
        build(**only | {"record_list": outside})


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    if not DEMO.exists():
        pytest.skip(f"{DEMO} is not on this machine")
    study = tmp_path_factory.mktemp("demo") / "study"
    return study, ingest(Source(name="mimic"), DEMO, study)


def test_demo_counts(demo: tuple[Path, dict[str, Any]]) -> None:
    study, counts = demo
    assert (sum(counts["recordings"].values()), counts["without_signal"], counts["subjects"]) == (659, 659, 92)
    assert counts["excluded"] == {} and counts["notes"] == 0
    prefixes = ("DIAGNOSIS//ICD//9//", "DIAGNOSIS//ICD//10//", "PROCEDURE//ICD//", "MEDICATION//START//")
    assert [len(events_of(study, p)) for p in prefixes] == [2193, 2313, 722, 18087]
    assert len(events_of(study, "HCPCS//")) + len(events_of(study, "PROCEDURE//CPT//")) == 61
    assert len(events_of(study, "GENDER//")) == 100 and len(events_of(study, "MEDS_DEATH")) == 31
    assert not (study / schema.WAVEFORMS).exists()


def test_demo_linkage(demo: tuple[Path, dict[str, Any]]) -> None:
    """The published linkage of the demo at ±365 days, by a naive loop. Procedures are those of procedures_icd.

    With HCPCS and CPT as procedures, too, 566 ECGs have all three; dated by admission, 605 have a diagnosis.
    """
    study, _ = demo
    chart = defaultdict(list)
    for event in rows_of(schema.EVENTS, study):
        kind = event["code"].removeprefix("PROCEDURE//").partition("//")[0]
        if event["time"] is not None and not event["code"].startswith("MEDICATION//STOP"):
            chart[event["subject_id"]].append((event["time"], kind))
    year = timedelta(days=365)
    found = []
    for recording in rows_of(schema.RECORDINGS, study):
        time = recording["time"]
        found.append({kind for at, kind in chart[recording["subject_id"]] if time - year <= at <= time + year})

    def count(*kinds: str) -> int:
        return sum(set(kinds) <= one for one in found)

    assert len(found) == 659 and count("DIAGNOSIS") == 606 and count("MEDICATION") == 599
    assert count("DIAGNOSIS", "MEDICATION", "ICD") == 544
    both = [one | {"ICD"} if one & {"HCPCS", "CPT"} else one for one in found]
    assert sum({"DIAGNOSIS", "MEDICATION", "ICD"} <= one for one in both) == 566


def test_demo_linkage_through_pairing(demo: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """The same counts from the stage `pair`: 544 where procedures are ICD's alone, 566 with all, our default."""
    study = tmp_path / "study"
    shutil.copytree(demo[0], study)
    extract(Entities(), study, lambda done, total: None)
    icd = {**CODE_KINDS, "procedure": ("PROCEDURE//ICD//*",)}
    for kinds, procedures, all_three in ((icd, 544, 544), (CODE_KINDS, 573, 566)):
        config = Pairing(code_kinds=kinds)
        counts = pair(config, Entities(), TextEncoder(), study)
        assert counts["pairs"] == 659
        assert (counts["with"]["diagnosis"], counts["with"]["medication"]) == (606, 599)
        assert (counts["with"]["procedure"], counts["with_diagnosis_procedure_medication"]) == (procedures, all_three)

"""A FHIR bulk export: what is good is ingested, what is bad is listed with its reason, what is none is told."""

import base64
import csv
import gzip
import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from einthoven import pipeline, schema
from einthoven.config import Pairing, Recipe, Source
from einthoven.errors import EinthovenError
from einthoven.sources import tabular
from einthoven.sources.fhir import ingest
from einthoven.sources.fhir_elements import subject_id
from einthoven.study import read_table
from einthoven.waveforms.store import Store

SYNTHEA = Path(__file__).resolve().parents[3] / "shared" / "data" / "synthea-r4-code-events"
ICD, SCT = "http://hl7.org/fhir/sid/icd-10-cm", "http://snomed.info/sct"
HCPCS = "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets"
MDC = "urn:oid:2.16.840.1.113883.6.24"
LAST = datetime(2020, 5, 31, 23, 59, 59, 999_999)


def concept(system: str, code: str, display: str | None = None) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code, **({"display": display} if display else {})}]}


def patient(own: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": own, "gender": "female", "birthDate": "1950-06-01", **more}


def condition(own: str, of: str = "Patient/p1", **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Condition",
        "id": own,
        "subject": {"reference": of},
        "code": concept(ICD, "I48.91", "Unspecified atrial fibrillation"),
        "onsetDateTime": "2020-05-31T10:00:00+02:00",
        **more,
    }


def microvolts(seed: int, samples: int = 5000) -> np.ndarray:
    return np.cumsum(np.random.default_rng(seed).integers(-9, 10, (3, samples)), axis=1).astype(np.int16)


def ecg(own: str, of: str = "Patient/p1", seed: int = 1, **more: Any) -> dict[str, Any]:
    """In the shape of HL7's example: leads I, II and V1, here in microvolts at 500 Hz."""
    components = [
        {
            "code": concept(MDC, code, display),
            "valueSampledData": {
                "origin": {"value": 0, "unit": "uV"},
                "period": 2,
                "factor": 1,
                "dimensions": 1,
                "data": " ".join(map(str, values)),
            },
        }
        for (code, display), values in zip(
            [("131329", "MDC_ECG_ELEC_POTL_I"), ("131330", "MDC_ECG_ELEC_POTL_II"), ("131331", "MDC_ECG_ELEC_POTL_V1")],
            microvolts(seed),
            strict=True,
        )
    ]
    return {
        "resourceType": "Observation",
        "id": own,
        "status": "final",
        "code": concept(MDC, "131328", "MDC_ECG_ELEC_POTL"),
        "subject": {"reference": of},
        "effectiveDateTime": "2020-06-01T09:30:35.120+01:00",
        "device": {"display": "12 lead EKG Device Metric"},
        "component": components,
        **more,
    }


def attachment(text: str, kind: str = "text/plain") -> dict[str, Any]:
    return {"contentType": kind, "data": base64.b64encode(text.encode()).decode()}


def document(own: str, text: str, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "DocumentReference",
        "id": own,
        "status": "current",
        "subject": {"reference": "Patient/p1"},
        "date": "2020-06-02T08:00:00Z",
        "content": [{"attachment": attachment(text)}],
        **more,
    }


def write(file: Path, resources: Iterable[dict[str, Any] | str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in resources)
    data = text.encode("utf-8", "surrogatepass")
    file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two patients, an ECG of each, one in a packed file."""
    folder = tmp_path / "source"
    write(folder / "Patient.ndjson", [patient("p1"), patient("p2", gender="male", deceasedDateTime="2021-02")])
    write(folder / "Observation.0001.ndjson", [ecg("e1", seed=1)])
    write(
        folder / "Observation.0002.ndjson.gz",
        [ecg("e0", "Patient/p1", 3, status="cancelled"), ecg("e2", "Patient/p2", 2)],
    )
    return folder


def run(source: Path, **config: Any) -> tuple[Path, dict[str, Any]]:
    study = source.parent / "study"
    return study, ingest(Source(name="fhir", **config), source, study)


def table(of: schema.Table, study: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(of, study).to_pylist()
    return rows


def reasons(study: Path) -> list[tuple[str, int, str]]:
    return [(row["source_file"], row["source_row"], row["reason"]) for row in table(schema.EXCLUDED, study)]


def test_recordings(source: Path) -> None:
    told: list[tuple[int, int, str]] = []
    write(source / "later.ndjson.gz", [ecg("e4", "Patient/p2", 4, status="cancelled"), ecg("e3", "Patient/none", 3)])
    write(source / "last.ndjson.gz", [ecg("e5", "Patient/p2", 5)])
    study = source.parent / "study"
    counts = ingest(
        Source(name="fhir"), source, study, lambda done, of, note="recordings": told.append((done, of, note))
    )
    assert (counts["data_kind"], counts["sampling_rate"], counts["patients"]) == ("real", 500, 2)
    assert sum(counts["recordings"].values()) == 3 and counts["excluded"] == {"cancelled": 2, "unknown-patient": 1}
    assert told[-1] == (3, 3, "recordings")
    recordings = table(schema.RECORDINGS, study)
    assert [row["subject_id"] for row in recordings] == sorted(subject_id(own) for own in ("p1", "p2", "p2"))
    rows = {row["source_file"].split(".n")[0]: row for row in recordings}
    first, second, third = rows["Observation.0001"], rows["Observation.0002"], rows["last"]
    assert [row["subject_id"] for row in (first, second)] == [subject_id("p1"), subject_id("p2")]
    assert first["recording_id"] == "fhir-" + hashlib.sha256(b"Observation/e1").hexdigest()[:24]
    assert str(first["time"]) == "2020-06-01 09:30:35.120000"
    assert (first["sex"], second["sex"]) == ("female", "male") and first["age"] == pytest.approx(70.0, abs=0.01)
    assert (first["device"], first["source_file"]) == ("12 lead EKG Device Metric", "Observation.0001.ndjson")
    assert first["leads"] == 0b1111111 and first["source_rate"] == 500
    store = Store.open(study)
    for row, seed in ((first, 1), (second, 2), (third, 5)):
        assert np.array_equal(store.read([row["row"]])[0][[0, 1, 6]], microvolts(seed))
    assert not list(study.glob(".scratch"))


def test_the_integer_of_a_patient_can_be_recomputed() -> None:
    assert subject_id("p1") == int(hashlib.sha256(b"p1").hexdigest()[:16], 16) >> 1 < 2**63


def test_events_and_codes(source: Path) -> None:
    drug = {"resourceType": "Medication", "id": "m1", "code": concept("http://www.whocc.no/atc", "B01AA03", "warfarin")}
    given = {"subject": {"reference": "http://host.example/fhir/Patient/p1/_history/3"}}
    write(
        source / "a" / "Condition.ndjson",
        [
            condition("c1"),
            condition("c2", "urn:uuid:p2", code=concept(SCT, "44054006"), onsetDateTime="2020-05-31"),
            {
                "resourceType": "Procedure",
                "id": "x1",
                "status": "completed",
                "code": concept("http://www.ama-assn.org/go/cpt", "93000", "ECG"),
                "performedPeriod": {"start": "2020-05-31T07:00:00Z"},
                **given,
            },
            {
                "resourceType": "MedicationRequest",
                "id": "r1",
                "authoredOn": "2020-05",
                "medicationReference": {"reference": "Medication/m1"},
                **given,
            },
            {
                "resourceType": "MedicationAdministration",
                "id": "r2",
                "effectiveDateTime": "2020-05-31",
                "medicationReference": {"reference": "#in"},
                "contained": [
                    {
                        "resourceType": "Medication",
                        "id": "in",
                        "code": concept("http://www.nlm.nih.gov/research/umls/rxnorm", "855332"),
                    }
                ],
                **given,
            },
            {"resourceType": "Encounter", "id": "n1"},
            {"resourceType": "Observation", "id": "lab", "valueQuantity": {"value": 4.1}},
        ],
    )
    write(source / "Medication.ndjson", [drug])
    write(
        source / "Procedure.ndjson",
        [
            {
                "resourceType": "Procedure",
                "id": f"x{n}",
                "code": code,
                "performedDateTime": "2020-05-31T08:00:00Z",
                **given,
            }
            for n, code in enumerate(
                (
                    concept(HCPCS, "G0378"),
                    concept(HCPCS, "93010"),
                    concept("http://hl7.org/fhir/sid/icd-9-cm", "89.52"),
                ),
                2,
            )
        ],
    )
    write(source / "Unknown.ndjson", [patient("p3", gender="unknown", birthDate=None)])
    study, counts = run(source)
    assert counts["unhandled"] == {"Encounter": 1, "Observation": 1}
    one, two = subject_id("p1"), subject_id("p2")
    events = [(e["subject_id"], e["time"], e["code"]) for e in table(schema.EVENTS, study)]
    assert events == sorted(events, key=lambda e: (e[0], str(e[1] or ""), e[2])) and counts["events"] == len(events)
    assert set(events) == {
        (one, None, "GENDER//F"),
        (one, datetime(1950, 6, 1), "MEDS_BIRTH"),
        (one, datetime(2020, 5, 31, 10), "DIAGNOSIS//ICD//10//I4891"),
        (one, datetime(2020, 5, 31, 7), "PROCEDURE//CPT//93000"),
        (one, datetime(2020, 5, 31, 8), "HCPCS//G0378"),
        (one, datetime(2020, 5, 31, 8), "PROCEDURE//CPT//93010"),
        (one, datetime(2020, 5, 31, 8), "PROCEDURE//ICD//9//8952"),
        (subject_id("p3"), None, "GENDER//UNKNOWN"),
        (one, LAST, "MEDICATION//START//ATC//B01AA03"),
        (one, LAST, "MEDICATION//START//RxNorm//855332"),
        (two, None, "GENDER//M"),
        (two, datetime(1950, 6, 1), "MEDS_BIRTH"),
        (two, LAST, "DIAGNOSIS//SNOMED//44054006"),
        (two, datetime(2021, 2, 28, 23, 59, 59, 999_999), "MEDS_DEATH"),
    }
    codes = {row["code"]: (row["description"], row["parent_codes"]) for row in table(schema.CODES, study)}
    above = {"DIAGNOSIS//ICD//10//I48", "PROCEDURE//ICD//9//89"}
    assert {e[2] for e in events} | above == set(codes) and list(codes) == sorted(codes)
    assert codes["DIAGNOSIS//ICD//10//I4891"] == ("Unspecified atrial fibrillation", ["DIAGNOSIS//ICD//10//I48"])
    assert codes["PROCEDURE//ICD//9//8952"] == (None, ["PROCEDURE//ICD//9//89"])
    assert codes["MEDICATION//START//ATC//B01AA03"] == ("warfarin", [])


def test_notes_and_the_recording_they_describe(source: Path) -> None:
    report = {
        "resourceType": "DiagnosticReport",
        "subject": {"reference": "Patient/p1"},
        "code": concept("http://loinc.org", "11524-6"),
        "effectiveDateTime": "2020-06-01",
        "conclusion": " Sinus rhythm. ",
    }
    write(
        source / "notes.ndjson",
        [
            report | {"id": "d1", "result": [{"reference": "Observation/e2"}, {"reference": "Observation/e1"}]},
            report | {"id": "d2", "result": [{"reference": "Observation/e2"}], "issued": "2020-06-03T10:00:00+02:00"},
            report | {"id": "d3", "conclusion": None},
            document("d4", "Discharge letter.\r\nWell.", type=concept("http://loinc.org", "18842-5")),
            document("d5", "Bericht", category=[concept("http://ours.example", "B7", "Sonography")]),
        ],
    )
    study, counts = run(source, note_kinds={"Sonography": "echo"}, note_kind="surgical")
    assert (counts["notes"], counts["unhandled"]) == (4, {"DiagnosticReport": 1})
    own = {row["source_file"]: row["recording_id"] for row in table(schema.RECORDINGS, study)}[
        "Observation.0001.ndjson"
    ]
    notes = [(n["kind"], n["text"], n["recording_id"], str(n["time"])) for n in table(schema.NOTES, study)]
    assert sorted(notes, key=str) == [
        ("ecg", "Sinus rhythm.", own, "2020-06-01 23:59:59.999999"),
        ("ecg", "Sinus rhythm.", None, "2020-06-03 10:00:00"),  # its result is of another patient
        ("echo", "Bericht", None, "2020-06-02 08:00:00"),
        ("surgical", "Discharge letter.\nWell.", None, "2020-06-02 08:00:00"),
    ]
    assert len({n["note_id"] for n in table(schema.NOTES, study)}) == 4


def test_what_cannot_be_used_is_listed(source: Path) -> None:
    request = {
        "resourceType": "MedicationRequest",
        "id": "q",
        "subject": {"reference": "Patient/p1"},
        "authoredOn": "2020",
    }
    rows: list[tuple[dict[str, Any] | str, str]] = [
        ("{nonsense", "bad-json"),
        ("[1]", "bad-json"),
        ('{"resourceType": "Patient", "x": NaN}', "bad-json"),
        ("[" * 100_000, "bad-json"),
        ('{"a":' * 100_000, "bad-json"),
        ("9" * 10_000, "bad-json"),
        ("\udc80", "bad-json"),
        ("{}", "bad-resource"),
        (condition("secret", "Group/secret"), "bad-resource"),
        (condition("c", onsetDateTime="secret"), "bad-resource"),
        (condition("secret/", onsetDateTime="2020"), "bad-resource"),
        (condition("c", "Patient/secret"), "unknown-patient"),
        (condition("c", onsetDateTime=None), "no-time"),
        (condition("c", code={"text": "secret"}), "no-code"),
        (condition("c", verificationStatus=concept("http://x", "refuted")), "refuted"),
        (request | {"status": "draft", "medicationCodeableConcept": concept(SCT, "1")}, "draft"),
        (request | {"doNotPerform": True}, "not-done"),
        (request | {"medicationReference": {"reference": "Medication/none"}}, "no-code"),
        (document("d", "", content=[{"attachment": {"url": "http://secret"}}]), "external-attachment"),
        (document("d", "secret", subject={"reference": "Patient/secret"}), "unknown-patient"),
        (patient("p1", gender="male"), "duplicate-id"),
        (ecg("e9", "Patient/secret"), "unknown-patient"),
        (ecg("e1"), "duplicate-id"),
        (ecg("e8", component=ecg("")["component"][:1], code=concept(MDC, "1")) | {"id": "e8"}, "kept"),
        (ecg("e7", component=[{"code": {"text": "Lead I"}, "valueSampledData": {"interval": 2}}]), "bad-header"),
    ]
    write(source / "z.ndjson", [row for row, _ in rows])
    study, counts = run(source)
    found = [(row, reason) for file, row, reason in reasons(study) if file == "z.ndjson"]
    assert found == [(n, reason) for n, (_, reason) in enumerate(rows, start=1) if reason != "kept"]
    details = [row["detail"] for row in table(schema.EXCLUDED, study)]
    assert all(details) and not any("secret" in detail for detail in details)
    assert sum(counts["excluded"].values()) == len(details) == len(rows)  # "kept" makes up for the cancelled ECG
    assert sum(counts["recordings"].values()) == 3 and counts["patients"] == 2


def test_lines_blank_marked_and_too_long(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("einthoven.sources.fhir_files.MAX_LINE", 1000)
    (source / "Observation.0001.ndjson").unlink()
    archive = source.parent / "archive.csv"
    archive.write_text(f"recording_id,subject_id,time\nr1,{subject_id('p1')},2020-06-01 10:00:00\nr2,7,\n")
    lines = [
        "\ufeff" + json.dumps(condition("c1")),
        "",
        " ",
        json.dumps(document("d1", "x" * 5000)),
        "x" * 1000,
        "x" * 1001,
    ]
    (source / "Condition.ndjson").write_text("\r\n".join([*lines, json.dumps(condition("c2"))]), encoding="utf-8")
    study, counts = run(source, recordings=str(archive))
    listed = [(row, reason) for file, row, reason in reasons(study) if file == "Condition.ndjson"]
    assert listed == [(4, "bad-json"), (5, "bad-json"), (6, "bad-json")]
    assert counts["events"] == 2 + 2 + 1 + 2
    (recording,) = table(schema.RECORDINGS, study)  # those of the packed file are too long as well
    assert (recording["recording_id"], recording["row"], recording["sex"]) == ("r1", None, "female")
    assert ("archive.csv", 2, "unknown-patient") in reasons(study)


def test_prognostic_windows_hold_nothing_of_the_future(source: Path) -> None:
    """A date without a clock, of the day of the ECG, may be later than the ECG."""
    write(source / "Observation.0001.ndjson", [ecg("e1", effectiveDateTime="2020-06-01")])
    dates = ["2020", "2020-06", "2020-06-01", "2020-05-31", "2020-05", "2019"]
    write(
        source / "Condition.ndjson",
        [condition(f"c{n}", onsetDateTime=date, code=concept(SCT, f"{n}")) for n, date in enumerate(dates)],
    )
    study = source.parent / "study"
    pipeline.ingest(Source(name="fhir"), source, study)
    pipeline.pair(Recipe(pairing=Pairing(codes_before=1000, codes_after=0)), study)
    codes = {row["subject_id"]: row["codes"] for row in table(schema.PAIRS, study)}[subject_id("p1")]
    assert sorted(codes) == [f"DIAGNOSIS//SNOMED//{n}" for n in (3, 4, 5)]


def test_what_is_no_export_is_told(source: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EinthovenError, match=r"no \*\.ndjson"):
        run(tmp_path / "empty")
    packed = source / "Observation.0002.ndjson.gz"
    whole = packed.read_bytes()
    for damaged in (whole[:-20], whole[:2000] + b"xxxx" + whole[2004:], b"no gzip"):
        packed.write_bytes(damaged)
        with pytest.raises(EinthovenError, match=r"Observation\.0002\.ndjson\.gz cannot be read"):
            run(source)
    packed.unlink()
    write(source / "Observation.0001.ndjson", [ecg("e1", "Patient/other")])
    with pytest.raises(EinthovenError, match=r"no recording can be used .1 unknown-patient."):
        run(source)
    (source / "Observation.0001.ndjson").unlink()
    with pytest.raises(EinthovenError, match="there is no recording"):
        run(source)
    (source / "Patient.ndjson").unlink()
    write(source / "Observation.ndjson", [ecg("e1")])
    with pytest.raises(EinthovenError, match="no Patient can be read"):
        run(source)


def test_two_patients_of_one_hash(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("einthoven.sources.fhir_resources.subject_id", lambda _: 5)
    with pytest.raises(EinthovenError, match="ids of equal hash"):
        run(source)


def test_an_engine_that_gives_up_is_told(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(scratch: Path) -> Any:
        engine = connect(scratch)
        engine.raw_sql("SET memory_limit = '1KB'")
        return engine

    connect = tabular.connect
    monkeypatch.setattr(tabular, "connect", small)
    with pytest.raises(EinthovenError, match="out of memory or of disk space"):
        run(source)


@pytest.mark.skipif(not SYNTHEA.exists(), reason=f"{SYNTHEA} is not on this machine")
def test_synthea_at_volume(tmp_path: Path) -> None:
    with gzip.open(SYNTHEA / "patients.csv.gz", "rt") as file:
        people = list(csv.DictReader(file))
    with gzip.open(SYNTHEA / "events.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    systems = {"sct": SCT, "rxnorm": "http://www.nlm.nih.gov/research/umls/rxnorm"}
    places = {"Condition": ("code", "onsetDateTime"), "Procedure": ("code", "performedDateTime")}
    resources = []
    for number, row in enumerate(rows):
        code, time = places.get(row["resource"], ("medicationCodeableConcept", "authoredOn"))
        coding = concept(systems[row["code_system"]], row["code"], row["display"])
        of = {"subject": {"reference": f"urn:uuid:{row['patient_id']}"}, time: row["start"], code: coding}
        resources.append({"resourceType": row["resource"], "id": str(number), **of})
    source = tmp_path / "source"
    dead = [{"deceasedDateTime": one["death_date"]} if one["death_date"] else {} for one in people]
    write(
        source / "Patient.ndjson",
        [
            patient(one["patient_id"], gender=one["gender"], birthDate=one["birth_date"], **more)
            for one, more in zip(people, dead, strict=True)
        ],
    )
    write(source / "all.ndjson", resources)
    write(source / "Observation.ndjson", [ecg("e1", f"Patient/{people[0]['patient_id']}")])
    study, counts = run(source)
    encounters = sum(row["resource"] == "Encounter" for row in rows)
    assert counts["unhandled"] == {"Encounter": encounters} and counts["excluded"] == {}
    assert counts["patients"] == len(people) == 615 and counts["subjects"] == 1
    assert counts["events"] == len(rows) - encounters + 2 * len(people) + sum(map(bool, dead))
    found = table(schema.EVENTS, study)
    of_condition = [e for e in found if e["code"].startswith("DIAGNOSIS//SNOMED//")]
    assert len(of_condition) == sum(row["resource"] == "Condition" for row in rows)
    known = {row["code"]: row["description"] for row in table(schema.CODES, study)}
    assert all(known[e["code"]] for e in of_condition)

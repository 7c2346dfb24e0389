"""FHIR elements: references, times and codes become what the page says, and nothing makes the reader fail."""

import copy
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einthoven.config import Source
from einthoven.sources.codes import DIAGNOSIS, MEDICATION, PROCEDURE
from einthoven.sources.fhir_ecg import signal_of
from einthoven.sources.fhir_elements import (
    ResourceError,
    code_of,
    name_of,
    parse_time,
    referred,
    subject_id,
)
from einthoven.sources.fhir_files import STAGES
from einthoven.sources.fhir_resources import (
    PREFERRED,
    Event,
    Medication,
    Note,
    Patient,
    Recording,
    read_resource,
)
from einthoven.waveforms.wfdb_format import RecordingError

CONFIG = Source(name="fhir")
STAGE_OF = {Patient: "patients", Event: "events", Medication: "medications", Note: "notes"}


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("Patient/a-1.B", "a-1.B"),
        ("https://host.example/fhir/r4/Patient/7", "7"),
        ("http://host.example/Patient/7/_history/2", "7"),
        ("urn:uuid:004b7f3b-eaaa-4eda-81dc-3a82854a363d", "004b7f3b-eaaa-4eda-81dc-3a82854a363d"),
        ("Group/7", None),
        ("Patient/", None),
        ("Patient/a b", None),
        ("Patient/7 ", None),
        ("xPatient/7", None),
        ("#7", None),
        ("urn:oid:7", None),
        ("Patient/" + "a" * 65, None),
        ("http://" + "a" * 5000 + "/Patient/7", None),
        (7, None),
    ],
)
def test_references(reference: Any, expected: str | None) -> None:
    assert referred(reference, "Patient") == expected


@pytest.mark.parametrize(
    ("text", "latest", "earliest"),
    [
        ("2020", "2020-12-31T23:59:59.999999", "2020-01-01"),
        ("2020-02", "2020-02-29T23:59:59.999999", "2020-02-01"),
        ("2021-02-03", "2021-02-03T23:59:59.999999", "2021-02-03"),
        ("2021-02-03T04:05:06", "2021-02-03T04:05:06", "2021-02-03T04:05:06"),
        ("2021-02-03T04:05:06Z", "2021-02-03T04:05:06", "2021-02-03T04:05:06"),
        ("2021-02-03T23:05:06.5-11:30", "2021-02-03T23:05:06.500000", "2021-02-03T23:05:06.500000"),
        ("2021-02-03T23:05:06.123456789+02:00", "2021-02-03T23:05:06.123456", "2021-02-03T23:05:06.123456"),
    ],
)
def test_times_are_the_wall_clock_as_written(text: str, latest: str, earliest: str) -> None:
    assert parse_time(text, True) == datetime.fromisoformat(latest)
    assert parse_time(text, False) == datetime.fromisoformat(earliest)


@pytest.mark.parametrize(
    "text",
    [
        *("", "20", "2020-13", "2021-02-29", "0000", "2020-1-1", "2020Z", "2020-01-01Z", "２０２０", "last year"),
        *("2020-01-01T10:00Z", "2020-01-01T24:00:00", "2020-01-01T10:00:61Z", "2020-01-01T10:00:00+2"),
        "2020-01-01 10:00:00",
    ],
)
def test_times_that_are_none(text: str) -> None:
    assert parse_time(text, True) is None and parse_time(text, False) is None


@given(st.dates(), st.times())
def test_times_round_trip(day: Any, clock: Any) -> None:
    whole = datetime.combine(day, clock)
    assert parse_time(whole.isoformat(timespec="microseconds") + "+05:30", True) == whole
    low, high = parse_time(day.isoformat(), False), parse_time(day.isoformat(), True)
    assert low is not None and high is not None and low <= whole <= high


def coding(system: str, code: str, **more: str) -> dict[str, str]:
    return {"system": system, "code": code, **more}


SCT = coding("http://snomed.info/sct", "49436004", display="Atrial  fibrillation")
MIMIC = "http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-"
OURS = coding("https://ours.example//problems/", "x-1")


@pytest.mark.parametrize(
    ("codings", "kind", "expected"),
    [
        ([SCT, coding("http://hl7.org/fhir/sid/icd-10-cm", "i48.91")], DIAGNOSIS, "ICD//10//i48.91"),
        ([SCT, coding("urn:oid:2.16.840.1.113883.6.90", "I48.91")], DIAGNOSIS, "ICD//10//I48.91"),
        ([coding("http://hl7.org/fhir/sid/icd-9-cm", "427.31"), SCT], DIAGNOSIS, "ICD//9//427.31"),
        ([SCT, coding("http://fhir.de/CodeSystem/bfarm/icd-10-gm", "I48.0")], DIAGNOSIS, "ICD//10//I48.0"),
        ([coding(f"{MIMIC}diagnosis-icd10", "I4891")], DIAGNOSIS, "ICD//10//I4891"),
        ([coding(f"{MIMIC}diagnosis-icd9", "42731")], DIAGNOSIS, "ICD//9//42731"),
        ([coding(f"{MIMIC}procedure-icd10", "4A02X4Z")], PROCEDURE, "ICD//10//4A02X4Z"),
        ([coding(f"{MIMIC}procedure-icd9", "8952")], PROCEDURE, "ICD//9//8952"),
        ([coding(f"{MIMIC}medication-ndc", "51079030020")], MEDICATION, "NDC//51079030020"),
        ([OURS, SCT], DIAGNOSIS, "SNOMED//49436004"),
        ([OURS], DIAGNOSIS, "ours.example/problems//x-1"),
        ([coding("urn:oid:1.2.3", "7"), OURS], DIAGNOSIS, "urn:oid:1.2.3//7"),
        ([SCT, coding("http://www.ama-assn.org/go/cpt", "93000")], PROCEDURE, "CPT//93000"),
        ([coding("http://www.cms.gov/Medicare/Coding/ICD10", "4A02X4Z")], PROCEDURE, "ICD//10//4A02X4Z"),
        ([coding("http://hl7.org/fhir/sid/ndc", "0006-0019-58"), SCT], MEDICATION, "NDC//0006-0019-58"),
    ],
)
def test_which_coding_is_taken(codings: list[Any], kind: str, expected: str) -> None:
    assert code_of({"coding": codings, "text": "secret"}, "Condition.code", PREFERRED[kind]).name == expected


def test_names_of_codes() -> None:
    long = {**SCT, "display": "\ud800" + "x" * 999}
    assert code_of({"coding": [SCT]}, "", PREFERRED[DIAGNOSIS]).description == "Atrial fibrillation"
    assert code_of({"coding": [long]}, "", PREFERRED[DIAGNOSIS]).description == "?" + "x" * 249


@pytest.mark.parametrize(
    "codings",
    [
        [],
        [{"code": "1"}],
        [coding("http://snomed.info/sct", "a b")],
        [coding("http://snomed.info/sct", "9" * 65)],
        [coding("http://terminology.hl7.org/CodeSystem/data-absent-reason", "unknown")],
        [coding("http://terminology.hl7.org/CodeSystem/v3-NullFlavor", "UNK")],
        [coding("x" * 300, "1")],
        [coding("http://", "1")],
        "I48",
    ],
)
def test_codings_that_are_none(codings: Any) -> None:
    with pytest.raises(ResourceError, match="no-code"):
        code_of({"coding": codings, "text": "atrial fibrillation"}, "Condition.code", PREFERRED[DIAGNOSIS])


OF = {"id": "x", "subject": {"reference": "Patient/p"}, "status": "completed"}
DATA = {"contentType": "text/html; charset=utf-8", "data": "PHA+b2s8L3A+"}
LEAD = {"code": {"coding": [coding("urn:oid:2.16.840.1.113883.6.24", "131329")], "text": "Lead I"}}
SAMPLES: dict[str, Any] = {"origin": {"value": 0, "unit": "mV"}, "period": 4, "lowerLimit": -5, "upperLimit": 5}
SAMPLES |= {"factor": 0.005, "dimensions": 1, "data": "1 2 E L U -3.5"}
DRUG = {"coding": [coding("http://www.nlm.nih.gov/research/umls/rxnorm", "855332")]}
RESOURCES: list[dict[str, Any]] = [
    {"resourceType": "Patient", "id": "p", "gender": "female", "birthDate": "1950", "deceasedDateTime": "2020-01"},
    {
        "resourceType": "Condition",
        **OF,
        "code": {"coding": [OURS, SCT]},
        "onsetPeriod": {"start": "2020"},
        "recordedDate": "2021",
        "verificationStatus": {"coding": [coding("x", "confirmed")]},
    },
    {"resourceType": "Procedure", **OF, "code": {"coding": [SCT]}, "performedDateTime": "2020-01-01T10:00:00Z"},
    {"resourceType": "MedicationRequest", **OF, "medicationCodeableConcept": DRUG, "authoredOn": "2020-01-01"},
    {
        "resourceType": "MedicationAdministration",
        **OF,
        "medicationReference": {"reference": "#m"},
        "contained": [{"id": "m", "code": DRUG}],
        "effectivePeriod": {"start": "2020-01-01"},
    },
    {
        "resourceType": "MedicationRequest",
        **OF,
        "medicationReference": {"reference": "Medication/m"},
        "doNotPerform": False,
        "authoredOn": "2020-01-01",
    },
    {"resourceType": "Medication", "id": "m", "code": DRUG},
    {
        "resourceType": "DocumentReference",
        **OF,
        "docStatus": "final",
        "date": "2020-01-01T10:00:00Z",
        "type": {"coding": [coding("http://loinc.org", "34552-0")]},
        "content": [{"attachment": {"contentType": "application/pdf", "url": "x"}}, {"attachment": DATA}],
    },
    {
        "resourceType": "DiagnosticReport",
        **OF,
        "issued": "2020-01-01T10:00:00Z",
        "effectivePeriod": {"start": "2020", "end": "2021"},
        "category": [{"coding": [coding("http://terminology.hl7.org/CodeSystem/v2-0074", "RAD")]}],
        "presentedForm": [DATA],
        "conclusion": "ok",
        "result": [{"reference": "Observation/o"}],
    },
    {
        "resourceType": "Observation",
        **OF,
        "code": {"coding": [coding("http://loinc.org", "11524-6")]},
        "effectiveDateTime": "2020-01-01T10:00:00Z",
        "device": {"display": "a device"},
        "component": [{**LEAD, "valueSampledData": SAMPLES}, {**LEAD, "valueSampledData": SAMPLES}],
    },
]


def test_rows() -> None:
    rows = [read_resource(resource, CONFIG) for resource in RESOURCES]
    own, code = subject_id("p"), "MEDICATION//START//RxNorm//855332"
    end, moment = datetime(2020, 1, 1, 23, 59, 59, 999_999), datetime(2020, 1, 1, 10)
    assert rows[0] == Patient(
        "Patient/p", own, datetime(1950, 1, 1), datetime(2020, 1, 31, 23, 59, 59, 999_999), "female"
    )
    assert rows[1] == Event(
        "Condition/x",
        own,
        datetime(2020, 12, 31, 23, 59, 59, 999_999),
        "DIAGNOSIS//SNOMED//49436004",
        "Atrial fibrillation",
        None,
    )
    assert rows[2] == Event("Procedure/x", own, moment, "PROCEDURE//SNOMED//49436004", "Atrial fibrillation", None)
    assert rows[3:7] == [
        Event("MedicationRequest/x", own, end, code, None, None),
        Event("MedicationAdministration/x", own, end, code, None, None),
        Event("MedicationRequest/x", own, end, None, None, "Medication/m"),
        Medication("Medication/m", code, None),
    ]
    about = [name_of("Observation/o")]
    document, report = "DocumentReference/x", "DiagnosticReport/x"
    assert rows[7] == Note(document, name_of(document), own, moment, "echo", "ok", [])
    assert rows[8] == Note(report, name_of(report), own, moment, "radiology", "ok", about)
    assert rows[9] == Recording("Observation/x", name_of("Observation/x"), own, moment, "a device")


@pytest.mark.parametrize(
    ("number", "status", "reason"),
    [
        (2, "not-done", "not-done"),
        (2, "entered-in-error", "entered-in-error"),
        (3, "cancelled", "cancelled"),
        (4, "not-done", "not-done"),
        (7, "superseded", "superseded"),
        (8, "entered-in-error", "entered-in-error"),
        (9, "entered-in-error", "entered-in-error"),
    ],
)
def test_statuses_that_say_nothing_happened(number: int, status: str, reason: str) -> None:
    with pytest.raises(ResourceError, match=reason):
        read_resource({**RESOURCES[number], "status": status}, CONFIG)


def paths(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of every element of a resource."""
    yield here
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, below in members:
        yield from paths(below, (*here, name))


def replaced(resource: dict[str, Any], path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(resource)
    if not path:
        return value
    place: Any = changed
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return changed


EVERY = [(resource, path) for resource in RESOURCES for path in paths(resource) if path]
TEXTS = st.one_of(
    st.text(max_size=12),
    st.text(st.characters(categories=["Cs", "Cc", "Nd"]), max_size=6),
    st.sampled_from(
        ["#", "Patient/", "Patient/q", "urn:uuid:", "2020", "9999-12-31", "0001-01-01", "E", "1e999", "nan"]
    ),
    st.sampled_from(
        ["text/plain", "text/html;charset=utf-7", "====", "PGEg", "refuted", "http://", "131330", "V", "uV"]
    ),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=800, deadline=None)
@given(st.sampled_from(EVERY), VALUES)
def test_any_value_anywhere_gives_a_row_or_a_reason(place: tuple[dict[str, Any], tuple[Any, ...]], value: Any) -> None:
    resource = replaced(*place, value)
    try:
        row = read_resource(resource, CONFIG)
    except ResourceError as error:
        assert error.reason and error.detail.isascii()
        return
    if isinstance(row, Recording):
        try:
            assert signal_of(resource).signal.ndim == 2
        except RecordingError as error:
            assert error.reason and error.detail.isascii()
        row[2:4], row.recording_id.encode()
    elif row is not None:  # it can be staged
        columns = STAGES[STAGE_OF[type(row)]]
        staged = pa.Table.from_arrays(
            [pa.array([v], f.type) for v, f in zip(("f", 1, *row), columns, strict=True)], schema=columns
        )
        assert staged.num_rows == 1

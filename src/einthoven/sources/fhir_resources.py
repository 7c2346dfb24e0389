"""One FHIR resource -> one row: a patient, an event, a medication, a note or a recording; or the reason why not."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, NamedTuple

from einthoven.config import Source
from einthoven.sources.codes import DIAGNOSIS, ICD_9, ICD_10, MEDICATION, PROCEDURE
from einthoven.sources.fhir_ecg import is_ecg
from einthoven.sources.fhir_elements import (
    Resource,
    ResourceError,
    clean,
    code_of,
    element,
    items,
    logical_id,
    moment,
    name_of,
    patient_of,
    referred,
    refuse_status,
    required_moment,
    subject_id,
)
from einthoven.sources.fhir_notes import kind_of, text_of_document, text_of_report


class Patient(NamedTuple):
    """Who the other resources are about."""

    key: str  # "Patient/ID"
    subject_id: int
    birth: datetime | None
    death: datetime | None
    gender: str | None  # FHIR's: male, female, other, unknown


class Event(NamedTuple):
    """A dated code, or one that a Medication of the export has."""

    key: str
    subject_id: int
    time: datetime
    code: str | None
    description: str | None
    medication: str | None  # "Medication/ID", where `code` is null


class Medication(NamedTuple):
    """What a MedicationRequest may refer to."""

    key: str
    code: str
    description: str | None


class Note(NamedTuple):
    """A text, and the names that its results would have as recordings."""

    key: str
    note_id: str
    subject_id: int
    time: datetime
    kind: str
    text: str
    about: list[str]


class Recording(NamedTuple):
    """An ECG, without its signal."""

    key: str
    recording_id: str
    subject_id: int
    time: datetime | None
    device: str | None


Row = Patient | Event | Medication | Note | Recording

PREFERRED: Final = {
    DIAGNOSIS: (ICD_10, ICD_9, "SNOMED"),
    PROCEDURE: ("CPT", "HCPCS", ICD_10, ICD_9, "SNOMED"),
    MEDICATION: ("RxNorm", "ATC", "NDC", "SNOMED"),
}
"""Which coding is taken where there are several; then the first."""

GENDERS: Final = ("male", "female", "other", "unknown")


def read_resource(resource: Resource, config: Source) -> Row | None:
    """The row of a resource; None where it holds nothing that a study has a place for. ResourceError: unusable."""
    kind = resource.get("resourceType")
    if not isinstance(kind, str):
        raise ResourceError("bad-resource", "resourceType: expected the name of a FHIR resource")
    read = _READERS.get(kind)
    return None if read is None else read(resource, config)


def _patient(resource: Resource, _: Source) -> Row:
    own, gender = logical_id(resource), resource.get("gender")
    if gender is not None and gender not in GENDERS:
        raise ResourceError("bad-resource", f"Patient.gender: expected one of {', '.join(GENDERS)}")
    birth = moment(resource, ["birthDate"], latest=False)
    return Patient(f"Patient/{own}", subject_id(own), birth, moment(resource, ["deceasedDateTime"]), gender)


def _condition(resource: Resource, _: Source) -> Row:
    for coding in items(element(resource, "verificationStatus", "coding")):
        refuse_status(resource, coding.get("code"), ("refuted", "entered-in-error"))
    time = required_moment(resource, ["onsetDateTime", "onsetPeriod.start", "recordedDate"])
    return _event(resource, time, DIAGNOSIS, resource.get("code"), "Condition.code")


def _procedure(resource: Resource, _: Source) -> Row:
    refuse_status(resource, resource.get("status"), ("entered-in-error", "not-done", "preparation"))
    time = required_moment(resource, ["performedDateTime", "performedPeriod.start"])
    return _event(resource, time, PROCEDURE, resource.get("code"), "Procedure.code")


def _request(resource: Resource, _: Source) -> Row:
    refuse_status(resource, resource.get("status"), ("entered-in-error", "cancelled", "draft"))
    if resource.get("doNotPerform") is True:
        raise ResourceError("not-done", "MedicationRequest.doNotPerform: it asks for nothing to be given")
    return _drug(resource, required_moment(resource, ["authoredOn"]))


def _administration(resource: Resource, _: Source) -> Row:
    refuse_status(resource, resource.get("status"), ("entered-in-error", "not-done"))
    return _drug(resource, required_moment(resource, ["effectiveDateTime", "effectivePeriod.start"]))


def _medication(resource: Resource, _: Source) -> Row:
    code = code_of(resource.get("code"), "Medication.code", PREFERRED[MEDICATION])
    return Medication(f"Medication/{logical_id(resource)}", f"{MEDICATION}//{code.name}", code.description)


def _drug(resource: Resource, time: datetime) -> Row:
    kind = resource["resourceType"]
    reference = element(resource, "medicationReference", "reference")
    if not isinstance(reference, str):
        concept = resource.get("medicationCodeableConcept")
        return _event(resource, time, MEDICATION, concept, f"{kind}.medicationCodeableConcept")
    if reference.startswith("#"):
        inside = [one for one in items(resource.get("contained")) if one.get("id") == reference[1:]]
        concept = inside[0].get("code") if inside else None
        return _event(resource, time, MEDICATION, concept, f"{kind}.contained.code")
    own = referred(reference, "Medication")
    if own is None:
        raise ResourceError("bad-resource", f"{kind}.medicationReference.reference: expected Medication/ID or #ID")
    key = f"{kind}/{logical_id(resource)}"
    return Event(key, patient_of(resource), time, None, None, f"Medication/{own}")


def _event(resource: Resource, time: datetime, kind: str, concept: Any, where: str) -> Row:
    code = code_of(concept, where, PREFERRED[kind])
    key = f"{resource['resourceType']}/{logical_id(resource)}"
    return Event(key, patient_of(resource), time, f"{kind}//{code.name}", code.description, None)


def _document(resource: Resource, config: Source) -> Row:
    refuse_status(resource, resource.get("status"), ("entered-in-error", "superseded"))
    refuse_status(resource, resource.get("docStatus"), ("entered-in-error",))
    return _note(resource, ["date", "context.period.end"], text_of_document(resource), config)


def _report(resource: Resource, config: Source) -> Row | None:
    refuse_status(resource, resource.get("status"), ("entered-in-error", "cancelled"))
    text = text_of_report(resource)  # a panel of laboratory values has none: it is counted, not excluded
    times = ["issued", "effectiveDateTime", "effectivePeriod.end", "effectivePeriod.start"]
    return None if text is None else _note(resource, times, text, config)


def _note(resource: Resource, times: list[str], text: str, config: Source) -> Row:
    key = f"{resource['resourceType']}/{logical_id(resource)}"
    ids = (referred(one.get("reference"), "Observation") for one in items(resource.get("result")))
    about = [name_of(f"Observation/{own}") for own in ids if own is not None]
    time = required_moment(resource, times)
    return Note(key, name_of(key), patient_of(resource), time, kind_of(resource, config), text, about)


def _observation(resource: Resource, _: Source) -> Row | None:
    if not is_ecg(resource):
        return None
    refuse_status(resource, resource.get("status"), ("entered-in-error", "cancelled"))
    key = f"Observation/{logical_id(resource)}"
    times = ["effectiveDateTime", "effectivePeriod.start", "effectiveInstant"]
    device = clean(element(resource, "device", "display"))
    return Recording(key, name_of(key), patient_of(resource), moment(resource, times, latest=False), device)


_READERS: Final[dict[str, Callable[[Resource, Source], Any]]] = {
    "Patient": _patient,
    "Condition": _condition,
    "Procedure": _procedure,
    "MedicationRequest": _request,
    "MedicationAdministration": _administration,
    "Medication": _medication,
    "DocumentReference": _document,
    "DiagnosticReport": _report,
    "Observation": _observation,
}

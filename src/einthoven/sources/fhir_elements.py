"""Elements that the resources of FHIR R4 and R4B share: references, times, codes.

Nothing of a resource is trusted: an element that is not what FHIR says is as good as absent, or refused by its name.
"""

import calendar
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from einthoven.sources.codes import vocabulary

Resource = Mapping[str, Any]

CACHED: Final = 1 << 16
MAX_NAME: Final = 250  # characters of a display name that are kept


class ResourceError(ValueError):
    """A resource that cannot be used: reason and detail of schema.EXCLUDED. The detail names the element."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class Code(NamedTuple):
    """A chosen coding: "ICD//10//I48.91", which codes.written finishes, and its display name."""

    name: str
    description: str | None


def element(value: Any, *path: str) -> Any:
    """The element below `value`; None if it or anything on the way is absent or of another kind."""
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def items(value: Any) -> Iterator[dict[str, Any]]:
    """The objects of a list; nothing if it is no list."""
    if isinstance(value, list):
        for one in value:
            if isinstance(one, dict):
                yield one


def clean(text: Any) -> str | None:
    """A short name in one line, or None."""
    if not isinstance(text, str):
        return None
    return " ".join(sound(text[: 4 * MAX_NAME]).split())[:MAX_NAME] or None


def sound(text: str) -> str:
    """Text that can be written as UTF-8: JSON may hold halves of surrogate pairs."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


@lru_cache(CACHED)
def subject_id(logical_id: str) -> int:
    """The integer of a patient: the first 63 bits of the SHA-256 of the logical id."""
    return int.from_bytes(hashlib.sha256(logical_id.encode()).digest()[:8], "big") >> 1


def name_of(reference: str) -> str:
    """The name of a note or a recording, from "Observation/ID": "fhir-" and 24 digits of the SHA-256."""
    return "fhir-" + hashlib.sha256(reference.encode()).hexdigest()[:24]


def logical_id(resource: Resource) -> str:
    """ResourceError where a resource has no id of FHIR's form."""
    found = resource.get("id")
    if not isinstance(found, str) or not _ID.fullmatch(found):
        raise ResourceError("bad-resource", f"{resource['resourceType']}.id: expected 1 to 64 of A-Z a-z 0-9 - .")
    return found


_ID: Final = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_REFERENCE: Final = re.compile(
    r"(?:(?:https?://[^\s?#]+/)?([A-Za-z]{1,40})/|urn:uuid:)([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?"
)
MAX_REFERENCE: Final = 1000  # characters


def referred(reference: Any, kind: str) -> str | None:
    """The logical id in `kind/ID`, in a URL that ends in it, or in `urn:uuid:ID`; None for all else."""
    kinds = _referred(reference) if isinstance(reference, str) and len(reference) <= MAX_REFERENCE else None
    return kinds[1] if kinds and kinds[0] in (None, kind) else None


@lru_cache(CACHED)
def _referred(reference: str) -> tuple[str | None, str] | None:
    found = _REFERENCE.fullmatch(reference)
    return (found[1], found[2]) if found else None


def patient_of(resource: Resource) -> int:
    """The subject of a resource; ResourceError if that is no patient."""
    patient = referred(element(resource, "subject", "reference"), "Patient")
    if patient is None:
        raise ResourceError("bad-resource", f"{resource['resourceType']}.subject.reference: expected Patient/ID")
    return subject_id(patient)


def refuse_status(resource: Resource, status: Any, never: Sequence[str]) -> None:
    """ResourceError, with the status as reason, where it says that nothing happened."""
    if isinstance(status, str) and status in never:
        raise ResourceError(status, f"{resource['resourceType']}: its status says that it is no event")


def moment(resource: Resource, paths: Sequence[str], latest: bool = True) -> datetime | None:
    """The first of the elements that is there ("onsetPeriod.start"); None if none is, ResourceError if it is no date.

    A partial date means its last instant (`latest`) or its first.
    """
    for path in paths:
        text = element(resource, *path.split(".")) if "." in path else resource.get(path)
        if text is None:
            continue
        found = parse_time(text, latest) if isinstance(text, str) and len(text) <= 40 else None
        if found is None:
            where = f"{resource['resourceType']}.{path}"
            raise ResourceError(
                "bad-resource", f"{where}: expected a date such as 2020-05-31 or 2020-05-31T10:00:00+02:00"
            )
        return found
    return None


def required_moment(resource: Resource, paths: Sequence[str]) -> datetime:
    """As `moment`; ResourceError("no-time") if no element is there."""
    found = moment(resource, paths)
    if found is None:
        raise ResourceError("no-time", f"{resource['resourceType']}: expected one of {', '.join(paths)}")
    return found


_TIME: Final = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(T\d\d:\d\d:\d\d)?(?(4)(\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)?))?)?", re.ASCII
)


@lru_cache(CACHED)
def parse_time(text: str, latest: bool) -> datetime | None:
    """A FHIR date, dateTime or instant as the wall clock that it shows; the zone is dropped. None: it is none.

    A partial date means its last instant (`latest`) or its first.
    """
    found = _TIME.fullmatch(text)
    if not found:
        return None
    year, month, day, clock, fraction = found.groups()
    try:
        if clock:
            # Python 3.11 reads three or six digits of a fraction; what is below a microsecond is dropped.
            return datetime.fromisoformat(f"{year}-{month}-{day}{clock}.{(fraction or '.')[1:7]:0<6}")
        if not latest:
            return datetime(int(year), int(month or 1), int(day or 1))  # noqa: DTZ001 (the schema's wall clock)
        of_month = int(month or 12)
        last = int(day) if day else calendar.monthrange(int(year), of_month)[1]
        return datetime(int(year), of_month, last, 23, 59, 59, 999_999)  # noqa: DTZ001
    except ValueError:
        return None


_CODE: Final = re.compile(r"[!-~]{1,64}")


def code_of(concept: Any, where: str, preferred: Sequence[str]) -> Code:
    """The coding of a CodeableConcept whose system comes first in `preferred`, else the first with a known form.

    ResourceError("no-code") where no coding has a system and a code; its text is never read: it may name somebody.
    """
    best: tuple[int, Code] | None = None
    for coding in items(element(concept, "coding")):
        name, code = vocabulary(coding.get("system")), coding.get("code")
        if name is None or not isinstance(code, str) or not _CODE.fullmatch(code):
            continue
        rank = preferred.index(name) if name in preferred else len(preferred)
        if best is None or rank < best[0]:
            best = rank, Code(f"{name}//{code}", clean(coding.get("display")))
    if best is None:
        raise ResourceError("no-code", f"{where}: expected a coding with system and code")
    return best[1]

"""Codes are named alike whatever the source, so that hospitals share a vocabulary: MIMIC_IV_MEDS's names.

`DIAGNOSIS//ICD//10//I4891`, `PROCEDURE//ICD//9//5491`, `PROCEDURE//CPT//93000`, `HCPCS//G0378`,
`MEDICATION//START//RxNorm//855332`: the kind, the vocabulary, its code. ICD is written without a dot and in capitals.
An ICD code has its category as parent.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import ibis

from einthoven import schema
from einthoven.sources.tabular import filled, write_rows

DIAGNOSIS, PROCEDURE, MEDICATION = "DIAGNOSIS", "PROCEDURE", "MEDICATION//START"
BIRTH, DEATH = "MEDS_BIRTH", "MEDS_DEATH"
ICD_9, ICD_10 = "ICD//9", "ICD//10"

_MIMIC: Final = "http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-"
_NAMES: Final = {
    ICD_9: (
        *("ICD9CM", "ICD9Proc", "http://hl7.org/fhir/sid/icd-9-cm"),
        "urn:oid:2.16.840.1.113883.6.103",  # diagnoses
        "urn:oid:2.16.840.1.113883.6.104",  # procedures
        *(f"{_MIMIC}diagnosis-icd9", f"{_MIMIC}procedure-icd9"),
    ),
    ICD_10: (
        *("ICD10", "ICD10CM", "ICD10GM", "ICD10PCS"),
        *("http://hl7.org/fhir/sid/icd-10-cm", "http://hl7.org/fhir/sid/icd-10"),
        "http://fhir.de/CodeSystem/bfarm/icd-10-gm",
        *("urn:oid:2.16.840.1.113883.6.90", "urn:oid:2.16.840.1.113883.6.3"),  # ICD-10-CM, ICD-10
        "http://www.cms.gov/Medicare/Coding/ICD10",  # ICD-10-PCS, as HL7 names it
        *("http://hl7.org/fhir/sid/icd-10-pcs", "urn:oid:2.16.840.1.113883.6.4"),
        *(f"{_MIMIC}diagnosis-icd10", f"{_MIMIC}procedure-icd10"),
    ),
    "SNOMED": ("http://snomed.info/sct", "urn:oid:2.16.840.1.113883.6.96"),
    "RxNorm": ("http://www.nlm.nih.gov/research/umls/rxnorm", "urn:oid:2.16.840.1.113883.6.88"),
    "ATC": ("http://www.whocc.no/atc", "urn:oid:2.16.840.1.113883.6.73"),
    "NDC": ("http://hl7.org/fhir/sid/ndc", "urn:oid:2.16.840.1.113883.6.69", f"{_MIMIC}medication-ndc"),
    "CPT": ("CPT4", "http://www.ama-assn.org/go/cpt", "urn:oid:2.16.840.1.113883.6.12"),
    "HCPCS": ("http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets", "urn:oid:2.16.840.1.113883.6.285"),
    "LOINC": ("http://loinc.org", "urn:oid:2.16.840.1.113883.6.1"),
}
VOCABULARIES: Final = {name: ours for ours, names in _NAMES.items() for name in names}
"""What OMOP and FHIR call a vocabulary -> its name in codes; another keeps the name it has."""

_NO_SYSTEMS: Final = ("data-absent-reason", "v3-NullFlavor")  # their codes say why there is no code
MAX_SYSTEM: Final = 200  # characters


def vocabulary(system: Any) -> str | None:
    """The name of a FHIR code system in codes, else its URI without scheme; None where it cannot be one."""
    return _vocabulary(system) if isinstance(system, str) and len(system) <= MAX_SYSTEM else None


@lru_cache(1 << 10)
def _vocabulary(system: str) -> str | None:
    known = VOCABULARIES.get(system)
    if known or not re.fullmatch(r"[!-~]+", system) or system.endswith(_NO_SYSTEMS):
        return known
    return re.sub("/+", "/", re.sub("^https?://", "", system)).strip("/") or None


def written(code: Any) -> Any:
    """A string expression `KIND//VOCABULARY//CODE`, or without the kind, as codes are written.

    HCPCS's first level is CPT: five digits, or four and F, T or U. The second level has no kind, as in MIMIC_IV_MEDS.
    """
    icd = code.re_search(r"^((DIAGNOSIS|PROCEDURE|MEDICATION//START)//)?ICD//(9|10)//")
    plain = ibis.ifelse(icd, code.replace(".", "").upper(), code)
    levelled = plain.re_replace(r"^(PROCEDURE//)?HCPCS//([0-9]{4}[0-9FTU])$", r"\1CPT//\2")
    return levelled.re_replace(r"^PROCEDURE//HCPCS//", "HCPCS//")


_CATEGORY: Final = (
    r"^(DIAGNOSIS//ICD//9//E...|DIAGNOSIS//ICD//9//[^E]..|DIAGNOSIS//ICD//10//..."
    r"|PROCEDURE//ICD//9//..|PROCEDURE//ICD//10//...).+$"
)


def category(code: Any) -> Any:
    """The category of an ICD code, null for all else: I48 of I4891, 427 of 42731, E885 of E8859; 54 of procedure 5491.

    ICD-10-PCS has no categories: its first three characters are section, body system and operation.
    """
    return code.re_extract(_CATEGORY, 1).nullif("")


def event(rows: Any, code: Any, time: Any, **others: Any) -> Any:
    """EVENTS rows, one for each of an ibis.Table with `subject_id`; what is not named is null."""
    return filled(schema.EVENTS, rows.select("subject_id", code=code, time=time, **others))


def person_events(people: Any) -> list[Any]:
    """EVENTS rows of an ibis.Table with `subject_id` and any of the columns gender (a word), birth and death (times).

    GENDER has no time; it is F, M, UNKNOWN or OTHER, and absent where the word is.
    """
    found = []
    if "gender" in people.columns:
        known = people.filter(people.gender.notnull())
        word = known.gender.upper()
        words = (("F", ("F", "FEMALE")), ("M", ("M", "MALE")), ("UNKNOWN", ("U", "UNK", "UNKNOWN")))
        gender = ibis.cases(*((word.isin(those), short) for short, those in words), else_="OTHER")
        found.append(event(known, "GENDER//" + gender, ibis.null("timestamp(6)")))
    for column, code in (("birth", BIRTH), ("death", DEATH)):
        if column in people.columns:
            dated = people.filter(people[column].notnull())
            found.append(event(dated, ibis.literal(code), dated[column].cast("timestamp(6)")))
    return found


def write_codes(study: Path, events: Any, titles: Iterable[Any]) -> int:
    """Write CODES: those of EVENTS and their categories, each with its name.

    `titles` are ibis.Tables of code and description; the first that names a code counts, and of its names the first in
    the alphabet.
    """
    used = events.select("code").distinct()
    every = ibis.union(used, used.select(code=category(used.code)), distinct=True)
    named = every.filter(every.code.notnull()).mutate(description=ibis.null("string"))
    for table in titles:
        found = table.group_by("code").agg(found=table.description.min())
        both = named.left_join(found, "code")
        named = both.select("code", description=ibis.coalesce(both.description, both.found))
    above, none = category(named.code), ibis.literal([], "array<string>")
    parents = ibis.ifelse(above.isnull(), none, ibis.array([above]))
    return write_rows(schema.CODES, study, named.mutate(parent_codes=parents), ("code",))


def code_row(code: str, description: str | None, parents: Iterable[str] = ()) -> dict[str, Any]:
    """A row of CODES."""
    return {"code": code, "description": description, "parent_codes": list(parents)}

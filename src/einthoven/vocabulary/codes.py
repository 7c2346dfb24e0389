"""One spelling for each code, whatever source wrote it, and the wider codes that stand for a rare one.

Spellings: `DIAGNOSIS//ICD//10//I4891`, `PROCEDURE//CPT//93000`, `MEDICATION//metoprolol`, `MEDICATION//ATC//C07AB`.
"""

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Final

from einthoven.vocabulary.medications import AND, ATC, Medications, shipped

DIAGNOSIS, PROCEDURE, MEDICATION = "DIAGNOSIS", "PROCEDURE", "MEDICATION"
START, STOP = "START", "STOP"

KINDS: Final = {
    DIAGNOSIS: "diagnosis",
    PROCEDURE: "procedure",
    MEDICATION: "medication",
    "SCP": "finding",
    "DX": "finding",
    "DX_ABSENT": "finding",
}
"""The kinds of code, by their first part; all else is "other"."""

_SYSTEMS: Final = {
    "ICD9": (None, "ICD//9"),
    "ICD9CM": (DIAGNOSIS, "ICD//9"),
    "ICD9PROC": (PROCEDURE, "ICD//9"),
    "ICD10": (None, "ICD//10"),
    "ICD10CM": (DIAGNOSIS, "ICD//10"),
    "ICD10GM": (DIAGNOSIS, "ICD//10"),
    "ICD10PCS": (PROCEDURE, "ICD//10"),
    "CPT": (PROCEDURE, "CPT"),
    "CPT4": (PROCEDURE, "CPT"),
    "HCPCS": (PROCEDURE, "HCPCS"),
    "RXNORM": (MEDICATION, "RxNorm"),
    "NDC": (MEDICATION, "NDC"),
    "ATC": (MEDICATION, "ATC"),
    "CVX": (MEDICATION, "CVX"),
    "SNOMED": (None, "SNOMED"),
    "SNOMEDCT": (None, "SNOMED"),
    "LOINC": (None, "LOINC"),
}
"""Names of code systems without signs and case -> the kind that they alone decide, and how we write them."""

SOURCE: Final = "SOURCE"
"""In place of a code system: what follows is the source's own word, of a medication its name."""


def _ranges(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ICD10_CHAPTERS: Final = _ranges(
    "A00-B99 C00-D49 D50-D89 E00-E89 F01-F99 G00-G99 H00-H59 H60-H95 I00-I99 J00-J99 K00-K95 L00-L99 M00-M99 N00-N99 "
    "O00-O9A P00-P96 Q00-Q99 R00-R99 S00-T88 U00-U85 V00-Y99 Z00-Z99"
)
"""Chapters of ICD-10-CM, as CMS publishes them. Codes of other editions between two chapters are of the lower one."""

_ICD9_CHAPTERS: Final = _ranges(
    "001-139 140-239 240-279 280-289 290-319 320-389 390-459 460-519 520-579 580-629 630-679 680-709 710-739 740-759 "
    "760-779 780-799 800-999 E000-E999 V01-V91"
)
_ICD9_PROCEDURES: Final = _ranges(
    "00-00 01-05 06-07 08-16 17-17 18-20 21-29 30-34 35-39 40-41 42-54 55-59 60-64 65-71 72-75 76-84 85-86 87-99"
)
"""Chapters of ICD-9-CM, Volume 1 with its two supplements, and Volume 3."""

_CPT_SECTIONS: Final = _ranges(
    "00100-01999 10004-69990 70010-79999 80047-89398 90281-99199 99201-99499 99500-99607 "
    "10004-19499 20100-29999 30000-32999 33010-37799 38100-38999 39000-39599 40490-49999 50010-53899 54000-55899 "
    "55920-58999 59000-59899 60000-60699 61000-64999 65091-68899 69000-69979 "
    "70010-76499 76506-76999 77001-77092 77261-77799 78012-79999 "
    "90281-90756 90785-90899 90901-90999 91010-91299 92002-92700 92920-93799 93880-93998 94002-94799 95004-95199 "
    "95700-96020 96360-96549 96900-96999 97010-97799 98925-98943"
)
"""Sections of CPT by their numbers, then subsections of surgery (10004-69990), radiology (70010-79999) and medicine."""

_ICD: Final = re.compile(r"[A-Z0-9]{2,7}")  # of one there is nothing wider
_CPT: Final = re.compile(r"\d{4}[0-9FTUM]")
_HCPCS: Final = re.compile(r"[A-V]\d{4}")


def canonical(code: str, medications: Medications | None = None, description: str | None = None) -> str:
    """The one spelling of a code. It is a fixed point: the canonical spelling of itself.

    `medications`: the table of drug names; None: the shipped one. `description`: what a code of a medication (RxNorm,
    NDC) is called, so that it becomes an ingredient; those of other codes do not matter.
    """
    kind, stop, system, value = _parsed(code)
    if system in ("ICD//9", "ICD//10"):
        value = value.replace(".", "").upper()
        kind = kind or DIAGNOSIS
    elif system in ("CPT", "HCPCS", "ATC"):
        value = value.upper()
        if system != "ATC":
            system = "CPT" if _CPT.fullmatch(value) else "HCPCS" if _HCPCS.fullmatch(value) else system
    if kind == MEDICATION:
        value = _medication(system, value, shipped() if medications is None else medications, description)
        return "//".join(filter(None, (MEDICATION, stop, value)))
    return "//".join(filter(None, (kind, system, value)))


def _parsed(code: str) -> tuple[str, str, str, str]:
    """Kind, STOP, system and value; each may be empty but the value, unless there is nothing in the code."""
    parts = [part.strip() for part in code.split("//")]
    if len(parts) == 1:  # OMOP's codes in MEDS: "ICD10CM/I48.91"
        before, slash, after = parts[0].partition("/")
        parts = [before.strip(), after.strip()] if slash and _system(before) else parts
    kind = parts.pop(0) if len(parts) > 1 and parts[0].upper() in (DIAGNOSIS, PROCEDURE, MEDICATION) else ""
    kind = kind.upper()
    stop = ""
    if kind in (PROCEDURE, MEDICATION) and len(parts) > 1 and parts[0].upper() in (START, STOP, "END"):
        word = parts.pop(0).upper()
        stop = STOP if word != START and kind == MEDICATION else ""
        parts = ["END", *parts] if word != START and not stop else parts
    if len(parts) > 2 and parts[0].upper() == "ICD" and parts[1] in ("9", "10"):
        parts = [f"ICD{parts[1]}", *parts[2:]]
    known = _system(parts[0]) if len(parts) > 1 else None
    if known is None:
        return kind, stop, "", "//".join(parts)
    decided, system = known
    return kind or decided or "", stop, system, "//".join(parts[1:])


def _system(name: str) -> tuple[str | None, str] | None:
    return _SYSTEMS.get(re.sub(r"[^A-Z0-9]", "", name.upper()))


def _medication(system: str, value: str, medications: Medications, description: str | None) -> str:
    if system == "ATC":
        return medications.of_atc(value) or f"{system}//{value}"
    if description and system:
        return medications.ingredient(description)
    if system or value.partition("//")[0] == CLASS:
        return f"{system}//{value}" if system else value
    name = value.removeprefix(f"{SOURCE}//")
    return medications.ingredient(name) if any(map(str.isalpha, name)) else value


CLASS: Final = "CLASS"
"""In place of a code system: a class of a user's table that is not of the ATC."""


def kind_of(code: str) -> str:
    """diagnosis, procedure, medication, finding or other: of a canonical code."""
    return KINDS.get(code.partition("//")[0], "other")


def wider(code: str, medications: Medications | None = None) -> tuple[str, str] | None:
    """The next wider code of a canonical one, and what it is; None: there is none that the code itself tells.

    I4891 -> I489 (code) -> I48 (category) -> I00-I99 (chapter); ICD-9 likewise; procedures in ICD-10-PCS -> the first
    three, two and one characters (group); CPT -> subsection and section by number; HCPCS -> its letter (section); a
    combination of drugs -> its first ingredient; an ingredient -> its classes (ATC levels 4 to 1, or a user's).
    """
    kind, _, rest = code.partition("//")
    system, _, value = rest.rpartition("//")
    if kind == MEDICATION:
        found = _wider_medication(rest, shipped() if medications is None else medications)
    elif system in ("ICD//9", "ICD//10") and kind in (DIAGNOSIS, PROCEDURE):
        found = _wider_icd(kind == DIAGNOSIS, system == "ICD//9", value)
        found = found and (f"{system}//{found[0]}", found[1])
    elif (kind, system) == (PROCEDURE, "CPT"):
        section = _section(value)
        found = (f"CPT//{section}", "section") if section else None
    elif (kind, system) == (PROCEDURE, "HCPCS") and _HCPCS.fullmatch(value):
        found = f"HCPCS//{value[0]}", "section"
    else:
        found = None
    return found and (f"{kind}//{found[0]}", found[1])


def _wider_icd(diagnosis: bool, ninth: bool, value: str) -> tuple[str, str] | None:
    if not _ICD.fullmatch(value):
        return None
    if not diagnosis and not ninth:  # ICD-10-PCS: section, body system, operation
        length = 3 if len(value) > 3 else len(value) - 1
        return value[:length], "group"
    category = 2 if not diagnosis else 4 if ninth and value[0] == "E" else 3
    if len(value) > category:
        shorter = value[:-1]
        while len(shorter) > category and shorter[-1] == "X":  # X only fills places of ICD-10-CM
            shorter = shorter[:-1]
        return shorter, "category" if len(shorter) == category else "code"
    chapters = _ICD9_PROCEDURES if not diagnosis else _ICD9_CHAPTERS if ninth else _ICD10_CHAPTERS
    chapter = _chapter(value, chapters) if len(value) == category else None
    return (chapter, "chapter") if chapter else None


def _chapter(category: str, chapters: Sequence[str]) -> str | None:
    """The last chapter that begins at or before a category, if both begin alike with a letter or with a digit."""
    starts = [chapter.partition("-")[0] for chapter in chapters]
    starts = ["F00" if start == "F01" else start for start in starts]  # F00 is dementia in the WHO's edition
    place = bisect_right(starts, category) - 1
    if place < 0:
        return None
    first, last = chapters[place].split("-")
    within = first[0] <= category[0] <= last[0] if category[0].isalpha() else first[0].isdigit()
    return chapters[place] if within else None


def _section(value: str) -> str | None:
    """The smallest section of CPT that holds a number or a smaller section."""
    low, _, high = value.partition("-")
    if not _CPT.fullmatch(low):
        return None
    if not low.isdigit():
        return value[-1]  # II: quality measures (F), III: new technology (T); laboratory (U, M)
    inside = [s for s in _CPT_SECTIONS if s != value and s[:5] <= low and (high or low) <= s[6:]]
    return min(inside, key=lambda s: int(s[6:]) - int(s[:5]), default=None)


def _wider_medication(rest: str, medications: Medications) -> tuple[str, str] | None:
    system, _, value = rest.rpartition("//")
    if system == "ATC":
        length = {7: 5, 5: 4, 4: 3, 3: 1}.get(len(value))
        return (f"ATC//{value[:length]}", "class") if length and ATC.fullmatch(value) else None
    if system:
        return None
    group = medications.classes.get(rest)
    if group is None and AND in rest:
        return rest.partition(AND)[0], "ingredient"
    if not group:
        return None
    if ATC.fullmatch(group):
        return f"ATC//{group[:5]}", "class"
    return f"{CLASS}//{group}", "class"


def ancestors(
    code: str, parents: Mapping[str, Sequence[str]] | None = None, medications: Medications | None = None
) -> tuple[str, ...]:
    """The wider codes that stand for a canonical code, nearest first; each one's own are those after it.

    Where `wider` knows none, `parents` (canonical codes, as CODES.parent_codes tells them) are followed, of several the
    one with the longest way up, then the first.
    """
    return tuple(wide for wide, _ in chain(code, parents or {}, medications))


def chain(
    code: str,
    parents: Mapping[str, Sequence[str]],
    medications: Medications | None,
    below: frozenset[str] = frozenset(),
) -> tuple[tuple[str, str], ...]:
    """`ancestors` and what each is: code, category, chapter, group, section, ingredient, class or parent."""
    below = below | {code}
    found = wider(code, medications)
    if found is not None:
        return (found, *chain(found[0], parents, medications, below)) if found[0] not in below else ()
    ways = [
        ((parent, "parent"), *chain(parent, parents, medications, below))
        for parent in parents.get(code, ())
        if parent not in below
    ]
    return max(ways, key=len, default=())

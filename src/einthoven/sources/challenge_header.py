"""What the comments of a Challenge header say about the patient: age, sex, diagnoses, labels.

`#Age: 74` (2020, 2021) and `# Age: 74` (2025) are the same. `Dx` lists SNOMED CT codes, `Chagas label` is True or
False, `Source` names the data set, `Patient ID` the patient. `Rx`, `Hx` and `Sx` are "Unknown" in all that was
published and are not read; neither is the date of the first line, which is the day of the conversion.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from einthoven.sources.archive import plausible, sex_of

_TRUTH: Final = {"true": True, "1": True, "false": False, "0": False}
_NOTHING: Final = ("", "unknown", "nan", "none")
_SNOMED: Final = re.compile(r"[1-9][0-9]{5,17}")


@dataclass(frozen=True)
class Comments:
    """The comments of one header."""

    age: float | None  # years; null where the header says NaN, a negative number or more than archive.MAX_AGE
    sex: str | None
    site: str | None  # the data set, where a header names it
    patient: str | None
    codes: tuple[str, ...]  # SNOMED CT, as listed, each once
    chagas: bool | None
    unread: tuple[str, ...]  # names of the lines whose value is neither understood nor a word for nothing


def parse_comments(lines: Sequence[str]) -> Comments:
    """Read the comment lines of a header, without their "#"; lines of other names are passed over."""
    values: dict[str, list[str]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            values.setdefault(name.strip().casefold(), []).append(value.strip())
    said = {name: found[0] for name, found in values.items() if found[0].casefold() not in _NOTHING}
    listed = [code.strip() for text in values.get("dx", ()) for code in text.split(",")]
    codes = [code for code in listed if code.casefold() not in _NOTHING]
    chagas = said.get("chagas label")
    unread = ["Dx"] if any(not _SNOMED.fullmatch(code) for code in codes) else []
    if chagas is not None and chagas.casefold() not in _TRUTH:
        unread.append("Chagas label")
    return Comments(
        age=_age(said.get("age", "")),
        sex=sex_of(said.get("sex")),
        site=said.get("source"),
        patient=said.get("patient id"),
        codes=tuple(dict.fromkeys(code for code in codes if _SNOMED.fullmatch(code))),
        chagas=_TRUTH.get((chagas or "").casefold()),
        unread=tuple(unread),
    )


def _age(text: str) -> float | None:
    try:
        return plausible(float(text))
    except ValueError:
        return None

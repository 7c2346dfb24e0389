"""PTB-XL's report texts: German, English and Swedish, with device footers, relabelling notes and lost umlauts."""

import re
from dataclasses import dataclass
from typing import Final

_EDIT: Final = re.compile(r"\bedit:.*", re.DOTALL)
"""What the PTB-XL curators appended: their SCP codes, i.e. the labels, and never part of the report."""

_FOOTER: Final = re.compile(
    r"(?:^|\s)(?:\d\.\d\d )?(?:unbestätigter(?: b\w*)?|unconfirmed(?: r\w*)?)$|(?:^|\s)4\.46(?: u\w*)?$"
)
"""Software version and "unbestätigter bericht" (unconfirmed report), whole or cut off by the 255-character limit."""

_CUT_FOOTER: Final = re.compile(r"(?<=[^\W\d]) 4(?:\.4?)?$")
"""The first characters of "4.46" at the cut; only in a long text, where nothing else is likely."""
_LONG: Final = 200

_NON_REPORT: Final = re.compile(
    r"(?:trace|tracing|ecg|recording) only(?: requested)?|no (?:report|interpretation)(?: requested)?"
)

_HASH: Final = re.compile(r"#+(?=\w)")
"""An umlaut of the devices' 7-bit character set: "f#r", "#bergang"."""


@dataclass(frozen=True)
class Report:
    """A cleaned report: `text` is None where nothing was reported."""

    text: str | None
    footer: bool  # a device footer was removed
    edit: bool  # a curators' note was removed


def clean_report(text: str) -> str | None:
    """The wording of a report alone; None for what is none ("trace only requested.").

    Lower case (PTB-XL writes Ä, Ö, Ü and Å in capitals within lower-case words), "#" before a letter as "ü", one
    space between words; without the curators' "Edit: …" and without the devices' version and confirmation footer.
    Applying it again changes nothing.
    """
    return parse_report(text).text


def parse_report(text: str) -> Report:
    """`clean_report`, telling what was removed."""
    whole = _HASH.sub("ü", " ".join(text.lower().split()))
    body = _EDIT.sub("", whole).rstrip()
    kept = _strip_footers(body)
    empty = not any(letter.isalpha() for letter in kept) or _NON_REPORT.fullmatch(kept.rstrip(". "))
    return Report(None if empty else kept, footer=kept != body, edit=len(body) < len(whole))


def _strip_footers(text: str) -> str:
    while True:
        shorter = _FOOTER.sub("", text).rstrip()
        if len(shorter) >= _LONG:
            shorter = _CUT_FOOTER.sub("", shorter)
        if shorter == text:
            return text
        text = shorter

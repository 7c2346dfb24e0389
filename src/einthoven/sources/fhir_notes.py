"""Texts inside DocumentReference and DiagnosticReport -> plain text and one of schema.NOTE_KINDS."""

import binascii
import html
import re
from collections.abc import Iterator
from typing import Any, Final

from einthoven.config import Source
from einthoven.sources.codes import vocabulary
from einthoven.sources.fhir_elements import Resource, ResourceError, element, items, sound

MAX_BYTES: Final = 16 << 20
"""Of an attachment, decoded."""

CHARSETS: Final = ("utf-8", "us-ascii", "iso-8859-1", "windows-1252")
PLAIN, HTML = "text/plain", ("text/html", "application/xhtml+xml")

LOINC_KINDS: Final = {
    "11524-6": "ecg",  # EKG study
    "28010-7": "ecg",  # ECG interpretation
    "34534-8": "ecg",  # 12 lead EKG panel
    "34552-0": "echo",  # cardiac 2D echo panel
    "42148-7": "echo",  # US heart
    "LP29684-5": "radiology",
    "18726-0": "radiology",  # radiology studies
    "18748-4": "radiology",  # diagnostic imaging study
    "68604-8": "radiology",  # radiology diagnostic study note
    "18725-2": "microbiology",  # microbiology studies
    "11504-8": "surgical",  # surgical operation note
    "28570-0": "surgical",  # procedure note
}
SECTION_KINDS: Final = {
    "EC": "ecg",  # electrocardiac
    "CUS": "echo",  # cardiac ultrasound
    "RAD": "radiology",
    "RX": "radiology",
    "RUS": "radiology",
    "CT": "radiology",
    "NMR": "radiology",
    "NMS": "radiology",
    "VUS": "radiology",
    "IMG": "radiology",
    "MB": "microbiology",
    "MCB": "microbiology",
    "MYC": "microbiology",
    "VR": "microbiology",
}
"""Diagnostic service sections of HL7 v2, which categories of DiagnosticReport use."""

_KINDS: Final = {"LOINC": LOINC_KINDS, "terminology.hl7.org/CodeSystem/v2-0074": SECTION_KINDS}


def kind_of(resource: Resource, config: Source) -> str:
    """By `config.note_kinds` (a code or a display name), else by known codes, else `config.note_kind`."""
    codings = list(_codings(resource))
    for coding in codings:
        for name in (coding.get("code"), coding.get("display")):
            if isinstance(name, str) and name in config.note_kinds:
                return config.note_kinds[name]
    for coding in codings:
        kinds, code = _KINDS.get(vocabulary(coding.get("system")) or "", {}), coding.get("code")
        if isinstance(code, str) and code in kinds:
            return kinds[code]
    return config.note_kind


def _codings(resource: Resource) -> Iterator[dict[str, Any]]:
    """Of `type` (DocumentReference) or `code` (DiagnosticReport), then of every `category`."""
    name = "type" if resource["resourceType"] == "DocumentReference" else "code"
    yield from items(element(resource, name, "coding"))
    for category in items(resource.get("category")):
        yield from items(category.get("coding"))


def text_of_document(resource: Resource) -> str:
    """The text of the attachment that is plain text, else HTML; ResourceError where there is none."""
    attachments = [element(content, "attachment") for content in items(resource.get("content"))]
    text = _text(attachments, "DocumentReference.content.attachment")
    if text is None:
        raise ResourceError("no-text", "DocumentReference.content.attachment.data: expected base64")
    return text


def text_of_report(resource: Resource) -> str | None:
    """The text of `presentedForm`, else of `conclusion`; None where there is neither."""
    conclusion = resource.get("conclusion")
    spoken = sound(conclusion).strip() if isinstance(conclusion, str) else ""
    if len(spoken) > MAX_BYTES:
        raise ResourceError("too-large", f"DiagnosticReport.conclusion: expected at most {MAX_BYTES} characters")
    try:
        text = _text(list(items(resource.get("presentedForm"))), "DiagnosticReport.presentedForm")
    except ResourceError as error:
        if error.reason in ("external-attachment", "unsupported-attachment") and spoken:
            return spoken
        raise
    return text or spoken or None


def _text(attachments: list[Any], where: str) -> str | None:
    """The best of attachments, which hold one text in several forms; None where none has data or a URL."""
    found = [(*_content_type(one), one) for one in attachments if isinstance(one, dict)]
    inline = [one for one in found if isinstance(one[2].get("data"), str)]
    for form in ((PLAIN,), HTML):
        for media, charset, one in inline:
            if media in form:
                text = _decoded(one["data"], charset, where)
                text = text_of_html(text) if form is HTML else text
                plain = text.replace("\r\n", "\n").replace("\r", "\n").strip()
                if not plain:
                    raise ResourceError("no-text", f"{where}.data: expected a text, found blanks")
                return plain
    if inline:
        raise ResourceError("unsupported-attachment", f"{where}.contentType: expected text/plain or text/html")
    if any(isinstance(one[2].get("url"), str) for one in found):
        raise ResourceError("external-attachment", f"{where}.data: expected base64, found a URL, which is not fetched")
    return None


def _content_type(attachment: dict[str, Any]) -> tuple[str, str]:
    """Media type and character set of "text/plain; charset=utf-8"."""
    text = attachment.get("contentType")
    media, _, rest = text.lower().partition(";") if isinstance(text, str) else ("", "", "")
    charset = re.search(r"charset\s{0,9}=\s{0,9}\"?([a-z0-9-]{1,40})", rest[:200])
    return media.strip(), charset[1] if charset else CHARSETS[0]


def _decoded(data: str, charset: str, where: str) -> str:
    if charset not in CHARSETS:
        raise ResourceError(
            "unsupported-attachment", f"{where}.contentType: expected a charset of {', '.join(CHARSETS)}"
        )
    if len(data) * 3 // 4 > MAX_BYTES + (MAX_BYTES >> 4):  # room for line ends
        raise ResourceError("too-large", f"{where}.data: expected at most {MAX_BYTES} bytes")
    try:
        raw = binascii.a2b_base64("".join(data.split()), strict_mode=True)
    except ValueError:
        raise ResourceError("bad-resource", f"{where}.data: expected base64") from None
    if len(raw) > MAX_BYTES:
        raise ResourceError("too-large", f"{where}.data: expected at most {MAX_BYTES} bytes")
    try:
        return raw.removeprefix(b"\xef\xbb\xbf").decode(charset)
    except UnicodeDecodeError:
        raise ResourceError("bad-resource", f"{where}.data: expected {charset} text") from None


_TAG: Final = re.compile(r"</?([a-zA-Z][a-zA-Z0-9]{0,20})|<[!?/]")
_BREAK: Final = re.compile(r"address|article|blockquote|br|d[dlt]|div|h[1-6r]|li|[ou]l|p|pre|section|table|tr")
_HIDDEN: Final = {name: re.compile(f"</{name}", re.IGNORECASE) for name in ("script", "style", "title")}
_HUGE: Final = re.compile(r"&#[xX]?[0-9a-fA-F]{9,};?")  # int() refuses what has thousands of digits


def text_of_html(page: str) -> str:
    """The words of a page, a block a line.

    One pass, in time linear in the length: html.parser takes a minute for 80 kB of "<a <a <a" (Python 3.11). Quotes are
    not followed, so that an attribute with a ">" leaves its rest behind.
    """
    parts: list[str] = []
    place = 0
    while (start := page.find("<", place)) >= 0:
        parts.append(page[place:start])
        tag = _TAG.match(page, start)
        if tag is None:  # "< 5 mmol/l"
            parts.append("<")
            place = start + 1
            continue
        name = (tag[1] or "").lower()
        place = _end_of_tag(page, start, name if tag[0][1] != "/" else "")
        parts.append("\n" if _BREAK.fullmatch(name) else " " if name in ("td", "th") else "")
    parts.append(page[place:])
    text = html.unescape(_HUGE.sub("\ufffd", "".join(parts)))
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def _end_of_tag(page: str, start: int, opened: str) -> int:
    """Where the text goes on; at the end of the page if what begins at `start` never ends."""
    if opened in _HIDDEN:
        closing = _HIDDEN[opened].search(page, start)
        start = closing.start() if closing else len(page)
    mark = "-->" if page.startswith("<!--", start) else ">"
    end = page.find(mark, start)
    return len(page) if end < 0 else end + len(mark)

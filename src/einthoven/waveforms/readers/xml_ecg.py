"""GE MUSE, HL7 aECG and Philips Sierra XML, through ecgdatakit, which refuses entities (defusedxml, xmltodict)."""

import base64
from pathlib import Path
from typing import Any, Final

import numpy as np

from einthoven.waveforms.readers.kit import found, parsed
from einthoven.waveforms.readers.protocol import MAX_VALUES, Found, Hints, needed
from einthoven.waveforms.wfdb_format import RecordingError

MAX_XML_BYTES: Final = 16 << 20
MAX_TAGS: Final = 200_000

_XLI_HEADER: Final = 8  # bytes of a lead: size of its code words (4), nothing (2), first value (2)
_WORD: Final = 10  # bits


class Muse:
    """RestingECG of GE's MUSE: base64 of whole numbers per lead, mostly eight leads. Median beats are left out."""

    name = "GE MUSE XML"

    def sniff(self, head: bytes, path: Path | None) -> bool:
        return _has_root(head, "RestingECG")

    def read(self, content: bytes, path: Path | None, hints: Hints) -> Found:
        _bounded(content)
        return found(parsed("ge_muse_xml", "GEMuseXMLParser", content))


class AnnotatedEcg:
    """HL7 aECG: the first rhythm series. Annotations and representative beats are left out."""

    name = "HL7 aECG"

    def sniff(self, head: bytes, path: Path | None) -> bool:
        return _has_root(head, "AnnotatedECG")

    def read(self, content: bytes, path: Path | None, hints: Hints) -> Found:
        _bounded(content)
        record = parsed("hl7_aecg", "HL7aECGParser", content)
        # Its leads carry the rate rounded to whole hertz.
        return found(record, record.raw_metadata["rhythm_time"]["sampling_rate_exact"])


class Philips:
    """Philips Sierra XML 1.03 to 1.04.02, plain, base64 or XLI. Representative beats are left out."""

    name = "Philips Sierra XML"

    def sniff(self, head: bytes, path: Path | None) -> bool:
        return _has_root(head, "restingecgdata")

    def read(self, content: bytes, path: Path | None, hints: Hints) -> Found:
        _bounded(content)
        _refuse_bomb(content)
        return found(parsed("sierra_xml", "SierraXMLParser", content))


def _has_root(head: bytes, tag: str) -> bool:
    """Also behind a prefix, and in UTF-16, of which every other byte is 0."""
    plain = head.replace(b"\0", b"")
    return any(
        start + tag.encode() + end in plain for start in (b"<", b":") for end in (b">", b" ", b"\n", b"\r", b"\t", b"/")
    )


def _bounded(content: bytes) -> None:
    """A tree of elements takes a hundred times the memory of its text."""
    if len(content) > MAX_XML_BYTES or content.count(b"<") > MAX_TAGS:
        raise RecordingError("too-large", f"expected XML of at most {MAX_XML_BYTES >> 20} MB and {MAX_TAGS} tags")


def _refuse_bomb(content: bytes) -> None:
    """RecordingError("too-large") if XLI data would unpack to more than MAX_VALUES samples.

    ecgdatakit unpacks without a bound, and a code word of 10 bits can stand for 700 bytes.
    """
    tree: Any = needed("defusedxml.ElementTree", "defusedxml")
    elements = [e for e in tree.fromstring(content).iter() if str(e.tag).casefold().endswith("parsedwaveforms")]
    waves = [base64.b64decode("".join((e.text or "").split())) for e in elements if "xli" in str(e.attrib).casefold()]
    for data in waves:
        left = 2 * MAX_VALUES
        while len(data) > _XLI_HEADER:
            size = int.from_bytes(data[:4], "little", signed=True)
            if size <= 0:
                raise RecordingError("unreadable", "expected a size before the code words of a lead")
            left -= _unpacked(data[_XLI_HEADER : _XLI_HEADER + size], left)
            data = data[_XLI_HEADER + size :]


def _unpacked(words: bytes, limit: int) -> int:
    """Bytes that LZW code words stand for, told from the lengths of the dictionary's strings alone."""
    bits = np.unpackbits(np.frombuffer(words, np.uint8))
    codes = bits[: len(bits) // _WORD * _WORD].reshape(-1, _WORD) @ (1 << np.arange(_WORD)[::-1])
    lengths = dict.fromkeys(range(256), 1)
    total = before = 0
    following = 256
    last = (1 << _WORD) - 2
    for code in codes.tolist():
        if code > last:
            break
        now = lengths.setdefault(code, before + 1)
        if before and following <= last:
            lengths[following] = before + 1
            following += 1
        total += now
        if total > limit:
            raise RecordingError("too-large", f"expected XLI data of at most {MAX_VALUES} samples")
        before = now
    return total

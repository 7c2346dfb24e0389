"""A note as words: where each stands, where its lines break, and the form in which words are compared."""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

BREAK: Final = "¶"
"""The word put where a sentence ends without a full stop: a blank line, a heading's line, an item of a list."""

_WORD: Final = re.compile(r"\d+(?:[.,]\d+)+|[^\W_]+(?:['’#][^\W_]+)*|[^\w\s]|_")
_LISTED: Final = re.compile(r"(?:[-*•·–]|\d{1,2}[.)])\s")
_HEADED: Final = re.compile(r"[^\W\d_][^:.;,]{0,48}:(?:\s|$)")
_SHORT: Final = 50
_SHORT_GOES_ON: Final = 20
"""Characters: a shorter line ends because its sentence does, a longer one because the page is full. The second holds
where the next line begins with a small letter."""

_SPELLING: Final = str.maketrans({"ä": "e", "æ": "e", "ö": "e", "ø": "e", "œ": "e", "ü": "u", "å": "a", "’": "'"})
_DIGRAPHS: Final = (("ae", "e"), ("oe", "e"), ("ue", "u"))
_PLAIN: Final = 3
"""Letters of the longest word that has no plural and no digraph for us: "toe", "pms"."""
_PLURAL: Final = re.compile(r"(?<=[^\W\d_]{3})(?<![siu])s$")


@dataclass(frozen=True)
class Words:
    """The words of one note; `starts` and `ends` are characters of its text, and a BREAK has no length."""

    words: list[str]
    starts: list[int]
    ends: list[int]
    lines: frozenset[int]  # of words that begin a line


def split(text: str) -> Words:
    """Words, numbers and single signs. White space separates; only line ends that end a sentence leave a mark."""
    words: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    lines: list[int] = []
    offset, before = 0, ""
    for line in text.splitlines(keepends=True):
        if words and words[-1] != BREAK and _breaks(before, line):
            words.append(BREAK)
            starts.append(offset)
            ends.append(offset)
        lines.append(len(words))
        for found in _WORD.finditer(line):
            words.append(found.group())
            starts.append(offset + found.start())
            ends.append(offset + found.end())
        offset += len(line)
        before = line
    return Words(words, starts, ends, frozenset(lines))


def _breaks(before: str, line: str) -> bool:
    """Whether a sentence ends between two lines: hospital systems wrap lines in the middle of sentences too."""
    before, line = before.strip(), line.strip()
    if not before or not line or before.endswith(":"):
        return True
    if len(before) < (_SHORT_GOES_ON if line[0].islower() else _SHORT):
        return True
    return _LISTED.match(line) is not None or _HEADED.match(line) is not None


@lru_cache(maxsize=1 << 16)
def fold(word: str) -> str:
    """The form in which words are compared: without case, umlauts, British digraphs, accents, genitive and plural.

    "Ischaemia", "ischemia" and "ischämie" begin alike; "UNBESTAeTIGT", "unbestätigt"; "f#r" (a device's 7-bit "für"),
    "fuer"; "Down's", "Down"; "murmurs", "murmur". Words of up to three letters only lose
    their case, umlauts and accents.
    """
    folded = word.casefold().replace("#", "ü").translate(_SPELLING)
    if not folded.isascii():
        folded = "".join(c for c in unicodedata.normalize("NFKD", folded) if not unicodedata.combining(c)) or folded
    if len(folded) <= _PLAIN:
        return folded
    for two, one in _DIGRAPHS:
        folded = folded.replace(two, one)
    return folded[:-2] if folded.endswith("'s") else _PLURAL.sub("", folded)


def folded(text: str) -> tuple[str, ...]:
    """A term as the folded words of `split`."""
    return tuple(map(fold, split(text).words))

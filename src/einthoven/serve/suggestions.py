"""What the box suggests as somebody writes: codes, by words of their description or their own spelling, and prompts."""

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from einthoven.evaluation.zeroshot import PROMPTS
from einthoven.search.archive import Archive
from einthoven.vocabulary.codes import kind_of
from einthoven.vocabulary.vocabulary import SPECIAL

SCANNED: Final = 400
"""Entries that are looked at for one suggestion, however many begin alike."""
MOST_KEYS: Final = 8
"""Words of a description by which it is found."""
SHOWN: Final = 12
_WORD: Final = re.compile(r"\w+")
_LAST: Final = re.compile(r"/+")


@dataclass(frozen=True)
class Suggestion:
    """What would be put into the box, and what it means."""

    value: str
    meaning: str
    patients: int  # of the train split, who have the code; 0 for words


@dataclass(frozen=True)
class Suggestions:
    """Sorted by every word's beginning, so that a prefix is found by bisection."""

    keys: Sequence[str]
    places: Sequence[int]  # of each key, in `all`
    all: Sequence[Suggestion]  # of most patients first

    @classmethod
    def of(cls, archive: Archive) -> "Suggestions":
        """What an archive's model can be asked with."""
        found: list[Suggestion] = []
        vocabulary = archive.model.vocabulary
        if vocabulary is not None:
            meanings = {vocabulary.rules.canonical(code): said for code, said in archive.meanings.items()}
            tokens = zip(vocabulary.tokens[len(SPECIAL) :], vocabulary.patients[len(SPECIAL) :], strict=True)
            found += [Suggestion(code, meanings.get(code, ""), patients) for code, patients in tokens]
        if archive.model.text is not None:
            prompts = (text.removesuffix(".") for of in PROMPTS.values() for text in of["english"])
            found += [Suggestion(text, "", 0) for text in dict.fromkeys(prompts)]
        return cls.made(found)

    @classmethod
    def made(cls, all_of_them: Iterable[Suggestion]) -> "Suggestions":
        kept = tuple(sorted(all_of_them, key=_frequent))
        pairs = sorted((key, place) for place, one in enumerate(kept) for key in _keys(one))
        return cls(tuple(key for key, _ in pairs), tuple(place for _, place in pairs), kept)

    def like(self, prefix: str, most: int = SHOWN) -> list[Suggestion]:
        """Those with words that begin with `prefix`, of most patients first; without a prefix the most frequent."""
        prefix = _folded(prefix)
        if not prefix:
            return list(self.all[:most])
        first, seen = bisect_left(self.keys, prefix), {}
        for at in range(first, min(first + SCANNED, len(self.keys))):
            if not self.keys[at].startswith(prefix):
                break
            seen[self.places[at]] = self.all[self.places[at]]
        return sorted(seen.values(), key=_frequent)[:most]

    def codes_named(self, word: str) -> list[Suggestion]:
        """Codes of which a word is the last part, as AFIB is of SCP//AFIB; none for several words."""
        wanted = _folded(word)
        if not wanted or " " in wanted:
            return []
        return [
            one for one in self.like(word, SCANNED) if one.patients and _folded(_LAST.split(one.value)[-1]) == wanted
        ][:3]

    def examples(self) -> list[Suggestion]:
        """Of each kind of code that people think of, the most frequent that is described."""
        kinds = {kind_of(one.value): one for one in reversed(self.all) if one.patients and one.meaning}
        return [kinds[kind] for kind in ("finding", "diagnosis", "medication") if kind in kinds]


def _frequent(one: Suggestion) -> tuple[int, str]:
    return -one.patients, one.value


def _keys(one: Suggestion) -> list[str]:
    said = _folded(one.meaning or one.value)
    starts = [match.start() for match in _WORD.finditer(said)][:MOST_KEYS]
    keys = {said[start:] for start in starts}
    if one.meaning:
        keys |= {_folded(one.value), _folded(one.value.rpartition("//")[2])}
    return sorted(keys)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())

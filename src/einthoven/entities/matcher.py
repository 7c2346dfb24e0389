"""Mentions of a lexicon's terms in notes, with what is said of them: spaCy's phrase matcher over words of our own."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from einthoven.entities.context import Flags, Scope, annotate
from einthoven.entities.lexicon import Term
from einthoven.entities.triggers import triggers
from einthoven.entities.words import Words, fold, split

TOGETHER: Final = 512
"""Notes whose words are forgotten together: spaCy would else keep every distinct word of 10^7 notes."""


@dataclass(frozen=True, slots=True)
class Mention:
    """A term in a note: characters [start, end), and its context."""

    start: int
    end: int
    term: Term
    flags: Flags


class Matcher:
    """A lexicon and the context triggers, ready to read notes. Takes under a second to build."""

    def __init__(self, lexicon: Sequence[Term]) -> None:
        from spacy.attrs import NORM
        from spacy.vocab import Vocab

        self._vocab = Vocab(lex_attr_getters={NORM: fold})
        self._terms, self._triggers = list(lexicon), list(triggers().values())
        self._find_terms = self._phrases(enumerate((term.term, term.exact) for term in self._terms))
        self._find_triggers = self._phrases(enumerate((phrase, False) for phrase in triggers()))

    def _phrases(self, phrases: Iterable[tuple[int, tuple[str, bool]]]) -> Any:
        """A function of a Doc: (number of the phrase, first word, word after the last), as spaCy finds them."""
        from spacy.matcher import PhraseMatcher
        from spacy.tokens import Doc

        either = {False: PhraseMatcher(self._vocab, attr="NORM"), True: PhraseMatcher(self._vocab, attr="ORTH")}
        numbers: dict[int, int] = {}
        for number, (phrase, exact) in phrases:
            key = str(number)
            numbers[self._vocab.strings.add(key)] = number
            either[exact].add(key, [Doc(self._vocab, words=split(phrase).words)])

        def find(doc: Any) -> list[tuple[int, int, int]]:
            found = [*either[False](doc), *either[True](doc)]
            return [(numbers[key], start, end) for key, start, end in found]

        return find

    def find_all(self, texts: Iterable[str]) -> Iterator[list[Mention]]:
        """The mentions of each text, by place. Of overlapping ones the longest holds, then the first."""
        rest = iter(texts)
        while some := list(islice(rest, TOGETHER)):
            with self._vocab.memory_zone():
                found = [self._find(text) for text in some]
            yield from found

    def find(self, text: str) -> list[Mention]:
        """The mentions of one text."""
        return next(self.find_all([text]))

    def _find(self, text: str) -> list[Mention]:
        from spacy.tokens import Doc

        words = split(text)
        if not words.words:
            return []
        doc = Doc(self._vocab, words=words.words)
        terms = longest((start, end, number) for number, start, end in self._find_terms(doc))
        if not terms:
            return []
        heads = self._scopes(doc, terms)
        places = [(start, end) for start, end, _ in terms]
        flags = annotate(words, places, heads)
        return [self._mention(words, place, flag) for place, flag in zip(terms, flags, strict=True)]

    def _scopes(self, doc: Any, terms: list[tuple[int, int, int]]) -> list[Scope]:
        """Phrases outside of terms; of those that overlap the longest: in "no change in gait" it is "no"."""
        inside = {word for start, end, _ in terms for word in range(start, end)}
        outside = (
            (start, end, number)
            for number, start, end in self._find_triggers(doc)
            if not any(word in inside for word in range(start, end))
        )
        return [Scope(start, end, self._triggers[number]) for start, end, number in longest(outside)]

    def _mention(self, words: Words, place: tuple[int, int, int], flags: Flags) -> Mention:
        start, end, number = place
        return Mention(words.starts[start], words.ends[end - 1], self._terms[number], flags)


def longest(found: Iterable[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Of (start, end, …) that overlap, the longest, then the first; by place."""
    kept: list[tuple[int, int, int]] = []
    taken: set[int] = set()
    for start, end, number in sorted(found, key=lambda one: (one[0] - one[1], one)):
        if not any(word in taken for word in range(start, end)):
            taken.update(range(start, end))
            kept.append((start, end, number))
    return sorted(kept)

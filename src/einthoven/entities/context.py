"""What a note says of a term: denied, uncertain, past, of the family, only imagined. Our own ConText.

After NegEx (Chapman et al., J Biomed Inform 2001) and ConText (Harkema et al., J Biomed Inform 2009): a trigger phrase
before or after a term gives it an attribute, within a scope that ends with the sentence or a terminating phrase. The
phrases are data (`triggers.py`).

Decided: "rule out X" and "X cannot be excluded" are uncertain, neither negated nor hypothetical. "X is unlikely" is
negated. "Consistent with X" says X. A denied past ("no history of X") is negated and not historical.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from einthoven.entities.triggers import AFTER, ATTRIBUTES, BEFORE, Trigger, sections, words_of
from einthoven.entities.words import BREAK, Words, fold

_STOPS: Final = frozenset((".", "!", "?", BREAK))
_LONGEST: Final = 256
"""Words after which a sentence ends in any case, so that the work grows with the length of a note and no faster."""
_HEADING_WORDS: Final = 6
_NEAR: Final = 3
"""Words between a term and "in", and between "in" and a relative."""


class Flags(NamedTuple):
    """The attributes of a mention, named as the columns of ENTITIES."""

    negated: bool = False
    uncertain: bool = False
    historical: bool = False
    family: bool = False
    hypothetical: bool = False


class Scope(NamedTuple):
    """A phrase of the table in a note: words [start, end), and what it may do."""

    start: int
    end: int
    triggers: tuple[Trigger, ...]

    def ends(self, other: Trigger) -> bool:
        """Whether it ends the scope of another trigger."""
        return any(trigger.ends(other.attribute) for trigger in self.triggers)


@dataclass(frozen=True, slots=True)
class _Sentence:
    """The mentions and phrases of one sentence, words [.., end) of a note. Scopes reach no further."""

    words: Words
    end: int
    mentions: list[tuple[int, int]]
    scopes: list[Scope]

    def folded(self, start: int, end: int) -> list[str]:
        return [fold(word) for word in self.words.words[max(0, start) : end]]


def annotate(words: Words, mentions: Sequence[tuple[int, int]], scopes: Sequence[Scope]) -> list[Flags]:
    """The attributes of each mention. Mentions and scopes are words [start, end), by place, and do not overlap."""
    found: list[set[str]] = []
    scopes = [scope for scope in scopes if not _asks(words, scope)]
    rest, phrases = deque(mentions), deque(scopes)
    whole = [*mentions, *((scope.start, scope.end) for scope in scopes)]
    inside = {place for start, after in whole for place in range(start, after)}
    for end in _sentence_ends(words, inside):
        within = _taken(rest, end)
        sentence = _Sentence(words, end, within, _taken(phrases, end))
        found += _annotated(sentence) if within else []
    for number, attribute in _in_sections(words, mentions):
        found[number].add(attribute)
    return [_flags(one) for one in found]


def _asks(words: Words, scope: Scope) -> bool:
    """Whether a question mark ends a question: the doubtful "?PE" has it right before a word."""
    last = scope.end == len(words.words)
    return words.words[scope.start] == "?" and (last or words.starts[scope.end] > words.ends[scope.start])


def _taken(rest: deque[Any], end: int) -> list[Any]:
    """Take from the front what begins before a word."""
    taken = []
    while rest and rest[0][0] < end:
        taken.append(rest.popleft())
    return taken


def _flags(found: set[str]) -> Flags:
    if "negated" in found:
        found.discard("historical")
    return Flags(*(attribute in found for attribute in ATTRIBUTES))


def _sentence_ends(words: Words, inside: set[int]) -> Iterator[int]:
    """The word after each sentence. A stop `inside` of a phrase or a term ("v. a.", "c. diff", "?PE") ends none."""
    first, last = 0, len(words.words) - 1
    for place, word in enumerate(words.words):
        stops = word in _STOPS and place not in inside and not _abbreviates(words.words, place)
        if stops or place == last or place - first >= _LONGEST:
            first = place + 1
            yield first


def _abbreviates(words: list[str], place: int) -> bool:
    """Whether a full stop is that of "Dr."."""
    return words[place] == "." and place > 0 and fold(words[place - 1]) in words_of("abbreviation")


def _annotated(sentence: _Sentence) -> list[set[str]]:
    found: list[set[str]] = [set() for _ in sentence.mentions]
    for index, scope in enumerate(sentence.scopes):
        ahead: list[int] = []
        for trigger in scope.triggers:  # those before a term first: "wahrscheinlich" may stand on either side
            if trigger.direction == BEFORE:
                reached = _ahead(sentence, index, trigger)
                ahead += reached
            elif trigger.direction == AFTER and not ahead:
                reached = _behind(sentence, index, trigger)
            else:
                continue
            for number in reached:
                found[number].add(trigger.attribute)
    return found


def _ahead(sentence: _Sentence, index: int, trigger: Trigger) -> list[int]:
    """The mentions that a trigger standing before them reaches."""
    scope = sentence.scopes[index]
    family = trigger.attribute == "family"
    if family and _only_present(sentence, scope):
        return []
    stop = _reach(sentence, index, trigger)
    ahead = [n for n, (start, _) in enumerate(sentence.mentions) if scope.end <= start < stop]
    if family:
        return [*_in_someone(sentence, scope), *ahead]
    if trigger.reach is None or not ahead:
        return ahead
    near = sentence.mentions[ahead[0]][0] - scope.end <= trigger.reach
    return _chain(sentence, ahead) if near else []


def _behind(sentence: _Sentence, index: int, trigger: Trigger) -> list[int]:
    """The mentions that a trigger standing after them reaches: the nearest, and those joined to it."""
    scope = sentence.scopes[index]
    first = max([0] + [one.end for one in sentence.scopes[:index] if one.ends(trigger)])
    behind = [n for n, (start, end) in enumerate(sentence.mentions) if first <= start and end <= scope.start]
    if not behind:
        return []
    between = sentence.folded(sentence.mentions[behind[-1]][1], scope.start)
    if trigger.reach is not None and len(between) > trigger.reach:
        return []
    if trigger.attribute == "historical" and words_of("onset").intersection(between):
        return []
    return _chain(sentence, behind[::-1])


def _reach(sentence: _Sentence, index: int, trigger: Trigger) -> int:
    """The word at which the reach of a trigger standing before terms ends.

    That is the end of the sentence, a terminating phrase, ", history of" (a comma and then another statement), and for
    the family a change of the subject.
    """
    words, scope = sentence.words.words, sentence.scopes[index]
    end = sentence.end
    for later in sentence.scopes[index + 1 :]:
        before = [one.attribute for one in later.triggers if one.direction == BEFORE]
        another = bool(before) and trigger.attribute not in before and words[later.start - 1] == ","
        if another or later.ends(trigger):
            end = later.start
            break
    if trigger.attribute == "family":
        changes = (place for place in range(scope.end, end) if _changes_subject(words, place))
        return next(changes, end)
    return end


def _changes_subject(words: list[str], place: int) -> bool:
    """ ", and he states": what follows is not of the family."""
    return fold(words[place]) in words_of("subject") and words[place - 1] in words_of("turn")


def _chain(sentence: _Sentence, order: Sequence[int]) -> list[int]:
    """The first of the mentions in `order`, and those joined to it by commas and conjunctions, up to one word apart."""
    reached = [order[0]]
    for number in order[1:]:
        left, right = sorted((sentence.mentions[reached[-1]], sentence.mentions[number]))
        between = sentence.folded(left[1], right[0])
        others = [word for word in between if word not in words_of("joins")]
        if len(others) > 1 or len(others) == len(between):
            break
        reached.append(number)
    return reached


def _only_present(sentence: _Sentence, scope: Scope) -> bool:
    """Whether a relative only reports, accompanies or is spoken to: "mother states", "lives with his father"."""
    if words_of("reporting").intersection(sentence.folded(scope.end, scope.end + 2)):
        return True
    before = [word for word in sentence.folded(scope.start - 3, scope.start) if word not in words_of("article")]
    return bool(before) and before[-1] in words_of("company")


def _in_someone(sentence: _Sentence, scope: Scope) -> list[int]:
    """ "Diabetes in his father": the mentions before a relative that "in" leads to."""
    before = sentence.folded(scope.start - _NEAR, scope.start)
    if "in" not in before:
        return []
    preposition = scope.start - len(before) + before.index("in")
    behind = [n for n, (_, end) in enumerate(sentence.mentions) if end <= preposition]
    if not behind or preposition - sentence.mentions[behind[-1]][1] > _NEAR:
        return []
    return _chain(sentence, behind[::-1])


def _in_sections(words: Words, mentions: Sequence[tuple[int, int]]) -> Iterator[tuple[int, str]]:
    headings = list(_headings(words, {place for start, end in mentions for place in range(start, end)}))
    if not any(attribute for _, attribute in headings):
        return
    places = [place for place, _ in headings]
    for number, (start, _) in enumerate(mentions):
        above = bisect_right(places, start) - 1
        if above >= 0 and headings[above][1]:
            yield number, headings[above][1]


def _headings(words: Words, terms: set[int]) -> Iterator[tuple[int, str]]:
    """Where sections begin, and the attribute of each ("" for most).

    A heading is up to six words at the start of a line or in capitals before a colon, known words before a colon or
    alone on a line, and other words in capitals alone on a line, unless they are a term ("COPD" in a list).
    """
    first = 0
    for place, word in enumerate(words.words):
        if word not in _STOPS and word != ":":
            continue
        title = words.words[first:place]
        if word in (":", BREAK) and 0 < len(title) <= _HEADING_WORDS:
            attribute = sections().get(tuple(map(fold, title)), "")
            begins = first in words.lines
            loud = all(part.isupper() or not part.isalpha() for part in title)
            alone = loud and begins and terms.isdisjoint(range(first, place))
            if attribute or (alone if word == BREAK else begins or loud):
                yield first, attribute
        first = place + 1

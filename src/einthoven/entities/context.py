"""What a note says of a term: denied, uncertain, past, of the family, only imagined. Our own ConText.

After NegEx (Chapman et al., J Biomed Inform 2001) and ConText (Harkema et al., J Biomed Inform 2009): a trigger phrase before
or after a term gives it an attribute, within a reach that ends with the sentence or a terminating phrase; a pseudo-trigger
("no increase") is a phrase that contains a trigger and means nothing. The phrases are data: `context.tsv`.

Decided: "rule out X" and "X cannot be excluded" are uncertain, neither negated nor hypothetical. "X is unlikely" is negated.
"Consistent with X" says X. A denied past ("no history of X") is negated and not historical.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

from einthoven.entities.words import BREAK, Words, fold, folded

ATTRIBUTES: Final = ("negated", "uncertain", "historical", "family", "hypothetical")
BEFORE, AFTER, SECTION, ENDS, NONE = "before", "after", "section", "ends", "none"

_STOPS: Final = frozenset(".!?") | {BREAK}
_ABBREVIATIONS: Final = frozenset(
    "dr mr mrs ms vs st ca bzw evtl mögl moegl unbest approx pat e.g i.e incl resp intraventr neg pos ev art".split()
)
_JOINS: Final = frozenset(map(fold, (",", "/", "&", "or", "and", "oder", "und", "eller", "och", "nor", "-", "with")))
_REPORTS: Final = frozenset(
    map(
        fold,
        "reports states says said noticed notes denies denied stated reported feels felt believes thinks brought strongly "
        "agreed desired called describes described gives gave took and/or concerned worried present is/are".split(),
    )
)
_COMPANY: Final = frozenset("with by per to told asked informed".split())
_ARTICLES: Final = frozenset("the her his a an their my your patient's patient".split()) | {fold("patient's")}
_SUBJECTS: Final = frozenset("he she patient pt i we".split())
_ONSET: Final = frozenset("start started began begin begun beginning onset since worsened".split())
_HEADING_WORDS: Final = 6
_IN_SOMEONE: Final = 3


class Flags(NamedTuple):
    """The attributes of a mention, named as the columns of ENTITIES."""

    negated: bool = False
    uncertain: bool = False
    historical: bool = False
    family: bool = False
    hypothetical: bool = False


@dataclass(frozen=True, slots=True)
class Trigger:
    """One line of the table for one phrase. `reach`: words between it and the term; None: as far as the sentence goes."""

    attribute: str  # one of ATTRIBUTES; "" where the direction is ENDS or NONE
    direction: str
    reach: int | None


class Scope(NamedTuple):
    """A phrase of the table in a note: words [start, end), and what it may do."""

    start: int
    end: int
    triggers: tuple[Trigger, ...]


@cache
def triggers() -> dict[str, tuple[Trigger, ...]]:
    """The table by phrase. A phrase may stand in several lines, e.g. before and after a term."""
    table: dict[tuple[str, ...], tuple[str, list[Trigger]]] = {}
    text = (files("einthoven.entities") / "context.tsv").read_text(encoding="utf-8")
    for line in text.splitlines()[1:]:
        attribute, direction, reach, _, phrases = line.split("\t")
        if direction != SECTION:
            for phrase in phrases.split("|"):
                entry = table.setdefault(folded(phrase), (phrase, []))
                entry[1].append(Trigger(attribute, direction, int(reach) if reach else None))
    return {phrase: tuple(found) for phrase, found in table.values()}


@cache
def sections() -> dict[tuple[str, ...], str]:
    """The attribute that a section's heading, in folded words, gives to all that stands below it."""
    text = (files("einthoven.entities") / "context.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines()[1:])
    return {folded(phrase): row[0] for row in rows if row[1] == SECTION for phrase in row[4].split("|")}


def annotate(words: Words, mentions: Sequence[tuple[int, int]], scopes: Sequence[Scope]) -> list[Flags]:
    """The attributes of each mention. Mentions and scopes are words [start, end), by place, and do not overlap."""
    sentence = _sentences(words)
    found: list[set[str]] = [set() for _ in mentions]
    for index, scope in enumerate(scopes):
        forward = False
        for trigger in sorted(scope.triggers, key=lambda one: one.direction == AFTER):
            if trigger.direction == BEFORE:
                reached = _after_trigger(words, mentions, scopes, index, trigger, sentence)
                forward = forward or bool(reached)
            elif trigger.direction == AFTER and not forward:
                reached = _before_trigger(words, mentions, scopes, index, trigger, sentence)
            else:
                continue
            for number in reached:
                found[number].add(trigger.attribute)
    for number, attribute in _in_sections(words, mentions):
        found[number].add(attribute)
    return [_flags(one) for one in found]


def _flags(found: set[str]) -> Flags:
    if "negated" in found:
        found.discard("historical")
    return Flags(*(attribute in found for attribute in ATTRIBUTES))


def _sentences(words: Words) -> list[int]:
    """The number of the sentence of each word."""
    numbers: list[int] = []
    number, last = 0, len(words.words) - 1
    for place, word in enumerate(words.words):
        numbers.append(number)
        if word in _STOPS and (place == last or _ends(words, place)):
            number += 1
    return numbers


def _ends(words: Words, place: int) -> bool:
    """Whether a stop ends its sentence: not that of "v. a.", "Dr." or "?PE"."""
    word = words.words[place]
    if word == "." and place:
        before = words.words[place - 1]
        touches = words.ends[place - 1] == words.starts[place]
        return not (touches and ((len(before) == 1 and before.isalpha()) or before.casefold() in _ABBREVIATIONS))
    return word != "?" or words.starts[place + 1] > words.ends[place]


def _after_trigger(
    words: Words, mentions: Sequence[tuple[int, int]], scopes: Sequence[Scope], index: int, trigger: Trigger,
    sentence: list[int],
) -> list[int]:  # fmt: skip
    """The mentions that a trigger standing before them reaches."""
    scope = scopes[index]
    family = trigger.attribute == "family"
    if family and _only_present(words, scope):
        return []
    stop = _stop_after(words, scopes, index, trigger, sentence)
    ahead = [n for n, (start, end) in enumerate(mentions) if start >= scope.end and end <= stop]
    if family:
        return [*_in_someone(words, mentions, scope, sentence), *ahead]
    if trigger.reach is None or not ahead:
        return ahead
    if mentions[ahead[0]][0] - scope.end > trigger.reach:
        return []
    return _chain(words, mentions, ahead)


def _before_trigger(
    words: Words, mentions: Sequence[tuple[int, int]], scopes: Sequence[Scope], index: int, trigger: Trigger,
    sentence: list[int],
) -> list[int]:  # fmt: skip
    """The mentions that a trigger standing after them reaches: the nearest, and those joined to it."""
    scope = scopes[index]
    first = max([0] + [one.end for one in scopes[:index] if _terminates(one)])
    behind = [
        n
        for n, (start, end) in enumerate(mentions)
        if first <= start and end <= scope.start and sentence[start] == sentence[scope.start]
    ]
    if not behind:
        return []
    between = [fold(word) for word in words.words[mentions[behind[-1]][1] : scope.start]]
    if trigger.reach is not None and len(between) > trigger.reach + (trigger.attribute == "historical"):
        return []
    if trigger.attribute == "historical" and _ONSET.intersection(between):
        return []
    return _chain(words, mentions, behind[::-1])


def _terminates(scope: Scope) -> bool:
    return any(trigger.direction == ENDS for trigger in scope.triggers)


def _stop_after(words: Words, scopes: Sequence[Scope], index: int, trigger: Trigger, sentence: list[int]) -> int:
    """The word at which the reach of a trigger standing before ends: a sentence, a terminator, another statement."""
    scope = scopes[index]
    for later in scopes[index + 1 :]:
        if sentence[later.start] != sentence[scope.start]:
            break
        other = all(one.attribute != trigger.attribute for one in later.triggers if one.direction == BEFORE)
        leads = any(one.direction == BEFORE for one in later.triggers)
        if _terminates(later) or (leads and other and words.words[later.start - 1] == ","):
            return later.start
    place = scope.end
    while place < len(words.words) and sentence[place] == sentence[scope.start]:
        if trigger.attribute == "family" and _changes_subject(words, place):
            return place
        place += 1
    return place


def _changes_subject(words: Words, place: int) -> bool:
    """", and he states": what follows is not of the family."""
    words_before = words.words[max(0, place - 2) : place]
    return fold(words.words[place]) in _SUBJECTS and any(w in (",", "and", "but", "that") for w in words_before)


def _chain(words: Words, mentions: Sequence[tuple[int, int]], order: Sequence[int]) -> list[int]:
    """The first of the mentions in `order`, and those joined to it by commas and conjunctions, up to one word apart."""
    reached = [order[0]]
    for number in order[1:]:
        left, right = sorted((mentions[reached[-1]], mentions[number]))
        between = [fold(word) for word in words.words[left[1] : right[0]]]
        if not any(word in _JOINS for word in between) or sum(word not in _JOINS for word in between) > 1:
            break
        reached.append(number)
    return reached


def _only_present(words: Words, scope: Scope) -> bool:
    """Whether a relative only reports, accompanies or is spoken to: "mother states", "lives with his father"."""
    following = [fold(word) for word in words.words[scope.end : scope.end + 2]]
    if any(word in _REPORTS for word in following):
        return True
    place = scope.start - 1
    while place >= 0 and fold(words.words[place]) in _ARTICLES:
        place -= 1
    return place >= 0 and fold(words.words[place]) in _COMPANY


def _in_someone(
    words: Words, mentions: Sequence[tuple[int, int]], scope: Scope, sentence: list[int]
) -> list[int]:
    """"Diabetes in his father": the mentions before a relative that "in" leads to."""
    before = [fold(word) for word in words.words[max(0, scope.start - _IN_SOMEONE) : scope.start]]
    if "in" not in before:
        return []
    preposition = scope.start - len(before) + before.index("in")
    behind = [n for n, (_, end) in enumerate(mentions) if end <= preposition and sentence[end - 1] == sentence[scope.start]]
    if not behind or preposition - mentions[behind[-1]][1] > _IN_SOMEONE:
        return []
    return _chain(words, mentions, behind[::-1])


def _in_sections(words: Words, mentions: Sequence[tuple[int, int]]) -> Iterator[tuple[int, str]]:
    headings = list(_headings(words))
    if not any(attribute for _, attribute in headings):
        return
    for number, (start, _) in enumerate(mentions):
        attribute = next((what for place, what in reversed(headings) if place <= start), "")
        if attribute:
            yield number, attribute


def _headings(words: Words) -> Iterator[tuple[int, str]]:
    """Where sections begin, and the attribute of each ("" for most)."""
    first = 0
    for place, word in enumerate(words.words):
        if word not in _STOPS and word != ":":
            continue
        title = words.words[first:place]
        if word in (":", BREAK) and 0 < len(title) <= _HEADING_WORDS:
            attribute = sections().get(tuple(map(fold, title)), "")
            loud = all(part.isupper() or not part.isalpha() for part in title)
            if loud or (word == ":" and first in words.lines) or attribute:
                yield place, attribute
        first = place + 1

"""The phrases that give a term its context, and the short word lists that go with them: the data are `context.tsv`.

Its columns: attribute (one of ATTRIBUTES), direction, reach (words between phrase and term; empty: as far as the
sentence goes), language, phrases (`|` between them). Directions:

- before, after: the phrase stands before or after the term that it gives the attribute.
- ends: a terminating phrase; with attributes, separated by commas, it only ends those.
- none: a pseudo-trigger, which contains a trigger and means nothing ("no increase").
- section: a heading; all below it, up to the next heading, has the attribute.
- any other: a word list of that name, e.g. joins (between the terms of an enumeration), reporting ("mother states").
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from einthoven.entities.words import fold, folded

ATTRIBUTES: Final = ("negated", "uncertain", "historical", "family", "hypothetical")
BEFORE, AFTER, ENDS, NONE, SECTION = "before", "after", "ends", "none", "section"


@dataclass(frozen=True, slots=True)
class Trigger:
    """What a phrase does where it stands."""

    attribute: str
    direction: str  # BEFORE, AFTER, ENDS or NONE
    reach: int | None  # words between it and the term; None: as far as the sentence goes

    def ends(self, attribute: str) -> bool:
        """Whether it ends the scope of a trigger of that attribute."""
        return self.direction == ENDS and (not self.attribute or attribute in self.attribute.split(","))


def _rows() -> list[list[str]]:
    text = (files("einthoven.entities") / "context.tsv").read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines()[1:]]


@cache
def triggers() -> dict[str, tuple[Trigger, ...]]:
    """The triggers of each phrase, those that stand before terms first. A phrase may have several."""
    table: dict[tuple[str, ...], tuple[str, list[Trigger]]] = {}
    for attribute, direction, reach, _, phrases in _rows():
        if direction not in (BEFORE, AFTER, ENDS, NONE):
            continue
        for phrase in phrases.split("|"):
            entry = table.setdefault(folded(phrase), (phrase, []))
            entry[1].append(Trigger(attribute, direction, int(reach) if reach else None))
    return {phrase: tuple(sorted(found, key=lambda one: one.direction != BEFORE)) for phrase, found in table.values()}


@cache
def sections() -> dict[tuple[str, ...], str]:
    """The attribute that a section's heading, in folded words, gives to all that stands below it."""
    return {folded(phrase): row[0] for row in _rows() if row[1] == SECTION for phrase in row[4].split("|")}


@cache
def words_of(name: str) -> frozenset[str]:
    """The folded words of a list of the table."""
    (row,) = (row for row in _rows() if row[1] == name)
    return frozenset(map(fold, row[4].split("|")))

"""What narrows a search on the page: what was chosen, as a filter, and what could be, with counts among the nearest."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from einthoven.search.archive import Hit
from einthoven.search.filters import Clause, Filter

LISTED: Final = ("finding", "sex", "split", "quality", "device")
"""Facets of which several values may be chosen: any of them."""
NAMES: Final = {
    "finding": "Finding",
    "sex": "Sex",
    "split": "Split",
    "quality": "Quality flag",
    "device": "Device",
    "outlier": "Out of distribution",
}
SHOWN: Final = 8
MOST: Final = 32
"""Values of a facet that are taken."""


@dataclass(frozen=True)
class Choice:
    """What somebody chose, bounded, and no more than the filter's fields can take."""

    values: tuple[tuple[str, tuple[str, ...]], ...] = ()  # of `LISTED`: any of these
    outlier: bool | None = None
    youngest: float | None = None  # years
    oldest: float | None = None
    by_patient: bool = True
    small: bool = False  # strips at half of their size

    @classmethod
    def of(cls, form: Mapping[str, Sequence[str]]) -> "Choice":
        """From a form's fields; what cannot be read is not chosen."""
        values = []
        for name in LISTED:
            given = tuple(dict.fromkeys(value[:256] for value in form.get(name, ()) if value))[:MOST]
            if given:
                values.append((name, given))
        outlier = {"yes": True, "no": False}.get(next(iter(form.get("outlier", ())), ""))
        years = _years(form, "youngest"), _years(form, "oldest")
        return cls(tuple(values), outlier, *years, by_patient="each" not in form, small="small" in form)

    @property
    def filter(self) -> Filter:
        """As the index understands it."""
        clauses = [Clause(name, "in", chosen) for name, chosen in self.values]
        if self.outlier is not None:
            clauses.append(Clause("outlier", "=", (self.outlier,)))
        if self.youngest is not None:
            clauses.append(Clause("age", ">=", (self.youngest,)))
        if self.oldest is not None:
            clauses.append(Clause("age", "<=", (self.oldest,)))
        return tuple(clauses)

    @property
    def any(self) -> bool:
        """Does it leave out any recording?"""
        return bool(self.filter)

    def chosen(self, name: str) -> tuple[str, ...]:
        return dict(self.values).get(name, ())


@dataclass(frozen=True)
class Option:
    """A value of a facet."""

    value: str
    label: str
    count: int  # among the nearest
    chosen: bool


@dataclass(frozen=True)
class Facet:
    """One thing that recordings differ in."""

    name: str
    label: str
    options: tuple[Option, ...]


def facets(hits: Sequence[Hit], choice: Choice) -> list[Facet]:
    """Facets of the nearest recordings; one that all agree in is left out, unless it was chosen."""
    labels = {code: said for hit in hits for code, said in zip(hit.codes, hit.findings, strict=True)}
    of: dict[str, Iterable[str | None]] = {
        "finding": [code for hit in hits for code in set(hit.codes)],
        "sex": [hit.sex for hit in hits],
        "split": [hit.split for hit in hits],
        "quality": [flag for hit in hits for flag in set(hit.quality)],
        "device": [hit.device for hit in hits],
    }
    found = [_facet(name, values, choice.chosen(name), labels, len(hits)) for name, values in of.items()]
    flags = [hit.outlier for hit in hits if hit.outlier is not None]
    if flags or choice.outlier is not None:
        options = [
            Option(value, value, flags.count(flag), choice.outlier is flag)
            for value, flag in (("no", False), ("yes", True))
        ]
        found.append(Facet("outlier", NAMES["outlier"], tuple(options)))
    return [facet for facet in found if facet is not None]


def _facet(
    name: str, values: Iterable[str | None], chosen: Sequence[str], labels: Mapping[str, str], everyone: int
) -> Facet | None:
    counts = Counter(value for value in values if value)
    shown = [*chosen, *(value for value, _ in sorted(counts.items(), key=_often) if value not in chosen)][:SHOWN]
    telling = [value for value in shown if counts[value] < everyone]
    if not chosen and not telling:
        return None
    options = (Option(value, labels.get(value, value), counts[value], value in chosen) for value in shown)
    return Facet(name, NAMES[name], tuple(options))


def _often(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _years(form: Mapping[str, Sequence[str]], name: str) -> float | None:
    try:
        years = float(next(iter(form.get(name, ())), ""))
    except ValueError:
        return None
    return years if 0 <= years <= 150 else None


def patients(hits: Iterable[Hit]) -> list[list[Hit]]:
    """Hits of one patient together, in the order of each patient's best."""
    grouped: dict[int, list[Hit]] = {}
    for hit in hits:
        grouped.setdefault(hit.subject_id, []).append(hit)
    return list(grouped.values())

"""The distributions on a data card, as counts in bins; small counts are hidden."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from einthoven.checking.tables import Tables
from einthoven.checking.windows import pairing
from einthoven.disclosure import SMALL_CELL, Cell, hide, part_of

CODE_BINS: Final = (0, 1, 2, 3, 5, 10, 20, 50, 100, 200)
"""The lowest number of codes in each bin."""
DAY_BINS: Final = 40
MOST: Final = 10
"""Recordings of a patient from which on patients share a bin."""
OLDEST: Final = 9
"""The decade of age from which on patients share a bin: ages above 89 are not told."""


@dataclass(frozen=True)
class Histogram:
    """Counts of `unit` in bins: for each series as many as `bins` has labels."""

    title: str
    label: str  # of the bins
    unit: str
    bins: list[str]
    series: dict[str, list[Cell]]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def histograms(tables: Tables) -> list[Histogram]:
    """Those that the tables there allow."""
    found = []
    if "recordings" in tables.there:
        found += [_recordings_per_patient(tables), _ages(tables)]
    if "pairs" in tables.there:
        found += [_codes_per_pair(tables)]
        if tables.manifests.get("pair"):
            found += [_days(tables)]
    return found


def _filled(rows: Sequence[tuple[Any, ...]], bins: int) -> list[int]:
    """(bin, count) rows as a list of counts."""
    counts = [0] * bins
    for place, count in rows:
        counts[int(place)] += int(count)
    return counts


def _recordings_per_patient(tables: Tables) -> Histogram:
    """Bins from the first small one on are one: two sums of them are told, of patients and of their recordings."""
    patients = "(SELECT count(*) AS n FROM recordings GROUP BY subject_id)"
    rows = tables.ask(f"SELECT least(n, {MOST}) - 1, count(*), sum(n) FROM {patients} GROUP BY 1")
    counts = _filled([row[:2] for row in rows], MOST)
    bins = [*map(str, range(1, MOST)), f"{MOST}+"]
    last = next((place for place, count in enumerate(counts) if 0 < count < SMALL_CELL), MOST - 1)
    while last and 0 < sum(counts[last:]) < SMALL_CELL:
        last -= 1
    counts, bins = [*counts[:last], sum(counts[last:])], [*bins[:last], f"{last + 1}+"]
    recordings = sum(row[2] for row in rows)
    cells = [part_of([count], [recordings])[0] for count in counts]
    return Histogram("Recordings per patient", "recordings", "patients", bins, {"patients": cells})


def _ages(tables: Tables) -> Histogram:
    """Patients by their age at their first recording; what is not stated has a bin and a series of its own."""
    first = "min(age) FILTER (isfinite(age)) AS age, min(sex) AS sex, count(*) AS recordings"
    rows = tables.ask(
        "SELECT coalesce(sex, 'not stated'), coalesce(greatest(least(floor(age / 10), $1), 0), $1 + 1), count(*), "
        f"sum(recordings) FROM (SELECT {first} FROM recordings GROUP BY subject_id) GROUP BY 1, 2",
        [OLDEST],
    )
    bins = [*(f"{10 * decade}–{10 * decade + 9}" for decade in range(OLDEST)), f"{10 * OLDEST}+", "unknown"]
    found = {
        sex: _filled([row[1:3] for row in rows if row[0] == sex], len(bins))
        for sex in ("female", "male", "not stated")
        if any(row[0] == sex for row in rows)
    }
    again = sum(row[3] - row[2] for row in rows)  # recordings after the first: with all patients these are all told
    cells = hide([again, *(count for counts in found.values() for count in counts)])[1:]
    series = {sex: cells[len(bins) * place : len(bins) * (place + 1)] for place, sex in enumerate(found)}
    return Histogram("Age at the first recording, by sex", "years", "patients", bins, series)


def _codes_per_pair(tables: Tables) -> Histogram:
    above = " + ".join(f"(len(codes) >= {lowest})::INT" for lowest in CODE_BINS[1:])
    rows = tables.ask(f"SELECT {above}, count(*) FROM pairs WHERE codes IS NOT NULL GROUP BY 1")
    ends = [end - 1 for end in CODE_BINS[1:]]
    bins = [f"{low}" if low == end else f"{low}–{end}" for low, end in zip(CODE_BINS, ends, strict=False)]
    bins.append(f"{CODE_BINS[-1]}+")
    return Histogram("Codes per pair", "codes", "pairs", bins, {"pairs": hide(_filled(rows, len(bins)))})


def _days(tables: Tables) -> Histogram:
    """The shape of the window: how many days from the recording the codes are, by kind; a bin begins at its label."""
    config = pairing(tables)
    low, high = -config.codes_before, max(config.codes_after, 1.0)
    edges = np.linspace(low, high, DAY_BINS + 1)
    rows = tables.ask(
        "SELECT kind, greatest(least(floor((day - $1) / $2), $3), 0), count(*) FROM "
        "(SELECT unnest(code_kinds) AS kind, unnest(code_days) AS day FROM pairs) WHERE isfinite(day) GROUP BY 1, 2",
        [low, (high - low) / DAY_BINS, DAY_BINS - 1],
    )
    kinds = [kind for kind in config.code_kinds if any(row[0] == kind for row in rows)]
    series = {kind: hide(_filled([row[1:] for row in rows if row[0] == kind], DAY_BINS)) for kind in kinds}
    bins = [f"{edge:g}" for edge in np.round(edges[:-1], 2)]
    return Histogram("Days from the ECG of the codes", "days", "codes", bins, series)

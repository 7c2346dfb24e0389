"""Retrieval between ECGs and texts: does the right text find the ECG, and the ECG its text?

Many recordings share one report ("sinusrhythmus normales ekg"), so relevance is by group: every item whose text equals
the query's is relevant. A query's rank is that of its best relevant item; its average precision is the mean, over all
its relevant items, of the share of relevant ones among the items down to each. mAP is the mean of that over queries.

Both directions are measured three times:

- `ecg_to_text`: each ECG is a query. Gallery `distinct` holds each distinct text once (the headline: it cannot be
  inflated by frequent reports); gallery `all` holds one text per recording.
- `text_to_ecg`: the gallery is every ECG. In `distinct` each distinct text is one query; in `all` each recording's text
  is a query, so that a frequent text counts as often as it occurs.
- `findings`, both ways: as `all`, but relevant is what has the same findings, however they are worded. Recordings
  without a known finding are neither query nor item.

Intervals resample patients. A distinct text has several patients: in a resample it weighs as the mean multiplicity of
the recordings that carry it. With every multiplicity 1 that is the plain mean over distinct texts. The gallery is not
resampled: the interval is about queries, against this gallery.

Memory: beside the vectors themselves, the similarities of as many queries with the whole gallery as `CELLS` holds.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from einthoven.errors import EinthovenError
from einthoven.evaluation.intervals import Floats, Integers, Statistics, bootstrap, weighted_mean, weighted_median

RECALLS = (1, 5, 10)

TIE = 1e-6
"""Cosines closer than this are equal: what float32 can tell, so that a collapsed model cannot rank by rounding."""

CELLS = 1 << 26
"""Similarities held at once: 256 MB. Of 800,000 items 83 queries: with fewer, reading the gallery costs the time."""

FEW = 16
"""Relevant items up to which it is faster to count what lies above each than to sort all items."""


class Ranked(NamedTuple):
    """What each of n queries found."""

    best: Integers  # int64 [n]: rank, from 1, of the most similar relevant item
    precision: Floats  # float64 [n]: average precision over all relevant items

    def take(self, places: Integers) -> "Ranked":
        return Ranked(self.best[places], self.precision[places])


def ranked(queries: Floats, gallery: Floats, query_groups: Integers, gallery_groups: Integers) -> Ranked:
    """Rank all of a gallery for each query.

    queries [n, d] and gallery [m, d] are compared by cosine; an item is relevant if its group [m] is the query's [n].
    Unrelated items with an equal score rank before (ties are counted against the model). For the best rank, other
    relevant items do not count. A query without a relevant item is an error.
    """
    order = np.argsort(gallery_groups, kind="stable")
    starts, stops = (np.searchsorted(gallery_groups[order], query_groups, side) for side in ("left", "right"))
    lost = np.unique(query_groups[starts == stops])
    if len(lost):
        raise EinthovenError(f"{len(lost)} query groups have no relevant item in the gallery, the first is {lost[0]}.")
    queries, gallery = unit(queries), unit(gallery)
    best, precision = np.empty(len(queries), np.int64), np.empty(len(queries))
    step = max(1, CELLS // max(1, len(gallery)))
    block = np.empty((min(step, len(queries)), len(gallery)), np.float32)
    for start in range(0, len(queries), step):
        part = queries[start : start + step]
        similarity = np.matmul(part, gallery.T, out=block[: len(part)])
        for query, row in enumerate(similarity, start):
            best[query], precision[query] = _ranked_row(row, order[starts[query] : stops[query]])
    return Ranked(best, precision)


def _ranked_row(similarity: Floats, relevant: Integers) -> tuple[int, float]:
    """Best rank and average precision of one query: similarity [m], places of the relevant items."""
    ascending = np.sort(similarity[relevant])
    floors = ascending[::-1] - np.float32(TIE)
    if len(relevant) <= FEW:
        reached = np.array([np.count_nonzero(similarity >= floor) for floor in floors])
    else:
        reached = len(similarity) - np.searchsorted(np.sort(similarity), floors)
    before = reached - (len(relevant) - np.searchsorted(ascending, floors))  # unrelated items, for each relevant one
    place = np.arange(1, len(relevant) + 1)
    return 1 + int(before[0]), float(np.mean(place / (place + before)))


def best_ranks(queries: Floats, gallery: Floats, query_groups: Integers, gallery_groups: Integers) -> Integers:
    """Rank, from 1, of the most similar relevant item of each query: int64 [n]. Arguments as `ranked` has them."""
    return ranked(queries, gallery, query_groups, gallery_groups).best


def unit(vectors: Floats) -> Floats:
    """Rows [n, d] scaled to length 1, float32; a row of zeros stays. Refuses values that are not finite."""
    vectors = np.asarray(vectors, np.float32)
    if not np.isfinite(vectors).all():
        raise EinthovenError("Embeddings hold NaN or infinite values: the model that made them has diverged.")
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def retrieval(
    ecg: Floats,
    text: Floats,
    groups: Integers,
    subjects: Integers,
    *,
    findings: Integers | None = None,
    found: Mapping[str, Mapping[str, Ranked]] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Recall@1/5/10, median rank and mAP, both ways, with 95 % patient-bootstrap intervals.

    Row i of `ecg` and `text` [n, d] is recording i and its own text; equal `groups` [n] are equal texts; `subjects` [n]
    are patients; equal `findings` [n] are equal sets of findings, below 0: none is known; `found` is what `all_ranked`
    returned for the same, if that was called before. Returns {"ecg_to_text" |
    "text_to_ecg": {"distinct" | "all" | "findings": {"recall@1", "recall@5", "recall@10", "median_rank", "map":
    {"value", "low", "high"}, "queries": int, "gallery": int}}}; "findings" is left out where fewer than two recordings
    have any.
    """
    if len(groups) == 0:
        raise EinthovenError("There is no recording with a text to evaluate retrieval on.")
    everyone = np.arange(len(groups))
    _, text_of = np.unique(groups, return_inverse=True)
    by_text = {("text_to_ecg", "distinct"): text_of}  # which query each recording belongs to
    fewer = {("ecg_to_text", "distinct"): int(text_of.max()) + 1}  # items in the gallery
    result: dict[str, Any] = {
        direction: {
            name: {
                **_summary(one, by_text.get((direction, name), everyone), subjects, resamples, seed),
                "queries": len(one.best),
                "gallery": fewer.get((direction, name), len(groups)),
            }
            for name, one in named.items()
        }
        for direction, named in (found or all_ranked(ecg, text, groups)).items()
    }
    known = np.zeros(0, np.int64) if findings is None else np.flatnonzero(findings >= 0)
    if findings is None or len(known) < 2:
        return result
    size = {"queries": len(known), "gallery": len(known)}
    for direction, one in _by_findings(ecg[known], text[known], groups[known], findings[known]).items():
        summary = _summary(one, np.arange(len(known)), subjects[known], resamples, seed)
        result[direction]["findings"] = {**summary, **size}
    return result


def all_ranked(ecg: Floats, text: Floats, groups: Integers) -> dict[str, dict[str, Ranked]]:
    """What lies behind `retrieval`, by direction and gallery; arguments as there.

    `text_to_ecg/distinct` has one row per distinct text, in order of group; the others one per recording.
    """
    if not len(ecg) == len(text) == len(groups):
        raise EinthovenError(f"{len(ecg)} ECGs, {len(text)} texts and {len(groups)} groups: one each per recording.")
    distinct, first, text_of = np.unique(groups, return_index=True, return_inverse=True)
    found = ranked(text[first], ecg, distinct, groups)
    return {
        "ecg_to_text": {
            "distinct": ranked(ecg, text[first], groups, distinct),
            "all": ranked(ecg, text, groups, groups),
        },
        "text_to_ecg": {"distinct": found, "all": found.take(text_of)},
    }


def _by_findings(ecg: Floats, text: Floats, groups: Integers, findings: Integers) -> dict[str, Ranked]:
    """Both directions where equal findings are relevant; one row per recording."""
    alike = np.stack([groups, findings], axis=1)  # one text of one set of findings is one query
    _, first, query_of = np.unique(alike, axis=0, return_index=True, return_inverse=True)
    return {
        "ecg_to_text": ranked(ecg, text, findings, findings),
        "text_to_ecg": ranked(text[first], ecg, findings[first], findings).take(query_of),
    }


def _summary(
    found: Ranked, query_of: Integers, subjects: Integers, resamples: int, seed: int
) -> dict[str, dict[str, float]]:
    return bootstrap(subjects, rank_statistics(found.best, query_of, found.precision), resamples, seed)


def rank_statistics(ranks: Integers, query_of: Integers, precision: Floats | None = None) -> Statistics:
    """Recalls, median rank and, of average precisions, mAP: ranks and precision [queries], and the query that each
    recording belongs to [recordings]."""
    order = np.argsort(query_of, kind="stable")
    starts = np.flatnonzero(np.diff(query_of[order], prepend=-1))
    size = np.diff(np.append(starts, len(order)))

    def of_queries(w: Floats) -> Floats:  # [r, recordings] -> [r, queries]: the mean over a query's recordings
        if len(size) == len(order):
            return w[:, order] if (np.diff(order) != 1).any() else w
        return np.asarray(np.add.reduceat(w.T[order], starts, axis=0) / size[:, None]).T

    def statistics(w: Floats) -> dict[str, Floats]:
        of_query = of_queries(w)
        found = {f"recall@{k}": weighted_mean((ranks <= k).astype(np.float64), of_query) for k in RECALLS}
        found["median_rank"] = weighted_median(ranks.astype(np.float64), of_query)
        return found if precision is None else {**found, "map": weighted_mean(precision, of_query)}

    return statistics

"""Retrieval between ECGs and texts: does the right text find the ECG, and the ECG its text?

Many recordings share one report ("sinusrhythmus normales ekg"), so relevance is by group: every item whose text equals
the query's is relevant, and a query's rank is that of its best relevant item.

Both directions are measured twice:

- `ecg_to_text`: each ECG is a query. Gallery `distinct` holds each distinct text once (the headline: it cannot be
  inflated by frequent reports); gallery `all` holds one text per recording.
- `text_to_ecg`: the gallery is every ECG. In `distinct` each distinct text is one query; in `all` each recording's text
  is a query, so that a frequent text counts as often as it occurs.

Intervals resample patients. A distinct text has several patients: in a resample it weighs as the mean multiplicity of
the recordings that carry it. With every multiplicity 1 that is the plain mean over distinct texts. The gallery is not
resampled: the interval is about queries, against this gallery.
"""

from typing import Any

import numpy as np

from einthoven.errors import EinthovenError
from einthoven.evaluation.intervals import Floats, Integers, Statistics, bootstrap, weighted_mean, weighted_median

RECALLS = (1, 5, 10)

TIE = 1e-6
"""Cosines closer than this are equal: what float32 can tell, so that a collapsed model cannot rank by rounding."""

CELLS = 1 << 23
"""Similarities held at once."""


def best_ranks(queries: Floats, gallery: Floats, query_groups: Integers, gallery_groups: Integers) -> Integers:
    """Rank, from 1, of the most similar relevant item of each query: int64 [n].

    queries [n, d] and gallery [m, d] are compared by cosine; an item is relevant if its group [m] is the query's [n].
    Unrelated items with an equal score rank before (ties are counted against the model). Other relevant items do not
    count. A query without a relevant item is an error.
    """
    lost = np.setdiff1d(query_groups, gallery_groups)
    if len(lost):
        raise EinthovenError(f"{len(lost)} query groups have no relevant item in the gallery, the first is {lost[0]}.")
    queries, gallery = unit(queries), unit(gallery)
    ranks = np.empty(len(queries), np.int64)
    step = max(1, CELLS // len(gallery)) if len(gallery) else 1
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        similarity = queries[rows] @ gallery.T
        relevant = query_groups[rows, None] == gallery_groups[None, :]
        best = np.where(relevant, similarity, -np.inf).max(axis=1, keepdims=True)
        ranks[rows] = 1 + np.count_nonzero((similarity >= best - TIE) & ~relevant, axis=1)
    return ranks


def unit(vectors: Floats) -> Floats:
    """Rows [n, d] scaled to length 1, float32; a row of zeros stays. Refuses values that are not finite."""
    vectors = np.asarray(vectors, np.float32)
    if not np.isfinite(vectors).all():
        raise EinthovenError("Embeddings hold NaN or infinite values: the model that made them has diverged.")
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def retrieval(
    ecg: Floats, text: Floats, groups: Integers, subjects: Integers, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Recall@1/5/10 and median rank, both ways, with 95 % patient-bootstrap intervals.

    Row i of `ecg` and `text` [n, d] is recording i and its own text; equal `groups` [n] are equal texts; `subjects` [n]
    are patients. Returns {"ecg_to_text" | "text_to_ecg": {"distinct" | "all": {"recall@1", "recall@5", "recall@10",
    "median_rank": {"value", "low", "high"}, "queries": int, "gallery": int}}}.
    """
    if len(groups) == 0:
        raise EinthovenError("There is no recording with a text to evaluate retrieval on.")
    everyone = np.arange(len(groups))
    _, text_of = np.unique(groups, return_inverse=True)
    by_text = {("text_to_ecg", "distinct"): text_of}  # which query each recording belongs to
    fewer = {("ecg_to_text", "distinct"): int(text_of.max()) + 1}  # items in the gallery
    return {
        direction: {
            name: {
                **_summary(ranks, by_text.get((direction, name), everyone), subjects, resamples, seed),
                "queries": len(ranks),
                "gallery": fewer.get((direction, name), len(groups)),
            }
            for name, ranks in named.items()
        }
        for direction, named in all_ranks(ecg, text, groups).items()
    }


def all_ranks(ecg: Floats, text: Floats, groups: Integers) -> dict[str, dict[str, Integers]]:
    """The ranks behind `retrieval`, by direction and gallery; arguments as there. The report draws them.

    `text_to_ecg/distinct` has one rank per distinct text, in order of group; the others one per recording.
    """
    if not len(ecg) == len(text) == len(groups):
        raise EinthovenError(f"{len(ecg)} ECGs, {len(text)} texts and {len(groups)} groups: one each per recording.")
    distinct, first, text_of = np.unique(groups, return_index=True, return_inverse=True)
    found = best_ranks(text[first], ecg, distinct, groups)
    return {
        "ecg_to_text": {
            "distinct": best_ranks(ecg, text[first], groups, distinct),
            "all": best_ranks(ecg, text, groups, groups),
        },
        "text_to_ecg": {"distinct": found, "all": found[text_of]},
    }


def _summary(
    ranks: Integers, query_of: Integers, subjects: Integers, resamples: int, seed: int
) -> dict[str, dict[str, float]]:
    return bootstrap(subjects, rank_statistics(ranks, query_of), resamples, seed)


def rank_statistics(ranks: Integers, query_of: Integers) -> Statistics:
    """Recalls and median rank: ranks [queries], and the query that each recording belongs to [recordings]."""
    order = np.argsort(query_of, kind="stable")
    starts = np.flatnonzero(np.diff(query_of[order], prepend=-1))
    size = np.diff(np.append(starts, len(order)))

    def of_queries(w: Floats) -> Floats:  # [r, recordings] -> [r, queries]: the mean over a query's recordings
        return np.asarray(np.add.reduceat(w[:, order], starts, axis=1) / size)

    def statistics(w: Floats) -> dict[str, Floats]:
        of_query = of_queries(w)
        found = {f"recall@{k}": weighted_mean((ranks <= k).astype(np.float64), of_query) for k in RECALLS}
        return {**found, "median_rank": weighted_median(ranks.astype(np.float64), of_query)}

    return statistics

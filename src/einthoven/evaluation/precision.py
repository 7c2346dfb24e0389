"""Precision at k of queries for one finding: of the first k ECGs found for "bundle branch block", how many have one?

This is what someone sees who searches an archive. A finding may have several queries (prompts in two languages): its
precision is the mean over them. A finding that fewer than `LEAST` recordings have is left out, and so is one that all
have. Chance is the finding's prevalence, which stands beside it.

The queries are fixed here and the gallery is a sample of patients, so intervals resample the gallery: a recording drawn
twice takes two of the k places.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import EinthovenError
from einthoven.evaluation.intervals import Floats, Integers, bootstrap
from einthoven.evaluation.retrieval import TIE, unit

K: Final = 10
LEAST: Final = 10
"""Recordings of the split that must have a finding."""

DEPTH: Final = 5
"""A ranking is kept down to so many patients per place of the k, and 50: no resample in 10^15 draws fewer than k."""


def precision_at_k(
    ecg: Floats,
    queries: Mapping[str, Floats],
    positive: NDArray[np.bool_],
    subjects: Integers,
    *,
    k: int = K,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Precision@k of each finding and their mean, with 95 % patient-bootstrap intervals.

    ecg [n, d]; queries finding -> [q, d], in the order of the columns of `positive` bool [n, findings]; subjects [n].
    Returns {"k": int, "mean": {"value", "low", "high"}, "findings": {name: the same, with "positives", "prevalence" and
    "queries"}, "left_out": [names], "recordings": n}. EinthovenError where every finding is left out.
    """
    if positive.shape != (len(ecg), len(queries)):
        raise EinthovenError(f"{len(ecg)} ECGs and {len(queries)} findings do not fit labels {positive.shape}.")
    counts = dict(zip(queries, positive.sum(axis=0).tolist(), strict=True))
    kept = [name for name, count in counts.items() if LEAST <= count < len(ecg)]
    if not kept:
        raise EinthovenError(f"No finding has {LEAST} recordings or more, and others without it: no precision at k.")
    vectors, truth = unit(ecg), dict(zip(queries, positive.T, strict=True))
    tops = {name: [_top(vectors @ query, truth[name], subjects, k) for query in unit(queries[name])] for name in kept}

    def statistics(w: Floats) -> dict[str, Floats]:
        each = {
            name: np.mean([weighted_precision(top, truth[name], w, k) for top in tops[name]], axis=0) for name in kept
        }
        return {"mean": np.mean(list(each.values()), axis=0), **{f"finding {name}": v for name, v in each.items()}}

    intervals = bootstrap(subjects, statistics, resamples, seed)
    mean = intervals.pop("mean")
    return {
        "k": k,
        "mean": mean,
        "findings": {
            name: intervals[f"finding {name}"]
            | {"positives": counts[name], "prevalence": counts[name] / len(ecg), "queries": len(tops[name])}
            for name in kept
        },
        "left_out": [name for name in queries if name not in kept],
        "recordings": len(ecg),
    }


def weighted_precision(ranking: Integers, positive: NDArray[np.bool_], w: Floats, k: int) -> Floats:
    """Precision among the first k of a ranking whose items come as often as `w` says.

    ranking [l]: places of the first items, best first; positive [n]; w [r, n] -> float64 [r]. A sample of fewer than k
    is judged by all of it.
    """
    weight = w[:, ranking].astype(np.float64)
    above = np.cumsum(weight, axis=1) - weight
    taken = np.clip(k - above, 0, weight)
    with np.errstate(invalid="ignore"):
        return np.asarray(taken @ positive[ranking] / np.minimum(k, w.sum(axis=1, dtype=np.float64)))


def _top(scores: Floats, positive: NDArray[np.bool_], subjects: Integers, k: int) -> Integers:
    """Places of the first items, best first, as deep as resamples may need; of equal scores the negatives first."""
    order = np.argsort(TIE * positive - scores.astype(np.float64), kind="stable")
    _, first = np.unique(subjects[order], return_index=True)
    patients = 50 + DEPTH * k
    return order if len(first) <= patients else order[: np.sort(first)[patients - 1] + 1]

"""How well scores tell those with a class from the rest: AUROC and AUPRC, class by class and in the mean.

AUROC is the probability that a positive scores above a negative, a tie counting one half (Mann-Whitney). AUPRC is the
average precision, the mean over positives of the precision at their score, which is what scikit-learn's
`average_precision_score` has; its chance level is the share of positives, not one half.

Of few positives both are mostly noise: one of ten moves the AUROC by a tenth. So a class with fewer than
`LEAST_POSITIVES` is named in "few", and a second mean, "macro_frequent", leaves it out.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import EinthovenError
from einthoven.evaluation.intervals import CELLS, Floats, Integers, Statistics, bootstrap

Bools = NDArray[np.bool_]

LEAST_POSITIVES: Final = 10
"""Below this a class is marked, and left out of the second mean."""

AUROC: Final = "auroc "
AUPRC: Final = "auprc "
"""Before what is said of the class or the mean, in the name of a statistic."""
MACRO: Final = "macro"
MACRO_FREQUENT: Final = "macro_frequent"
CLASS: Final = "class "


def discrimination(
    labels: Bools,
    scores: Floats,
    classes: Sequence[str],
    subjects: Integers,
    resamples: int,
    seed: int,
    known: Bools | None = None,
) -> dict[str, Any]:
    """AUROC and AUPRC of each class against the rest, and their means, with 95 % patient-bootstrap intervals.

    labels, scores [n, classes]; subjects [n]. Returns {"macro": {"value", "low", "high"}, "macro_frequent": the same or
    null, "classes": {name: the same}, "auprc": these three again, "few": names of classes of few positives,
    "left_out": names of those without a positive or without a negative}; outside of "auprc" it is AUROC.

    Where `known` [n, classes] is False a label is unknown: the recording is left out of that class.

    `scores` may be [runs, n, classes]: a measure is then the mean over runs, taken inside each resample. A resample in
    which a class is not defined has no macro value: a mean over fewer classes would be another metric.
    """
    statistics, kept, few = class_statistics(labels, scores, classes, known)
    intervals = bootstrap(subjects, statistics, resamples, seed)

    def measures(of: str) -> dict[str, Any]:
        means = {name: intervals.get(of + name) for name in (MACRO, MACRO_FREQUENT)}
        return {**means, "classes": {name: intervals[of + CLASS + name] for name in kept}}

    left_out = [name for name in classes if name not in kept]
    return {**measures(AUROC), "auprc": measures(AUPRC), "few": list(few), "left_out": left_out}


def class_statistics(
    labels: Bools, scores: Floats, classes: Sequence[str], known: Bools | None = None
) -> tuple[Statistics, tuple[str, ...], tuple[str, ...]]:
    """The statistics of `discrimination`, whose arguments these are; the classes that are measured; the few of them.

    Of AUROC and AUPRC each, by prefix: "macro", "macro_frequent" where any class is left for it, and "class NAME".
    """
    if labels.shape != scores.shape[-2:] or labels.shape[1] != len(classes):
        raise EinthovenError(f"Labels {labels.shape} and scores {scores.shape} do not fit {len(classes)} classes.")
    runs = scores[None] if scores.ndim == 2 else scores
    seen = np.ones(labels.shape, bool) if known is None else known
    positives, negatives = (labels & seen).sum(axis=0), (~labels & seen).sum(axis=0)
    kept = np.flatnonzero((positives > 0) & (negatives > 0)).tolist()
    if not kept:
        raise EinthovenError("No class has both a positive and a negative recording: AUROC is not defined.")
    frequent = [classes[c] for c in kept if positives[c] >= LEAST_POSITIVES]

    def statistics(w: Floats) -> dict[str, Floats]:
        found: dict[str, Floats] = {}
        for c in kept:
            rows = seen[:, c]
            drawn = w if rows.all() else w.T[rows].T
            areas = [weighted_areas(labels[rows, c], run[rows, c], drawn) for run in runs]
            for of, each in zip((AUROC, AUPRC), zip(*areas, strict=True), strict=True):
                found[of + CLASS + classes[c]] = np.mean(each, axis=0)
        for of in (AUROC, AUPRC):
            for mean, names in ((MACRO, [classes[c] for c in kept]), (MACRO_FREQUENT, frequent)):
                if names:
                    found[of + mean] = np.mean([found[of + CLASS + name] for name in names], axis=0)
        return found

    names = tuple(classes[c] for c in kept)
    return statistics, names, tuple(name for name in names if name not in frequent)


def weighted_auroc(labels: Bools, scores: Floats, w: Floats) -> Floats:
    """Area under the ROC curve for each row of weights: labels [n], scores [n], w [r, n] -> float64 [r]."""
    return weighted_areas(labels, scores, w)[0]


def weighted_areas(labels: Bools, scores: Floats, w: Floats) -> tuple[Floats, Floats]:
    """AUROC and AUPRC for each row of weights: labels [n], scores [n], w [r, n] -> float64 [r] each.

    What scikit-learn's `roc_auc_score` and `average_precision_score` give with `sample_weight=w[i]`. NaN where a row
    lacks positives or negatives. Sums of multiplicities are whole, so float32 weights are exact for up to 16 million
    recordings.
    """
    ordered = np.argsort(-scores, kind="stable")
    positive, negative = ordered[labels[ordered]], ordered[~labels[ordered]]
    ours, others = -scores[positive], -scores[negative]
    above, reached = (np.searchsorted(others, ours, side) for side in ("left", "right"))  # negatives, ties apart
    hits = np.searchsorted(ours, ours, "right")  # positives down to each
    tied = bool((above != reached).any())
    areas = np.empty((2, len(w)))
    step = max(1, CELLS // max(1, len(labels)))
    for start in range(0, len(w), step):
        by_recording = w[start : start + step].T
        wins = by_recording[positive]
        taken, lost = (_sums(by_recording[places]) for places in (positive, negative))
        false = lost[reached]
        ahead = (lost[above] + false) / 2 if tied else false
        true = taken[hits]
        seen = true + false
        precision = np.divide(true, seen, out=np.zeros(true.shape), where=seen > 0, dtype=np.float64)
        total, negatives = (sums[-1].astype(np.float64) for sums in (taken, lost))
        part = slice(start, start + step)
        with np.errstate(invalid="ignore", divide="ignore"):
            areas[0, part] = 1 - np.einsum("pr,pr->r", wins, ahead, dtype=np.float64) / (total * negatives)
            areas[1, part] = np.einsum("pr,pr->r", wins, precision, dtype=np.float64) / total
            areas[1, part][negatives == 0] = np.nan
    return areas[0], areas[1]


def _sums(weights: Floats) -> Floats:
    """Sums of the first rows of weights [n, r], of none to all: [n + 1, r]."""
    sums = np.zeros((len(weights) + 1, weights.shape[1]), weights.dtype)
    np.cumsum(weights, axis=0, out=sums[1:])
    return sums

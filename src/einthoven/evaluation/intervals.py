"""Patient bootstrap: what a metric could have been had other patients come.

Patients, not recordings, are drawn with replacement, because recordings of one patient resemble each other. A resample
is a row of multiplicity weights: 0, 1, 2, … for every recording, the same for all recordings of a patient. So a mean is
a matrix product, and AUROC needs one sort for all resamples.

A statistic that a resample does not define (AUROC where no positive was drawn) is NaN there: `interval` ignores it and
says how many it ignored.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import EinthovenError

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]
Statistics = Callable[[Floats], dict[str, Floats]]
"""Weights [resamples, n] -> by name, the value of each resample [resamples]; NaN where it is not defined."""

CELLS = 1 << 22
"""Weights held at once where a computation goes in chunks: 32 MB in float64."""


def weights(subjects: Integers, resamples: int, seed: int) -> Floats:
    """Multiplicities float32 [resamples, n] of n recordings whose patients are `subjects` [n]."""
    chunks = list(_draws(subjects, resamples, seed))
    return np.concatenate(chunks) if chunks else np.zeros((0, len(subjects)), np.float32)


def _draws(subjects: Integers, resamples: int, seed: int) -> Iterator[Floats]:
    if len(subjects) == 0:
        raise EinthovenError("There is nothing to resample: no recording is left to evaluate.")
    patients, patient_of = np.unique(subjects, return_inverse=True)
    generator = np.random.default_rng(seed)
    count, step = len(patients), max(1, CELLS // len(subjects))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = generator.integers(count, size=(rows, count)) + np.arange(rows)[:, None] * count
        multiplicity = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        yield multiplicity.astype(np.float32)[:, patient_of]


def bootstrap(subjects: Integers, statistics: Statistics, resamples: int, seed: int) -> dict[str, dict[str, float]]:
    """The 95 % interval of each of `statistics` over the same resamples of `subjects` [n], in bounded memory.

    The value is the statistic of unit weights: the sample as it is.
    """
    whole = statistics(np.ones((1, len(subjects)), np.float32))
    chunks = [statistics(drawn) for drawn in _draws(subjects, resamples, seed)]
    return {
        name: interval(float(value[0]), np.concatenate([chunk[name] for chunk in chunks] or [np.zeros(0)]))
        for name, value in whole.items()
    }


def interval(value: float, samples: Floats) -> dict[str, float]:
    """`value` with the 2.5 % and 97.5 % percentiles of `samples` [resamples] as `low` and `high`.

    NaN samples are ignored; if there are any, `undefined` is their count. With none left, the bounds are NaN.
    """
    defined = samples[~np.isnan(samples)]
    low, high = np.percentile(defined, [2.5, 97.5]) if len(defined) else (np.nan, np.nan)
    result = {"value": float(value), "low": float(low), "high": float(high)}
    undefined = len(samples) - len(defined)
    return {**result, "undefined": float(undefined)} if undefined else result


def mean_interval(values: Floats, w: Floats) -> dict[str, float]:
    """The mean of `values` [n] with its interval over the resamples `w` [resamples, n]."""
    return interval(float(np.mean(values)), weighted_mean(values, w))


def weighted_mean(values: Floats, w: Floats) -> Floats:
    """Mean of `values` [n] under each row of `w` [r, n]: float64 [r]; NaN where a row is all zero."""
    total = w.sum(axis=1, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(w @ np.asarray(values, np.float64) / total)


def weighted_median(values: Floats, w: Floats) -> Floats:
    """Median of `values` [n] repeated as `w` [r, n] says: [r]. The mean of both middles where they differ, as NumPy."""
    order = np.argsort(values, kind="stable")
    ordered = np.asarray(values, np.float64)[order]
    result = np.full(len(w), np.nan)
    step = max(1, CELLS // max(1, len(values)))
    for start in range(0, len(w), step):
        reached = np.cumsum(w[start : start + step][:, order], axis=1, dtype=np.float64)
        for row, steps in enumerate(reached):
            if len(steps) and steps[-1] > 0:
                middles = [np.searchsorted(steps, steps[-1] / 2, side=side) for side in ("left", "right")]
                result[start + row] = ordered[middles].mean()
    return result


def weighted_auroc(labels: NDArray[np.bool_], scores: Floats, w: Floats) -> Floats:
    """Area under the ROC curve for each row of weights: labels [n], scores [n], w [r, n] -> float64 [r].

    The probability that a positive scores above a negative, a tie counting one half (Mann-Whitney), which is what
    scikit-learn's `roc_auc_score(..., sample_weight=w[i])` integrates. NaN where a row lacks positives or negatives.
    """
    order = np.argsort(scores, kind="stable")
    positive = labels[order]
    ordered = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))  # of each run of equal scores
    result = np.empty(len(w))
    step = max(1, CELLS // max(1, len(labels)))
    for start in range(0, len(w), step):
        ordered_w = w[start : start + step][:, order].astype(np.float64)
        above = np.add.reduceat(ordered_w * positive, starts, axis=1)
        below = np.add.reduceat(ordered_w * ~positive, starts, axis=1)
        won = np.einsum("rg,rg->r", above, np.cumsum(below, axis=1) - below / 2)
        with np.errstate(invalid="ignore", divide="ignore"):
            result[start : start + step] = won / (above.sum(axis=1) * below.sum(axis=1))
    return result


def macro_auroc(
    labels: NDArray[np.bool_],
    scores: Floats,
    classes: tuple[str, ...],
    subjects: Integers,
    resamples: int,
    seed: int,
    known: NDArray[np.bool_] | None = None,
) -> dict[str, Any]:
    """One-against-rest AUROC of each class and the macro mean: labels, scores [n, classes]; subjects [n].

    Returns {"macro": {"value", "low", "high"}, "classes": {name: the same}, "left_out": names of the classes without a
    positive or without a negative}.

    Where `known` [n, classes] is False a label is unknown: the recording is left out of that class.

    `scores` may be [runs, n, classes]: AUROC is then the mean over runs, taken inside each resample. A resample in
    which a class is not defined has no macro value: a mean over fewer classes would be another metric.
    """
    if labels.shape != scores.shape[-2:] or labels.shape[1] != len(classes):
        raise EinthovenError(f"Labels {labels.shape} and scores {scores.shape} do not fit {len(classes)} classes.")
    runs = scores[None] if scores.ndim == 2 else scores
    seen = np.ones(labels.shape, bool) if known is None else known
    positive, negative = (labels & seen).sum(axis=0), (~labels & seen).sum(axis=0)
    kept = np.flatnonzero((positive > 0) & (negative > 0)).tolist()
    if not kept:
        raise EinthovenError("No class has both a positive and a negative recording: AUROC is not defined.")

    def aurocs(w: Floats) -> dict[str, Floats]:
        each = {}
        for c in kept:
            of_runs = [weighted_auroc(labels[:, c], run[:, c], w * seen[:, c]) for run in runs]
            each[classes[c]] = np.mean(of_runs, axis=0)
        return {"macro": np.mean(list(each.values()), axis=0), **{f"class {name}": v for name, v in each.items()}}

    intervals = bootstrap(subjects, aurocs, resamples, seed)
    macro = intervals.pop("macro")
    by_class = {name.removeprefix("class "): found for name, found in intervals.items()}
    return {"macro": macro, "classes": by_class, "left_out": [n for c, n in enumerate(classes) if c not in kept]}

"""Patient bootstrap: what a metric could have been had other patients come.

Patients, not recordings, are drawn with replacement, because recordings of one patient resemble each other. A resample
is a row of multiplicity weights: 0, 1, 2, … for every recording, the same for all recordings of a patient. So a mean is
a matrix product, and AUROC needs one sort for all resamples. Weights are kept recording by recording in memory: what
sorts or sums recordings then moves whole rows of resamples.

Two models are compared on the same resamples (`differences`): what makes a patient hard for both drops out.

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

CELLS = 1 << 21
"""Weights held at once where a computation goes in chunks: 8 MB in float32, which stay near the processor."""


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
        drawn = generator.integers(count, size=(min(step, resamples - start), count))
        multiplicity = np.stack([np.bincount(row, minlength=count) for row in drawn], axis=1).astype(np.float32)
        yield multiplicity[patient_of].T


def bootstrap(subjects: Integers, statistics: Statistics, resamples: int, seed: int) -> dict[str, dict[str, float]]:
    """The 95 % interval of each of `statistics` over the same resamples of `subjects` [n], in bounded memory.

    The value is the statistic of unit weights: the sample as it is.
    """
    whole, samples = resampled(subjects, statistics, resamples, seed)
    return {name: interval(value, samples[name]) for name, value in whole.items()}


def resampled(
    subjects: Integers, statistics: Statistics, resamples: int, seed: int
) -> tuple[dict[str, float], dict[str, Floats]]:
    """By name, the value of each of `statistics` for the sample as it is, and for each resample [resamples]."""
    whole = statistics(np.ones((1, len(subjects)), np.float32))
    chunks = [statistics(drawn) for drawn in _draws(subjects, resamples, seed)]
    samples = {name: np.concatenate([chunk[name] for chunk in chunks] or [np.zeros(0)]) for name in whole}
    return {name: float(value[0]) for name, value in whole.items()}, samples


def differences(
    subjects: Integers, first: Statistics, second: Statistics, resamples: int, seed: int
) -> dict[str, dict[str, float]]:
    """`second` minus `first`, of the statistics that both have, over the same resamples of `subjects` [n].

    Returns by name {"value", "low", "high", "p"}: the 95 % interval of the paired difference, and `difference_p`.
    """

    def apart(w: Floats) -> dict[str, Floats]:
        one, other = first(w), second(w)
        return {name: other[name] - values for name, values in one.items() if name in other}

    whole, samples = resampled(subjects, apart, resamples, seed)
    return {name: {**interval(value, samples[name]), "p": difference_p(samples[name])} for name, value in whole.items()}


def difference_p(samples: Floats) -> float:
    """Two-sided bootstrap p of no difference, from resamples of it [r]: twice the smaller tail beyond 0, at most 1.

    It is below 0.05 about where the 95 % percentile interval excludes 0 (Efron & Tibshirani 1993, section 15.4), and
    never below 2 / (r + 1), since the sample itself counts as a resample (Davison & Hinkley 1997, section 4.2). NaN
    samples are ignored.
    """
    defined = samples[~np.isnan(samples)]
    tail = min(np.count_nonzero(defined <= 0), np.count_nonzero(defined >= 0))
    return min(1.0, 2 * (1 + tail) / (1 + len(defined)))


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
    for start in range(0, len(w) if len(values) else 0, step):
        reached = np.cumsum(w[start : start + step].T[order], axis=0, dtype=np.float64)
        middle = reached[-1] / 2
        defined = middle > 0
        lower, upper = ((below(reached, middle)).sum(axis=0)[defined] for below in (np.less, np.less_equal))
        result[start : start + step][defined] = (ordered[lower] + ordered[upper]) / 2
    return result

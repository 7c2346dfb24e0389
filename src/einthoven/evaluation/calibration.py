"""Calibration of the linear probe: of the recordings that it gives 30 % for a class, do 30 % have it?

The probability of a class is the sigmoid of the probe's score, as its logistic regression was fitted; nothing is
recalibrated. The expected calibration error (Naeini et al. 2015) is the mean over bins of |share of positives − mean
probability|, weighted by the recordings in the bin; the bins have one width, or as many recordings each. The Brier
score is the mean of (probability − label)².

The error of a finite sample is above 0 even for a perfect model. `if_calibrated` says how far: its mean where labels
are drawn from the probabilities themselves, and its 97.5 % percentile as `limit` (consistency resampling, Bröcker &
Smith 2007). For the same reason an error grows when patients are resampled; that growth is taken off its resamples, so
that the interval tells how much the error would vary, around its value.

The bins are those of the sample, and are not cut anew in each resample.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from einthoven.disclosure import SMALL_CELL
from einthoven.errors import EinthovenError
from einthoven.evaluation.intervals import Floats, Integers, Statistics, interval, resampled, weighted_mean
from einthoven.evaluation.scores import Scores

BINS: Final = 15
DRAWS: Final = 500
"""Sets of labels drawn for `if_calibrated`."""
CURVE: Final = 50
"""Recordings in a point of the reliability curve, at least."""

Bools = NDArray[np.bool_]


def calibrated(scores: Scores, resamples: int, seed: int) -> dict[str, Any]:
    """{"calibration": {"probe": label fraction, and what `calibration` returns}} of the probe that was fitted on all
    training patients, or on most of them; nothing without probes."""
    probe = scores.whole_probe()
    found = None if probe is None else scores.matrix(probe[1])
    if probe is None or found is None:
        return {}
    classes, there, labels, values = found
    measures = calibration(labels, values, classes, scores.subjects[there], resamples=resamples, seed=seed)
    return {"calibration": {"probe": probe[0], **measures}}


def calibration(
    labels: Bools, scores: Floats, classes: Sequence[str], subjects: Integers, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Calibration of the sigmoid of scores [n, c], each class against the rest: labels [n, c], subjects [n].

    Returns {"macro": measures, "classes": {name: measures and "curve"}, "bins": int}. The measures are "ece" (bins of
    one width), "ece_equal_mass" and "brier", each {"value", "low", "high"}, the errors with "if_calibrated" and "limit"
    too. Macro is the mean over classes, taken inside each resample. "curve": as `curve` has it.
    """
    if labels.shape != scores.shape or labels.shape[1] != len(classes):
        raise EinthovenError(f"Labels {labels.shape} and scores {scores.shape} do not fit {len(classes)} classes.")
    p: Floats = expit(scores.astype(np.float64))
    floors = _floors(p, seed)
    of_class = [_measures(labels[:, c], p[:, c]) for c in range(len(classes))]

    def statistics(w: Floats) -> dict[str, Floats]:
        found = {f"{name} {c}": value for c, of in enumerate(of_class) for name, value in of(w).items()}
        means = {name: np.mean([found[f"{name} {c}"] for c in range(len(classes))], axis=0) for name in MEASURES}
        return found | {f"{name} macro": value for name, value in means.items()}

    whole, samples = resampled(subjects, statistics, resamples, seed)

    def told(which: int | str) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name in MEASURES:
            value, found = whole[f"{name} {which}"], samples[f"{name} {which}"]
            result[name] = interval(value, found)
            if name in floors:
                drawn = floors[name].mean(axis=0) if which == "macro" else floors[name][int(which)]
                limit = float(np.percentile(drawn, 97.5))
                result[name] = {**_centred(value, found), "if_calibrated": float(drawn.mean()), "limit": limit}
        return result

    by_class = {name: {**told(c), "curve": curve(labels[:, c], p[:, c])} for c, name in enumerate(classes)}
    return {"macro": told("macro"), "classes": by_class, "bins": BINS}


MEASURES: Final = ("ece", "ece_equal_mass", "brier")


def _measures(labels: Bools, p: Floats) -> Statistics:
    """The three measures of one class: labels [n], probabilities [n]."""
    brier = (p - labels) ** 2
    masks = {"ece": equal_width(p, BINS), "ece_equal_mass": equal_mass(p, BINS)}

    def statistics(w: Floats) -> dict[str, Floats]:
        errors = {name: calibration_error(labels, p, bins, w) for name, bins in masks.items()}
        return {**errors, "brier": weighted_mean(brier, w)}

    return statistics


def equal_width(p: Floats, bins: int) -> Integers:
    """The bin of each probability [n], in bins of width 1 / `bins` that hold their upper edge (Guo et al. 2017)."""
    return np.clip(np.ceil(p * bins).astype(np.int64) - 1, 0, bins - 1)


def equal_mass(p: Floats, bins: int) -> Integers:
    """The bin of each probability [n], in bins of as many recordings; equal probabilities share a bin."""
    ordered = np.sort(p)
    edges = ordered[np.linspace(0, len(p), bins, endpoint=False).astype(np.int64)]
    return np.searchsorted(np.unique(edges), p, side="right") - 1


def calibration_error(labels: NDArray[Any], p: Floats, bins: Integers, w: Floats) -> Floats:
    """Expected calibration error for each row of weights: labels, p, bins [n], w [r, n] -> [r]; NaN for a row of zeros.

    A bin's weight times |share − mean probability| is |sum of (label − probability)|, so one product tells all.
    """
    gaps = np.zeros((len(p), int(bins.max()) + 1))
    gaps[np.arange(len(p)), bins] = labels - p
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(w @ gaps).sum(axis=1) / w.sum(axis=1, dtype=np.float64))


def _floors(p: Floats, seed: int) -> dict[str, Floats]:
    """Errors [c, draws] of labels drawn from the probabilities p [n, c]."""
    generator = np.random.default_rng([seed, 1])
    floors: dict[str, list[Floats]] = {"ece": [], "ece_equal_mass": []}
    for column in p.T:
        drawn = (generator.random((DRAWS, len(p))) < column) - column
        for name, bins in (("ece", equal_width(column, BINS)), ("ece_equal_mass", equal_mass(column, BINS))):
            member = bins[:, None] == np.arange(bins.max() + 1)
            floors[name].append(np.abs(drawn @ member).sum(axis=1) / len(p))
    return {name: np.stack(errors) for name, errors in floors.items()}


def _centred(value: float, samples: Floats) -> dict[str, float]:
    """The interval of samples that are moved so that their mean is the value; an error is not below 0."""
    found = interval(value, samples - samples.mean() + value)
    return {**found, "low": max(0.0, found["low"])}


def curve(labels: Bools, p: Floats) -> dict[str, list[float]]:
    """Mean probability and share of positives [k], of up to ten bins of as many recordings, `CURVE` at least.

    Neighbours are joined until each bin has 11 positives and 11 negatives, so that no share tells a small count.
    """
    bins = equal_mass(p, max(1, min(10, len(p) // CURVE)))
    counts = np.stack([np.bincount(bins, weights) for weights in (np.ones(len(p)), labels, p)], axis=1)
    joined: list[Floats] = []
    rest = np.zeros(3)
    for count in counts:
        rest = rest + count
        if min(rest[1], rest[0] - rest[1]) >= SMALL_CELL:
            joined.append(rest)
            rest = np.zeros(3)
    if joined:
        joined[-1] = joined[-1] + rest
    return {"probability": [float(t / n) for n, _, t in joined], "share": [float(k / n) for n, k, _ in joined]}

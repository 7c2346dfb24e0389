"""How good fine-tuned classifiers are: AUROC of classes, errors of numbers, means over the subsets of labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import EinthovenError
from einthoven.evaluation.discrimination import discrimination, weighted_auroc
from einthoven.evaluation.intervals import Floats, Integers, bootstrap
from einthoven.evaluation.targets import CLASSES


@dataclass(frozen=True)
class Run:
    """One classifier, trained on one subset of the labels, and what it says of the split that is measured."""

    fraction: float  # of the training patients
    subset: int
    predictions: Floats  # [n, labels] probabilities, or values in the labels' units
    facts: Mapping[str, Any]  # of the training, for metrics.json


def finetuned_metrics(
    runs: Sequence[Run],
    values: NDArray[np.float64],
    labels: tuple[str, ...],
    subjects: Integers,
    *,
    task: str,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The metrics of each fraction: values [n, labels], NaN where unknown; subjects [n].

    Returns {"0.01": {…, "subsets": [{"macro": float, …facts}]}, …} with the keys of `discrimination` or of
    `regression_metrics`. As for the linear probes, the mean over subsets is taken inside each resample: its interval is
    of the patients measured; what the draw of the subset does, the subsets' own values show.
    """
    result = {}
    for fraction in dict.fromkeys(run.fraction for run in runs):
        same = [run for run in runs if run.fraction == fraction]
        scores = np.stack([run.predictions for run in same])
        each = [
            {"macro": measured(task, values, of_run, labels, subjects, 0, seed)["macro"]["value"], **run.facts}
            for run, of_run in zip(same, scores, strict=True)
        ]
        result[f"{fraction:g}"] = {**measured(task, values, scores, labels, subjects, resamples, seed), "subsets": each}
    return result


def measured(
    task: str,
    values: NDArray[np.float64],
    predictions: Floats,
    labels: tuple[str, ...],
    subjects: Integers,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """The metrics of a task: predictions [n, labels] or [runs, n, labels]. "macro" is what is reported first."""
    if task != CLASSES:
        return regression_metrics(values, predictions, labels, subjects, resamples, seed)
    known = ~np.isnan(values)
    return discrimination(values == 1, predictions, labels, subjects, resamples, seed, known)


def macro_difference(
    values: NDArray[np.float64],
    first: Floats,
    second: Floats,
    subjects: Integers,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """Macro AUROC of `first` minus that of `second`, with the interval of the difference (paired patient bootstrap).

    values [n, labels], 0, 1 or NaN where unknown; first [runs, n, labels] and second [runs', n, labels], of which the
    mean over runs is taken inside each resample; subjects [n]. Each resample draws the same patients for both, so what
    makes a patient hard for both drops out. Labels without a positive or a negative are left out.
    """
    known, positive = ~np.isnan(values), values == 1
    kept = np.flatnonzero(positive.any(axis=0) & (known & ~positive).any(axis=0)).tolist()
    if not kept:
        raise EinthovenError("No class has both a positive and a negative recording: AUROC is not defined.")

    def macro(w: Floats, runs: Floats) -> Floats:
        return np.mean(
            [weighted_auroc(positive[:, c], run[:, c], w * known[:, c]) for run in runs for c in kept], axis=0
        )

    def difference(w: Floats) -> dict[str, Floats]:
        return {"macro": macro(w, first) - macro(w, second)}

    return bootstrap(subjects, difference, resamples, seed)["macro"]


def regression_metrics(
    values: NDArray[np.float64],
    predictions: Floats,
    labels: tuple[str, ...],
    subjects: Integers,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Errors of predicted numbers, with patient-bootstrap intervals.

    Returns {"macro": {"value", "low", "high"}, "labels": {name: {"mae", "rmse", "r", "r2": each the same}}, "left_out":
    labels with fewer than two known values}. `mae` and `rmse` are in the label's unit; `r` is Pearson's; `r2` is 1
    minus the squared error over that of the mean of the values measured, below 0 where this mean does better. "macro"
    is the mean `r2` of the labels, which have no unit in common. Of several runs, predictions [runs, n, labels], each
    metric is the mean over runs, taken inside each resample.
    """
    runs = np.asarray(predictions[None] if predictions.ndim == 2 else predictions, np.float64)
    known = ~np.isnan(values)
    kept = np.flatnonzero(known.sum(axis=0) >= 2).tolist()
    if not kept:
        raise EinthovenError("No label has two known values in the split that is measured.")

    def statistics(w: Floats) -> dict[str, Floats]:
        found: dict[str, Floats] = {}
        for c in kept:
            rows = known[:, c]
            of_runs = [_errors(values[rows, c], run[rows, c], w[:, rows].astype(np.float64)) for run in runs]
            found |= {f"{c} {name}": np.mean([one[name] for one in of_runs], axis=0) for name in of_runs[0]}
        return {"macro": np.mean([found[f"{c} r2"] for c in kept], axis=0), **found}

    intervals = bootstrap(subjects, statistics, resamples, seed)
    by_label = {labels[c]: {name: intervals[f"{c} {name}"] for name in ("mae", "rmse", "r", "r2")} for c in kept}
    left_out = [name for c, name in enumerate(labels) if c not in kept]
    return {"macro": intervals["macro"], "labels": by_label, "left_out": left_out}


def _errors(values: Floats, predicted: Floats, w: Floats) -> dict[str, Floats]:
    """Of values and predictions [n] under each row of weights w [r, n]; NaN where a metric is not defined."""
    y, p = values - values.mean(), predicted - predicted.mean()  # moments of small numbers lose fewer digits
    error = predicted - values
    with np.errstate(invalid="ignore", divide="ignore"):
        total = w.sum(axis=1)
        mean_y, mean_p, mae, squared, yp = (w @ x / total for x in (y, p, abs(error), error**2, y * p))
        spread_y, spread_p = (_spread(x, w) for x in (y, p))
        r = (yp - mean_y * mean_p) / np.sqrt(spread_y * spread_p)
        return {"mae": mae, "rmse": np.sqrt(squared), "r": r, "r2": 1 - squared / spread_y}


def _spread(x: Floats, w: Floats) -> Floats:
    """Variance of centred x [n] under each row of w [r, n]; NaN where it is zero but for rounding."""
    found = w @ (x * x) / w.sum(axis=1) - (w @ x / w.sum(axis=1)) ** 2
    return np.where(found > 1e-12 * (x * x).max(), found, np.nan)

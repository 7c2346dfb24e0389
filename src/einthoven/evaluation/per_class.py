"""AUROC and AUPRC of each class, and their means over all classes and over those with enough positives."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import EinthovenError
from einthoven.evaluation.intervals import CELLS, Floats, Integers, bootstrap, weighted_auroc

LEAST_POSITIVES: Final = 10
"""Below this a class is marked, and left out of the second mean: one positive moves its AUROC by a tenth or more."""


def weighted_auprc(labels: NDArray[np.bool_], scores: Floats, w: Floats) -> Floats:
    """Average precision for each row of weights: labels [n], scores [n], w [r, n] -> float64 [r].

    The sum over thresholds of precision times the gain in recall, equal scores falling together: scikit-learn's
    `average_precision_score(..., sample_weight=w[i])`. A chance ranking has the share of positives. NaN where a row has
    no positive.
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    ordered = np.asarray(scores)[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))  # of each run of equal scores
    result = np.empty(len(w))
    step = max(1, CELLS // max(1, len(labels)))
    for start in range(0, len(w), step):
        part = w[start : start + step][:, order].astype(np.float64)
        hits = np.add.reduceat(part * labels[order], starts, axis=1)
        said = np.cumsum(np.add.reduceat(part, starts, axis=1), axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.where(said > 0, np.cumsum(hits, axis=1) / said, 0.0)
            result[start : start + step] = (precision * hits).sum(axis=1) / hits.sum(axis=1)
    return result


def by_class(
    labels: NDArray[np.bool_],
    scores: Floats,
    classes: tuple[str, ...],
    subjects: Integers,
    *,
    resamples: int = 1000,
    seed: int = 0,
    least: int = LEAST_POSITIVES,
) -> dict[str, Any]:
    """Both measures with 95 % patient-bootstrap intervals: labels, scores [n, classes]; subjects [n].

    Returns {"macro": {"auroc", "auprc"}, "macro_frequent": the same over classes with at least `least` positives, or
    None, "frequent": their number, "classes": {name: {"positives": int, "few": bool, "auroc", "auprc"}}, "left_out":
    names of classes without a positive or without a negative}. A resample in which a class is not defined has no
    macro value: with classes of one positive those are many, and `undefined` counts them.
    """
    if labels.shape != scores.shape or labels.shape[1] != len(classes):
        raise EinthovenError(f"Labels {labels.shape} and scores {scores.shape} do not fit {len(classes)} classes.")
    positives = labels.sum(axis=0)
    kept = np.flatnonzero((positives > 0) & (positives < len(labels))).tolist()
    often = [c for c in kept if positives[c] >= least]
    if not kept:
        raise EinthovenError("No class has both a positive and a negative recording: AUROC is not defined.")

    def statistics(w: Floats) -> dict[str, Floats]:
        each = {("auroc", c): weighted_auroc(labels[:, c], scores[:, c], w) for c in kept}
        each |= {("auprc", c): weighted_auprc(labels[:, c], scores[:, c], w) for c in kept}
        found = {f"{measure} {c}": value for (measure, c), value in each.items()}
        for name, of in (("macro", kept), ("macro_frequent", often)):
            for measure in ("auroc", "auprc") if of else ():
                found[f"{measure} {name}"] = np.mean([each[measure, c] for c in of], axis=0)
        return found

    found = bootstrap(subjects, statistics, resamples, seed)

    def both(of: object) -> dict[str, Any]:
        return {measure: found[f"{measure} {of}"] for measure in ("auroc", "auprc")}

    return {
        "macro": both("macro"),
        "macro_frequent": both("macro_frequent") if often else None,
        "frequent": len(often),
        "classes": {
            classes[c]: {"positives": int(positives[c]), "few": bool(positives[c] < least), **both(c)} for c in kept
        },
        "left_out": [name for c, name in enumerate(classes) if c not in kept],
    }

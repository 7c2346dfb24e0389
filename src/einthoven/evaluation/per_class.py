"""The discrimination of classes, told class by class with its positives: what a benchmark's table has."""

from typing import Any

from einthoven.evaluation.discrimination import Bools, discrimination
from einthoven.evaluation.intervals import Floats, Integers

MEASURES = ("auroc", "auprc")


def by_class(
    labels: Bools,
    scores: Floats,
    classes: tuple[str, ...],
    subjects: Integers,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """AUROC and AUPRC with 95 % patient-bootstrap intervals: labels, scores [n, classes]; subjects [n].

    Returns {"macro": {"auroc", "auprc"}, "macro_frequent": the same over classes that are not few, or None, "frequent":
    their number, "classes": {name: {"positives": int, "few": bool, "auroc", "auprc"}}, "left_out": names of classes
    without a positive or without a negative}. A resample in which a class is not defined has no macro value: with
    classes of one positive those are many, and `undefined` counts them.
    """
    found = discrimination(labels, scores, classes, subjects, resamples, seed)
    by_measure = {"auroc": found, "auprc": found["auprc"]}
    positives = dict(zip(classes, labels.sum(axis=0).tolist(), strict=True))
    kept = found["classes"]
    return {
        "macro": {measure: by_measure[measure]["macro"] for measure in MEASURES},
        "macro_frequent": None
        if found["macro_enough"] is None
        else {measure: by_measure[measure]["macro_enough"] for measure in MEASURES},
        "frequent": len(kept) - len(found["few"]),
        "classes": {
            name: {
                "positives": positives[name],
                "few": name in found["few"],
                **{measure: by_measure[measure]["classes"][name] for measure in MEASURES},
            }
            for name in kept
        },
        "left_out": found["left_out"],
    }

"""AUROC and AUPRC of each class with its positives, and their means over all classes and over the frequent ones."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from einthoven.evaluation.discrimination import AUPRC, AUROC, CLASS, MACRO, MACRO_FREQUENT, class_statistics
from einthoven.evaluation.intervals import Floats, Integers, bootstrap


def by_class(
    labels: NDArray[np.bool_],
    scores: Floats,
    classes: tuple[str, ...],
    subjects: Integers,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Both measures with 95 % patient-bootstrap intervals: labels, scores [n, classes]; subjects [n].

    Returns {"macro": {"auroc", "auprc"}, "macro_frequent": the same over classes with at least `LEAST_POSITIVES`
    positives, or None, "frequent": their number, "classes": {name: {"positives": int, "few": bool, "auroc", "auprc"}},
    "left_out": names of classes without a positive or without a negative}. A resample in which a class is not defined
    has no macro value: with classes of one positive those are many, and `undefined` counts them.
    """
    statistics, kept, few = class_statistics(labels, scores, classes)
    found = bootstrap(subjects, statistics, resamples, seed)
    positives = dict(zip(classes, labels.sum(axis=0).tolist(), strict=True))

    def both(of: str) -> dict[str, Any]:
        return {"auroc": found[AUROC + of], "auprc": found[AUPRC + of]}

    return {
        "macro": both(MACRO),
        "macro_frequent": both(MACRO_FREQUENT) if len(few) < len(kept) else None,
        "frequent": len(kept) - len(few),
        "classes": {name: {"positives": positives[name], "few": name in few, **both(CLASS + name)} for name in kept},
        "left_out": [name for name in classes if name not in kept],
    }

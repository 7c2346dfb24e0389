"""AUROC and AUPRC of classes, against scikit-learn and resamples computed one by one."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from einthoven.errors import EinthovenError
from einthoven.evaluation.intervals import weights
from einthoven.evaluation.per_class import by_class


def example(n: int = 90) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = random.random((n, 3)) < [0.3, 0.05, 0.5]
    scores = np.round(labels + random.normal(0, 1, (n, 3)), 1)  # with ties
    return labels, scores, np.arange(n) // 2


def test_rare_classes_are_marked_and_left_out_of_the_second_mean() -> None:
    labels, scores, subjects = example()
    found = by_class(labels, scores, ("A", "B", "C"), subjects, resamples=30)
    aurocs = [roc_auc_score(labels[:, c], scores[:, c]) for c in range(3)]
    auprcs = [average_precision_score(labels[:, c], scores[:, c]) for c in range(3)]
    assert [part["few"] for part in found["classes"].values()] == [False, True, False]
    assert [part["positives"] for part in found["classes"].values()] == labels.sum(axis=0).tolist()
    assert found["macro"]["auroc"]["value"] == pytest.approx(np.mean(aurocs))
    assert found["macro_frequent"]["auroc"]["value"] == pytest.approx((aurocs[0] + aurocs[2]) / 2)
    assert found["macro_frequent"]["auprc"]["value"] == pytest.approx((auprcs[0] + auprcs[2]) / 2)
    assert found["frequent"] == 2 and found["left_out"] == []
    drawn = [np.mean([roc_auc_score(labels[:, c], scores[:, c], sample_weight=row) for c in (0, 2)])
             for row in weights(subjects, 30, 0)]  # fmt: skip
    bounds = found["macro_frequent"]["auroc"]
    assert (bounds["low"], bounds["high"]) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])))


def test_one_sided_classes_are_named_and_nothing_to_measure_is_an_error() -> None:
    labels, scores, subjects = example()
    labels = labels & (np.arange(90)[:, None] < 20)
    labels[:, 2] = True
    found = by_class(labels, scores, ("A", "B", "C"), subjects, resamples=2)
    assert found["left_out"] == ["C"] and found["macro_frequent"] is None
    with pytest.raises(EinthovenError, match="not defined"):
        by_class(np.ones((4, 1), bool), np.ones((4, 1)), ("A",), np.arange(4))
    with pytest.raises(EinthovenError, match="do not fit"):
        by_class(labels, scores, ("A",), subjects)

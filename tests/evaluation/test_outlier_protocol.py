import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from einthoven.config import Evaluation
from einthoven.evaluation.outlier_protocol import corruptions_apart, others_apart, passing

OPTIONS = Evaluation(resamples=60)


def naive(usual: np.ndarray, outlying: np.ndarray) -> float:
    """Raise the limit until 95 of 100 usual recordings pass; count the outliers that pass with them."""
    for limit in sorted(usual):
        if (usual <= limit).mean() >= 0.95:
            return float((outlying <= limit).mean())
    raise AssertionError


@pytest.mark.parametrize("ties", [False, True])
def test_passing_is_what_repeating_recordings_by_their_weights_gives(ties: bool) -> None:
    random = np.random.default_rng(0)
    usual, outlying = random.normal(size=40), random.normal(size=25) + 1
    if ties:
        usual, outlying = usual.round(), outlying.round()
    w, v = random.integers(0, 3, (30, 40)), random.integers(0, 3, (30, 25))
    expected = [naive(np.repeat(usual, a), np.repeat(outlying, b)) for a, b in zip(w, v, strict=True)]
    np.testing.assert_allclose(passing(usual, outlying, w.astype(float), v.astype(float)), expected)


def test_passing_of_nobody_is_undefined() -> None:
    ones, none = np.ones((1, 3)), np.zeros((1, 3))
    scores = np.arange(3.0)
    assert np.isnan(passing(scores, scores, none, ones)).all() and np.isnan(passing(scores, scores, ones, none)).all()
    assert passing(scores, scores + 9, ones, ones) == 0 and passing(scores, scores - 9, ones, ones) == 1


def test_corruptions_are_measured_one_by_one_and_their_mean_by_shares() -> None:
    random, subjects = np.random.default_rng(1), np.arange(50) // 2
    usual = random.normal(size=50)
    outlying = [usual + 0.5, usual + random.normal(size=50) + 2, usual + 9]
    found = corruptions_apart([usual] * 3, outlying, np.array([0.5, 0.25, 0.25]), subjects, OPTIONS)
    labels = np.repeat([0, 1], 50)
    aurocs = [roc_auc_score(labels, np.concatenate([usual, one])) for one in outlying]
    assert [one["auroc"]["value"] for one in found[:3]] == pytest.approx(aurocs)
    assert [one["fpr95"]["value"] for one in found[:3]] == pytest.approx([naive(usual, one) for one in outlying])
    assert found[3]["auroc"]["value"] == pytest.approx(0.5 * aurocs[0] + 0.25 * (aurocs[1] + aurocs[2]))
    assert all(one["auroc"]["low"] <= one["auroc"]["value"] <= one["auroc"]["high"] for one in found)
    # a recording and its corruption are drawn together: less spread than between strangers
    strangers = others_apart(usual, outlying[0], subjects, subjects, True, OPTIONS)["auroc"]
    together = found[0]["auroc"]
    assert together["high"] - together["low"] < strangers["high"] - strangers["low"]


def test_patients_of_another_study_are_others_whatever_their_numbers() -> None:
    random = np.random.default_rng(2)
    usual, outlying, subjects = random.normal(size=60), random.normal(size=60), np.arange(60)
    one = others_apart(usual, outlying, subjects, subjects, True, OPTIONS)
    shifted = others_apart(usual, outlying, subjects, subjects + 1000, True, OPTIONS)
    same = others_apart(usual, outlying, subjects, subjects, False, OPTIONS)
    assert one == shifted and one["auroc"]["value"] == same["auroc"]["value"]
    assert one["auroc"]["low"] != same["auroc"]["low"]

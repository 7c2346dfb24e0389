import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import brier_score_loss

from einthoven.errors import EinthovenError
from einthoven.evaluation.calibration import (
    BINS,
    calibration,
    calibration_error,
    curve,
    equal_mass,
    equal_width,
)
from einthoven.evaluation.intervals import weights


def naive(labels, p, bins) -> float:
    """Naeini et al. 2015 in a loop."""
    error = 0.0
    for b in set(bins.tolist()):
        inside = [i for i in range(len(p)) if bins[i] == b]
        error += len(inside) / len(p) * abs(np.mean(labels[inside]) - np.mean(p[inside]))
    return error


@pytest.fixture
def sample():
    random = np.random.default_rng(0)
    p = random.random(300) ** 2
    return random.random(300) < p**1.5, p, random.integers(0, 200, 300)


@pytest.mark.parametrize("cut", [equal_width, equal_mass])
def test_the_error_is_that_of_a_loop_over_repeated_recordings(sample, cut) -> None:
    labels, p, subjects = sample
    bins = cut(p, 15)
    w = weights(subjects, 20, seed=0)
    repeated = [np.repeat(np.arange(300), row.astype(int)) for row in w]
    expected = [naive(labels[i], p[i], bins[i]) for i in repeated]
    np.testing.assert_allclose(calibration_error(labels, p, bins, w), expected)


def test_a_worked_example() -> None:
    """Two bins: three at 0.2 of which one is positive, one at 0.9 that is: (3 |1/3 − 0.2| + |1 − 0.9|) / 4."""
    labels, p = np.array([True, False, False, True]), np.array([0.2, 0.2, 0.2, 0.9])
    found = calibration_error(labels, p, equal_width(p, 2), np.ones((1, 4)))
    assert found == pytest.approx((3 * (1 / 3 - 0.2) + 0.1) / 4)


def test_bins_hold_their_upper_edge_or_as_many_recordings() -> None:
    assert equal_width(np.array([0.0, 0.1, 0.25, 0.2501, 1.0]), 4).tolist() == [0, 0, 0, 1, 3]
    assert np.bincount(equal_mass(np.random.default_rng(0).random(60), 15)).tolist() == [4] * 15
    assert equal_mass(np.array([0.1, 0.1, 0.1, 0.7]), 2).tolist() == [0, 0, 0, 0]  # equal ones are not parted


def test_all_classes_and_their_mean(sample) -> None:
    labels, p, subjects = sample
    both, scores = np.stack([labels, ~labels], 1), np.stack([np.log(p / (1 - p)), np.zeros(300)], 1)
    found = calibration(both, scores, ("A", "B"), subjects, resamples=200)
    a, b = found["classes"]["A"], found["classes"]["B"]
    assert a["ece"]["value"] == pytest.approx(naive(labels, p, equal_width(p, BINS)))
    assert a["ece_equal_mass"]["value"] == pytest.approx(naive(labels, p, equal_mass(p, BINS)))
    assert a["brier"]["value"] == pytest.approx(brier_score_loss(labels, p))
    assert b["ece"]["value"] == pytest.approx(abs(0.5 - (~labels).mean())) and b["brier"]["value"] == pytest.approx(
        0.25
    )
    for name in ("ece", "ece_equal_mass", "brier"):
        assert found["macro"][name]["value"] == pytest.approx((a[name]["value"] + b[name]["value"]) / 2)
        assert 0 <= a[name]["low"] <= a[name]["value"] <= a[name]["high"]


def test_a_calibrated_model_is_where_it_should_be_and_a_bold_one_is_not() -> None:
    random = np.random.default_rng(1)
    scores = random.normal(size=(2000, 1))
    labels = random.random((2000, 1)) < 1 / (1 + np.exp(-scores))
    good = calibration(labels, scores, ("A",), np.arange(2000), resamples=200)["macro"]["ece"]
    bold = calibration(labels, 3 * scores, ("A",), np.arange(2000), resamples=200)["macro"]["ece"]
    assert good["low"] < good["value"] < good["limit"] < 0.045
    assert bold["low"] > 3 * bold["limit"]


def test_the_floor_is_the_error_of_labels_drawn_from_the_probabilities() -> None:
    """One bin of n recordings at p: the mean of |k / n − p| over binomial k."""
    scores, n = np.zeros((40, 1)), 40
    found = calibration(np.ones((n, 1), bool), scores, ("A",), np.arange(n), resamples=5)["macro"]["ece"]
    k = np.arange(n + 1)
    assert found["value"] == pytest.approx(0.5)
    assert found["if_calibrated"] == pytest.approx(np.sum(binom.pmf(k, n, 0.5) * abs(k / n - 0.5)), rel=0.1)


def test_the_curve_has_points_of_fifty_recordings_at_least(sample) -> None:
    _, p, _ = sample
    labels = np.random.default_rng(5).random(300) < 0.5
    found = curve(labels, p)
    order = np.argsort(p)
    assert found["share"] == pytest.approx([labels[part].mean() for part in np.split(order, 6)])
    assert found["probability"] == pytest.approx([p[part].mean() for part in np.split(order, 6)])


def test_no_point_of_the_curve_tells_a_small_count(sample) -> None:
    labels, p, _ = sample
    order = np.argsort(p)
    sizes, total = [], 0
    for part in np.split(order, 6):  # by hand: bins are joined until both sides have eleven
        total += len(part)
        inside = labels[order[sum(sizes) : sum(sizes) + total]]
        if min(inside.sum(), (~inside).sum()) >= 11:
            sizes.append(total)
            total = 0
    sizes[-1] += total
    assert len(sizes) < 6
    parts = np.split(order, np.cumsum(sizes)[:-1])
    assert curve(labels, p)["share"] == pytest.approx([labels[part].mean() for part in parts])
    assert curve(np.arange(300) < 10, p) == {"probability": [], "share": []}


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(EinthovenError, match="do not fit"):
        calibration(np.ones((3, 2), bool), np.ones((3, 1)), ("A",), np.arange(3))

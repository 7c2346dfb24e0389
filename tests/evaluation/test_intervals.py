import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from einthoven.errors import EinthovenError
from einthoven.evaluation.discrimination import weighted_auroc
from einthoven.evaluation.intervals import (
    bootstrap,
    difference_p,
    differences,
    mean_interval,
    weighted_mean,
    weighted_median,
    weights,
)


def test_weights_are_multiplicities_shared_by_a_patients_recordings():
    subjects = np.array([7, 7, 3, 9, 3, 7])
    w = weights(subjects, 200, seed=1)
    assert w.shape == (200, 6)
    assert (w[:, 0] == w[:, 1]).all() and (w[:, 0] == w[:, 5]).all() and (w[:, 2] == w[:, 4]).all()
    assert (w[:, 0] + w[:, 2] + w[:, 3] == 3).all()  # three patients drawn in every resample
    assert w.mean() == pytest.approx(1, abs=0.1)
    assert (w == weights(subjects, 200, seed=1)).all() and (w != weights(subjects, 200, seed=2)).any()


def test_chunked_draws_equal_draws_at_once(monkeypatch):
    subjects = np.arange(50) // 2
    whole = weights(subjects, 40, seed=0)
    monkeypatch.setattr("einthoven.evaluation.intervals.CELLS", 130)
    assert (weights(subjects, 40, seed=0) == whole).all()


def test_interval_of_a_mean_covers_as_the_normal_approximation_does():
    values = np.random.default_rng(0).normal(size=400)
    found = mean_interval(values, weights(np.arange(400), 4000, seed=0))
    half = 1.96 * values.std() / 20
    assert found["value"] == pytest.approx(values.mean())
    assert found["low"] == pytest.approx(values.mean() - half, abs=0.01)
    assert found["high"] == pytest.approx(values.mean() + half, abs=0.01)


def test_clustered_patients_widen_the_interval():
    patient = np.repeat(np.arange(20), 10)
    values = np.random.default_rng(0).normal(size=20)[patient]
    by_patient = mean_interval(values, weights(patient, 1000, 0))
    by_recording = mean_interval(values, weights(np.arange(200), 1000, 0))
    assert by_patient["high"] - by_patient["low"] > 2 * (by_recording["high"] - by_recording["low"])


def test_mean_and_median_are_those_of_repeated_values():
    random = np.random.default_rng(0)
    values, w = random.integers(1, 9, 15).astype(float), random.integers(0, 3, (30, 15)).astype(float)
    repeated = [np.repeat(values, row.astype(int)) for row in w]
    np.testing.assert_allclose(weighted_mean(values, w), [r.mean() for r in repeated])
    np.testing.assert_allclose(weighted_median(values, w), [np.median(r) for r in repeated])


def test_bootstrap_agrees_with_weights_drawn_at_once(monkeypatch):
    subjects, values = np.arange(30) // 3, np.arange(30.0)
    expected = mean_interval(values, weights(subjects, 100, seed=4))
    monkeypatch.setattr("einthoven.evaluation.intervals.CELLS", 100)
    found = bootstrap(subjects, lambda w: {"mean": weighted_mean(values, w)}, 100, seed=4)
    assert found["mean"] == pytest.approx(expected)


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(EinthovenError, match="nothing to resample"):
        weights(np.array([], int), 10, 0)


def two_models(n: int = 120):
    random = np.random.default_rng(3)
    labels, subjects = random.random((n, 2)) < 0.4, random.integers(0, n // 2, n)
    return labels, subjects, random.normal(size=(n, 2)) + labels, random.normal(size=(n, 2)) + 2 * labels


def test_paired_differences_are_those_of_a_loop_that_repeats_recordings():
    labels, subjects, one, other = two_models()
    w = weights(subjects, 80, seed=5)
    samples = []
    for row in w.astype(int):
        drawn = np.repeat(np.arange(len(row)), row)
        samples.append(
            roc_auc_score(labels[drawn, 0], other[drawn, 0]) - roc_auc_score(labels[drawn, 0], one[drawn, 0])
        )

    def auroc(scores):
        return lambda w: {"auroc": weighted_auroc(labels[:, 0], scores[:, 0], w), "only here": w.sum(axis=1)}

    found = differences(subjects, auroc(one), lambda w: {"auroc": auroc(other)(w)["auroc"]}, 80, seed=5)
    assert set(found) == {"auroc"}
    plain = roc_auc_score(labels[:, 0], other[:, 0]) - roc_auc_score(labels[:, 0], one[:, 0])
    low, high = np.percentile(samples, [2.5, 97.5])
    p = min(1, 2 * (1 + min(sum(d <= 0 for d in samples), sum(d >= 0 for d in samples))) / 81)
    assert found["auroc"] == pytest.approx({"value": plain, "low": low, "high": high, "p": p})


def test_a_paired_difference_is_that_of_the_normal_approximation():
    random = np.random.default_rng(0)
    one = 10 * random.normal(size=400)  # patients differ much more than models do
    other = one + 0.08 + random.normal(size=400)
    subjects, gap = np.arange(400), other - one
    found = differences(
        subjects, lambda w: {"m": weighted_mean(one, w)}, lambda w: {"m": weighted_mean(other, w)}, 4000, seed=0
    )["m"]
    error = gap.std() / 20
    assert found["low"] == pytest.approx(gap.mean() - 1.96 * error, abs=0.01)
    assert found["high"] == pytest.approx(gap.mean() + 1.96 * error, abs=0.01)
    assert found["p"] == pytest.approx(2 * norm.sf(abs(gap.mean()) / error), abs=0.03)


def test_p_counts_both_tails_and_is_never_zero():
    assert difference_p(np.arange(1.0, 100)) == pytest.approx(2 / 100)
    assert difference_p(-np.arange(1.0, 100)) == pytest.approx(2 / 100)
    assert difference_p(np.array([-1.0, 1, 1, 1, np.nan])) == pytest.approx(2 * 2 / 5)
    assert difference_p(np.zeros(99)) == 1  # the same model twice

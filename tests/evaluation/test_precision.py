import numpy as np
import pytest

from einthoven.errors import EinthovenError
from einthoven.evaluation.intervals import weights
from einthoven.evaluation.precision import LEAST, precision_at_k, weighted_precision
from einthoven.evaluation.retrieval import unit


def naive(scores, positive, w, k):
    """Every recording as often as the resample has it, the best k of them counted one by one."""
    places = [i for i in np.argsort(-scores, kind="stable") for _ in range(int(w[i]))]
    return np.mean([positive[i] for i in places[:k]])


def split(seed=0, n=120):
    random = np.random.default_rng(seed)
    positive = random.random((n, 3)) < [0.4, 0.2, 0.03]
    ecg = random.normal(size=(n, 8))
    ecg[:, :3] += positive
    queries = {name: random.normal(size=(2, 8)) + np.eye(8)[c] * 3 for c, name in enumerate(("A", "B", "C"))}
    return ecg, queries, positive, random.integers(0, 70, n)


def test_value_and_interval_equal_a_naive_loop():
    ecg, queries, positive, subjects = split()
    found = precision_at_k(ecg, queries, positive, subjects, k=7, resamples=60, seed=3)
    drawn = np.concatenate([np.ones((1, 120)), weights(subjects, 60, 3)])
    samples = {}
    for c, name in enumerate(("A", "B")):
        scores = [unit(ecg) @ query for query in unit(queries[name])]
        samples[name] = np.array([[naive(s, positive[:, c], w, 7) for s in scores] for w in drawn]).mean(axis=1)
    samples["mean"] = (samples["A"] + samples["B"]) / 2
    for name, part in {**found["findings"], "mean": found["mean"]}.items():
        assert part["value"] == pytest.approx(samples[name][0])
        assert [part["low"], part["high"]] == pytest.approx(np.percentile(samples[name][1:], [2.5, 97.5]).tolist())
    assert found["left_out"] == ["C"] and positive[:, 2].sum() < LEAST
    facts = {key: found["findings"]["B"][key] for key in ("positives", "prevalence", "queries")}
    assert facts == {"positives": positive[:, 1].sum(), "prevalence": positive[:, 1].mean(), "queries": 2}


def test_a_deep_ranking_is_cut_where_no_resample_reaches():
    ecg, queries, positive, _ = split(n=2000)
    subjects = np.arange(2000) // 2
    found = precision_at_k(ecg, queries, positive, subjects, k=2, resamples=40, seed=1)
    scores = unit(ecg) @ unit(queries["A"])[0], unit(ecg) @ unit(queries["A"])[1]
    samples = [np.mean([naive(s, positive[:, 0], w, 2) for s in scores]) for w in weights(subjects, 40, 1)]
    assert found["findings"]["A"]["low"] == pytest.approx(np.percentile(samples, 2.5))
    assert found["findings"]["A"]["high"] == pytest.approx(np.percentile(samples, 97.5))


def test_a_collapsed_model_finds_nothing():
    positive = np.arange(40)[:, None] < 20
    ecg = np.random.default_rng(0).normal(size=(1, 256)).repeat(40, axis=0)
    found = precision_at_k(ecg, {"A": ecg[:1]}, positive, np.arange(40), resamples=0)
    assert found["mean"]["value"] == 0.0


def test_a_sample_of_fewer_than_k_is_judged_by_all_of_it():
    found = weighted_precision(np.array([1, 0, 2]), np.array([False, True, True]), np.array([[1.0, 2, 0]]), 10)
    assert found.tolist() == [2 / 3]


def test_labels_of_another_shape_and_findings_too_rare_are_errors():
    ecg, queries, positive, subjects = split()
    with pytest.raises(EinthovenError, match="do not fit"):
        precision_at_k(ecg, queries, positive[:, :2], subjects)
    with pytest.raises(EinthovenError, match="No finding has 10"):
        precision_at_k(ecg, {"C": queries["C"]}, positive[:, 2:], subjects)

"""The baselines of masked codes against counts by hand and against naive loops."""

import math

import numpy as np
import pytest

from einthoven.evaluation.masked_codes import advantage, co_occurrence, count, frequency, hits, rank, scores

WINDOWS = [([0, 1], [0, 0]), ([0, 1, 1], [0, 0, 0]), ([0, 2], [0, 1])]


def counted() -> object:
    return count(((np.array(t), np.array(k)) for t, k in WINDOWS), tokens=4, kinds=2)


def test_counts_are_those_of_the_windows() -> None:
    counts = counted()
    assert counts.codes.tolist() == [3, 3, 1, 0]
    assert counts.windows.tolist() == [3, 2, 1, 0]
    assert counts.together.tolist() == [[0, 2, 1, 0], [2, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert counts.kinds.tolist() == [[True, True, False, False], [False, False, True, False]]


def test_frequency_is_the_share_of_codes() -> None:
    assert np.exp(frequency(counted())) == pytest.approx([3 / 7, 3 / 7, 1 / 7, 0])


def test_co_occurrence_is_naive_bayes() -> None:
    counts = counted()
    prior, evidence = frequency(counts), co_occurrence(counts)
    for seen in ([], [0], [0, 1], [1, 1, 2]):
        found = scores(prior, evidence, np.array(seen, np.int64), 0.0)
        for code in range(3):
            naive = math.log(sum(t.count(code) for t, _ in WINDOWS) / 7)
            for other in set(seen):
                both = sum((t.count(code) > 1) if code == other else {code, other} <= set(t) for t, _ in WINDOWS)
                naive += math.log((both + 0.5) / (sum(code in t for t, _ in WINDOWS) + 1))
            assert found[code] == pytest.approx(naive, rel=1e-5)
    mean = scores(prior, evidence, np.array([0, 1]), 1.0)
    assert mean[:3] == pytest.approx((prior + evidence[:, [0, 1]].mean(axis=1))[:3])


def test_a_code_that_always_comes_with_another_is_told_by_it() -> None:
    generator = np.random.default_rng(0)
    pairs = generator.integers(0, 5, 200)
    counts = count(((np.array([p, p + 5]), np.array([0, 1])) for p in pairs), tokens=10, kinds=2)
    prior, evidence = frequency(counts), co_occurrence(counts)
    assert all(rank(scores(prior, evidence, np.array([p]), 0.0), p + 5) == 1 for p in range(5))


def test_ranks_count_ties_by_token_and_may_be_among_some() -> None:
    score = np.array([1.0, 3.0, 3.0, 2.0])
    assert [rank(score, token) for token in range(4)] == [4, 1, 2, 3]
    assert rank(score, 3, np.array([True, False, True, True])) == 2


def test_accuracy_counts_codes_and_intervals_draw_patients() -> None:
    ranks, subjects = np.array([1, 1, 6, 4, 9]), np.array([7, 7, 7, 8, 8])
    found = hits(ranks, subjects, 200, 0)
    assert found["codes"] == 5
    assert (found["top1"]["value"], found["top5"]["value"]) == (pytest.approx(2 / 5), pytest.approx(3 / 5))
    assert found["top1"]["low"] == 0 and found["top1"]["high"] == pytest.approx(2 / 3)  # either patient twice
    assert hits(ranks, subjects, 10, 0, ranks > 5)["top1"]["value"] == 0
    assert hits(ranks, subjects, 10, 0, ranks > 50) == {"codes": 0}
    gain = advantage(ranks, np.full(5, 2), subjects, 100, 0)
    assert gain["top1"]["value"] == pytest.approx(2 / 5) and gain["top5"]["value"] == pytest.approx(-2 / 5)

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from einthoven.errors import EinthovenError
from einthoven.evaluation.discrimination import LEAST_POSITIVES, discrimination, weighted_areas, weighted_auroc
from einthoven.evaluation.intervals import interval, weights


@pytest.mark.parametrize("cells", [1, 1 << 22])
@pytest.mark.parametrize("values", [3, 12, 1_000_000])
def test_areas_are_scikit_learns_with_ties_and_weights(monkeypatch, cells, values):
    monkeypatch.setattr("einthoven.evaluation.discrimination.CELLS", cells)
    random = np.random.default_rng(0)
    labels, scores = random.random(80) < 0.3, random.integers(0, values, 80) / 7
    w = weights(random.integers(0, 50, 80), 20, seed=0)
    auroc, auprc = weighted_areas(labels, scores, w)
    np.testing.assert_allclose(auroc, [roc_auc_score(labels, scores, sample_weight=row) for row in w], rtol=1e-12)
    expected = [average_precision_score(labels, scores, sample_weight=row) for row in w]
    np.testing.assert_allclose(auprc, expected, rtol=1e-12)


def test_auprc_is_the_mean_precision_of_a_loop_over_positives():
    random = np.random.default_rng(1)
    labels, scores, w = random.random(40) < 0.4, random.integers(0, 9, 40) / 7, random.integers(0, 4, (6, 40))
    for row, found in zip(w, weighted_areas(labels, scores, w.astype(np.float64))[1], strict=True):
        total = 0.0
        for i in np.flatnonzero(labels):
            reached = row * (scores >= scores[i])
            total += row[i] * (reached[labels].sum() / reached.sum() if row[i] else 0)
        assert found == pytest.approx(total / row[labels].sum())


def test_both_areas_need_positives_and_negatives():
    labels, scores, w = np.array([True, False]), np.array([1.0, 0.0]), np.array([[1, 1], [2, 0], [0, 2.0], [0, 0]])
    for area in weighted_areas(labels, scores, w):
        np.testing.assert_array_equal(area, [1, np.nan, np.nan, np.nan])


def test_chance_is_the_share_of_positives():
    random = np.random.default_rng(0)
    labels, scores = random.random(20_000) < 0.2, random.random(20_000)
    auroc, auprc = weighted_areas(labels, scores, np.ones((1, 20_000), np.float32))
    assert auroc[0] == pytest.approx(0.5, abs=0.02) and auprc[0] == pytest.approx(0.2, abs=0.02)


def test_classes_of_few_are_named_and_left_out_of_the_second_mean():
    random = np.random.default_rng(0)
    counts = (30, LEAST_POSITIVES - 1, LEAST_POSITIVES, 48)
    labels = np.stack([random.permutation(np.arange(60) < count) for count in counts], axis=1)
    scores, subjects = random.normal(size=(60, 4)), np.arange(60)
    found = discrimination(labels, scores, tuple("ABCD"), subjects, 40, 0)
    assert found["few"] == ["B"] and found["left_out"] == []
    for of, area in ((found, roc_auc_score), (found["auprc"], average_precision_score)):
        each = [area(labels[:, c], scores[:, c]) for c in range(4)]
        assert [of["classes"][name]["value"] for name in "ABCD"] == pytest.approx(each)
        assert of["macro"]["value"] == pytest.approx(np.mean(each))
        assert of["macro_frequent"]["value"] == pytest.approx(np.mean([each[0], *each[2:]]))
        w = weights(subjects, 40, 0)
        samples = [np.mean([area(labels[:, c], scores[:, c], sample_weight=row) for c in (0, 2, 3)]) for row in w]
        assert of["macro_frequent"]["low"] == pytest.approx(np.percentile(samples, 2.5))
    only_few = discrimination(labels[:, [1]], scores[:, [1]], ("B",), subjects, 5, 0)
    assert only_few["macro_frequent"] is None and only_few["auprc"]["macro_frequent"] is None


def test_a_label_that_is_not_known_does_not_count():
    random = np.random.default_rng(2)
    labels, known, scores = random.random((60, 1)) < 0.5, random.random((60, 1)) < 0.6, random.normal(size=(60, 1))
    seen = known[:, 0]
    part = discrimination(labels, scores, ("A",), np.arange(60), 0, 0, known)
    assert part["auprc"]["macro"]["value"] == pytest.approx(average_precision_score(labels[seen, 0], scores[seen, 0]))


def test_auroc_without_a_class_is_nan_ignored_and_counted():
    labels, scores, w = np.array([True, False]), np.array([1.0, 0.0]), np.array([[1, 1], [2, 0], [0, 2.0]])
    found = weighted_auroc(labels, scores, w)
    np.testing.assert_array_equal(found, [1, np.nan, np.nan])
    assert interval(1.0, found) == {"value": 1, "low": 1, "high": 1, "undefined": 2}


def test_discrimination_leaves_one_sided_classes_out_and_averages_runs_inside_resamples():
    random = np.random.default_rng(0)
    labels = np.stack([random.random(60) < 0.5, np.zeros(60, bool), random.random(60) < 0.4, np.ones(60, bool)], 1)
    runs, subjects = random.normal(size=(3, 60, 4)), np.arange(60)
    found = discrimination(labels, runs, ("A", "B", "C", "D"), subjects, 50, 0)
    assert found["left_out"] == ["B", "D"] and set(found["classes"]) == {"A", "C"}
    single = [[roc_auc_score(labels[:, c], run[:, c]) for run in runs] for c in (0, 2)]
    assert found["macro"]["value"] == pytest.approx(np.mean(single))
    w = weights(subjects, 50, 0)
    samples = [[roc_auc_score(labels[:, c], r[:, c], sample_weight=x) for c in (0, 2) for r in runs] for x in w]
    assert found["macro"]["low"] == pytest.approx(np.percentile(np.mean(samples, axis=1), 2.5))


def test_discrimination_without_a_two_sided_class_is_an_error():
    with pytest.raises(EinthovenError, match="No class"):
        discrimination(np.ones((4, 1), bool), np.zeros((4, 1)), ("A",), np.arange(4), 10, 0)


def test_auroc_is_that_of_all_pairs():
    random = np.random.default_rng(1)
    labels, scores, w = random.random(40) < 0.4, random.integers(0, 9, 40) / 7, random.integers(0, 4, (6, 40))
    for row, found in zip(w, weighted_auroc(labels, scores, w.astype(np.float32)), strict=True):
        won = all_of_them = 0.0
        for i in np.flatnonzero(labels):
            for j in np.flatnonzero(~labels):
                won += row[i] * row[j] * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
                all_of_them += row[i] * row[j]
        assert found == pytest.approx(won / all_of_them)


def test_average_precision_in_closed_form() -> None:
    one = np.ones((1, 4))

    def auprc(labels, scores, w):
        return weighted_areas(labels, scores, w)[1]

    assert auprc(np.array([1, 0, 1, 0], bool), np.array([4, 3, 2, 1]), one)[0] == (1 + 2 / 3) / 2
    assert auprc(np.array([1, 0, 0, 0], bool), np.zeros(4), one)[0] == 0.25  # chance: the share of positives
    assert np.isnan(auprc(np.zeros(4, bool), np.arange(4), one)[0])

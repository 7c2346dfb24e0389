"""Metrics of fine-tuned classifiers, against closed forms, scikit-learn and resamples computed one by one."""

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import mean_absolute_error, r2_score, roc_auc_score, root_mean_squared_error

from einthoven.errors import EinthovenError
from einthoven.evaluation.discrimination import discrimination
from einthoven.evaluation.finetuned import Run, finetuned_metrics, macro_difference, regression_metrics
from einthoven.evaluation.intervals import weights

NAMES = ("age", "ef")


def numbers(n: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    values = random.normal([60, 0.5], [15, 0.1], (n, 2))
    predictions = values + random.normal(0, [5, 0.05], (n, 2))
    values[::7, 1] = np.nan
    return values, predictions, np.arange(n) // 2


def by_hand(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    return {
        "mae": mean_absolute_error(y, p),
        "rmse": root_mean_squared_error(y, p),
        "r": pearsonr(y, p)[0],
        "r2": r2_score(y, p),
    }


def test_errors_are_those_of_scikit_learn_over_the_known_values() -> None:
    values, predictions, subjects = numbers()
    found = regression_metrics(values, predictions, NAMES, subjects, 0, 0)
    for c, name in enumerate(NAMES):
        known = ~np.isnan(values[:, c])
        expected = by_hand(values[known, c], predictions[known, c])
        assert {k: v["value"] for k, v in found["labels"][name].items()} == pytest.approx(expected, rel=1e-9)
    assert found["macro"]["value"] == pytest.approx(np.mean([found["labels"][n]["r2"]["value"] for n in NAMES]))


def test_a_constant_shift_has_a_closed_form() -> None:
    y = np.arange(10.0)[:, None]
    found = regression_metrics(y, y + 2, ("x",), np.arange(10), 0, 0)["labels"]["x"]
    expected = {"mae": 2, "rmse": 2, "r": 1, "r2": 1 - 4 / 8.25}  # the variance of 0 to 9 is 99 / 12
    assert {name: each["value"] for name, each in found.items()} == pytest.approx(expected)


def test_intervals_are_the_percentiles_of_resampled_patients() -> None:
    values, predictions, subjects = numbers()
    found = regression_metrics(values, predictions, NAMES, subjects, 50, 3)["labels"]["ef"]
    resampled = []
    for row in weights(subjects, 50, 3).astype(int):
        y, p = (np.repeat(of[:, 1], row) for of in (values, predictions))
        resampled.append(by_hand(y[~np.isnan(y)], p[~np.isnan(y)]))
    for name, each in found.items():
        expected = np.percentile([one[name] for one in resampled], [2.5, 97.5])
        assert (each["low"], each["high"]) == pytest.approx(tuple(expected), rel=1e-6), name


def test_what_is_constant_has_no_correlation_and_what_is_unknown_is_left_out() -> None:
    values = np.array([[1.0, np.nan], [2.0, np.nan], [3.0, 1.0]])
    found = regression_metrics(values, np.full((3, 2), 5.0), NAMES, np.arange(3), 0, 0)
    assert np.isnan(found["labels"]["age"]["r"]["value"]) and found["left_out"] == ["ef"]
    assert found["labels"]["age"]["mae"]["value"] == pytest.approx(3)
    with pytest.raises(EinthovenError, match="two known values"):
        regression_metrics(values[:, 1:], np.zeros((3, 1)), ("ef",), np.arange(3), 0, 0)


def test_unknown_classes_are_left_out_and_known_ones_are_as_ever() -> None:
    random = np.random.default_rng(1)
    labels, scores, subjects = random.random((80, 2)) < 0.4, random.normal(size=(80, 2)), np.arange(80) // 2
    known = random.random((80, 2)) < 0.7
    part = discrimination(labels, scores, NAMES, subjects, 20, 0, known)
    for c, name in enumerate(NAMES):
        expected = roc_auc_score(labels[known[:, c], c], scores[known[:, c], c])
        assert part["classes"][name]["value"] == pytest.approx(expected)
    everything = discrimination(labels, scores, NAMES, subjects, 20, 0, np.ones_like(known))
    assert everything == discrimination(labels, scores, NAMES, subjects, 20, 0)


@pytest.mark.parametrize("task", ["classes", "regression"])
def test_a_fraction_is_the_mean_over_its_subsets(task: str) -> None:
    values, predictions, subjects = numbers()
    if task == "classes":
        values = np.where(np.isnan(values), np.nan, values > [60, 0.5])
    runs = [Run(0.1, s, predictions * [1 + s, 1], {"subset": s}) for s in range(2)] + [Run(1.0, 0, predictions, {})]
    found = finetuned_metrics(runs, values, NAMES, subjects, task=task, resamples=10)
    assert list(found) == ["0.1", "1"] and [each["subset"] for each in found["0.1"]["subsets"]] == [0, 1]
    means = np.mean([each["macro"] for each in found["0.1"]["subsets"]])
    assert found["0.1"]["macro"]["value"] == pytest.approx(means)
    assert found["1"]["subsets"][0]["macro"] == pytest.approx(found["1"]["macro"]["value"])
    assert found["0.1"]["macro"]["low"] <= means <= found["0.1"]["macro"]["high"]


def test_a_difference_is_that_of_the_same_resampled_patients_for_both() -> None:
    random = np.random.default_rng(5)
    subjects = np.arange(80) // 2
    values = (random.random((80, 2)) < 0.4).astype(float)
    values[::9, 1] = np.nan
    first, second = values + random.normal(0, 1, (2, 80, 2)), values + random.normal(0, 2, (3, 80, 2))
    first, second = np.nan_to_num(first), np.nan_to_num(second)

    def macro(runs: np.ndarray, times: np.ndarray) -> float:
        each = []
        for run in runs:
            for c in range(2):
                seen = ~np.isnan(values[:, c]) & (times > 0)
                each.append(roc_auc_score(values[seen, c], run[seen, c], sample_weight=times[seen]))
        return float(np.mean(each))

    found = macro_difference(values, first, second, subjects, resamples=60, seed=2)
    assert found["value"] == pytest.approx(macro(first, np.ones(80)) - macro(second, np.ones(80)))
    resampled = [macro(first, row) - macro(second, row) for row in weights(subjects, 60, 2)]
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.percentile(resampled, [2.5, 97.5])))
    same = macro_difference(values, first, first, subjects, resamples=20)
    assert (same["value"], same["low"], same["high"]) == (0, 0, 0)
    with pytest.raises(EinthovenError, match="AUROC is not defined"):
        macro_difference(np.ones((80, 2)), first, second, subjects)

import json
import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from einthoven.errors import EinthovenError
from einthoven.evaluation.transfer import (
    FALLBACK,
    FOLDS,
    GRID,
    Probe,
    choose_strength,
    fit_probes,
    patient_subset,
    probe_metrics,
)


def example(n: int, seed: int = 0, classes: int = 3):
    random = np.random.default_rng(seed)
    features = random.normal(size=(n, 8))
    labels = features[:, :classes] + random.normal(size=(n, classes)) > 0.5
    return features.astype(np.float32), labels, random.integers(0, max(1, n // 2), n)


def test_scores_are_those_of_scikit_learn_one_class_at_a_time():
    (features, labels, subjects), (others, truth, _) = example(300), example(100, seed=1)
    features, others = features * 3 + 5, others * 3 + 5
    (probe,) = fit_probes(features, labels, subjects, ("A", "B", "C"), fractions=(1.0,))
    scores = probe.scores(others)
    scaler = StandardScaler().fit(features)
    for c in range(3):
        model = LogisticRegression(C=probe.strength, max_iter=1000, tol=1e-8).fit(
            scaler.transform(features), labels[:, c]
        )
        expected = model.decision_function(scaler.transform(others))
        np.testing.assert_allclose(scores[:, c], expected, atol=0.05)
        assert roc_auc_score(truth[:, c], scores[:, c]) == pytest.approx(roc_auc_score(truth[:, c], expected), abs=5e-3)


def test_subsets_are_of_whole_patients_seeded_and_nested():
    subjects = np.random.default_rng(0).integers(0, 200, 500)
    small, large = patient_subset(subjects, 0.1, 0, 2), patient_subset(subjects, 0.5, 0, 2)
    assert not set(subjects[small]) & set(subjects[~small])
    assert (large | ~small).all()
    assert len(set(subjects[small])) == round(0.1 * len(set(subjects)))
    assert (patient_subset(subjects, 0.1, 0, 2) == small).all()
    assert (patient_subset(subjects, 0.1, 0, 3) != small).any() and (patient_subset(subjects, 0.1, 1, 2) != small).any()
    assert patient_subset(subjects, 1.0, 0, 0).all()


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5])
def test_impossible_fractions_are_errors(fraction):
    with pytest.raises(EinthovenError, match="fractions"):
        patient_subset(np.arange(5), fraction, 0, 0)


def test_the_chosen_strength_has_the_best_cross_validated_auroc():
    features, labels, subjects = example(90)
    noisy = np.concatenate([features, np.random.default_rng(1).normal(size=(90, 40))], axis=1)
    means = []
    for strength in GRID:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
        folds = GroupKFold(FOLDS, shuffle=True, random_state=0)
        each = [cross_val_score(model, noisy, y, groups=subjects, cv=folds, scoring="roc_auc") for y in labels.T]
        means.append(np.mean(each))
    chosen = means[GRID.index(choose_strength(noisy, labels, subjects, 0))]
    assert chosen == pytest.approx(max(means), abs=5e-3)


def test_a_subset_in_which_no_fold_can_tell_falls_back():
    features, _, _ = example(6)
    labels = np.zeros((6, 2), bool)
    labels[0, 0] = True
    assert choose_strength(features, labels, np.arange(6), 0) == FALLBACK
    assert choose_strength(features, ~labels, np.zeros(6, int), 0) == FALLBACK


def test_probe_reports_every_subset_and_the_mean_over_them_and_warns_of_nothing():
    train, (others, truth, patients) = example(400), example(150, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probes = fit_probes(*train, ("A", "B", "C"), subsets=3)
        found = probe_metrics(probes, others, truth, patients, ("A", "B", "C"), resamples=30)["fractions"]
    assert list(found) == ["0.01", "0.1", "1"]
    assert [len(values["subsets"]) for values in found.values()] == [3, 3, 1]
    for values in found.values():
        assert values["macro"]["value"] == pytest.approx(np.mean([run["macro"] for run in values["subsets"]]))
        assert values["macro"]["low"] <= values["macro"]["value"] <= values["macro"]["high"]
    assert found["1"]["subsets"][0]["recordings"] == 400
    assert found["1"]["macro"]["value"] > 0.75 > 0.5


def test_a_class_without_a_positive_label_is_named_and_scores_one_half():
    (features, labels, subjects), evaluation = example(60), example(50, seed=1)
    labels[:, 1] = False
    probes = fit_probes(features, labels, subjects, ("A", "B", "C"), fractions=(1.0,))
    found = probe_metrics(probes, *evaluation, ("A", "B", "C"), resamples=5)
    assert found["fractions"]["1"]["subsets"][0]["unlearnt"] == ["B"]
    assert found["fractions"]["1"]["classes"]["B"]["value"] == 0.5


def test_an_empty_split_is_an_error():
    features, labels, subjects = example(10)
    with pytest.raises(EinthovenError, match="training split"):
        fit_probes(features[:0], labels[:0], subjects[:0], ("A", "B", "C"))
    with pytest.raises(EinthovenError, match="evaluation split"):
        probe_metrics([], features[:0], labels[:0], subjects[:0], ("A", "B", "C"))


def test_a_probe_survives_its_facts_in_json():
    (probe,) = fit_probes(*example(40), ("A", "B", "C"), fractions=(1.0,))
    again = Probe.of(probe.weight, probe.bias, json.loads(json.dumps(probe.facts())))
    assert again.facts() == probe.facts() and again.weight is probe.weight

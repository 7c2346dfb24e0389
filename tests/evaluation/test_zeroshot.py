import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from einthoven.errors import EinthovenError
from einthoven.evaluation.zeroshot import ENSEMBLES, PROMPTS, TEMPERATURE, prompt_scores, zero_shot


def test_every_class_has_prompts_in_both_languages_written_as_the_reports_are():
    assert tuple(PROMPTS) == ("NORM", "MI", "STTC", "CD", "HYP")
    for languages in PROMPTS.values():
        assert set(languages) == {"german", "english"}
        for prompts in languages.values():
            assert 8 <= len(prompts) <= 14 and len(set(prompts)) == len(prompts)
            assert all(prompt == prompt.lower().strip() for prompt in prompts)


def test_no_prompt_serves_two_classes():
    everything = [prompt for languages in PROMPTS.values() for prompts in languages.values() for prompt in prompts]
    assert len(set(everything)) == len(everything)


def test_scores_equal_a_naive_loop():
    random = np.random.default_rng(0)
    ecg, prompts = random.normal(size=(5, 4)), {"A": random.normal(size=(3, 4)), "B": random.normal(size=(1, 4))}
    cosine = {
        n: [[e @ p / np.linalg.norm(e) / np.linalg.norm(p) for p in ps] for e in ecg] for n, ps in prompts.items()
    }
    units = {n: np.array([p / np.linalg.norm(p) for p in ps]).mean(0) for n, ps in prompts.items()}
    mean = [[e @ m / np.linalg.norm(e) / np.linalg.norm(m) for m in units.values()] for e in ecg]
    smooth = [TEMPERATURE * np.log(np.exp(np.array(c) / TEMPERATURE).mean(1)) for c in cosine.values()]
    np.testing.assert_allclose(prompt_scores(ecg, prompts, "mean"), mean, atol=1e-6)
    np.testing.assert_allclose(prompt_scores(ecg, prompts, "max").T, [np.max(c, 1) for c in cosine.values()], atol=1e-6)
    np.testing.assert_allclose(prompt_scores(ecg, prompts, "logsumexp").T, smooth, atol=1e-6)
    sharp = [0.05 * np.log(np.exp(np.array(c) / 0.05).mean(1)) for c in cosine.values()]
    np.testing.assert_allclose(prompt_scores(ecg, prompts, "logsumexp", 0.05).T, sharp, atol=1e-6)
    a, b = smooth
    np.testing.assert_allclose(prompt_scores(ecg, prompts, "contrast").T, [a - b, b - a], atol=1e-6)


def test_a_finding_is_held_against_norm_and_norm_against_the_others():
    random = np.random.default_rng(1)
    ecg, prompts = random.normal(size=(5, 4)), {name: random.normal(size=(2, 4)) for name in ("MI", "NORM", "CD")}
    mi, norm, cd = prompt_scores(ecg, prompts, "logsumexp").T
    expected = np.array([mi - norm, norm - (mi + cd) / 2, cd - norm]).T
    np.testing.assert_allclose(prompt_scores(ecg, prompts, "contrast"), expected, atol=1e-6)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_auroc_is_scikit_learns(ensemble):
    random = np.random.default_rng(0)
    ecg, labels = random.normal(size=(50, 4)), random.random((50, 2)) < 0.4
    prompts = {"A": random.normal(size=(3, 4)), "B": random.normal(size=(2, 4))}
    found = zero_shot(ecg, prompts, labels, np.arange(50), ensemble=ensemble, resamples=20)
    scores = prompt_scores(ecg, prompts, ensemble)
    expected = [roc_auc_score(labels[:, c], scores[:, c]) for c in range(2)]
    assert [v["value"] for v in found["classes"].values()] == pytest.approx(expected)
    assert found["macro"]["value"] == pytest.approx(np.mean(expected))
    assert (found["ensemble"], found["recordings"], found["left_out"]) == (ensemble, 50, [])


def test_labels_that_do_not_fit_and_unknown_ensembles_are_errors():
    with pytest.raises(EinthovenError, match="do not fit"):
        zero_shot(np.eye(3), {"A": np.eye(3)}, np.ones((3, 2), bool), np.arange(3))
    with pytest.raises(EinthovenError, match="Unknown prompt ensemble"):
        prompt_scores(np.eye(3), {"A": np.eye(3)}, "median")

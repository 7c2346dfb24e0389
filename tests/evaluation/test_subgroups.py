import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from einthoven.disclosure import HIDDEN
from einthoven.evaluation.intervals import bootstrap, weighted_mean
from einthoven.evaluation.retrieval import all_ranked
from einthoven.evaluation.scores import Scores
from einthoven.evaluation.subgroups import SMALLER, UNKNOWN, band, subgroups

N = 300


@pytest.fixture(scope="module")
def scores() -> Scores:
    random = np.random.default_rng(0)
    labels = random.random((N, 2)) < [0.3, 0.05]
    kept = Scores.of([str(i) for i in range(N)], np.arange(N) // 2, ("A", "B"), labels, np.ones(N, bool))
    kept.add_scores("probe/1/0", np.ones(N, bool), ("A", "B"), random.normal(size=(N, 2)) + labels)
    text = random.normal(size=(N, 6))
    groups = np.arange(N)
    kept.add_ranks("retrieval", groups >= 0, all_ranked(text + random.normal(size=text.shape), text, groups), groups)
    return kept


def test_each_group_is_measured_on_its_own(scores: Scores) -> None:
    of = ["female"] * 160 + ["male"] * 140
    rows = subgroups(scores, {"sex": of}, resamples=30, seed=3)
    assert [(row["group"], row["recordings"], row["patients"]) for row in rows] == [
        ("female", 160, 80),
        ("male", 140, 70),
    ]
    for row, mask in zip(rows, (np.arange(N) < 160, np.arange(N) >= 160), strict=True):
        hits = (scores.ranks["retrieval/ecg_to_text/distinct"][mask] <= 10).astype(float)
        expected = bootstrap(scores.subjects[mask], lambda w, hits=hits: {"m": weighted_mean(hits, w)}, 30, 3)["m"]
        assert row["recall@10"] == pytest.approx(expected)
        aurocs = [roc_auc_score(scores.labels[c][mask], scores.scores[f"probe/1/0/{c}"][mask]) for c in "AB"]
        assert row["probe"]["macro"]["value"] == pytest.approx(np.mean(aurocs), abs=1e-6)
        few = [c for c in "AB" if scores.labels[c][mask].sum() < 10]
        assert row["probe"]["few"] == few == ["B"]
        assert row["probe"]["macro_frequent"]["value"] == pytest.approx(aurocs[0], abs=1e-6)
        assert row["zeroshot"] is None


def test_small_groups_have_no_results_and_do_not_follow_from_the_others(scores: Scores) -> None:
    of = ["CS-12"] * 200 + ["AT-6"] * 92 + ["rare"] * 5 + ["rarer"] * 3
    rows = subgroups(scores, {"device": of}, resamples=5)
    assert [row["group"] for row in rows] == ["AT-6", "CS-12", SMALLER]
    assert rows[2] == {"attribute": "device", "group": SMALLER, "recordings": "<11", "patients": "<11",
                       "recall@10": None, "probe": None, "zeroshot": None}  # fmt: skip
    assert rows[0]["recordings"] == HIDDEN and rows[1]["recordings"] == 200


def test_many_recordings_of_few_patients_are_a_small_group(scores: Scores) -> None:
    few = Scores(scores.recording_ids, np.where(np.arange(N) < 100, 0, scores.subjects), scores.texts, scores.records,
                 scores.labels, scores.ranks, scores.scores)  # fmt: skip
    rows = subgroups(few, {"site": ["one"] * 100 + [UNKNOWN] * 200}, resamples=5)
    assert [row["group"] for row in rows] == [UNKNOWN, SMALLER] and rows[1]["probe"] is None


def test_a_group_without_two_sides_has_no_auroc(scores: Scores) -> None:
    plain = Scores(scores.recording_ids, scores.subjects, scores.texts, scores.records,
                   {c: np.zeros(N) for c in "AB"}, {}, scores.scores)  # fmt: skip
    (row,) = subgroups(plain, {"sex": ["male"] * N}, resamples=5)
    assert row["probe"] is None and row["recall@10"] is None and row["recordings"] == N


def test_bands_of_age() -> None:
    assert [band(age) for age in (0, 39.9, 40, 64.9, 65, 79, 80, 90)] == [
        "under 40", "under 40", "40–64", "40–64", "65–79", "65–79", "80 and over", "80 and over",
    ]  # fmt: skip

import numpy as np
import pytest

from einthoven.errors import EinthovenError
from einthoven.evaluation import retrieval as module
from einthoven.evaluation.intervals import weights
from einthoven.evaluation.retrieval import all_ranks, best_ranks, retrieval, unit


def naive_ranks(queries, gallery, query_groups, gallery_groups):
    ranks = []
    for query, group in zip(unit(queries), query_groups, strict=True):
        scored = [(float(query @ item), g == group) for item, g in zip(unit(gallery), gallery_groups, strict=True)]
        best = max(score for score, relevant in scored if relevant)
        ranks.append(1 + sum(not relevant and score >= best - module.TIE for score, relevant in scored))
    return ranks


@pytest.mark.parametrize("cells", [1, 100, 1 << 23])
def test_ranks_equal_a_naive_loop(monkeypatch, cells):
    monkeypatch.setattr(module, "CELLS", cells)
    random = np.random.default_rng(0)
    queries, gallery = random.normal(size=(40, 6)), random.normal(size=(60, 6))
    query_groups, gallery_groups = random.integers(0, 15, 40), np.arange(60) % 15
    found = best_ranks(queries, gallery, query_groups, gallery_groups)
    assert found.tolist() == naive_ranks(queries, gallery, query_groups, gallery_groups)


def test_a_collapsed_model_is_ranked_last():
    same = np.random.default_rng(0).normal(size=(1, 256)).repeat(37, axis=0)
    assert (best_ranks(same, same, np.arange(37), np.arange(37)) == 37).all()


def test_a_query_without_a_relevant_item_is_an_error():
    with pytest.raises(EinthovenError, match="no relevant item"):
        best_ranks(np.eye(2), np.eye(2), np.array([0, 5]), np.array([0, 1]))


def test_nan_embeddings_are_an_error():
    with pytest.raises(EinthovenError, match="diverged"):
        best_ranks(np.full((2, 2), np.nan), np.eye(2), np.arange(2), np.arange(2))


def test_perfect_embeddings_have_rank_one_everywhere():
    groups = np.array([0, 1, 1, 2, 0, 3])
    vectors = np.eye(4)[groups]
    found = retrieval(vectors, vectors, groups, np.arange(6), resamples=20)
    for direction in found.values():
        for gallery in direction.values():
            assert gallery["recall@1"] == {"value": 1, "low": 1, "high": 1}
            assert gallery["median_rank"] == {"value": 1, "low": 1, "high": 1}
    sizes = {(d, g): (v["queries"], v["gallery"]) for d, x in found.items() for g, v in x.items()}
    assert sizes == {
        ("ecg_to_text", "distinct"): (6, 4),
        ("ecg_to_text", "all"): (6, 6),
        ("text_to_ecg", "distinct"): (4, 6),
        ("text_to_ecg", "all"): (6, 6),
    }


def test_values_are_plain_means_over_queries():
    random = np.random.default_rng(1)
    groups = random.integers(0, 25, 60)
    text = random.normal(size=(25, 5))[groups]
    ecg = text + random.normal(size=(60, 5))
    found, ranks = retrieval(ecg, text, groups, np.arange(60) // 2, resamples=30), all_ranks(ecg, text, groups)
    for direction, galleries in found.items():
        for name, values in galleries.items():
            r = ranks[direction][name]
            assert len(r) == values["queries"]
            assert values["recall@5"]["value"] == pytest.approx((r <= 5).mean())
            assert values["median_rank"]["value"] == np.median(r)
            assert values["recall@5"]["low"] <= values["recall@5"]["value"] <= values["recall@5"]["high"]


def test_a_distinct_text_weighs_as_the_mean_multiplicity_of_its_recordings():
    ranks, text_of, subjects = np.array([1, 9]), np.array([0, 0, 1]), np.array([10, 11, 12])
    found = module._summary(ranks, text_of, subjects, 500, 3)["recall@1"]
    samples = []
    for w in weights(subjects, 500, 3):
        texts = np.array([(w[0] + w[1]) / 2, w[2]])
        samples.append(texts[0] / texts.sum())
    assert found["value"] == 0.5
    assert found["low"] == pytest.approx(np.percentile(samples, 2.5))
    assert found["high"] == pytest.approx(np.percentile(samples, 97.5))


def test_unequal_lengths_are_an_error():
    with pytest.raises(EinthovenError, match="one each per recording"):
        all_ranks(np.eye(3), np.eye(2), np.arange(3))

import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from einthoven.errors import EinthovenError
from einthoven.evaluation import retrieval as module
from einthoven.evaluation.intervals import weights
from einthoven.evaluation.retrieval import all_ranked, best_ranks, ranked, retrieval, unit


def naive_ranks(queries, gallery, query_groups, gallery_groups):
    ranks = []
    for query, group in zip(unit(queries), query_groups, strict=True):
        scored = [(float(query @ item), g == group) for item, g in zip(unit(gallery), gallery_groups, strict=True)]
        best = max(score for score, relevant in scored if relevant)
        ranks.append(1 + sum(not relevant and score >= best - module.TIE for score, relevant in scored))
    return ranks


def naive_precision(queries, gallery, query_groups, gallery_groups):
    """Average precision by the book: walk down the ranking, note the precision at each relevant item; of tied items the
    unrelated ones come first."""
    result = []
    for query, group in zip(unit(queries), query_groups, strict=True):
        scores = (unit(gallery) @ query).astype(float) - module.TIE * (gallery_groups == group)
        order = np.argsort(-scores, kind="stable")
        noted, hits = [], 0
        for place, item in enumerate(order, start=1):
            if gallery_groups[item] == group:
                hits += 1
                noted.append(hits / place)
        result.append(sum(noted) / len(noted))
    return result


@pytest.mark.parametrize("few", [0, 3, 100])  # counted, sorted, and both
def test_average_precision_equals_a_naive_loop_and_scikit_learns(monkeypatch, few):
    monkeypatch.setattr(module, "FEW", few)
    random = np.random.default_rng(2)
    queries, gallery = random.normal(size=(30, 5)), random.normal(size=(70, 5))
    query_groups, gallery_groups = random.integers(0, 12, 30), np.r_[np.arange(12), random.integers(0, 12, 58)]
    found = ranked(queries, gallery, query_groups, gallery_groups).precision
    assert found == pytest.approx(naive_precision(queries, gallery, query_groups, gallery_groups))
    scores = unit(queries) @ unit(gallery).T
    theirs = [average_precision_score(gallery_groups == g, s) for g, s in zip(query_groups, scores, strict=True)]
    assert found == pytest.approx(theirs)


def test_ties_are_counted_against_average_precision_too():
    gallery = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    found = ranked(np.array([[1.0, 0]]), gallery, np.array([0]), np.array([1, 0, 1, 0]))
    assert found.best.tolist() == [3] and found.precision.tolist() == [(1 / 3 + 2 / 4) / 2]


@pytest.mark.parametrize("cells", [1, 101, 997, 7919])
def test_chunks_of_any_size_give_what_one_piece_gives(monkeypatch, cells):
    random = np.random.default_rng(3)
    groups = np.minimum(random.geometric(0.1, 300), 40)  # some large, some of one
    ecg, text = random.normal(size=(300, 16)), random.normal(size=(300, 16))
    whole = ranked(ecg, text, groups, groups)
    monkeypatch.setattr(module, "CELLS", cells)
    parts = ranked(ecg, text, groups, groups)
    assert parts.best.tolist() == whole.best.tolist() and parts.precision.tolist() == whole.precision.tolist()


def test_no_more_similarities_than_cells_are_held(monkeypatch):
    random = np.random.default_rng(4)
    n = 3000
    vectors = random.normal(size=(n, 4)).astype(np.float32)
    monkeypatch.setattr(module, "CELLS", 10 * n)
    tracemalloc.start()
    ranked(vectors, vectors, np.arange(n) % 50, np.arange(n) % 50)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 10 * n + 60 * 8 * n  # cells and some vectors; all similarities would be 36 MB


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
            assert gallery["map"] == {"value": 1, "low": 1, "high": 1}
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
    found, behind = retrieval(ecg, text, groups, np.arange(60) // 2, resamples=30), all_ranked(ecg, text, groups)
    for direction, galleries in found.items():
        for name, values in galleries.items():
            r, precision = behind[direction][name]
            assert len(r) == values["queries"]
            assert values["recall@5"]["value"] == pytest.approx((r <= 5).mean())
            assert values["median_rank"]["value"] == np.median(r)
            assert values["map"]["value"] == pytest.approx(precision.mean())
            assert values["recall@5"]["low"] <= values["recall@5"]["value"] <= values["recall@5"]["high"]


def test_a_distinct_text_weighs_as_the_mean_multiplicity_of_its_recordings():
    ranks, text_of, subjects = np.array([1, 9]), np.array([0, 0, 1]), np.array([10, 11, 12])
    found = module._summary(module.Ranked(ranks, 1 / ranks), text_of, subjects, 500, 3)["recall@1"]
    samples = []
    for w in weights(subjects, 500, 3):
        texts = np.array([(w[0] + w[1]) / 2, w[2]])
        samples.append(texts[0] / texts.sum())
    assert found["value"] == 0.5
    assert found["low"] == pytest.approx(np.percentile(samples, 2.5))
    assert found["high"] == pytest.approx(np.percentile(samples, 97.5))


def test_what_has_the_same_findings_is_relevant_however_it_is_worded():
    random = np.random.default_rng(5)
    groups, findings = random.integers(0, 20, 50), random.integers(-1, 4, 50)
    text = random.normal(size=(20, 6))[groups]
    ecg = text + random.normal(size=(50, 6))
    found = retrieval(ecg, text, groups, np.arange(50), findings=findings, resamples=10)
    known = findings >= 0
    for direction, (queries, gallery) in {"ecg_to_text": (ecg, text), "text_to_ecg": (text, ecg)}.items():
        arguments = queries[known], gallery[known], findings[known], findings[known]
        part = found[direction]["findings"]
        assert part["queries"] == part["gallery"] == known.sum()
        assert part["map"]["value"] == pytest.approx(np.mean(naive_precision(*arguments)))
        assert part["median_rank"]["value"] == np.median(naive_ranks(*arguments))
    assert (
        found["ecg_to_text"]["distinct"]
        == retrieval(ecg, text, groups, np.arange(50), resamples=10)["ecg_to_text"]["distinct"]
    )
    nothing = retrieval(ecg, text, groups, np.arange(50), findings=np.full(50, -1), resamples=0)
    assert "findings" not in nothing["ecg_to_text"]


def test_unequal_lengths_are_an_error():
    with pytest.raises(EinthovenError, match="one each per recording"):
        all_ranked(np.eye(3), np.eye(2), np.arange(3))

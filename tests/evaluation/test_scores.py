import numpy as np
import pyarrow.parquet as pq
import pytest

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.evaluation.retrieval import all_ranked
from einthoven.evaluation.scores import MAPS, NONE, Scores, read_scores, write_scores


def scores() -> Scores:
    random = np.random.default_rng(0)
    known, told = random.random(30) < 0.8, random.random(30) < 0.7
    kept = Scores.of([f"r{i}" for i in range(30)], 7_000_000 + np.arange(30) // 2, ("A", "B/C"),
                     random.random((30, 2)) < 0.4, known)  # fmt: skip
    groups = random.integers(0, 6, told.sum())
    text = random.normal(size=(6, 5))[groups]
    kept.add_ranks("retrieval", told, all_ranked(text + random.normal(size=text.shape), text, groups), groups)
    kept.add_scores("zeroshot", known, ("A",), random.normal(size=(known.sum(), 1)))
    for part in ("probe/1/0", "probe/0.1/0", "probe/0.1/1"):
        kept.add_scores(part, known, ("A", "B/C"), random.normal(size=(known.sum(), 2)))
    return kept


def test_what_is_written_is_read(tmp_path) -> None:
    written = {
        "model": scores(),
        "random_init": Scores.of(["x"], np.array([5]), (), np.zeros((1, 0), bool), np.ones(1, bool)),
    }
    write_scores(tmp_path, written)
    found = read_scores(tmp_path)
    assert list(found) == ["model", "random_init"]
    for name, one in found.items():
        for key, value in vars(written[name]).items():
            if isinstance(value, dict):
                assert list(getattr(one, key)) == list(value)
            np.testing.assert_equal(getattr(one, key), value)


def test_the_table_says_what_a_recording_got_and_not_who_it_is_of(tmp_path) -> None:
    kept = scores()
    write_scores(tmp_path, {"model": kept})
    rows = pq.read_table(schema.SCORES.at(tmp_path)).to_pylist()
    assert {row["subject"] for row in rows} == set(range(15))
    assert any(row["text"] is None and row["ranks"] is None for row in rows)
    for i, row in enumerate(rows):
        for column in MAPS:
            there = {name: values[i] for name, values in getattr(kept, column).items() if not np.isnan(values[i])}
            assert dict(row[column] or ()) == there


def test_ranks_of_distinct_texts_are_given_back_once_each() -> None:
    kept = scores()
    there, found, query_of = kept.queries("retrieval/text_to_ecg/distinct")
    assert len(found.best) == len(set(kept.texts[kept.texts != NONE])) and (there == (kept.texts != NONE)).all()
    np.testing.assert_array_equal(found.best[query_of], kept.ranks["retrieval/text_to_ecg/all"][there])
    np.testing.assert_array_equal(found.precision[query_of], kept.precisions["retrieval/text_to_ecg/all"][there])
    _, found, query_of = kept.queries("retrieval/ecg_to_text/distinct")
    assert len(found.best) == len(found.precision) == len(query_of) == there.sum()


def test_scores_are_found_by_part() -> None:
    kept = scores()
    assert kept.probes() == {"0.1": ["probe/0.1/0", "probe/0.1/1"], "1": ["probe/1/0"]}
    found = kept.matrix("probe/0.1/1")
    assert found is not None and found[0] == ("A", "B/C") and found[2].shape == found[3].shape == (found[1].sum(), 2)
    np.testing.assert_array_equal(found[3][:, 1], kept.scores["probe/0.1/1/B/C"][found[1]])
    assert kept.matrix("zeroshot_codes") is None


def test_a_report_without_scores_is_told(tmp_path) -> None:
    with pytest.raises(EinthovenError, match=r"scores\.parquet is missing"):
        read_scores(tmp_path)

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from einthoven.batches import Codes, Pairs, Texts, ask, deal, drop_words, epoch_batches, make_batch, stretch
from einthoven.config import Augmentation
from einthoven.encoders.code_records import CodeSequence, Records

PLAIN = Augmentation(scale=0, noise_mv=0, wander_mv=0, lead_dropout=0, word_dropout=0)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=120), st.integers(1, 40), st.integers(0, 5))
def test_every_pair_is_dealt_once_into_batches_of_about_equal_size(subjects, batch, epoch) -> None:
    hands = deal(np.array(subjects), batch, seed=3, epoch=epoch)
    assert sorted(np.concatenate(hands).tolist()) == list(range(len(subjects)))
    sizes = [len(hand) for hand in hands]
    assert max(sizes) - min(sizes) <= 1


@given(st.lists(st.integers(0, 20), min_size=1, max_size=120), st.integers(1, 40))
def test_a_patient_comes_twice_in_a_batch_only_with_more_recordings_than_batches(subjects, batch) -> None:
    subjects = np.array(subjects)
    hands = deal(subjects, batch, seed=0, epoch=0)
    for hand in hands:
        patients, times = np.unique(subjects[hand], return_counts=True)
        for patient, count in zip(patients, times, strict=True):
            assert count <= -(-int((subjects == patient).sum()) // len(hands))


def test_epochs_differ_and_repeat() -> None:
    subjects = np.arange(50)
    first, again, second = (deal(subjects, 10, seed=1, epoch=e) for e in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def pairs(n: int = 20) -> Pairs:
    signals = np.arange(n * 12 * 50, dtype=np.int16).reshape(n, 12, 50)
    tokens = torch.arange(n * 6).reshape(n, 6) + 10
    texts = Texts(np.arange(n), tokens, torch.ones_like(tokens), 4, torch.arange(200) >= 5)
    return Pairs(np.arange(n), np.arange(n) // 2, lambda rows: signals[rows], texts)


def test_dropped_words_are_masked_and_special_tokens_stay() -> None:
    tokens = torch.tensor([[2, 10, 11, 3, 0]])
    dropped = drop_words(tokens, pairs().texts, 1.0, np.random.default_rng(0))
    assert dropped.tolist() == [[2, 4, 4, 3, 0]]


@given(st.integers(2, 12), st.integers(0, 1000))
def test_a_stretch_is_a_part_of_the_text_between_its_ends(words: int, seed: int) -> None:
    text = [2, *range(10, 10 + words), 3, 0, 0]
    tokens = torch.tensor([text, text])
    mask = (tokens != 0).long()
    shown, seen = stretch(tokens, mask, torch.tensor([True, False]), np.random.default_rng(seed))
    assert shown[1].tolist() == text and seen[1].tolist() == mask[1].tolist()
    part = shown[0][seen[0].bool()].tolist()
    assert part[0] == 2 and part[-1] == 3 and 1 <= len(part) - 2 < words
    assert part[1:-1] == list(range(part[1], part[1] + len(part) - 2))
    assert not shown[0][~seen[0].bool()].any()


@given(st.lists(st.integers(0, 12), max_size=20), st.integers(0, 1000))
def test_a_question_has_some_codes_of_the_record_and_nothing_else(codes: list[int], seed: int) -> None:
    tokens = np.array(codes, np.int64)
    record = CodeSequence(tokens, tokens % 3 + 1, np.linspace(-300, 0, len(codes)), 50.0)
    asked = ask(record, np.random.default_rng(seed))
    known = {code for code in codes if code >= 5}
    if not known:
        assert asked is record
        return
    assert 1 <= len(asked.tokens) == len(set(asked.tokens.tolist())) and set(asked.tokens.tolist()) <= known
    assert (asked.kinds == asked.tokens % 3 + 1).all() and not asked.days.any() and np.isnan(asked.age)


def test_a_batch_with_queries_keeps_what_they_are_parts_of() -> None:
    each, lengths = pairs(8), np.arange(1, 9)
    records = Records(
        np.arange(5, 5 + lengths.sum()),
        np.full(lengths.sum(), 2, np.int8),
        np.full(lengths.sum(), 3, np.float32),
        np.concatenate([[0], np.cumsum(lengths)]),
        np.full(8, 60, np.float32),
    )
    each = replace(each, codes=Codes(records, np.arange(8), 6))
    options = replace(PLAIN, text_queries=0.5, code_queries=0.5, code_dropout=0.9)
    batch = make_batch(each, np.arange(8), 30, 100, options, [0, 4])
    for query, shown, mask, whole in zip(batch.text_query, batch.tokens, batch.mask, batch.whole_text, strict=True):
        assert bool(query) == (int(mask.sum()) < 6) and set(shown[mask.bool()].tolist()) <= set(whole.tolist())
    assert 0 < int(batch.text_query.sum()) < 8 and 0 < int(batch.code_query.sum()) < 8
    for row, query in enumerate(batch.code_query.tolist()):
        shown = batch.codes.tokens[row][batch.codes.mask[row]][1:]
        known = batch.whole_codes[row]
        assert len(known[known > 4]) == min(6, row + 1)
        if query:  # whole codes in it, never masked ones
            assert set(shown.tolist()) <= set(known.tolist()) and np.isnan(float(batch.codes.age[row]))
        else:
            assert len(shown) == min(6, row + 1) and float(batch.codes.age[row]) == 60


def test_ranks_share_a_batch_without_overlap() -> None:
    def texts(rank: int, world: int) -> list[list[int]]:
        made = epoch_batches(
            pairs(), batch=10, length=30, rate=100, options=PLAIN, seed=0, epoch=0, rank=rank, world=world
        )
        return [batch.text.tolist() for batch in made]

    whole = texts(0, 1)
    for batch, left, right in zip(whole, texts(0, 2), texts(1, 2), strict=True):
        assert sorted(left + right) == sorted(batch)


def test_a_batch_splits_into_parts_of_about_equal_size() -> None:
    (batch,) = epoch_batches(pairs(), batch=1000, length=30, rate=100, options=PLAIN, seed=0, epoch=0)
    n = len(batch.text)
    for rows in (1, 3, n - 1, n, n + 1):
        parts = batch.split(rows)
        sizes = [len(part.text) for part in parts]
        assert len(sizes) == -(-n // rows) and max(sizes) <= rows and max(sizes) - min(sizes) <= 1
        for name in ("strip", "subject", "tokens", "mask", "text", "has_text"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
        assert all(part.codes is None for part in parts)
    (whole,) = batch.split(0)
    assert torch.equal(whole.strip, batch.strip)


def test_batches_made_ahead_by_threads_are_the_same() -> None:
    options = Augmentation()
    one, three, many = (
        list(epoch_batches(pairs(), batch=3, length=30, rate=100, options=options, seed=1, epoch=2, ahead=ahead))
        for ahead in (0, 3, 50)
    )
    assert len(one) == 7
    for others in (three, many):
        assert all(torch.equal(a.strip, b.strip) for a, b in zip(one, others, strict=True))
        assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(one, others, strict=True))

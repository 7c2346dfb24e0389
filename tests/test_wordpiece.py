"""A vocabulary is made of words that several patients have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from einthoven.errors import EinthovenError
from einthoven.wordpiece import common_words, train_word_piece

WORDS = ("sinus", "rhythm", "meier", "ecg", "normal", "atrial")
NOTES = st.lists(
    st.tuples(st.lists(st.sampled_from(WORDS), max_size=5), st.sets(st.integers(0, 4), min_size=1)),
    min_size=1,
    max_size=20,
)


@given(notes=NOTES, floor=st.integers(1, 4))
def test_a_word_stays_if_enough_patients_have_it(notes: list[tuple[list[str], set[int]]], floor: int) -> None:
    patients = [some for _, some in notes]
    enough = {w for w in WORDS if len(set().union(*(some for words, some in notes if w in words))) >= floor}
    texts = [" ".join(words) for words, _ in notes]
    if not enough:
        with pytest.raises(EinthovenError, match=r"Lower text\.floor"):
            common_words(texts, patients, floor)
        return
    expected = [" ".join(word for word in words if word in enough) for words, _ in notes]
    assert common_words(texts, patients, floor) == expected


def test_a_name_that_one_record_repeats_is_no_entry() -> None:
    names = ("Quirrlbacher", "QUIRRLBACHER")
    texts = [f"Sinus rhythm, regular. Seen by {names[i % 2]} on day {i}." for i in range(40)]
    texts, patients = texts + ["sinus rhythm"] * 3, [[i % 2] for i in range(40)] + [[2], [3], [4]]
    entries = train_word_piece(common_words(texts, patients, 3), 400).get_vocab()
    assert "sinus" in entries and "rhythm" in entries
    assert not [entry for entry in entries if "quirr" in entry or "bacher" in entry]

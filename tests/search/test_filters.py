import contextlib
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from einthoven.errors import EinthovenError
from einthoven.search.filters import FIELDS, Clause, parse

plain = st.text(st.characters(exclude_characters="'\"", exclude_categories=["C", "Z"]), min_size=1)


def test_all_kinds_of_clauses() -> None:
    found = parse(
        "sex = female AND age>=60.5 and finding in (SCP//AFIB, 'ICD10CM/I48.0') and outlier != yes and time<2020"
    )
    assert [(c.field, c.operator, c.values) for c in found[:3]] == [
        ("sex", "=", ("female",)),
        ("age", ">=", (60.5,)),
        ("finding", "in", ("SCP//AFIB", "ICD10CM/I48.0")),
    ]
    assert found[3:] == (Clause("outlier", "!=", (True,)), Clause("time", "<", (datetime(2020, 1, 1),)))


@pytest.mark.parametrize("text", [None, "", "  "])
def test_nothing_is_no_condition(text: str | None) -> None:
    assert parse(text) == ()


@given(plain)
def test_a_quoted_value_is_what_it_is(text: str) -> None:
    assert parse(f"device = '{text}'") == (Clause("device", "=", (text,)),)
    assert parse(f'device = "{text}"') == (Clause("device", "=", (text,)),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour = red", "expected one of sex, age"),
        ("sex", "after sex expected one of"),
        ("sex = ", "expected a value for sex"),
        ("sex < 3", "after sex expected one of"),
        ("age = old", "age: expected a number"),
        ("age = nan", "age: expected a number"),
        ("age = 1e999", "age: expected a number"),
        ("time > yesterday", "expected a date"),
        ("time > 2020-01-01T00:00+05:00", "by the clock of the hospital"),
        ("sex = woman", "sex: expected female or male"),
        ("split in (train, tset)", "split: expected train or validation or test"),
        ("outlier = maybe", "expected yes or no"),
        ("sex = female or age > 3", "expected `and` after condition 1"),
        ("sex = female and", "expected one of"),
        ("finding in a", "expected a list"),
        ("finding in (a", "expected , or"),
        ("finding in ()", "expected a value"),
        ("finding in (a,)", "expected a value"),
        ("sex = 'female", "cannot read character|quote"),
        ("(sex = female)", "expected one of"),
        ("sex = and", "expected a value"),
        ("device = a\x00b", "control"),
        (" and ".join(["sex = male"] * 33), "more than 32"),
        ("age in (" + ",".join(["1"] * 257) + ")", "at most 256"),
        ("device = " + "a" * 5000, "at most 4,000"),
    ],
)
def test_what_is_wrong_is_told(text: str, said: str) -> None:
    with pytest.raises(EinthovenError, match=said):
        parse(text)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse(text)
    except EinthovenError:
        return
    assert all(clause.field in FIELDS and clause.values for clause in found)


@given(st.lists(st.sampled_from([*FIELDS, "=", "in", "(", ")", ",", "and", "yes", "3", "'", '"a"', "2020-01-01"])))
def test_any_row_of_its_words_is_read_or_refused(words: list[str]) -> None:
    with contextlib.suppress(EinthovenError):
        assert parse(" ".join(words)) or not words

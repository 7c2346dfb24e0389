"""OMOP's NOTE_NLP: what a mention's modifiers say and where it lies, each against a naive reading."""

import itertools
import re
from typing import Any

import ibis
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from einthoven.sources.omop_notes import attributes, place

MODIFIERS = {  # what hospitals may write, and the attribute it stands for
    "negated=true": "negated",
    "Negation = Yes": "negated",
    "negated=false": None,
    "subject=family": "family",
    "Subject=Family member": "family",
    "subject=patient": None,
    "certainty=low": "uncertain",
    "certainty=high": None,
    "rule_out=true": "uncertain",
    "conditional=true": "hypothetical",
    "history=true": "historical",
    "temporal: past": "historical",
    "value=7.5 mg": None,
    "negated": None,
}
LISTS = [part for size in range(4) for part in itertools.combinations(MODIFIERS, size)]


def nlp(**columns: list[Any]) -> Any:
    return ibis.memtable(pa.table(columns))


@pytest.mark.parametrize("separator", [",", "; ", " , "])
def test_modifiers_are_read_one_by_one(separator: str) -> None:
    texts = [separator.join(part) for part in LISTS]
    empty = ["Y"] * len(texts)
    table = nlp(term_modifiers=texts, term_exists=empty, term_temporal=empty)
    found = table.select(**attributes(table)).to_pyarrow().to_pylist()
    for part, row in zip(LISTS, found, strict=True):
        assert {name for name, holds in row.items() if holds} == {MODIFIERS[one] for one in part} - {None}, part


OFFSETS = st.none() | st.from_regex(r"\A[0-9]{1,3}([-:;,]| \.\. )?[0-9]{0,3}\Z") | st.text(max_size=6)
CASES = st.tuples(OFFSETS, st.none() | st.text(min_size=1, max_size=5), st.integers(0, 9), st.integers(1, 200))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(CASES, min_size=1, max_size=200))
def test_a_place_lies_in_the_text_or_is_none(cases: list[tuple[Any, Any, int, int]]) -> None:
    offsets, variants, indents, lengths = (list(column) for column in zip(*cases, strict=True))
    table = nlp(
        offset=pa.array(offsets, pa.string()),
        lexical_variant=pa.array(variants, pa.string()),
        indent=indents,
        length=lengths,
    )
    start, end = place(table)
    found = table.select(start=start, end=end).to_pyarrow().to_pylist()
    for (offset, variant, indent, length), row in zip(cases, found, strict=True):
        assert (row["start"], row["end"]) == naive_place(offset, variant, indent, length)


def naive_place(offset: str | None, variant: str | None, indent: int, length: int) -> tuple[int, int]:
    told = re.match(r"([0-9]{1,9})(?:[ \t\n\r\f]*(?:[-,:;]|\.\.)[ \t\n\r\f]*([0-9]{1,9})\Z)?", offset or "")
    if told is None:
        return 0, 0
    start, stop = int(told[1]), int(told[2] or 0)
    if stop <= start and variant is None:
        return 0, 0
    end = stop if stop > start else start + len(variant or "")
    inside = 0 <= start - indent < end - indent <= length
    return (start - indent, end - indent) if inside else (0, 0)

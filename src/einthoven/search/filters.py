"""Which recordings a search may answer with: `sex = female and age >= 60 and finding = SCP//AFIB and split != train`.

Clauses are joined by `and`. A clause is FIELD OPERATOR VALUE with = != < <= > >=, or FIELD in (VALUE, VALUE …). A value
with blanks or signs is put into quotes, single or double. What is not known of a recording satisfies no clause; a list
(finding, quality) satisfies `=` if it holds the value, and `!=` if it does not.
"""

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from einthoven.errors import EinthovenError
from einthoven.schema import SPLITS

LONGEST: Final = 4000  # characters of a filter
MOST_CLAUSES: Final = 32
MOST_VALUES: Final = 256


class FilterError(EinthovenError):
    """A filter that cannot be read: `expected` repeats nothing of it, the message says what was found instead."""

    def __init__(self, expected: str, found: str | None = None) -> None:
        super().__init__(f"--where: {expected}{'' if found is None else f', found {found!r}'}.")
        self.expected = expected


Value = str | float | datetime | bool

ORDERED: Final = ("=", "!=", "<", "<=", ">", ">=")
FIELDS: Final = {  # field -> column of schema.INDEX, kind of its values
    "sex": ("sex", "text"),
    "age": ("age", "number"),
    "time": ("time", "date"),
    "device": ("device", "text"),
    "site": ("site", "text"),
    "split": ("split", "text"),
    "quality": ("quality", "list"),
    "finding": ("findings", "list"),
    "outlier": ("outlier", "flag"),
    "outlier_score": ("outlier", "number"),
}
KNOWN: Final = {"sex": ("female", "male"), "split": SPLITS}
"""Fields with few values: another is a slip of the pen."""

OPERATORS: Final = {
    "text": ("=", "!=", "in"),
    "list": ("=", "!=", "in"),
    "flag": ("=", "!="),
    "number": (*ORDERED, "in"),
    "date": ORDERED,
}


@dataclass(frozen=True)
class Clause:
    """One condition. `operator` is one of OPERATORS of the field's kind; several values only with "in"."""

    field: str
    operator: str
    values: tuple[Value, ...]

    @property
    def column(self) -> str:
        return FIELDS[self.field][0]

    @property
    def kind(self) -> str:
        return FIELDS[self.field][1]

    @property
    def above(self) -> bool:
        """Of a flag: whether its column is to be above 0."""
        return (self.values[0] is True) == (self.operator == "=")


Filter = tuple[Clause, ...]
"""All of its clauses hold; none: every recording."""

_TOKEN = re.compile(r"""\s*(?:(<=|>=|!=|=|<|>|\(|\)|,)|"([^"]*)"|'([^']*)'|([^\s<>=!(),"']+))""")


def parse(text: str | None) -> Filter:
    """A filter from its text; EinthovenError says what was expected where. None and blanks: no condition."""
    if text is None or not text.strip():
        return ()
    if len(text) > LONGEST:
        raise FilterError(f"{len(text):,} characters; at most {LONGEST:,} are read")
    if any(ord(character) < 32 or "\ud800" <= character <= "\udfff" for character in text):
        raise FilterError("expected no control characters and nothing but Unicode")
    tokens = _tokens(text)
    clauses: list[Clause] = []
    place = 0
    while True:
        clause, place = _clause(tokens, place)
        clauses.append(clause)
        if len(clauses) > MOST_CLAUSES:
            raise FilterError(f"more than {MOST_CLAUSES} conditions")
        if place == len(tokens):
            return tuple(clauses)
        if tokens[place] != ("word", "and"):
            raise FilterError(f"expected `and` after condition {len(clauses)}")
        place += 1


def _tokens(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    place, end = 0, len(text.rstrip())
    while place < end:
        match = _TOKEN.match(text, place)
        if match is None:
            raise FilterError(f"cannot read character {place + 1}; is a quote not closed?")
        sign, double, single, word = match.groups()
        quoted = double if double is not None else single
        if sign is not None:
            found.append(("sign", sign))
        elif quoted is not None:
            found.append(("quoted", quoted))
        else:
            found.append(("word", "and" if word.lower() == "and" else word))
        place = match.end()
    return found


def _clause(tokens: Sequence[tuple[str, str]], place: int) -> tuple[Clause, int]:
    def token(i: int) -> tuple[str, str]:
        return tokens[i] if i < len(tokens) else ("end", "")

    kind_of_token, name = token(place)
    if kind_of_token != "word" or name not in FIELDS:
        raise FilterError(f"expected one of {', '.join(FIELDS)}", name)
    of, operator = token(place + 1)
    operator = operator.lower()
    allowed = OPERATORS[FIELDS[name][1]]
    if of not in ("sign", "word") or operator not in allowed:
        raise FilterError(f"after {name} expected one of {' '.join(allowed)}")
    place += 2
    if operator != "in":
        return Clause(name, operator, (_value(name, token(place)),)), place + 1
    if token(place) != ("sign", "("):
        raise FilterError(f"after `{name} in` expected a list such as (a, b)")
    values: list[Value] = []
    while True:
        values.append(_value(name, token(place + 1)))
        after = token(place + 2)
        place += 2
        if after == ("sign", ")"):
            break
        if after != ("sign", ",") or len(values) >= MOST_VALUES:
            raise FilterError(f"the list after `{name} in`: expected , or ) and at most {MOST_VALUES} values")
    return Clause(name, "in", tuple(values)), place + 1


def _value(name: str, token: tuple[str, str]) -> Value:
    of, text = token
    if of not in ("word", "quoted") or token == ("word", "and"):
        raise FilterError(f"expected a value for {name}")
    kind = FIELDS[name][1]
    if kind == "number":
        try:
            number = float(text)
        except ValueError:
            number = np.nan
        if not abs(number) <= float(np.finfo(np.float32).max):  # as wide as the columns are
            raise FilterError(f"{name}: expected a number")
        return number
    if kind == "date":
        with contextlib.suppress(ValueError):
            found = datetime.fromisoformat(f"{text}-01-01" if re.fullmatch(r"\d{4}", text) else text)
            if found.tzinfo is None:
                return found
        raise FilterError(
            f"{name}: expected a date, 2020, 2020-01-31 or 2020-01-31T08:00, by the clock of the hospital"
        )
    if name in KNOWN and text not in KNOWN[name]:
        raise FilterError(f"{name}: expected {' or '.join(KNOWN[name])}")
    if kind == "flag":
        if text.lower() not in ("yes", "no"):
            raise FilterError(f"{name}: expected yes or no")
        return text.lower() == "yes"
    return text


def selected(rows: pa.Table, where: Filter) -> NDArray[np.bool_]:
    """Which rows [n] of a table with the columns of schema.INDEX satisfy a filter."""
    found = np.ones(len(rows), bool)
    for clause in where:
        found &= _holds(rows[clause.column], clause)
    return found


def _holds(column: pa.ChunkedArray, clause: Clause) -> NDArray[np.bool_]:
    if clause.kind == "list":
        return _listed(column, clause)
    if clause.kind == "flag":
        above = pc.greater(column, 0)
        return _known(above if clause.above else pc.invert(above))
    if clause.operator == "in":
        values = pa.array(list(clause.values)).cast(column.type)
        return _known(pc.and_kleene(pc.is_in(column, value_set=values), pc.is_valid(column)))
    value = pa.scalar(clause.values[0]).cast(column.type)
    compare = {
        "=": pc.equal,
        "!=": pc.not_equal,
        "<": pc.less,
        "<=": pc.less_equal,
        ">": pc.greater,
        ">=": pc.greater_equal,
    }[clause.operator]
    return _known(compare(column, value))


def _known(answer: pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(answer.fill_null(False).to_numpy(zero_copy_only=False), bool)


def _listed(column: pa.ChunkedArray, clause: Clause) -> NDArray[np.bool_]:
    lists = column.combine_chunks()
    holds = np.zeros(len(lists), bool)
    inside = pc.is_in(lists.flatten(), value_set=pa.array(list(clause.values), pa.string())).to_numpy(
        zero_copy_only=False
    )
    holds[pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)[np.asarray(inside, bool)]] = True
    known = lists.is_valid().to_numpy(zero_copy_only=False)
    return np.asarray(known & (~holds if clause.operator == "!=" else holds), bool)

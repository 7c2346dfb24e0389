"""Rows are kept once per key, whatever order they come in; what is refused is listed."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.sources.screening import Screening
from einthoven.sources.tabular import SourceTable, Tables, event_order, write_rows
from einthoven.study import read_table

COLUMNS = pa.schema([("source_row", pa.int64()), ("key", pa.int64()), ("value", pa.string())])
ROWS = st.lists(
    st.tuples(st.none() | st.integers(1, 3), st.integers(1, 3), st.none() | st.sampled_from("ab")), max_size=12
)


def firsts(study: Path, rows: list[tuple[int | None, int, str | None]]) -> tuple[list[tuple[object, ...]], int]:
    with Tables.of(study, study) as tables:
        screening = Screening(tables)
        named = [dict(zip(COLUMNS.names, row, strict=True)) for row in rows]
        stored = tables.stored("rows", pa.Table.from_pylist(named, schema=COLUMNS))
        kept = screening.first_of(SourceTable("t.csv", stored), "key").rows.order_by("key").to_pyarrow().to_pylist()
        counts = screening.write_excluded(study)
    assert counts == ({"duplicate-id": len(rows) - len(kept)} if len(rows) > len(kept) else {})
    return [tuple(row.values()) for row in kept], read_table(schema.EXCLUDED, study).num_rows


@settings(deadline=None, max_examples=20)
@given(ROWS)
def test_the_first_of_a_key_is_the_same_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int | None, int, str | None]]
) -> None:
    """Rows of a database have no order, and no place that tells them apart."""
    study = tmp_path_factory.mktemp("study")
    kept, refused = firsts(study, rows)
    assert firsts(study, rows[::-1]) == (kept, refused)
    assert [row[1] for row in kept] == sorted({row[1] for row in rows}) and set(kept) <= set(rows)


def test_equal_events_are_written_in_one_order(tmp_path: Path) -> None:
    names = schema.EVENTS.columns.names
    rows = [dict.fromkeys(names) | {"subject_id": 1, "code": "A", "numeric_value": float(n)} for n in range(50)]
    nullable = pa.schema([field.with_nullable(True) for field in schema.EVENTS.columns])
    written = []
    for order in (rows, rows[::-1]):
        with Tables.of(tmp_path, tmp_path) as tables:
            events = tables.stored("events", pa.Table.from_pylist(order, schema=nullable))
            write_rows(schema.EVENTS, tmp_path, events, event_order(events))
        written.append(schema.EVENTS.at(tmp_path).read_bytes())
    assert written[0] == written[1]


def test_what_the_engine_cannot_do_is_told_without_cells(tmp_path: Path) -> None:
    with pytest.raises(EinthovenError, match="could not be made: ConversionException") as caught:  # noqa: SIM117
        with Tables.of(tmp_path, tmp_path / "study") as tables:
            tables.engine.raw_sql("SELECT 'secret'::INTEGER").fetchall()
    assert "secret" not in str(caught.value)

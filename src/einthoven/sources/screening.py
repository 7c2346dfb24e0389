"""What of a source comes into the study: rows are checked, kept on a condition, each key once; the rest is EXCLUDED."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa

from einthoven import schema
from einthoven.sources import cells
from einthoven.sources.cells import SourceTable, refusals
from einthoven.sources.tabular import Tables, write_excluded

_RANK = "einthoven_rank"


class Screening:
    """An open source. What is refused goes into a table of its scratch database at once.

    One query of all that can be refused would take long to plan.
    """

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self._refused = tables.stored("refused", schema.EXCLUDED.columns.empty_table())

    def exclude(self, rows: Any) -> None:
        """List EXCLUDED rows: dicts, Arrow's, or an ibis.Table of the scratch database."""
        if isinstance(rows, list):
            rows = pa.Table.from_pylist(rows, schema=schema.EXCLUDED.columns)
        self.tables.stored("refused", rows)

    def refuse(self, table: SourceTable, rows: Any, reason: str, detail: Any) -> None:
        """List rows of a table as excluded; `detail` is a string or an expression of them."""
        self.exclude(refusals(rows, table.file, reason, detail))

    def check(
        self, table: SourceTable, types: Mapping[str, str], filled: Sequence[str] = (), name: str | None = None
    ) -> SourceTable:
        """The rows whose cells have their types, evaluated once, into a scratch table; the others are listed."""
        name = name or self.tables.unused()
        judged = self.tables.stored(name, cells.judged(table, types, filled))
        result = cells.divided(judged, table.file, types)
        if self.tables.engine.con.execute(f"SELECT count(verdict) FROM {name}").fetchone()[0]:
            self.exclude(result.refused)
        return SourceTable(table.file, result.kept)

    def keep(self, table: SourceTable, holds: Any, reason: str, detail: str) -> SourceTable:
        """The rows for which a condition (an expression of `table.rows`) holds; the others are listed."""
        self.refuse(table, table.rows.filter(~holds.fill_null(False)), reason, detail)
        return SourceTable(table.file, table.rows.filter(holds))

    def first_of(self, table: SourceTable, key: str) -> SourceTable:
        """One row per key, the first of the source; the others are listed as duplicate-id.

        Rows of a database have no order: those of one place are in the order of all their columns.
        """
        rows = table.rows
        counted = rows.group_by(key).agg(times=rows.count())
        twice = self.tables.stored(self.tables.unused(), counted.filter(counted.times > 1).select(key))
        if not twice.count().to_pyarrow().as_py():
            return table
        order = sorted(rows.columns, key=lambda column: (column != "source_file", column != "source_row"))
        doubled = rows.semi_join(twice, key)
        ranked = doubled.mutate(**{_RANK: ibis.row_number().over(group_by=key, order_by=order)})
        self.refuse(
            table, ranked.filter(ranked[_RANK] > 0), "duplicate-id", f"column {key}: the same as in a row before"
        )
        firsts = ranked.filter(ranked[_RANK] == 0).drop(_RANK)
        every = ibis.union(rows.anti_join(twice, key), firsts)
        return SourceTable(table.file, self.tables.stored(self.tables.unused(), every))

    def excluded(self) -> int:
        """How many rows are listed."""
        return int(self._refused.count().to_pyarrow().as_py())

    def write_excluded(self, study: Path) -> dict[str, int]:
        """Write EXCLUDED; the number of rows by reason."""
        return write_excluded(study, [self._refused], [])

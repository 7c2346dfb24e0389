"""One pass over the file of a table, in bounded memory: empty cells, and rows that are out of order."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from einthoven import schema

BATCH: Final = 1 << 16  # rows
SHOWN: Final = 5
"""Row numbers that a finding names."""


@dataclass(frozen=True)
class Order:
    """How a table is sorted: by `keys`, inside of runs of equal `run` where that is given."""

    keys: tuple[str, ...]
    run: str | None = None  # the runs themselves may come in any order, each once
    nulls: tuple[str, ...] = ("first", "last")  # where empty keys may stand, but one way throughout


ORDERS: Final = {
    schema.EVENTS.path: Order(("subject_id", "time"), nulls=("first",)),  # MEDS: static events first
    schema.NOTES.path: Order(("subject_id", "time")),
    schema.PAIRS.path: Order(("subject_id", "time", "recording_id")),
    schema.ENTITIES.path: Order(("start",), run="note_id"),
    schema.SUPPLIED_ENTITIES.path: Order(("start",), run="note_id"),
}
"""The sort orders that schema.py states."""


@dataclass
class Places:
    """How many rows, and the first few of them, from 1."""

    count: int = 0
    rows: tuple[int, ...] = ()

    def add(self, found: NDArray[np.bool_], first: int) -> None:
        self.count += int(found.sum())
        self.rows = (*self.rows, *(first + np.flatnonzero(found)[:SHOWN]).tolist())[:SHOWN]


@dataclass
class Scan:
    """What the pass saw."""

    rows: int = 0
    empty: dict[str, Places] = field(default_factory=lambda: defaultdict(Places))  # of the columns without nulls
    disorder: Places = field(default_factory=Places)
    runs: int = 0  # of Order.run


def scan(table: schema.Table, path: Path, batch_rows: int = BATCH) -> Scan:
    """Read every cell. ArrowException or OSError where the file is damaged."""
    order = ORDERS.get(table.path)
    seen, last = Scan(), None
    by_nulls = {nulls: Places() for nulls in order.nulls} if order else {}
    for batch in pq.ParquetFile(path).iter_batches(batch_rows, columns=table.columns.names):
        for column in table.columns:
            if not column.nullable and batch[column.name].null_count:
                seen.empty[column.name].add(_mask(pc.is_null(batch[column.name])), seen.rows + 1)
        if order is not None and len(batch):
            joined = pa.concat_batches([last, batch]) if last is not None else batch
            first = seen.rows + 2 - (last is not None)  # the row of the second one joined
            for nulls, places in by_nulls.items():
                places.add(_descents(joined, order, nulls), first)
            if order.run is not None:
                seen.runs += int((~_same_run(joined, order.run)).sum()) + (last is None)
            last = batch.slice(len(batch) - 1)
        seen.rows += len(batch)
    if by_nulls:
        seen.disorder = min(by_nulls.values(), key=lambda places: places.count)
    return seen


def _descents(rows: pa.RecordBatch, order: Order, nulls: str) -> NDArray[np.bool_]:
    """[n - 1]: whether a row belongs before the one above it."""
    equal = np.ones(len(rows) - 1, np.bool_) if order.run is None else _same_run(rows, order.run)
    descends = np.zeros(len(rows) - 1, np.bool_)
    for key in order.keys:
        values = _comparable(rows[key], nulls)
        above, below = values[:-1], values[1:]
        descends |= equal & (below < above)
        equal &= below == above
    return descends


def _same_run(rows: pa.RecordBatch, run: str) -> NDArray[np.bool_]:
    column = rows[run]
    return _mask(pc.fill_null(pc.equal(column.slice(1), column.slice(0, len(column) - 1)), False))


def _comparable(column: pa.Array, nulls: str) -> NDArray[Any]:
    if pa.types.is_string(column.type):
        return np.asarray(pc.fill_null(column, ""), dtype=object)
    limits = np.iinfo(np.int64)
    whole = pc.fill_null(column.cast(pa.int64()), int(limits.min if nulls == "first" else limits.max))
    result: NDArray[np.int64] = whole.to_numpy(zero_copy_only=False)
    return result


def _mask(column: pa.Array) -> NDArray[np.bool_]:
    result: NDArray[np.bool_] = column.to_numpy(zero_copy_only=False)
    return result

"""An index on disk or object storage: LanceDB. Exact while it is small, then approximate (HNSW, scalar quantised).

What the quantised graph finds near a query is ranked again by exact cosines. What ties is in no order.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.search.filters import Clause, Filter, Value
from einthoven.search.index import SPACES, Vector

TABLE: Final = "recordings"
BATCH: Final = 4096  # rows written at a time
APPROXIMATE: Final = 50_000  # recordings from which a graph is made: below, every vector is read, and exactly
REFINE: Final = 8  # times as many as asked for are ranked by their exact cosines
BREADTH: Final = 200  # of the search in the graph


class LanceIndex:
    """Recordings in a LanceDB table at `uri`: a directory, or s3://…, gs://…, az://… with the usual credentials."""

    def __init__(self, uri: str) -> None:
        os.environ.setdefault("LANCEDB_LOG", "error")  # it warns of tables that are not there yet
        try:
            import lancedb
        except ImportError:
            raise EinthovenError("an index by LanceDB needs the extra: pip install 'einthoven[index]'.") from None
        self.uri = uri
        try:
            self._base = lancedb.connect(uri)
            found = TABLE in self._base.list_tables().tables
            self._table = self._opened() if found else None
        except Exception as error:  # whatever its storage raises
            raise EinthovenError(f"the index at {uri} cannot be opened: {type(error).__name__}.") from None

    def _opened(self) -> Any:
        """The table; None where a kill left data without a version: the next `add` writes it anew."""
        try:
            return self._base.open_table(TABLE)
        except ValueError:
            return None

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What storage raises, in one sentence."""
        try:
            yield
        except (RuntimeError, OSError) as error:
            raise EinthovenError(
                f"the index at {self.uri} is damaged or out of reach: {type(error).__name__}."
            ) from error

    @property
    def spaces(self) -> Sequence[str]:
        return [] if self._table is None else [space for space in SPACES if space in self._table.schema.names]

    def __len__(self) -> int:
        with self._told():
            return 0 if self._table is None else int(self._table.count_rows())

    def add(self, rows: pa.Table) -> None:
        if not len(rows):
            return
        rows = stored(rows)
        with self._told():
            if self._table is None:
                self._write(iter(rows.to_batches(BATCH)), rows.schema)
                return
            merged = self._table.merge_insert("recording_id").when_matched_update_all().when_not_matched_insert_all()
            merged.execute(rows)

    def query(self, vector: Vector, top: int, space: str, where: Filter = ()) -> list[tuple[str, float]]:
        if self._table is None:
            return []
        if space not in self.spaces:
            raise EinthovenError(f"the index has no {space} vectors.")
        asked: Any = self._table.search(np.asarray(vector, np.float32), vector_column_name=space)
        asked = asked.distance_type("cosine")
        if where:
            asked = asked.where(sql(where), prefilter=True)
        breadth = max(BREADTH, REFINE * top)  # the graph must yield all that is ranked again
        asked = asked.nprobes(1 << 10).ef(breadth).refine_factor(REFINE)  # all parts: they are few
        with self._told():
            found = asked.limit(top).select(["recording_id", "_distance"]).to_arrow()
        scores = 1 - found["_distance"].to_numpy()
        return list(zip(found["recording_id"].to_pylist(), scores.tolist(), strict=True))

    def rows(self, recording_ids: Sequence[str], vectors: bool = True) -> pa.Table:
        if self._table is None or not recording_ids:
            return schema.INDEX.columns.empty_table()
        wanted = ", ".join(_quoted(name) for name in recording_ids)
        asked = self._table.search().where(f"recording_id IN ({wanted})").limit(len(recording_ids))
        if not vectors:
            asked = asked.select([name for name in self._table.schema.names if name not in SPACES])
        with self._told():
            found = asked.to_arrow()
        place = {name: i for i, name in enumerate(found["recording_id"].to_pylist())}
        table = found.take(pa.array([place[name] for name in recording_ids if name in place], pa.int64()))
        columns = {
            field.name: table[field.name] if field.name in table.schema.names else pa.nulls(len(table), field.type)
            for field in schema.INDEX.columns
        }
        return pa.table(columns).cast(schema.INDEX.columns)

    def delete_patients(self, subject_ids: Sequence[int]) -> int:
        """As VectorIndex. LanceDB's own deletion only marks rows: the table is written anew, and old versions go."""
        if self._table is None or not subject_ids:
            return 0
        before = len(self)
        gone = ", ".join(str(int(subject)) for subject in subject_ids)
        with self._told():
            kept = self._table.search().where(f"subject_id NOT IN ({gone})").to_batches(BATCH)
            self._write(kept, self._table.schema)
        self.settle()
        return before - len(self)

    def clear(self) -> None:
        with self._told():
            if TABLE in self._base.list_tables().tables:  # be it whole, or half made by a process that was killed
                self._base.drop_table(TABLE)
        self._table = None

    def close(self) -> None:
        """LanceDB holds nothing that must be let go."""

    def _write(self, batches: Iterator[pa.RecordBatch], columns: pa.Schema) -> None:
        reader = pa.RecordBatchReader.from_batches(columns, batches)
        self._table = self._base.create_table(TABLE, data=reader, schema=columns, mode="overwrite")

    def settle(self) -> None:
        """Make the graphs where they pay, and remove every version but this."""
        if self._table is None:
            return
        with self._told():
            self._settle(self._table)

    def _settle(self, table: Any) -> None:
        from lancedb.index import BTree, HnswSq

        rows = len(self)
        graph = HnswSq(distance_type="cosine", num_partitions=1 + rows // 10**6)
        for space in self.spaces if rows >= APPROXIMATE else ():
            table.create_index(space, config=graph)
        if rows >= APPROXIMATE:
            table.create_index("recording_id", config=BTree())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that readers of an old version fail: they shall
            table.optimize(cleanup_older_than=timedelta(0), delete_unverified=True)


def stored(rows: pa.Table) -> pa.Table:
    """Rows with the columns of schema.INDEX as LanceDB keeps them: vectors of one width; no space that has none."""
    columns = {name: rows[name] for name in schema.INDEX.columns.names if name not in SPACES}
    for space in SPACES:
        if rows[space].null_count:
            continue
        lists = rows[space].combine_chunks()
        columns[space] = pa.FixedSizeListArray.from_arrays(lists.flatten(), len(lists[0]))
    return pa.table(columns)


def sql(where: Filter) -> str:
    """A filter as a condition of LanceDB. A value is never anything but a literal."""
    return " AND ".join(f"({_condition(clause)})" for clause in where)


def _condition(clause: Clause) -> str:
    if clause.kind == "flag":
        return f"{clause.column} {'>' if clause.above else '<='} 0"
    values = [_literal(value) for value in clause.values]
    if clause.kind == "list":
        if clause.operator == "!=":
            return f"{clause.column} IS NOT NULL AND NOT array_has({clause.column}, {values[0]})"
        return " OR ".join(f"array_has({clause.column}, {value})" for value in values)
    if clause.operator == "in":
        return f"{clause.column} IN ({', '.join(values)})"
    return f"{clause.column} {clause.operator} {values[0]}"


def _literal(value: Value) -> str:
    if isinstance(value, datetime):
        return f"timestamp '{value.isoformat(sep=' ')}'"
    if isinstance(value, float):
        return f"CAST({value!r} AS FLOAT)"
    return _quoted(str(value))


def _quoted(text: str) -> str:
    doubled = text.replace("'", "''")
    return f"'{doubled}'"

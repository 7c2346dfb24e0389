"""The exact index: every vector is read for every query. Right up to about a million recordings."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from einthoven import schema
from einthoven.embed import matrix
from einthoven.errors import EinthovenError
from einthoven.search.filters import Filter, selected
from einthoven.search.index import SPACES, Vector
from einthoven.study import read_table, remove, write_table

CHUNK: Final = 1 << 16  # vectors scored at a time


@dataclass
class ExactIndex:
    """Vectors in memory, and their table in `directory`; without one the index lives as long as its process."""

    directory: Path | None = None
    table: pa.Table = field(default_factory=schema.INDEX.columns.empty_table)
    _vectors: dict[str, NDArray[np.float32]] = field(init=False, default_factory=dict)
    _places: dict[str, int] = field(init=False, default_factory=dict)  # row of each recording

    def __post_init__(self) -> None:
        self._take(self.table)

    @classmethod
    def open(cls, directory: Path) -> "ExactIndex":
        """The index in a directory, or an empty one that will be written there."""
        kept = schema.INDEX.at(directory).exists()
        return cls(directory, read_table(schema.INDEX, directory)) if kept else cls(directory)

    @property
    def spaces(self) -> Sequence[str]:
        return list(self._vectors)

    def __len__(self) -> int:
        return len(self.table)

    def add(self, rows: pa.Table) -> None:
        old = self.table.filter(pc.invert(pc.is_in(self.table["recording_id"], rows["recording_id"].combine_chunks())))
        self._keep(pa.concat_tables([old, rows.cast(schema.INDEX.columns)]))

    def settle(self) -> None:
        """Nothing is to be done."""

    def query(self, vector: Vector, top: int, space: str, where: Filter = ()) -> list[tuple[str, float]]:
        """As VectorIndex; what ties is in the order of the ids."""
        if not len(self):
            return []
        if space not in self._vectors:
            raise EinthovenError(f"the index has no {space} vectors.")
        vectors = self._vectors[space]
        rows = np.flatnonzero(selected(self.table, where)) if where else None
        scores = _scores(vectors, np.asarray(vector, np.float32), rows)
        top = min(top, len(scores))
        if top <= 0:
            return []
        # everything that ties with the last place is a candidate, so that ties are broken by id alone
        threshold = np.partition(scores, len(scores) - top)[len(scores) - top]
        candidates = np.flatnonzero(scores >= threshold)
        places = candidates if rows is None else rows[candidates]
        ids = self.table["recording_id"].take(pa.array(places)).to_pylist()
        return sorted(zip(ids, scores[candidates].tolist(), strict=True), key=lambda hit: (-hit[1], hit[0]))[:top]

    def rows(self, recording_ids: Sequence[str], vectors: bool = True) -> pa.Table:
        """As VectorIndex; `vectors` are there, asked for or not, as they cost nothing."""
        places = [self._places[name] for name in recording_ids if name in self._places]
        return self.table.take(pa.array(places, pa.int64()))

    def delete_patients(self, subject_ids: Sequence[int]) -> int:
        gone = pc.is_in(self.table["subject_id"], value_set=pa.array(subject_ids, pa.int64()))
        before = len(self)
        self._keep(self.table.filter(pc.invert(gone)))
        return before - len(self)

    def clear(self) -> None:
        self._keep(schema.INDEX.columns.empty_table())

    def close(self) -> None:
        """Nothing is open."""

    def _keep(self, table: pa.Table) -> None:
        if self.directory is not None:
            path = schema.INDEX.at(self.directory)
            write_table(schema.INDEX, self.directory, table)
            for left in path.parent.glob(f".{path.name}.*.tmp"):  # of a killed process: it may hold who is to go
                remove(left)
        self._take(table)

    def _take(self, table: pa.Table) -> None:
        self.table = table.combine_chunks()
        self._places = {name: row for row, name in enumerate(self.table["recording_id"].to_pylist())}
        self._vectors = {space: matrix(table[space]) for space in SPACES if len(table) and not table[space].null_count}


def _scores(vectors: NDArray[np.float32], query: Vector, rows: NDArray[np.int64] | None) -> NDArray[np.float32]:
    """Cosines of all vectors, or of some rows, in chunks of bounded memory."""
    count = len(vectors) if rows is None else len(rows)
    parts: list[Any] = []
    for start in range(0, count, CHUNK):
        part = slice(start, start + CHUNK)
        parts.append((vectors[part] if rows is None else vectors[rows[part]]) @ query)
    return np.concatenate(parts) if parts else np.empty(0, np.float32)

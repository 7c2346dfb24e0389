"""What every index of recordings can do, be it in memory, on disk or on a cluster."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from einthoven.search.filters import Filter

Vector = np.ndarray[Any, np.dtype[np.float32]]

SPACES = ("coarse", "fine")


class VectorIndex(Protocol):
    """Recordings with unit vectors in one or two spaces; cosine similarity. Rows have the columns of schema.INDEX."""

    @property
    def spaces(self) -> Sequence[str]:
        """Those of SPACES in which the recordings have vectors."""

    def __len__(self) -> int: ...

    def add(self, rows: pa.Table) -> None:
        """Put recordings in; one with the id of another takes its place."""

    def settle(self) -> None:
        """Make what was added quick to find, and old versions of it gone: once, after the last `add`."""

    def query(self, vector: Vector, top: int, space: str, where: Filter = ()) -> list[tuple[str, float]]:
        """The `top` ids of highest cosine with `vector` [d] among those that satisfy `where`, best first."""

    def rows(self, recording_ids: Sequence[str], vectors: bool = True) -> pa.Table:
        """What the index holds of these recordings, in this order, those it has; without `vectors` those are null."""

    def delete_patients(self, subject_ids: Sequence[int]) -> int:
        """Remove every trace of these patients; how many recordings that were."""

    def clear(self) -> None:
        """Remove everything."""

    def close(self) -> None: ...

"""Exact nearest neighbours by cosine. One small interface, so that a disk or cluster index can take its place."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Matrix = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class ExactIndex:
    """Unit vectors [n, d] and the id of each row. Queries read every vector, in chunks of bounded memory."""

    ids: Sequence[str]
    vectors: Matrix

    def query(self, vector: Matrix, top: int, chunk: int = 1 << 16) -> list[tuple[str, float]]:
        """The `top` ids of highest cosine with `vector` [d], best first; ties in order of id."""
        scores = np.concatenate(
            [self.vectors[i : i + chunk] @ vector for i in range(0, len(self.vectors), chunk)]
            or [np.empty(0, np.float32)]
        )
        top = min(top, len(scores))
        if top <= 0:
            return []
        # everything that ties with the last place is a candidate, so that ties are broken by id alone
        threshold = np.partition(scores, len(scores) - top)[len(scores) - top]
        candidates = np.flatnonzero(scores >= threshold).tolist()
        ranked = sorted(((self.ids[i], float(scores[i])) for i in candidates), key=lambda hit: (-hit[1], hit[0]))
        return ranked[:top]

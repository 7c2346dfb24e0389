"""An index on a Qdrant server or cluster, by its URL. What ties is in no order."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from uuid import UUID, uuid5

import numpy as np
import pyarrow as pa

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.search.filters import Clause, Filter
from einthoven.search.index import SPACES, Vector

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

BATCH: Final = 256  # points sent at a time
KEY: Final = "QDRANT_API_KEY"
"""Environment variable of the key. It is never an argument, so that it is in no history, log or manifest."""

FILTERED: Final[dict[str, Any]] = {
    "subject_id": "integer", "time": "datetime", "split": "keyword", "sex": "keyword", "age": "float",
    "device": "keyword", "site": "keyword", "quality": "keyword", "findings": "keyword", "outlier": "float",
}  # fmt: skip
"""Payload that filters ask, by Qdrant's names of kinds."""

_IDS: Final = UUID("6f1d1a3e-27c5-5a0e-9f55-5f2f1c1f0a51")  # a point's id is made of this and the recording's


def connect(url: str) -> "QdrantClient":
    """A client of the server at `url`, http(s)://host:port, with the key of the environment if there is one."""
    try:
        from qdrant_client import QdrantClient
    except ImportError:
        raise EinthovenError("an index on Qdrant needs the extra: pip install 'einthoven[cluster]'.") from None
    if "@" in url:
        raise EinthovenError(f"the URL of Qdrant holds a password; put a key into {KEY} instead.")
    key, there = os.environ.get(KEY), urlsplit(url)
    if key and there.scheme != "https" and there.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise EinthovenError(f"{KEY} would go to {there.hostname} unencrypted: expected an https:// URL.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a key on loopback
        return QdrantClient(url=url, api_key=key, timeout=60, check_compatibility=False)


@contextmanager
def _told() -> Iterator[None]:
    """What the server or the way to it raises, in one sentence, without the key."""
    from qdrant_client.http.exceptions import ApiException

    try:
        yield
    except (ApiException, OSError) as error:
        status = getattr(error, "status_code", None) or type(error).__name__
        raise EinthovenError(f"Qdrant does not answer as expected ({status}): is it there, and {KEY} right?") from None


class QdrantIndex:
    """Recordings as points of one collection; made by the first `add`."""

    def __init__(self, client: "QdrantClient", collection: str = "einthoven") -> None:
        self._client, self._collection = client, collection
        with _told():
            there = client.collection_exists(collection)
            self._spaces = list(client.get_collection(collection).config.params.vectors or {}) if there else []

    @property
    def spaces(self) -> Sequence[str]:
        return [space for space in SPACES if space in self._spaces]

    def __len__(self) -> int:
        with _told():
            return self._client.count(self._collection, exact=True).count if self._spaces else 0

    def add(self, rows: pa.Table) -> None:
        from qdrant_client.models import PointStruct

        if not len(rows):
            return
        spaces = [space for space in SPACES if not rows[space].null_count]
        if not self._spaces:
            self._create({space: len(rows[space][0]) for space in spaces})
        for start in range(0, len(rows), BATCH):
            points = []
            for row in rows.slice(start, BATCH).to_pylist():
                vectors = {space: row[space] for space in spaces}
                about = {name: _plain(value) for name, value in row.items() if name not in SPACES}
                points.append(PointStruct(id=_point(row["recording_id"]), vector=vectors, payload=about))
            with _told():
                self._client.upsert(self._collection, points, wait=True)

    def settle(self) -> None:
        """The server does it by itself."""

    def query(self, vector: Vector, top: int, space: str, where: Filter = ()) -> list[tuple[str, float]]:
        if not self._spaces:
            return []
        if space not in self.spaces:
            raise EinthovenError(f"the index has no {space} vectors.")
        with _told():
            found = self._client.query_points(
                self._collection,
                query=np.asarray(vector, np.float32).tolist(),
                using=space,
                limit=top,
                query_filter=conditions(where),
                with_payload=["recording_id"],
            )
        return [((point.payload or {})["recording_id"], point.score) for point in found.points]

    def rows(self, recording_ids: Sequence[str], vectors: bool = True) -> pa.Table:
        if not self._spaces or not recording_ids:
            return schema.INDEX.columns.empty_table()
        points = [_point(name) for name in recording_ids]
        with _told():
            there = self._client.retrieve(self._collection, points, with_payload=True, with_vectors=vectors)
        found: dict[str, dict[str, Any]] = {
            str(point.id): {**(point.payload or {}), **(point.vector or {})}  # type: ignore[dict-item]
            for point in there
        }
        wanted = [found[point] for point in points if point in found]
        for row in wanted:
            row["time"] = None if row["time"] is None else datetime.fromisoformat(row["time"]).replace(tzinfo=None)
        return pa.Table.from_pylist(wanted, schema=schema.INDEX.columns)

    def delete_patients(self, subject_ids: Sequence[int]) -> int:
        from qdrant_client.models import FieldCondition, FilterSelector, MatchAny
        from qdrant_client.models import Filter as Conditions

        if not self._spaces or not subject_ids:
            return 0
        before = len(self)
        theirs = Conditions(must=[FieldCondition(key="subject_id", match=MatchAny(any=[int(s) for s in subject_ids]))])
        with _told():
            self._client.delete(self._collection, FilterSelector(filter=theirs), wait=True)
        return before - len(self)

    def clear(self) -> None:
        if self._spaces:
            with _told():
                self._client.delete_collection(self._collection)
            self._spaces = []

    def close(self) -> None:
        self._client.close()

    def _create(self, widths: dict[str, int]) -> None:
        from qdrant_client.models import Distance, VectorParams

        vectors = {space: VectorParams(size=width, distance=Distance.COSINE) for space, width in widths.items()}
        with _told(), warnings.catch_warnings():
            self._client.create_collection(self._collection, vectors_config=vectors)
            warnings.simplefilter("ignore")  # in memory it has no such indexes, and says so
            for name, kind in FILTERED.items():  # before there are points: the graph is made with them in mind
                self._client.create_payload_index(self._collection, name, kind, wait=True)
        self._spaces = list(widths)


def conditions(where: Filter) -> Any:
    """A filter in Qdrant's own classes; None: no condition."""
    from qdrant_client.models import Filter as Conditions

    if not where:
        return None
    must, must_not = [], []
    for clause in where:
        holds, not_holds = _condition(clause)
        must += holds
        must_not += not_holds
    return Conditions(must=must, must_not=must_not)


def _condition(clause: Clause) -> tuple[list[Any], list[Any]]:
    """What must hold and what must not."""
    from qdrant_client.models import DatetimeRange, FieldCondition, IsNullCondition, MatchAny, PayloadField, Range

    key, value = clause.column, clause.values[0]
    unknown = IsNullCondition(is_null=PayloadField(key=key))
    if clause.kind in ("text", "list"):
        one_of = FieldCondition(key=key, match=MatchAny(any=[str(v) for v in clause.values]))
        return ([], [one_of, unknown]) if clause.operator == "!=" else ([one_of], [])
    if clause.kind == "flag":
        return [FieldCondition(key=key, range=Range(gt=0) if clause.above else Range(lte=0))], []
    make: Any = DatetimeRange if clause.kind == "date" else Range
    sides = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
    if clause.operator in sides:
        return [FieldCondition(key=key, range=make(**{sides[clause.operator]: _bound(value)}))], []
    equal: list[Any] = [FieldCondition(key=key, range=make(gte=_bound(v), lte=_bound(v))) for v in clause.values]
    if clause.operator == "!=":
        return [], [*equal, unknown]
    from qdrant_client.models import Filter as Conditions

    return [Conditions(should=equal)], []


def _bound(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else float(np.float32(value))


def _plain(value: Any) -> Any:
    return value.replace(tzinfo=UTC).isoformat() if isinstance(value, datetime) else value


def _point(recording_id: str) -> str:
    return str(uuid5(_IDS, recording_id))

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from einthoven import schema
from einthoven.embed import lists
from einthoven.search.exact import ExactIndex


def rows_of(ids: list[str], vectors: np.ndarray) -> pa.Table:
    n = len(ids)
    columns = {name: pa.nulls(n, schema.INDEX.columns.field(name).type) for name in schema.INDEX.columns.names}
    columns |= {"recording_id": pa.array(ids, pa.string()), "subject_id": pa.array(range(n), pa.int64())}
    columns |= {"split": pa.array(["train"] * n, pa.string()), "coarse": lists(vectors)}
    return pa.table(columns).cast(schema.INDEX.columns)


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(1, 50), st.integers(0, 3))
def test_query_equals_sorting_everything(n: int, top: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    vectors = generator.integers(-2, 3, (n, 3)).astype(np.float32)  # small integers: many ties
    query = generator.integers(-2, 3, 3).astype(np.float32)
    ids = [f"{i:03d}" for i in generator.permutation(n)]
    expected = sorted(((i, float(v @ query)) for i, v in zip(ids, vectors, strict=True)), key=lambda h: (-h[1], h[0]))
    index = ExactIndex()
    index.add(rows_of(ids, vectors))
    assert index.query(query, top, "coarse") == expected[:top]

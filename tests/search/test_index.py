import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from einthoven.search.index import ExactIndex


@given(st.integers(0, 40), st.integers(1, 50), st.integers(1, 7), st.integers(0, 3))
def test_query_equals_sorting_everything(n: int, top: int, chunk: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    vectors = generator.integers(-2, 3, (n, 3)).astype(np.float32)  # small integers: many ties
    query = generator.integers(-2, 3, 3).astype(np.float32)
    ids = [f"{i:03d}" for i in generator.permutation(n)]
    expected = sorted(((i, float(v @ query)) for i, v in zip(ids, vectors, strict=True)), key=lambda h: (-h[1], h[0]))
    assert ExactIndex(ids, vectors).query(query, top, chunk) == expected[:top]

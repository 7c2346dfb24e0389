"""Whatever keeps the index, the same recordings are found: the exact one is the oracle of the others."""

import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.search.exact import ExactIndex
from einthoven.search.filters import Clause, Filter, parse
from einthoven.search.index import VectorIndex
from einthoven.search.lance import LanceIndex
from einthoven.search.qdrant import QdrantIndex

WORDS = ["a", "it's", 'say "x"', "100%", "ä;--", "flat"]
TIMES = [datetime(2019, 12, 31, 23, 59, 59), datetime(2020, 1, 1), datetime(2020, 1, 1, 0, 0, 0, 1)]
AGES = [0.1, 59.5, 60.0, 90.0]

lists_of = st.one_of(st.none(), st.lists(st.sampled_from(WORDS), max_size=3))
a_row = st.fixed_dictionaries(
    {
        "time": st.one_of(st.none(), st.sampled_from(TIMES)),
        "split": st.sampled_from(schema.SPLITS),
        "sex": st.sampled_from(["female", "male", None]),
        "age": st.one_of(st.none(), st.sampled_from(AGES)),
        "device": st.one_of(st.none(), st.sampled_from(WORDS)),
        "site": st.none(),
        "quality": lists_of,
        "findings": lists_of,
        "outlier": st.sampled_from([None, -0.5, 0.0, 0.25]),
    }
)
signs = st.sampled_from(["=", "!="])
a_clause = st.one_of(
    st.builds(
        Clause, st.sampled_from(["device", "sex"]), st.sampled_from(["=", "!="]), st.tuples(st.sampled_from(WORDS))
    ),
    st.builds(Clause, st.just("sex"), st.just("in"), st.sampled_from([("male",), ("female", "male")])),
    st.builds(
        Clause, st.sampled_from(["finding", "quality"]), st.sampled_from(["=", "!="]), st.tuples(st.sampled_from(WORDS))
    ),
    st.builds(Clause, st.just("finding"), st.just("in"), st.lists(st.sampled_from(WORDS), min_size=1).map(tuple)),
    st.builds(
        Clause,
        st.just("age"),
        st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "in"]),
        st.tuples(st.sampled_from(AGES)),
    ),
    st.builds(
        Clause, st.just("time"), st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), st.tuples(st.sampled_from(TIMES))
    ),
    st.builds(Clause, st.just("outlier"), st.sampled_from(["=", "!="]), st.tuples(st.booleans())),
    st.builds(Clause, st.just("outlier_score"), st.sampled_from(["<", ">="]), st.tuples(st.just(0.0))),
)


def table(
    rows: list[dict[str, Any]], dim: int = 4, seed: int = 0, spaces: tuple[str, ...] = ("coarse", "fine")
) -> pa.Table:
    """Rows of an index; two recordings of each patient."""
    generator = np.random.default_rng(seed)
    made = []
    for i, row in enumerate(rows):
        vectors = generator.normal(size=(2, dim))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        place = {"recording_id": f"recording-{i:05d}", "subject_id": 7_000_000 + i // 2, "coarse": None, "fine": None}
        made.append({**place, **row, **{s: v.tolist() for s, v in zip(spaces, vectors, strict=False)}})
    return pa.Table.from_pylist(made, schema=schema.INDEX.columns)


def plain(n: int) -> list[dict[str, Any]]:
    return [
        {"time": TIMES[1], "split": "train", "sex": "male", "age": 50.0, "quality": [], "findings": ["SCP//AFIB"]}
    ] * n


def lance(place: Path) -> VectorIndex:
    return LanceIndex(str(place / "lance"))


def qdrant(place: Path) -> VectorIndex:
    return QdrantIndex(QdrantClient(":memory:"))


def exact(place: Path) -> VectorIndex:
    return ExactIndex(place / "exact")


others = pytest.mark.parametrize("backend", [lance, qdrant])
every = pytest.mark.parametrize("backend", [exact, lance, qdrant])


@others
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(a_row, min_size=1, max_size=12), st.lists(st.lists(a_clause, max_size=3), min_size=1, max_size=6))
def test_the_same_recordings_satisfy_a_filter(
    backend: Callable[[Path], VectorIndex],
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    filters: list[list[Clause]],
) -> None:
    content = table(rows)
    oracle, other = ExactIndex(), backend(tmp_path_factory.mktemp("index"))
    oracle.add(content)
    other.add(content)
    vector = np.array([1, 0, 0, 0], np.float32)
    for clauses in filters:
        where: Filter = tuple(clauses)
        for space in ("coarse", "fine"):
            wanted = oracle.query(vector, 100, space, where)
            found = other.query(vector, 100, space, where)
            assert [name for name, _ in found] == [name for name, _ in wanted], where
            assert [s for _, s in found] == pytest.approx([s for _, s in wanted], abs=1e-5)
    other.close()


@every
def test_what_goes_in_comes_out(backend: Callable[[Path], VectorIndex], tmp_path: Path) -> None:
    rows = [{**plain(1)[0], "device": "CS-12 'E'", "outlier": 0.5, "site": None}, *plain(4)]
    content, index = table(rows), backend(tmp_path)
    assert len(index) == 0 and index.rows(["recording-00000"]).num_rows == 0
    assert index.query(np.ones(4, np.float32), 3, "coarse") == []
    index.add(content)
    assert len(index) == 5 and list(index.spaces) == ["coarse", "fine"]
    found = index.rows(["recording-00003", "nobody", "recording-00000"])
    assert found["recording_id"].to_pylist() == ["recording-00003", "recording-00000"]
    expected = content.take([3, 0])
    for name in schema.INDEX.columns.names:
        if name in ("coarse", "fine"):
            assert np.allclose(found[name].to_pylist(), expected[name].to_pylist(), atol=1e-6)
        else:
            assert found[name].to_pylist() == expected[name].to_pylist()


@every
def test_clear_removes_everything(backend: Callable[[Path], VectorIndex], tmp_path: Path) -> None:
    index = backend(tmp_path)
    index.clear()
    index.add(table(plain(6)))
    index.clear()
    assert len(index) == 0 and index.query(np.ones(4, np.float32), 3, "coarse") == []
    index.add(table(plain(2), spaces=("coarse",)))
    assert len(index) == 2 and list(index.spaces) == ["coarse"]


@every
def test_a_recording_that_comes_again_takes_its_own_place(
    backend: Callable[[Path], VectorIndex], tmp_path: Path
) -> None:
    index = backend(tmp_path)
    index.add(table(plain(6)))
    index.add(table([{**plain(1)[0], "sex": "female"}], seed=9))
    assert len(index) == 6
    assert index.rows(["recording-00000"])["sex"].to_pylist() == ["female"]
    assert [n for n, _ in index.query(np.ones(4, np.float32), 9, "coarse", parse("sex = female"))] == [
        "recording-00000"
    ]


@every
def test_a_model_with_one_space(backend: Callable[[Path], VectorIndex], tmp_path: Path) -> None:
    index = backend(tmp_path)
    index.add(table(plain(4), spaces=("coarse",)))
    assert list(index.spaces) == ["coarse"]
    assert index.rows(["recording-00001"])["fine"].to_pylist() == [None]
    with pytest.raises(EinthovenError, match="no fine vectors"):
        index.query(np.ones(4, np.float32), 3, "fine")


@every
def test_a_patient_who_is_deleted_leaves_no_trace(backend: Callable[[Path], VectorIndex], tmp_path: Path) -> None:
    content, index = table(plain(300), dim=8), backend(tmp_path)
    index.add(content)
    vector = np.asarray(content["coarse"][6].as_py(), np.float32)
    assert index.query(vector, 1, "coarse")[0][0] == "recording-00006"
    assert index.delete_patients([7_000_003]) == 2  # recordings 6 and 7
    assert len(index) == 298 and index.rows(["recording-00006"]).num_rows == 0
    found = [name for name, _ in index.query(vector, 298, "coarse")]
    assert len(found) == 298 and not {"recording-00006", "recording-00007"} & set(found)
    assert index.delete_patients([7_000_003]) == 0 and index.delete_patients([]) == 0
    traces = [b"recording-00006", b"recording-00007", vector.tobytes()]
    traces += [np.int64(7_000_003).tobytes(), np.asarray(content["fine"][7].as_py(), np.float32).tobytes()]
    kept = np.asarray(content["coarse"][8].as_py(), np.float32).tobytes()
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [trace for trace in traces for content_of in files if trace in content_of]
    if backend is not qdrant:  # in memory: no files. The others' files hold vectors as they are, so the search can find
        assert any(kept in content_of for content_of in files)


def test_lance_reads_what_another_process_wrote(tmp_path: Path) -> None:
    lance(tmp_path).add(table(plain(3)))
    assert len(lance(tmp_path)) == 3
    uri = (tmp_path / "other").as_uri()
    LanceIndex(uri).add(table(plain(3)))
    assert len(LanceIndex(uri)) == 3


def test_a_graph_finds_what_the_exact_search_finds(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("einthoven.search.lance.APPROXIMATE", 1000)
    generator = np.random.default_rng(0)
    content = table(plain(2000), dim=16, seed=1)
    graph, oracle = lance(tmp_path), ExactIndex()
    graph.add(content)
    oracle.add(content)
    share = []
    for _ in range(20):
        vector = generator.normal(size=16).astype(np.float32)
        vector /= np.linalg.norm(vector)
        wanted, found = (dict(index.query(vector, 10, "coarse")) for index in (oracle, graph))
        share.append(len(wanted.keys() & found.keys()) / 10)
        both = wanted.keys() & found.keys()
        assert [found[name] for name in both] == pytest.approx([wanted[name] for name in both], abs=1e-4)
    assert np.mean(share) >= 0.99
    assert graph.delete_patients([7_000_000]) == 2 and len(graph) == 1998


def test_qdrant_that_is_not_there_is_told_without_the_key(monkeypatch) -> None:
    from einthoven.search.qdrant import KEY, connect

    monkeypatch.setenv(KEY, "very-secret")
    with pytest.raises(EinthovenError, match="Qdrant does not answer") as told:
        QdrantIndex(connect("http://127.0.0.1:9"))
    assert "very-secret" not in str(told.value)
    with pytest.raises(EinthovenError, match="unencrypted"):
        connect("http://qdrant.example:6333")
    with pytest.raises(EinthovenError, match=KEY):
        connect("https://user:secret@127.0.0.1:6333")


def test_lance_says_nothing_on_stderr(tmp_path: Path) -> None:
    add = "index = LanceIndex(sys.argv[1]); index.add(pq.read_table(sys.argv[2])); print(len(index))"
    script = f"import sys; import pyarrow.parquet as pq; from einthoven.search.lance import LanceIndex; {add}"
    pq.write_table(table(plain(3)), tmp_path / "rows.parquet")
    arguments = [str(tmp_path / "new"), str(tmp_path / "rows.parquet")]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, env=os.environ, check=True
    )
    assert done.stdout == "3\n" and done.stderr == ""

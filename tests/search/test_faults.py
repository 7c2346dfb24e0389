"""What goes wrong with an index: kills, typing errors, servers and disks that fail, and patients who must not stay."""

import errno
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from qdrant_client import QdrantClient
from safetensors import safe_open
from safetensors.numpy import save_file

from einthoven import indexing, schema
from einthoven.errors import EinthovenError
from einthoven.search.archive import Hit, Query
from einthoven.search.exact import ExactIndex
from einthoven.search.filters import parse
from einthoven.search.index import VectorIndex
from einthoven.search.lance import LanceIndex
from einthoven.search.qdrant import QdrantIndex, connect

ONES = np.ones(4, np.float32)


def first(model: Path, study: Path) -> Hit:
    return indexing.open_archive(model, study).search(Query(text="normal ecg", top=1)).hits[0]


def holding(directory: Path, trace: str) -> list[Path]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return [path for path in files if trace.encode() in path.read_bytes()]


def table(n: int, dim: int = 4, seed: int = 0, device: list[str] | None = None) -> pa.Table:
    vectors = np.random.default_rng(seed).normal(size=(n, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    known = {"split": "train", "age": 50.0, "outlier": 0.5, "device": "a"}
    rows: list[dict[str, Any]] = [
        {"recording_id": f"recording-{i:05d}", "subject_id": i, "coarse": vector.tolist(), **known}
        for i, vector in enumerate(vectors)
    ]
    for row, name in zip(rows, device or (), strict=False):
        row["device"] = name
    return pa.Table.from_pylist(rows, schema=schema.INDEX.columns)


def test_a_killed_forget_still_knows_where_the_patients_lie(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, study, far = place / "model", place / "study", tmp_path / "far"
    indexing.index(model, study, far.as_uri())
    hit = first(model, study)
    assert holding(far, hit.recording_id)

    def killed(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(LanceIndex, "delete_patients", killed)
        indexing.forget(model, study, [hit.subject_id])
    indexing.open_archive(model, study)
    assert indexing.backend_of(indexing.place_of(model, study)) == far.as_uri()
    assert not holding(far, hit.recording_id)


def test_another_backend_leaves_nothing_where_the_index_was(place: Path, tmp_path: Path) -> None:
    model, study, far = place / "model", place / "study", tmp_path / "far"
    indexing.index(model, study, far.as_uri())
    indexing.index(model, study, "exact")
    assert not holding(far, first(model, study).recording_id)


def test_the_indexes_of_other_models_forget_as_well(place: Path, tmp_path: Path) -> None:
    model, study, other = place / "model", place / "study", tmp_path / "other"
    shutil.copytree(model, other)
    with safe_open(other / "model.safetensors", "np") as file:
        about, weights = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    name = next(name for name, weight in weights.items() if weight.dtype == np.float32)
    save_file({**weights, name: weights[name] * np.float32(1.001)}, other / "model.safetensors", metadata=about)
    (other / "manifest.json").unlink()
    indexing.index(model, study, "exact")
    indexing.index(other, study, "exact")
    hit = first(model, study)
    assert indexing.place_of(other, study) != indexing.place_of(model, study)
    indexing.forget(model, study, [hit.subject_id])
    for each in (model, other):  # read, not searched for bytes: Parquet is compressed
        kept = ExactIndex.open(indexing.place_of(each, study)).table["recording_id"].to_pylist()
        assert kept and hit.recording_id not in kept
    found = indexing.open_archive(other, study).search(Query(text="normal ecg", top=1000)).hits
    assert found and hit.subject_id not in {one.subject_id for one in found}


def test_two_studies_share_a_uri_and_not_an_index(place: Path, tmp_path: Path) -> None:
    model, study, second = place / "model", place / "study", tmp_path / "second"
    shutil.copytree(study, second, ignore=shutil.ignore_patterns("index"))
    uri = (tmp_path / "far").as_uri()
    before = indexing.index(model, study, uri).counts["recordings"]
    indexing.index(model, second, uri)
    indexing.forget(model, second, [first(model, second).subject_id])
    assert len(indexing.open_index(uri, indexing.place_of(model, study))) == before


def test_an_index_that_vanished_elsewhere_is_made_again(place: Path, tmp_path: Path) -> None:
    model, study, far = place / "model", place / "study", tmp_path / "far"
    indexing.index(model, study, far.as_uri())
    shutil.rmtree(far)
    assert first(model, study)


@pytest.mark.parametrize("backend", ["lnace", "", "ftp://a/b", "s3://", "http://127.0.0.1:9"])
def test_a_backend_that_is_none_costs_nothing(place: Path, backend: str) -> None:
    model, study = place / "model", place / "study"
    indexing.index(model, study, "exact")
    with pytest.raises(EinthovenError):
        indexing.index(model, study, backend)
    assert not indexing.index(model, study).fresh


def test_a_password_is_not_repeated(place: Path) -> None:
    for backend in ("s3://key:hush@bucket/x", "postgres://key:hush@host/x"):
        with pytest.raises(EinthovenError, match="without a user or password") as told:
            indexing.index(place / "model", place / "study", backend)
        assert "hush" not in str(told.value)


def test_a_patient_who_is_unknown_is_told_without_the_id(place: Path) -> None:
    model, study = place / "model", place / "study"
    some = first(model, study)
    with pytest.raises(EinthovenError, match="1 of these patients") as told:
        indexing.forget(model, study, [some.subject_id, 987654321])
    assert "987654321" not in str(told.value)
    assert first(model, study) == some


def test_a_read_only_study_is_searched_in_memory(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(indexing, "index", refused)
    assert first(place / "model", place / "study")


class _Once(BaseHTTPRequestHandler):
    """As much of Qdrant as an index needs to be opened."""

    def do_GET(self) -> None:
        about = {
            "status": "green", "optimizer_status": "ok", "segments_count": 1, "payload_schema": {},
            "config": {
                "params": {"vectors": {"coarse": {"size": 4, "distance": "Cosine"}}},
                "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
                "optimizer_config": {
                    "deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 0,
                    "flush_interval_sec": 5,
                },
            },
        }  # fmt: skip
        result: object = {"exists": True} if self.path.endswith("/exists") else about
        body = json.dumps({"result": result, "status": "ok", "time": 0}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_server_that_goes_away_is_told() -> None:
    with HTTPServer(("127.0.0.1", 0), _Once) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        index = QdrantIndex(connect(f"http://127.0.0.1:{server.server_port}"))
        server.shutdown()
    for ask in (lambda: index.query(ONES, 3, "coarse"), lambda: len(index), lambda: index.rows(["a"])):
        with pytest.raises(EinthovenError, match="Qdrant does not answer"):
            ask()


def test_damage_is_told(tmp_path: Path) -> None:
    LanceIndex(str(tmp_path)).add(table(20))
    for path in tmp_path.rglob("*.lance"):
        if path.is_file():
            path.write_bytes(b"junk")
    with pytest.raises(EinthovenError, match="damaged"):
        LanceIndex(str(tmp_path)).query(ONES, 3, "coarse")


def test_a_table_that_a_kill_left_half_made_is_made_again(tmp_path: Path) -> None:
    LanceIndex(str(tmp_path)).add(table(20))
    shutil.rmtree(tmp_path / "recordings.lance" / "_versions")
    index = LanceIndex(str(tmp_path))
    assert len(index) == 0
    index.clear()
    assert not holding(tmp_path, "recording-0000")
    index.add(table(3))
    assert len(LanceIndex(str(tmp_path))) == 3


@pytest.mark.parametrize("backend", ["exact", "lance", "qdrant"])
def test_an_index_outlives_its_last_patient(backend: str, tmp_path: Path) -> None:
    index: VectorIndex = {
        "exact": lambda: ExactIndex(tmp_path),
        "lance": lambda: LanceIndex(str(tmp_path)),
        "qdrant": lambda: QdrantIndex(QdrantClient(":memory:")),
    }[backend]()
    index.add(table(4))
    for text in ("age < 3e38", "time < 9999-12-31", "outlier_score > -3.4e38"):
        assert len(index.query(ONES, 9, "coarse", parse(text))) == (0 if "time" in text else 4)
    assert index.delete_patients([0, 1, 2, 3]) == 4 and len(index) == 0
    assert index.query(ONES, 3, "coarse") == []
    index.add(table(4))
    assert len(index) == 4


@pytest.mark.parametrize("text", ['device = "\ud800"', "age > 1e300", "age > -1e39", "time > 2020-01-01T00:00+05:00"])
def test_what_no_column_can_hold_is_refused(text: str) -> None:
    with pytest.raises(EinthovenError, match="--where"):
        parse(text)


@pytest.mark.parametrize("share", [0.5, 0.16, 0.01])
def test_a_graph_answers_any_top_with_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    monkeypatch.setattr("einthoven.search.lance.APPROXIMATE", 1000)
    generator = np.random.default_rng(0)
    device = ["yes" if one < share else "no" for one in generator.random(2000)]
    graph, oracle = LanceIndex(str(tmp_path)), ExactIndex()
    for index in (graph, oracle):
        index.add(table(2000, 16, 1, device))
        index.settle()
    found_share = []
    for top in (10, 30, 300):
        for _ in range(3):
            vector = generator.normal(size=16).astype(np.float32)
            where = parse("device = yes")
            wanted, found = ({name for name, _ in i.query(vector, top, "coarse", where)} for i in (oracle, graph))
            assert len(found) == len(wanted)
            found_share.append(len(wanted & found) / len(wanted))
    assert np.mean(found_share) >= 0.99


def test_no_file_of_an_older_graph_or_version_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("einthoven.search.lance.APPROXIMATE", 1000)
    index = LanceIndex(str(tmp_path))
    index.add(table(2000, 16))
    index.settle()
    old = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert any("_indices" in path.parts for path in old)
    index.delete_patients([3])
    assert not [path for path in old if path.exists() and {"_indices", "data"} & {*path.parts}]

"""A store at a URL gives the rows of the same store on disk, whatever of it is kept, spoiled or unreachable."""

import json
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest

from einthoven.errors import EinthovenError
from einthoven.waveforms.remote import ROWS, SUMS, RemoteStore
from einthoven.waveforms.store import Store, StoreWriter

N, SAMPLES = 23, 40
ROW = 12 * SAMPLES * 2


@pytest.fixture
def here(tmp_path: Path) -> Store:
    """A store of three shards on disk."""
    signal = np.random.default_rng(0).integers(-3000, 3000, (N, 12, SAMPLES)).astype(np.int16)
    with StoreWriter(tmp_path / "here", 100, SAMPLES, N, shard_rows=10) as writer:
        writer.write(0, signal)
    return Store.open(tmp_path / "here")


def pointing(folder: Path, url: str, **more: object) -> Path:
    """A study whose waveforms lie at the URL; what is read of them is kept below `folder`."""
    place = folder / "there" / "waveforms"
    place.mkdir(parents=True, exist_ok=True)
    place.joinpath("store.json").write_text(json.dumps({"url": url, "cache": str(folder / "cache"), **more}))
    return place.parent


def kept(folder: Path) -> int:
    """Rows that are kept."""
    (sums,) = (folder / "cache").glob(f"*/{SUMS}")
    return int(np.count_nonzero(np.fromfile(sums, np.uint64)))


@pytest.fixture
def memory(here: Store) -> Iterator[str]:
    system = fsspec.filesystem("memory")
    system.put(str(here.path), "/bucket/waveforms", recursive=True)
    yield "memory://bucket/waveforms"
    system.rm("/bucket", recursive=True)


@pytest.mark.parametrize("keeping", [0, 5 * ROW / 1e9, 1.0])
def test_rows_are_those_on_disk_and_the_room_is_bounded(
    here: Store, memory: str, tmp_path: Path, keeping: float
) -> None:
    there = Store.open(pointing(tmp_path, memory, cache_gb=keeping))
    assert isinstance(there, RemoteStore) and (there.rows, there.sampling_rate, there.samples) == (N, 100, SAMPLES)
    random = np.random.default_rng(1)
    for _ in range(4):
        rows = random.integers(0, N, 17)
        assert np.array_equal(there.read(rows), here.read(rows))
        assert np.array_equal(pickle.loads(pickle.dumps(there)).read(rows), here.read(rows))  # noqa: S301
    assert there.read([]).shape == (0, 12, SAMPLES)
    if keeping:
        assert kept(tmp_path) == min(5, N) if keeping < 1 else kept(tmp_path) > 5
    else:
        assert not (tmp_path / "cache").exists()
    with pytest.raises(EinthovenError, match="were asked for"):
        there.read([N])


def test_what_is_kept_is_read_without_the_source_and_what_is_spoiled_is_fetched_again(
    here: Store, tmp_path: Path
) -> None:
    study = pointing(tmp_path, f"file://{here.path}")
    there = Store.open(study)
    there.read(np.arange(N))
    (here.path / "00001.npy").rename(here.path / "gone")
    again = Store.open(study)
    assert np.array_equal(again.read([3, 12])[0], here.read([3])[0])
    (rows,) = (tmp_path / "cache").glob(f"*/{ROWS}")
    with rows.open("r+b") as file:  # as a process leaves it that is killed while it writes, or a disk that fails
        file.seek(3 * ROW + 100)
        file.write(b"\0" * 50)
        file.truncate(12 * ROW + 7)
    assert np.array_equal(again.read([3]), here.read([3]))
    with pytest.raises(EinthovenError, match=r"could not be read \(FileNotFoundError\).*what was fetched is kept"):
        again.read([12])
    (here.path / "gone").rename(here.path / "00001.npy")
    assert np.array_equal(again.read(np.arange(N)), here.read(np.arange(N)))
    assert kept(tmp_path) == N


def test_another_version_of_the_store_is_not_mixed_with_what_was_kept(here: Store, tmp_path: Path) -> None:
    study = pointing(tmp_path, f"file://{here.path}")
    before = Store.open(study).read(np.arange(N))
    with StoreWriter(here.path.parent, 100, SAMPLES, N, shard_rows=10) as writer:
        writer.write(0, before[::-1])
    assert np.array_equal(Store.open(study).read(np.arange(N)), before[::-1])


def test_a_store_behind_a_web_server(here: Store, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="fsspec reads http by aiohttp")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(here.path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    study = pointing(tmp_path, url)
    try:
        # this server ignores ranges: what comes back is refused rather than taken for the row
        with pytest.raises(EinthovenError, match=r"could not be read|too short"):
            Store.open(study).read([5])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    with pytest.raises(EinthovenError, match=r"127\.0\.0\.1:\d+ could not be read"):
        Store.open(study)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"url": "memory://nowhere/waveforms"}, "does not exist: copy STUDY/waveforms there"),
        ({"url": "nosuchscheme://a/b"}, "nosuchscheme"),
        ({"url": "s3://user:secret@bucket/a"}, "no user or password"),
        ({"url": "/a/path"}, "name a scheme"),
        ({"url": "memory://a", "cache_gb": "many"}, "expected the keys url, cache, cache_gb"),
        ({"url": "memory://a", "rows": 3}, "expected the keys url, cache, cache_gb"),
    ],
)
def test_what_cannot_be_reached_or_read_is_told(tmp_path: Path, values: dict[str, object], said: str) -> None:
    place = tmp_path / "waveforms"
    place.mkdir()
    place.joinpath("store.json").write_text(json.dumps(values))
    with pytest.raises(EinthovenError, match=said) as caught:
        Store.open(tmp_path)
    assert "secret" not in str(caught.value)

"""Real children, and files that no reader would survive in the server itself."""

import asyncio
import gzip
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from einthoven.schema import LEADS
from einthoven.serve.options import MAX_UPLOAD, Options
from einthoven.serve.problems import RefusedError
from einthoven.serve.uploads import UNREADABLE, Child, Upload, Uploads
from einthoven.waveforms.formats import read_ecg
from einthoven.waveforms.readers.protocol import Hints

HOSTILE = """
import ctypes, os, sys, tempfile, time
from einthoven.errors import EinthovenError
from einthoven.serve import parsing
from einthoven.waveforms.formats import read_ecg

def read(content, **of):
    kind = content.decode("latin-1")[:20]
    if kind == "spin":
        while True: pass
    if kind == "wait":
        time.sleep(600)
    if kind == "hog":
        return [bytearray(1 << 26) for _ in range(1000)]
    if kind == "crash":
        ctypes.string_at(0)
    if kind == "disk":
        with open(os.path.join(tempfile.gettempdir(), "left"), "wb") as file:
            while True: file.write(bytes(1 << 20))
    if kind == "files":
        return [open("/dev/null") for _ in range(1000)]
    if kind == "nonsense":
        os.write(1, b"\\x00" * 7 + b"\\x05hello")
    if kind == "secrets":
        raise EinthovenError(" ".join(sorted(os.environ)))
    return read_ecg(content, **of)

parsing._warm = lambda: None
parsing.main(parsing.Limits(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])), read)
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A child whose reader does what a broken file might make a reader do."""
    script = tmp_path_factory.mktemp("hostile") / "child.py"
    script.write_text(HOSTILE)
    child = Child(Options(parse_seconds=1.0, parse_bytes=1 << 28), (sys.executable, str(script)))
    child.start()
    yield child
    child.close()


def test_every_format_is_read_as_in_the_server(samples: dict[str, bytes]) -> None:
    child = Child(Options())
    try:
        for name, content in samples.items():
            there, here = child.read(Upload(content)), read_ecg(content)
            np.testing.assert_array_equal(there.signal, here.signal, err_msg=name)
            assert (there.sampling_rate, there.leads, there.format, there.derived) == (
                here.sampling_rate, here.leads, here.format, here.derived,
            ), name  # fmt: skip
    finally:
        child.close()


def npy(samples: int = 1000) -> tuple[bytes, Hints]:
    import io

    file = io.BytesIO()
    np.save(file, np.random.default_rng(0).standard_normal((12, samples)).astype(np.float32))
    return file.getvalue(), Hints(500.0, "mV", LEADS)


@pytest.mark.parametrize("kind", ["spin", "wait", "hog", "crash", "disk", "files", "nonsense"])
def test_what_takes_too_much_is_ended_and_the_next_is_read(hostile: Child, kind: str) -> None:
    began = time.monotonic()
    with pytest.raises(RefusedError) as refused:
        hostile.read(Upload(kind.encode()))
    assert (refused.value.status_code, refused.value.detail) == (422, UNREADABLE)
    assert time.monotonic() - began < 60
    assert hostile.read(Upload(*npy())).signal.shape == (12, 1000)


def test_what_a_reader_left_behind_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (script := tmp_path / "child.py").write_text(HOSTILE)
    child = Child(Options(parse_seconds=5.0), (sys.executable, str(script)))
    with pytest.raises(RefusedError):
        child.read(Upload(b"disk"))
    child.close()
    assert [path.name for path in tmp_path.iterdir()] == ["child.py"]


def test_a_child_does_not_know_the_servers_secrets(hostile: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EINTHOVEN_SECRET", "x")
    hostile.close()
    with pytest.raises(RefusedError) as told:
        hostile.read(Upload(b"secrets"))
    assert "EINTHOVEN_SECRET" not in told.value.detail and "TMPDIR" in told.value.detail


def test_what_a_file_unpacks_to_is_bounded(ask: Callable[..., Any], problem: Callable[..., Any]) -> None:
    bomb = gzip.compress(bytes(200 << 20), 6)
    assert len(bomb) < 1 << 20
    said = problem(ask("POST", "/api/search/ecg", files={"file": ("a", bomb)}))
    assert said["status"] == 422 and "too-large" in said["detail"]


def test_a_file_may_be_so_large_and_no_larger(ask: Callable[..., Any], problem: Callable[..., Any]) -> None:
    said = problem(ask("POST", "/api/search/ecg", files={"file": ("a", bytes(MAX_UPLOAD + 1))}))
    assert said["status"] in (413, 422) and f"{MAX_UPLOAD}" in said["detail"].replace(",", "")


def test_no_name_or_word_of_a_file_is_answered(ask: Callable[..., Any], make: ModuleType) -> None:
    for content in (b"Mustermann;Erika", make.muse(crc=1), make.table().replace(b",", b";;", 3)):
        answer = ask("POST", "/api/findings/ecg", files={"file": ("Mustermann.xml", content)})
        assert answer.status_code == 422 and "Mustermann" not in answer.text and "Traceback" not in answer.text


def test_uploads_share_the_children(samples: dict[str, bytes]) -> None:
    uploads = Uploads(Options())

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(uploads.read(Upload(*npy(500 + i))) for i in range(6)))

    try:
        assert [ecg.signal.shape[1] for ecg in asyncio.run(all_at_once())] == [500, 501, 502, 503, 504, 505]
    finally:
        uploads.close()

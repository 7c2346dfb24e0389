"""Downloads from a server on this machine: whole, resumed, checked, and never outside their folder."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einthoven import cli
from einthoven.errors import EinthovenError
from einthoven.sources.download import DownloadError, Transfer, download, is_allowed
from einthoven.sources.fetch import OPEN, RECORD, SUMS, fetch, is_inside
from einthoven.study import lock

FILES = {
    "LICENSE.txt": b"free",
    "empty.csv": b"",
    "records 100/00000/00001_lr.dat": bytes(range(256)) * 4000,
    "records 100/00000/00001_lr.hea": b"header",
}
BIG = "records 100/00000/00001_lr.dat"


class Server(ThreadingHTTPServer):
    """Serves `files` with ranges, unless told otherwise; remembers what it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = dict(FILES)
        self.ranges = True
        self.breaks: dict[str, list[int]] = {}  # path -> bytes after which each of the next answers breaks off
        self.answers: dict[str, list[int]] = {}  # path -> status codes of the next answers; then it is served
        self.redirects: dict[str, str] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.list_all()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/files/ptb-xl/1.0.3/"

    def list_all(self) -> None:
        lines = (f"{hashlib.sha256(d).hexdigest()} {p}\n" for p, d in self.files.items() if p != SUMS)
        self.files[SUMS] = "".join(lines).encode()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = unquote(self.path).removeprefix("/files/ptb-xl/1.0.3/")
        self.server.asked.append((path, self.headers["Range"]))
        if path in self.server.redirects:
            self.plain(302, Location=self.server.redirects[path])
        elif self.server.answers.get(path):
            self.plain(self.server.answers[path].pop(0), **{"Retry-After": "0"})
        elif path not in self.server.files:
            self.plain(404)
        else:
            self.serve(path, self.server.files[path])

    def plain(self, code: int, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def serve(self, path: str, data: bytes) -> None:
        asked, start = self.headers["Range"], 0
        if asked and self.server.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                return self.plain(416, **{"Content-Range": f"bytes */{len(data)}"})
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        breaks = self.server.breaks.get(path)
        self.wfile.write(data[start:][: breaks.pop(0) if breaks else None])
        return None

    def log_message(self, format: str, *args: Any) -> None:
        """Tests are quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()
    thread = threading.Thread(target=served.serve_forever, args=(0.01,))
    thread.start()
    yield served
    served.shutdown()
    served.server_close()
    thread.join()


@pytest.fixture
def get(server: Server, tmp_path: Path) -> Callable[..., Any]:
    return lambda **options: fetch("ptb-xl", tmp_path / "dest", base=server.base, delay=0, **options)


def content(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name not in (RECORD, SUMS, ".lock")
    }


def test_whole_set_and_again(server: Server, get: Callable[..., Any], tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    done = get(progress=lambda *what: seen.append(what))
    assert (done.downloaded, done.there, done.bytes) == (4, 0, sum(map(len, FILES.values())))
    assert content(tmp_path / "dest") == FILES and seen[-1][:2] == (4, 4) and "MB/s" in seen[-1][2]
    assert len(server.asked) == 5
    done = get()
    assert (done.downloaded, done.there, done.bytes) == (0, 4, 0) and len(server.asked) == 5
    (tmp_path / "dest" / BIG).write_bytes(FILES[BIG][::-1])
    with pytest.raises(EinthovenError, match="another content; delete it"):
        get()
    assert (tmp_path / "dest" / BIG).read_bytes() == FILES[BIG][::-1]  # what is there is never replaced
    (tmp_path / "dest" / BIG).unlink()
    assert (get().downloaded, get(verify=True).there) == (1, 4)


def test_files_that_were_there_are_checked_and_kept(server: Server, get: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "dest").mkdir()
    (tmp_path / "dest" / "LICENSE.txt").write_bytes(b"free")
    done = get()
    assert (done.downloaded, done.there) == (3, 1) and "LICENSE.txt" not in {path for path, _ in server.asked}


def test_broken_connections_go_on_where_they_stopped(server: Server, get: Callable[..., Any], tmp_path: Path) -> None:
    server.breaks[BIG] = [300_000, 0, 400_000]
    server.answers["LICENSE.txt"] = [503, 429]
    assert get().downloaded == 4 and content(tmp_path / "dest") == FILES
    assert [r for p, r in server.asked if p == BIG] == [None, "bytes=300000-", "bytes=300000-", "bytes=700000-"]
    assert [p for p, _ in server.asked].count("LICENSE.txt") == 3


def test_a_killed_run_goes_on(server: Server, get: Callable[..., Any], tmp_path: Path) -> None:
    part = tmp_path / "dest" / (BIG + ".part")
    part.parent.mkdir(parents=True)
    part.write_bytes(FILES[BIG][:12345])
    assert get(only=[BIG]).bytes == len(FILES[BIG]) - 12345
    assert (tmp_path / "dest" / BIG).read_bytes() == FILES[BIG] and not part.exists()


@pytest.mark.parametrize("rest", [FILES[BIG], FILES[BIG] + b"more", b"of another version", b"x" * len(FILES[BIG])])
def test_parts_that_are_whole_too_long_or_foreign(
    server: Server, get: Callable[..., Any], tmp_path: Path, rest: bytes
) -> None:
    part = tmp_path / "dest" / (BIG + ".part")
    part.parent.mkdir(parents=True)
    part.write_bytes(rest)
    assert get().downloaded == 4 and content(tmp_path / "dest") == FILES


def test_a_server_without_ranges(server: Server, get: Callable[..., Any], tmp_path: Path) -> None:
    server.ranges = False
    server.breaks[BIG] = [300_000]
    assert get().downloaded == 4 and content(tmp_path / "dest") == FILES


def test_what_cannot_be_had_is_told_after_all_else_is_there(
    server: Server, get: Callable[..., Any], tmp_path: Path
) -> None:
    server.files["LICENSE.txt"] = b"another"
    del server.files["empty.csv"]
    server.answers[BIG] = [403]
    with pytest.raises(EinthovenError) as caught:
        get()
    told = str(caught.value)
    assert "3 of 4 files" in told and "SHA-256 differs" in told and "404" in told and "refuses access (403)" in told
    assert content(tmp_path / "dest") == {"records 100/00000/00001_lr.hea": b"header"}
    server.files |= FILES
    assert get().downloaded == 3 and content(tmp_path / "dest") == FILES


def test_a_server_that_never_answers_well(server: Server, tmp_path: Path) -> None:
    server.answers["LICENSE.txt"] = [500] * 99
    with pytest.raises(DownloadError, match="answers 500, 6 times in a row"):
        download(server.base + "LICENSE.txt", tmp_path / "x", Transfer(delay=0))
    with pytest.raises(DownloadError, match="larger than 10 bytes"):
        download(server.base + quote(BIG), tmp_path / "x", Transfer(delay=0), limit=10)
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError, match="no connection"):
        download(server.base + quote(BIG), tmp_path / "y", Transfer(delay=0))
    with pytest.raises(DownloadError, match="not valid"):
        download(server.base + BIG, tmp_path / "y", Transfer(delay=0))
    assert not list(tmp_path.glob("[xy]"))


@pytest.mark.parametrize(
    "line",
    ["{0} ../outside", "{0} /etc/x", "{0} a/../../b", "{0} a\\b", "{0} .fetched.tsv", "{0} a.part", "0123 a", "<html>"],
)
def test_listings_that_are_not_to_be_trusted(
    server: Server, get: Callable[..., Any], tmp_path: Path, line: str
) -> None:
    server.files[SUMS] += line.format("0" * 64).encode() + b"\n"
    with pytest.raises(EinthovenError, match="line 5"):
        get()
    assert content(tmp_path / "dest") == {} and [p for p, _ in server.asked] == [SUMS]


def test_one_path_with_two_checksums(server: Server, get: Callable[..., Any]) -> None:
    server.files[SUMS] += ("0" * 64 + " ./LICENSE.txt\n").encode()
    with pytest.raises(EinthovenError, match="each path once"):
        get()


def test_links_out_of_the_folder_are_not_followed(server: Server, get: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "dest").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "dest" / "records 100").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EinthovenError, match="a link leads out"):
        get()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_only_a_part(server: Server, get: Callable[..., Any], tmp_path: Path) -> None:
    assert get(only=["*.hea", "*.csv"]).downloaded == 2
    assert set(content(tmp_path / "dest")) == {"records 100/00000/00001_lr.hea", "empty.csv"}
    with pytest.raises(EinthovenError, match="none of the 4 files"):
        get(only=["*.zip"])


def test_refusals(server: Server, tmp_path: Path) -> None:
    with pytest.raises(EinthovenError, match="not open: ask for access at https://"):
        fetch("mimic-iv", tmp_path / "dest")
    with pytest.raises(EinthovenError, match=r"unknown data set 'x'.*\n  ptb-xl"):
        fetch("x", tmp_path / "dest")
    with pytest.raises(EinthovenError, match="https"):
        fetch("ptb-xl", tmp_path / "dest", base="http://example.org/files")
    assert not (tmp_path / "dest").exists()
    fetch("ptb-xl", tmp_path / "dest", base=server.base)
    with pytest.raises(EinthovenError, match=r"another data set .ptb-xl 1\.0\.3"):
        fetch("brugada-huca", tmp_path / "dest", base=server.base)
    with lock(tmp_path / "dest"), pytest.raises(EinthovenError, match="another process"):
        fetch("ptb-xl", tmp_path / "dest", base=server.base)


def test_redirections(server: Server, get: Callable[..., Any], tmp_path: Path) -> None:
    server.files["moved"] = b"free"
    server.redirects["LICENSE.txt"] = server.base + "moved"
    server.redirects["empty.csv"] = "http://example.org/empty.csv"
    with pytest.raises(EinthovenError, match=r"1 of 4 files .* without https"):
        get()
    assert content(tmp_path / "dest") == {path: data for path, data in FILES.items() if path != "empty.csv"}
    assert is_allowed("https://example.org") and not is_allowed("file:///etc/hostname")


def test_half_a_line_of_a_killed_run(server: Server, get: Callable[..., Any], tmp_path: Path) -> None:
    get()
    record = tmp_path / "dest" / RECORD
    record.write_text(record.read_text()[:-20])
    assert get().there == 4 and get(verify=True).there == 4


def test_an_interrupted_run_stops_its_threads(server: Server, get: Callable[..., Any], tmp_path: Path) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(progress=interrupt)
    asked = len(server.asked)
    there = sum(not path.endswith(".part") for path in content(tmp_path / "dest"))
    assert len(server.asked) == asked and get().there == there
    assert content(tmp_path / "dest") == FILES


@settings(deadline=None)
@given(st.text(max_size=30))
def test_paths_that_pass_stay_inside(path: str) -> None:
    if is_inside(path):
        root = Path("/root-of-a-set")
        assert (root / path).resolve().is_relative_to(root) and (root / path) != root


def test_the_command(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dest = str(tmp_path / "dest")
    cli.app(["fetch", "ptb-xl", dest, "--base", server.base, "--only", "*.hea"], standalone_mode=False)
    assert "1 files downloaded" in capsys.readouterr().out
    assert all(dataset.page.startswith("https://physionet.org/content/") for dataset in OPEN.values())

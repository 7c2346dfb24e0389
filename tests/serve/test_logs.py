import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from einthoven.errors import EinthovenError
from einthoven.serve.audit import Audit
from einthoven.serve.metrics import Histogram


def test_the_audit_log_tells_that_not_what(
    served: Callable[..., Any], recording: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "audit" / "log.jsonl"
    ask = served(audit=path)
    ask("POST", "/api/search", json={"text": "Mustermann", "top": 3})
    ask("POST", "/api/search", json={"text": "Mustermann", "top": 5})
    ask("POST", "/api/search", json={"text": "someone else"})
    ask("POST", "/api/search", json={"recording_id": recording})
    ask("GET", f"/api/recordings/{recording}")
    ask("GET", "/api/recordings/Mustermann.svg")
    ask("POST", "/api/findings/ecg", files={"file": ("Mustermann.xml", b"Mustermann")})
    ask("POST", "/api/search", json={"text": 1})
    written = path.read_text()
    everything = written + caplog.text.replace("http://localhost", "") + "".join(capfd.readouterr())
    caller = "HTTP Request"  # the test's own client tells its requests
    ours = "\n".join(line for line in everything.splitlines() if caller not in line and "httpx" not in line)
    assert "Mustermann" not in ours and "someone" not in ours and recording not in ours
    lines = [json.loads(line) for line in written.splitlines()]
    assert [(line["route"], line["status"]) for line in lines] == [
        ("/api/search", 200), ("/api/search", 200), ("/api/search", 200), ("/api/search", 200),
        ("/api/recordings/{recording_id}", 200), ("/api/recordings/{recording_id}.svg", 404),
        ("/api/findings/ecg", 422), ("/api/search", 422),
    ]  # fmt: skip
    queries = [line["query"] for line in lines]
    assert queries[0] == queries[1] != queries[2] and queries[3] == queries[4] and queries[7] is None
    assert all(set(line) == {"time", "method", "route", "status", "milliseconds", "kind", "query"} for line in lines)
    assert all(line["milliseconds"] > 0 and line["time"].endswith("+00:00") for line in lines)
    assert path.stat().st_mode & 0o077 == 0 and path.with_name("log.jsonl.key").stat().st_mode & 0o077 == 0


def test_hashes_last_as_long_as_the_key(tmp_path: Path) -> None:
    first = Audit.open(tmp_path / "log")
    assert Audit.open(tmp_path / "log").hash("text", b"a") == first.hash("text", b"a") != first.hash("codes", b"a")
    assert Audit.open(tmp_path / "other").hash("text", b"a") != first.hash("text", b"a")
    (tmp_path / "log.key").write_bytes(b"short")
    with pytest.raises(EinthovenError, match="expected 32 bytes"):
        Audit.open(tmp_path / "log")
    (tmp_path / "file").touch()
    with pytest.raises(EinthovenError, match="cannot be written"):
        Audit.open(tmp_path / "file" / "log")


def test_a_log_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    audit = Audit.open(tmp_path / "log")
    audit.write("GET", "/", 200, 0.1, None)
    (tmp_path / "log").rename(tmp_path / "log.1")
    audit.write("GET", "/", 404, 0.1, None)
    assert json.loads((tmp_path / "log").read_text())["status"] == 404


def test_a_histogram_counts_each_bucket_with_those_before_it() -> None:
    histogram = Histogram((1.0, 2.0, 4.0))
    values = [0.5, 1.0, 1.5, 2.0, 3.0, 9.0]
    for value in values:
        histogram.add(value)
    lines = list(histogram.lines("x", 'a="b"'))
    assert lines == [
        *(f'x_bucket{{a="b",le="{bound:g}"}} {sum(value <= bound for value in values)}' for bound in (1, 2, 4)),
        'x_bucket{a="b",le="+Inf"} 6',
        'x_sum{a="b"} 17.000000',
        'x_count{a="b"} 6',
    ]


def test_who_leaves_amidst_a_file_is_no_failure(ask: Any, caplog: pytest.LogCaptureFixture) -> None:
    part = {"type": "http.request", "body": b"--b\r\nContent-Disposition: form-data", "more_body": True}
    headers = [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=b")]
    arriving: list[Any] = []
    sent: list[Any] = []

    async def receive() -> Any:
        return arriving.pop() if arriving else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    for path in ("/upload", "/api/search/ecg", "/search"):
        arriving.append(part)
        scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
        scope |= {"headers": headers, "scheme": "http", "client": ("127.0.0.1", 1), "server": ("localhost", 80)}
        asyncio.run(ask.app(scope, receive, send))
    assert "failed" not in caplog.text
    assert not any(message.get("status", 0) >= 500 for message in sent)

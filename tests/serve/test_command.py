"""`einthoven serve` itself: a process, a socket, and its end."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from einthoven import cli
from einthoven.errors import EinthovenError


@pytest.mark.parametrize(
    "options", [["--host", "0.0.0.0"], ["--host", "::"], ["--name", "ecg.example.org"], ["--behind-proxy"]]
)
def test_others_are_not_served_without_a_token(options: list[str], tmp_path: Path) -> None:
    with pytest.raises(EinthovenError, match="token"):
        cli.app(["serve", str(tmp_path / "model"), str(tmp_path / "study"), *options], standalone_mode=False)


def test_a_taken_port_is_told_before_a_model_is_read(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(EinthovenError, match=f"cannot listen on 127.0.0.1, port {port}"):
            cli.app(["serve", str(tmp_path / "model"), str(tmp_path / "study"), "--port", port], standalone_mode=False)


def test_what_was_accepted_is_answered_after_sigterm(trained: tuple[Path, Path], tmp_path: Path) -> None:
    model, study = trained
    log, errors = tmp_path / "audit.jsonl", tmp_path / "errors"
    command = [sys.executable, "-m", "einthoven", "serve", str(model), str(study), "--port", "0", "--log", str(log)]
    with errors.open("w") as file:
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=file, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    try:
        assert server.stdout is not None
        said = ""
        while (place := re.search(r"127\.0\.0\.1:(\d+)", said)) is None:
            line = server.stdout.readline()
            assert line, errors.read_text()
            said += line
        port = int(place[1])
        idle = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        idle.request("GET", "/api/health")
        assert json.loads(idle.getresponse().read()) == {"status": "ok"}
        body = json.dumps({"text": "Mustermann", "top": 2}).encode()
        with socket.create_connection(("127.0.0.1", port), timeout=60) as accepted:
            accepted.sendall(
                b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
            )
            assert accepted.recv(1000).startswith(b"HTTP/1.1 100")  # the request is being worked on
            server.send_signal(signal.SIGTERM)
            while refused(port) is False:
                pass
            accepted.sendall(body)
            answer = http.client.HTTPResponse(accepted)
            answer.begin()
            assert answer.status == 200 and len(json.loads(answer.read())["hits"]) == 2
        assert server.wait(60) in (0, -signal.SIGTERM)
        said += server.stdout.read()
    finally:
        server.kill()
        server.wait()
    told = said + errors.read_text() + log.read_text()
    assert "Mustermann" not in told and "Traceback" not in told
    assert [json.loads(line)["route"] for line in log.read_text().splitlines()] == ["/api/health", "/api/search"]


def refused(port: int) -> bool:
    """Does nobody listen there any more?"""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    except OSError:
        return True
    return False

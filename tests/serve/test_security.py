from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from einthoven.serve.access import COOKIE
from einthoven.serve.options import MAX_JSON, MAX_UPLOAD
from einthoven.serve.security import MULTIPART_ROOM, known_host, same_origin

TOKEN = "0123456789abcdef" * 2
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost", True), ("LOCALHOST:8765", True), ("127.0.0.1:8765", True), ("[::1]:8765", True),
        ("10.0.0.7", True), ("ecg.example.org", True), ("ecg.example.org.:443", True), ("evil.org", False),
        ("localhost.evil.org", False), ("127.0.0.1.evil.org", False), ("", False), ("[localhost]", False),
        ("evil.org#localhost", False), ("user@localhost", False),
    ],
)  # fmt: skip
def test_only_names_of_ours_are_answered(host: str, known: bool) -> None:
    assert known_host(host, ("ecg.example.org",)) is known


def test_a_rebound_name_gets_nothing(served: Callable[..., Any], problem: Callable[..., Any]) -> None:
    ask = served(base="http://evil.example")
    for method, url in (("GET", "/api/health"), ("GET", "/api/about"), ("POST", "/api/search")):
        assert problem(ask(method, url))["status"] == 421
    assert served(base="http://ecg.example.org", names=("ecg.example.org",))("GET", "/api/about").status_code == 200


@pytest.mark.parametrize(
    ("method", "headers", "ours"),
    [
        ("POST", {}, True),
        ("POST", {"origin": "http://localhost:8765"}, True),
        ("POST", {"origin": "https://LOCALHOST:8765"}, True),
        ("POST", {"origin": "http://localhost:9999"}, False),
        ("POST", {"origin": "http://evil.org"}, False),
        ("POST", {"origin": "null"}, False),
        ("POST", {"origin": ""}, False),
        ("POST", {"sec-fetch-site": "same-origin"}, True),
        ("POST", {"sec-fetch-site": "none"}, True),
        ("POST", {"sec-fetch-site": "same-site"}, False),
        ("POST", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, False),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, True),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, False),
        ("GET", {"origin": "http://evil.org"}, False),
    ],
)
def test_only_our_own_pages_and_programs_may_send(method: str, headers: dict[str, str], ours: bool) -> None:
    assert same_origin(method, {"host": "localhost:8765", **headers}) is ours


def test_a_page_of_another_site_is_refused(ask: Callable[..., Any], problem: Callable[..., Any]) -> None:
    body = {"text": "atrial fibrillation"}
    assert problem(ask("POST", "/api/search", json=body, headers={"Origin": "http://evil.org"}))["status"] == 403
    assert ask("POST", "/api/search", json=body, headers={"Origin": "http://localhost"}).status_code == 200
    simple = {"Content-Type": "text/plain"}  # what a form of another site can send without asking first
    assert ask("POST", "/api/search", content=b'{"text": "a"}', headers=simple).status_code == 422


def test_without_the_token_nothing_is_told(served: Callable[..., Any], problem: Callable[..., Any]) -> None:
    ask = served(token=TOKEN)
    document = ask("GET", "/api/openapi.json", headers=BEARER).json()
    closed = 0
    for path, methods in document["paths"].items():
        for method in methods:
            if path in ("/api/health", "/api/session"):
                continue
            answer = ask(method.upper(), path.replace("{recording_id}", "x"))
            assert problem(answer)["status"] == 401 and "Bearer" in answer.headers["www-authenticate"]
            closed += 1
    assert closed >= 10
    assert problem(ask("GET", "/api/openapi.json"))["status"] == 401
    assert ask("GET", "/api/health").json() == {"status": "ok"}
    assert ask("GET", "/").headers["location"] == "/login"
    assert ask("GET", "/static/../api/about").status_code in (303, 401)
    assert ask("GET", "/api/about", headers=BEARER).status_code == 200


def test_a_session_stands_for_the_token(served: Callable[..., Any], problem: Callable[..., Any]) -> None:
    ask = served(token=TOKEN)
    wrong = ask("POST", "/api/session", json={"token": "Mustermann"})
    assert problem(wrong)["status"] == 401 and "Mustermann" not in wrong.text and "set-cookie" not in wrong.headers
    entered = ask("POST", "/api/session", json={"token": TOKEN})
    cookie = entered.headers["set-cookie"]
    assert entered.status_code == 204 and "HttpOnly" in cookie and "SameSite=strict" in cookie and TOKEN not in cookie
    held = {"Cookie": f"{COOKIE}={entered.cookies[COOKIE]}"}
    assert ask("GET", "/api/about", headers=held).status_code == 200
    assert served(token=TOKEN[::-1])("GET", "/api/about", headers=held).status_code == 401
    over_https = served(token=TOKEN, base="https://localhost")("POST", "/api/session", json={"token": TOKEN})
    assert "Secure" in over_https.headers["set-cookie"]


def test_every_answer_forbids_what_it_does_not_need(ask: Callable[..., Any]) -> None:
    for method, url in (("GET", "/api/about"), ("GET", "/nothing"), ("POST", "/api/search"), ("GET", "/api/metrics")):
        headers = ask(method, url).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert "http" not in policy and "*" not in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer" and headers["cache-control"] == "no-store"
    assert ask("GET", "/docs").status_code == 404  # its page would load scripts from elsewhere


def test_a_client_that_asks_too_often_waits(served: Callable[..., Any], problem: Callable[..., Any]) -> None:
    ask = served(rate=0.01, burst=3)
    assert [ask("GET", "/api/about").status_code for _ in range(3)] == [200] * 3
    refused = ask("GET", "/api/about")
    assert problem(refused)["status"] == 429 and int(refused.headers["retry-after"]) >= 1
    spoofed = ask("GET", "/api/about", headers={"X-Forwarded-For": "10.9.9.9"})
    assert spoofed.status_code == 429  # nobody is believed without --behind-proxy


def test_behind_a_proxy_clients_are_told_apart_by_what_the_proxy_saw(served: Callable[..., Any]) -> None:
    ask = served(rate=0.01, burst=1, proxied=True, token=TOKEN)

    def status(forwarded: str) -> int:
        found: int = ask("GET", "/api/about", headers={**BEARER, "X-Forwarded-For": forwarded}).status_code
        return found

    assert [status(f) for f in ("10.0.0.1", "10.0.0.2", "10.0.0.1", "10.3.3.3, 10.0.0.1")] == [200, 200, 429, 429]


def test_a_body_beyond_its_bound_is_not_read(served: Callable[..., Any], problem: Callable[..., Any]) -> None:
    ask, sent = served(), 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:  # no length is stated, so only counting helps
            sent += 1 << 16
            yield b"x" * (1 << 16)

    answer = ask("POST", "/api/search", content=endless(), headers={"Content-Type": "application/json"})
    assert problem(answer)["status"] == 413 and sent <= MAX_JSON + (2 << 16)
    stated = {"Content-Type": "application/json", "Content-Length": str(10**30)}
    assert problem(ask("POST", "/api/search", content=b"{}", headers=stated))["status"] == 413
    sent, boundary = 0, {"Content-Type": "multipart/form-data; boundary=b"}

    async def file() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        while True:
            sent += 1 << 20
            yield b"x" * (1 << 20)

    assert problem(ask("POST", "/api/search/ecg", content=file(), headers=boundary))["status"] == 413
    assert sent <= MAX_UPLOAD + MULTIPART_ROOM + (2 << 20)


def test_a_body_that_does_not_arrive_is_given_up(served: Callable[..., Any], problem: Callable[..., Any]) -> None:
    import asyncio

    async def stalled() -> AsyncIterator[bytes]:
        yield b'{"text":'
        await asyncio.Event().wait()

    ask = served(body_seconds=0.05)
    answer = ask("POST", "/api/search", content=stalled(), headers={"Content-Type": "application/json"})
    assert problem(answer)["status"] == 408

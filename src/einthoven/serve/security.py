"""What stands before the routes: whose name was asked for, who asks, how often, how much, and what answers must say."""

import asyncio
import ipaddress
import math
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import RedirectResponse, Response

from einthoven.serve.access import Access, on_loopback
from einthoven.serve.options import MAX_JSON, MAX_UPLOAD, Options
from einthoven.serve.problems import RefusedError, problem
from einthoven.serve.rates import Rates, client_of

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

API: Final = "/api/"
LOGIN: Final = "/login"
OPEN: Final = ("/api/health", "/api/session", LOGIN)
OPEN_BELOW: Final = "/static/"
"""What needs no token: being alive, handing in the token, and what the page of the token is made of."""

MULTIPART_ROOM: Final = 64 << 10
"""Bytes of an upload's body beside the file."""
UPLOADS: Final = 16
"""Files that arrive at a time."""

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
"""Of every answer; an answer's own come first."""


@dataclass
class Guard:
    """An ASGI application around another. Nothing behind it sees a request that it refuses."""

    app: App
    options: Options

    def __post_init__(self) -> None:
        self._access = Access(self.options.token)
        self._rates = Rates(self.options.rate, self.options.burst)
        self._uploads = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = headers_of(scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            return await refusal(scope, receive, guarded(send))
        most = MAX_JSON
        upload = headers.get("content-type", "").lower().startswith("multipart/form-data")
        if upload:
            most = MAX_UPLOAD + MULTIPART_ROOM
            if self._uploads >= UPLOADS:
                return await problem(503, "Too many files arrive at once.", {"Retry-After": "2"})(
                    scope, receive, guarded(send)
                )
        self._uploads += upload
        try:
            await self.app(scope, bounded(receive, headers, most, self.options.body_seconds), guarded(send))
        finally:
            self._uploads -= upload

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> Response | None:
        if not known_host(headers.get("host", ""), self.options.names):
            return problem(421, "The service is not known by this name; --name tells it others.")
        if not same_origin(scope["method"], headers):
            return problem(403, "This was sent by a page of another site.")
        wait = self._rates.wait(self._client(scope, headers))
        if wait:
            return problem(429, "Too many requests.", {"Retry-After": str(math.ceil(wait))})
        if is_open(scope["path"]) or self._access.admits(headers):
            return None
        if scope["path"].startswith(API) or scope["method"] != "GET":
            return problem(401, "Expected a token: Authorization: Bearer …", {"WWW-Authenticate": "Bearer"})
        return RedirectResponse(LOGIN, 303)

    def _client(self, scope: Scope, headers: Mapping[str, str]) -> str:
        address = (scope.get("client") or ("", 0))[0]
        if self.options.proxied and on_loopback(address):  # the last is the one that our own proxy saw
            address = headers.get("x-forwarded-for", address).rpartition(",")[2].strip()
        return client_of(address)


def headers_of(scope: Scope) -> dict[str, str]:
    """A request's headers, names in lower case; of one that comes twice the last."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def is_open(path: str) -> bool:
    return path in OPEN or (path.startswith(OPEN_BELOW) and ".." not in path)


def known_host(host: str, names: tuple[str, ...]) -> bool:
    """Is this a name of ours, or an IP address?

    A page of another site can make its name point to this machine (DNS rebinding), but cannot change the name.
    """
    name = host.strip().lower()
    bracketed = name.startswith("[")
    name = name[1:].partition("]")[0] if bracketed else name.partition(":")[0].rstrip(".")
    if not bracketed and name in ("localhost", *(known.lower() for known in names)):
        return True
    with suppress(ValueError):
        return bool(ipaddress.ip_address(name))
    return False


def same_origin(method: str, headers: Mapping[str, str]) -> bool:
    """Was a request made by our own page, by a person, or by a program, and not by a page of another site?"""
    origin = headers.get("origin")
    if origin is not None:
        return origin.partition("://")[2].lower() == headers.get("host", "").lower()
    site = headers.get("sec-fetch-site", "none")
    followed = method in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
    return site in ("same-origin", "none") or followed


def bounded(receive: Receive, headers: Mapping[str, str], most: int, seconds: float) -> Receive:
    """A request's body, of which `most` bytes are taken within `seconds`; RefusedError 413 or 408 for more."""
    stated = headers.get("content-length", "")
    large = stated.isdecimal() and (len(stated) > 12 or int(stated) > most)
    taken, end, whole = 0, time.monotonic() + seconds, False

    async def part() -> MutableMapping[str, Any]:
        nonlocal taken, whole
        if whole:  # what comes now is the client's leaving, whenever that is
            return await receive()
        if large:
            raise too_large(most)
        try:
            message = await asyncio.wait_for(receive(), max(0.0, end - time.monotonic()))
        except TimeoutError:
            raise RefusedError(408, "The request took too long to arrive.", {"Connection": "close"}) from None
        taken += len(message.get("body", b""))
        whole = not message.get("more_body", False)
        if taken > most:
            raise too_large(most)
        return message

    return part


def too_large(most: int) -> RefusedError:
    return RefusedError(413, f"At most {most:,} bytes are taken.", {"Connection": "close"})


def guarded(send: Send) -> Send:
    """Answers with `HEADERS`."""

    async def sent(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            own = {name.lower() for name, _ in message.get("headers", ())}
            added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            message["headers"] = [*message.get("headers", ()), *(pair for pair in added if pair[0] not in own)]
        await send(message)

    return sent

"""Who may come in: on loopback anybody, elsewhere who has the token, as a header or, in a browser, as a cookie."""

import hashlib
import hmac
import ipaddress
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Final

from starlette.responses import Response

from einthoven.errors import EinthovenError
from einthoven.serve.options import Options

COOKIE: Final = "einthoven_session"
SESSION_SECONDS: Final = 12 * 3600
SHORTEST: Final = 32
"""Characters of a token: who tries all of them needs longer than there is time."""


def check_bind(options: Options) -> None:
    """EinthovenError unless the service listens to this machine alone, under no other name, or has a token."""
    if options.token is not None:
        return
    if not on_loopback(options.host):
        raise EinthovenError(
            f"--host {options.host}: others can connect there, so a token is needed: --token-file FILE, "
            f"with {SHORTEST} random characters or more in it. Without one only loopback (127.0.0.1) is served."
        )
    if options.names or options.proxied:
        raise EinthovenError("--name and --behind-proxy let others connect, so a token is needed: --token-file FILE.")


def on_loopback(host: str) -> bool:
    """Is this an address that only this machine reaches? Of names only "localhost" is."""
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def read_token(path: Path) -> str:
    """The token in a file that others cannot read."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
            raise EinthovenError(f"{path}: anybody here can read or write it. chmod 600 {path}, then start again.")
        token = path.read_text(encoding="ascii").strip()
    except UnicodeDecodeError:
        raise EinthovenError(f"{path}: expected a token of ASCII characters.") from None
    except OSError as error:
        raise EinthovenError(f"{path}: the token cannot be read: {error.strerror}.") from None
    if len(token) < SHORTEST or not token.isprintable() or " " in token:
        raise EinthovenError(f"{path}: expected {SHORTEST} characters or more without blanks: openssl rand -hex 32.")
    return token


@dataclass(frozen=True)
class Access:
    """Knows who has the token. All comparisons take as long whatever is compared."""

    token: str | None

    def admits(self, headers: Mapping[str, str]) -> bool:
        """Does a request with these headers (lower-case names) come from who has the token, or is there none?"""
        if self.token is None:
            return True
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self.knows(given.strip())
        return self.holds(headers.get("cookie", ""))

    def knows(self, given: str) -> bool:
        """Is this the token?"""
        return self.token is None or hmac.compare_digest(_digest(given), _digest(self.token))

    def session(self, now: float | None = None) -> str:
        """What a browser keeps in the place of the token: the end of a session, signed with it."""
        end = str(int((time.time() if now is None else now) + SESSION_SECONDS))
        return f"{end}.{self._signed(end)}"

    def holds(self, cookies: str, now: float | None = None) -> bool:
        """Is a session that has not ended among these cookies?"""
        try:
            found = SimpleCookie(cookies).get(COOKIE)
        except CookieError:
            return False
        end, _, given = (found.value if found else "").partition(".")
        signed = hmac.compare_digest(_digest(given), _digest(self._signed(end)))
        return signed and end.isdecimal() and int(end) > (time.time() if now is None else now)

    def _signed(self, end: str) -> str:
        return hmac.new((self.token or "").encode(), b"session " + end.encode(), hashlib.sha256).hexdigest()


def set_session(response: Response, access: Access, encrypted: bool) -> None:
    """Give a browser a session; `encrypted`: it came by HTTPS and shall use nothing else."""
    response.set_cookie(
        COOKIE, access.session(), SESSION_SECONDS, httponly=True, samesite="strict", secure=encrypted, path="/"
    )


def _digest(text: str) -> bytes:
    """Equally long for all texts, and bytes, as a comparison of texts refuses what is not ASCII."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()

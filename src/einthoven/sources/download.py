"""One file from a server: resumed where it stopped, tried again after a failure that may pass, checked by SHA-256."""

import hashlib
import http.client
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from threading import Event
from typing import IO, Any, Final
from urllib.parse import urlsplit

ATTEMPTS: Final = 6  # in a row without a new byte
TIMEOUT: Final = 60.0  # seconds without a byte
LONGEST_WAIT: Final = 60.0  # seconds between two attempts
PART: Final = 1 << 18  # bytes read at once
MAX_BYTES: Final = 1 << 40  # of a file
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_TRANSIENT: Final = (408, 425, 429, 500, 502, 503, 504)


class DownloadError(Exception):
    """A file that cannot be had: why, in words for a user."""


class StoppedError(Exception):
    """The run was interrupted; what has arrived is kept."""


@dataclass(frozen=True)
class Transfer:
    """How files are fetched. `arrived` is told of every part's bytes, from any thread."""

    arrived: Callable[[int], None] = lambda size: None
    stop: Event = field(default_factory=Event)
    delay: float = 1.0  # seconds before the second attempt; doubled before each further one


def is_allowed(url: str) -> bool:
    """Whether the way to a URL protects what comes: https, or this machine itself."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirections, but never from https to http."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if not is_allowed(newurl):
            raise DownloadError("the server redirects to an address without https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_opener = urllib.request.build_opener(_Redirects)  # verifies certificates; takes a proxy from the environment


def download(url: str, target: Path, transfer: Transfer, digest: str | None = None, limit: int = MAX_BYTES) -> None:
    """Fetch `url` to `target`, by way of `target` + ".part", from which an interrupted download goes on.

    `digest` is the SHA-256 in hexadecimal; without it any content will do. DownloadError if the server refuses, the
    content is another one, or `ATTEMPTS` in a row bring nothing; StoppedError if `transfer.stop` is set.
    """
    part = target.with_name(target.name + ".part")
    failures = mismatches = 0
    most = _size(part)
    while True:
        try:
            found = _continue(url, part, transfer, limit)
        except _PassingError as error:
            failures = 0 if _size(part) > most else failures + 1
            most = max(most, _size(part))
            if failures >= ATTEMPTS:
                raise DownloadError(f"{error.args[0]}, {ATTEMPTS} times in a row") from None
            _wait(max(error.wait, transfer.delay * 2 ** max(failures - 1, 0)), transfer.stop)
            continue
        if digest is None or found == digest:
            os.replace(part, target)
            return
        part.unlink()  # may be the rest of another version: once more from the start
        mismatches += 1
        if mismatches == 2:
            raise DownloadError("its content is not the published one (SHA-256 differs)")


class _PassingError(Exception):
    """A failure that may pass, and the seconds that the server asks to wait."""

    def __init__(self, what: str, wait: float = 0.0) -> None:
        super().__init__(what)
        self.wait = wait


def _continue(url: str, part: Path, transfer: Transfer, limit: int) -> str:
    """One attempt: the rest of a file; the SHA-256 of the whole."""
    start = _size(part)
    headers = {"User-Agent": f"einthoven/{version('einthoven')}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        with _opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
            return _receive(answer, part, start, transfer, limit)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # there is no rest: whole, or of another version
            return _hashed(part).hexdigest() if _total(error.headers) == start else _start_over(part)
        raise _refusal(error) from None
    except http.client.InvalidURL:
        raise DownloadError("its address is not valid") from None
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise DownloadError("the server's certificate is not valid") from None
        raise _PassingError(f"no connection ({type(cause).__name__})") from None


def _receive(answer: Any, part: Path, start: int, transfer: Transfer, limit: int) -> str:
    """Append what comes, or begin anew where the server does not know ranges."""
    if answer.status == 206 and not str(answer.headers.get("Content-Range", "")).startswith(f"bytes {start}-"):
        _start_over(part)
    digest = _hashed(part) if answer.status == 206 else hashlib.sha256()
    length = answer.headers.get("Content-Length")
    received = 0
    begun = start if answer.status == 206 else 0
    if begun + int(length or 0) > limit:
        raise DownloadError(f"larger than {limit} bytes")
    with part.open("ab" if begun else "wb") as file:
        while data := answer.read(PART):
            if transfer.stop.is_set():
                raise StoppedError
            received += len(data)
            if begun + received > limit:
                raise DownloadError(f"larger than {limit} bytes")
            file.write(data)
            digest.update(data)
            transfer.arrived(len(data))
    if length is not None and received < int(length):
        raise _PassingError("the connection broke off")
    return digest.hexdigest()


def _start_over(part: Path) -> str:
    part.unlink(missing_ok=True)
    raise _PassingError("the server's file is not the one begun")


def _refusal(error: urllib.error.HTTPError) -> Exception:
    if error.code in _TRANSIENT:
        asked = str(error.headers.get("Retry-After", ""))
        return _PassingError(
            f"the server answers {error.code}", float(asked) if asked.isascii() and asked.isdigit() else 0
        )
    if error.code in (401, 403):
        return DownloadError(f"the server refuses access ({error.code})")
    return DownloadError(f"the server answers {error.code}")


def _total(headers: Any) -> int | None:
    """Of "bytes */1234"."""
    total = str(headers.get("Content-Range", "")).rpartition("/")[2]
    return int(total) if total.isascii() and total.isdigit() else None


def _wait(seconds: float, stop: Event) -> None:
    if stop.wait(min(seconds, LONGEST_WAIT)):
        raise StoppedError


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _hashed(path: Path) -> Any:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256")

"""The audit log: that something was asked, when and how it ended, and a keyed hash of what. No words, no ids.

With the key, which lies beside the log, one can tell whether a certain query was asked; without it nobody can try.
"""

import hashlib
import hmac
import json
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fastapi import Request

from einthoven.errors import EinthovenError

KEY_BYTES: Final = 32
APPENDED: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT
NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL


def asked(request: Request, kind: str, what: str | bytes) -> None:
    """Remember for the audit log what a request asked; a route calls this before it does anything."""
    request.state.asked = (kind, what.encode() if isinstance(what, str) else what)


def asked_of(scope: Any) -> tuple[str, bytes] | None:
    """What a route remembered."""
    found: tuple[str, bytes] | None = scope.get("state", {}).get("asked")
    return found


@dataclass(frozen=True)
class Audit:
    """A file of JSON lines that only its owner can read. Lines are appended whole."""

    path: Path
    key: bytes

    @classmethod
    def open(cls, path: Path) -> "Audit":
        """Write to `path`, by the key in `path`.key, which is made where there is none."""
        key_file = path.with_name(path.name + ".key")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, APPENDED, 0o600))
            with suppress(FileExistsError), os.fdopen(os.open(key_file, NEW, 0o600), "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
            key = key_file.read_bytes()
        except OSError as error:
            raise EinthovenError(f"{path}: the audit log cannot be written: {error.strerror}.") from None
        if len(key) != KEY_BYTES:
            raise EinthovenError(f"{key_file}: expected {KEY_BYTES} bytes. Move it away together with its log.")
        return cls(path, key)

    def write(self, method: str, route: str, status: int, seconds: float, what: tuple[str, bytes] | None) -> None:
        """One line of one request."""
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "method": method,
            "route": route,
            "status": status,
            "milliseconds": round(1000 * seconds, 1),
            "kind": None if what is None else what[0],
            "query": None if what is None else self.hash(*what),
        }
        handle = os.open(self.path, APPENDED, 0o600)  # anew: logs are rotated
        try:
            os.write(handle, json.dumps(line).encode() + b"\n")
        finally:
            os.close(handle)

    def hash(self, kind: str, what: bytes) -> str:
        return hmac.new(self.key, kind.encode() + b"\0" + what, hashlib.sha256).hexdigest()[:32]

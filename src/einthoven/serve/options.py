"""What a server is started with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAX_UPLOAD: Final = 16 << 20
"""Bytes of an uploaded file, and of what a gzipped one unpacks to."""

MAX_JSON: Final = 64 << 10
"""Bytes of any other request body."""

MAX_TEXT: Final = 2000
"""Characters of a query."""

MAX_TEXTS: Final = 32
"""Texts of one request to embed."""

MAX_CODES: Final = 128
"""Codes of a query."""

MAX_TOP: Final = 200
"""Recordings of an answer."""

MAX_ID: Final = 256
"""Characters of a recording's id."""


@dataclass(frozen=True)
class Options:
    """How to listen, whom to let in, and how much to take."""

    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = None  # None: anybody who can connect; only ever on loopback
    names: tuple[str, ...] = ()  # names the service is known by, beside localhost and IP addresses
    proxied: bool = False  # clients are told apart by X-Forwarded-For, of a proxy on loopback
    show_notes: bool = False  # the texts of notes are part of answers
    audit: Path | None = None  # where the audit log is written; None: nowhere
    rate: float = 50.0  # requests a second of one client, in the long run
    burst: int = 100  # requests of one client at once
    queue: int = 64  # jobs that wait for the model, or for the archive; more get 503
    max_results: int | None = None  # recordings of one answer; None: MAX_TOP, of an export `archive.MOST`
    round_scores: int | None = None  # digits after the point of what is told of a recording's vector; None: all
    batch: int = 16  # texts in one forward pass
    parse_seconds: float = 10.0  # of wall clock for reading an uploaded ECG
    parse_bytes: int = 1 << 30  # of memory for it, beside the interpreter
    body_seconds: float = 30.0  # for a request's body to arrive

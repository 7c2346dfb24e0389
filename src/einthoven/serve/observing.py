"""Around everything: what was asked and how it ended goes to the metrics and the audit log, and no failure further."""

import logging
import time
import traceback
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from starlette.requests import ClientDisconnect

from einthoven.serve.audit import Audit, asked_of
from einthoven.serve.metrics import Metrics
from einthoven.serve.problems import problem
from einthoven.serve.security import App, Receive, Scope, Send, guarded

log: Final = logging.getLogger("einthoven.serve")
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@dataclass
class Observer:
    """The outermost ASGI application."""

    app: App
    metrics: Metrics
    audit: Audit | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began, status = time.perf_counter(), 0

        async def sent(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, sent)
        except ClientDisconnect:  # amidst a body: nobody is there to be answered, and nothing failed
            pass
        except Exception as error:
            log.error("a request failed: %s", where(error))
            if not status:
                await problem(500, "The server failed.")(scope, receive, guarded(sent))
        finally:
            self._noted(scope, status or 499, time.perf_counter() - began)

    def _noted(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched").replace(":path}", "}")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self.metrics.request(method, route, status, seconds)
        if self.audit is not None:
            self.audit.write(method, route, status, seconds, asked_of(scope))


def where(error: BaseException) -> str:
    """The kind of an error and the lines it went through; not its message, which may quote what was sent."""
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join([type(error).__name__, *(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-6:]))])

"""Problems that pages meet are told as pages: a sentence that says what to do. The API's stay as they are."""

import json
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from einthoven.serve.problems import MEDIA_TYPE
from einthoven.serve.rendering import page
from einthoven.serve.security import API, App, Receive, Scope, Send, guarded

TITLES: Final = {
    400: "The request could not be read",
    401: "Please sign in",
    403: "This came from another site",
    404: "Not found",
    405: "This address only answers to a form",
    408: "It took too long to arrive",
    410: "This search is no longer kept",
    413: "The file is too large",
    421: "Unknown name of this server",
    422: "This could not be answered",
    429: "Too many requests",
    503: "The server is busy",
}
ADVICE: Final = {
    400: "Go back, reload the page and send the form again.",
    401: "The session has ended or never began. Sign in with the token, then search again.",
    403: "Open this server's own page and ask there.",
    404: "Check the address, or search with the box above.",
    405: "Search with the box above.",
    408: "Try again; if the line is slow, send a smaller file.",
    410: "Ask it again with the box above; an uploaded ECG has to be sent again.",
    413: "Send one ECG of at most 16 MiB.",
    421: "Use the name or the address that whoever runs the server gave you.",
    422: "Change what was asked, or leave a filter out, then search again.",
    429: "Wait {wait}, then reload this page. Nothing is lost.",
    503: "Wait {wait}, then try again. Nothing is lost.",
}
FAILED: Final = "The server failed", "Try again. If it fails again, tell whoever runs the server when it happened."


@dataclass
class Spoken:
    """An ASGI application around another."""

    app: App

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(API):
            return await self.app(scope, receive, send)
        start: MutableMapping[str, Any] | None = None
        body = b""

        async def sent(message: MutableMapping[str, Any]) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start" and MEDIA_TYPE.encode() in dict(message["headers"]).get(
                b"content-type", b""
            ):
                start = message
            elif start is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    await _told(scope, receive, send, start, body)

        await self.app(scope, receive, sent)


async def _told(scope: Scope, receive: Receive, send: Send, start: MutableMapping[str, Any], body: bytes) -> None:
    status = start["status"]
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    wait = headers.get("retry-after", "")
    title, advice = TITLES.get(status, FAILED[0]), ADVICE.get(status, FAILED[1])
    seconds = "a second" if wait in ("", "1") else f"{wait} seconds"
    kept = {name: headers[name] for name in ("retry-after", "connection") if name in headers}
    detail = json.loads(body).get("detail")
    answer = page("problem", status, kept, title=title, advice=advice.format(wait=seconds), detail=detail)
    await answer(scope, receive, guarded(send))

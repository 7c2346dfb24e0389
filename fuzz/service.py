"""Every route of the API and of the page, as requests that reach the application without a socket."""

import asyncio
import base64
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from einthoven.errors import EinthovenError
from fuzz.ecg import files, seeds
from fuzz.models import trained
from fuzz.mutations import Tree
from fuzz.target import FindingError, Run, Target

TOKEN: Final = "0123456789abcdef" * 2
KEPT: Final = "KEPT-SEARCH"
"""Stands for the random name of a search that the server keeps."""


class Last(logging.Handler):
    """Keeps what the server last said of a request that failed."""

    said = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.said = record.getMessage()


def request(method: str, path: str, **of: Any) -> Tree:
    return {"request.json": json.dumps({"method": method, "path": path, **of}).encode()}


def upload(path: str, content: bytes, **fields: str) -> Tree:
    """A form with a file: the file is damaged as such, and so is what stands beside it."""
    return request("POST", path, fields=fields) | {"file": content}


def asked(recording: str) -> list[Tree]:
    """Every route, asked as it should be."""
    code = "SCP//NORM"
    bodies: list[tuple[str, dict[str, Any]]] = [
        (
            "/api/search",
            {"text": "atrial fibrillation", "top": 5, "where": "sex = female and age >= 60", "by_patient": True},
        ),
        ("/api/search", {"codes": [code], "top": 5}),
        ("/api/search", {"recording_id": recording}),
        ("/api/encode", {"texts": ["normal ecg", "infarkt"]}),
        ("/api/encode", {"codes": [code]}),
        ("/api/findings", {"recording_id": recording}),
        ("/api/session", {"token": TOKEN}),
    ]
    forms: list[tuple[str, dict[str, str]]] = [
        (
            "/search",
            {"q": "infarct", "sex": "female", "finding": code, "youngest": "20", "oldest": "80", "outlier": "no"},
        ),
        ("/search", {"q": code}),
        ("/search", {"recording": recording}),
        ("/search", {"q": "", "again": KEPT}),
        ("/suggest", {"q": "atr"}),
        ("/login", {"token": TOKEN}),
        ("/logout", {}),
        ("/cohort", {"search": KEPT, "top": "5", "least": "0.1", "format": "csv"}),
    ]
    paths = (
        "/",
        "/login",
        "/search",
        "/upload",
        "/cohort",
        f"/search/{KEPT}?more=2",
        f"/recording/{recording}?search={KEPT}&marked=1",
        f"/compare?recording={recording}&recording={recording}",
        "/static/style.css",
        "/static/vendor/htmx.min.js",
        "/api/about",
        f"/api/recordings/{recording}",
        f"/api/recordings/{recording}.svg",
        "/api/metrics",
        "/api/health",
        "/api/openapi.json",
    )
    trees = [request("POST", path, json=body) for path, body in bodies]
    trees += [request("POST", path, form=form) for path, form in forms]
    trees += [request("GET", path, headers={"If-None-Match": "x", "Accept": "*/*"}) for path in paths]
    return [*trees, request("DELETE", "/api/session")]


def uploads(folder: Path) -> Iterable[Tree]:
    named = {name: whole[0] for name, (_, whole) in seeds(folder).items()}
    hints = {"sampling_rate": "500", "unit": "mV", "leads": "I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6"}
    for path, of in (
        ("/api/search/ecg", "muse"),
        ("/api/encode/ecg", "dicom"),
        ("/api/findings/ecg", "edf"),
        ("/upload", "csv"),
    ):
        yield upload(path, named[of], top="3", where="sex = male")
        yield upload(path, files().npy(), **hints)


def service(folder: Path) -> tuple[list[Tree], Run]:
    import httpx

    from einthoven.indexing import open_archive
    from einthoven.serve.app import create_app
    from einthoven.serve.options import Options
    from einthoven.serve.service import Service

    options = Options(rate=1e9, burst=10**9)
    archive = open_archive(*trained(folder))
    answering = Service.of(archive, options)
    app, last, runner = create_app(answering, options), Last(), asyncio.Runner()
    logging.getLogger("einthoven.serve").addHandler(last)
    recording = str(archive.index.table["recording_id"][3])  # type: ignore[attr-defined]

    async def answer(method: str, url: str, headers: dict[str, str], content: bytes) -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
            return await client.request(method, url, headers=headers, content=content)

    first = json.dumps({"method": "POST", "path": "/search", "form": {"q": "normal ecg"}}).encode()
    begun = runner.run(answer(*_sent({"request.json": first})))
    kept = begun.headers["location"].removeprefix("/search/").encode()

    def run(tree: Tree) -> None:
        try:
            sent = _sent(tree | {"request.json": tree.get("request.json", b"").replace(KEPT.encode(), kept)})
            made = httpx.Request(sent[0], f"http://localhost{sent[1]}", headers=sent[2], content=sent[3])
        except (ValueError, TypeError, LookupError, RecursionError, httpx.InvalidURL):
            raise EinthovenError("no request") from None
        last.said = ""
        found = runner.run(answer(made.method, str(made.url), dict(made.headers), sent[3]))
        if found.status_code >= 500 and found.status_code != 503:
            raise FindingError(f"{found.status_code}: {last.said}")
        if found.status_code >= 400:
            kind = found.headers.get("content-type", "")
            if sent[1].startswith("/api/") and kind != "application/problem+json":
                raise FindingError(f"{found.status_code} is no problem, but {kind}")
            raise EinthovenError("refused")

    return [*asked(recording), *uploads(folder)], run


def _sent(tree: Tree) -> tuple[str, str, dict[str, str], bytes]:
    """Method, address, headers and body of a request; what is no JSON any more is a body as it is."""
    try:
        said = json.loads(tree.get("request.json", b""))
    except (ValueError, RecursionError):
        return "POST", "/api/search", {"Content-Type": "application/json"}, tree.get("request.json", b"")
    headers = {name: str(value) for name, value in dict(said.get("headers") or {}).items()}
    method, path = str(said.get("method", "GET")), str(said.get("path", "/"))
    if "file" in tree:
        boundary, parts = (
            "cut",
            [f'name="{name}"\r\n\r\n{value}'.encode() for name, value in dict(said.get("fields") or {}).items()],
        )
        parts.append(b'name="file"; filename="a"\r\n\r\n' + tree["file"])
        body = (
            b"".join(b"--cut\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--cut--\r\n"
        )
        return method, path, {"Content-Type": f"multipart/form-data; boundary={boundary}", **headers}, body
    if "form" in said:
        from urllib.parse import urlencode

        body = urlencode(dict(said["form"]), errors="surrogatepass").encode()
        return method, path, {"Content-Type": "application/x-www-form-urlencoded", **headers}, body
    body = json.dumps(said["json"]).encode() if "json" in said else base64.b64decode(str(said.get("body", "")))
    return method, path, {"Content-Type": "application/json", **headers}, body


TARGETS: Final = (Target("service", service, 1500),)

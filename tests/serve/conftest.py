"""The small three-way model of all tests (`trained`), served without a socket."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from einthoven.indexing import open_archive
from einthoven.search.archive import Archive
from einthoven.serve.app import create_app
from einthoven.serve.options import Options
from einthoven.serve.service import Service

OPTIONS = Options(rate=1e6, burst=10**6)


@dataclass(frozen=True)
class Caller:
    """Calls an application from one address, without a socket."""

    app: FastAPI
    base: str = "http://localhost"
    client: str = "127.0.0.1"

    def __call__(self, method: str, url: str, **of: Any) -> httpx.Response:
        return self.together([(method, url, of)])[0]

    def together(self, requests: list[tuple[str, str, dict[str, Any]]]) -> list[httpx.Response]:
        """All at once; their answers in order."""

        async def called() -> list[httpx.Response]:
            transport = httpx.ASGITransport(self.app, client=(self.client, 5000))
            async with httpx.AsyncClient(transport=transport, base_url=self.base, timeout=60) as client:
                return await asyncio.gather(*(client.request(method, url, **of) for method, url, of in requests))

        return asyncio.run(called())


@pytest.fixture(scope="session")
def archive(trained: tuple[Path, Path]) -> Archive:
    return open_archive(*trained)


@pytest.fixture(scope="session")
def service(archive: Archive) -> Iterator[Service]:
    service = Service.of(archive, OPTIONS)
    yield service
    service.close()


@pytest.fixture(scope="session")
def ask(service: Service) -> Caller:
    """The service, with nothing that limits a client."""
    return Caller(create_app(service, OPTIONS))


@pytest.fixture
def served(service: Service) -> Callable[..., Caller]:
    """The same service behind other options."""

    def make(base: str = "http://localhost", client: str = "127.0.0.1", **options: Any) -> Caller:
        return Caller(create_app(service, Options(**({"rate": 1e6, "burst": 10**6} | options))), base, client)

    return make


@pytest.fixture(scope="session")
def recording(archive: Archive) -> str:
    """The id of some recording with a signal."""
    found: str = archive.index.table["recording_id"][3].as_py()  # type: ignore[attr-defined]
    return found


@pytest.fixture(scope="session")
def problem() -> Callable[[httpx.Response], dict[str, Any]]:
    """The problem details of an answer, checked to be some."""

    def read(response: httpx.Response) -> dict[str, Any]:
        assert response.headers["content-type"] == "application/problem+json"
        said: dict[str, Any] = json.loads(response.content)
        assert said["status"] == response.status_code and said["title"]
        return said

    return read

"""The application: the service, its routes and what stands guard before them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI

from einthoven.serve import api, pages, problems
from einthoven.serve.audit import Audit
from einthoven.serve.observing import Observer
from einthoven.serve.options import Options
from einthoven.serve.security import Guard
from einthoven.serve.service import Service
from einthoven.serve.spoken import Spoken

# FastAPI sends traces, with ids in their paths, wherever the environment of the process says: never from here
SILENT: Final[dict[str, Any]] = {"telemetry": dict.fromkeys(("tracing", "metrics", "logs", "auto_configure"), False)}


def create_app(service: Service, options: Options) -> FastAPI:
    """The application that answers with `service`. It closes the service when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="einthoven",
        version=version("einthoven"),
        description="Search ECGs by text, codes or another ECG. Research use only, not a medical device.",
        openapi_url=f"{api.PREFIX}/openapi.json",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        **SILENT,
    )
    app.state.service, app.state.options = service, options
    problems.install(app)
    app.include_router(api.router)
    app.include_router(pages.router)
    app.add_middleware(Guard, options=options)
    audit = None if options.audit is None else Audit.open(options.audit)
    app.add_middleware(Observer, metrics=service.metrics, audit=audit)
    app.add_middleware(Spoken)  # the last added is the outermost
    return app

"""`einthoven serve`: what it listens to, how it is told to end."""

import logging
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from einthoven.cli_arguments import ModelPath, StudyPath
from einthoven.errors import EinthovenError
from einthoven.serve.options import Options
from einthoven.terminal import console, shown

if TYPE_CHECKING:
    from fastapi import FastAPI

CONNECTIONS = 256
GRACE = 30
"""Seconds that accepted requests have to be finished in, once the server is told to end."""

DEFAULT = Options()


def serve(
    model: ModelPath,
    study: StudyPath,
    host: Annotated[str, typer.Option(help="any other than loopback needs a token")] = DEFAULT.host,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = DEFAULT.port,
    token_file: Annotated[Path | None, typer.Option("--token-file", help="a file that holds the token")] = None,
    name: Annotated[list[str] | None, typer.Option(help="a name the service is known by; may be repeated")] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="a reverse proxy on this machine names the clients")
    ] = False,
    show_notes: Annotated[bool, typer.Option("--show-notes", help="show the texts of notes")] = False,
    log: Annotated[Path | None, typer.Option("--log", help="the audit log: queries as keyed hashes")] = None,
    rate: Annotated[float, typer.Option(min=0.1, help="requests a second of one client")] = DEFAULT.rate,
    burst: Annotated[int, typer.Option(min=1, help="requests of one client at once")] = DEFAULT.burst,
    queue: Annotated[int, typer.Option(min=1, help="requests that wait; more get 503")] = DEFAULT.queue,
    max_results: Annotated[
        int | None, typer.Option("--max-results", min=1, help="recordings of an answer, a page or an export at most")
    ] = DEFAULT.max_results,
    round_scores: Annotated[
        int | None, typer.Option("--round-scores", min=0, max=6, help="digits of scores (docs/security.md)")
    ] = DEFAULT.round_scores,
) -> None:
    """Serve searches of a study: an API and a page, on this machine or, with a token, beyond it. Ends on SIGTERM."""
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise EinthovenError("the server is not installed: pip install 'einthoven[serve]'.") from None
    from einthoven.serve.access import check_bind, read_token

    token = None if token_file is None else read_token(token_file)
    options = Options(
        host=host, port=port, token=token, names=tuple(name or ()), proxied=behind_proxy, show_notes=show_notes,
        audit=log, rate=rate, burst=burst, queue=queue, max_results=max_results, round_scores=round_scores,
    )  # fmt: skip
    check_bind(options)
    with bound(options) as listener:
        run(opened(model, study, options), options, listener)


def bound(options: Options) -> socket.socket:
    """A socket that has the address; it does not listen yet, so that nobody waits for a model that is being read."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((options.host.strip("[]"), options.port))
    except OSError as error:
        listener.close()
        raise EinthovenError(f"cannot listen on {options.host}, port {options.port}: {error.strerror}.") from None
    return listener


def opened(model: Path, study: Path, options: Options) -> "FastAPI":
    """The application for a model and a study, indexed first where that was not done."""
    from einthoven.indexing import open_archive
    from einthoven.serve.app import create_app
    from einthoven.serve.service import Service

    with shown("index") as progress:
        archive = open_archive(model, study, progress=progress)
    return create_app(Service.of(archive, options), options)


def run(app: "FastAPI", options: Options, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted."""
    import uvicorn

    class Announced(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                shown_host = f"[{options.host}]" if ":" in options.host else options.host
                told = "with a token" if options.token else "for this machine only, without a token"
                console.print(f"serving on http://{shown_host}:{listener.getsockname()[1]}, {told}")

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,  # it would write ids, as they are in paths
        server_header=False,
        proxy_headers=False,  # our own rule of who to believe is in security.py
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
        h11_max_incomplete_event_size=16 << 10,
    )
    Announced(config).run(sockets=[listener])

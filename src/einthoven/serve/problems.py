"""Errors as problem details (RFC 9457): what was expected, never what was sent, never a traceback."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from einthoven.errors import EinthovenError
from einthoven.serve.batching import BusyError

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1


class RefusedError(HTTPException):
    """A request that is answered with a problem of this status; `detail` quotes nothing that was sent."""


def problem(status: int, detail: str | None = None, headers: Mapping[str, str] | None = None) -> JSONResponse:
    content: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    if detail is not None:
        content["detail"] = detail
    return JSONResponse(content, status, dict(headers or {}), MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Whatever a route raises becomes a problem."""

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> JSONResponse:
        return problem(error.status_code, error.detail, error.headers)

    @app.exception_handler(BusyError)
    async def busy(request: Request, error: BusyError) -> JSONResponse:
        return problem(503, "Too much is waiting. Try again in a moment.", {"Retry-After": str(RETRY_SECONDS)})

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return problem(422, told(error.errors()))

    @app.exception_handler(HTTPException)
    async def raised(request: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, None, error.headers)  # its detail is another library's

    @app.exception_handler(EinthovenError)
    async def mistaken(request: Request, error: EinthovenError) -> JSONResponse:
        # its message may name a file of the server or quote a cell: routes tell what they know to be harmless
        return problem(422, "This was understood, but the model or the study has nothing for it.")


def told(errors: Sequence[Any]) -> str:
    """Where each value should have been another and what was expected; the value itself is left out."""
    places = (".".join(str(part) for part in error["loc"] if not _sent(error, part)) for error in errors)
    return "; ".join(f"{place}: {error['msg']}" for place, error in zip(places, errors, strict=True))[:1000]


def _sent(error: Any, part: Any) -> bool:
    """Is this part of a place a name that the client made up?"""
    return error["type"] == "extra_forbidden" and part == error["loc"][-1]

"""The routes of the API. They read bodies, ask the service, and know no model."""

import hashlib
from typing import Annotated, Any, Final

from fastapi import APIRouter, File, Form, Path, Request, Response, UploadFile

from einthoven.serve.bodies import (
    AboutAnswer,
    EncodeAnswer,
    EncodeRequest,
    FindingsAnswer,
    FindingsRequest,
    HealthAnswer,
    Problem,
    RecordingAnswer,
    RecordingId,
    SearchAnswer,
    SearchRequest,
    Split,
    Top,
)
from einthoven.serve.problems import MEDIA_TYPE
from einthoven.serve.service import Service

PREFIX: Final = "/api"

Upload = Annotated[UploadFile, File(description="An ECG: DICOM, MUSE, aECG, SCP, EDF, MATLAB, npy, CSV …; ≤ 16 MB.")]
PathId = Annotated[RecordingId, Path()]


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "content": {MEDIA_TYPE: {}}} for status in statuses}


ASKED: Final = _problems(400, 401, 403, 413, 415, 421, 422, 429, 503)
router = APIRouter(prefix=PREFIX)


def service_of(request: Request) -> Service:
    """The service that the application was made with; pages ask for it, too."""
    found: Service = request.app.state.service
    return found


@router.post("/search", responses=ASKED)
async def search(request: Request, body: SearchRequest) -> SearchAnswer:
    """The recordings nearest to a text, to codes or to another recording. A POST, so that no log has the words."""
    return await service_of(request).search(body)


@router.post("/search/ecg", responses=ASKED)
async def search_ecg(
    request: Request, file: Upload, top: Annotated[Top, Form()] = 10, split: Annotated[Split, Form()] = None
) -> SearchAnswer:
    """The recordings nearest to an uploaded ECG."""
    service = service_of(request)
    return await service.search_ecg(await service.read(await file.read()), top, split)


@router.post("/encode", responses=ASKED)
async def encode(request: Request, body: EncodeRequest) -> EncodeAnswer:
    """Embeddings of texts, or of one set of codes."""
    return await service_of(request).encode(body)


@router.post("/encode/ecg", responses=ASKED)
async def encode_ecg(request: Request, file: Upload) -> EncodeAnswer:
    """The embedding of an uploaded ECG."""
    service = service_of(request)
    return await service.encode_ecg(await service.read(await file.read()))


@router.post("/findings", responses=ASKED | _problems(404))
async def findings(request: Request, body: FindingsRequest) -> FindingsAnswer:
    """What the model says of a recording of the study. Research use only."""
    return await service_of(request).findings(body.recording_id)


@router.post("/findings/ecg", responses=ASKED)
async def findings_ecg(request: Request, file: Upload) -> FindingsAnswer:
    """What the model says of an uploaded ECG. Research use only."""
    service = service_of(request)
    return await service.findings_ecg(await service.read(await file.read()))


@router.get(
    "/recordings/{recording_id:path}.svg",
    response_class=Response,
    responses=_problems(401, 404, 422, 429, 503) | {200: {"content": {"image/svg+xml": {}}}, 304: {}},
)
async def drawing(request: Request, recording_id: PathId) -> Response:
    """A recording on ECG paper."""
    svg = (await service_of(request).drawing(recording_id)).encode()
    mark = f'"{hashlib.sha256(svg).hexdigest()[:32]}"'
    headers = {"ETag": mark, "Cache-Control": "private, max-age=3600"}
    if mark in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(svg, media_type="image/svg+xml", headers=headers)


@router.get("/recordings/{recording_id:path}", responses=_problems(401, 404, 422, 429, 503))
async def recording(request: Request, recording_id: PathId) -> RecordingAnswer:
    """What the study knows of a recording: when and how it was made, and the codes and notes around it."""
    return await service_of(request).recording(recording_id)


@router.get("/about", responses=_problems(401, 429))
async def about(request: Request) -> AboutAnswer:
    """What is served, and what it can be asked with."""
    return service_of(request).about()


@router.get("/health")
async def health(request: Request) -> HealthAnswer:
    """Alive. Needs no token and tells nothing else."""
    return HealthAnswer(status="ok")

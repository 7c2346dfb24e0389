"""The routes of the API. They read bodies, ask the service, and know no model."""

import hashlib
import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, File, Form, Path, Request, Response, UploadFile
from fastapi.responses import PlainTextResponse

from einthoven.serve.access import COOKIE, Access, set_session
from einthoven.serve.audit import asked
from einthoven.serve.bodies import (
    AboutAnswer,
    ByPatient,
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
    SessionRequest,
    Top,
    Where,
)
from einthoven.serve.metrics import MEDIA_TYPE as METRICS_TYPE
from einthoven.serve.options import Options
from einthoven.serve.problems import MEDIA_TYPE, RefusedError
from einthoven.serve.service import Service
from einthoven.serve.uploads import Upload
from einthoven.waveforms.formats import Ecg
from einthoven.waveforms.readers.protocol import MAX_RATE, Hints
from einthoven.waveforms.wfdb_format import MIN_RATE

PREFIX: Final = "/api"

EcgFile = Annotated[UploadFile, File(description="DICOM, MUSE, aECG, Philips, SCP, ISHNE, EDF, HDF5, MATLAB, npy, CSV")]
Rate = Annotated[
    float | None, Form(ge=MIN_RATE, le=MAX_RATE, description="Hertz, of a file that does not say it itself.")
]
Unit = Annotated[str | None, Form(max_length=16, description="mV, µV …, of a file that does not say it itself.")]
LeadNames = Annotated[str | None, Form(max_length=200, description="Leads of a file without names, e.g. `I,II,V1`.")]
PathId = Annotated[RecordingId, Path()]


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "content": {MEDIA_TYPE: {}}} for status in statuses}


GUARDED: Final = _problems(401, 403, 421, 429, 500)
"""What any route may answer beside its own."""
ASKED: Final = GUARDED | _problems(400, 408, 413, 422, 503)
LOOKED_UP: Final = GUARDED | _problems(404, 422, 503)
router = APIRouter(prefix=PREFIX)


def service_of(request: Request) -> Service:
    """The service that the application was made with; pages ask for it, too."""
    found: Service = request.app.state.service
    return found


def queried(body: SearchRequest) -> tuple[str, str]:
    """What a search asks with, for the audit log: its kind and itself, without what only limits the answer."""
    if body.text is not None:
        return "text", body.text
    return ("recording", body.recording_id) if body.recording_id else ("codes", json.dumps(body.codes))


async def uploaded(
    request: Request, file: EcgFile, sampling_rate: Rate = None, unit: Unit = None, leads: LeadNames = None
) -> Ecg:
    """The ECG in a request."""
    content = await file.read()
    asked(request, "ecg", content)
    names = None if leads is None else tuple(name.strip() for name in leads.split(","))
    return await service_of(request).read(Upload(content, Hints(sampling_rate, unit, names)))


Uploaded = Annotated[Ecg, Depends(uploaded)]


@router.post("/search", responses=ASKED | _problems(404))
async def search(request: Request, body: SearchRequest) -> SearchAnswer:
    """The recordings nearest to a text, to codes or to another recording. A POST, so that no log has the words."""
    asked(request, *queried(body))
    return await service_of(request).search(body)


@router.post("/search/ecg", responses=ASKED)
async def search_ecg(
    request: Request,
    ecg: Uploaded,
    top: Annotated[Top, Form()] = 10,
    where: Annotated[Where, Form()] = "",
    by_patient: Annotated[ByPatient, Form()] = False,
) -> SearchAnswer:
    """The recordings nearest to an uploaded ECG."""
    return await service_of(request).search_ecg(ecg, top, where, by_patient)


@router.post("/encode", responses=ASKED)
async def encode(request: Request, body: EncodeRequest) -> EncodeAnswer:
    """Embeddings of texts, or of one set of codes."""
    asked(request, "encode", json.dumps(body.texts or body.codes))
    return await service_of(request).encode(body)


@router.post("/encode/ecg", responses=ASKED)
async def encode_ecg(request: Request, ecg: Uploaded) -> EncodeAnswer:
    """The embedding of an uploaded ECG."""
    return await service_of(request).encode_ecg(ecg)


@router.post("/findings", responses=ASKED | _problems(404))
async def findings(request: Request, body: FindingsRequest) -> FindingsAnswer:
    """What the model says of a recording of the study. Research use only."""
    asked(request, "recording", body.recording_id)
    return await service_of(request).findings(body.recording_id)


@router.post("/findings/ecg", responses=ASKED)
async def findings_ecg(request: Request, ecg: Uploaded) -> FindingsAnswer:
    """What the model says of an uploaded ECG. Research use only."""
    return await service_of(request).findings_ecg(ecg)


@router.get(
    "/recordings/{recording_id:path}.svg",
    response_class=Response,
    responses=LOOKED_UP | {200: {"content": {"image/svg+xml": {}}}, 304: {}},
)
async def drawing(request: Request, recording_id: PathId) -> Response:
    """A recording on ECG paper."""
    asked(request, "recording", recording_id)
    svg = (await service_of(request).drawing(recording_id)).encode()
    mark = f'"{hashlib.sha256(svg).hexdigest()[:32]}"'
    headers = {"ETag": mark, "Cache-Control": "private, no-cache"}
    if mark in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(svg, media_type="image/svg+xml", headers=headers)


@router.get("/recordings/{recording_id:path}", responses=LOOKED_UP)
async def recording(request: Request, recording_id: PathId) -> RecordingAnswer:
    """What the study knows of a recording: when and how it was made, and the codes and notes around it."""
    asked(request, "recording", recording_id)
    return await service_of(request).recording(recording_id)


@router.get("/metrics", response_class=PlainTextResponse, responses=GUARDED)
async def metrics(request: Request) -> PlainTextResponse:
    """Counts and times for Prometheus."""
    return PlainTextResponse(service_of(request).metrics.text(), media_type=METRICS_TYPE)


@router.post("/session", status_code=204, responses=ASKED)
async def enter(request: Request, body: SessionRequest, response: Response) -> None:
    """Hand in the token; the answer's cookie stands for it for twelve hours."""
    options: Options = request.app.state.options
    access = Access(options.token)
    if not access.knows(body.token.get_secret_value()):
        raise RefusedError(401, "This is not the token.")
    set_session(response, access, request.url.scheme == "https" or options.proxied)


@router.delete("/session", status_code=204, responses=GUARDED)
async def leave(response: Response) -> None:
    """Forget the cookie."""
    response.delete_cookie(COOKIE)


@router.get("/about", responses=GUARDED)
async def about(request: Request) -> AboutAnswer:
    """What is served, and what it can be asked with."""
    return service_of(request).about()


@router.get("/health", responses=GUARDED)
async def health(request: Request) -> HealthAnswer:
    """Alive. Needs no token and tells nothing else."""
    return HealthAnswer(status="ok")

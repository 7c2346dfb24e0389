"""The routes of the page: HTML from the server, which htmx refreshes in part and which works without JavaScript."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, cast

from fastapi import APIRouter, Depends, Query, Request, Response, UploadFile
from fastapi.responses import RedirectResponse
from markupsafe import Markup
from starlette.datastructures import UploadFile as StarletteFile

from einthoven.search.archive import Hit
from einthoven.serve import cohort
from einthoven.serve.access import COOKIE, Access, set_session
from einthoven.serve.api import PathId, uploaded
from einthoven.serve.audit import asked
from einthoven.serve.bodies import RecordingId
from einthoven.serve.facets import facets, patients
from einthoven.serve.kept import Kept
from einthoven.serve.options import Options
from einthoven.serve.problems import RefusedError
from einthoven.serve.rendering import asset_response, page, said_of
from einthoven.serve.saliency import heat, shades
from einthoven.serve.searches import Form, Search, UploadedEcg, asked_with, begun, first
from einthoven.serve.service import Service
from einthoven.serve.spoken import TITLES
from einthoven.serve.suggestions import Suggestions
from einthoven.serve.timeline import marks, static, timeline

SHOWN: Final = 10
"""Patients, or recordings, of a page of results."""
ALIKE: Final = 6
HINTS: Final = ("sampling_rate", "unit", "leads")
REFUSED: Final = (
    "What you wrote beside the file is still there, under “Upload an ECG”: correct it, choose the file again, send."
)
UPLOADS: Final = 100
"""Uploaded ECGs that are kept as drawings: of a quarter of a megabyte each."""
TOLD: Final = 5
"""Windows that a match is said to rest on."""
EXAMPLES: Final = ("atrial fibrillation", "left bundle branch block", "old inferior myocardial infarction")
router = APIRouter(include_in_schema=False)


@dataclass
class Desk:
    """What pages need beside the service."""

    service: Service
    suggestions: Suggestions
    kept: Kept[Search] = field(default_factory=Kept)
    uploads: Kept[Search] = field(default_factory=lambda: Kept(UPLOADS))

    @classmethod
    def of(cls, service: Service) -> "Desk":
        return cls(service, Suggestions.of(service.archive))

    def keep(self, search: Search) -> str:
        """Keep a search; its name cannot be guessed."""
        return (self.kept if search.uploaded is None else self.uploads).put(search)

    def known(self, name: str) -> Search | None:
        """A search that was asked before, unless it was long ago."""
        return (self.kept.get(name) or self.uploads.get(name)) if name else None

    def search(self, name: str) -> Search:
        """A search that was asked before; RefusedError 410."""
        found = self.known(name)
        if found is None:
            raise RefusedError(410)
        return found


def desk_of(request: Request) -> Desk:
    """The desk of the application."""
    found: Desk = request.app.state.desk
    return found


async def form_of(request: Request) -> Form:
    """A form's fields, files left out."""
    form = await request.form()
    return {name: [value for value in form.getlist(name) if isinstance(value, str)] for name in form}


TheDesk = Annotated[Desk, Depends(desk_of)]
TheForm = Annotated[Form, Depends(form_of)]


def shown(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """A page with what all have in common."""
    desk, options = desk_of(request), request.app.state.options
    about = desk.service.about()
    usual = {"about": about, "token": options.token is not None, "box": "", "common": desk.suggestions.like("")}
    return page(template, status, **{**usual, **values})


@router.get("/")
async def home(request: Request) -> Response:
    """The box, and what can be put into it."""
    codes = desk_of(request).suggestions.examples()
    return shown(request, "home", examples=EXAMPLES, codes=codes)


@router.get("/static/{name:path}")
async def static_file(request: Request, name: str) -> Response:
    """Style, script and htmx."""
    found = asset_response(name, request.headers.get("if-none-match", ""))
    if found is None:
        raise RefusedError(404)
    return found


@router.get("/login")
async def ask_token(request: Request) -> Response:
    """Where a browser hands in the token."""
    return page("login", wrong=False)


@router.post("/login")
async def enter(request: Request, form: TheForm) -> Response:
    """Hand in the token."""
    options: Options = request.app.state.options
    access = Access(options.token)
    if not access.knows(first(form, "token")[:1000]):
        return page("login", 401, wrong=True)
    answer = RedirectResponse("/", 303)
    set_session(answer, access, request.url.scheme == "https" or options.proxied)
    return answer


@router.post("/logout")
async def leave(request: Request) -> Response:
    """Forget the cookie."""
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE)
    return answer


@router.post("/suggest")
async def suggest(desk: TheDesk, form: TheForm) -> Response:
    """Options of the box's list, for what was written so far. A POST, so that no log has the words."""
    return page("suggestions", suggestions=desk.suggestions.like(first(form, "q")[:200]))


@router.get("/search")
@router.get("/upload")
@router.get("/cohort")
async def nothing_asked(request: Request) -> Response:
    """Where somebody lands who reloads what a form was sent to."""
    return RedirectResponse("/", 303)


@router.post("/search")
async def search(request: Request, desk: TheDesk, form: TheForm) -> Response:
    """Begin a search, or narrow one; its results have an address without its words."""
    again = first(form, "again")
    before = desk.known(again)
    asked(request, *asked_with(form, before))
    return _to(desk.keep(await begun(desk.service, form, before)))


@router.post("/upload")
async def upload(request: Request, desk: TheDesk) -> Response:
    """Search with an ECG of one's own. Where the file is refused, what was written beside it is there again."""
    form = await request.form()
    sent = {name: value[:200] for name in HINTS if isinstance(value := form.get(name), str)}
    try:
        return await _searched(request, desk, form.get("file"), sent)
    except RefusedError as error:
        if error.status_code != 422:
            raise
        said = {"title": TITLES[422], "detail": error.detail, "advice": REFUSED}
        return shown(request, "problem", 422, sent=sent, **said)


async def _searched(request: Request, desk: Desk, file: Any, sent: Mapping[str, str]) -> Response:
    if not isinstance(file, StarletteFile) or not file.filename:
        raise RefusedError(422, "No file was sent.")
    rate = sent.get("sampling_rate", "").strip()
    try:
        hertz = float(rate) if rate else None
    except ValueError:
        raise RefusedError(422, "sampling_rate: expected a number of hertz, such as 500.") from None
    unit, leads = (sent.get(name, "").strip() or None for name in ("unit", "leads"))
    ecg = await uploaded(request, cast(UploadFile, file), hertz, unit, leads)
    service = desk.service
    seen = await service.seen(ecg)
    seconds = ecg.signal.shape[1] / ecg.sampling_rate
    told = f"{', '.join(ecg.leads)}; {ecg.sampling_rate:g} Hz, {seconds:.1f} s, {ecg.format}"
    kept = UploadedEcg(await service.drawing_ecg(ecg), told, await service.verdict(seen))
    return _to(desk.keep(Search("ecg", "", seen.vector, seen.space, uploaded=kept)))


@router.get("/search/{name}")
async def results(request: Request, desk: TheDesk, name: str, more: Annotated[int, Query(ge=1, le=20)] = 1) -> Response:
    """The results of a search."""
    found = desk.search(name)
    asked(request, found.kind, found.told)
    hits = await found.hits(desk.service)
    groups = patients(hits) if found.choice.by_patient else [[hit] for hit in hits]
    part = groups[: SHOWN * more]
    return shown(
        request,
        "results",
        search=found,
        name=name,
        meant=desk.suggestions.codes_named(found.told) if found.kind == "text" else [],
        box=found.told if found.kind in ("text", "codes") else "",
        groups=part,
        left=len(groups) - len(part),
        more=more,
        looked_at=len(hits),
        facets=facets(hits, found.choice),
        said=_said(desk, [group[0] for group in part]),
        meanings=desk.service.archive.meanings,
        most=desk.service.restriction.most,
    )


@router.get("/recording/{recording_id:path}")
async def recording(
    request: Request, desk: TheDesk, recording_id: PathId, search: str = "", marked: bool = False
) -> Response:
    """A recording, the chart around it, what the model says of it, and its like."""
    asked(request, "recording", recording_id)
    service, asking = desk.service, desk.known(search)
    known = await service.recording(recording_id)
    values: dict[str, Any] = {"findings": None, "alike": [], "score": None, "drawing": None, "heat": None, "top": []}
    if known.signal:
        values |= await _seen(service, recording_id, asking)
        if asking is not None and marked:
            values |= await _marked(service, recording_id, asking)
    return shown(
        request,
        "recording",
        known=known,
        said=said_of(service.charts.row(recording_id)),
        search=asking,
        name=search,
        timeline=timeline(marks(known)),
        static=static(known),
        **values,
    )


@router.get("/compare")
async def compare(
    request: Request,
    desk: TheDesk,
    recording: Annotated[Sequence[RecordingId], Query()] = (),
    search: str = "",
) -> Response:
    """Two ECGs, one below the other: two of the study, or one of them and an uploaded one."""
    uploaded = desk.known(search)
    if uploaded is not None and uploaded.uploaded is None:
        uploaded = None
    if len(recording) != (2 if uploaded is None else 1):
        raise RefusedError(422, "Two ECGs are compared. Mark two in the results, then press “Compare the two”.")
    asked(request, "recording", " ".join(recording))
    service = desk.service
    known = [await service.recording(one) for one in recording]
    vectors = [(await service.stored(one)).vector for one in recording]
    findings = [await service.findings(one) for one in recording]
    if uploaded is not None and uploaded.uploaded is not None:
        vectors.append(uploaded.vector)
        findings.append(uploaded.uploaded.findings)
    said = {one: said_of(service.charts.row(one)) for one in recording}
    cosine = service.restriction.score(float(vectors[0] @ vectors[1]))
    return shown(
        request, "compare", known=known, uploaded=uploaded, findings=findings, cosine=cosine, said=said, name=search
    )


@router.post("/cohort")
async def export(request: Request, desk: TheDesk, form: TheForm) -> Response:
    """The nearest recordings of a search as a file."""
    found = desk.search(first(form, "search"))
    asked(request, found.kind, found.told)
    count, least = first(form, "top"), first(form, "least")
    most = desk.service.restriction.most
    if not (re.fullmatch(r"[0-9]{1,6}", count) and 1 <= int(count) <= most):
        raise RefusedError(422, f"How many recordings? Expected a number from 1 to {most:,}.")
    try:
        threshold = float(least) if least else None
    except ValueError:
        raise RefusedError(422, "Positive from which score? Expected a number such as 0.4, or nothing.") from None
    hits = await found.hits(desk.service, int(count))
    meds = first(form, "format") == "meds"
    content = cohort.as_meds_labels(hits, threshold) if meds else cohort.as_csv(hits, threshold)
    file, kind = ("labels.parquet", "application/vnd.apache.parquet") if meds else ("cohort.csv", "text/csv")
    headers = {"Content-Disposition": f'attachment; filename="{file}"'}
    return Response(content, media_type=kind, headers=headers)


def _to(name: str) -> Response:
    return RedirectResponse(f"/search/{name}", 303)


def _said(desk: Desk, hits: Sequence[Hit]) -> Mapping[str, str]:
    return {hit.recording_id: said_of(desk.service.charts.row(hit.recording_id)) for hit in hits}


async def _seen(service: Service, recording_id: str, asking: Search | None) -> dict[str, Any]:
    placed = await service.stored(recording_id)
    found: dict[str, Any] = {"findings": await service.findings(recording_id)}
    found["alike"] = await service.near(
        placed.vector, placed.space, min(ALIKE, service.restriction.most), (), True, placed.subject_id
    )
    if asking is not None:
        found["score"] = await service.cosine(recording_id, asking.vector, asking.space)
    return found


async def _marked(service: Service, recording_id: str, asking: Search) -> dict[str, Any]:
    found = await service.falls(recording_id, asking.vector, asking.space)
    drawing = await service.drawing_shaded(recording_id, shades(found))
    values = {"heat": heat(found), "top": found.largest(TOLD), "window": found.window}
    return {"drawing": Markup(drawing), **values}

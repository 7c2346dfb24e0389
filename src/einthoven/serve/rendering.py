"""Pages from their templates, and the files that they are made with."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any, Final
from urllib.parse import quote

import jinja2
from starlette.responses import HTMLResponse, Response

from einthoven.schema import LEADS
from einthoven.waveforms.standardise import leads_of

TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS: Final = {"Referrer-Policy": "same-origin"}
"""With "no-referrer" a browser keeps the origin of our own forms to itself, and they would be refused."""


@dataclass(frozen=True)
class Asset:
    """A file of a page."""

    content: bytes
    media_type: str
    mark: str  # of its content


@cache
def assets() -> Mapping[str, Asset]:
    """All there are, by their name below /static/."""
    found = {}
    folder = files("einthoven") / "serve" / "static"
    for place in ("", "vendor"):
        for file in (folder / place if place else folder).iterdir():
            kind = TYPES.get(f".{file.name.rpartition('.')[2]}")
            if kind is not None:
                content = file.read_bytes()
                name = f"{place}/{file.name}" if place else file.name
                found[name] = Asset(content, kind, hashlib.sha256(content).hexdigest()[:16])
    return found


def asset_response(name: str, known_mark: str) -> Response | None:
    """A file, or 304 for who has it already; None if there is none of this name."""
    found = assets().get(name)
    if found is None:
        return None
    headers = {"ETag": f'"{found.mark}"', "Cache-Control": "no-cache"}
    if found.mark in known_mark:
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.media_type, headers=headers)


def page(template: str, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any) -> HTMLResponse:
    """A page. Whatever is put into it is escaped."""
    text = environment().get_template(f"{template}.html.j2").render(values)
    return HTMLResponse(text, status, {**HEADERS, **(headers or {})})


@cache
def environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("einthoven.serve"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters |= {"day": day, "age": age, "path": path}
    made.globals |= {"asset": lambda name: f"/static/{name}?{assets()[name].mark}"}
    return made


def day(time: datetime | str | None) -> str:
    """A time as a clinician writes it."""
    if time is None:
        return "no date"
    told = datetime.fromisoformat(time) if isinstance(time, str) else time
    return f"{told.day} {told:%b %Y, %H:%M}"


def age(years: float | None) -> str:
    """90 is what sources say of everybody above 89."""
    if years is None:
        return "age unknown"
    return "90 or older" if years >= 90 else f"{years:.0f} y"


def path(text: str) -> str:
    """An id as a part of an address."""
    return quote(text, safe="/")


def said_of(row: Mapping[str, Any] | None) -> str:
    """A strip in words, from its row of RECORDINGS: leads, rate and quality, and nothing of the patient."""
    if row is None:
        return "ECG strip"
    leads = leads_of(row["leads"])
    which = "12-lead ECG" if len(leads) == len(LEADS) else f"ECG of {len(leads)} leads ({', '.join(leads)})"
    rate = f", recorded at {row['source_rate']:.0f} Hz" if row["source_rate"] else ""
    return f"{which}{rate}, {', '.join(row['quality'] or ()) or 'no quality flag'}"

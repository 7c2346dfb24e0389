"""A search of the page: what was put into the box, or which recording or file, as a vector with what narrows it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from einthoven.search.archive import Archive, Hit
from einthoven.search.index import Vector
from einthoven.serve.bodies import FindingsAnswer
from einthoven.serve.facets import Choice
from einthoven.serve.options import MAX_CODES, MAX_ID, MAX_TEXT
from einthoven.serve.problems import RefusedError
from einthoven.serve.service import Service
from einthoven.vocabulary.vocabulary import UNK

LOOKED_AT: Final = 200
"""Nearest recordings that facets are counted among."""
_BETWEEN: Final = re.compile(r"\s*[+,;]\s*|\s+")
Form = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class UploadedEcg:
    """What is kept of an uploaded ECG: never the file."""

    drawing: str
    said: str
    findings: FindingsAnswer


@dataclass(frozen=True)
class Search:
    """What was asked, and where that is."""

    kind: str  # text, codes, recording or ecg
    told: str  # as it stood in the box; of a recording its id; of a file nothing
    vector: Vector
    space: str
    without: int | None = None  # patient
    choice: Choice = field(default_factory=Choice)
    uploaded: UploadedEcg | None = None

    async def hits(self, service: Service, top: int = LOOKED_AT) -> list[Hit]:
        """The nearest recordings, several of a patient among them."""
        top = min(top, service.restriction.most)
        return await service.near(self.vector, self.space, top, self.choice.filter, False, self.without)


def asked_with(form: Form, before: Search | None) -> tuple[str, str]:
    """Kind and content of what a form asks with, for the audit log."""
    if recording := first(form, "recording"):
        return "recording", recording
    words = first(form, "q")
    if before is not None and words in ("", before.told):
        return before.kind, before.told
    return "text", words


async def begun(service: Service, form: Form, before: Search | None = None) -> Search:
    """The search that a form asks for; `before`: one that it narrows, if the box did not change. RefusedError."""
    choice = Choice.of(form)
    words, recording = first(form, "q"), first(form, "recording")
    if recording:
        placed = await service.stored(recording[:MAX_ID])
        return Search("recording", recording, placed.vector, placed.space, placed.subject_id, choice)
    if before is not None and words in ("", before.told):
        return replace(before, choice=choice)
    if not words:
        raise RefusedError(422, "The box is empty. Write what the ECG should show, or pick a code, then search.")
    if len(words) > MAX_TEXT or "\0" in words:
        raise RefusedError(422, f"At most {MAX_TEXT:,} characters are read. Shorten the text, then search again.")
    codes = codes_in(words, service.archive)
    if codes:
        return Search("codes", words, (await service.vectors(None, list(codes)))[0], "fine", None, choice)
    return Search("text", words, (await service.vectors(words, None))[0], "coarse", None, choice)


def codes_in(words: str, archive: Archive) -> tuple[str, ...]:
    """The codes that a text consists of; none: it is words. A code has "//" in it, or "/" and is known."""
    vocabulary = archive.model.vocabulary
    if vocabulary is None:
        return ()

    def known(part: str) -> bool:
        return "/" in part and vocabulary.token_of(part)[0] != UNK

    if known(words):
        return (words,)
    parts = tuple(part for part in _BETWEEN.split(words) if part)[:MAX_CODES]
    return parts if parts and all("//" in part or known(part) for part in parts) else ()


def first(form: Form, name: str) -> str:
    """The first value of a field, without blanks around."""
    return next(iter(form.get(name, ())), "").strip()

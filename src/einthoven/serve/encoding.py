"""What the one model is asked for, many requests at a time: texts of several in one forward pass, and ECGs likewise."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from einthoven.model import Model
from einthoven.search.archive import Archive
from einthoven.search.archive import strips_of as strips_for
from einthoven.waveforms.formats import Ecg

Floats = NDArray[np.float32]
LONGEST: Final = 600.0
"""Seconds of an ECG that are looked at: three strips of five stand for them all."""


@dataclass(frozen=True)
class Texts:
    """Answered by unit vectors [n, d] where text is."""

    texts: tuple[str, ...]


@dataclass(frozen=True)
class Codes:
    """One record of these codes, answered by a unit vector [1, d]; EinthovenError for a code the model cannot tell."""

    codes: tuple[str, ...]
    space: str


@dataclass(frozen=True)
class Strips:
    """One ECG as float32 [s, 12, t], answered by `Seen`."""

    strips: Floats


@dataclass(frozen=True)
class Seen:
    """An ECG as the model sees it."""

    vectors: dict[str, Floats]  # of each space, unit length [d]
    features: Floats  # [c]
    early: Floats  # [e]

    @property
    def space(self) -> str:
        """Where it is compared with others: coarse if the model has it."""
        return next(iter(self.vectors))

    @property
    def vector(self) -> Floats:
        return self.vectors[self.space]


Job = Texts | Codes | Strips


def encode(archive: Archive, jobs: Sequence[Job]) -> list[Any]:
    """The answer to each job, or the exception that is its answer: one request's mistake is not another's."""
    found: dict[int, Any] = {}
    texts = [(i, job) for i, job in enumerate(jobs) if isinstance(job, Texts)]
    if texts:
        vectors = archive.model.encode_text([text for _, job in texts for text in job.texts])
        ends = np.cumsum([len(job.texts) for _, job in texts])[:-1]
        found |= {i: part for (i, _), part in zip(texts, np.split(vectors, ends), strict=True)}
    alike = defaultdict(list)
    for i, job in enumerate(jobs):
        if isinstance(job, Strips):
            alike[job.strips.shape].append((i, job.strips))
        elif isinstance(job, Codes):
            found[i] = _of_codes(archive, job)
    for same in alike.values():
        seen = seen_by(archive.model, np.stack([strips for _, strips in same]))
        found |= {i: one for (i, _), one in zip(same, seen, strict=True)}
    return [found[i] for i in range(len(jobs))]


def strips_of(model: Model, ecg: Ecg) -> Strips:
    """An ECG as the model wants it; EinthovenError if no standard lead has a sample in it."""
    return Strips(strips_for(model, ecg, LONGEST))


def seen_by(model: Model, strips: Floats) -> list[Seen]:
    """Recordings as strips [n, s, 12, t], each as the model sees it."""
    seen = model.encode_strips(torch.from_numpy(strips))
    spaces = {
        name: part.float().cpu().numpy()
        for name, part in (("coarse", seen.coarse), ("fine", seen.fine))
        if part is not None
    }
    features, early = seen.features.float().cpu().numpy(), seen.early.float().cpu().numpy()
    return [Seen({name: part[i] for name, part in spaces.items()}, features[i], early[i]) for i in range(len(features))]


def _of_codes(archive: Archive, job: Codes) -> Floats | Exception:
    try:
        return archive.of_codes(job.codes, job.space)[None]
    except Exception as error:
        return error

"""Which leads and seconds drive a match: each stretch of a lead is blanked in turn, and the cosine falls, or does not.

Occlusion as Zeiler and Fergus (2014, section 4.2) did it with pictures; what is blanked is 0 mV, as a lead that was not
recorded is to the model. A fall says what this model misses without the stretch, not what a physician would look at.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray

from einthoven.model import STRIPS, Model
from einthoven.schema import LEADS
from einthoven.waveforms.draw import Shade
from einthoven.waveforms.standardise import Samples
from einthoven.waveforms.strips import cut, millivolts, resample, starts

Floats = NDArray[np.float32]
WINDOW: Final = 1.0
"""Seconds: about one beat."""
MOST: Final = 20
"""Windows of a lead; in longer recordings they are longer."""
CHUNK: Final = 48
"""Blanked recordings in one pass: memory is bounded, and the cost of a pass well shared."""
AXIS, WIDE, HIGH = 42, 30, 18
"""Pixels left of the cells, and of a cell."""
LEAST: Final = 0.1
"""Share of the largest fall below which nothing is drawn."""


@dataclass(frozen=True)
class Occlusion:
    """How far a cosine falls [12, windows] when a window of a lead is blanked; below 0: it rises."""

    edges: tuple[float, ...]  # seconds: window w lasts from edges[w] to edges[w + 1]
    falls: Floats

    @property
    def window(self) -> float:
        """Seconds of a window."""
        return self.edges[1] - self.edges[0]

    def largest(self, count: int) -> list[tuple[str, float, float, float]]:
        """Lead, start and end in seconds, and fall of the windows without which the cosine falls most."""
        order = np.argsort(-self.falls, axis=None, kind="stable")[:count]
        places = (np.unravel_index(place, self.falls.shape) for place in order)
        return [
            (LEADS[lead], self.edges[w], self.edges[w + 1], float(self.falls[lead, w]))
            for lead, w in places
            if self.falls[lead, w] > 0
        ]


def occlusion(model: Model, stored: Samples, rate: int, vector: Floats, space: str) -> Occlusion:
    """Blank each window of each lead of a stored recording, int16 microvolts [12, samples] at `rate` hertz, and hold it
    against a unit vector [d] of `space`.

    Strips are cut before they are blanked: what lies between them and what is blank already costs no pass.
    """
    of = model.ecg_config
    whole = resample(millivolts(stored[None]), rate, of.sampling_rate)
    samples = whole.shape[-1]
    strips = cut(whole, of.strip_samples, STRIPS)[0]
    first = starts(samples, of.strip_samples, STRIPS)
    count = min(MOST, max(1, round(samples / of.sampling_rate / WINDOW)))
    edges = np.linspace(0, samples, count + 1).round().astype(int)
    inside = [[slice(*np.clip((a - s, b - s), 0, of.strip_samples)) for s in first] for a, b in pairwise(edges)]
    places = [
        (lead, w)
        for lead in range(len(LEADS))
        for w in range(count)
        if any(strip[lead, part].any() for strip, part in zip(strips, inside[w], strict=True))
    ]
    (cosine,) = _cosines(model, strips[None], vector, space)
    falls = np.zeros((len(LEADS), count), np.float32)
    for start in range(0, len(places), CHUNK):
        chunk = places[start : start + CHUNK]
        copies = np.repeat(strips[None], len(chunk), axis=0)
        for copy, (lead, w) in zip(copies, chunk, strict=True):
            for strip, part in zip(copy, inside[w], strict=True):
                strip[lead, part] = 0
        falls[tuple(np.transpose(chunk))] = cosine - _cosines(model, copies, vector, space)
    return Occlusion(tuple((edges / of.sampling_rate).tolist()), falls)


def _cosines(model: Model, strips: Floats, vector: Floats, space: str) -> Floats:
    """Of recordings as strips [n, s, 12, t]: [n]."""
    seen: Any = model.encode_strips(torch.from_numpy(strips)).vectors(space).float().cpu().numpy()
    return np.asarray(seen @ vector, np.float32)


def shades(of: Occlusion) -> list[Shade]:
    """What of the falls is drawn on the strip; the largest has weight 1."""
    most = float(of.falls.max(initial=0.0))
    if most <= 0:
        return []
    return [
        Shade(LEADS[lead], of.edges[w], of.edges[w + 1], float(of.falls[lead, w]) / most)
        for lead, w in np.argwhere(of.falls >= LEAST * most)
    ]


def heat(of: Occlusion) -> Markup:
    """The falls as a picture, leads down and seconds across; what lets the cosine rise is left blank."""
    most = max(float(of.falls.max(initial=0.0)), 1e-12)
    windows, low = of.falls.shape[1], HIGH * len(LEADS)
    parts = []
    for lead, name in enumerate(LEADS):
        parts.append(f'<text x="{AXIS - 8}" y="{HIGH * lead + 13}" text-anchor="end">{name}</text>')
        for w in range(windows):
            fall = float(of.falls[lead, w])
            at = f'x="{AXIS + WIDE * w}" y="{HIGH * lead + 1}" width="{WIDE - 2}" height="{HIGH - 2}"'
            title = f"<title>{name}, {of.edges[w]:.3g} to {of.edges[w + 1]:.3g} s: {-fall:+.3f}</title>"
            parts.append(f'<rect class="cell" {at}/>')
            parts.append(f'<rect class="fall" {at} fill-opacity="{max(fall, 0.0) / most:.2f}">{title}</rect>')
    for w in range(0, windows + 1, 2):
        x, told = AXIS + WIDE * w, f"{of.edges[w]:.3g} s"
        parts.append(f'<text class="soft" x="{x}" y="{low + 14}" text-anchor="middle">{told}</text>')
    across, high = AXIS + WIDE * windows + 16, low + 20
    return Markup(
        f'<svg class="heat" role="img" viewBox="0 0 {across} {high}" width="{across}" height="{high}" '
        f'aria-label="Fall of the cosine by lead and second; the list names the largest">{"".join(parts)}</svg>'
    )

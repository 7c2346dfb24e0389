"""Which leads and seconds drive a match: each is blanked in turn, and the cosine with the query falls, or does not.

Occlusion as Zeiler and Fergus (2014, section 4.2) did it with pictures; what is blanked is 0 mV, as a lead that was not
recorded is to the model.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray

from einthoven.model import STRIPS, Model
from einthoven.schema import LEADS
from einthoven.waveforms.draw import Shade
from einthoven.waveforms.standardise import Samples
from einthoven.waveforms.strips import from_store

Floats = NDArray[np.float32]
WINDOW: Final = 1.0
"""Seconds: about one beat."""
AXIS, WIDE, HIGH = 42, 30, 18
"""Pixels left of the cells, and of a cell."""
LEAST: Final = 0.1
"""Share of the largest fall below which nothing is drawn."""


@dataclass(frozen=True)
class Occlusion:
    """A recording and its blanked copies, as strips [1 + 12 windows, s, 12, t], to be held against a unit vector."""

    strips: Floats
    vector: Floats
    space: str

    @classmethod
    def of(cls, model: Model, stored: Samples, rate: int, vector: Floats, space: str) -> "Occlusion":
        """Of a stored recording, int16 microvolts [12, samples] at `rate` hertz."""
        copies = np.concatenate([stored[None], blanked(stored, rate)])
        config = model.ecg_config
        strips = from_store(copies, rate, config.sampling_rate, config.strip_samples, STRIPS)
        return cls(strips, vector, space)

    def falls(self, model: Model) -> Floats:
        """How far the cosine falls [12, windows] when a window of a lead is blanked; below 0: it rises. One pass."""
        model.eval()
        seen: Any = model.encode_strips(torch.from_numpy(self.strips)).vectors(self.space).float().cpu().numpy()
        cosines = seen @ self.vector
        return np.asarray((cosines[0] - cosines[1:]).reshape(len(LEADS), -1), np.float32)


def blanked(stored: Samples, rate: int) -> Samples:
    """[12, samples] -> [12 windows, 12, samples]: lead by lead, each copy without one window."""
    size = round(WINDOW * rate)
    count = -(-stored.shape[1] // size)
    copies = np.broadcast_to(stored, (len(LEADS), count, *stored.shape)).copy()
    for lead in range(len(LEADS)):
        for window in range(count):
            copies[lead, window, lead, window * size : (window + 1) * size] = 0
    return copies.reshape(-1, *stored.shape)


def shades(falls: Floats) -> list[Shade]:
    """What of the falls [12, windows] is drawn on the strip; the largest has weight 1."""
    most = float(falls.max(initial=0.0))
    if most <= 0:
        return []
    return [
        Shade(LEADS[lead], window * WINDOW, (window + 1) * WINDOW, float(falls[lead, window]) / most)
        for lead, window in np.argwhere(falls >= LEAST * most)
    ]


def heat(falls: Floats) -> Markup:
    """The falls [12, windows] as a picture, leads down and seconds across; what lets the cosine rise is left blank."""
    most = max(float(falls.max(initial=0.0)), 1e-12)
    windows, low = falls.shape[1], HIGH * len(LEADS)
    parts = []
    for lead, name in enumerate(LEADS):
        parts.append(f'<text x="{AXIS - 8}" y="{HIGH * lead + 13}" text-anchor="end">{name}</text>')
        for window in range(windows):
            fall = float(falls[lead, window])
            at = f'x="{AXIS + WIDE * window}" y="{HIGH * lead + 1}" width="{WIDE - 2}" height="{HIGH - 2}"'
            title = f"<title>{name}, second {window + 1}: {-fall:+.3f}</title>"
            parts.append(f'<rect class="cell" {at}/>')
            parts.append(f'<rect class="fall" {at} fill-opacity="{max(fall, 0.0) / most:.2f}">{title}</rect>')
    for window in range(0, windows + 1, 2):
        x, told = AXIS + WIDE * window, f"{window * WINDOW:g} s"
        parts.append(f'<text class="soft" x="{x}" y="{low + 14}" text-anchor="middle">{told}</text>')
    across, high = AXIS + WIDE * windows + 16, low + 20
    return Markup(
        f'<svg class="heat" role="img" viewBox="0 0 {across} {high}" width="{across}" height="{high}" '
        f'aria-label="Fall of the cosine by lead and second; the list names the largest">{"".join(parts)}</svg>'
    )

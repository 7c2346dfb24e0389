"""A 12-lead ECG on ECG paper, as SVG. One unit of the drawing is one millimetre of paper."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einthoven.schema import LEADS

PAPER_SPEED = 25.0  # mm per second
GAIN = 10.0  # mm per millivolt
ROW = 30.0  # mm between baselines
MARGIN = 10.0  # mm left of the traces, for the calibration pulse
HEAD = 10.0  # mm above the first row, for the title
LONGEST = 10.0  # seconds drawn

LAYOUT = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
RHYTHM = ("II", "V1", "V5", "I")
"""Leads for the rhythm strip, in order of preference: the first that was recorded."""

SHEET = "#fffafa"
SHADE = "#1d4ed8"
FAINT, STRONG = 0.06, 0.5
"""Opacity of a shade of weight 0 and of weight 1."""

Signal = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Shade:
    """An interval of one lead to be marked behind its trace."""

    lead: str
    start: float  # seconds
    end: float
    weight: float  # 0 to 1


def draw_svg(signal_mv: Signal, sampling_rate: float, title: str, shades: Sequence[Shade] = ()) -> str:
    """Draw `signal_mv` [12, samples], millivolts in the order of `schema.LEADS`, at `sampling_rate` hertz.

    Three rows of four leads, each a quarter of the time, and a rhythm strip below, at 25 mm/s and 10 mm/mV. At most the
    first 10 s are drawn. NaN samples leave a gap; a lead that is all NaN is left blank. `shades` are seen as far as
    their lead is drawn at their time. The SVG has no external parts and no ids, so several fit into one page.
    """
    signal = signal_mv[:, : round(LONGEST * sampling_rate)]
    seconds = signal.shape[1] / sampling_rate
    width = float(np.ceil((MARGIN + seconds * PAPER_SPEED) / 5) * 5)
    height = HEAD + (len(LAYOUT) + 1) * ROW + 5
    parts = [_paper(width, height), _text(MARGIN, 6.5, title, 4.0)]
    quarter = signal.shape[1] / 4
    for row, leads in enumerate(LAYOUT):
        baseline = HEAD + (row + 0.5) * ROW
        parts.append(_calibration(baseline))
        for column, lead in enumerate(leads):
            start, stop = round(column * quarter), round((column + 1) * quarter)
            parts.append(_shaded(shades, lead, start / sampling_rate, stop / sampling_rate, baseline))
            parts.append(_lead(signal, lead, sampling_rate, start, stop, baseline))
    baseline = HEAD + (len(LAYOUT) + 0.5) * ROW
    recorded = [lead for lead in RHYTHM if np.isfinite(signal[LEADS.index(lead)]).any()]
    rhythm = (recorded or ["II"])[0]
    parts.append(_calibration(baseline))
    parts.append(_shaded(shades, rhythm, 0.0, seconds, baseline))
    parts.append(_lead(signal, rhythm, sampling_rate, 0, signal.shape[1], baseline))
    parts.append(_text(MARGIN, height - 2, f"{PAPER_SPEED:g} mm/s · {GAIN:g} mm/mV", 3.0))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="ecg" role="img" width="{width:g}mm" height="{height:g}mm" '
        f'viewBox="0 0 {width:g} {height:g}" font-family="sans-serif"><title>{escape(title)}</title>'
        f"{''.join(parts)}</svg>"
    )


def _paper(width: float, height: float) -> str:
    def lines(step: int, colour: str, stroke: float) -> str:
        down = "".join(f"M{x} 0v{height:g}" for x in range(0, int(width) + 1, step))
        across = "".join(f"M0 {y}h{width:g}" for y in range(0, int(height) + 1, step))
        return f'<path d="{down}{across}" fill="none" stroke="{colour}" stroke-width="{stroke}"/>'

    sheet = f'<rect width="{width:g}" height="{height:g}" fill="{SHEET}"/>'
    return sheet + lines(1, "#f8dcdc", 0.1) + lines(5, "#eeb4b4", 0.2)


def _text(x: float, y: float, text: str, size: float, colour: str = "#222") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{colour}">{escape(text)}</text>'


def _calibration(baseline: float) -> str:
    """The pulse of 1 mV and 0.2 s every ECG begins with: it shows the scale on any screen."""
    pulse = f"M2 {baseline:g}h1v{-GAIN:g}h{0.2 * PAPER_SPEED:g}v{GAIN:g}h1"
    return f'<path d="{pulse}" fill="none" stroke="#222" stroke-width="0.25"/>'


def _shaded(shades: Iterable[Shade], lead: str, start: float, stop: float, baseline: float) -> str:
    """What of the shades lies in a lead's stretch of paper, `start` to `stop` in seconds."""
    drawn = []
    for shade in shades:
        left, right = max(shade.start, start), min(shade.end, stop)
        if shade.lead != lead or right <= left:
            continue
        opacity = FAINT + (STRONG - FAINT) * shade.weight
        drawn.append(
            f'<rect x="{MARGIN + left * PAPER_SPEED:.2f}" y="{baseline - ROW / 2 + 1:g}" '
            f'width="{(right - left) * PAPER_SPEED:.2f}" height="{ROW - 2:g}" fill="{SHADE}" '
            f'fill-opacity="{opacity:.2f}"/>'
        )
    return "".join(drawn)


def _lead(signal: Signal, lead: str, rate: float, start: int, stop: int, baseline: float) -> str:
    left = MARGIN + start / rate * PAPER_SPEED
    millivolts = signal[LEADS.index(lead), start:stop]
    finite = np.isfinite(millivolts)
    if not finite.any():
        return _text(left + 1, baseline - 9, lead, 3.5, "#bbb")
    x = MARGIN + np.arange(start, stop) / rate * PAPER_SPEED
    y = baseline - GAIN * np.clip(np.nan_to_num(millivolts), -20, 20)  # beyond ±20 mV: off the paper anyway
    path, pen = [], "M"
    for across, down, known in zip(x.tolist(), y.tolist(), finite.tolist(), strict=True):
        if known:
            path.append(f"{pen}{across:.2f} {down:.2f}")
        pen = "L" if known else "M"
    trace = f'<path d="{"".join(path)}" fill="none" stroke="#111" stroke-width="0.3" stroke-linejoin="round"/>'
    tick = f'<path d="M{left:.2f} {baseline - 2:g}v4" stroke="#111" stroke-width="0.3"/>' if start else ""
    name = _text(left + 1, baseline - 9, lead, 3.5)  # after the trace and with a rim of paper, to be read on it
    return trace + tick + name.replace("<text ", f'<text paint-order="stroke" stroke="{SHEET}" stroke-width="0.9" ')

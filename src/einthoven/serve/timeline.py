"""The chart around a recording as a picture: codes and notes by their day, in lanes, the ECG in the middle."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from markupsafe import Markup, escape

from einthoven.serve.bodies import ChartCode, RecordingAnswer

WIDTH, LEFT, RIGHT = 960, 130, 20
LANE, TOP, FOOT = 26, 22, 26
LEAST_DAYS: Final = 7.0
"""Half of the time that is drawn at least."""
MOST_DAYS: Final = 550.0
"""Half of the time that is drawn at most: what is further away is only listed."""
CLOSE: Final = 9.0
"""Pixels."""
NAMED: Final = 6
"""Marks that a title names."""
TICKS: Final = (1, 7, 30, 90, 182, 365)
STATIC: Final = "static"
NAMES: Final = {
    "ecg": "ECG reports", "echo": "echo", "radiology": "radiology", "microbiology": "microbiology",
    "clinical": "clinical notes", "surgical": "surgical",
}  # fmt: skip


@dataclass(frozen=True)
class Mark:
    """Something in the chart at a day."""

    lane: str
    days: float  # from the recording; negative: before
    label: str
    note: bool


def marks(recording: RecordingAnswer) -> list[Mark]:
    """All that has a day. Notes have one where both they and the recording have a time."""
    found = [
        Mark(code.kind, code.days, code.description or code.code, False)
        for code in recording.codes
        if code.days is not None
    ]
    if recording.time is None:
        return found
    middle = datetime.fromisoformat(recording.time)
    return found + [
        Mark(NAMES.get(note.kind, note.kind), days_from(middle, note.time), NAMES.get(note.kind, note.kind), True)
        for note in recording.notes
        if note.time is not None
    ]


def days_from(middle: datetime, time: str) -> float:
    """Days from one moment to another in ISO 8601."""
    return (datetime.fromisoformat(time) - middle).total_seconds() / 86400


def static(recording: RecordingAnswer) -> list[ChartCode]:
    """The codes without a day."""
    return [code for code in recording.codes if code.days is None]


def timeline(found: Sequence[Mark]) -> Markup:
    """An SVG in the colours of the page, by classes; empty without marks. What lies close together is one larger mark,
    and each has a title that says it."""
    drawn = [mark for mark in found if abs(mark.days) <= MOST_DAYS]
    if not drawn:
        return Markup("")
    lanes = list(dict.fromkeys(mark.lane for mark in sorted(drawn, key=lambda mark: (mark.note, mark.lane))))
    reach = max(LEAST_DAYS, 1.04 * max(abs(mark.days) for mark in drawn))
    height = TOP + LANE * len(lanes) + FOOT
    parts = [_ticks(reach, height), _lanes(lanes)]
    for place, lane in enumerate(lanes):
        for together in _close([mark for mark in drawn if mark.lane == lane], reach):
            parts.append(_drawn(together, TOP + LANE * (place + 0.5), reach))
    said = f"{len(drawn)} codes and notes within {reach:.0f} days of the recording; the lists below name them"
    if len(found) > len(drawn):
        said += f"; {len(found) - len(drawn)} are further away"
    return Markup(
        f'<svg class="timeline" role="img" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" '
        f'aria-label="{escape(said)}">{"".join(parts)}</svg>'
    )


def _close(marks_of_lane: Sequence[Mark], reach: float) -> list[list[Mark]]:
    """Marks that would cover each other, together."""
    groups: list[list[Mark]] = []
    for mark in sorted(marks_of_lane, key=lambda mark: mark.days):
        if groups and _x(mark.days, reach) - _x(groups[-1][0].days, reach) < CLOSE:
            groups[-1].append(mark)
        else:
            groups.append([mark])
    return groups


def _x(days: float, reach: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (0.5 + days / reach / 2)


def _ticks(reach: float, height: float) -> str:
    shown = [tick for tick in TICKS if tick <= reach][-3:]
    parts = []
    for days in (*(-tick for tick in reversed(shown)), *shown):
        x = _x(days, reach)
        parts.append(f'<path class="grid" d="M{x:.1f} {TOP}V{height - FOOT}"/>')
        parts.append(f'<text class="soft" x="{x:.1f}" y="{height - 8}" text-anchor="middle">{_said(days)}</text>')
    middle = _x(0, reach)
    parts.append(f'<path class="now" d="M{middle:.1f} {TOP - 4}V{height - FOOT + 4}"/>')
    parts.append(f'<text class="nowlabel" x="{middle:.1f}" y="{TOP - 9}" text-anchor="middle">this ECG</text>')
    return "".join(parts)


def _said(days: float) -> str:
    sign, days = ("−" if days < 0 else "+"), abs(days)
    if days < 30:
        return f"{sign}{days:g} d"
    return f"{sign}{days / 30.4:.0f} mo" if days < 365 else f"{sign}{days / 365:g} y"


def _lanes(lanes: Sequence[str]) -> str:
    parts = []
    for place, lane in enumerate(lanes):
        y = TOP + LANE * (place + 0.5)
        parts.append(f'<text x="{LEFT - 12}" y="{y + 4:g}" text-anchor="end">{escape(lane)}</text>')
        parts.append(f'<path class="grid" d="M{LEFT} {y:g}H{WIDTH - RIGHT}"/>')
    return "".join(parts)


def _drawn(together: Sequence[Mark], y: float, reach: float) -> str:
    x = sum(_x(mark.days, reach) for mark in together) / len(together)
    told = "; ".join(f"{mark.label}, day {mark.days:+.0f}" for mark in together[:NAMED])
    more = f"; and {len(together) - NAMED} more" if len(together) > NAMED else ""
    title = f"<title>{escape(told)}{more}</title>"
    size = 4.0 + 1.5 * min(len(together) - 1, 4)
    if together[0].note:
        square = f'x="{x - size:.1f}" y="{y - size:g}" width="{2 * size:g}" height="{2 * size:g}"'
        return f'<rect class="note" {square}>{title}</rect>'
    return f'<circle class="code" cx="{x:.1f}" cy="{y:g}" r="{size:g}">{title}</circle>'

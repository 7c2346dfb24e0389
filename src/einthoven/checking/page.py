"""The data card for people: `data_card.html` with figures, beside `data_card.json` with the same numbers."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from einthoven import schema
from einthoven.checking.card import ARTICLE_TOKENS
from einthoven.disclosure import SMALL_CELL, Cell
from einthoven.errors import EinthovenError
from einthoven.pages import INK, SERIES_COLOURS, figure, render
from einthoven.study import atomic, write_json

JSON_FILE, HTML_FILE = "data_card.json", "data_card.html"
FEW_BINS: Final = 12
"""Up to so many bins are drawn as bars, and read out one by one by a screen reader."""
CHARACTERS: Final = 28
"""Labels of bins that are longer together than this are slanted."""
SIZE: Final = (5.2, 3.6)
"""Inches of a figure: small, so that its letters can be read where a phone scales it down."""
FILLS: Final = (1.0, 0.4, 0.1)
DASHES: Final = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def refuse_unwritable(out: Path) -> None:
    """Make directory `out` and try to write into it: a study on a medium that is only read has its card elsewhere."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise EinthovenError(f"{out} cannot be written ({error.strerror}): name a directory with --out.") from None


def write_card(out: Path, card: dict[str, Any]) -> None:
    """Write both files into directory `out`, each atomically."""
    page = render(
        Path(__file__).with_name("card.html.j2"),
        card=card,
        splits=schema.SPLITS,
        article=ARTICLE_TOKENS,
        settings=settings(card["pairing"]),
        figures=[(_caption(each, card["data_kind"]), _figure(each, card["data_kind"])) for each in card["histograms"]],
    )
    write_json(out / JSON_FILE, card)
    with atomic(out / HTML_FILE) as temporary:
        temporary.write_text(page, encoding="utf-8")


def settings(config: dict[str, Any] | None, prefix: str = "") -> list[tuple[str, str]]:
    """Settings as lines of name and value; those of a nested table have its name before theirs."""
    lines: list[tuple[str, str]] = []
    for name, value in (config or {}).items():
        if isinstance(value, dict):
            lines += settings(value, f"{prefix}{name}.")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            lines.append((prefix + name, "none" if value is None or value == [] else shown))
    return lines


def _caption(histogram: dict[str, Any], kind: str) -> str:
    cells = [cell for series in histogram["series"].values() for cell in series]
    hidden = any(isinstance(cell, str) for cell in cells)
    mark = "Dashed" if len(histogram["bins"]) <= FEW_BINS else "Gaps"
    note = f" {mark}: from 1 to {SMALL_CELL - 1}, or hidden because it would tell one that is." if hidden else ""
    return f"{histogram['title']}: {histogram['unit']}.{note} {kind.capitalize()} data."


def _figure(histogram: dict[str, Any], kind: str) -> Markup:
    draw: Callable[[Axes], None] = partial(_bars if len(histogram["bins"]) <= FEW_BINS else _lines, histogram=histogram)
    return figure(f"{histogram['title']}, {kind} data", draw, _said(histogram, kind), SIZE)


def _said(histogram: dict[str, Any], kind: str) -> str:
    """The figure in words."""
    parts = [f"{histogram['title']}, {kind} data. {histogram['unit'].capitalize()} by {histogram['label']}."]
    for name, cells in histogram["series"].items():
        pairs = list(zip(histogram["bins"], cells, strict=True))
        if len(pairs) > FEW_BINS:
            told = [pair for pair in pairs if isinstance(pair[1], int)]
            most = max(told, key=lambda pair: pair[1], default=("", 0))
            parts.append(f"{name}: most, {most[1]}, in the bin that begins at {most[0]}.")
        else:
            parts.append(f"{name}: " + ", ".join(f"{label}: {cell}" for label, cell in pairs if cell != 0) + ".")
    return " ".join(parts)


def _heights(cells: list[Cell]) -> tuple[Any, Any]:
    """Heights of the cells that are told, and of those that are not (as high as a small one can be); else NaN."""
    told = np.array([float(cell) if isinstance(cell, int) else np.nan for cell in cells])
    return told, np.where(np.isnan(told), SMALL_CELL - 1.0, np.nan)


def _bars(axes: Axes, histogram: dict[str, Any]) -> None:
    series = histogram["series"]
    places = np.arange(len(histogram["bins"]))
    width = 0.8 / max(1, len(series))
    for number, (name, cells) in enumerate(series.items()):
        colour = SERIES_COLOURS[number % len(SERIES_COLOURS)]
        told, hidden = _heights(cells)
        at = places + (number - (len(series) - 1) / 2) * width
        fill = FILLS[number % len(FILLS)]  # series differ by more than their colour
        axes.bar(at, told, width, color=(colour, fill), edgecolor=colour, label=name if len(series) > 1 else None)
        axes.bar(at, hidden, width, color="none", edgecolor=colour, linestyle="--")
    axes.set_xticks(places, histogram["bins"])
    if sum(map(len, histogram["bins"])) > CHARACTERS:
        axes.tick_params(axis="x", labelrotation=40)
    axes.set(xlabel=histogram["label"], ylabel=histogram["unit"])
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if len(series) > 1:
        _legend(axes, len(series))


def _lines(axes: Axes, histogram: dict[str, Any]) -> None:
    """A step line for each series over numeric bins; the scale of counts is logarithmic above 10."""
    starts = np.array([float(label) for label in histogram["bins"]])
    edges = np.append(starts, 2 * starts[-1] - starts[-2])
    for number, (name, cells) in enumerate(histogram["series"].items()):
        told, _ = _heights(cells)
        colour, dashes = SERIES_COLOURS[number % len(SERIES_COLOURS)], DASHES[number % len(DASHES)]
        axes.stairs(told, edges, baseline=None, color=colour, linestyle=dashes, linewidth=1.8, label=name)
    axes.axvline(0, color=INK, linewidth=0.6)
    axes.set_yscale("symlog", linthresh=10)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, None))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set(xlabel=f"{histogram['label']} (negative: before the ECG)", ylabel=histogram["unit"])
    _legend(axes, 2)


def _legend(axes: Axes, columns: int) -> None:
    """Above the axes, where it covers nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2)

"""The result of measuring outliers: `outliers.json` for machines, `outliers.html` for people."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes

from einthoven.evaluation.intervals import Floats
from einthoven.evaluation.report import finite, shown
from einthoven.pages import CONTROL, INK, MODEL, figure, render
from einthoven.study import atomic, write_json

MEASURED: Final = ("AUROC", "FPR@95", "flagged", "unforeseen", "AUROC, control", "AUROC, other encoder")
HEADER: Final = ("outliers", "level", "recordings", *MEASURED)
BINS: Final = 40


def table(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The chosen detector beside the same one of other encoders: for the terminal and the page."""
    name: str = result["detector"]
    rows: list[tuple[str, ...]] = []
    for row in result["rows"]:
        mine = row["model"][name]
        beside = (row.get("unforeseen"), row.get("random_init", {}).get(name), row.get("against", {}).get(name))
        flagged = f"{100 * mine['flagged']:.0f} %" if "flagged" in mine else "–"
        cells = (row["name"], row["level"], str(row["recordings"]), shown(mine["auroc"]), shown(mine["fpr95"]))
        rows.append((*cells, flagged, *("–" if one is None else shown(one["auroc"]) for one in beside)))
    return rows


def write_page(
    out: Path, result: dict[str, Any], usual: Floats, outlying: Mapping[str, Floats], threshold: float
) -> None:
    """Write both, each atomically. `usual` and `outlying` are scores of the chosen detector, for the histograms."""
    result = finite(result)
    page = render(
        Path(__file__).with_name("outliers.html.j2"),
        result=result,
        header=HEADER,
        rows=table(result),
        every=_every_detector(result),
        figures=[(name, _histogram(name, usual, scores, threshold)) for name, scores in outlying.items()],
    )
    write_json(out / "outliers.json", result)
    with atomic(out / "outliers.html") as temporary:
        temporary.write_text(page, encoding="utf-8")


def _every_detector(result: Mapping[str, Any]) -> list[list[str]]:
    """AUROC of the model's detectors, a row for each case."""
    return [
        [row["name"], row["level"], *(shown(row["model"][name]["auroc"]) for name in result["detectors"])]
        for row in result["rows"]
    ]


def _histogram(name: str, usual: Floats, outlying: Floats, threshold: float) -> Any:
    """Both on one axis; what lies far outside of the usual scores is counted in the outermost bin."""
    low, high = float(usual.min()), float(max(usual.max(), threshold))
    margin = max(high - low, 1e-9)
    edges = np.linspace(low - margin, high + margin, BINS + 1)

    def draw(axes: Axes) -> None:
        for scores, colour, label in ((usual, CONTROL, "usual"), (outlying, MODEL, name)):
            counts, _ = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)
            axes.stairs(100 * counts / max(1, len(scores)), edges, color=colour, fill=True, alpha=0.6, label=label)
        axes.axvline(threshold, color=INK, linewidth=0.8, linestyle="--")
        axes.set(xlabel="score", ylabel="recordings, %")
        axes.legend()

    return figure(f"Scores of usual recordings and of outliers: {name}.", draw, size=(5, 3))

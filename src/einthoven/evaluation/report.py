"""The result of an evaluation: `metrics.json` for machines, `report.html` for people.

Layout of the metrics (every part of "model" and "random_init" may be missing; then its rows and figures are):

    {"data_kind": "real" | "semi-synthetic" | "simulated",
     "trained_on": the same kinds, or null or missing,    # the data the model was trained on
     "weights": str, "recipe": {...} or null,            # SHA-256 of the model's weights; what it was trained by
     "command": str, "split": str,                       # what made the numbers, on which split
     "seed": int, "resamples": int,                      # of the intervals
     "counts": {name: int},                              # e.g. recordings, patients, excluded
     "concatenation": "report" | "entity",               # of notes, that the model's texts were
     "tokens": tokens.token_counts(...),                 # of both; missing where nothing was counted
     "model": {"retrieval": retrieval.retrieval(...),
               "zeroshot": zeroshot.zero_shot(...),
               "probe": transfer.probe_metrics(...),
               "calibration": calibration.calibrated(...)},
     "random_init": {...},                               # the same encoders untrained: the control
     "subgroups": subgroups.subgroups(...),              # of the model
     "leads": leads.measure_subsets(...)}                # only with evaluation.lead_subsets

Every measured value is {"value", "low", "high"}, the bounds of a 95 % patient-bootstrap interval. NaN becomes null.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FormatStrFormatter, NullFormatter
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from einthoven.evaluation.figures import POINTS, Map, draw_map, reliability
from einthoven.evaluation.intervals import Floats, Integers
from einthoven.evaluation.retrieval import RECALLS
from einthoven.pages import CONTROL, INK, MODEL, SERIES_COLOURS, figure, render
from einthoven.study import atomic, write_json
from einthoven.waveforms.draw import draw_svg

SERIES = (("model", "Model"), ("random_init", "Random-init control"))
DIRECTIONS = {"ecg_to_text": "ECG → text", "text_to_ecg": "Text → ECG"}
GALLERIES = {"distinct": "distinct texts", "all": "all recordings"}


@dataclass(frozen=True)
class Example:
    """A text query and one ECG it retrieved: signal [12, samples] in millivolts at `sampling_rate` hertz."""

    query: str
    title: str
    signal_mv: Floats
    sampling_rate: float
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReportFigures:
    """The arrays the figures are drawn from. What is empty or None is not drawn."""

    classes: tuple[str, ...] = ()
    labels: NDArray[np.bool_] | None = None  # [n, classes]
    zero_shot_scores: Floats | None = None  # [n, classes]
    ranks: Mapping[str, Integers] = field(default_factory=dict)  # "ecg_to_text", "text_to_ecg" -> ranks [q] from 1
    control_ranks: Mapping[str, Integers] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    map: Map | None = None  # of the embeddings
    history: tuple[Mapping[str, float], ...] = ()  # one per epoch: "epoch" and any keys that end in "loss"


@dataclass(frozen=True)
class Row:
    """One line of the results table: texts as they are shown, value with its interval in brackets."""

    task: str
    measure: str
    model: str
    control: str


def table(metrics: Mapping[str, Any]) -> list[Row]:
    """The results, model beside control: for the terminal and for the page."""
    rows = _beside(metrics)
    for part in sorted(metrics.get("leads", {}).values(), key=lambda part: -len(part["leads"])):
        task = f"Only lead{'s' * (len(part['leads']) > 1)} {', '.join(part['leads'])}"
        rows += [Row(task, f"{r.task}, {r.measure}", r.model, r.control) for r in _beside(part) if _headline(r)]
    return rows


def _headline(row: Row) -> bool:
    return "all recordings" not in row.task and row.measure.startswith(("recall@10", "macro"))


def _beside(metrics: Mapping[str, Any]) -> list[Row]:
    found = {series: dict(_rows(metrics.get(series) or {})) for series, _ in SERIES}
    keys = dict.fromkeys(key for rows in found.values() for key in rows)
    return [Row(*key, *(found[series].get(key, "–") for series, _ in SERIES)) for key in keys]


def _rows(part: Mapping[str, Any]) -> list[tuple[tuple[str, str], str]]:
    rows: list[tuple[tuple[str, str], str]] = []
    for kind, other in (("retrieval", "text"), ("retrieval_codes", "codes")):
        for direction, galleries in part.get(kind, {}).items():
            for gallery, found in galleries.items():
                way, among = (words.replace("text", other) for words in (DIRECTIONS[direction], GALLERIES[gallery]))
                task = f"Retrieval {way.replace('Text', other.capitalize())}, {among}"
                rows += [((task, f"recall@{k}, %"), _shown(found[f"recall@{k}"], 100, 1)) for k in RECALLS]
                rows.append(((task, f"median rank of {found['gallery']}"), _shown(found["median_rank"], 1, 1)))
    for kind, task in (("zeroshot", "Zero-shot"), ("zeroshot_codes", "Zero-shot by code")):
        if zeroshot := part.get(kind):
            rows.append(((task, "macro AUROC"), _shown(zeroshot["macro"])))
            rows += [((task, f"AUROC {name}"), _shown(v)) for name, v in zeroshot["classes"].items()]
            rows += [((task, f"AUROC {name}"), "left out: one-sided labels") for name in zeroshot["left_out"]]
    for fraction, found in part.get("probe", {}).get("fractions", {}).items():
        measure = f"macro AUROC, {100 * float(fraction):g} % of training patients"
        rows.append((("Linear probe", measure), _shown(found["macro"])))
    if calibration := part.get("calibration"):
        task, macro = f"Calibration, probe of {100 * float(calibration['probe']):g} %", calibration["macro"]
        for name, words in (("ece", "equal widths"), ("ece_equal_mass", "equal sizes")):
            shown = f"{_shown(macro[name])}; {macro[name]['if_calibrated']:.3f} if calibrated"
            rows.append(((task, f"expected calibration error, bins of {words}"), shown))
        rows.append(((task, "Brier score"), _shown(macro["brier"])))
    return rows


def groups_table(metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The model's results by group, as they are shown: attribute, group, two counts, recall, then both macro means of
    the probe and of zero-shot, and the classes that the second mean leaves out."""
    rows = []
    for row in metrics.get("subgroups", ()):
        cells = [row["attribute"], row["group"], str(row["recordings"]), str(row["patients"])]
        cells.append("–" if row["recall@10"] is None else _shown(row["recall@10"], 100, 1))
        few: dict[str, None] = {}
        for found in (row["probe"], row["zeroshot"]):
            means = (None, None) if found is None else (found["macro"], found["macro_enough"])
            cells += ["–" if mean is None else _shown(mean) for mean in means]
            few |= dict.fromkeys(() if found is None else found["few"])
        rows.append((*cells, ", ".join(few) or "–"))
    return rows


def _shown(found: Mapping[str, float | None], scale: float = 1, digits: int = 3) -> str:
    value, low, high = (found[key] for key in ("value", "low", "high"))
    if value is None or math.isnan(value):
        return "undefined"
    if low is None or high is None or math.isnan(low):
        return f"{scale * value:.{digits}f}"
    return f"{scale * value:.{digits}f} ({scale * low:.{digits}f}–{scale * high:.{digits}f})"


def write_report(out: Path, metrics: dict[str, Any], figures: ReportFigures) -> None:
    """Write `metrics.json` and the self-contained `report.html` into directory `out`, each atomically."""
    metrics = finite(metrics)
    drawn = [
        (example, Markup(draw_svg(example.signal_mv, example.sampling_rate, example.title)))
        for example in figures.examples
    ]
    page = render(
        Path(__file__).with_name("report.html.j2"),
        metrics=metrics,
        rows=table(metrics),
        groups=groups_table(metrics),
        figures=_figures(metrics, figures),
        examples=drawn,
    )
    write_json(out / "metrics.json", metrics)
    with atomic(out / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")


def finite(value: Any) -> Any:
    """Plain values as strict JSON has them: NumPy scalars unwrapped, NaN and infinity null."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _figures(metrics: Mapping[str, Any], figures: ReportFigures) -> list[tuple[str, Markup]]:
    """Caption and SVG of each figure there is data for."""
    probes = {s: (metrics.get(s) or {}).get("probe", {}).get("fractions", {}) for s, _ in SERIES}
    wanted: list[tuple[bool, str, Callable[[Axes], None]]] = [
        (
            bool(figures.ranks),
            "Retrieval: the share of queries whose best relevant item is among the first k. Dashed: the control.",
            lambda axes: _recall(axes, figures),
        ),
        (
            figures.labels is not None and figures.zero_shot_scores is not None,
            "Zero-shot classification: ROC curves, each class against the rest.",
            lambda axes: _roc(axes, figures),
        ),
        (
            any(probes.values()),
            "Linear probe by labelled training patients. Bars: 95 % intervals; dots: single subsets.",
            lambda axes: _learning_curve(axes, probes),
        ),
        (
            "calibration" in (metrics.get("model") or {}),
            "Reliability of the linear probe: as many have a class as it says. Neighbouring points are joined where "
            "they would tell small counts.",
            lambda axes: reliability(axes, metrics["model"]["calibration"]["classes"]),
        ),
        (
            figures.map is not None,
            f"Embeddings of ECGs by class, in the plane of their two principal components; at most {POINTS:,}.",
            lambda axes: None if figures.map is None else draw_map(axes, figures.map),
        ),
        (bool(figures.history), "Training: loss by epoch.", lambda axes: _losses(axes, figures.history)),
    ]
    return [(caption, figure(caption, draw)) for present, caption, draw in wanted if present]


def _recall(axes: Axes, figures: ReportFigures) -> None:
    for ranks, dashes in ((figures.ranks, "-"), (figures.control_ranks, "--")):
        for (name, values), colour in zip(ranks.items(), SERIES_COLOURS, strict=False):
            steps, counts = np.unique(values, return_counts=True)
            share = 100 * np.cumsum(counts) / len(values)
            label = DIRECTIONS.get(name, name) if dashes == "-" else None
            axes.step(steps, share, where="post", linestyle=dashes, color=colour, label=label)
    axes.set(xscale="log", xlabel="k", ylabel="recall at k, %", ylim=(0, 100))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))  # the default writes powers as formulae
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend()


def _roc(axes: Axes, figures: ReportFigures) -> None:
    assert figures.labels is not None and figures.zero_shot_scores is not None
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.5)
    for c, name in enumerate(figures.classes):
        truth = figures.labels[:, c]
        if truth.any() and not truth.all():
            false, true, _ = roc_curve(truth, figures.zero_shot_scores[:, c])
            axes.plot(false, true, color=SERIES_COLOURS[c % len(SERIES_COLOURS)], label=name)
    axes.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="lower right")


def _learning_curve(axes: Axes, probes: Mapping[str, Mapping[str, Any]]) -> None:
    for (series, label), colour in zip(SERIES, (MODEL, CONTROL), strict=True):
        points = sorted((100 * float(fraction), found) for fraction, found in probes[series].items())
        if not points:
            continue
        share = [x for x, _ in points]
        value, low, high = ([found["macro"][key] for _, found in points] for key in ("value", "low", "high"))
        axes.plot(share, value, marker="o", color=colour, label=label)
        axes.vlines(share, [_number(v) for v in low], [_number(v) for v in high], color=colour)
        for x, found in points:
            runs = [run["macro"] for run in found["subsets"]]
            axes.plot([x] * len(runs), runs, ".", color=colour, alpha=0.5, markersize=5)
    axes.set(xscale="log", xlabel="labelled training patients, %", ylabel="macro AUROC")
    shares = sorted({100 * float(fraction) for fractions in probes.values() for fraction in fractions})
    axes.set_xticks(shares, [f"{share:g}" for share in shares])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend()


def _losses(axes: Axes, history: tuple[Mapping[str, float], ...]) -> None:
    names = sorted({name for row in history for name in row if name.endswith("loss")})
    for name, colour in zip(names, SERIES_COLOURS, strict=False):
        points = [(row["epoch"], row[name]) for row in history if name in row]
        axes.plot(*zip(*points, strict=True), color=colour, label=name.replace("_", " "))
    axes.set(xlabel="epoch", ylabel="loss")
    axes.legend()


def _number(value: float | None) -> float:
    return math.nan if value is None else value

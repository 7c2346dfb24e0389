"""The figures of the report, from arrays; what is empty or None is not drawn."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FormatStrFormatter, NullFormatter
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.metrics import roc_curve

from einthoven.evaluation.intervals import Floats, Integers
from einthoven.pages import CONTROL, INK, MODEL, SERIES_COLOURS, figure

SERIES: Final = (("model", "Model"), ("random_init", "Random-init control"))
DIRECTIONS: Final = {"ecg_to_text": "ECG → text", "text_to_ecg": "Text → ECG"}
POINTS: Final = 3000
"""Of a map, at most: each is drawn."""
OTHERS: Final = "several or none"
BINS: Final = 40

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Example:
    """A text query and one ECG it retrieved: signal [12, samples] in millivolts at `sampling_rate` hertz."""

    query: str
    title: str
    signal_mv: Floats
    sampling_rate: float
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scored:
    """What a ROC curve is drawn from."""

    classes: tuple[str, ...]
    labels: Bools  # [n, classes]
    scores: Floats  # [n, classes]


@dataclass(frozen=True)
class Map:
    """Embeddings in a plane."""

    points: Floats  # [n, 2]
    names: tuple[str, ...]  # of each point, its only class or OTHERS
    classes: tuple[str, ...]
    explained: tuple[float, float]  # share of the variance along each axis


@dataclass(frozen=True)
class ReportFigures:
    """The arrays the figures are drawn from."""

    ranks: Mapping[str, Integers] = field(default_factory=dict)  # "ecg_to_text", "text_to_ecg" -> ranks [q] from 1
    control_ranks: Mapping[str, Integers] = field(default_factory=dict)
    zero_shot: Scored | None = None
    probe: Scored | None = None  # of the largest fraction of labels
    map: Map | None = None
    outlying: Floats | None = None  # [n] of the chosen detector, relative to its threshold
    examples: tuple[Example, ...] = ()
    history: tuple[Mapping[str, float], ...] = ()  # one per epoch: "epoch" and any keys that end in "loss"


def drawn(metrics: Mapping[str, Any], of: ReportFigures) -> list[tuple[str, Markup]]:
    """Caption and SVG of each figure there is data for."""
    probes = {s: (metrics.get(s) or {}).get("probe", {}).get("fractions", {}) for s, _ in SERIES}
    calibration = (metrics.get("model") or {}).get("calibration", {}).get("classes", {})
    wanted: list[tuple[bool, str, Callable[[Axes], None]]] = [
        (
            bool(of.ranks),
            "Retrieval: the share of queries whose best relevant item is among the first k. Dashed: the control.",
            lambda axes: _recall(axes, of),
        ),
        (
            of.zero_shot is not None,
            "Zero-shot classification: ROC curves, each class against the rest.",
            lambda axes: _roc(axes, of.zero_shot),
        ),
        (
            of.probe is not None,
            "Linear probe of all labelled training patients, or of most: ROC curves, each class against the rest.",
            lambda axes: _roc(axes, of.probe),
        ),
        (
            any(probes.values()),
            "Linear probe by labelled training patients. Bars: 95 % intervals; dots: single subsets.",
            lambda axes: _learning_curve(axes, probes),
        ),
        (
            bool(calibration),
            "Reliability of the linear probe: as many have a class as it says. Neighbouring points are joined where "
            "they would tell small counts.",
            lambda axes: _reliability(axes, calibration),
        ),
        (
            of.map is not None,
            f"Embeddings of ECGs by class, in the plane of their two principal components; at most {POINTS:,}.",
            lambda axes: _map(axes, of.map),
        ),
        (
            of.outlying is not None,
            "Outliers: how far recordings lie from those trained on, by the model's detector. Right of the line they "
            "are flagged.",
            lambda axes: _outlying(axes, of.outlying),
        ),
        (bool(of.history), "Training: loss by epoch.", lambda axes: _losses(axes, of.history)),
    ]
    return [(caption, figure(caption, draw)) for present, caption, draw in wanted if present]


def embedding_map(vectors: Floats, labels: Bools, classes: Sequence[str]) -> Map:
    """The two principal components of embeddings [n, d] with labels [n, classes]; of many, `POINTS` spread evenly.

    Principal components and not t-SNE, whose distances and sizes of clusters mean nothing: here what is near in the
    plane may yet be far apart, but what is far apart in it is so in the space.
    """
    chosen = np.unique(np.linspace(0, len(vectors) - 1, min(len(vectors), POINTS)).astype(np.int64))
    rows = vectors[chosen].astype(np.float64)
    plane = PCA(2, svd_solver="covariance_eigh").fit(rows)
    names = [OTHERS if row.sum() != 1 else classes[int(row.argmax())] for row in labels[chosen]]
    first, second = np.nan_to_num(plane.explained_variance_ratio_).tolist()
    return Map(plane.transform(rows), tuple(names), tuple(classes), (first, second))


def _recall(axes: Axes, of: ReportFigures) -> None:
    for ranks, dashes in ((of.ranks, "-"), (of.control_ranks, "--")):
        for (name, values), colour in zip(ranks.items(), SERIES_COLOURS, strict=False):
            steps, counts = np.unique(values, return_counts=True)
            share = 100 * np.cumsum(counts) / len(values)
            label = DIRECTIONS.get(name, name) if dashes == "-" else None
            axes.step(steps, share, where="post", linestyle=dashes, color=colour, label=label)
    axes.set(xscale="log", xlabel="k", ylabel="recall at k, %", ylim=(0, 100))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))  # the default writes powers as formulae
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend()


def _roc(axes: Axes, of: Scored | None) -> None:
    assert of is not None
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.5)
    for c, name in enumerate(of.classes):
        truth = of.labels[:, c]
        if truth.any() and not truth.all():
            false, true, _ = roc_curve(truth, of.scores[:, c])
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


def _reliability(axes: Axes, classes: Mapping[str, Mapping[str, Any]]) -> None:
    """Share of positives by mean probability, of each class that has a curve (calibration.py)."""
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.5)
    for number, (name, found) in enumerate(classes.items()):
        points = found["curve"]
        if points["share"]:
            colour = SERIES_COLOURS[number % len(SERIES_COLOURS)]
            axes.plot(points["probability"], points["share"], marker="o", markersize=4, color=colour, label=name)
    axes.set(xlabel="probability given by the probe", ylabel="share that has the class", xlim=(0, 1), ylim=(0, 1))
    if len(axes.lines) > 1:
        axes.legend(loc="upper left")


def _map(axes: Axes, of: Map | None) -> None:
    """Each recording a dot in the colour of its class."""
    assert of is not None
    names = np.array(of.names)
    colours = {OTHERS: CONTROL} | {
        name: SERIES_COLOURS[number % len(SERIES_COLOURS)] for number, name in enumerate(of.classes)
    }
    for name, colour in colours.items():
        points = of.points[names == name]
        if len(points):
            axes.plot(points[:, 0], points[:, 1], ".", markersize=3, color=colour, label=name)
    first, second = (f"{100 * share:.0f} % of the variance" for share in of.explained)
    axes.set(xlabel=f"first principal component, {first}", ylabel=f"second, {second}")
    axes.set_aspect("equal", adjustable="datalim")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), markerscale=3)


def _outlying(axes: Axes, scores: Floats | None) -> None:
    """Scores relative to the threshold; the few that lie far beyond it are counted in the last bin."""
    assert scores is not None
    high = max(float(np.percentile(scores, 99)), 0.0)
    reach = max(high - float(scores.min()), 1e-9)
    edges = np.linspace(high - reach, high + 0.2 * reach, BINS + 1)
    counts, _ = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)
    axes.stairs(100 * counts / len(scores), edges, color=MODEL, fill=True, alpha=0.6)
    axes.axvline(0, color=INK, linewidth=0.8, linestyle="--")
    axes.set(xlabel="score, from the threshold", ylabel="recordings, %")


def _losses(axes: Axes, history: tuple[Mapping[str, float], ...]) -> None:
    names = sorted({name for row in history for name in row if name.endswith("loss")})
    for name, colour in zip(names, SERIES_COLOURS, strict=False):
        points = [(row["epoch"], row[name]) for row in history if name in row]
        axes.plot(*zip(*points, strict=True), color=colour, label=name.replace("_", " "))
    axes.set(xlabel="epoch", ylabel="loss")
    axes.legend()


def _number(value: float | None) -> float:
    return math.nan if value is None else value

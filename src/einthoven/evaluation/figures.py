"""Figures of the report that need more than a line or two: the reliability of the probes, and a map of embeddings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from einthoven.evaluation.intervals import Floats
from einthoven.pages import CONTROL, INK, SERIES_COLOURS

POINTS: Final = 3000
"""Of a map, at most: each is drawn."""
OTHERS: Final = "several classes, or none"


@dataclass(frozen=True)
class Map:
    """Embeddings in a plane."""

    points: Floats  # [n, 2]
    names: tuple[str, ...]  # of each point, its only class or OTHERS
    classes: tuple[str, ...]
    explained: tuple[float, float]  # share of the variance along each axis


def embedding_map(vectors: Floats, labels: NDArray[np.bool_], classes: Sequence[str]) -> Map:
    """The two principal components of embeddings [n, d] with labels [n, classes]; of many, `POINTS` spread evenly.

    Principal components and not t-SNE, whose distances and sizes of clusters mean nothing: here what is near in the
    plane may yet be far apart, but what is far apart in it is so in the space.
    """
    chosen = np.unique(np.linspace(0, len(vectors) - 1, min(len(vectors), POINTS)).astype(np.int64))
    plane = PCA(2, svd_solver="full").fit(np.asarray(vectors, np.float64))
    names = [OTHERS if row.sum() != 1 else classes[int(row.argmax())] for row in labels[chosen]]
    first, second = plane.explained_variance_ratio_.tolist()
    return Map(plane.transform(vectors[chosen].astype(np.float64)), tuple(names), tuple(classes), (first, second))


def draw_map(axes: Axes, drawn: Map) -> None:
    """Each recording a dot in the colour of its class."""
    names = np.array(drawn.names)
    colours = {OTHERS: CONTROL} | {
        name: SERIES_COLOURS[number % len(SERIES_COLOURS)] for number, name in enumerate(drawn.classes)
    }
    for name, colour in colours.items():
        points = drawn.points[names == name]
        if len(points):
            axes.plot(points[:, 0], points[:, 1], ".", markersize=3, color=colour, label=name)
    first, second = (f"{100 * share:.0f} % of the variance" for share in drawn.explained)
    axes.set(xlabel=f"first principal component, {first}", ylabel=f"second, {second}", aspect="equal")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), markerscale=3)


def reliability(axes: Axes, classes: Mapping[str, Mapping[str, Any]]) -> None:
    """Share of positives by mean probability, of each class that has a curve (calibration.py)."""
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.5)
    for number, (name, found) in enumerate(classes.items()):
        points = found["curve"]
        if points["share"]:
            colour = SERIES_COLOURS[number % len(SERIES_COLOURS)]
            axes.plot(points["probability"], points["share"], marker="o", markersize=4, color=colour, label=name)
    axes.set(xlabel="probability given by the probe", ylabel="share that has the class", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left")

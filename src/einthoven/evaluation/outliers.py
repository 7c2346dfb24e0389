"""Outlier detectors: how far a recording lies from those a model was trained on, by what the model makes of it.

Features are [n, f], embeddings [n, d]; no model is inside. A higher score is more outlying. Every array that a detector
needs is a field of it, so that detectors are saved as tensors and loaded without fitting.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from einthoven.config import OUTLIER_DETECTORS
from einthoven.errors import EinthovenError
from einthoven.evaluation.intervals import Floats, Integers
from einthoven.evaluation.retrieval import unit
from einthoven.study import atomic

FILE: Final = "outliers.safetensors"
FORMAT: Final = 1
NEIGHBOURS: Final = 10


def _empty() -> Floats:
    return np.empty(0, np.float32)


class Detector(Protocol):
    """Fitted on what is usual; then scores anything: float64 [n], higher is more outlying."""

    reads: ClassVar[str]  # "features", or "vectors": the embeddings

    def fit(self, features: Floats, labels: Integers | None = None) -> None:
        """features [n, f]; labels [n]: classes from 0, -1 for none. A detector that needs no labels ignores them."""

    def score(self, features: Floats) -> Floats: ...


@dataclass
class Mahalanobis:
    """Squared Mahalanobis distance from the mean, the covariance shrunk (Ledoit and Wolf 2004; Lee et al. 2018)."""

    reads: ClassVar[str] = "features"
    mean: Floats = field(default_factory=_empty)  # [f]
    whitening: Floats = field(default_factory=_empty)  # [f, f], times its transpose the inverse covariance

    def fit(self, features: Floats, labels: Integers | None = None) -> None:
        self.mean, self.whitening = _shrunk(_rows(features))

    def score(self, features: Floats) -> Floats:
        return _squared(_rows(features, self.mean.shape[-1]) - self.mean, self.whitening)


@dataclass
class RelativeMahalanobis:
    """Distance from the nearest class less that from the mean of all (Ren et al. 2021, "A simple fix to Mahalanobis").

    The classes share one covariance; both covariances are shrunk (Ledoit and Wolf 2004).
    """

    reads: ClassVar[str] = "features"
    mean: Floats = field(default_factory=_empty)  # [f]
    whitening: Floats = field(default_factory=_empty)  # [f, f]
    means: Floats = field(default_factory=_empty)  # [classes, f]
    within: Floats = field(default_factory=_empty)  # [f, f] whitens what is inside of the classes

    def fit(self, features: Floats, labels: Integers | None = None) -> None:
        rows = _rows(features)
        if labels is None or not (labels >= 0).any():
            raise EinthovenError("relative Mahalanobis needs recordings with a class to be fitted on.")
        self.mean, self.whitening = _shrunk(rows)
        known = labels >= 0
        _, number = np.unique(labels[known], return_inverse=True)
        means = np.stack([rows[known][number == c].mean(axis=0) for c in range(number.max() + 1)])
        self.means = means.astype(np.float32)
        _, self.within = _shrunk(rows[known] - means[number], centred=True)

    def score(self, features: Floats) -> Floats:
        rows = _rows(features, self.mean.shape[-1])
        nearest = np.min([_squared(rows - mean, self.within) for mean in self.means], axis=0)
        return np.asarray(nearest - _squared(rows - self.mean, self.whitening))


@dataclass
class Neighbours:
    """Euclidean distance from the tenth nearest of the recordings fitted on, of features at unit length (Sun 2022)."""

    reads: ClassVar[str] = "features"
    known: Floats = field(default_factory=_empty)  # float32 [n, f], unit length

    def fit(self, features: Floats, labels: Integers | None = None) -> None:
        self.known = unit(np.asarray(_rows(features), np.float32))

    def score(self, features: Floats) -> Floats:
        rows = unit(np.asarray(_rows(features, self.known.shape[-1]), np.float32))
        count = min(NEIGHBOURS, len(self.known))
        if not len(rows):
            return np.empty(0)
        from sklearn.neighbors import NearestNeighbors

        distances, _ = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(self.known).kneighbors(rows)
        return np.asarray(distances[:, -1], np.float64)


@dataclass
class Energy:
    """Minus the log-sum-exp of a linear classifier's logits (Liu et al. 2020, temperature 1). Nothing to fit."""

    reads: ClassVar[str] = "features"
    weight: Floats  # [classes, f]
    bias: Floats  # [classes]

    def fit(self, features: Floats, labels: Integers | None = None) -> None:
        _rows(features, self.weight.shape[-1])

    def score(self, features: Floats) -> Floats:
        rows = _rows(features, self.weight.shape[-1])
        from scipy.special import logsumexp

        return -np.asarray(logsumexp(_logits(rows, self.weight, self.bias), axis=1), np.float64)


@dataclass
class VirtualLogit:
    """ViM (Wang et al. 2022): the part of the features outside of their principal space, as one more logit.

    The origin is where all logits vanish; the principal space has half the dimensions, as in their code for features of
    this width. The virtual logit is scaled to the mean of the largest logits; where that is not positive, as
    one-against-rest logits of rare classes can have it, the score is the energy alone.
    """

    reads: ClassVar[str] = "features"
    weight: Floats  # [classes, f]
    bias: Floats  # [classes]
    origin: Floats = field(default_factory=_empty)  # [f]
    residual: Floats = field(default_factory=_empty)  # [f, r] a basis of what is not principal
    scale: Floats = field(default_factory=_empty)  # [1]

    def fit(self, features: Floats, labels: Integers | None = None) -> None:
        rows = _rows(features, self.weight.shape[-1])
        origin = -np.linalg.pinv(self.weight.astype(np.float64)) @ self.bias
        centred = rows - origin
        _, directions = np.linalg.eigh(centred.T @ centred / len(rows))  # of growing variance
        principal = min(rows.shape) // 2
        residual = directions[:, : rows.shape[1] - principal]
        outside = np.linalg.norm(centred @ residual, axis=1).mean()
        largest = max(0.0, float(_logits(rows, self.weight, self.bias).max(axis=1).mean()))
        self.origin, self.residual = origin.astype(np.float32), residual.astype(np.float32)
        self.scale = np.array([largest / outside if outside > 0 else 0.0], np.float32)

    def score(self, features: Floats) -> Floats:
        rows = _rows(features, self.weight.shape[-1])
        virtual = self.scale * np.linalg.norm((rows - self.origin) @ self.residual, axis=1)
        from scipy.special import logsumexp

        return np.asarray(virtual - logsumexp(_logits(rows, self.weight, self.bias), axis=1))


@dataclass
class MaxCosine:
    """One less the cosine with the nearest prompt: an ECG like nothing that a class is told by. Nothing to fit."""

    reads: ClassVar[str] = "vectors"
    prompts: Floats  # [k, d], any length

    def fit(self, features: Floats, labels: Integers | None = None) -> None:
        _rows(features, self.prompts.shape[-1])

    def score(self, features: Floats) -> Floats:
        rows = unit(_rows(features, self.prompts.shape[-1]))
        return 1 - (rows @ unit(self.prompts).T).max(axis=1).astype(np.float64)


_CLASSES = (Mahalanobis, RelativeMahalanobis, Neighbours, Energy, VirtualLogit, MaxCosine)
DETECTORS: Final[dict[str, type[Any]]] = dict(zip(OUTLIER_DETECTORS, _CLASSES, strict=True))


def _rows(features: Floats, width: int | None = None) -> NDArray[np.float64]:
    rows = np.asarray(features, np.float64)
    if rows.ndim != 2 or (len(rows) < 2 and width is None):
        raise EinthovenError(f"a detector is fitted on features [n, f] of two recordings or more, not {rows.shape}.")
    if width is not None and rows.shape[1] != width:
        raise EinthovenError(f"this detector takes features [n, {width}], not {list(rows.shape)}; was it fitted?")
    if not np.isfinite(rows).all():
        raise EinthovenError("a detector takes finite features; these hold NaN or infinity.")
    return rows


def _shrunk(rows: Floats, centred: bool = False) -> tuple[Floats, Floats]:
    """Mean [f] and whitening [f, f] of a shrunk covariance, in float32: what is saved is what was calibrated."""
    from sklearn.covariance import LedoitWolf

    estimate = LedoitWolf(assume_centered=centred).fit(rows)
    values, directions = np.linalg.eigh(estimate.precision_)
    whitening = directions * np.sqrt(np.maximum(values, 0))
    return np.asarray(estimate.location_, np.float32), whitening.astype(np.float32)


def _squared(centred: Floats, whitening: Floats) -> Floats:
    return np.asarray(((centred @ whitening) ** 2).sum(axis=1), np.float64)


def _logits(rows: Floats, weight: Floats, bias: Floats) -> Floats:
    return rows @ weight.T.astype(np.float64) + bias


@dataclass(frozen=True)
class Calibrated:
    """A fitted detector, and the score above which a recording is called an outlier."""

    detector: Detector
    threshold: float

    @classmethod
    def on(cls, detector: Detector, usual: Floats, false_alarm: float) -> "Calibrated":
        """At most this share of `usual`, scores [n] of recordings the detector was not fitted on, is above."""
        return cls(detector, float(np.quantile(usual, 1 - false_alarm, method="higher")))


@dataclass(frozen=True)
class Outliers:
    """The detectors of a model, and the one that search and the page ask."""

    detectors: Mapping[str, Calibrated]
    chosen: str
    false_alarm: float  # the share of validation recordings that a threshold lets be flagged
    fitted: int  # recordings
    calibrated: int  # recordings

    def scores(self, features: Floats, vectors: Floats) -> Floats:
        """By the chosen detector, relative to its threshold: float64 [n], above 0 an outlier."""
        one = self.detectors[self.chosen]
        return one.detector.score(features if one.detector.reads == "features" else vectors) - one.threshold


def save_outliers(path: Path, found: Outliers) -> None:
    """Arrays as tensors, everything else as JSON in the header."""
    tensors = {
        f"{name}.{part.name}": np.ascontiguousarray(getattr(one.detector, part.name), np.float32)
        for name, one in found.detectors.items()
        for part in dataclasses.fields(one.detector)  # type: ignore[arg-type]
    }
    facts = {name: getattr(found, name) for name in ("chosen", "false_alarm", "fitted", "calibrated")}
    facts |= {"format": FORMAT, "thresholds": {name: one.threshold for name, one in found.detectors.items()}}
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"outliers": json.dumps(facts)})


def load_outliers(directory: Path) -> Outliers:
    """The detectors of a model directory. EinthovenError where it has none, or what is there is not exactly them."""
    path = directory / FILE
    if not path.exists():
        raise EinthovenError(f"{directory} has no outlier detectors. Run `einthoven calibrate {directory} STUDY`.")
    try:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads(file.metadata()["outliers"])
            tensors = {name: np.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
        if facts.pop("format") != FORMAT:
            raise ValueError("another format")
        detectors = {}
        for name, threshold in facts.pop("thresholds").items():
            parts = {part.name: tensors.pop(f"{name}.{part.name}") for part in dataclasses.fields(DETECTORS[name])}
            detectors[name] = Calibrated(DETECTORS[name](**parts), float(threshold))
        if tensors or facts["chosen"] not in detectors:
            raise ValueError("unknown tensors, or the chosen detector is missing")
        return Outliers(detectors, **facts)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise EinthovenError(
            f"{path} is not a readable file of outlier detectors ({error}); run `einthoven calibrate` again."
        ) from None

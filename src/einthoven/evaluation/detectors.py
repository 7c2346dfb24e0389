"""Outlier detectors: how far a recording lies from those a model was trained on, by what the model makes of it.

Features are [n, f], embeddings [n, d], what the first layers say [n, e]; no model is inside. A higher score is more
outlying. Every array that a detector needs is a field of it, so that detectors are saved as tensors and loaded without
fitting (outliers.py).
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from einthoven.config import OUTLIER_DETECTORS
from einthoven.errors import EinthovenError
from einthoven.evaluation.intervals import Floats, Integers
from einthoven.evaluation.retrieval import unit

NEIGHBOURS: Final = 10

QUIET: Final = 1e-3
"""What a mean or deviation of a channel counts at least for, where its logarithm is taken."""
FARTHEST: Final = 8.0
"""Standard deviations that one of them can be away for `Exposure`: beyond, nothing was seen to learn from."""
PENALTY: Final = 0.01
"""Inverse of the ridge penalty of `Exposure`, chosen on a part of PTB-XL's train split (LOG.md, 25 November 2026)."""


def _empty() -> Floats:
    return np.empty(0, np.float32)


class Seen(Protocol):
    """Recordings as a model sees them (embed.Rows)."""

    @property
    def vectors(self) -> Floats: ...  # [n, d]

    @property
    def features(self) -> Floats: ...  # [n, f]

    @property
    def early(self) -> Floats: ...  # [n, e]


class Detector(Protocol):
    """Fitted on what is usual; then scores anything: float64 [n], higher is more outlying."""

    reads: ClassVar[str]  # "features", "early", or "vectors": the embeddings

    def fit(self, features: Floats, labels: Integers | None = None) -> None:
        """features [n, f]; labels [n]: classes from 0, -1 for none. A detector that needs no labels ignores them."""

    def score(self, features: Floats) -> Floats: ...


def read_by(detector: Detector, seen: Seen) -> Floats:
    """What a detector reads of recordings as a model sees them."""
    read: Floats = getattr(seen, detector.reads)
    return read


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
class EarlyMahalanobis:
    """Mahalanobis distance of the logarithms of what the first layers say, each first scaled to unit variance.

    Lee et al. 2018, section 2.2, take means of all layers; of ours the first tell corruption best. Logarithms, because
    a signal may be as outlying by what it lacks as by what it has too much of.
    """

    reads: ClassVar[str] = "early"
    centre: Floats = field(default_factory=_empty)  # [e]
    scale: Floats = field(default_factory=_empty)  # [e]
    mean: Floats = field(default_factory=_empty)  # [e]
    whitening: Floats = field(default_factory=_empty)  # [e, e]

    def fit(self, features: Floats, labels: Integers | None = None) -> None:
        self.centre, self.scale = _spread(_logarithms(features))
        self.mean, self.whitening = _shrunk(self._standard(features))

    def score(self, features: Floats) -> Floats:
        return _squared(self._standard(features) - self.mean, self.whitening)

    def _standard(self, features: Floats) -> Floats:
        return (_logarithms(features, self.centre.shape[-1]) - self.centre) / self.scale


@dataclass
class Exposure(EarlyMahalanobis):
    """The same distance, and the logit of a linear classifier of recordings made bad on purpose: their sum.

    Outlier exposure (Hendrycks et al. 2019, "Deep anomaly detection with outlier exposure") with the encoder left as it
    is. The classifier knows the corruptions that it was shown, the distance also what nobody thought of. Both, the
    distance as logarithm, count in standard deviations of the recordings fitted on.
    """

    weight: Floats = field(default_factory=_empty)  # [e]
    bias: Floats = field(default_factory=_empty)  # [1]
    usual: Floats = field(default_factory=_empty)  # [2, 2]: mean and deviation, of logit and of distance

    def fit(self, features: Floats, labels: Integers | None = None) -> None:
        """`labels` [n]: 1 for a corrupted recording, 0 for a usual one."""
        if labels is None or set(np.unique(labels)) != {0, 1}:
            raise EinthovenError("outlier exposure is fitted on usual recordings, labels 0, and corrupted ones, 1.")
        super().fit(features[labels == 0])
        from sklearn.linear_model import LogisticRegression

        fitted = LogisticRegression(C=PENALTY, max_iter=1000).fit(self._near(features), labels)
        self.weight, self.bias = fitted.coef_[0].astype(np.float32), fitted.intercept_.astype(np.float32)
        both = self._both(features[labels == 0])
        self.usual = np.stack(_spread(both.T))

    def score(self, features: Floats) -> Floats:
        mean, deviation = self.usual.astype(np.float64)
        return np.asarray(((self._both(features) - mean[:, None]) / deviation[:, None]).sum(axis=0))

    def _both(self, features: Floats) -> Floats:
        logit = self._near(features) @ self.weight.astype(np.float64) + self.bias
        return np.stack([logit, np.log(np.maximum(super().score(features), QUIET))])

    def _near(self, features: Floats) -> Floats:
        return np.clip(self._standard(features), -FARTHEST, FARTHEST)


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
        return -_log_sum_exp(_logits(rows, self.weight, self.bias))


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
        return np.asarray(virtual - _log_sum_exp(_logits(rows, self.weight, self.bias)))


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


_CLASSES = (Exposure, EarlyMahalanobis, Mahalanobis, RelativeMahalanobis, Neighbours, Energy, VirtualLogit, MaxCosine)
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


def _logarithms(features: Floats, width: int | None = None) -> NDArray[np.float64]:
    return np.log(np.maximum(_rows(features, width), QUIET))


def _spread(rows: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each column; a column that never changes has deviation 1."""
    deviation = rows.std(axis=0)
    return rows.mean(axis=0).astype(np.float32), np.where(deviation > 0, deviation, 1).astype(np.float32)


def _shrunk(rows: Floats, centred: bool = False) -> tuple[Floats, Floats]:
    """Mean [f] and whitening [f, f] of a shrunk covariance, in float32: what is saved is what was calibrated."""
    from sklearn.covariance import LedoitWolf

    estimate = LedoitWolf(assume_centered=centred).fit(rows)
    values, directions = np.linalg.eigh(estimate.precision_)
    whitening = directions * np.sqrt(np.maximum(values, 0))
    return np.asarray(estimate.location_, np.float32), whitening.astype(np.float32)


def _squared(centred: Floats, whitening: Floats) -> Floats:
    return np.asarray(((centred @ whitening) ** 2).sum(axis=1), np.float64)


def _log_sum_exp(logits: Floats) -> Floats:
    from scipy.special import logsumexp

    return np.asarray(logsumexp(logits, axis=1), np.float64)


def _logits(rows: Floats, weight: Floats, bias: Floats) -> Floats:
    return rows @ weight.T.astype(np.float64) + bias

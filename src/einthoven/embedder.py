"""The ECG encoder of a saved model as a transformer of scikit-learn.

>>> from sklearn.linear_model import LogisticRegression
>>> from sklearn.pipeline import make_pipeline
>>> pipeline = make_pipeline(EcgEmbedder("MODEL", sampling_rate=500), LogisticRegression())
>>> pipeline.fit(recordings, labels).predict_proba(others)  # doctest: +SKIP
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, TransformerMixin

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.hub import directory_of
from einthoven.model import STRIPS, Model
from einthoven.model_directory import load
from einthoven.waveforms.strips import Floats, from_millivolts

OUTPUTS: Final = ("features", "coarse", "fine")


class EcgEmbedder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """ECGs in millivolts -> embeddings. Learns nothing: `fit` only tells wrong settings.

    Holds the place of the model, not the model: copies and pickles are small, and the weights are read at first use,
    once in a process.

    Args:
        model: a model directory, or an id on the Hub, as `einthoven.load` takes it.
        sampling_rate: hertz of the recordings.
        leads: names of their leads, in their order; any subset of the twelve, any case.
        output: "features", the encoder's before any head, which linear models read best; or the unit vectors of a
            space: "coarse", where text is, or "fine", where codes are.
        batch: recordings embedded at a time.
    """

    def __init__(
        self,
        model: str | Path,
        sampling_rate: float = 500,
        leads: Sequence[str] = schema.LEADS,
        output: str = "features",
        batch: int = 64,
    ) -> None:
        self.model = model
        self.sampling_rate = sampling_rate
        self.leads = leads
        self.output = output
        self.batch = batch

    def fit(self, X: Iterable[npt.ArrayLike], y: Any = None) -> "EcgEmbedder":  # noqa: N803
        """Check the settings against the model; nothing is learnt of `X` or `y`."""
        self._width()
        return self

    def transform(self, X: Iterable[npt.ArrayLike]) -> npt.NDArray[np.float32]:  # noqa: N803
        """Embed recordings.

        Args:
            X: recordings [leads, samples] in millivolts, of any lengths; NaN where nothing was recorded. An array
                [n, leads, samples] is such a list.

        Returns:
            float32 [n, d].

        Raises:
            EinthovenError: a recording of another shape, an unknown lead, values that are no millivolts.
        """
        out = np.empty((len(recordings := _recordings(X)), self._width()), np.float32)
        model = _model(self.model)
        order = sorted(range(len(recordings)), key=lambda i: recordings[i].shape)
        for _, alike in groupby(order, key=lambda i: recordings[i].shape):  # of one shape, so that they stack
            places = list(alike)
            for start in range(0, len(places), self.batch):
                part = places[start : start + self.batch]
                out[part] = self._embed(model, np.stack([recordings[i] for i in part]))
        return out

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """`features0`, `features1` …, or `coarse0` …, `fine0` …: object [d]. `input_features` is not looked at."""
        return np.array([f"{self.output}{i}" for i in range(self._width())], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        tags.input_tags.allow_nan = True
        return tags

    def _embed(self, model: Model, signal: Floats) -> npt.NDArray[np.float32]:
        config = model.ecg_config
        strips = from_millivolts(
            signal, self.sampling_rate, self.leads, config.sampling_rate, config.strip_samples, STRIPS
        )
        seen = model.encode_strips(torch.from_numpy(strips))
        vectors = seen.features if self.output == "features" else seen.vectors(self.output)
        return vectors.float().cpu().numpy()

    def _width(self) -> int:
        """The dimension of the output, found on an empty strip, so that settings are tried before recordings are."""
        if self.output not in OUTPUTS:
            raise EinthovenError(f"EcgEmbedder: output {self.output!r}; expected one of {', '.join(OUTPUTS)}.")
        if self.batch < 1:
            raise EinthovenError(f"EcgEmbedder: batch {self.batch}; expected at least 1.")
        return self._embed(_model(self.model), np.zeros((1, len(self.leads), 1), np.float32)).shape[1]


def _recordings(given: Iterable[npt.ArrayLike]) -> list[Floats]:
    found = [np.asarray(one, np.float32) for one in given]
    for number, one in enumerate(found):
        if one.ndim != 2:
            raise EinthovenError(
                f"EcgEmbedder: recording {number} is {one.shape}; expected [leads, samples] in millivolts. A single "
                "recording goes into a list."
            )
    return found


def _model(place: str | Path) -> Model:
    path = _found(place)
    marks = [(file.stat().st_mtime_ns, file.stat().st_size) for file in sorted(path.glob("*.*")) if file.is_file()]
    return _loaded(path, tuple(marks))


@lru_cache
def _found(place: str | Path) -> Path:
    """The Hub is asked once in a process."""
    return directory_of(place)


@lru_cache(maxsize=2)
def _loaded(path: Path, marks: tuple[tuple[int, int], ...]) -> Model:
    """A model of this process, loaded anew where its files have changed: a grid search copies its transformer often."""
    return load(path)

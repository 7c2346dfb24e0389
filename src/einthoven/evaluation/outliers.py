"""The outlier detectors of a model, calibrated and kept with it as `outliers.safetensors`."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from einthoven.errors import EinthovenError
from einthoven.evaluation.detectors import DETECTORS, Detector, Seen, read_by
from einthoven.evaluation.intervals import Floats
from einthoven.study import atomic

FILE: Final = "outliers.safetensors"
FORMAT: Final = 2


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

    def scores(self, seen: Seen) -> Floats:
        """By the chosen detector, relative to its threshold: float64 [n], above 0 an outlier."""
        one = self.detectors[self.chosen]
        return one.detector.score(read_by(one.detector, seen)) - one.threshold


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

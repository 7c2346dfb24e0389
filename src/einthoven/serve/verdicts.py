"""What a model says of an ECG: by prompts, by probes, and whether it is unlike what the model was trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import expit

from einthoven.embed import Rows, matrix, table_of
from einthoven.evaluation.outliers import Outliers
from einthoven.evaluation.retrieval import unit
from einthoven.evaluation.transfer import Probe
from einthoven.evaluation.zeroshot import PROMPTS, contrasted, prompt_scores, smooth_maximum
from einthoven.model import Model
from einthoven.search.archive import Archive
from einthoven.serve.bodies import Finding, FindingsAnswer, Outlying, Probed, ZeroShot
from einthoven.serve.encoding import Seen
from einthoven.study import read_table
from einthoven.training.probes import FILE, load_probes

REWORDINGS: Final = 200
"""Times that the prompts of each class are drawn anew."""
COMPARED: Final = 10_000
"""Recordings of the study that a zero-shot score is held against; of a larger study every n-th."""


@dataclass(frozen=True)
class Verdicts:
    """Only what the model has: no prompts without text, no probes where none were fitted."""

    prompts: dict[str, NDArray[np.float32]]  # class -> unit vectors [k, d]
    usual: NDArray[np.float32]  # scores of the study's recordings, sorted [n, classes of `prompts`]
    classes: tuple[str, ...]  # of the probes
    whole: Probe | None  # on all labels
    parts: tuple[Probe, ...]  # on the labels of random parts of the patients, all parts equally large
    outliers: Outliers | None
    trained_on: str | None

    @classmethod
    def of(cls, archive: Archive) -> "Verdicts":
        """Of an archive's model, whose directory holds its probes."""
        model = archive.model
        prompts = _prompts(model)
        usual = np.empty((0, len(prompts)), np.float32)
        if prompts:
            rows = read_table(table_of(archive.directory), archive.study, ["embedding"])
            step = -(-len(rows) // COMPARED)
            chosen = rows.take(pa.array(np.arange(0, len(rows), step))) if len(rows) else rows
            usual = np.sort(prompt_scores(matrix(chosen["embedding"]), prompts), axis=0)
        classes, series = load_probes(archive.directory / FILE) or ((), {})
        probes = series.get("model", [])
        whole = max(probes, key=lambda probe: probe.fraction, default=None)
        smaller = [probe.fraction for probe in probes if whole is not None and probe.fraction < whole.fraction]
        parts = tuple(probe for probe in probes if smaller and probe.fraction == max(smaller))
        return cls(prompts, usual, classes, whole, parts, archive.outliers, model.card.get("data_kind"))

    def on(self, seen: Seen) -> FindingsAnswer:
        """What is said of one ECG."""
        prompted, probed = self._by_prompts(seen), self._by_probes(seen)
        names = [*self.prompts, *(name for name in self.classes if name not in self.prompts)]
        said = [Finding(name=name, zero_shot=prompted.get(name), probe=probed.get(name)) for name in names]
        return FindingsAnswer(trained_on=self.trained_on, findings=said, outlier=self._outlying(seen))

    def _by_prompts(self, seen: Seen) -> dict[str, ZeroShot]:
        if not self.prompts:
            return {}
        vector = seen.vectors["coarse"][None]
        scores = prompt_scores(vector, self.prompts)[0]
        low, high = np.percentile(reworded(vector, self.prompts), (2.5, 97.5), axis=0)
        return {
            name: ZeroShot(
                score=float(scores[column]),
                low=float(low[column]),
                high=float(high[column]),
                higher_than=_share_below(self.usual[:, column], scores[column]),
            )
            for column, name in enumerate(self.prompts)
        }

    def _by_probes(self, seen: Seen) -> dict[str, Probed]:
        if self.whole is None:
            return {}
        said = {}
        for place, name in enumerate(self.classes):
            if name in self.whole.unlearnt:
                continue
            of_parts = [_probability(part, seen, place) for part in self.parts if name not in part.unlearnt]
            value = _probability(self.whole, seen, place)
            low, high = (min(value, *of_parts), max(value, *of_parts)) if of_parts else (None, None)
            said[name] = Probed(probability=value, low=low, high=high)
        return said

    def _outlying(self, seen: Seen) -> Outlying | None:
        if self.outliers is None:
            return None
        rows = Rows(seen.vector[None], seen.features[None], seen.early[None], fine=None)
        score = float(self.outliers.scores(rows)[0])
        return Outlying(score=score, outlier=score > 0)


def _prompts(model: Model) -> dict[str, NDArray[np.float32]]:
    """The prompts of each class that the model was not kept from."""
    if model.text is None:
        return {}
    told = {name: of for name, of in PROMPTS.items() if name != model.card.get("without_class")}
    return {name: model.encode_text([text for texts in of.values() for text in texts]) for name, of in told.items()}


def reworded(
    vector: NDArray[np.float32], prompts: Mapping[str, NDArray[np.float32]], times: int = REWORDINGS, seed: int = 0
) -> NDArray[np.float32]:
    """Scores of one ECG [1, d] by prompts drawn anew within each class, with replacement: [times, classes]."""
    drawn = _drawn(tuple(len(of) for of in prompts.values()), times, seed)
    cosines = ((unit(of) @ unit(vector)[0])[rows] for of, rows in zip(prompts.values(), drawn, strict=True))
    scores = np.stack([smooth_maximum(each) for each in cosines], axis=1)
    return contrasted(scores, list(prompts)) if len(prompts) > 1 else scores


@cache
def _drawn(sizes: tuple[int, ...], times: int, seed: int) -> tuple[NDArray[np.int64], ...]:
    """Rows drawn anew from each class of so many prompts, [times, size] each: the same for every ECG."""
    rng = np.random.default_rng(seed)
    draws = [[rng.integers(size, size=size) for size in sizes] for _ in range(times)]
    return tuple(np.stack(rows) for rows in zip(*draws, strict=True))


def _share_below(sorted_scores: NDArray[np.float32], score: float) -> float | None:
    """Per cent of sorted scores [n] below one; None of none."""
    return 100 * float(np.searchsorted(sorted_scores, score)) / len(sorted_scores) if len(sorted_scores) else None


def _probability(probe: Probe, seen: Seen, place: int) -> float:
    return float(expit(probe.scores(seen.features[None])[0, place]))

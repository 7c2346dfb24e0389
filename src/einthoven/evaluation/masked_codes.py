"""What a masked-code model is compared with: how often codes come, and which come together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einthoven.evaluation.intervals import bootstrap

Ints = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]

SMOOTHING = 0.5
"""Windows added to those with two codes, twice that to those with one of them: a pair never seen is no proof."""


@dataclass(frozen=True)
class Counts:
    """How often each of v tokens comes in windows, and with which."""

    codes: Floats  # [v] occurrences
    windows: Floats  # [v] windows that have it
    together: Floats  # float32 [v, v] windows that have both; on the diagonal those that have it at least twice
    kinds: Bools  # [k, v] which tokens were seen as which kind


def count(windows: Iterable[tuple[Ints, Ints]], tokens: int, kinds: int) -> Counts:
    """Count tokens and kinds, each [n], of windows. The table of pairs is dense: 4 tokens² bytes."""
    codes, having, together = np.zeros(tokens), np.zeros(tokens), np.zeros((tokens, tokens), np.float32)
    of_kind = np.zeros((kinds, tokens), np.bool_)
    for inside, kind in windows:
        there, times = np.unique(inside, return_counts=True)
        codes[there] += times
        having[there] += 1
        together[np.ix_(there, there)] += 1
        together[there, there] -= times < 2
        of_kind[kind, inside] = True
    return Counts(codes, having, together, of_kind)


def frequency(counts: Counts) -> Floats:
    """Log-probability [v] of each token whatever else is in the window; -inf for one never seen."""
    with np.errstate(divide="ignore"):
        return np.log(counts.codes / counts.codes.sum())


def co_occurrence(counts: Counts) -> Floats:
    """Evidence [v, v]: entry (c, o) is log P(o is in the rest of a window | the hidden code is c), smoothed.

    With `frequency` as the prior, and a sum over the codes seen, this is naive Bayes.
    """
    return np.log((counts.together + SMOOTHING) / (counts.windows + 2 * SMOOTHING)[:, None])


def scores(prior: Floats, evidence: Floats, seen: Ints, damping: float) -> Floats:
    """Scores [v] of the hidden code given the different tokens `seen` [m] in the rest of its window.

    The evidence is divided by m ** `damping`: 0 is naive Bayes, which takes codes as independent though they are not;
    1 the mean, which does not grow more certain with more codes.
    """
    different = np.unique(seen)
    if not len(different):
        return prior
    return np.asarray(prior + evidence[:, different].sum(axis=1) / len(different) ** damping)


def rank(score: Floats, answer: int, among: Bools | None = None) -> int:
    """The place of `answer` from 1 by `score` [v], of ties the lower token first; `among` [v]: only these, and it."""
    own = score[answer]
    before = (score > own) | ((score == own) & (np.arange(len(score)) < answer))
    return 1 + int((before if among is None else before & among).sum())


def hits(
    ranks: Sequence[int] | Ints, subjects: Ints, resamples: int, seed: int, which: Bools | None = None
) -> dict[str, Any]:
    """Top-1 and top-5 accuracy over hidden codes with ranks [n], with patient-bootstrap 95 % intervals.

    `which` [n]: only these codes. Every code counts once, so a patient with many weighs more.
    """
    kept = np.ones(len(subjects), np.bool_) if which is None else which
    if not kept.any():
        return {"codes": 0}
    patients, patient = np.unique(subjects[kept], return_inverse=True)
    codes = np.bincount(patient).astype(np.float64)
    told = {f"top{k}": np.bincount(patient, np.asarray(ranks)[kept] <= k) for k in (1, 5)}

    def accuracies(w: Floats) -> dict[str, Floats]:
        return {name: (w @ found) / (w @ codes) for name, found in told.items()}

    return {"codes": int(codes.sum()), **bootstrap(patients, accuracies, resamples, seed)}


def advantage(ranks: Ints, others: Ints, subjects: Ints, resamples: int, seed: int) -> dict[str, dict[str, float]]:
    """Top-1 and top-5 accuracy with `ranks` [n] minus that with `others` [n], on the same resamples of patients."""
    patients, patient = np.unique(subjects, return_inverse=True)
    codes = np.bincount(patient).astype(np.float64)
    gains = {f"top{k}": np.bincount(patient, (ranks <= k) * 1.0 - (others <= k)) for k in (1, 5)}

    def differences(w: Floats) -> dict[str, Floats]:
        return {name: (w @ gain) / (w @ codes) for name, gain in gains.items()}

    return bootstrap(patients, differences, resamples, seed)

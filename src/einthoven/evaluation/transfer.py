"""Linear probe: what a linear classifier reads from frozen features, given few or many labels.

Protocol. Features are standardised on the labelled subset; one logistic regression per class (one against rest). A
label fraction below 1 is a fraction of the training *patients*, all their recordings included: labelling budgets are
spent on patients, and recordings of one patient are nearly copies. `subsets` seeded random subsets are drawn; a smaller
fraction's subset lies inside the larger one's of the same number.

The regularisation is chosen inside the labelled subset by cross-validation over its patients, one value for all
classes, by macro AUROC (the stronger on a tie). Neither the validation nor the evaluation split is looked at. A class
without a positive or a negative in a fold is left out of that fold; without one in the whole subset it cannot be
learnt, scores 0 everywhere (AUROC 0.5) and is named in `unlearnt`: leaving it out would make small budgets look better.

The solver runs in one thread: its products are so small that threads waiting for each other made it four times slower
where the cores were shared, and one thread gives the same numbers on any machine.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from einthoven.errors import EinthovenError
from einthoven.evaluation.discrimination import discrimination
from einthoven.evaluation.intervals import Floats, Integers

GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse regularisation strengths tried (scikit-learn's C)."""

FALLBACK = 1e-3
"""C where a subset is too small for any fold to say."""

FOLDS = 3
ITERATIONS, TOLERANCE = 50, 2e-3
"""Of L-BFGS. Weakly regularised fits stop there, before convergence: more costs time and changes no AUROC."""

Labels = NDArray[np.bool_]


@dataclass(frozen=True)
class Probe:
    """A fitted linear probe. Its scores are features @ weight.T + bias: standardisation is folded in."""

    weight: Floats  # float32 [classes, f]
    bias: Floats  # float32 [classes]
    fraction: float  # of the training patients
    subset: int  # number of the subset, from 0
    recordings: int  # labelled recordings it was fitted on
    patients: int
    strength: float  # the chosen C
    unlearnt: tuple[str, ...]  # classes the subset held no positive or no negative of

    def scores(self, features: Floats) -> Floats:
        """features [n, f] -> scores float64 [n, classes]."""
        return np.asarray(features, np.float64) @ self.weight.T.astype(np.float64) + self.bias

    def only(self, classes: list[int]) -> "Probe":
        """The probe of some of its classes, by their places."""
        return replace(self, weight=self.weight[classes], bias=self.bias[classes])

    def facts(self) -> dict[str, Any]:
        """Everything but the arrays, as JSON can hold it; `of` inverts it."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("weight", "bias")}

    @classmethod
    def of(cls, weight: Floats, bias: Floats, facts: Mapping[str, Any]) -> "Probe":
        return cls(weight, bias, **{**facts, "unlearnt": tuple(facts["unlearnt"])})


def fit_probes(
    features: Floats,
    labels: Labels,
    subjects: Integers,
    classes: tuple[str, ...],
    *,
    fractions: tuple[float, ...] = (0.01, 0.1, 1.0),
    subsets: int = 5,
    seed: int = 0,
) -> list[Probe]:
    """A probe for each label fraction and subset: features [n, f], labels bool [n, classes], subjects [n]."""
    if len(features) == 0:
        raise EinthovenError("A linear probe needs labelled recordings in the training split.")
    probes = []
    for fraction in fractions:
        for subset in range(1 if fraction >= 1 else subsets):
            chosen = patient_subset(subjects, fraction, seed, subset)
            with threadpool_limits(1):
                strength, weight, bias = fit_probe(features[chosen], labels[chosen], subjects[chosen], seed)
            unlearnt = tuple(name for c, name in enumerate(classes) if not _mixed(labels[chosen, c]))
            size = int(chosen.sum()), len(np.unique(subjects[chosen]))
            probes.append(Probe(weight, bias, fraction, subset, *size, strength, unlearnt))
    return probes


def probe_metrics(
    probes: Sequence[Probe],
    features: Floats,
    labels: Labels,
    subjects: Integers,
    classes: tuple[str, ...],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """AUROC and AUPRC of fitted probes on an evaluation split: features [m, f], labels bool [m, classes], subjects [m].

    Returns {"fractions": {"0.01": {what `discrimination` returns, "subsets": [{"macro": float, "recordings": int,
    "patients": int, "C": float, "unlearnt": [names]}]}, …}}. The macro value is the mean over subsets, taken inside
    each resample: its interval covers the evaluation patients, not the draw of the subset, which the subsets' own
    values show.
    """
    if len(features) == 0:
        raise EinthovenError("A linear probe needs labelled recordings in the evaluation split.")
    result = {}
    for fraction in dict.fromkeys(probe.fraction for probe in probes):
        same = [probe for probe in probes if probe.fraction == fraction]
        scores = np.stack([probe.scores(features) for probe in same])
        runs = []
        for probe, found in zip(same, scores, strict=True):
            macro = discrimination(labels, found, classes, subjects, 0, seed)["macro"]["value"]
            counts = {"recordings": probe.recordings, "patients": probe.patients}
            runs.append({"macro": macro, **counts, "C": probe.strength, "unlearnt": list(probe.unlearnt)})
        means = discrimination(labels, scores, classes, subjects, resamples, seed)
        result[f"{fraction:g}"] = {**means, "subsets": runs}
    return {"fractions": result}


def patient_subset(subjects: Integers, fraction: float, seed: int, subset: int) -> NDArray[np.bool_]:
    """Mask [n] of the recordings of a random `fraction` of the patients (at least 2); nested as the fraction grows."""
    if not 0 < fraction <= 1:
        raise EinthovenError(f"Label fractions lie above 0 and up to 1, not at {fraction}.")
    patients = np.unique(subjects)
    shuffled = np.random.default_rng([seed, subset]).permutation(patients)
    return np.isin(subjects, shuffled[: max(2, round(fraction * len(patients)))])


def fit_probe(features: Floats, labels: Labels, subjects: Integers, seed: int) -> tuple[float, Floats, Floats]:
    """Choose C by cross-validation over patients and fit on all rows: C, weight [classes, f] and bias [classes]."""
    strength = choose_strength(features, labels, subjects, seed)
    scaler = StandardScaler().fit(np.asarray(features, np.float32))
    ((weight, bias),) = _path(scaler.transform(np.asarray(features, np.float32)), labels, (strength,))
    folded = weight / scaler.scale_
    return strength, folded.astype(np.float32), (bias - folded @ scaler.mean_).astype(np.float32)


def choose_strength(features: Floats, labels: Labels, subjects: Integers, seed: int) -> float:
    """The C of `GRID` with the best macro AUROC, mean over folds of patients; `FALLBACK` if no fold can tell."""
    folds = min(FOLDS, len(np.unique(subjects)))
    values: list[list[float]] = [[] for _ in GRID]
    if folds >= 2:
        splitter = GroupKFold(folds, shuffle=True, random_state=seed)
        for train, held_out in splitter.split(features, groups=subjects):
            scaler = StandardScaler().fit(np.asarray(features[train], np.float32))
            inside, outside = (scaler.transform(np.asarray(features[f], np.float32)) for f in (train, held_out))
            usable = [c for c in range(labels.shape[1]) if _mixed(labels[train, c]) and _mixed(labels[held_out, c])]
            truth = labels[held_out][:, usable]
            for found, (weight, bias) in zip(values, _path(inside, labels[train][:, usable], GRID), strict=True):
                scores = outside @ weight.T + bias
                found.extend(float(roc_auc_score(truth[:, c], scores[:, c])) for c in range(len(usable)))
    if not values[0]:
        return FALLBACK
    return GRID[int(np.argmax([np.mean(found) for found in values]))]


def _mixed(labels: Labels) -> bool:
    return bool(labels.any() and not labels.all())


def _path(features: Floats, labels: Labels, strengths: tuple[float, ...]) -> list[tuple[Floats, Floats]]:
    """Weight [classes, f] and bias [classes] for each strength; each fit starts where the last ended."""
    classes, size = labels.shape[1], features.shape[1]
    result: list[tuple[Floats, Floats]] = [(np.zeros((classes, size)), np.zeros(classes)) for _ in strengths]
    for c in range(classes):
        if not _mixed(labels[:, c]):
            continue
        model = LogisticRegression(solver="lbfgs", max_iter=ITERATIONS, tol=TOLERANCE, warm_start=True)
        for (weight, bias), strength in zip(result, strengths, strict=True):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # ITERATIONS is a choice, see there
                model.set_params(C=strength).fit(features, labels[:, c])
            weight[c], bias[c] = model.coef_[0], model.intercept_[0]
    return result

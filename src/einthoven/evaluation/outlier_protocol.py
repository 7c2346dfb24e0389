"""How well a model's detectors tell corrupted recordings, and recordings of other studies, from those of a split.

All models score the same recordings: the trained one with the detectors that are kept with it; the untrained control,
and a classifier to compare with, with detectors fitted on their own features of the study's train split (left out where
the study has none).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from einthoven.classifier import Classifier, load_classifier
from einthoven.config import Evaluation, Space, TextEncoder
from einthoven.embed import Signals, embed_rows
from einthoven.errors import EinthovenError
from einthoven.evaluation.detectors import Detector, read_by
from einthoven.evaluation.discrimination import weighted_auroc
from einthoven.evaluation.intervals import Floats, Integers, bootstrap
from einthoven.evaluation.labels import of_class
from einthoven.evaluation.outlier_page import write_page
from einthoven.evaluation.outliers import Outliers, load_outliers
from einthoven.evaluation.transfer import Probe
from einthoven.model import Model
from einthoven.model_directory import load
from einthoven.study import data_kind
from einthoven.training.outliers import (
    MOST,
    common_sets,
    corrupted,
    exposure,
    fit_detectors,
    sample,
    whole_probe,
)
from einthoven.waveforms.corruptions import CORRUPTIONS, CorruptedStore, possible
from einthoven.waveforms.store import Store

MEASURED: Final = 500
"""Recordings of a split or of another study that are scored; of more a sample."""

PASSING: Final = 0.95
"""Share of the usual recordings that pass, where the share of passing outliers is measured (FPR@95)."""

MEASURES: Final = ("auroc", "fpr95")

WITHOUT: Final = "exposure without "
"""Before the name of a corruption: the detector that was not shown it."""

Scores = dict[str, dict[str, Floats]]
"""Series -> detector -> scores [n]."""


@dataclass(frozen=True)
class Case:
    """Recordings that are outliers in one way."""

    kind: str  # "corruption", "class" or "study"
    name: str
    severity: int
    level: str
    data_kind: str
    signals: Signals
    rows: Integers
    subjects: Integers | None  # None: those of the usual recordings, in their order


@dataclass(frozen=True)
class Seer:
    """A model and its detectors."""

    model: Model
    detectors: Mapping[str, Detector]

    def scores(self, signals: Signals, rows: Integers) -> dict[str, Floats]:
        seen = embed_rows(self.model, signals, rows, lambda done, total: None)
        return {name: one.score(read_by(one, seen)) for name, one in self.detectors.items()}


def measure_outliers(
    directory: Path,
    study: Path,
    split: str,
    others: Sequence[Path],
    out: Path,
    options: Evaluation,
    command: str,
    progress: Callable[[int, int, str], None],
    against: Path | None = None,
) -> dict[str, Any]:
    """Write `outliers.json` and `outliers.html` to `out`; return counts. `against`: a classifier's directory."""
    kept, model, store = load_outliers(directory), load(directory), Store.open(study)
    unseen = model.card.get("without_class")
    usual = sample(study, split, MEASURED, options.seed, unseen)
    if len(usual) < 2:
        raise EinthovenError(
            f"{study}: the {split} split has not two recordings with a signal. Choose another --split."
        )
    rows, subjects = usual["row"].to_numpy(), usual["subject_id"].to_numpy()
    cases = [*_corrupted(store, rows, model, study, options.seed), *_other_studies(others, options.seed)]
    cases += [] if unseen is None else [_unseen(store, study, split, unseen, options.seed)]
    detectors = {name: one.detector for name, one in kept.detectors.items()}
    beside: dict[str, Seer] = {}
    train = sample(study, "train", MOST, options.seed, unseen)
    if len(train) >= 2:
        detectors |= _without_one(model, store, train["row"].to_numpy(), options.seed, progress)
        fitted = partial(_fitted, store=store, study=study, train=train, options=options, progress=progress)
        beside["random_init"] = fitted(model.untrained(options.seed), whole_probe(directory, "random_init"))
        if against is not None:
            beside["against"] = fitted(_encoder_of(load_classifier(against)), None)
    seers = {"model": Seer(model, detectors), **beside}
    base: Scores = {series: seer.scores(store, rows) for series, seer in seers.items()}
    found: list[Scores] = []
    for number, case in enumerate(cases, start=1):
        found.append({series: seer.scores(case.signals, case.rows) for series, seer in seers.items()})
        progress(number, len(cases), f"cases: {case.name}, {case.level}")
    unforeseen = _unforeseen(cases, base, found)
    result: dict[str, Any] = {
        "data_kind": data_kind(study),
        "trained_on": model.card.get("data_kind"),
        "command": command,
        "seed": options.seed,
        "split": split,
        "counts": {"recordings": len(rows), "patients": len(np.unique(subjects)), "fitted_on": kept.fitted},
        "detector": kept.chosen,
        "detectors": list(kept.detectors),
        "false_alarm": kept.false_alarm,
        "not_possible": [name for name in CORRUPTIONS if name not in {case.name for case in cases}],
        "against": None if against is None else against.resolve().name,
        "rows": compare(cases, base, found, subjects, kept, options, unforeseen),
    }
    histograms = {  # of each case only the worst
        case.name: scores["model"][kept.chosen] for case, scores in zip(cases, found, strict=True)
    }
    write_page(out, result, base["model"][kept.chosen], histograms, kept.detectors[kept.chosen].threshold)
    return {**result["counts"], "cases": len(cases)}


def _fitted(
    model: Model,
    probe: Probe | None,
    *,
    store: Store,
    study: Path,
    train: pa.Table,
    options: Evaluation,
    progress: Callable[[int, int, str], None],
) -> Seer:
    """A model that has no detectors of its own, with some fitted on what it makes of the train split."""
    rows = train["row"].to_numpy()
    seen = embed_rows(model, store, rows, lambda i, n: progress(i, n, "train features of another encoder"))
    exposed = corrupted(model, store, rows, options.seed, progress)
    return Seer(model, fit_detectors(model, seen, common_sets(study, train), probe, exposed))


def _encoder_of(classifier: Classifier) -> Model:
    """The encoder of a classifier alone, as a model."""
    model = Model.create(classifier.ecg_config, TextEncoder(), Space(modalities=("ecg",)))
    model.ecg.load_state_dict(classifier.ecg.state_dict())
    return model.to(classifier.device).eval()


def _without_one(
    model: Model, store: Store, rows: Integers, seed: int, progress: Callable[[int, int, str], None]
) -> dict[str, Detector]:
    """Outlier exposure that one corruption after the other was kept from: how it does on what nobody thought of."""
    usual = embed_rows(model, store, rows, lambda i, n: progress(i, n, "train features")).early
    exposed = corrupted(model, store, rows, seed, progress)
    return {WITHOUT + name: exposure(usual, exposed, name) for name in exposed} if len(exposed) > 1 else {}


def _unforeseen(cases: Sequence[Case], base: Scores, found: Sequence[Scores]) -> list[tuple[Floats, Floats]]:
    """Of each corruption the scores of usual and of corrupted recordings by the detector that was kept from it.

    They are taken out of `base` and `found`.
    """
    usual = {name: base["model"].pop(name) for name in list(base["model"]) if name.startswith(WITHOUT)}
    kept_from = [{name: scores["model"].pop(name) for name in usual} for scores in found]
    names = [WITHOUT + case.name for case in cases]
    return [
        (usual[name], scores[name])
        for case, name, scores in zip(cases, names, kept_from, strict=True)
        if case.subjects is None and usual
    ]


def _corrupted(store: Store, rows: Integers, model: Model, study: Path, seed: int) -> Iterator[Case]:
    """Every corruption that the model could see, at every severity: what its rate cannot carry is left out."""
    rate = min(store.sampling_rate, model.ecg_config.sampling_rate)
    for name, corruption in CORRUPTIONS.items():
        for severity, level in enumerate(corruption.levels if possible(name, rate) else (), start=1):
            signals = CorruptedStore(store, name, severity, seed)
            shown = f"{level:g} {corruption.unit}"
            yield Case("corruption", name, severity, shown, data_kind(study), signals, rows, None)


def _other_studies(others: Sequence[Path], seed: int) -> Iterator[Case]:
    names = [other.resolve().name for other in others]
    for name, other in zip(names, others, strict=True):
        if names.count(name) > 1:
            raise EinthovenError(f"--other: two studies are named {name}; rename one, the table tells them by name.")
        found = sample(other, None, MEASURED, seed)
        if not len(found):
            raise EinthovenError(f"--other {other}: no recording with a signal.")
        subjects = found["subject_id"].to_numpy()
        yield Case("study", name, 1, "", data_kind(other), Store.open(other), found["row"].to_numpy(), subjects)


def _unseen(store: Store, study: Path, split: str, name: str, seed: int) -> Case:
    """The recordings of the super-class that the model was trained without."""
    everything = sample(study, split, None, seed)
    found = everything.filter(pc.is_in(everything["recording_id"], pa.array(of_class(study, name), pa.string())))
    if not len(found):
        raise EinthovenError(f"{study}: the {split} split has no recording of {name}. Choose another --split.")
    rows, subjects = found["row"].to_numpy()[:MEASURED], found["subject_id"].to_numpy()[:MEASURED]
    return Case("class", name, 1, "not trained on", data_kind(study), store, rows, subjects)


def compare(
    cases: Sequence[Case],
    base: Scores,
    found: Sequence[Scores],
    subjects: Integers,
    kept: Outliers,
    options: Evaluation,
    unforeseen: Sequence[tuple[Floats, Floats]] = (),
) -> list[dict[str, Any]]:
    """A row for each case: AUROC, FPR@95 and, of the model, the share flagged; then the mean over the corruptions."""
    rows: list[dict[str, Any]] = [
        {name: getattr(case, name) for name in ("kind", "name", "severity", "level", "data_kind")}
        | {"recordings": len(case.rows)}
        for case in cases
    ]
    kinds = {name for name in CORRUPTIONS if any(case.name == name for case in cases)}
    mean = {"kind": "mean", "name": f"mean of {len(kinds)} corruptions", "severity": 0, "level": "each kind once"}
    rows.append({**mean, "data_kind": rows[0]["data_kind"], "recordings": len(subjects)})
    paired = [i for i, case in enumerate(cases) if case.subjects is None]
    shares = np.array([1 / len(CORRUPTIONS[cases[i].name].levels) for i in paired]) / len(kinds)
    for series, detectors in base.items():
        for name, usual in detectors.items():
            scores = [one[series][name] for one in found]
            together = corruptions_apart([usual] * len(paired), [scores[i] for i in paired], shares, subjects, options)
            for i, measured in zip([*paired, -1], together, strict=True):
                rows[i].setdefault(series, {})[name] = measured
            for case, row, outlying in zip(cases, rows, scores, strict=False):
                if case.subjects is not None:
                    apart = others_apart(usual, outlying, subjects, case.subjects, case.kind == "study", options)
                    row.setdefault(series, {})[name] = apart
                if series == "model":
                    row[series][name]["flagged"] = float((outlying > kept.detectors[name].threshold).mean())
    if unforeseen:
        without, corrupt = zip(*unforeseen, strict=True)
        together = corruptions_apart(without, corrupt, shares, subjects, options)
        for i, measured in zip([*paired, -1], together, strict=True):
            rows[i]["unforeseen"] = measured
    return rows


def corruptions_apart(
    usual: Sequence[Floats], outlying: Sequence[Floats], shares: Floats, subjects: Integers, options: Evaluation
) -> list[dict[str, Any]]:
    """AUROC and FPR@95 of each of k corruptions, then their mean by `shares` [k], with patient-bootstrap intervals.

    Each of `usual` [n] and of `outlying` [n] are scores of the same recordings, of `subjects` [n], which are drawn
    together.
    """

    def statistics(w: Floats) -> dict[str, Floats]:
        each = [_apart(one, other, w, w) for one, other in zip(usual, outlying, strict=True)]
        mean = {name: np.sum([s * one[name] for s, one in zip(shares, each, strict=True)], axis=0) for name in each[0]}
        return {f"{i} {name}": value for i, one in enumerate([*each, mean]) for name, value in one.items()}

    found = bootstrap(subjects, statistics, options.resamples, options.seed)
    return [{name: found[f"{i} {name}"] for name in MEASURES} for i in range(len(outlying) + 1)]


def others_apart(
    usual: Floats,
    outlying: Floats,
    subjects: Integers,
    of_outlying: Integers,
    other_study: bool,
    options: Evaluation,
) -> dict[str, Any]:
    """The same of other recordings [m]. Patients of two studies are never one, whatever their numbers."""
    if other_study:
        numbers = (np.unique(of, return_inverse=True)[1] for of in (subjects, of_outlying))
        subjects, of_outlying = next(numbers), -1 - next(numbers)

    def statistics(w: Floats) -> dict[str, Floats]:
        return _apart(usual, outlying, w[:, : len(usual)], w[:, len(usual) :])

    return dict(bootstrap(np.concatenate([subjects, of_outlying]), statistics, options.resamples, options.seed))


def _apart(usual: Floats, outlying: Floats, w: Floats, v: Floats) -> dict[str, Floats]:
    labels = np.repeat([False, True], [len(usual), len(outlying)])
    auroc = weighted_auroc(labels, np.concatenate([usual, outlying]), np.concatenate([w, v], axis=1))
    return {"auroc": auroc, "fpr95": passing(usual, outlying, w, v)}


def passing(usual: Floats, outlying: Floats, w: Floats, v: Floats) -> Floats:
    """Share of outliers [m] under weights v [r, m] not above the score that 95 % of `usual` [n] under w [r, n] reach.

    float64 [r]: the field's FPR at 95 % TPR, the usual ones being the positives. NaN where nothing was drawn.
    """
    order, other = np.argsort(usual, kind="stable"), np.argsort(outlying, kind="stable")
    reached = np.cumsum(w[:, order], axis=1, dtype=np.float64)
    place = (reached < PASSING * reached[:, -1:] - 1e-9).sum(axis=1)
    limit = np.searchsorted(outlying[other], usual[order][place], side="right")
    below = np.pad(np.cumsum(v[:, other], axis=1, dtype=np.float64), ((0, 0), (1, 0)))
    with np.errstate(invalid="ignore"):
        share = below[np.arange(len(v)), limit] / below[:, -1]
    return np.where(reached[:, -1] > 0, share, np.nan)

"""Outlier detectors kept with a model: fitted on train recordings, their thresholds set on validation recordings."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from einthoven import schema
from einthoven.config import Evaluation
from einthoven.embed import Rows, embed_rows
from einthoven.errors import EinthovenError
from einthoven.evaluation.detectors import DETECTORS, Detector, Exposure, read_by
from einthoven.evaluation.intervals import Floats, Integers
from einthoven.evaluation.labels import super_classes, without_class
from einthoven.evaluation.outliers import FILE, Calibrated, Outliers, save_outliers
from einthoven.evaluation.transfer import Probe
from einthoven.evaluation.zeroshot import PROMPTS
from einthoven.model import Model
from einthoven.model_directory import load
from einthoven.study import read_table
from einthoven.training.probes import FILE as PROBES
from einthoven.training.probes import load_probes
from einthoven.waveforms.corruptions import CORRUPTIONS, CorruptedStore, possible
from einthoven.waveforms.store import Store

MOST = 10_000
"""Recordings of a split that are read; of a larger one a sample."""

EXPOSED = 4_000
"""Corrupted train recordings that outlier exposure is fitted on: of each corruption as many, of each severity too."""

COMMON = 30
"""Recordings that a set of findings needs, to be a class of relative Mahalanobis."""


def fit_outliers_of(
    directory: Path, study: Path, options: Evaluation, progress: Callable[[int, int, str], None]
) -> dict[str, Any]:
    """Write the detectors of the model in `directory` beside it; return counts.

    Nothing is written where a split has fewer than two recordings with a signal.
    """
    model, store = load(directory), Store.open(study)
    unseen = model.card.get("without_class")
    train, held = (sample(study, split, MOST, options.seed, unseen) for split in ("train", "validation"))
    if min(len(train), len(held)) < 2:
        (directory / FILE).unlink(missing_ok=True)
        return {"fitted": 0, "calibrated": 0}
    seen = embed_rows(model, store, train["row"].to_numpy(), lambda i, n: progress(i, n, "train features"))
    usual = embed_rows(model, store, held["row"].to_numpy(), lambda i, n: progress(i, n, "validation features"))
    exposed = corrupted(model, store, train["row"].to_numpy(), options.seed, progress)
    detectors = fit_detectors(model, seen, common_sets(study, train), whole_probe(directory, "model"), exposed)
    if options.detector not in detectors:
        raise EinthovenError(
            f"detector {options.detector}: this model and study have no {_wanting(options.detector)}. Choose another: "
            f"`einthoven calibrate {directory} {study} --set evaluation.detector={next(iter(detectors))}`."
        )
    calibrated = {
        name: Calibrated.on(detector, detector.score(read_by(detector, usual)), options.false_alarm)
        for name, detector in detectors.items()
    }
    found = Outliers(calibrated, options.detector, options.false_alarm, len(train), len(held))
    save_outliers(directory / FILE, found)
    return {"fitted": len(train), "calibrated": len(held), "detectors": list(detectors), "chosen": options.detector}


def _wanting(detector: str) -> str:
    return "texts" if detector == "prompts" else "classes of findings"


def sample(study: Path, split: str | None, most: int | None, seed: int, unseen: str | None = None) -> pa.Table:
    """The recordings of a split (None: of all) that have a signal, by id; of more than `most`, so many at random.

    Recordings of the super-class `unseen` are left out.
    """
    rows = read_table(schema.RECORDINGS, study, ["recording_id", "subject_id", "split", "row"]).sort_by("recording_id")
    rows = rows.filter(pc.is_valid(rows["row"]))
    if split is not None:
        rows = rows.filter(pc.equal(rows["split"], split))
    rows = without_class(rows, study, unseen)
    if most is not None and len(rows) > most:
        rows = rows.take(np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False)))
    return rows


def common_sets(study: Path, rows: pa.Table) -> Integers:
    """Which set of super-classes each recording has, numbered from 0 [n]; -1: none, or one that is not common.

    Findings occur together, relative Mahalanobis wants one class for each recording: a class is a set of findings.
    """
    found = super_classes(study)
    place = {name: i for i, name in enumerate(found.recording_ids)}
    sets = [tuple(found.labels[place[name]]) if name in place else None for name in rows["recording_id"].to_pylist()]
    count = Counter(s for s in sets if s is not None)  # in the order of their first
    number = {s: i for i, s in enumerate(s for s, recordings in count.items() if recordings >= COMMON)}
    return np.array([-1 if s is None else number.get(s, -1) for s in sets], np.int64)


def whole_probe(directory: Path, series: str) -> Probe | None:
    """The probe of all labels, of the classes it could learn; None where the model has none of that series."""
    fitted = load_probes(directory / PROBES)
    if fitted is None:
        return None
    classes, probes = fitted
    if series not in probes:  # `evaluation.control = false`
        return None
    probe = max(probes[series], key=lambda probe: probe.fraction)
    return probe.only([i for i, name in enumerate(classes) if name not in probe.unlearnt])


def corrupted(
    model: Model, store: Store, rows: Integers, seed: int, progress: Callable[[int, int, str], None]
) -> dict[str, Floats]:
    """What the first layers say of rows corrupted on purpose: corruption -> [n, e]. Not the draws that are measured."""
    rate, random = min(store.sampling_rate, model.ecg_config.sampling_rate), np.random.default_rng([seed, EXPOSED])
    kinds = {name: one for name, one in CORRUPTIONS.items() if possible(name, rate)}
    found: dict[str, Floats] = {}
    for place, (name, corruption) in enumerate(kinds.items(), start=1):
        count = min(len(rows), -(-EXPOSED // len(kinds) // len(corruption.levels)))
        parts = []
        for severity in range(1, len(corruption.levels) + 1):
            drawn = np.sort(random.choice(rows, count, replace=False))
            signals = CorruptedStore(store, name, severity, int(random.integers(2**31)))
            parts.append(embed_rows(model, signals, drawn, lambda i, n: None).early)
        found[name] = np.concatenate(parts)
        progress(place, len(kinds), f"corrupted train features: {name}")
    return found


def exposure(usual: Floats, exposed: Mapping[str, Floats], without: str | None = None) -> Exposure:
    """Outlier exposure fitted on usual recordings [n, e] and all corrupted ones but those of the kind `without`."""
    bad = [part for name, part in exposed.items() if name != without]
    detector = Exposure()
    detector.fit(np.concatenate([usual, *bad]), np.repeat([0, 1], [len(usual), sum(map(len, bad))]))
    return detector


def fit_detectors(
    model: Model, seen: Rows, labels: Integers, probe: Probe | None, exposed: Mapping[str, Floats]
) -> dict[str, Detector]:
    """Every detector that this model and these labels allow, fitted on recordings as the model sees them."""
    made: dict[str, tuple[Any, ...]] = {"early": (), "mahalanobis": (), "neighbours": ()}
    if (labels >= 0).any():
        made["relative-mahalanobis"] = ()
    if probe is not None and len(probe.bias):
        made |= {"energy": (probe.weight, probe.bias), "vim": (probe.weight, probe.bias)}
    if model.text is not None:
        told = [languages for name, languages in PROMPTS.items() if name != model.card.get("without_class")]
        prompts = [text for languages in told for texts in languages.values() for text in texts]
        made["prompts"] = (model.encode_text(prompts),)
    detectors: dict[str, Detector] = {name: DETECTORS[name](*made[name]) for name in DETECTORS if name in made}
    for detector in detectors.values():
        detector.fit(read_by(detector, seen), labels)
    return {"exposure": exposure(seen.early, exposed), **detectors}

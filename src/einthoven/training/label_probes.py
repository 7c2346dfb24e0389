"""Linear probes for labels of one's own: what is read from a model's features, beside an untrained control."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from einthoven.config import Evaluation
from einthoven.embed import embed_rows
from einthoven.errors import EinthovenError
from einthoven.evaluation.intervals import Floats
from einthoven.evaluation.report import finite
from einthoven.evaluation.targets import CLASSES, read_targets
from einthoven.evaluation.transfer import fit_probes, probe_metrics
from einthoven.model import Model
from einthoven.model_directory import load
from einthoven.study import data_kind, write_json
from einthoven.training.labelled import Labelled, labelled_splits
from einthoven.waveforms.store import Store

FILE = "probe.json"
Progress = Callable[[int, int, str], None]


def probe_labels(
    directory: Path,
    study: Path,
    labels: str,
    split: str,
    out: Path,
    options: Evaluation,
    command: str,
    report: Progress,
) -> dict[str, Any]:
    """Fit on the train split, measure on `split`, write `probe.json` to `out`; return counts.

    Each label is probed by itself, on the recordings of which it is known.
    """
    targets = read_targets(labels, study, CLASSES)
    splits = labelled_splits(study, targets)
    train, goal = splits["train"], splits[split]
    model = load(directory)
    encoders = {"model": model} | ({"random_init": model.untrained(options.seed)} if options.control else {})
    features = {
        name: [_features(encoder, study, part, report, name) for part in (train, goal)]
        for name, encoder in encoders.items()
    }
    found: dict[str, Any] = {}
    for c, label in enumerate(targets.labels):
        inside, outside = (~np.isnan(part.values[:, c]) for part in (train, goal))
        known = [(part.part(mask), mask) for part, mask in ((train, inside), (goal, outside))]
        found[label] = {"train": _counts(known[0][0], c), split: _counts(known[1][0], c)}
        if len(np.unique(known[1][0].values[:, c])) < 2:
            found[label]["left_out"] = "one-sided labels"
            continue
        for name, (of_train, of_goal) in features.items():
            seen = (of_train[inside], of_goal[outside])
            found[label][name] = _probed(label, c, known[0][0], known[1][0], *seen, options)
    if all("left_out" in part for part in found.values()):
        raise EinthovenError(f"{study}: no label has both a 0 and a 1 among the recordings of the {split} split.")
    said = {"data_kind": data_kind(study), "trained_on": model.card.get("data_kind"), "command": command}
    write_json(out / FILE, finite(said | {"split": split, "seed": options.seed, "labels": found}))
    return {"data_kind": said["data_kind"], "labels": len(found), "train": len(train), split: len(goal)}


def _features(encoder: Model, study: Path, part: Labelled, report: Progress, name: str) -> Floats:
    return embed_rows(encoder, Store.open(study), part.rows, lambda i, n: report(i, n, f"features, {name}")).features


def _counts(part: Labelled, c: int) -> dict[str, int]:
    return part.counts() | {"positive": int((part.values[:, c] == 1).sum())}


def _probed(
    label: str, c: int, train: Labelled, goal: Labelled, inside: Floats, outside: Floats, options: Evaluation
) -> dict[str, Any]:
    """The metrics of probes for one label: features of the train split and of what is measured, [n, f] each."""
    fitted = fit_probes(
        inside,
        train.values[:, [c]] == 1,
        train.subjects,
        (label,),
        fractions=options.label_fractions,
        subsets=options.subsets,
        seed=options.seed,
    )
    settings = {"resamples": options.resamples, "seed": options.seed}
    return probe_metrics(fitted, outside, goal.values[:, [c]] == 1, goal.subjects, (label,), **settings)

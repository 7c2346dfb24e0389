"""From a study, its labels and a model to a classifier, its predictions and its metrics."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from einthoven.classifier import Classifier, load_classifier
from einthoven.config import Recipe
from einthoven.errors import EinthovenError
from einthoven.evaluation.finetuned import Run, finetuned_metrics
from einthoven.evaluation.targets import Asked, Targets, read_targets
from einthoven.model_directory import load
from einthoven.study import atomic, data_kind, write_json
from einthoven.training.finetune import Progress, create, finetune, head_of, unlearnt
from einthoven.training.labelled import Labelled, labelled_splits
from einthoven.training.loop import BEST
from einthoven.waveforms.rates import at_rate

PREDICTIONS = "predictions.parquet"
METRICS = "metrics.json"


def finetune_on_study(
    directory: Path,
    recipe: Recipe,
    study: Path,
    out: Path,
    workshop: Path,
    signature: str,
    asked: Asked,
    command: str,
    progress: Progress,
) -> dict[str, Any]:
    """Train what is asked for, write the classifier, its predictions and its metrics to `out`; return counts."""
    targets = read_targets(asked.labels, study, asked.task)
    splits = labelled_splits(study, targets)
    goal = _goal(splits, asked.split, study)
    train = splits["train"].subset(asked.fraction, recipe.evaluation.seed, asked.subset)
    model = load(directory, "cpu")
    head = head_of(targets.task, targets.labels, train.values)
    weights = None if asked.random_init else model.ecg.state_dict()
    classifier = create(model.ecg_config, weights, head, train, recipe.finetuning)
    classifier.card |= _card(asked, recipe, study, model.card, train, targets)
    store = at_rate(study, model.ecg_config.sampling_rate)
    options = recipe.finetuning, recipe.augmentation
    history = finetune(classifier, train, splits["validation"], store, *options, workshop, signature, progress)
    best = load_classifier(workshop / BEST)
    best.save(out)
    predictions = best.predict_rows(store, goal.rows, lambda i, n: progress(i, n, f"predictions, {asked.split}"))
    write_predictions(out / PREDICTIONS, goal, asked.split, targets.labels, predictions)
    run = Run(asked.fraction, asked.subset, predictions, _facts(best))
    metrics = _metrics([run], recipe, study, asked, targets, splits, command)
    write_json(out / METRICS, {**metrics, "history": history})
    return {**best.card, "history": history}


def tabulate(recipe: Recipe, study: Path, out: Path, runs: Sequence[Asked], command: str) -> dict[str, Any]:
    """The metrics of several runs below `out` by what they predict, written to `out`; return counts."""
    targets = read_targets(runs[0].labels, study, runs[0].task)
    splits = labelled_splits(study, targets)
    goal = _goal(splits, runs[0].split, study)
    found = []
    for run in runs:
        predictions = read_predictions(out / run.name / PREDICTIONS, goal, targets.labels)
        classifier = load_classifier(out / run.name, "cpu")
        found.append(Run(run.fraction, run.subset, predictions, _facts(classifier)))
    metrics = _metrics(found, recipe, study, runs[0], targets, splits, command)
    write_json(out / METRICS, metrics)
    macros = {fraction: part["macro"]["value"] for fraction, part in metrics["fractions"].items()}
    return {"data_kind": metrics["data_kind"], "runs": len(runs), "macro": macros}


def _goal(splits: dict[str, Labelled], split: str, study: Path) -> Labelled:
    if not len(splits[split]):
        raise EinthovenError(f"{study}: no recording of the {split} split has a label. Choose another --split.")
    return splits[split]


def _card(
    asked: Asked, recipe: Recipe, study: Path, of_model: dict[str, Any], train: Labelled, targets: Targets
) -> dict[str, Any]:
    """What the classifier was trained on."""
    lost = unlearnt(train.values)
    return {
        "data_kind": data_kind(study),
        "model_data_kind": None if asked.random_init else of_model.get("data_kind"),
        "seed": recipe.finetuning.seed,
        "fraction": asked.fraction,
        "subset": asked.subset,
        **train.counts(),
        "unlearnt": [name for name, missed in zip(targets.labels, lost, strict=True) if missed],
    }


def _facts(classifier: Classifier) -> dict[str, Any]:
    return {name: classifier.card[name] for name in ("subset", "recordings", "patients", "unlearnt", "epoch", "step")}


def _metrics(
    runs: Sequence[Run],
    recipe: Recipe,
    study: Path,
    asked: Asked,
    targets: Targets,
    splits: dict[str, Labelled],
    command: str,
) -> dict[str, Any]:
    goal, options = splits[asked.split], recipe.evaluation
    measures: dict[str, Any] = {"task": targets.task, "resamples": options.resamples, "seed": options.seed}
    used = sum(map(len, splits.values()))
    return {
        "data_kind": data_kind(study),
        "command": command,
        "labels": list(targets.labels),
        "task": targets.task,
        "random_init": asked.random_init,
        "split": asked.split,
        "optimistic": asked.split == "validation",  # it chose the epoch
        "seed": recipe.finetuning.seed,
        "subset_seed": options.seed,
        "counts": {name: part.counts() for name, part in splits.items()}
        | {"labelled_without_signal": len(targets.recording_ids) - used},
        "fractions": finetuned_metrics(runs, goal.values, targets.labels, goal.subjects, **measures),
    }


def write_predictions(
    path: Path, goal: Labelled, split: str, labels: Sequence[str], predictions: NDArray[np.float64]
) -> None:
    """One row for each recording, and one column for each label: probabilities, or values in its unit."""
    columns: dict[str, Any] = {
        "recording_id": pa.array(goal.ids, pa.string()),
        "subject_id": pa.array(goal.subjects, pa.int64()),
        "split": pa.array([split] * len(goal), pa.string()),
    }
    columns |= {label: pa.array(predictions[:, c], pa.float64()) for c, label in enumerate(labels)}
    with atomic(path) as temporary:
        pq.write_table(pa.table(columns), temporary)


def read_predictions(path: Path, goal: Labelled, labels: Sequence[str]) -> NDArray[np.float64]:
    """What `write_predictions` wrote for the same recordings: [n, labels]."""
    table = pq.read_table(path)
    if table["recording_id"].to_pylist() != list(goal.ids):
        raise EinthovenError(f"{path} is of other recordings than the study's. Delete its directory and run again.")
    return np.stack([table[label].to_numpy() for label in labels], axis=1)

"""The stages of fine-tuning: a classifier from a model and labels, or one for every budget of labels, in a table."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from einthoven.config import Recipe, to_dict
from einthoven.errors import EinthovenError
from einthoven.pipeline import Progress, beside, outside, silent, train_stage
from einthoven.study import Outcome, data_kind, lock, run_stage, stage_manifest

if TYPE_CHECKING:
    from einthoven.evaluation.targets import Asked

CLASSIFIER_FILES = ("config.json", "model.safetensors", "predictions.parquet", "metrics.json")


def finetune(
    model: Path, study: Path, out: Path, recipe: Recipe, asked: "Asked", command: str = "", progress: Progress = silent
) -> Outcome:
    """Model, waveforms and labels -> a directory with the classifier, what it predicts and how good that is."""
    data_kind(study)
    out = outside(study, out, "config.json")

    def work(workshop: Path, signature: str) -> dict[str, Any]:
        from einthoven.training.finetune_study import finetune_on_study

        return finetune_on_study(model, recipe, study, out, workshop, signature, asked, command, progress)

    return train_stage(out, CLASSIFIER_FILES, **_stage(model, study, recipe, asked), work=work)


def finetune_table(
    model: Path,
    study: Path,
    out: Path,
    recipe: Recipe,
    asked: "Asked",
    fractions: Sequence[float],
    subsets: int,
    command: str = "",
    progress: Progress = silent,
) -> Outcome:
    """A classifier for each fraction of the labels and subset of it, below `out`, and `metrics.json` of them all."""
    if (out / "config.json").exists():
        raise EinthovenError(f"{out} holds a single classifier: name a new directory for several.")
    out = beside(study, out)
    runs = [
        replace(asked, fraction=fraction, subset=subset)
        for fraction in sorted(set(fractions))
        for subset in range(1 if fraction >= 1 else subsets)
    ]
    with lock(out):
        for number, run in enumerate(runs, start=1):

            def report(done: int, total: int, note: str, number: int = number) -> None:
                progress(done, total, f"run {number}/{len(runs)}, {note}")

            finetune(model, study, out / run.name, recipe, run, command, report)

        def work() -> dict[str, Any]:
            from einthoven.training.finetune_study import tabulate

            return tabulate(recipe, study, out, runs, command)

        stage = _stage(model, study, recipe, asked)
        stage["config"] |= {"runs": [run.name for run in runs]}
        stage["inputs"] |= {run.name: out / run.name / "predictions.parquet" for run in runs}
        return run_stage(out / "manifest.json", **stage, outputs={"metrics.json": out / "metrics.json"}, work=work)


def parse_fractions(text: str) -> list[float]:
    """ "0.01,0.1,1" -> the fractions."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise EinthovenError(f"--fractions {text}: expected numbers with commas between, as in 0.01,0.1,1.") from None


def _stage(model: Path, study: Path, recipe: Recipe, asked: "Asked") -> dict[str, Any]:
    """What a run depends on: config and inputs."""
    from einthoven.evaluation.targets import file_of

    if not (model / "config.json").is_file():
        raise EinthovenError(f"{model}: no config.json, so not a model directory. `einthoven align` makes one.")
    tree = to_dict(recipe)
    config = {name: tree[name] for name in ("finetuning", "augmentation")}
    config |= {"evaluation": {name: tree["evaluation"][name] for name in ("resamples", "seed")}} | asdict(asked)
    inputs = {"model": model / "config.json", "ingest": stage_manifest(study, "ingest")}
    if not asked.random_init:
        inputs["weights"] = model / "model.safetensors"
    labels = file_of(asked.labels)
    if labels is not None:
        inputs["labels"] = labels
        config["labels"] = "file"  # its place does not matter
    return {"config": config, "inputs": inputs}

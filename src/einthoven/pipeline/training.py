"""The stages that train: sEHR-BERT, a model, its outlier detectors."""

from pathlib import Path
from typing import Any

from einthoven import schema
from einthoven.config import Evaluation, Recipe, to_dict
from einthoven.errors import EinthovenError
from einthoven.pipeline.stage import Progress, outside, refuse_stale_pairs, silent, train_stage
from einthoven.processes import follows
from einthoven.study import Outcome, data_kind, lock, remove, run_stage, stage_manifest

TRAINED_FILES = ("config.json", "model.safetensors", "tokenizer", "vocabulary.json", "probes.safetensors")

ENCODER_FILES = ("config.json", "model.safetensors", "vocabulary.json")

PAIRING_OF_TIMELINES = ("code_kinds", "ignored_codes", "static_codes", "collapse_days")
"""What pretraining takes from [pairing]: the rest only matters around an ECG."""


def pretrain(recipe: Recipe, study: Path, out: Path, progress: Progress = silent) -> Outcome:
    """Events -> a directory with sEHR-BERT, pretrained on the whole timelines of the train split's patients."""
    data_kind(study)
    out = outside(study, out, "config.json")
    tree, pairing = to_dict(recipe), to_dict(recipe.pairing)
    config = {name: tree[name] for name in ("codes", "pretraining", "vocabulary")}
    config["pairing"] = {name: pairing[name] for name in PAIRING_OF_TIMELINES}
    inputs = {table.path: table.at(study) for table in (schema.EVENTS, schema.RECORDINGS, schema.CODES)}
    inputs |= vocabulary_files(recipe)
    if recipe.codes.pretrained is not None and Path(recipe.codes.pretrained).is_dir():
        inputs["pretrained"] = Path(recipe.codes.pretrained)

    def work(workshop: Path, signature: str) -> dict[str, Any]:
        from einthoven.training.codes import pretrain_on_study

        return pretrain_on_study(recipe, study, out, workshop, signature, progress)

    return train_stage(out, ENCODER_FILES, config, inputs, work)


def vocabulary_files(recipe: Recipe) -> dict[str, Path]:
    """The user's tables that decide how a code is told: inputs of what is trained with codes."""
    named = {"medications": recipe.vocabulary.medications, "icd9": recipe.vocabulary.icd9_table}
    return {name: Path(file) for name, file in named.items() if file is not None}


def align(recipe: Recipe, study: Path, out: Path, progress: Progress = silent) -> Outcome:
    """Pairs and waveforms -> a model directory with outlier detectors, and linear probes where there are labels."""
    data_kind(study)
    refuse_stale_pairs(study)
    out = outside(study, out, "config.json")
    apart = ("source", "entities", "pairing", "finetuning")
    config = {name: part for name, part in to_dict(recipe).items() if name not in apart}
    for name in ("resamples", "lead_subsets", "detector", "false_alarm"):
        del config["evaluation"][name]  # the probes do not depend on them
    del config["training"]["sharding"]  # nor what is trained on how it is shared
    inputs = {"pairs": schema.PAIRS.at(study), "ingest": stage_manifest(study, "ingest")}
    if "codes" in recipe.space.modalities:
        inputs |= vocabulary_files(recipe)
    if recipe.codes.pretrained is not None and Path(recipe.codes.pretrained).is_dir():
        inputs["codes"] = Path(recipe.codes.pretrained)
    if recipe.text.pretrained is not None and Path(recipe.text.pretrained).is_dir():
        inputs["text"] = Path(recipe.text.pretrained)

    def work(workshop: Path, signature: str) -> dict[str, Any]:
        from einthoven.model_card import FILE, write_card
        from einthoven.training.align import train_on_study

        counts = train_on_study(recipe, study, out, workshop, signature, progress)
        if counts:  # else not the first of several processes
            write_card(out / FILE, config, counts)  # no output of the stage: whoever publishes a model may add to it
        return counts

    outcome = train_stage(out, TRAINED_FILES, config, inputs, work)
    if follows():
        return outcome
    found = _fit_outliers(out, study, recipe.evaluation, progress)
    return Outcome({**outcome.counts, "outliers": found.counts}, outcome.fresh or found.fresh)


def calibrate(model_directory: Path, study: Path, config: Evaluation, progress: Progress = silent) -> Outcome:
    """Fit a model's outlier detectors on the train split of a study and their thresholds on its validation split.

    `align` does so with the study that it trains on; this is for another study, detector or rate of false alarms.
    """
    outcome = _fit_outliers(model_directory, study, config, progress)
    if not outcome.counts["fitted"]:
        raise EinthovenError(f"{study}: a train and a validation split of two recordings with a signal are needed.")
    return outcome


def _fit_outliers(model_directory: Path, study: Path, config: Evaluation, progress: Progress) -> Outcome:
    """A stage of its own beside training: another detector is chosen without training anew."""
    data_kind(study)
    trained = {name: model_directory / name for name in ("model.safetensors", "probes.safetensors")}
    if not trained["model.safetensors"].is_file():
        raise EinthovenError(f"{model_directory} is no model directory. `einthoven align` makes one.")

    def work() -> dict[str, Any]:
        from einthoven.training.outliers import fit_outliers_of

        return fit_outliers_of(model_directory, study, config, progress)

    workshop = model_directory.absolute().with_name(model_directory.absolute().name + ".calibrating")
    with lock(workshop):
        try:
            return run_stage(
                model_directory / "calibration.json",
                config={name: getattr(config, name) for name in ("detector", "false_alarm", "seed")},
                inputs={
                    **{name: path for name, path in trained.items() if path.exists()},
                    "ingest": stage_manifest(study, "ingest"),
                    schema.RECORDINGS.path: schema.RECORDINGS.at(study),
                },
                outputs={"outliers.safetensors": model_directory / "outliers.safetensors"},
                work=work,
            )
        finally:
            remove(workshop)

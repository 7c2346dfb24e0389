"""The stages that look: a data card, embeddings, an evaluation, outliers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from einthoven import schema
from einthoven.config import Evaluation, to_dict
from einthoven.errors import EinthovenError
from einthoven.pipeline.stage import Progress, check_split, refuse_stale_pairs, silent
from einthoven.pipeline.training import TRAINED_FILES
from einthoven.processes import follows, several
from einthoven.study import Outcome, completed, data_kind, lock, refuse_altered, run_stage, stage_manifest

MODEL_FILES = (*TRAINED_FILES, "outliers.safetensors")


def model_inputs(model: Path, names: Sequence[str] = MODEL_FILES) -> dict[str, Path]:
    """Those of a model's files that are there, as inputs of a stage: a directory would be known by its times."""
    files = {name: model / name if name != "tokenizer" else model / name / "tokenizer.json" for name in names}
    return {name: path for name, path in files.items() if path.exists()}


def check(study: Path, out: Path, command: str, progress: Progress = silent) -> dict[str, Any]:
    """The tables and waveforms of a study -> its data card, written as HTML and JSON into `out` and returned.

    What is wrong is in the card's verdicts; of the study nothing is changed, unless `out` is below it.
    """
    from einthoven.checking.card import make_card
    from einthoven.checking.findings import try_rules
    from einthoven.checking.page import refuse_unwritable, write_card
    from einthoven.checking.signals import load_signals
    from einthoven.checking.tables import Tables

    def told(note: str) -> Callable[[int, int], None]:
        return lambda done, total: progress(done, total, note)

    data_kind(study)
    refuse_unwritable(out)
    with lock(out), Tables.of(study, told("tables")) as tables:
        load_signals(tables, told("signals"))
        card = make_card(tables, try_rules(tables, told("rules")), command)
        write_card(out, card)
    return card


def embed(model_directory: Path, study: Path, progress: Progress = silent) -> Outcome:
    """Model and waveforms -> embeddings. Does nothing where they are there, so search and evaluate call it too.

    Of several processes each embeds its share; a killed run goes on where it stopped.
    """
    from einthoven.embed import embed as embed_share
    from einthoven.embed import join, table_of
    from einthoven.model_directory import load

    kind, table = data_kind(study), table_of(model_directory)
    manifest = table.at(study).with_name("manifest.json")
    stage: dict[str, Any] = {
        "config": {"data_kind": kind},
        "inputs": {"weights": model_directory / "model.safetensors", "ingest": stage_manifest(study, "ingest")},
        "outputs": {"embeddings": table.at(study)},
    }
    done = completed(manifest, **stage)
    if done is not None:  # asked before the lock: a finished study may be read-only, and searched by many
        return Outcome(done, fresh=False)

    refuse_altered(model_directory)  # or its weights would have a folder of their own

    def work() -> dict[str, Any]:
        def told(done: int, total: int) -> None:
            progress(done, total, "recordings")

        if not several():
            return join(table, study, embed_share(load(model_directory), table, study, told))
        from einthoven.ranks import joined

        process = joined()
        share = process.process_index, process.num_processes
        parts = embed_share(load(model_directory, process.device), table, study, told, *share)
        process.wait_for_everyone()
        return join(table, study, parts) if process.is_main_process else {}

    if follows():
        return Outcome(work(), fresh=True)
    with lock(manifest.parent):  # its own folder: several models embed one study at a time
        return run_stage(manifest, **stage, work=work)


def embed_to_file(model_directory: Path, study: Path, out: Path, progress: Progress = silent) -> dict[str, Any]:
    """Embeddings and pairs -> one .npz, the form in which any model's embeddings can be evaluated."""
    from einthoven.evaluation.foreign import SUFFIX, write_npz

    if out.suffix != SUFFIX:
        raise EinthovenError(f"--npz {out}: expected a file name that ends in {SUFFIX}.")
    refuse_stale_pairs(study)
    embed(model_directory, study, progress)
    return write_npz(model_directory, study, out)


def evaluate(
    model: Path,
    study: Path,
    split: str,
    out: Path,
    config: Evaluation,
    command: str,
    progress: Progress = silent,
) -> Outcome:
    """A model directory or an .npz of embeddings, and labels -> metrics, report, scores of recordings, a model card."""
    check_split(split)
    refuse_stale_pairs(study)
    from_file = model.suffix == ".npz" and not model.is_dir()
    if from_file and not model.is_file():
        raise EinthovenError(f"{model}: no such file of embeddings; numpy.savez writes one (docs/evaluate.md).")
    if from_file:
        inputs = {"embeddings": model}
    else:
        embed(model, study, progress)
        inputs = model_inputs(model)

    def work() -> dict[str, Any]:
        if from_file:
            from einthoven.evaluation.foreign import evaluate_file

            return evaluate_file(model, study, split, out, config, command, progress)
        from einthoven.evaluation.protocol import evaluate_model

        return evaluate_model(model, study, split, out, config, command, progress)

    with lock(out):
        return run_stage(
            out / "manifest.json",
            config={**to_dict(config), "split": split},
            inputs={**inputs, "pairs": schema.PAIRS.at(study), "ingest": stage_manifest(study, "ingest")},
            outputs={name: out / name for name in ("metrics.json", "report.html", schema.SCORES.path)},
            work=work,
        )


def outliers(
    model_directory: Path,
    study: Path,
    split: str,
    others: Sequence[Path],
    out: Path,
    config: Evaluation,
    command: str,
    progress: Progress = silent,
    against: Path | None = None,
) -> Outcome:
    """Model, its detectors and waveforms, those of other studies too -> `outliers.json` and `outliers.html`."""
    check_split(split)
    for place in (study, *others):
        data_kind(place)

    def work() -> dict[str, Any]:
        from einthoven.evaluation.outlier_protocol import measure_outliers

        return measure_outliers(model_directory, study, split, others, out, config, command, progress, against)

    with lock(out):
        return run_stage(
            out / "manifest.json",
            config={
                "resamples": config.resamples,
                "seed": config.seed,
                "split": split,
                "others": [place.name for place in others],
            },
            inputs={
                **model_inputs(model_directory),
                "ingest": stage_manifest(study, "ingest"),
                **{f"other {i}": stage_manifest(place, "ingest") for i, place in enumerate(others)},
                **({} if against is None else {"against": against / "model.safetensors"}),
            },
            outputs={name: out / name for name in ("outliers.json", "outliers.html")},
            work=work,
        )

"""The stages, each between files it names: what a command runs, and what `einthoven run` runs in a row."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from einthoven import schema
from einthoven.config import Entities, Evaluation, Recipe, Source, to_dict
from einthoven.errors import EinthovenError
from einthoven.study import (
    Outcome,
    completed,
    data_kind,
    fingerprint,
    lock,
    read_manifest,
    refuse_foreign,
    remove,
    run_stage,
    stage_manifest,
)

Progress = Callable[[int, int, str], None]

SOURCE_TABLES = (
    schema.RECORDINGS,
    schema.EVENTS,
    schema.CODES,
    schema.NOTES,
    schema.SUPPLIED_ENTITIES,
    schema.EXCLUDED,
)
SOURCES = ("ptbxl", "mimic", "meds", "omop", "fhir", "challenge", "simulated")
PAIRED_TABLES = (schema.RECORDINGS, schema.EVENTS, schema.NOTES, schema.ENTITIES)
TRAINED_FILES = ("config.json", "model.safetensors", "tokenizer", "vocabulary.json", "probes.safetensors")
MODEL_FILES = (*TRAINED_FILES, "outliers.safetensors")
ENCODER_FILES = ("config.json", "model.safetensors", "vocabulary.json")
PAIRING_OF_TIMELINES = ("code_kinds", "ignored_codes", "static_codes", "collapse_days")
"""What pretraining takes from [pairing]: the rest only matters around an ECG."""


def silent(done: int, total: int, note: str) -> None:
    """Progress for callers who show none."""


def ingest(config: Source, source: str | Path | None, study: Path, progress: Progress = silent) -> Outcome:
    """Source files -> recordings, events, codes, notes, excluded and waveforms.

    `source` is a directory, or for `omop` also a DuckDB file (`….duckdb`) or a database that Ibis can connect to:
    `postgres://…`, `duckdb://…`.
    """
    if config.name not in SOURCES:
        raise EinthovenError(f"unknown source {config.name!r}; known: {', '.join(SOURCES)}.")
    database = config.name == "omop" and "://" in str(source)
    place = None if config.name == "simulated" or source is None or database else Path(source)
    if "://" in str(source) and not database:  # which is not repeated: a connection string may hold a password
        raise EinthovenError(f"{config.name} is read from a directory; only omop takes a connection string.")
    file = place is not None and config.name == "omop" and place.suffix == ".duckdb" and place.is_file()
    if config.name != "simulated" and not database and not file and (place is None or not place.is_dir()):
        named = "that you gave" if config.name == "omop" else source  # it may be a connection string, with a password
        found = "is a file" if place is not None and place.is_file() else "does not exist"
        raise EinthovenError(f"source directory {named} {found}; give the directory of the published files.")
    if place is not None and study.resolve().is_relative_to(place.resolve()):
        raise EinthovenError(f"{study} lies inside the source {source}: name a study directory outside of it.")

    def report(done: int, total: int, note: str = "recordings") -> None:
        progress(done, total, note)

    def work() -> dict[str, Any]:
        (study / schema.BEGUN).touch()
        for left in (schema.SUPPLIED_ENTITIES.at(study), study / schema.WAVEFORMS, study / schema.MEDS_METADATA):
            remove(left)  # of an earlier ingest; not every source makes them
        module = import_module(f"einthoven.sources.{config.name}")
        if config.name == "simulated":
            return dict(module.ingest(config, study, report))
        counts = module.ingest(config, str(source) if database else place, study, report)
        declared = {} if config.data_kind == schema.REAL else {"data_kind": config.data_kind}
        return {**counts, **declared}

    refuse_other_use(study, config.name)
    inputs, settings = {} if place is None else {"source": place}, to_dict(config)
    if config.recordings is not None:
        from einthoven.sources import archive

        if not Path(config.recordings).is_file():
            raise EinthovenError(f"{config.recordings}: no such table of recordings; [source] recordings names it.")
        inputs["recordings"] = Path(config.recordings)
        settings["signals"] = archive.signal_mark(Path(config.recordings))
    outputs = {t.path: t.at(study) for t in SOURCE_TABLES} | {schema.WAVEFORMS: study / schema.WAVEFORMS}
    if config.name == "meds":
        outputs[schema.MEDS_METADATA] = study / schema.MEDS_METADATA
    with lock(study):
        return run_stage(
            stage_manifest(study, "ingest"),
            config=settings,
            inputs=inputs,
            outputs=outputs,
            work=work,
            again=database,
        )


def refuse_other_use(study: Path, source: str) -> None:
    """Refuse to write a study over files that are none, or over a study of another source."""
    manifest = read_manifest(stage_manifest(study, "ingest"))
    if manifest is not None:
        before = manifest["config"].get("name", source)
        if before != source:
            raise EinthovenError(f"{study} is a study of {before}: name a new directory for {source}, or delete it.")
        return
    foreign = [path.name for path in study.iterdir() if path.name[0] != "."] if study.is_dir() else []
    if foreign and not (study / schema.BEGUN).exists():  # without a manifest, but begun: an ingest was killed
        raise EinthovenError(
            f"{study} holds {min(foreign)} and is no study: name a new directory, nothing was written."
        )


def outside(study: Path, out: Path, mark: str) -> Path:
    """`out` as an absolute path; refused where it holds the study, or something without the file `mark`."""
    out = beside(study, out)
    refuse_foreign(out, mark)
    return out


def beside(study: Path, out: Path) -> Path:
    """`out` as an absolute path; refused where it holds the study."""
    out = out.absolute()
    if study.absolute().is_relative_to(out):
        raise EinthovenError(f"{out} holds the study itself; name another directory.")
    return out


def train_stage(
    out: Path,
    files: Sequence[str],
    config: Mapping[str, Any],
    inputs: Mapping[str, Path],
    work: Callable[[Path, str], dict[str, Any]],
    follows: bool = False,
) -> Outcome:
    """A stage that writes `files` into the directory `out`, beside which its unfinished state lies.

    `work` is given the directory of that state and what the run depends on: a state of anything else is refused.
    Of several processes the first keeps lock and manifest; the others, who follow, only work.
    """
    workshop = out.with_name(out.name + ".training")
    signature = json.dumps([config, {name: fingerprint(path) for name, path in inputs.items()}], sort_keys=True)

    def train() -> dict[str, Any]:
        return work(workshop, signature)

    stage: dict[str, Any] = {"config": config, "inputs": inputs, "outputs": {name: out / name for name in files}}
    if follows:
        done = completed(out / "manifest.json", **stage)
        return Outcome(done, fresh=False) if done is not None else Outcome(train(), fresh=True)
    with lock(workshop):
        outcome = run_stage(out / "manifest.json", **stage, work=train, inside=True)
        remove(workshop)
    return outcome


def vocabulary_files(recipe: Recipe) -> dict[str, Path]:
    """The user's tables that decide how a code is told: inputs of what is trained with codes."""
    named = {"medications": recipe.vocabulary.medications, "icd9": recipe.vocabulary.icd9_table}
    return {name: Path(file) for name, file in named.items() if file is not None}


def check_split(split: str) -> None:
    """Refuse a split that does not exist, before anything is done."""
    if split not in schema.SPLITS:
        raise EinthovenError(f"--split {split}: expected one of {', '.join(schema.SPLITS)}.")


def refuse_stale_pairs(study: Path) -> None:
    """Refuse pairs that are missing, replaced or older than what they were made of: their rows would point astray."""
    manifest = read_manifest(stage_manifest(study, "pair"))
    if manifest is None:
        raise EinthovenError(f"{study}: no pairs. Run `einthoven pair {study}`.")
    known = manifest["inputs"] | manifest["outputs"]
    for table in (*PAIRED_TABLES, schema.PAIRS):
        if not table.at(study).exists() or known.get(table.path) != fingerprint(table.at(study)):
            raise EinthovenError(
                f"{study}: {table.path} is not the one that the pairs were made with. Run `einthoven pair {study}`."
            )


def rechart(study: Path, out: Path, seed: int) -> Outcome:
    """A real study -> a semi-synthetic one: its recordings and findings, with a simulated chart."""
    from einthoven.sources import simulated

    if data_kind(study) != schema.REAL:
        raise EinthovenError(f"{study} holds {data_kind(study)} data; rechart takes a study of real recordings.")
    simulated.check_target(study, out)
    with lock(out):
        return run_stage(
            stage_manifest(out, "ingest"),
            config={"rechart": seed},
            inputs={"ingest": stage_manifest(study, "ingest")},
            outputs={t.path: t.at(out) for t in SOURCE_TABLES} | {schema.WAVEFORMS: out / schema.WAVEFORMS},
            work=lambda: simulated.rechart(study, out, seed),
        )


READING = ("lexicon", "replace", "use_supplied")
"""The settings of [entities] that decide what is found; the others decide what of it enters a pair."""


def entities(config: Entities, study: Path, progress: Progress = silent) -> Outcome:
    """Notes, and the mentions that a source supplied -> entities."""
    from einthoven.entities.extract import edition, extract

    data_kind(study)
    inputs = {schema.NOTES.path: schema.NOTES.at(study)}
    if config.use_supplied and schema.SUPPLIED_ENTITIES.at(study).exists():
        inputs[schema.SUPPLIED_ENTITIES.path] = schema.SUPPLIED_ENTITIES.at(study)
    if config.lexicon is not None:
        if not Path(config.lexicon).is_file():
            raise EinthovenError(f"{config.lexicon}: no such lexicon; [entities] lexicon names it (docs/entities.md).")
        inputs["lexicon"] = Path(config.lexicon)
    with lock(study):
        return run_stage(
            stage_manifest(study, "entities"),
            config={name: getattr(config, name) for name in READING} | {"edition": edition()},
            inputs=inputs,
            outputs={schema.ENTITIES.path: schema.ENTITIES.at(study)},
            work=lambda: extract(config, study, lambda done, total: progress(done, total, "notes")),
        )


def _read_as_before(config: Entities, study: Path) -> Entities:
    """Where the settings say nothing of a lexicon, that of the entities which are there: `pair` must not undo them."""
    manifest = read_manifest(stage_manifest(study, "entities"))
    plain = all(getattr(config, name) == getattr(Entities(), name) for name in READING)
    if manifest is None or not plain:
        return config
    return replace(config, **{name: manifest["config"].get(name, getattr(config, name)) for name in READING})


def export_meds(study: Path, out: Path) -> Outcome:
    """Events, notes, codes, splits and the list of recordings -> a MEDS dataset directory."""
    from einthoven.export import meds

    data_kind(study)
    out = outside(study, out, meds.MARK)
    workshop = out.with_name(out.name + ".exporting")
    with lock(workshop):
        try:
            for left in (*out.parent.glob(f".{out.name}.*.tmp"), *workshop.glob("work.duckdb*"), workshop / "spill"):
                remove(left)  # by a killed process
            return run_stage(
                out / meds.MARK,
                config={},
                inputs={"ingest": stage_manifest(study, "ingest")},
                outputs={name: out / name for name in ("data", "metadata", "recordings.parquet")},
                work=lambda: meds.export(study, out, workshop),
                inside=True,
            )
        finally:
            remove(workshop)


def pair(
    recipe: Recipe, study: Path, progress: Progress = silent, engine: str = "duckdb", memory: str | None = None
) -> Outcome:
    """Recordings, events, notes and entities -> pairs; makes the entities first where they are not there or stale.

    Engine and memory do not change the result.
    """
    from einthoven.pairing import pairs

    entities(_read_as_before(recipe.entities, study), study, progress)
    entering = {name: value for name, value in to_dict(recipe.entities).items() if name not in READING}
    with lock(study):
        return run_stage(
            stage_manifest(study, "pair"),
            config=to_dict(recipe.pairing)
            | {
                "entities": entering,
                "text": {"pretrained": recipe.text.pretrained, "vocabulary": recipe.text.vocabulary},
            },
            inputs={t.path: t.at(study) for t in PAIRED_TABLES},
            outputs={schema.PAIRS.path: schema.PAIRS.at(study)},
            work=lambda: pairs.pair(
                recipe.pairing,
                recipe.entities,
                recipe.text,
                study,
                engine=engine,
                memory=memory,
                progress=lambda done, total: progress(done, total, "recordings"),
            ),
        )


def align(recipe: Recipe, study: Path, out: Path, progress: Progress = silent) -> Outcome:
    """Pairs and waveforms -> a model directory with outlier detectors, and linear probes where there are labels."""
    data_kind(study)
    refuse_stale_pairs(study)
    out = outside(study, out, "config.json")
    apart = ("source", "entities", "pairing", "finetuning")
    config = {name: part for name, part in to_dict(recipe).items() if name not in apart}
    for name in ("resamples", "lead_subsets", "detector", "false_alarm"):
        del config["evaluation"][name]  # the probes do not depend on them
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

    follows = os.environ.get("RANK", "0") != "0"
    outcome = train_stage(out, TRAINED_FILES, config, inputs, work, follows)
    if follows:
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


def embed(model_directory: Path, study: Path, progress: Progress = silent) -> Outcome:
    """Model and waveforms -> embeddings. Does nothing where they are there, so search and evaluate call it too."""
    from einthoven.embed import embed as embed_study
    from einthoven.embed import table_of
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

    def work() -> dict[str, Any]:
        return embed_study(load(model_directory), table, study, lambda i, n: progress(i, n, "recordings"))

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
        inputs = {name: model / name for name in MODEL_FILES if (model / name).exists()}

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
) -> Outcome:
    """Model, its detectors and waveforms, those of other studies too -> `outliers.json` and `outliers.html`."""
    check_split(split)
    for place in (study, *others):
        data_kind(place)
    files = {name: model_directory / name for name in MODEL_FILES if (model_directory / name).exists()}

    def work() -> dict[str, Any]:
        from einthoven.evaluation.outlier_protocol import measure_outliers

        return measure_outliers(model_directory, study, split, others, out, config, command, progress)

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
                **files,
                "ingest": stage_manifest(study, "ingest"),
                **{f"other {i}": stage_manifest(place, "ingest") for i, place in enumerate(others)},
            },
            outputs={name: out / name for name in ("outliers.json", "outliers.html")},
            work=work,
        )

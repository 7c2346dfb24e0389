"""The stages that fill the tables of a study: ingest, rechart, entities, pair, export."""

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from einthoven import schema
from einthoven.config import Entities, Recipe, Source, to_dict
from einthoven.errors import EinthovenError
from einthoven.pipeline.stage import PAIRED_TABLES, Progress, outside, silent
from einthoven.sources import SOURCES as SOURCES
from einthoven.sources import refuse_unknown
from einthoven.study import Outcome, data_kind, lock, read_manifest, remove, run_stage, stage_manifest

SOURCE_TABLES = (
    schema.RECORDINGS,
    schema.EVENTS,
    schema.CODES,
    schema.NOTES,
    schema.SUPPLIED_ENTITIES,
    schema.EXCLUDED,
)

READING = ("lexicon", "replace", "use_supplied")
"""The settings of [entities] that decide what is found; the others decide what of it enters a pair."""


def ingest(
    config: Source, source: str | Path | None, study: Path, progress: Progress = silent, replacing: bool = False
) -> Outcome:
    """Source files -> recordings, events, codes, notes, excluded and waveforms.

    `source` is a directory, or for `omop` also a DuckDB file (`….duckdb`) or a database that Ibis can connect to:
    `postgres://…`, `duckdb://…`. A study that was ingested with other settings is refused, unless `replacing`.
    """
    refuse_unknown(config.name)
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
    if not replacing:
        refuse_other_settings(study, settings, ", or pass --replace")
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


def refuse_other_settings(study: Path, settings: Mapping[str, Any], way_out: str = "") -> None:
    """Refuse to replace a study that was made with other settings; other files of its source are another matter."""
    before = (read_manifest(stage_manifest(study, "ingest")) or {}).get("config")
    if not before:
        return
    usual, now = to_dict(Source()), json.loads(json.dumps(settings))
    differing = [
        f"{name} is {before.get(name, usual.get(name))}, not {now.get(name)}"
        for name in sorted((before.keys() | now.keys()) - {"signals"})
        if before.get(name, usual.get(name)) != now.get(name)
    ]
    if differing:
        raise EinthovenError(
            f"{study} was made with other settings: {'; '.join(differing)}. Delete it, name a new directory{way_out}."
        )


def rechart(study: Path, out: Path, seed: int) -> Outcome:
    """A real study -> a semi-synthetic one: its recordings and findings, with a simulated chart."""
    from einthoven.sources import simulated

    if data_kind(study) != schema.REAL:
        raise EinthovenError(f"{study} holds {data_kind(study)} data; rechart takes a study of real recordings.")
    simulated.check_target(study, out)
    refuse_other_settings(out, {"rechart": seed})
    with lock(out):
        return run_stage(
            stage_manifest(out, "ingest"),
            config={"rechart": seed},
            inputs={"ingest": stage_manifest(study, "ingest")},
            outputs={t.path: t.at(out) for t in SOURCE_TABLES} | {schema.WAVEFORMS: out / schema.WAVEFORMS},
            work=lambda: simulated.rechart(study, out, seed),
        )


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
                "text": {name: getattr(recipe.text, name) for name in ("pretrained", "vocabulary", "floor")},
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

"""A simulated study, so that everything runs without a download; and a simulated chart for real recordings."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from einthoven import schema
from einthoven.config import Source
from einthoven.errors import EinthovenError
from einthoven.pairing.splits import split_of
from einthoven.simulation.chart import Chart, Recorded, code_table, write_chart
from einthoven.simulation.findings import CATALOGUE, CLASSES, draw_findings, draw_later
from einthoven.simulation.heart import Anatomy, draw_anatomy, simulate
from einthoven.study import atomic, data_kind, read_manifest, read_table, stage_manifest, write_table
from einthoven.waveforms import quality
from einthoven.waveforms.store import Store, StoreWriter

Progress = Callable[[int, int], None]

RATE: Final = 100
"""Hertz where the configuration names none: what the model sees by default, and several times faster than 500."""
SECONDS: Final = 10.0
_RATES: Final = (100, 500)
_BLOCK: Final = 256  # recordings simulated and stored at a time
_ALL_LEADS: Final = (1 << len(schema.LEADS)) - 1
_FIRST_DAY: Final = datetime(2015, 1, 1)  # noqa: DTZ001  (times are wall clock, see schema.py)
_AGEING: Final = ("AFIB", "AFLT", "AMI", "IMI", "CLBBB", "CRBBB", "LVH", "1AVB", "PACE")


@dataclass(frozen=True)
class _Cohort:
    recordings: list[Recorded]  # by subject, then time
    patient: np.ndarray[Any, np.dtype[np.intp]]  # of each recording, a row of `anatomy`
    anatomy: Anatomy


def ingest(config: Source, study: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Simulate `config.subjects` patients with one to three recordings each, and their charts, into `study`.

    The same configuration gives the same tables and the same samples. `progress` is told recordings done and to do.
    """
    rate = RATE if config.sampling_rate is None else config.sampling_rate
    if rate not in _RATES:
        raise EinthovenError(f"The simulator samples at 100 or 500 Hz, not {rate}: set [source] sampling_rate.")
    if config.subjects < 1:
        raise EinthovenError(f"[source] subjects must be at least 1, not {config.subjects}.")
    people, hearts, words = (np.random.default_rng(seed) for seed in np.random.SeedSequence(config.seed).spawn(3))
    cohort = _draw_cohort(config.subjects, people)
    chart = write_chart(cohort.recordings, words)
    study.mkdir(parents=True, exist_ok=True)
    flags = _write_waveforms(cohort, study, rate, hearts, progress)
    statements = _statements(cohort.recordings)
    events = _sorted(pa.concat_tables([chart.events, statements]))
    write_table(schema.RECORDINGS, study, _recording_table(cohort.recordings, flags, rate))
    write_table(schema.EVENTS, study, events)
    write_table(schema.CODES, study, _with_statements(chart.codes))
    write_table(schema.NOTES, study, chart.notes)
    write_table(schema.EXCLUDED, study, schema.EXCLUDED.columns.empty_table())
    counts = {"data_kind": schema.SIMULATED, "recordings": len(cohort.recordings), "subjects": config.subjects}
    return counts | {"events": events.num_rows, "notes": chart.notes.num_rows}


def rechart(study: Path, out: Path, seed: int) -> dict[str, Any]:
    """Give the recordings of a real study a simulated chart: a semi-synthetic study in the new directory `out`.

    Recordings, waveforms (hard-linked where the file system can) and SCP statements stay; all other events and all
    notes are written anew from those statements. Recordings without a time get no chart. As for `ingest`, the caller
    records the counts in the manifest; a simulated study stays simulated.
    """
    simulated = data_kind(study) == schema.SIMULATED
    check_target(study, out)
    if (study / schema.WAVEFORMS).is_dir():
        Store.open(study).verify()  # or damage would get a second name
    recordings, events = read_table(schema.RECORDINGS, study), read_table(schema.EVENTS, study)
    codes = read_table(schema.CODES, study)
    statements = events.filter(pc.starts_with(events["code"], "SCP//"))
    chart, untimed = _chart_of(recordings, statements, codes, np.random.default_rng(seed))
    events = _sorted(pa.concat_tables([chart.events, statements]))
    _link(study / schema.WAVEFORMS, out / schema.WAVEFORMS)
    own = pc.is_in(chart.codes["code"], value_set=codes["code"].combine_chunks())
    write_table(schema.RECORDINGS, out, recordings)
    write_table(schema.EVENTS, out, events)
    write_table(schema.CODES, out, pa.concat_tables([codes, chart.codes.filter(pc.invert(own))]))
    write_table(schema.NOTES, out, chart.notes)
    write_table(schema.EXCLUDED, out, read_table(schema.EXCLUDED, study))
    schema.SUPPLIED_ENTITIES.at(out).unlink(missing_ok=True)  # of what `out` was before
    return {
        "data_kind": schema.SIMULATED if simulated else schema.SEMI_SYNTHETIC,
        "recordings": recordings.num_rows,
        "subjects": pc.count_distinct(recordings["subject_id"]).as_py(),
        "events": events.num_rows,
        "notes": chart.notes.num_rows,
        "unknown_statements": chart.unknown,
        "recordings_without_time": untimed,
    }


def check_target(study: Path, out: Path) -> None:
    """Refuse to write a simulated chart over a study of real data."""
    there = read_manifest(stage_manifest(out, "ingest"))
    if out.resolve() == study.resolve() or (there and there["counts"]["data_kind"] == schema.REAL):
        raise EinthovenError(f"{out} is a study already: name a new directory for the one with the simulated chart.")


def _draw_cohort(subjects: int, rng: np.random.Generator) -> _Cohort:
    """Patients and their recordings: a week to two years apart, mostly with the same findings."""
    recordings: list[Recorded] = []
    patient: list[int] = []
    first = draw_findings(subjects, rng)
    for subject, drawn in enumerate(first):
        findings, sex = drawn, "female" if rng.random() < 0.48 else "male"
        mean = 68.0 if findings.intersection(_AGEING) else 52.0
        age = float(np.clip(rng.normal(mean, 14), 18, 89))
        time = _FIRST_DAY + timedelta(minutes=int(rng.integers(0, 7 * 365 * 1440)))
        for visit in range(int(rng.choice(3, p=(0.65, 0.25, 0.1))) + 1):
            if visit:
                wait = float(rng.uniform(7, 730))
                time, age = time + timedelta(minutes=int(wait * 1440)), min(age + wait / 365.25, 89.0)
                findings = draw_later(findings, rng)
            name = f"sim-{len(recordings):06d}"
            recordings.append(Recorded(name, subject + 1, time, age, sex, findings))
            patient.append(subject)
    return _Cohort(recordings, np.array(patient, dtype=np.intp), draw_anatomy(subjects, rng))


def _write_waveforms(
    cohort: _Cohort, study: Path, rate: int, rng: np.random.Generator, progress: Progress | None
) -> list[list[str]]:
    """Simulate and store the signals block by block; return the quality flags of each."""
    total = len(cohort.recordings)
    flags: list[list[str]] = []
    with StoreWriter(study, rate, round(SECONDS * rate), total) as store:
        for start in range(0, total, _BLOCK):
            findings = [each.findings for each in cohort.recordings[start : start + _BLOCK]]
            anatomy = cohort.anatomy.take(cohort.patient[start : start + _BLOCK])
            block = simulate(findings, rng, rate, SECONDS, anatomy=anatomy)
            store.write(start, block)
            flags += quality.flags(block, rate)
            if progress is not None:
                progress(len(flags), total)
    return flags


def _recording_table(recordings: list[Recorded], flags: list[list[str]], rate: int) -> pa.Table:
    rows = [
        {
            "recording_id": each.recording_id,
            "subject_id": each.subject_id,
            "time": each.time,
            "split": split_of(each.subject_id),
            "row": row,
            "leads": _ALL_LEADS,
            "source_rate": float(rate),
            "quality": raised,
            "age": each.age,
            "age_over_89": False,
            "sex": each.sex,
            "device": "simulated",
        }
        for row, (each, raised) in enumerate(zip(recordings, flags, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=schema.RECORDINGS.columns)


def _statements(recordings: list[Recorded]) -> pa.Table:
    """One event per finding, with the likelihood 100 that PTB-XL would give it."""
    rows = [
        {"subject_id": r.subject_id, "time": r.time, "code": f"SCP//{code}", "numeric_value": 100.0}
        | {"recording_id": r.recording_id}
        for r in recordings
        for code in sorted(r.findings)
    ]
    return pa.Table.from_pylist(rows, schema=schema.EVENTS.columns)


def _sorted(events: pa.Table) -> pa.Table:
    """As MEDS wants them: static events, which have no time, before a subject's dated ones."""
    keys = [(name, "ascending") for name in ("subject_id", "dated", "time", "code", "recording_id")]
    dated = events.append_column("dated", pc.is_valid(events["time"]))
    return events.take(pc.sort_indices(dated, sort_keys=keys))


def _with_statements(codes: pa.Table) -> pa.Table:
    """The codes of the chart, the SCP statements under their classes, and the classes."""
    titles = dict(zip(codes["code"].to_pylist(), codes["description"].to_pylist(), strict=True))
    titles |= {f"SCP//{code}": finding.description for code, finding in CATALOGUE.items()}
    titles |= {f"SCP_CLASS//{name}": title for name, title in CLASSES.items()}
    parents = {f"SCP//{code}": f"SCP_CLASS//{f.superclass}" for code, f in CATALOGUE.items() if f.superclass}
    return code_table(titles, parents)


def _chart_of(
    recordings: pa.Table, statements: pa.Table, codes: pa.Table, rng: np.random.Generator
) -> tuple[Chart, int]:
    """The chart that the SCP statements of real recordings suggest, and how many recordings had no time."""
    findings: dict[str, set[str]] = {}
    for name, code in zip(statements["recording_id"].to_pylist(), statements["code"].to_pylist(), strict=True):
        findings.setdefault(name, set()).add(code.removeprefix("SCP//"))
    described = zip(codes["code"].to_pylist(), codes["description"].to_pylist(), strict=True)
    descriptions = {code.removeprefix("SCP//"): words for code, words in described if words and code[:5] == "SCP//"}
    columns = ["recording_id", "subject_id", "time", "age", "sex"]
    recorded = [
        Recorded(**row, findings=frozenset(findings.get(row["recording_id"], ())))
        for row in recordings.select(columns).to_pylist()
        if row["time"] is not None
    ]
    return write_chart(recorded, rng, descriptions), recordings.num_rows - len(recorded)


def _link(source: Path, target: Path) -> None:
    """The same files under a second name, or copies where the file system cannot."""

    def link(old: str, new: str) -> None:
        try:
            os.link(old, new)
        except OSError:
            shutil.copy2(old, new)

    if source.is_dir():  # a store is replaced, never written into: a link cannot change under the other study
        with atomic(target) as temporary:
            shutil.copytree(source, temporary, copy_function=link)

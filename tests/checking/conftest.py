"""A small simulated study in which everything is as it should be, made without the stages that other tests try."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from einthoven import pipeline, schema
from einthoven.checking.findings import Verdict, try_rules
from einthoven.checking.signals import load_signals
from einthoven.checking.tables import Tables
from einthoven.config import CODE_KINDS, Pairing, Source, to_dict
from einthoven.study import fingerprint, read_manifest, stage_manifest, write_json, write_manifest, write_table

Rows = list[dict[str, Any]]
EMBEDDED = replace(schema.EMBEDDINGS, path="embeddings/0123456789abcdef/embeddings.parquet")


def rows_of(table: schema.Table, study: Path) -> Rows:
    rows: Rows = pq.read_table(table.at(study)).to_pylist()  # read_table refuses what the manifests do not know yet
    return rows


def write_rows(table: schema.Table, study: Path, rows: Rows) -> None:
    write_table(table, study, pa.Table.from_pylist(rows, schema=table.columns))


def write_freely(table: schema.Table, study: Path, rows: Rows) -> None:
    """As a foreign hand could: without the schema's say on empty cells."""
    fields = [field.with_nullable(True) for field in table.columns]
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(fields)), table.at(study))


def settle(study: Path) -> None:
    """Let the manifests say that the tables are as their stages wrote them."""
    for path in (study / schema.MANIFESTS).glob("*.json"):
        manifest = read_manifest(path)
        assert manifest is not None
        inputs = {name: fingerprint(study / name) for name in manifest["inputs"]}
        outputs = {n: fingerprint(study / n) if (study / n).exists() else None for n in manifest["outputs"]}
        write_manifest(path, {**manifest, "inputs": inputs, "outputs": outputs})
    mark = fingerprint(stage_manifest(study, "ingest"))
    write_json(EMBEDDED.at(study).with_name("manifest.json"), {"inputs": {"ingest": mark}, "outputs": {}})


def kind_of(code: str) -> str | None:
    return next((k for k, patterns in CODE_KINDS.items() if any(code.startswith(p[:-1]) for p in patterns)), None)


def pair_naively(study: Path, config: Pairing) -> Rows:
    events, notes = rows_of(schema.EVENTS, study), rows_of(schema.NOTES, study)
    mentioned = {row["note_id"] for row in rows_of(schema.ENTITIES, study)}
    pairs = []
    for recording in rows_of(schema.RECORDINGS, study):
        subject, time = recording["subject_id"], recording["time"]

        def near(rows: Rows, before: float, after: float, subject: int = subject, time: Any = time) -> Rows:
            low, high = timedelta(days=-before), timedelta(days=after)
            dated = (row for row in rows if row["subject_id"] == subject and row["time"] is not None)
            return [row for row in dated if low <= row["time"] - time <= high]

        codes = [e for e in near(events, config.codes_before, config.codes_after) if kind_of(e["code"])]
        texts = near(notes, config.notes_before, config.notes_after)
        terms = [n for n in near(notes, config.entities_before, config.entities_after) if n["note_id"] in mentioned]
        pairs.append(
            {name: recording[name] for name in ("recording_id", "subject_id", "time", "split", "row")}
            | {
                "codes": ["GENDER//X", *(e["code"] for e in codes)],
                "code_kinds": ["static", *(kind_of(e["code"]) for e in codes)],
                "code_days": [None, *((e["time"] - time).total_seconds() / 86400 for e in codes)],
                "text": "\n".join(note["text"] for note in texts) or None,
                "note_ids": [note["note_id"] for note in texts],
                "entity_text": ", ".join("term" for _ in terms) or None,
                "entity_note_ids": [note["note_id"] for note in terms],
            }
        )
    return pairs


def write_good_study(study: Path, subjects: int = 40) -> None:
    pipeline.ingest(Source(name="simulated", subjects=subjects, seed=1), None, study)
    events = rows_of(schema.EVENTS, study)
    gender = {"time": None, "code": "GENDER//X", "numeric_value": None, "text_value": None, "recording_id": None}
    events += [{"subject_id": subject, **gender} for subject in range(1, subjects + 1)]
    events.sort(key=lambda row: (row["subject_id"], str(row["time"] or "")))
    write_rows(schema.EVENTS, study, events)
    mention = {"term": "term", "label": "finding", "code": None} | dict.fromkeys(
        ("negated", "uncertain", "historical", "family", "hypothetical"), False
    )
    spans = [(0, 2), (1, 3)]
    entities = [
        {"note_id": note["note_id"], "subject_id": note["subject_id"], "start": start, "end": end, **mention}
        for note in rows_of(schema.NOTES, study)[::2]
        for start, end in spans
    ]
    write_rows(schema.ENTITIES, study, entities)
    config = Pairing()
    write_rows(schema.PAIRS, study, pair_naively(study, config))
    vectors = np.random.default_rng(0).normal(size=(len(rows_of(schema.RECORDINGS, study)), 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    embedded = [
        {name: row[name] for name in ("recording_id", "subject_id", "split")}
        | {"embedding": vector.tolist(), "features": [1.0, 2.0]}
        for row, vector in zip(rows_of(schema.RECORDINGS, study), vectors, strict=True)
    ]
    write_rows(EMBEDDED, study, embedded)
    tokens = {"mean": 60.0, "median": 50.0, "p95": 120.0, "with_text": 40, "notes": {"ecg": 1.0, "echo": 0.25}}
    inputs = dict.fromkeys([schema.RECORDINGS.path, schema.EVENTS.path, schema.NOTES.path, schema.ENTITIES.path])
    for stage, table, settings, counts in (
        ("entities", schema.ENTITIES, {}, {}),
        (
            "pair",
            schema.PAIRS,
            to_dict(config),
            {"tokens": {"tokenizer": "bert", "sample": 51, "report": tokens, "entity": tokens}},
        ),
    ):
        read = {schema.NOTES.path: None} if stage == "entities" else inputs
        stated = {"version": "0", "config": settings, "counts": counts, "inputs": read, "outputs": {table.path: None}}
        write_json(stage_manifest(study, stage), stated)
    settle(study)


@pytest.fixture(scope="session")
def unspoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study: Path = tmp_path_factory.mktemp("good") / "study"
    write_good_study(study)
    return study


@pytest.fixture
def study(unspoilt: Path, tmp_path: Path) -> Path:
    """A copy of the good study, to be spoilt."""
    return Path(shutil.copytree(unspoilt, tmp_path / "study"))


@pytest.fixture
def judge() -> Callable[[Path], dict[str, Verdict]]:
    """All verdicts on a study, by rule."""

    def judged(study: Path) -> dict[str, Verdict]:
        with Tables.of(study) as tables:
            load_signals(tables)
            return {verdict.rule: verdict for verdict in try_rules(tables)}

    return judged

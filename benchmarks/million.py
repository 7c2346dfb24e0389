"""A study of a million recordings: how long it takes to open, and how much memory training on it takes.

python benchmarks/million.py [--out results/million.json] [--recordings 1000000] [--steps 30] [--study DIR]

Everything in it is simulated: recordings of 400,000 patients, 20 codes and a report of some 50 words each, a waveform
store at 100 Hz whose shards are sparse files (they read as zeros and take no room). Opening and training run in
processes of their own. Of each the largest resident memory is told: `anonymous_mb` is what the process itself holds,
read from /proc ten times a second; `with_files_mb` (VmHWM) has pages of mapped files too, which the system takes back.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from machine import facts
from sparse import sparse_store

from einthoven import schema
from einthoven.config import CODE_KINDS, load_recipe
from einthoven.pipeline import refuse_stale_pairs
from einthoven.pipeline.stage import PAIRED_TABLES
from einthoven.study import run_stage, stage_manifest, write_json
from einthoven.waveforms.store import Store

RATE, SAMPLES, SHARD = 100, 1000, 4096
PATIENTS_OF, CODES_OF, CODES = 2.5, 20, 5000
PART = 50_000
TINY = (
    "ecg.width=8",
    "ecg.blocks=[1,1]",
    "text.hidden=32",
    "text.layers=1",
    "text.heads=2",
    "codes.hidden=32",
    "codes.layers=1",
    "codes.heads=2",
    'space.modalities=["ecg","codes","text"]',
    "space.dim=32",
    "space.coarse_dim=32",
    "training.batch=64",
    "training.epochs=1",
)


def columns(first: int, count: int, sentences: np.ndarray) -> dict[str, pa.Table]:
    """Rows `first` to `first + count` of the tables that grow with the recordings."""
    random = np.random.default_rng([0, first])
    number = np.arange(first, first + count)
    subject = (number / PATIENTS_OF).astype(np.int64)
    split = pa.array(np.array(schema.SPLITS)[np.minimum(np.maximum(subject % 20 - 17, 0), 2)])
    ids, text = [f"r{i:09d}" for i in number], [" ".join(some) for some in random.choice(sentences, (count, 5))]
    time_of = pa.array(1_500_000_000_000_000 + number * 1_000_000, schema.TIME)
    lengths = random.poisson(CODES_OF, count)
    offsets = pa.array(np.r_[0, np.cumsum(lengths)].astype(np.int32))
    total = int(lengths.sum())
    spelled = pa.array([f"DX//C{i}" for i in range(CODES)])
    drawn = (CODES * random.random(total) ** 3).astype(np.int64)
    kinds = pa.array(list(CODE_KINDS)).take(pa.array(drawn % len(CODE_KINDS)))
    lists = {
        "codes": pa.ListArray.from_arrays(offsets, spelled.take(pa.array(drawn))),
        "code_kinds": pa.ListArray.from_arrays(offsets, kinds),
        "code_days": pa.ListArray.from_arrays(offsets, pa.array(random.uniform(-365, 365, total).astype(np.float32))),
    }
    shared = {"recording_id": ids, "subject_id": subject, "time": time_of, "split": split, "row": number}
    age = pa.array(random.uniform(20, 90, count).astype(np.float32))
    own = {"subject_id": subject, "time": time_of, "recording_id": ids}
    found = np.array([f"SCP//{name}" for name in ("NORM", "IMI", "STTC", "LBBB", "LVH")])
    return {
        schema.RECORDINGS.path: pa.table({**shared, "age": age}),
        schema.PAIRS.path: pa.table({**shared, **lists, "text": text, "entity_text": text}),
        schema.NOTES.path: pa.table(
            {**own, "note_id": [f"n{i}" for i in number], "kind": ["ecg"] * count, "text": text}
        ),
        schema.EVENTS.path: pa.table({**own, "code": random.choice(found, count)}),
        schema.ENTITIES.path: schema.ENTITIES.columns.empty_table(),
    }


def filled(rows: pa.Table, wanted: pa.Schema) -> pa.Table:
    """With nulls in the columns that the rows do not have."""
    have = set(rows.column_names)
    return pa.table(
        [rows[f.name] if f.name in have else pa.nulls(len(rows), f.type) for f in wanted], names=wanted.names
    ).cast(wanted)


def write_study(study: Path, recordings: int) -> None:
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("abcdeghilmnoprstuvw"), random.integers(3, 12))) for _ in range(4000)]
    sentences = np.array([" ".join(random.choice(words, random.integers(6, 15))) for _ in range(200_000)], object)
    tables = {t.path: t for t in (*PAIRED_TABLES, schema.PAIRS)}

    def work() -> dict[str, object]:
        study.mkdir(parents=True, exist_ok=True)
        writers = {path: pq.ParquetWriter(study / path, table.columns) for path, table in tables.items()}
        for first in range(0, recordings, PART):
            for path, rows in columns(first, min(PART, recordings - first), sentences).items():
                writers[path].write_table(filled(rows, tables[path].columns))
        for writer in writers.values():
            writer.close()
        codes = {"code": [f"SCP//{name}" for name in ("NORM", "IMI", "STTC", "LBBB", "LVH")]}
        codes["parent_codes"] = [[f"SCP_CLASS//{name}"] for name in ("NORM", "MI", "STTC", "CD", "HYP")]
        pq.write_table(filled(pa.table(codes), schema.CODES.columns), schema.CODES.at(study))
        sparse_store(study, RATE, SAMPLES, recordings, SHARD)
        return {"data_kind": schema.SIMULATED}

    outputs = {path: study / path for path in tables if path != schema.PAIRS.path}
    run_stage(stage_manifest(study, "ingest"), config={"name": "simulated"}, inputs={}, outputs=outputs, work=work)
    run_stage(
        stage_manifest(study, "pair"),
        config={"code_kinds": {kind: list(of) for kind, of in CODE_KINDS.items()}},
        inputs=outputs,
        outputs={schema.PAIRS.path: schema.PAIRS.at(study)},
        work=dict,
    )


def open_study(study: Path) -> dict[str, float]:
    """What `align` and `evaluate` do before they read: pairs that belong to their tables, a store that is whole."""
    began = time.perf_counter()
    refuse_stale_pairs(study)
    store = Store.open(study)
    store.read([store.rows - 1])
    return {"open_s": round(time.perf_counter() - began, 3)}


class EnoughError(Exception):
    """The steps that were asked for are done."""


def train(study: Path, steps: int) -> dict[str, float]:
    from einthoven.training.align import train_on_study

    marks: list[float] = []

    def stop(step: int, total: int, note: str) -> None:
        if note.startswith("epoch"):
            marks.append(time.perf_counter())
            if step + 1 >= steps:
                raise EnoughError

    recipe, began = load_recipe(None, TINY), time.perf_counter()
    with tempfile.TemporaryDirectory() as out, contextlib.suppress(EnoughError):
        train_on_study(recipe, study, Path(out) / "model", Path(out) / "work", "", stop)
    rate = (len(marks) - 1) * recipe.training.batch / (marks[-1] - marks[0])
    return {"first_step_s": round(marks[0] - began, 1), "pairs_per_s": round(rate), "steps": len(marks)}


def validate(study: Path) -> dict[str, float]:
    """What an epoch ends with, and what probes are fitted on."""
    from einthoven.training.probes import labelled_training

    began = time.perf_counter()
    labelled = labelled_training(study)
    return {"labelled": len(labelled.ids), "labels_s": round(time.perf_counter() - began, 1)}


CHILDREN: dict[str, Callable[..., dict[str, float]]] = {"open": open_study, "train": train, "labels": validate}


def in_child(name: str, *arguments: str) -> dict[str, float]:
    """Run one of CHILDREN in a process of its own; its result, and the largest memory it held."""
    child = subprocess.Popen([sys.executable, __file__, "--child", name, *arguments], stdout=subprocess.PIPE, text=True)
    anonymous = with_files = 0
    while child.poll() is None:
        try:
            status = Path(f"/proc/{child.pid}/status").read_text()
        except OSError:
            break
        found = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith(("Rss", "VmH"))}
        anonymous = max(anonymous, int(found.get("RssAnon", 0)))
        with_files = max(with_files, int(found.get("VmHWM", 0)))
        time.sleep(0.1)
    said = child.communicate()[0]
    if child.returncode:
        raise SystemExit(f"{name}: failed")
    memory = {"anonymous_mb": round(anonymous / 1024), "with_files_mb": round(with_files / 1024)}
    return {**json.loads(said.strip().splitlines()[-1]), **memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--recordings", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--study", type=Path, help="made there and kept; taken as it is where it is there")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, study, *others = options.child
        print(json.dumps(CHILDREN[name](Path(study), *map(int, others))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        study = options.study or Path(scratch) / "study"
        if not schema.PAIRS.at(study).exists():
            write_study(study, options.recordings)
        size = sum(table.at(study).stat().st_size for table in (*PAIRED_TABLES, schema.PAIRS))
        result = {
            "command": "make bench-million",
            "data_kind": schema.SIMULATED,
            "recordings": options.recordings,
            "tables_mb": round(size / 1e6),
            "waveforms_gb_apparent": round(options.recordings * 12 * SAMPLES * 2 / 1e9, 1),
            **facts(),
            "open": in_child("open", str(study)),
            "train": in_child("train", str(study), str(options.steps)),
            "labels": in_child("labels", str(study)),
        }
    print(json.dumps(result, indent=2))
    if options.out:
        write_json(options.out, result)


if __name__ == "__main__":
    main()

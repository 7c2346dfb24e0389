"""A full report of 20,000 ECGs: retrieval, zero-shot, probes, subgroups, calibration, intervals of 1,000 resamples.

python benchmarks/evaluation.py [--out results/evaluation.json] [--recordings 20000]

Everything is simulated: a study's tables with five classes and reports, of which a third are like another's, and a file
of embeddings beside it (`einthoven evaluate FILE.npz STUDY`, so no encoder runs). The command runs in a process of its
own, which reports wall and processor time and its largest memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from machine import facts

from einthoven import schema
from einthoven.config import CODE_KINDS
from einthoven.evaluation.labels import ORDER
from einthoven.evaluation.zeroshot import PROMPTS
from einthoven.pipeline.stage import PAIRED_TABLES
from einthoven.study import run_stage, stage_manifest, write_json, write_table

WIDTH, DIM, TRAINED, SEED = 512, 256, 5000, 0


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def write_study(study: Path, recordings: int) -> np.ndarray:
    """Tables of `recordings` in the validation split and TRAINED in the train split; the classes, bool [n, 5]."""
    random = np.random.default_rng(SEED)
    count = recordings + TRAINED
    number = np.arange(count)
    labels = random.random((count, len(ORDER))) < (0.45, 0.25, 0.25, 0.22, 0.12)
    labels[~labels.any(axis=1), 0] = True
    ids = np.array([f"r{i:06d}" for i in number], object)
    rows, classes = np.nonzero(labels)
    findings = np.array([f"SCP//{name}" for name in ORDER])[classes]
    own = np.split(findings, np.searchsorted(rows, number[1:]))
    texts = [f"{' '.join(of)} report {i if i % 3 else i // 60}" for i, of in enumerate(own)]
    shared = {"recording_id": ids, "subject_id": np.where(number < TRAINED, number // 2, number // 2 + count)}
    shared |= {"split": np.where(number < TRAINED, "train", "validation"), "row": number}
    person = {"sex": random.choice(["female", "male"], count), "age": random.uniform(20, 95, count).astype(np.float32)}
    person |= {
        "device": random.choice([f"device {i}" for i in range(8)], count),
        "site": random.choice(["a", "b"], count),
    }
    coded = {
        "codes": own,
        "code_kinds": [["finding"] * len(of) for of in own],
        "code_days": [[0.0] * len(of) for of in own],
    }
    events = {"recording_id": ids[rows], "subject_id": shared["subject_id"][rows], "code": findings}
    codes = {"code": [f"SCP//{name}" for name in ORDER], "parent_codes": [[f"SCP_CLASS//{name}"] for name in ORDER]}
    tables = {
        schema.RECORDINGS: shared | person,
        schema.PAIRS: shared | coded | {"text": texts},
        schema.EVENTS: events,
        schema.CODES: codes,
        **{table: {} for table in (schema.NOTES, schema.ENTITIES, schema.EXCLUDED)},
    }
    for table, columns in tables.items():
        size = len(next(iter(columns.values()), ()))
        whole = {f.name: columns.get(f.name, pa.nulls(size, f.type)) for f in table.columns}
        write_table(
            table,
            study,
            pa.table({name: pa.array(values, table.columns.field(name).type) for name, values in whole.items()}),
        )
    inputs = {table.path: table.at(study) for table in PAIRED_TABLES}
    said = {"data_kind": schema.SIMULATED}
    run_stage(stage_manifest(study, "ingest"), config={}, inputs={}, outputs=inputs, work=lambda: said)
    kinds = {"code_kinds": {kind: list(of) for kind, of in CODE_KINDS.items()}}
    outputs = {schema.PAIRS.path: schema.PAIRS.at(study)}
    run_stage(stage_manifest(study, "pair"), config=kinds, inputs=inputs, outputs=outputs, work=dict)
    return labels


def write_embeddings(file: Path, labels: np.ndarray) -> None:
    """Features and vectors that know something of the classes, and of which text belongs to which ECG."""
    random = np.random.default_rng(SEED + 1)
    count = len(labels)
    features = labels @ random.normal(size=(labels.shape[1], WIDTH)) + 4 * random.normal(size=(count, WIDTH))
    centres = random.normal(size=(labels.shape[1], DIM))
    text = labels @ centres + random.normal(size=(count, DIM))
    ids = np.array([f"r{i:06d}" for i in range(count)])
    prompts = {f"prompt_{name}": unit(centres[[i]]) for i, name in enumerate(ORDER) if name in PROMPTS}
    ecg = unit(text + 2 * random.normal(size=(count, DIM)))
    arrays = {"recording_id": ids, "features": features.astype(np.float32), "ecg": ecg, "text": unit(text)}
    np.savez(file, **arrays, text_recording_id=ids, **prompts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--recordings", type=int, default=20_000)
    parser.add_argument("--scratch", type=Path, help="where the study is made, and kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = options.scratch or Path(temporary)
        study, file = scratch / "study", scratch / "vectors.npz"
        write_embeddings(file, write_study(study, options.recordings))
        asked = ("evaluate", str(file), str(study), "--split", "validation", "--out", str(scratch / "report"))
        began = time.perf_counter()
        child = subprocess.Popen([sys.executable, "-m", "einthoven", *asked], stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - began
        if status:
            raise SystemExit("evaluate: failed")
    result = {
        "command": "make bench-evaluation",
        "data_kind": schema.SIMULATED,
        "recordings": options.recordings,
        "training_recordings_of_probes": TRAINED,
        **facts("numpy", "scikit-learn"),
        "seconds": round(wall, 1),
        "processor_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_mb": round(used.ru_maxrss / 1024),
    }
    print(json.dumps(result, indent=2))
    if options.out:
        write_json(options.out, result)


if __name__ == "__main__":
    main()

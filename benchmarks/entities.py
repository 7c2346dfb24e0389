"""Notes read per second, with all attributes. Prints one JSON line.

python benchmarks/entities.py --notes 40000                   # simulated notes
python benchmarks/entities.py --source ../shared/data         # notes of ACI-Bench and MTS-Dialog below it

Every note is different and has 160 words. `notes_per_second` is that of the whole stage: hashes, two processes that
first load the lexicon, the table; `cpu_notes_per_second` that of the matcher in one process, by processor time.
"""

import argparse
import csv
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from einthoven import schema
from einthoven.config import Entities
from einthoven.entities.extract import extract
from einthoven.entities.lexicon import load
from einthoven.entities.matcher import Matcher
from einthoven.study import write_table

WORDS = 160
FILES = {"notes-aci-bench/train.csv": "note", "notes-mts-dialog/MTS-Dialog-TrainingSet.csv": "section_text"}


def corpus(source: Path | None) -> list[str]:
    """Sentences to make notes of: those of the source, or simulated from the lexicon."""
    if source is None:
        random = np.random.default_rng(0)
        terms = [term.term for term in load(Entities())]
        opens = ("The patient has", "No evidence of", "History of", "Possible", "Father had", "Denies", "Return if")
        plain = ["was", "seen", "today", "and", "is", "well", "on", "the", "present", "dose", "with", "good", "sleep"]
        return [
            f"{opens[random.integers(len(opens))]} {terms[random.integers(len(terms))]} and "
            f"{' '.join(random.permutation(plain))}."
            for _ in range(20_000)
        ]
    lines: list[str] = []
    for name, column in FILES.items():
        with (source / name).open(encoding="utf-8", newline="") as file:
            lines += [line for row in csv.DictReader(file) for line in row[column].splitlines(keepends=True)]
    return lines


def notes(source: Path | None, count: int) -> list[str]:
    """Different notes of WORDS words, each from another place of the corpus."""
    words = [word for line in corpus(source) for word in line.replace("\n", " \n ").split(" ") if word]
    words *= 2
    starts = np.random.default_rng(1).integers(0, len(words) // 2, count)
    return [" ".join(words[start : start + WORDS]) + f" {number}" for number, start in enumerate(starts)]


def write_notes(study: Path, texts: list[str]) -> None:
    number = len(texts)
    columns = {
        "note_id": [str(i) for i in range(number)],
        "subject_id": [1] * number,
        "time": pa.nulls(number, schema.TIME),
        "kind": ["clinical"] * number,
        "text": texts,
        "recording_id": pa.nulls(number, pa.string()),
        "code": pa.nulls(number, pa.string()),
    }
    write_table(schema.NOTES, study, pa.table(columns, schema=schema.NOTES.columns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="folder with public notes; without it, notes are simulated")
    parser.add_argument("--notes", type=int, default=40_000)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    texts = notes(arguments.source, arguments.notes)
    start = time.perf_counter()
    matcher = Matcher(load(Entities()))
    loading = time.perf_counter() - start
    some = texts[:4000]
    processor = time.process_time()
    mentions = sum(map(len, matcher.find_all(some)))
    processor = time.process_time() - processor
    with tempfile.TemporaryDirectory() as scratch:
        write_notes(Path(scratch), texts)
        start = time.perf_counter()
        counts = extract(Entities(), Path(scratch), lambda done, total: None, processes=arguments.processes)
        seconds = time.perf_counter() - start
    result = {
        "benchmark": "entities",
        "data": "real" if arguments.source else "simulated",
        "notes": counts["texts_read"],
        "words": WORDS,
        "mentions_per_note": round(mentions / len(some), 1),
        "cores": len(os.sched_getaffinity(0)),
        "processes": arguments.processes,
        "load": [round(x, 1) for x in os.getloadavg()],
        "loading_seconds": round(loading, 2),
        "seconds": round(seconds, 2),
        "notes_per_second": round(len(texts) / seconds),
        "cpu_notes_per_second": round(len(some) / processor),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

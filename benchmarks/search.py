"""Search in 200,000 recordings: time of a query and recall against the exact answer, with and without a filter.

python benchmarks/search.py [--out results/search.json] [--recordings 200000]

Vectors are simulated: clustered, unit length. Queries are vectors near a cluster, as a text's is near its ECGs.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from machine import processor

from einthoven import schema
from einthoven.embed import lists
from einthoven.search.exact import ExactIndex
from einthoven.search.filters import parse
from einthoven.search.index import VectorIndex
from einthoven.search.lance import LanceIndex
from einthoven.study import write_json

DIM, CLUSTERS, QUERIES, TOP, SEED = 256, 500, 200, 10, 0
FILTER = "age >= 84 and split = train"  # keeps about a sixth


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def recordings(count: int) -> tuple[pa.Table, np.ndarray]:
    generator = np.random.default_rng(SEED)
    centres = unit(generator.normal(size=(CLUSTERS, DIM)))
    near = lambda n: unit(centres[generator.integers(CLUSTERS, size=n)] + 0.06 * generator.normal(size=(n, DIM)))  # noqa: E731
    vectors, queries = near(count), near(QUERIES)
    columns = {field.name: pa.nulls(count, field.type) for field in schema.INDEX.columns}
    columns |= {
        "recording_id": pa.array([f"r{i}" for i in range(count)]),
        "subject_id": pa.array(np.arange(count) // 3),
        "split": pa.array(["train"] * count),
        "age": pa.array(generator.uniform(0, 100, count).astype(np.float32)),
        "sex": pa.array(["female", "male"] * (count // 2) + ["female"] * (count % 2)),
        "coarse": lists(vectors),
    }
    return pa.table(columns).cast(schema.INDEX.columns), queries


def measured(
    index: VectorIndex, queries: np.ndarray, filtered: bool, oracle: list[set[str]] | None
) -> tuple[dict, list]:
    where = parse(FILTER) if filtered else ()
    index.query(queries[0], TOP, "coarse", where)  # warm
    times, found = [], []
    for query in queries:
        began = time.perf_counter()
        hits = index.query(query, TOP, "coarse", where)
        index.rows([name for name, _ in hits])
        times.append((time.perf_counter() - began) * 1e3)
        found.append({name for name, _ in hits})
    recall = 1.0 if oracle is None else float(np.mean([len(a & b) / TOP for a, b in zip(found, oracle, strict=True)]))
    figures = {"p50_ms": np.median(times), "p95_ms": np.quantile(times, 0.95), "recall@10": recall}
    return {name: round(float(value), 4) for name, value in figures.items()}, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--recordings", type=int, default=200_000)
    options = parser.parse_args()
    rows, queries = recordings(options.recordings)
    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as place:
        oracle: dict[bool, list[set[str]]] = {}
        for name, index in (("exact", ExactIndex()), ("LanceDB", LanceIndex(place))):
            began = time.perf_counter()
            index.add(rows)
            index.settle()
            results[name] = {"build_s": round(time.perf_counter() - began, 1)}
            for filtered in (False, True):
                figures, found = measured(index, queries, filtered, oracle.get(filtered))
                oracle.setdefault(filtered, found)
                results[name]["filtered" if filtered else "all"] = figures
            print(name, results[name], flush=True)
    facts = {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "data_kind": "simulated"}
    about = {"command": "make bench-search", "recordings": options.recordings, "dim": DIM, "queries": QUERIES, **facts}
    if options.out:
        write_json(options.out, {**about, "seed": SEED, "filter": FILTER, "indexes": results})


if __name__ == "__main__":
    main()

"""Seconds and peak memory of ranking a large gallery for each of many queries: best rank and average precision.

    python benchmarks/retrieval.py [--rows 100000] [--queries 0] [--dim 256] [--alone 0.5]

Unit vectors of noise. A share `alone` of the recordings has a text of its own; the others share texts by a Zipf law, as
reports do, so that the commonest text belongs to several per cent of all. `queries`: only so many of them, spread over
all, to tell from them how long all would take; 0: all. Prints one JSON line.
"""

import argparse
import json
import resource
import time

import numpy as np

from einthoven.evaluation.retrieval import CELLS, ranked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=0)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--alone", type=float, default=0.5)
    arguments = parser.parse_args()
    n, random = arguments.rows, np.random.default_rng(0)
    ecg, text = (random.standard_normal((n, arguments.dim), np.float32) for _ in range(2))
    shared = np.minimum(random.zipf(1.3, n), n // 10)
    groups = np.where(random.random(n) < arguments.alone, n + np.arange(n), shared)
    asked = np.linspace(0, n - 1, arguments.queries or n).astype(int)
    idle = peak()
    start, busy = time.perf_counter(), time.process_time()
    found = ranked(ecg[asked], text, groups[asked], groups)
    print(
        json.dumps(
            {
                **vars(arguments),
                "commonest": round(float(np.unique(groups, return_counts=True)[1].max() / n), 3),
                "map": round(float(found.precision.mean()), 5),
                "seconds": round(time.perf_counter() - start, 1),
                "processor_seconds": round(time.process_time() - busy, 1),
                "all_queries_seconds": round((time.process_time() - busy) * n / len(asked), 1),
                "idle_mb": idle,
                "peak_mb": peak(),
                "all_similarities_mb": round(4 * n * n / 1e6),
                "cells": CELLS,
            }
        )
    )


def peak() -> int:
    """The most memory this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()

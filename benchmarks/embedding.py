"""Embeddings a second of a study, and of the bare forward pass over the same strips, resident, in turns.

    python benchmarks/embedding.py [--out results/embedding.json] [--rounds 20]

The real function on a simulated study: read, cut into three strips, encode, gather. One part of it each turn, so that
the turns are short. Two models, at 100 and 500 Hz. Ratios by the clock and by processor time, which other work on the
machine disturbs less.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import processor

from einthoven.config import load_recipe
from einthoven.embed import embed_rows
from einthoven.model import STRIPS
from einthoven.study import write_json
from einthoven.waveforms.rates import at_rate
from einthoven.waveforms.strips import from_store
from training import GOODPUT, RECIPES, material, ratios, simulated, timed

BATCH, SUBJECTS = 64, 300


def measured(name: str, rate: int, study: Path, rounds: int) -> dict[str, Any]:
    recipe = load_recipe(RECIPES / name, [f"ecg.sampling_rate={rate}"])
    model, store = material(recipe, study)[0].eval(), at_rate(study, rate)
    strips = torch.from_numpy(from_store(store.read(np.arange(BATCH)), rate, rate, model.strip_samples, STRIPS))
    model.encode_strips(strips)
    turns = []
    for first in range(0, rounds * BATCH, BATCH):
        rows = np.arange(first, first + BATCH) % store.rows
        whole = timed(lambda part: embed_rows(model, store, part, lambda done, total: None, batch=BATCH), [rows])
        turns.append((whole, timed(model.encode_strips, [strips])))
    rate_of = BATCH / np.median([whole[0] for whole, _ in turns])
    return {"recordings_per_s": round(float(rate_of), 1), "of_bare_forward": ratios(turns)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as place:
        study = simulated(Path(place), SUBJECTS)
        for name, rate in GOODPUT:
            results[f"{name}, {rate} Hz"] = measured(name, rate, study, options.rounds)
            print(name, rate, results[f"{name}, {rate} Hz"], flush=True)
    facts = {
        "processor": processor(), "cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "data_kind": "simulated", "command": "make bench-embedding",
    }  # fmt: skip
    if options.out:
        write_json(options.out, facts | {"batch": BATCH, "strips": STRIPS, "results": results})


if __name__ == "__main__":
    main()

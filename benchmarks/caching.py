"""Peak memory and time of a training step by gradient caching, and of the same step at once; each in an own process.

    python benchmarks/caching.py [--batch 4096] [--chunk 128] [--direct 512]

The recipe's encoders, strips of noise and made-up texts. `direct` is a smaller batch whose step is taken at once: its
memory grows with the batch, that of the cached step hardly does. Prints one JSON line.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from einthoven.batches import Batch
from einthoven.config import load_recipe
from einthoven.model import Model
from einthoven.training.loop import precision
from einthoven.training.step import backward

WORDS = ("sinus", "rhythm", "normal", "ecg", "lagetyp", "infarkt", "inferiorer", "vorhofflimmern", "abnorm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--chunk", type=int, default=128)
    parser.add_argument("--direct", type=int, default=512)
    parser.add_argument("--recipe", type=Path, default=Path(__file__).parents[1] / "recipes" / "ecg-text.toml")
    parser.add_argument("--step", nargs=2, type=int, help=argparse.SUPPRESS)  # batch and chunk: one measurement
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(measured(arguments.recipe, *arguments.step)))
        return
    results = {}
    for name, batch, chunk in (("cached", arguments.batch, arguments.chunk), ("direct", arguments.direct, 0)):
        command = [sys.executable, __file__, "--recipe", str(arguments.recipe), "--step", str(batch), str(chunk)]
        results[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(json.dumps({**results, "precision": precision("auto", torch.device("cpu")), "torch": torch.__version__}))


def measured(path: Path, rows: int, chunk: int) -> dict[str, float]:
    recipe = load_recipe(path)
    options = replace(recipe.training, chunk=chunk)
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(WORDS, generator.integers(3, 30))) for _ in range(rows)]
    torch.manual_seed(0)
    model = Model.create(recipe.ecg, recipe.text, recipe.space, texts).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    tokens, mask = model.tokenize(texts)
    there, order = torch.ones(rows, dtype=torch.bool), torch.arange(rows)
    strip = torch.randn(rows, 12, model.strip_samples)
    batch = Batch(strip=strip, subject=order, tokens=tokens, mask=mask, text=order, has_text=there, whole_text=tokens)
    kind = precision("auto", model.device)
    idle = _peak()
    began, worked = time.perf_counter(), time.process_time()
    backward(model, model, batch, options, kind)
    optimizer.step()
    return {
        "batch": rows,
        "chunk": chunk,
        "seconds": round(time.perf_counter() - began, 1),
        "processor_seconds": round(time.process_time() - worked, 1),
        "peak_gb": round(_peak(), 2),
        "before_the_step_gb": round(idle, 2),
    }


def _peak() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


if __name__ == "__main__":
    main()

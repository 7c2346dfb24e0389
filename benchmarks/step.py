"""How much of the bare forward + backward + update rate a training epoch keeps, both in one run, in turns.

    python benchmarks/step.py [--steps 20] [--rounds 3]

The bare step works on one resident batch of the same mean shape; the epoch reads int16 recordings from a memory map,
crops, augments, pads text, updates the average and reports progress. Prints one JSON line.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from einthoven.batches import Pairs, Texts, epoch_batches
from einthoven.config import load_recipe
from einthoven.model import Model
from einthoven.training.align import align
from einthoven.training.loop import precision
from einthoven.training.step import backward

WORDS = ("sinus", "rhythm", "normal", "ecg", "lagetyp", "infarkt", "inferiorer", "vorhofflimmern", "abnorm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recipe", type=Path, default=Path(__file__).parents[1] / "recipes" / "ecg-text.toml")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe)
    batch = recipe.training.batch
    recipe = replace(recipe, training=replace(recipe.training, epochs=1))
    n = arguments.steps * batch
    generator = np.random.default_rng(0)
    texts = sorted({" ".join(generator.choice(WORDS, generator.integers(3, 30))) for _ in range(n)})
    torch.manual_seed(0)
    model = Model.create(recipe.ecg, recipe.text, recipe.space, texts)
    tokens, mask = model.tokenize(texts)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "signals.npy"
        samples = 10 * recipe.ecg.sampling_rate
        np.save(path, generator.integers(-1000, 1000, (n, 12, samples), np.int16))
        signals = np.load(path, mmap_mode="r")
        text_of = generator.integers(0, len(texts), n)
        spoken = Texts(text_of, tokens, mask, model.tokenizer.mask_token_id, model.content)
        pairs = Pairs(np.arange(n), np.arange(n), lambda rows: signals[rows], spoken)
        bare, whole = [], []
        for turn in range(arguments.rounds):
            bare.append(bare_rate(model, pairs, recipe, arguments.steps))
            times: list[float] = []

            def mark(step: int, steps: int, note: str, times: list[float] = times) -> None:
                times.append(time.perf_counter())

            align(recipe, model, pairs, None, Path(folder) / str(turn), progress=mark)
            # between the ends of the first and the last step: start-up and saving are not steps
            whole.append((len(times) - 1) * batch / (times[-1] - times[0]))
    ratios = [w / b for w, b in zip(whole, bare, strict=True)]
    print(json.dumps({
        "bare_pairs_per_s": round(float(np.median(bare)), 1), "epoch_pairs_per_s": round(float(np.median(whole)), 1),
        "ratio_median": round(float(np.median(ratios)), 3), "ratios": [round(r, 3) for r in ratios],
        "batch": batch, "threads": torch.get_num_threads(), "precision": precision("auto", model.device),
        "torch": torch.__version__,
    }))  # fmt: skip


def bare_rate(model: Model, pairs: Pairs, recipe, steps: int) -> float:
    kind = precision("auto", model.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    made = list(
        epoch_batches(
            pairs, batch=recipe.training.batch, length=model.strip_samples, rate=recipe.ecg.sampling_rate,
            options=recipe.augmentation, seed=0, epoch=0,
        )
    )  # fmt: skip
    model.train()
    for i, batch in enumerate(made[:steps]):
        if i == 1:
            began = time.perf_counter()
        backward(model, model, batch, recipe.training, kind)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return (steps - 1) * recipe.training.batch / (time.perf_counter() - began)


if __name__ == "__main__":
    main()

"""What a training step and an embedding take: floating-point operations, counted, and triplets a second of a processor.

python benchmarks/compute.py [--out results/compute.json] [--recipe recipes/ptbxl.toml] [--seconds 20]

One batch of the recipe's three-way model (texts and records of full length) goes forward and backward with PyTorch's
counter, which sees convolutions and matrix products, and then again and again in one thread. Projections for GPUs in
docs/scale.md rest on the counts.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import facts
from torch.utils.flop_counter import FlopCounterMode

from einthoven.batches import Batch, Codes, Pairs, Texts, make_batch
from einthoven.config import CODE_KINDS, Recipe, load_recipe
from einthoven.encoders.code_records import Records
from einthoven.encoders.codes import create
from einthoven.model import STRIPS, CodePart, Model
from einthoven.study import write_json
from einthoven.training.loop import adamw, precision
from einthoven.training.step import backward
from einthoven.vocabulary.vocabulary import SPECIAL, build

CODES, WORDS, DENSITY = 2000, 3000, 20


def rate(work: Callable[[], object], rows: int, seconds: float) -> float:
    """Rows a second of processor time; the first call is not counted."""
    work()
    began, done = time.process_time(), 0
    while time.process_time() - began < seconds:
        work()
        done += rows
    return round(done / (time.process_time() - began), 1)


def material(recipe: Recipe, random: np.random.Generator) -> tuple[Model, Batch]:
    """A new model and a batch of noise, long texts and full records."""
    n = recipe.training.batch
    words = [f"w{i:04d}" for i in range(WORDS)]
    texts = [" ".join(random.choice(words, recipe.text.max_tokens)) for _ in range(n)]
    known = build({f"DX//{i:04d}": np.arange(recipe.vocabulary.floor) for i in range(CODES)}, recipe.vocabulary.floor)
    part = CodePart(create(recipe.codes, known, list(CODE_KINDS)), known)
    model = Model.create(recipe.ecg, recipe.text, recipe.space, texts, part)
    tokens, mask = model.tokenize(texts)
    size = n * DENSITY
    records = Records(
        random.integers(len(SPECIAL), len(known), size).astype(np.int32),
        np.full(size, 2, np.int8),
        np.sort(random.uniform(-365, 365, (n, DENSITY))).reshape(-1).astype(np.float32),
        np.arange(0, size + 1, DENSITY),
        np.full(n, 60, np.float32),
    )
    signals = random.integers(-1000, 1000, (n, 12, 10 * recipe.ecg.sampling_rate), np.int16)
    spoken = Texts(np.arange(n), tokens, mask, model.tokenizer.mask_token_id, model.content)
    pairs = Pairs(np.arange(n), np.arange(n), lambda rows: signals[rows], spoken, Codes(records, np.arange(n), 256))
    hertz = recipe.ecg.sampling_rate
    return model, make_batch(pairs, np.arange(n), model.strip_samples, hertz, recipe.augmentation, [0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--recipe", type=Path, default=Path(__file__).parents[1] / "recipes" / "ptbxl.toml")
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement")
    options = parser.parse_args()
    recipe, random = load_recipe(options.recipe), np.random.default_rng(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, batch = material(recipe, random)
    n, hertz = len(batch.strip), recipe.ecg.sampling_rate
    kind, optimizer = precision("auto", model.device), adamw(model, 1e-4, 0.05)

    def step() -> None:
        model.train()
        backward(model, model, batch, recipe.training, kind)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    strips = batch.strip[:, None].expand(-1, STRIPS, -1, -1)
    with FlopCounterMode(display=False) as training:
        step()
    model.eval()
    with FlopCounterMode(display=False) as embedding:
        model.encode_strips(strips)
    trained = rate(step, n, options.seconds)
    model.eval()
    result = {
        "command": "make bench-compute",
        "recipe": options.recipe.name,
        "hertz": hertz,
        "batch": n,
        "parameters": sum(p.numel() for p in model.parameters()),
        "training_gflop_per_triplet": round(training.get_total_flops() / n / 1e9, 3),
        "embedding_gflop_per_recording": round(embedding.get_total_flops() / n / 1e9, 3),
        "triplets_per_processor_second": trained,
        "embedded_per_processor_second": rate(lambda: model.encode_strips(strips), n, options.seconds),
        "dim": recipe.space.dim,
        "features": model.ecg.dim,
        "precision": kind,
        **facts("torch"),
    }
    print(json.dumps(result, indent=2))
    if options.out:
        write_json(options.out, result)


if __name__ == "__main__":
    main()

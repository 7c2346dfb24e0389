"""What test_sharding.py runs, in one process and in two: a small three-way training, killed once where told."""

import json
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from einthoven.batches import Codes, Pairs, Texts
from einthoven.config import CodeEncoder, EcgEncoder, Recipe, Space, TextEncoder, Training
from einthoven.encoders.code_records import Records
from einthoven.encoders.codes import create
from einthoven.model import CodePart, Model
from einthoven.training.align import align
from einthoven.vocabulary.vocabulary import build

TEXTS = [f"finding number {word}" for word in ("one", "two", "three", "four", "five", "six", "seven", "eight")]
RECIPE = Recipe(
    ecg=EcgEncoder(width=8, blocks=(1, 1), dropout=0.0),
    text=TextEncoder(hidden=32, layers=2, heads=2, dropout=0.0, vocabulary=100),
    codes=CodeEncoder(hidden=32, layers=1, heads=2, dropout=0.0),
    space=Space(modalities=("ecg", "codes", "text"), dim=16, coarse_dim=16, hidden=32),
    training=Training(epochs=4, batch=4, precision="fp32", code_words=1.0),
)


def parts() -> tuple[Model, Pairs]:
    torch.manual_seed(0)
    names = [f"DIAGNOSIS//{i}" for i in range(8)]
    vocabulary = build({name: range(3) for name in names}, 1)
    codes = CodePart(create(RECIPE.codes, vocabulary, ("diagnosis",)), vocabulary)
    model = Model.create(RECIPE.ecg, RECIPE.text, RECIPE.space, TEXTS, codes)
    signals = np.random.default_rng(0).integers(-1000, 1000, (8, 12, 1000)).astype(np.int16)
    tokens, mask = model.tokenize(TEXTS)
    order = np.arange(8)
    records = Records(
        vocabulary.encode(names), np.full(8, 2, np.int8), np.zeros(8, np.float32), np.arange(9),
        np.full(8, 50, np.float32),
    )  # fmt: skip
    texts = Texts(order, tokens, mask, model.tokenizer.mask_token_id, model.content)
    return model, Pairs(order, order, lambda rows: signals[rows], texts, Codes(records, order, 8))


class KilledError(Exception):
    pass


def run(workshop: Path, chunk: int, kill: int, then: str = "fsdp") -> list[dict[str, float]]:
    """The history of a training that shares its weights, killed after `kill` steps and resumed with sharding `then`."""

    def stop(step: int, steps: int, note: str) -> None:
        if step == kill:
            raise KilledError

    first, second = (
        replace(RECIPE, training=replace(RECIPE.training, chunk=chunk, sharding=sharding))
        for sharding in ("fsdp", then)
    )
    if kill:
        with suppress(KilledError):
            align(first, *parts(), None, workshop, progress=stop)
    return align(second, *parts(), None, workshop)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    histories = {name: run(place / name, *how) for name, *how in json.loads(sys.argv[2])}
    if torch.distributed.get_rank() == 0:
        (place / "histories.json").write_text(json.dumps(histories))
    torch.distributed.destroy_process_group()

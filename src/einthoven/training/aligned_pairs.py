"""From the tables of a study to what the contrastive loop trains on and is validated by."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from einthoven import schema
from einthoven.batches import Codes, Ints, Texts
from einthoven.config import Recipe
from einthoven.encoders.code_records import Records, code_sets
from einthoven.encoders.codes import create as create_codes
from einthoven.encoders.codes import load as load_codes
from einthoven.encoders.text_features import KeptFeatures
from einthoven.model import STRIPS, CodePart, Model
from einthoven.study import read_manifest, read_table, stage_manifest
from einthoven.training.paired_columns import distinct_texts, records_at, texts_at
from einthoven.vocabulary import vocabulary as vocabularies
from einthoven.vocabulary.patients import train_patients
from einthoven.vocabulary.rules import rules_of
from einthoven.waveforms.store import Store
from einthoven.waveforms.strips import Floats, from_store
from einthoven.wordpiece import common_words

MOST_TEXTS: Final = 200_000
"""Texts that a tokenizer is made of: more change its vocabulary little, and take memory and minutes."""

MOST_HELD: Final = 10_000
"""Validation pairs that choose the checkpoint: of more, a sample."""


class Strips(Protocol):
    """[n, s, 12, t] millivolts, in memory or cut when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Floats: ...


@dataclass(frozen=True)
class StoredStrips:
    """Strips of rows of the store. A validation split in memory may be larger than the memory there is."""

    store: Store
    rows: Ints  # [n]
    rate: int  # hertz of the strips
    length: int  # samples of each

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any, /) -> Floats:
        block = self.store.read(self.rows[key])
        return from_store(block, self.store.sampling_rate, self.rate, self.length, STRIPS)


@dataclass(frozen=True)
class Held:
    """The validation pairs that choose the checkpoint."""

    strips: Strips
    texts: list[str | None]
    text_features: Tensor | None = None  # [m, c] of the distinct texts in their order, by a frozen encoder
    records: Records | None = None
    code_sets: Ints | None = None  # [n] equal numbers: the same codes


def code_kinds(study: Path) -> dict[str, list[str]]:
    """The patterns of each kind of code that the pairs were made with."""
    manifest = read_manifest(stage_manifest(study, "pair"))
    assert manifest is not None  # `align` refuses a study without pairs
    return {kind: list(patterns) for kind, patterns in manifest["config"]["code_kinds"].items()}


def code_part(recipe: Recipe, study: Path) -> CodePart:
    """A pretrained encoder with its vocabulary, or a new one with the vocabulary of the train split."""
    kinds = list(code_kinds(study))
    if recipe.codes.pretrained is not None and (Path(recipe.codes.pretrained) / vocabularies.FILE).exists():
        masked, vocabulary, _ = load_codes(Path(recipe.codes.pretrained), kinds=kinds)
        return CodePart(masked.encoder, vocabulary)
    rules = rules_of(recipe.vocabulary, read_table(schema.CODES, study))
    vocabulary = vocabularies.build(train_patients(study), recipe.vocabulary.floor, rules)
    return CodePart(create_codes(recipe.codes, vocabulary, kinds), vocabulary)


def kept_features(model: Model, study: Path, progress: Callable[[int, int, str], None]) -> KeptFeatures | None:
    """Where the features of texts are kept; None where the model has no frozen encoder of text."""
    if model.text is None or model.text_config is None or not model.text.frozen:
        return None

    def report(done: int, total: int) -> None:
        progress(done, total, "texts through the frozen encoder")

    return KeptFeatures(model.text, model.tokenizer, model.tokenize, model.text_config.max_tokens, study, report)


def vocabulary_texts(
    study: Path, concatenation: str, places: Ints, of_pair: Ints, subjects: Ints, floor: int
) -> list[str]:
    """What a tokenizer is made of: the words that `floor` patients have, of all texts or of MOST_TEXTS at random.

    Args:
        places: [texts] those of the distinct texts.
        of_pair: [n] which of the texts each pair has; -1: none.
        subjects: [n] whose pair it is.
        floor: patients.
    """
    chosen = np.arange(len(places))
    if len(places) > MOST_TEXTS:
        chosen = np.sort(np.random.default_rng(0).choice(len(places), MOST_TEXTS, replace=False))
    texts = [text for part in texts_at(study, concatenation, places[chosen]) for text in part]
    asked = np.isin(of_pair, chosen)
    order = np.argsort(of_pair[asked], kind="stable")
    of_text, patients = of_pair[asked][order], subjects[asked][order]
    parts = np.split(patients, np.searchsorted(of_text, chosen[1:]))
    return common_words(texts, [np.unique(part).tolist() for part in parts], floor)


def texts_of(
    model: Model, of_pair: Ints, texts: Iterable[list[str]], count: int, kept: KeptFeatures | None = None
) -> Texts:
    """The distinct texts as tokens and, of a frozen encoder, as features.

    Args:
        of_pair: [n] which of the texts each pair has; -1: none.
        texts: they, in order, in lists that are tokenised one at a time.
        count: how many they are.
    """
    assert model.tokenizer is not None and model.text_config is not None
    rows = count + int((of_pair < 0).any())  # the last is the empty text, where any pair has none
    small = torch.int16 if len(model.tokenizer) <= 1 << 15 else torch.int32
    tokens = torch.full((rows, model.text_config.max_tokens), model.tokenizer.pad_token_id, dtype=small)
    mask = torch.zeros(tokens.shape, dtype=torch.bool)
    whole: list[str] = []
    start = width = 0
    for part in chain(texts, [[""]] * (rows - count)):
        found, seen = model.tokenize(part)
        stop, width = start + len(part), max(width, found.shape[1])
        tokens[start:stop, : found.shape[1]], mask[start:stop, : found.shape[1]] = found, seen
        start = stop
        whole += part if kept is not None else []
    return Texts(
        of_pair=of_pair,
        tokens=tokens[:, :width],
        mask=mask[:, :width],
        mask_token=model.tokenizer.mask_token_id,
        content=model.content.cpu(),
        features=None if kept is None else kept.of(whole),
    )


def codes_of(model: Model, pairs: pa.Table, study: Path) -> Codes:
    """The coded records of pairs, as the model's encoder takes them."""
    assert model.codes is not None and model.vocabulary is not None
    records = records_at(pairs, study, model.vocabulary, model.codes.kinds)
    return Codes(records, code_sets(records), model.codes.config.max_codes)


def sampled(pairs: pa.Table, most: int, seed: int) -> pa.Table:
    """All pairs, or of more than `most` so many at random, in their order."""
    if len(pairs) <= most:
        return pairs
    return pairs.take(np.sort(np.random.default_rng(seed).choice(len(pairs), most, replace=False)))


def held_of(
    pairs: pa.Table, study: Path, store: Store, model: Model, concatenation: str, kept: KeptFeatures | None = None
) -> Held | None:
    """The validation pairs; None where there are fewer than two."""
    if len(pairs) < 2:
        return None
    strips = StoredStrips(store, pairs["row"].to_numpy(), model.ecg_config.sampling_rate, model.strip_samples)
    codes = None if model.codes is None else codes_of(model, pairs, study)
    records, sets = (None, None) if codes is None else (codes.records, codes.sets)
    numbers, places = distinct_texts(pairs)
    known = [text for part in texts_at(study, concatenation, places) for text in part]
    texts = [known[number] if number >= 0 else None for number in numbers]
    features = None if kept is None else kept.of(list(dict.fromkeys(text for text in texts if text is not None)))
    return Held(strips, texts, features, records, sets)

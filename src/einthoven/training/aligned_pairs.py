"""From the tables of a study to what the contrastive loop trains on and is validated by."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from einthoven import schema
from einthoven.batches import Codes, Ints, Texts
from einthoven.config import Recipe
from einthoven.encoders.code_records import Records, code_sets, encode_records
from einthoven.encoders.codes import create as create_codes
from einthoven.encoders.codes import load as load_codes
from einthoven.encoders.text_features import KeptFeatures
from einthoven.evaluation.split import read_pairs
from einthoven.model import STRIPS, CodePart, Model
from einthoven.study import read_manifest, read_table, stage_manifest
from einthoven.vocabulary import vocabulary as vocabularies
from einthoven.vocabulary.patients import train_patients
from einthoven.vocabulary.rules import rules_of
from einthoven.waveforms.store import Store
from einthoven.waveforms.strips import Floats, from_store


@dataclass(frozen=True)
class Held:
    """The validation pairs that choose the checkpoint."""

    strips: Floats  # [n, s, 12, t] millivolts
    texts: list[str | None]
    text_features: Tensor | None = None  # [m, c] of the distinct texts in their order, by a frozen encoder
    records: Records | None = None
    code_sets: Ints | None = None  # [n] equal numbers: the same codes


def training_pairs(study: Path, concatenation: str, modalities: Sequence[str]) -> pa.Table:
    """The pairs with a signal and, where the model has others, at least one other modality; by recording, with its age.

    `text` is the concatenation asked for.
    """
    table = read_pairs(study, concatenation)
    has = {"text": pc.is_valid(table["text"]), "codes": pc.greater(pc.list_value_length(table["codes"]), 0)}
    other = [has[name] for name in modalities if name in has]
    signal = pc.is_valid(table["row"])
    return table.filter(pc.and_(signal, functools.reduce(pc.or_, other)) if other else signal)


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


def texts_of(model: Model, of_pair: list[str | None], texts: list[str], kept: KeptFeatures | None) -> Texts:
    """The distinct texts as tokens and, of a frozen encoder, as features; and which of them each pair has."""
    number = {text: i for i, text in enumerate(texts)}
    rows = [*texts, ""] if any(text is None for text in of_pair) else texts
    tokens, mask = model.tokenize(rows)
    assert model.tokenizer is not None
    return Texts(
        of_pair=np.array([-1 if text is None else number[text] for text in of_pair]),
        tokens=tokens,
        mask=mask,
        mask_token=model.tokenizer.mask_token_id,
        content=model.content.cpu(),
        features=None if kept is None else kept.of(rows),
    )


def codes_of(model: Model, table: pa.Table) -> Codes:
    """The coded records of pairs, as the model's encoder takes them."""
    assert model.codes is not None
    return Codes(*records_of(model, table), model.codes.config.max_codes)


def records_of(model: Model, table: pa.Table) -> tuple[Records, Ints]:
    """The coded records of pairs, and the number of each one's set of codes."""
    assert model.codes is not None and model.vocabulary is not None
    ages = table["age"].to_numpy().astype(np.float32)
    records = encode_records(table, ages, model.vocabulary, model.codes.kinds)
    return records, code_sets(records)


def held_of(table: pa.Table, store: Store, model: Model, kept: KeptFeatures | None = None) -> Held | None:
    """The validation pairs; None where there are fewer than two."""
    if len(table) < 2:
        return None
    block = store.read(table["row"].to_numpy())
    strips = from_store(block, store.sampling_rate, model.ecg_config.sampling_rate, model.strip_samples, STRIPS)
    records, sets = (None, None) if model.codes is None else records_of(model, table)
    texts = table["text"].to_pylist()
    features = None if kept is None else kept.of(list(dict.fromkeys(text for text in texts if text is not None)))
    return Held(strips, texts, features, records, sets)

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from einthoven.batches import Pairs, Texts, epoch_batches
from einthoven.config import Augmentation, EcgEncoder, Recipe, Space, TextEncoder, Training
from einthoven.encoders.text import train_tokenizer
from einthoven.errors import EinthovenError
from einthoven.model import Model
from einthoven.model_directory import load
from einthoven.training.align import align, validate
from einthoven.training.aligned_pairs import Held, kept_features, texts_of
from einthoven.training.step import backward
from einthoven.waveforms.strips import from_store

TEXTS = [f"finding number {word}" for word in ("one", "two", "three", "four", "five", "six", "seven", "eight")]
RECIPE = Recipe(
    ecg=EcgEncoder(width=8, blocks=(1, 1), dropout=0.0),
    text=TextEncoder(hidden=32, layers=1, heads=2, dropout=0.1, vocabulary=100),
    space=Space(dim=16, hidden=32),
    augmentation=Augmentation(noise_mv=0.005, wander_mv=0, lead_dropout=0, word_dropout=0),
    training=Training(
        epochs=4, batch=4, learning_rate=3e-3, ema=0.9, validate_every=1, precision="fp32", clip_norm=1.0
    ),
)


def waves() -> np.ndarray:
    t = np.arange(1000) / 100
    shapes = [np.sin(2 * np.pi * (1 + k) * t + lead) for k in range(8) for lead in range(12)]
    return (1000 * np.array(shapes).reshape(8, 12, 1000)).astype(np.int16)


def parts(recipe: Recipe) -> tuple[Model, Pairs, Held]:
    torch.manual_seed(0)
    model, signals = Model.create(recipe.ecg, recipe.text, recipe.space, TEXTS), waves()
    tokens, mask = model.tokenize(TEXTS)
    order = np.arange(8)
    texts = Texts(order, tokens, mask, model.tokenizer.mask_token_id, model.content)
    pairs = Pairs(order, order, lambda rows: signals[rows], texts)
    return model, pairs, Held(from_store(signals, 100, 100, model.strip_samples, 2), TEXTS)


def test_eight_pairs_are_learnt_by_heart(tmp_path: Path) -> None:
    recipe = replace(RECIPE, training=replace(RECIPE.training, epochs=60, batch=8, validate_every=10, words=0.0))
    history = align(recipe, *parts(recipe), tmp_path)
    assert history[-1]["loss"] < 0.2 * history[0]["loss"]
    model = load(tmp_path / "best")
    ecg, text = model.encode_ecg(waves() / 1000, 100), model.encode_text(TEXTS)
    assert ((ecg @ text.T).argmax(axis=1) == np.arange(8)).all()


def test_a_step_in_chunks_is_the_step_of_the_whole_batch() -> None:
    model, pairs, _ = parts(RECIPE)
    model.eval()  # no dropout and no normalisation over the batch: what a chunk's rows are does not matter
    (batch,) = epoch_batches(
        pairs, batch=8, length=model.strip_samples, rate=100, options=RECIPE.augmentation, seed=0, epoch=0
    )
    steps = []
    for chunk in (0, 3):
        model.zero_grad()
        loss = backward(model, model, batch, replace(RECIPE.training, chunk=chunk), "fp32")
        steps.append((loss, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}))
    (loss, whole), (again, chunked) = steps
    assert float(again) == pytest.approx(float(loss), rel=1e-5)
    for name, gradient in whole.items():
        assert gradient is not None and chunked[name] is not None
        assert torch.allclose(gradient, chunked[name], atol=1e-5), name
    assert max(float(gradient.abs().max()) for gradient in whole.values()) > 1e-2


class KilledError(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path, stop: int) -> None:
    def kill(step: int, steps: int, note: str) -> None:
        if step == stop:
            raise KilledError

    whole = align(RECIPE, *parts(RECIPE), tmp_path / "whole")
    with pytest.raises(KilledError):
        align(RECIPE, *parts(RECIPE), tmp_path / "killed", progress=kill)
    again = align(RECIPE, *parts(RECIPE), tmp_path / "killed")
    assert again == whole
    expected, got = (load(tmp_path / name / "best").state_dict() for name in ("whole", "killed"))
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_the_state_of_another_run_is_refused(tmp_path: Path) -> None:
    align(RECIPE, *parts(RECIPE), tmp_path, signature="one")
    with pytest.raises(EinthovenError, match="unfinished run of another recipe"):
        align(RECIPE, *parts(RECIPE), tmp_path, signature="two")


def megatron(place: Path, **text: Any) -> Recipe:
    """A recipe with a tiny GatorTron, random and saved as a user would have it."""
    from transformers import MegatronBertConfig, MegatronBertModel

    tokenizer = train_tokenizer(TEXTS, 100)
    torch.manual_seed(1)
    config = MegatronBertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
    )  # fmt: skip
    MegatronBertModel(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return replace(RECIPE, text=TextEncoder(pretrained=str(place), max_tokens=16, **text))


def test_gatortron_is_trained_from_its_second_layer_on(tmp_path: Path) -> None:
    recipe = megatron(tmp_path / "gatortron", frozen_layers=1)
    model, pairs, held = parts(recipe)
    before = {name: p.detach().clone() for name, p in model.text.body.named_parameters()}
    align(recipe, model, pairs, held, tmp_path / "work")
    best = load(tmp_path / "work" / "best")
    after = dict(best.text.body.named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    still = ("embeddings.", "encoder.layer.0.", "pooler.")
    keys = {name for name in before if name.endswith("key.bias")}  # which a softmax over keys does not see
    assert changed | keys == {name for name in before if not name.startswith(still)} | keys
    assert {"encoder.layer.1.output.dense.weight", "encoder.ln.weight"} <= changed
    best.save(tmp_path / "model")
    assert np.array_equal(load(tmp_path / "model").encode_text(TEXTS), best.encode_text(TEXTS))


@pytest.mark.parametrize("chunk", [0, 3])
def test_a_step_on_kept_features_is_the_step_with_the_encoder(tmp_path: Path, chunk: int) -> None:
    recipe = megatron(tmp_path / "gatortron", frozen=True)
    model, pairs, _ = parts(recipe)
    model.eval()
    of_pair = np.array([0, 1, 2, 3, 4, 5, -1, 1])
    kept = kept_features(model, tmp_path / "study", lambda done, total, note: None)
    steps = []
    for features in (None, kept):
        given = replace(pairs, texts=texts_of(model, of_pair, [TEXTS[:3], TEXTS[3:]], len(TEXTS), features))
        (batch,) = epoch_batches(
            given, batch=8, length=model.strip_samples, rate=100, options=recipe.augmentation, seed=0, epoch=0
        )
        assert (batch.text_features is None) == (features is None)
        model.zero_grad()
        loss = backward(model, model, batch, replace(recipe.training, chunk=chunk), "fp32")
        steps.append((float(loss), {name: p.grad for name, p in model.named_parameters() if p.requires_grad}))
    (loss, gradients), (again, others) = steps
    assert again == pytest.approx(loss, abs=1e-5)
    assert all(torch.allclose(gradients[name], others[name], atol=1e-5) for name in gradients)
    assert float(gradients["words.weight"].abs().max()) > 1e-3  # words are predicted all the same


def test_a_frozen_encoder_runs_once_for_a_text(tmp_path: Path) -> None:
    recipe = megatron(tmp_path / "gatortron", frozen=True)
    model, pairs, held = parts(recipe)
    kept = kept_features(model, tmp_path / "study", lambda done, total, note: None)
    pairs = replace(pairs, texts=texts_of(model, np.arange(8), [TEXTS], len(TEXTS), kept))
    seen = replace(held, text_features=kept.of(TEXTS))
    assert validate(model.eval(), seen) == pytest.approx(validate(model, held), abs=1e-6)
    runs: list[int] = []
    model.text.register_forward_hook(lambda *_: runs.append(1))
    align(recipe, model, pairs, seen, tmp_path / "work")
    assert not runs
    best = load(tmp_path / "work" / "best")
    assert torch.equal(
        best.text.body.embeddings.word_embeddings.weight, model.text.body.embeddings.word_embeddings.weight
    )
    assert np.isclose(best.card["validation_mrr"], validate(best, held), atol=1e-6)

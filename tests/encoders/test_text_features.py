import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from einthoven.config import TextEncoder
from einthoven.encoders import text_features
from einthoven.encoders.text import TextTransformer, small_bert, text_body, train_tokenizer
from einthoven.encoders.text_features import KeptFeatures, encode_texts, encoder_digest
from einthoven.errors import EinthovenError

TEXTS = [
    "sinus rhythm", "vorhofflimmern mit schneller ueberleitung", "left bundle branch block", "normal", "pacemaker",
    "inferior infarct, age undetermined", "lvh",
]  # fmt: skip
TOKENIZER = train_tokenizer(TEXTS, 80)


def encoder(seed: int = 0) -> TextTransformer:
    torch.manual_seed(seed)
    return TextTransformer(text_body(small_bert(TextEncoder(hidden=16, layers=2, heads=2), 80)), frozen=True).eval()


def tokenize(texts: Any) -> tuple[torch.Tensor, torch.Tensor]:
    batch = TOKENIZER(list(texts), padding=True, truncation=True, max_length=20, return_tensors="pt")
    return batch["input_ids"], batch["attention_mask"]


def kept(study: Path, told: list[int] | None = None, **changes: Any) -> KeptFeatures:
    def progress(done: int, total: int) -> None:
        if told is not None:
            told.append(done)

    given = {"encoder": encoder(), "tokenizer": TOKENIZER, "tokenize": tokenize, "max_tokens": 20, **changes}
    return KeptFeatures(**given, study=study, progress=progress)


def alone(texts: list[str]) -> np.ndarray:
    with torch.no_grad():
        return np.concatenate([encoder()(*tokenize([text])).numpy() for text in texts])


def test_each_text_gets_what_it_gets_alone() -> None:
    assert np.allclose(encode_texts(encoder(), tokenize, TEXTS, batch=3), alone(TEXTS), atol=1e-6)


def test_what_is_kept_is_not_encoded_again(tmp_path: Path) -> None:
    told: list[int] = []
    first = kept(tmp_path, told).of(TEXTS[:4])
    assert np.allclose(first, alone(TEXTS[:4]), atol=1e-6) and told == [4]
    extended = kept(tmp_path, told).of([TEXTS[5], *TEXTS[:4][::-1], TEXTS[6]])
    assert told == [4, 2]
    assert torch.equal(extended[1:5], first.flip(0))
    assert np.allclose(extended[[0, 5]], alone(TEXTS[5:7]), atol=1e-6)
    again = kept(tmp_path, told).of(TEXTS[:4])
    assert told == [4, 2] and torch.equal(again, first)
    assert again.requires_grad is False and not again.is_inference()  # a head can be trained on it


def test_no_text_is_written(tmp_path: Path) -> None:
    kept(tmp_path).of(TEXTS)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert len(written) > 0 and not any(text.encode() in written for text in TEXTS if len(text) > 4)


def test_a_killed_run_keeps_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_features, "PART", 3)

    def kill(done: int, total: int) -> None:
        if done > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        KeptFeatures(encoder(), TOKENIZER, tokenize, 20, tmp_path, kill).of(TEXTS)
    told: list[int] = []
    assert np.allclose(kept(tmp_path, told).of(TEXTS), alone(TEXTS), atol=1e-6)
    assert told == [3, 4]  # of the four that were left
    assert not list(tmp_path.rglob("*.tmp"))


def test_another_encoder_has_other_features(tmp_path: Path) -> None:
    first = encoder_digest(encoder(), TOKENIZER, 20)
    assert encoder_digest(encoder(), TOKENIZER, 20) == first
    tokenize(["a call that", "leaves its padding behind, and its truncation"])
    pooler = encoder()
    torch.nn.init.ones_(pooler.body.pooler.dense.weight)  # not used, and random where a checkpoint has none
    assert encoder_digest(pooler, TOKENIZER, 20) == first
    weight, epsilon = encoder(), encoder()
    weight.body.embeddings.LayerNorm.bias.data[3] += 1e-3
    epsilon.body.config = copy.deepcopy(epsilon.body.config)
    epsilon.body.config.layer_norm_eps = 1e-3
    others = [
        encoder_digest(weight, TOKENIZER, 20),
        encoder_digest(epsilon, TOKENIZER, 20),
        encoder_digest(encoder(), train_tokenizer(TEXTS[:3], 80), 20),
        encoder_digest(encoder(), TOKENIZER, 21),
    ]
    assert len({first, *others}) == 5
    kept(tmp_path).of(TEXTS)
    told: list[int] = []
    kept(tmp_path, told, encoder=encoder(seed=1)).of(TEXTS)
    assert told == [7]


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    kept(tmp_path).of(TEXTS)
    (path,) = tmp_path.rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(EinthovenError, match="enough to delete it"):
        kept(tmp_path).of(TEXTS)

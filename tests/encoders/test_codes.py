"""sEHR-BERT and its batches: what may change a record's features and what may not, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from einthoven import schema
from einthoven.config import CodeEncoder
from einthoven.encoders.code_records import (
    NO_KIND,
    STATIC,
    CodeBatch,
    CodeSequence,
    code_batch,
    encode_records,
    nearest,
    visits_of,
)
from einthoven.encoders.codes import CodeTransformer, MaskedCodes, create, load, save
from einthoven.errors import EinthovenError
from einthoven.vocabulary.medications import Medications
from einthoven.vocabulary.rules import Rules
from einthoven.vocabulary.vocabulary import CLS, PAD, UNK, Vocabulary, build

CODES = [f"DX//{letter}" for letter in "ABCDEFGHIJ"]
VOCABULARY = build({code: [1] for code in CODES}, 1, Rules(Medications({}, {})))
KINDS = ("finding", "medication")
FINDING = 2
SMALL = CodeEncoder(hidden=24, layers=2, heads=3, dropout=0.1)


def record(tokens: list[int], days: list[float], age: float = 50.0, kinds: list[int] | None = None) -> CodeSequence:
    return CodeSequence(np.array(tokens), np.array(kinds or [FINDING] * len(tokens)), np.array(days, np.float32), age)


def encoder(config: CodeEncoder = SMALL) -> CodeTransformer:
    torch.manual_seed(0)
    return create(config, VOCABULARY, KINDS).eval()


@torch.no_grad()
def features(model: CodeTransformer, *records: CodeSequence) -> Tensor:
    return model(code_batch(records, model.config.max_codes))


def test_a_batch_holds_what_pairs_hold() -> None:
    pairs = pa.table(
        {
            "codes": pa.array([["DX//A", "DX//B", "unheard"], []], pa.list_(pa.string())),
            "code_kinds": pa.array([["static", "finding", "medication"], []], pa.list_(pa.string())),
            "code_days": pa.array([[None, -3.5, 0.25], []], pa.list_(pa.float32())),
        },
        schema=pa.schema([schema.PAIRS.columns.field(name) for name in ("codes", "code_kinds", "code_days")]),
    )
    records = encode_records(pairs, [61.0, float("nan")], VOCABULARY, KINDS)
    batch = records.batch([0, 1], 256)
    a, b = VOCABULARY.encode(["DX//A", "DX//B"])
    assert batch.tokens.tolist() == [[CLS, a, b, UNK], [CLS, PAD, PAD, PAD]]
    assert batch.kinds.tolist() == [[NO_KIND, STATIC, 2, 3], [NO_KIND] * 4]
    assert batch.days.tolist() == [[0, 0, -3.5, 0.25], [0] * 4]
    assert batch.visits.tolist() == [[0, 0, 1, 2], [0] * 4]
    assert batch.mask.tolist() == [[True] * 4, [True, False, False, False]]
    assert batch.age[0] == 61 and batch.age[1].isnan()
    with pytest.raises(EinthovenError, match="'medication'"):
        encode_records(pairs, [61.0, 61.0], VOCABULARY, ("finding",))


def test_the_nearest_codes_are_kept_in_their_order_and_static_ones_first() -> None:
    full = record([5, 6, 7, 8, 9], [0, -9, -2, 2, 5], kinds=[STATIC, 2, 2, 2, 2])
    assert nearest(full, 3).tokens.tolist() == [5, 7, 8]
    assert nearest(full, 2).tokens.tolist() == [5, 7]  # of two equally near the earlier
    assert code_batch([full], 3).tokens.shape == (1, 4)


def test_a_visit_ends_where_for_more_than_a_day_nothing_follows() -> None:
    kinds = [STATIC, 2, 2, 2, 2, 2]
    assert visits_of(record([5] * 6, [0, -9, -8.5, -7.5, 0, 30], kinds=kinds)).tolist() == [0, 1, 1, 1, 2, 1]
    assert visits_of(record([], [])).tolist() == []


@pytest.mark.parametrize("time", ["sinusoidal", "buckets"])
def test_padding_and_neighbours_change_nothing(time: str) -> None:
    model = encoder(replace(SMALL, time=time))
    records = [record([5 + i % 9] * i, list(range(i))) for i in range(12)]  # enough for groups of like length
    together = features(model, *records)
    alone = torch.cat([features(model, each) for each in records])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    states = model.token_states(code_batch(records, 256))
    assert states.shape == (12, 12, 24)


def test_an_empty_record_has_features_that_know_the_age() -> None:
    model = encoder()
    young, old, unknown = features(model, *(record([], [], age) for age in (20, 80, float("nan"))))
    assert young.isfinite().all() and unknown.isfinite().all()
    assert not torch.allclose(young, old) and not torch.allclose(young, unknown)


@pytest.mark.parametrize("time", ["sinusoidal", "buckets"])
def test_time_counts_and_the_order_of_codes_of_one_moment_does_not(time: str) -> None:
    model = encoder(replace(SMALL, time=time))
    base = features(model, record([5, 6, 7], [-10, 0, 10]))
    assert not torch.allclose(base, features(model, record([5, 7, 6], [-10, 0, 10])), atol=1e-5)
    assert not torch.allclose(base, features(model, record([5, 6, 7], [-300, 0, 10])), atol=1e-5)
    assert not torch.allclose(base, features(model, record([5, 6, 7], [-10, 0, 10], kinds=[2, 3, 2])), atol=1e-5)
    same = [features(model, record(order, [1, 1, 1])) for order in ([5, 6, 7], [7, 5, 6])]
    torch.testing.assert_close(*same, rtol=1e-5, atol=1e-5)


def test_age_and_visits_can_be_left_out() -> None:
    model = encoder(replace(SMALL, age=False, visits=False))
    near, far = record([5, 6], [0, 1.0], 30), record([5, 6], [0, 1.0], 80)
    assert torch.equal(features(model, near), features(model, far))
    assert not any(name.startswith(("age", "visit", "unknown_age")) for name in model.state_dict())


def test_every_trained_parameter_has_a_gradient() -> None:
    model = MaskedCodes(encoder()).train()
    batch = code_batch([record([5, 6], [0, 4]), record([7], [0], float("nan"), [STATIC])], 256)
    logits = model(batch, (torch.tensor([0, 1]), torch.tensor([1, 1])))
    torch.nn.functional.cross_entropy(logits, torch.tensor([5, 7])).backward()
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    assert logits[:, :5].isinf().all() and logits.shape == (2, len(VOCABULARY))


def test_a_saved_encoder_is_the_same_and_loads_strictly(tmp_path: Path) -> None:
    model = MaskedCodes(encoder())
    save(model, VOCABULARY, {"data_kind": "simulated"}, tmp_path / "out")
    again, vocabulary, card = load(tmp_path / "out")
    assert vocabulary.digest == VOCABULARY.digest and card == {"data_kind": "simulated"}
    some = record([5, 6, 9], [-4, 0, 3])
    assert torch.equal(features(model.encoder, some), features(again.encoder, some))
    used = create(replace(SMALL, pretrained=str(tmp_path / "out"), max_codes=7), VOCABULARY, KINDS)
    assert used.config.max_codes == 7 and used.config.hidden == 24
    assert torch.equal(features(model.encoder, some), features(used, some))


def other_vocabulary() -> Vocabulary:
    return build({code.lower(): [1] for code in CODES}, 1, Rules(Medications({}, {})))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "out"
    save(MaskedCodes(encoder()), VOCABULARY, {}, place)
    config = replace(SMALL, pretrained=str(place))
    with pytest.raises(EinthovenError, match="another vocabulary"):
        create(config, other_vocabulary(), KINDS)
    with pytest.raises(EinthovenError, match="kinds of code"):
        create(config, VOCABULARY, KINDS[::-1])
    with pytest.raises(EinthovenError, match="name a new directory"):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("")
        save(MaskedCodes(encoder()), VOCABULARY, {}, tmp_path / "mine")
    values = json.loads((place / "config.json").read_text())
    for changed, message in (
        ({"format": 99}, "format 99"),
        ({"extra": 1}, "exactly the keys"),
        ({"codes": {**values["codes"], "layers": 2, "time": "buckets"}}, "does not fit"),
        ({"body": {**values["body"], "vocab_size": 3}}, "different models"),
        ({"body": {**values["body"], "hidden_size": 25}}, "does not fit"),
    ):
        (place / "config.json").write_text(json.dumps({**values, **changed}))
        with pytest.raises(EinthovenError, match=message):
            load(place)
    (place / "config.json").write_text(json.dumps(values))
    (place / "model.safetensors").unlink()
    with pytest.raises(EinthovenError, match=r"safetensors is missing"):
        load(place)
    with pytest.raises(EinthovenError, match="einthoven pretrain"):
        load(tmp_path / "nowhere")


def test_a_bert_of_hugging_face_is_a_body(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

    bert = BertConfig(vocab_size=40, hidden_size=36, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20)
    body = BertModel(bert)
    body.save_pretrained(tmp_path / "bert")
    model = encoder(replace(SMALL, pretrained=str(tmp_path / "bert")))
    assert model.dim == 36 and model.codes.num_embeddings == len(VOCABULARY)
    layer = "encoder.layer.0.attention.self.query.weight"
    assert torch.equal(model.body.state_dict()[layer], body.state_dict()[layer])
    assert features(model, record([5, 6], [0, 3])).shape == (1, 36)
    save(MaskedCodes(model), VOCABULARY, {}, tmp_path / "out")
    some = record([5, 6], [0, 3])
    assert torch.equal(features(model, some), features(load(tmp_path / "out")[0].encoder, some))
    distil = DistilBertConfig(vocab_size=40, dim=24, hidden_dim=24, n_layers=1, n_heads=2)
    DistilBertModel(distil).save_pretrained(tmp_path / "distil")
    with pytest.raises(EinthovenError, match="is a distilbert"):
        encoder(replace(SMALL, pretrained=str(tmp_path / "distil")))
    with pytest.raises(EinthovenError, match="could not be loaded"):
        encoder(replace(SMALL, pretrained=str(tmp_path / "nowhere")))


def test_a_batch_moves_whole() -> None:
    batch = code_batch([record([5], [0])], 8).to(torch.device("cpu"))
    assert isinstance(batch, CodeBatch) and len(batch) == 1

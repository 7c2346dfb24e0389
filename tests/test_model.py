import json
from pathlib import Path

import numpy as np
import pytest
import torch

import einthoven
from einthoven.config import EcgEncoder, Space, TextEncoder
from einthoven.errors import EinthovenError
from einthoven.model import Model
from einthoven.model_directory import load
from einthoven.schema import LEADS

ECG = EcgEncoder(width=8, blocks=(1, 1))
TEXT = TextEncoder(hidden=16, layers=1, heads=2, vocabulary=200)
SPACE = Space(dim=8, hidden=16)
TEXTS = ["sinus rhythm. normal ecg.", "vorhofflimmern", "atrial fibrillation", "linksschenkelblock"]


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return Model.create(ECG, TEXT, SPACE, TEXTS).eval()


@pytest.fixture
def saved(model: Model, tmp_path: Path) -> Path:
    model.save(tmp_path / "model")
    return tmp_path / "model"


def ecg(n: int = 2, samples: int = 1000) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, 12, samples)).astype(np.float32)


def test_a_saved_model_embeds_to_the_bit_as_before(model: Model, saved: Path) -> None:
    again = einthoven.load(saved)
    assert np.array_equal(model.encode_ecg(ecg(), 100), again.encode_ecg(ecg(), 100))
    assert np.array_equal(model.encode_text(TEXTS), again.encode_text(TEXTS))
    assert sorted(p.name for p in saved.iterdir()) == ["config.json", "model.safetensors", "tokenizer"]


def test_embeddings_are_unit_vectors_in_one_space(model: Model) -> None:
    for vectors in (model.encode_ecg(ecg(3), 100), model.encode_text(TEXTS)):
        assert vectors.shape[1] == SPACE.dim
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert model.encode_ecg(ecg()[0], 100).shape == (SPACE.dim,)


def test_lead_order_and_case_do_not_matter(model: Model) -> None:
    order = np.random.default_rng(1).permutation(12)
    shuffled = model.encode_ecg(ecg()[:, order], 100, [LEADS[i].upper() for i in order])
    assert np.allclose(model.encode_ecg(ecg(), 100), shuffled)


def test_a_lead_left_out_is_a_lead_of_nan(model: Model) -> None:
    gaps = ecg()
    gaps[:, 11] = np.nan
    assert np.allclose(model.encode_ecg(gaps, 100), model.encode_ecg(gaps[:, :11], 100, LEADS[:11]))


def test_an_offset_of_a_lead_means_nothing(model: Model) -> None:
    offset = np.arange(12, dtype=np.float32)[:, None]
    assert np.allclose(model.encode_ecg(ecg() + offset, 100), model.encode_ecg(ecg(), 100), atol=1e-4)


def test_a_smooth_signal_embeds_alike_at_another_rate(model: Model) -> None:
    def waves(rate: int) -> np.ndarray:
        t = np.arange(10 * rate) / rate
        return np.stack([np.sin(2 * np.pi * (1 + i / 4) * t) for i in range(12)]).astype(np.float32)

    assert model.encode_ecg(waves(100), 100) @ model.encode_ecg(waves(500), 500) > 0.999


def test_texts_do_not_depend_on_their_neighbours(model: Model) -> None:
    alone = np.stack([model.encode_text([text])[0] for text in TEXTS])
    assert np.allclose(model.encode_text(TEXTS * 2), np.concatenate([alone, alone]), atol=1e-5)


@pytest.mark.parametrize(
    ("array", "rate", "leads", "message"),
    [
        (np.zeros(1000), 100, LEADS, "expected"),
        (np.zeros((11, 1000)), 100, LEADS, "11 leads"),
        (np.zeros((1, 1000)), 100, ["X"], "unknown lead 'X'"),
        (np.zeros((12, 0)), 100, LEADS, "no samples"),
        (np.full((12, 800), np.nan), 100, LEADS, "no sample in any lead"),
        (np.zeros((12, 1000)), 0, LEADS, "sampling rate"),
        (np.full((12, 1000), 5000.0), 100, LEADS, "millivolts"),
    ],
)
def test_a_wrong_ecg_is_told(model: Model, array, rate, leads, message) -> None:
    with pytest.raises(EinthovenError, match=message):
        model.encode_ecg(array, rate, leads)


def test_a_single_string_is_refused(model: Model) -> None:
    with pytest.raises(EinthovenError, match="list of texts"):
        model.encode_text("one text")  # type: ignore[arg-type]


def test_saving_never_replaces_anything_but_a_model(model: Model, saved: Path, tmp_path: Path) -> None:
    model.save(saved)
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(EinthovenError, match="nothing was written"):
        model.save(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years"


def damage(saved: Path, part: str) -> None:
    config = json.loads((saved / "config.json").read_text())
    match part:
        case "unknown":
            config["ecg"]["depth"] = 3
        case "format":
            config["format"] = 99
        case "shape":
            config["ecg"]["width"] = 16
        case "body":
            config["text"]["body"] = {"model_type": "no-such-model"}
        case "vocabulary":
            config["text"]["body"]["vocab_size"] += 1
        case "card":
            del config["card"]
    (saved / "config.json").write_text(json.dumps(config))
    if part == "weights":
        (saved / "model.safetensors").unlink()
    if part == "truncated":
        (saved / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes()[:1000])
    if part == "tokenizer":
        (saved / "tokenizer" / "tokenizer.json").unlink()
    if part == "json":
        (saved / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("unknown", "unknown key 'depth'"),
        ("format", "format 99"),
        ("shape", "does not fit"),
        ("body", "no known encoder"),
        ("vocabulary", "different models"),
        ("card", "exactly the keys"),
        ("weights", "is missing"),
        ("truncated", "does not fit"),
        ("tokenizer", "incomplete"),
        ("json", "not JSON"),
    ],
)
def test_loading_is_strict(saved: Path, part: str, message: str) -> None:
    damage(saved, part)
    with pytest.raises(EinthovenError, match=message):
        load(saved)


def test_a_directory_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(EinthovenError, match="not a model directory"):
        load(tmp_path)


def test_any_hugging_face_encoder_by_path(tmp_path: Path, model: Model) -> None:
    from transformers import MegatronBertConfig, MegatronBertModel

    config = MegatronBertConfig(
        vocab_size=len(model.tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    MegatronBertModel(config).save_pretrained(tmp_path / "gatortron")
    model.tokenizer.save_pretrained(tmp_path / "gatortron")
    text = TextEncoder(pretrained=str(tmp_path / "gatortron"), frozen=True)
    other = Model.create(ECG, text, SPACE, []).eval()
    assert not any(p.requires_grad for p in other.text.parameters())
    other.save(tmp_path / "model")
    assert np.array_equal(load(tmp_path / "model").encode_text(TEXTS), other.encode_text(TEXTS))
    with pytest.raises(EinthovenError, match="could not be loaded"):
        Model.create(ECG, TextEncoder(pretrained=str(tmp_path / "nowhere")), SPACE, [])


def test_the_control_is_the_same_every_time_and_not_the_model(model: Model) -> None:
    first, second = model.untrained(3), model.untrained(3)
    assert np.array_equal(first.encode_ecg(ecg(), 100), second.encode_ecg(ecg(), 100))
    assert not np.allclose(first.encode_ecg(ecg(), 100), model.encode_ecg(ecg(), 100))

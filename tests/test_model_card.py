"""The card of a model is one that Hugging Face's own reader reads."""

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from einthoven import pipeline
from einthoven.config import Recipe, TextEncoder, to_dict
from einthoven.errors import EinthovenError
from einthoven.model_card import settings, update_card, write_card
from einthoven.study import sha256, write_json

COUNTS = {"data_kind": "simulated", "pairs": 800, "patients": 700, "distinct_texts": 650, "concatenation": "report",
          "seed": 3, "probes": ["NORM", "MI"]}  # fmt: skip
VALUE = {"value": 0.81234, "low": 0.79, "high": 0.83}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    write_json(tmp_path / "manifest.json", {"config": to_dict(Recipe()), "counts": COUNTS})
    write_card(tmp_path, to_dict(Recipe()), COUNTS)
    return tmp_path


def metrics(model: Path) -> dict:
    gallery = {"recall@10": VALUE}
    return {
        "weights": sha256(model / "model.safetensors"), "data_kind": "simulated", "split": "test", "seed": 0,
        "resamples": 1000, "command": "einthoven evaluate", "counts": {"recordings": 200, "patients": 180},
        "model": {
            "retrieval": {"ecg_to_text": {"distinct": gallery}, "text_to_ecg": {"distinct": gallery}},
            "zeroshot": {"macro": VALUE},
            "probe": {"fractions": {"0.01": {"macro": {**VALUE, "low": None}}, "1": {"macro": VALUE}}},
            "calibration": {"probe": "1", "macro": {"ece": VALUE}},
        },
    }  # fmt: skip


def test_a_new_model_has_a_card_without_results(model: Path) -> None:
    card = ModelCard.load(model / "README.md")
    assert card.data.library_name == "einthoven" and card.data.license == "other" and card.data.eval_results is None
    assert {"ecg", "simulated-data", "text"} <= set(card.data.tags or ())
    for said in ("not a medical device", "800 pairs of 700 patients", "Not evaluated yet", "einthoven.load",
                 "says nothing about real patients", "NORM, MI", "`training.epochs` | `30`"):  # fmt: skip
        assert said.lower() in card.text.lower()
    assert "codes.layers" not in card.text  # a model without codes


def test_an_evaluation_enters_the_card_as_results(model: Path) -> None:
    found = update_card(model, metrics(model))
    card = ModelCard.load(found)
    results = card.data.eval_results or []
    assert [(r.task_type, r.metric_type, r.metric_value) for r in results] == [
        ("retrieval", "recall_at_10", 0.8123),
        ("retrieval", "recall_at_10", 0.8123),
        ("zero-shot-classification", "roc_auc", 0.8123),
        ("linear-probe", "roc_auc", 0.8123),
        ("linear-probe", "expected_calibration_error", 0.8123),
    ]
    assert {r.dataset_name for r in results} == {"simulated data, test split"}
    assert "0.812 (0.790–0.830)" in card.text and "200 recordings of 180 patients" in card.text


def test_few_patients_are_not_counted_out(model: Path) -> None:
    update_card(model, {**metrics(model), "counts": {"recordings": 200, "patients": 4}})
    assert "of <11 patients" in (model / "README.md").read_text()


def test_another_models_report_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(EinthovenError, match="not of the weights"):
        update_card(model, {**metrics(model), "weights": "other"})
    with pytest.raises(EinthovenError, match=r"no metrics\.json"):
        pipeline.card(model, tmp_path / "nowhere")
    (model / "manifest.json").unlink()
    with pytest.raises(EinthovenError, match="only those have a card"):
        update_card(model, metrics(model))


def test_no_path_of_this_machine_is_told() -> None:
    def told(pretrained: str) -> str:
        recipe = replace(Recipe(), text=TextEncoder(pretrained=pretrained))
        return dict(settings(to_dict(recipe)))["text.pretrained"]

    assert told("/home/me/gatortron") == "a local copy" == told("./mine")
    assert told("UFNLP/gatortron-base") == '"UFNLP/gatortron-base"'

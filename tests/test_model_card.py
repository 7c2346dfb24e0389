"""The card of a model is one that Hugging Face's own reader reads."""

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from einthoven.config import Recipe, TextEncoder, to_dict
from einthoven.model_card import settings, write_card

COUNTS = {"data_kind": "simulated", "pairs": 800, "patients": 700, "distinct_texts": 650, "concatenation": "report",
          "seed": 3, "probes": ["NORM", "MI"]}  # fmt: skip
VALUE = {"value": 0.81234, "low": 0.79, "high": 0.83}


@pytest.fixture
def card(tmp_path: Path) -> Path:
    write_card(tmp_path / "README.md", to_dict(Recipe()), COUNTS)
    return tmp_path / "README.md"


def metrics() -> dict:
    gallery = {"recall@10": VALUE}
    return {
        "data_kind": "simulated", "split": "test", "seed": 0,
        "resamples": 1000, "command": "einthoven evaluate", "counts": {"recordings": 200, "patients": 180},
        "model": {
            "retrieval": {"ecg_to_text": {"distinct": gallery}, "text_to_ecg": {"distinct": gallery}},
            "zeroshot": {"macro": VALUE, "auprc": {"macro": VALUE}},
            "probe": {"fractions": {"0.01": {"macro": {**VALUE, "low": None}, "auprc": {"macro": VALUE}},
                                    "1": {"macro": VALUE, "auprc": {"macro": VALUE}}}},
            "calibration": {"probe": "1", "macro": {"ece": VALUE}},
        },
    }  # fmt: skip


def test_a_new_model_has_a_card_without_results(card: Path) -> None:
    read = ModelCard.load(card)
    assert read.data.library_name == "einthoven" and read.data.license == "other" and read.data.eval_results is None
    assert {"ecg", "simulated-data", "text"} <= set(read.data.tags or ())
    for said in ("not a medical device", "800 pairs of 700 patients", "Not evaluated yet", "einthoven.load",
                 "says nothing about real patients", "NORM, MI", "`training.epochs` | `30`"):  # fmt: skip
        assert said.lower() in read.text.lower()
    assert "codes.layers" not in read.text  # a model without codes


def test_an_evaluation_enters_the_card_as_results(card: Path) -> None:
    write_card(card, to_dict(Recipe()), COUNTS, metrics())
    read = ModelCard.load(card)
    results = read.data.eval_results or []
    assert [(r.task_type, r.metric_type, r.metric_value) for r in results] == [
        ("retrieval", "recall_at_10", 0.8123),
        ("retrieval", "recall_at_10", 0.8123),
        ("zero-shot-classification", "roc_auc", 0.8123),
        ("zero-shot-classification", "average_precision", 0.8123),
        ("linear-probe", "average_precision", 0.8123),
        ("linear-probe", "roc_auc", 0.8123),
        ("linear-probe", "average_precision", 0.8123),
        ("linear-probe", "expected_calibration_error", 0.8123),
    ]
    assert {r.dataset_name for r in results} == {"simulated data, test split"}
    assert "0.812 (0.790–0.830)" in read.text and "200 recordings of 180 patients" in read.text


def test_small_counts_are_not_told(card: Path) -> None:
    write_card(card, to_dict(Recipe()), {**COUNTS, "pairs": 10, "patients": 3, "distinct_texts": 2},
               {**metrics(), "counts": {"recordings": 9, "patients": 4}})  # fmt: skip
    said = card.read_text()
    assert "<11 pairs of <11 patients, <11 distinct texts" in said and "<11 recordings of <11 patients" in said


def test_no_path_of_this_machine_is_told() -> None:
    def told(pretrained: str) -> str:
        recipe = replace(Recipe(), text=TextEncoder(pretrained=pretrained))
        return dict(settings(to_dict(recipe)))["text.pretrained"]

    assert told("/home/me/gatortron") == "a local copy" == told("./mine")
    assert told("UFNLP/gatortron-base") == '"UFNLP/gatortron-base"'

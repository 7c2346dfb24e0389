"""README.md of a model directory: a model card as Hugging Face reads it (YAML in front, `model-index` for results)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jinja2

from einthoven import schema
from einthoven.disclosure import hide
from einthoven.errors import EinthovenError
from einthoven.study import atomic, read_manifest, sha256

FILE: Final = "README.md"
RECIPE: Final = ("space", "ecg", "text", "codes", "training", "augmentation")
"""The parts of the recipe that a card tells."""

MEANING: Final = {
    schema.REAL: "real recordings with their real records, as published or as a hospital has them",
    schema.SEMI_SYNTHETIC: "real recordings with simulated charts",
    schema.SIMULATED: "simulated recordings with simulated charts: it says nothing about real patients",
}


def write_card(
    directory: Path, recipe: Mapping[str, Any], counts: Mapping[str, Any], metrics: Mapping[str, Any] | None = None
) -> None:
    """Write the card of the model in `directory`, atomically: its recipe, what training counted, and any evaluation."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown, of numbers and settings
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    kind, modalities = str(counts["data_kind"]), list(recipe["space"]["modalities"])
    found = [] if metrics is None else results(metrics)
    front = {
        "license": "other",
        "license_name": "that-of-the-training-data",
        "library_name": "einthoven",
        "tags": [
            "ecg",
            "electrocardiography",
            "contrastive-learning",
            f"{kind}-data",
            *recipe["space"]["modalities"][1:],
        ],
    }
    if found and metrics is not None:
        front["model-index"] = [{"name": "einthoven", "results": [_entry(result, metrics) for result in found]}]
    page = environment.get_template("model_card.md.j2").render(
        front={key: json.dumps(value, ensure_ascii=False) for key, value in front.items()},
        kind=kind,
        meaning=MEANING[kind],
        counts=counts,
        modalities=modalities,
        settings=settings(recipe),
        metrics=metrics,
        results=found,
        patients=None if metrics is None else hide([int(metrics["counts"]["patients"])])[0],
    )
    with atomic(directory / FILE) as temporary:
        temporary.write_text(page, encoding="utf-8")


def update_card(directory: Path, metrics: Mapping[str, Any]) -> Path:
    """Write the card of a trained model anew, with the figures of an evaluation of it."""
    weights = directory / "model.safetensors"
    manifest = read_manifest(directory / "manifest.json")
    if manifest is None or not weights.is_file():
        raise EinthovenError(f"{directory} is no model that `einthoven align` finished; only those have a card.")
    if metrics.get("weights") != sha256(weights):
        raise EinthovenError(f"the report is not of the weights in {directory}: evaluate this model first.")
    write_card(directory, manifest["config"], manifest["counts"], metrics)
    return directory / FILE


def results(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The main results: task and name as they are shown, metric type, value, low and high."""
    model = metrics["model"]
    rows: list[tuple[str, str, str, Mapping[str, float | None]]] = []
    for kind, other in (("retrieval", "text"), ("retrieval_codes", "codes")):
        for direction, way in (("ecg_to_text", f"ECG to {other}"), ("text_to_ecg", f"{other} to ECG")):
            if found := model.get(kind, {}).get(direction, {}).get("distinct"):
                name = f"recall@10, {way}, distinct {'texts' if other == 'text' else 'codes'}"
                rows.append(("retrieval", name, "recall_at_10", found["recall@10"]))
    for kind, way in (("zeroshot", "prompts"), ("zeroshot_codes", "codes")):
        if found := model.get(kind):
            rows.append(("zero-shot-classification", f"macro AUROC, by {way}", "roc_auc", found["macro"]))
    for fraction, found in model.get("probe", {}).get("fractions", {}).items():
        name = f"macro AUROC, linear probe, {100 * float(fraction):g} % of training patients"
        rows.append(("linear-probe", name, "roc_auc", found["macro"]))
    if found := model.get("calibration"):
        name = f"expected calibration error, linear probe, {100 * float(found['probe']):g} % of training patients"
        rows.append(("linear-probe", name, "expected_calibration_error", found["macro"]["ece"]))
    return [
        {"task": task, "name": name, "type": metric, **{key: found[key] for key in ("value", "low", "high")}}
        for task, name, metric, found in rows
        if None not in (found["value"], found["low"], found["high"])
    ]


def _entry(result: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """One result as `model-index` has it."""
    kind, split = metrics["data_kind"], metrics["split"]
    interval = f"{result['low']:.3f}–{result['high']:.3f}"
    return {
        "task": {"type": result["task"]},
        "dataset": {"type": f"{kind}-data", "name": f"{kind} data, {split} split", "split": split},
        "metrics": [
            {"type": result["type"], "value": round(result["value"], 4), "name": f"{result['name']} (95 %: {interval})"}
        ],
    }


def settings(recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The settings of the parts that the model has. Of an encoder on this machine no path is told."""
    absent = {"text", "codes"} - set(recipe["space"]["modalities"])
    lines = []
    for part in RECIPE:
        for name, value in recipe[part].items() if part not in absent else ():
            local = name == "pretrained" and value is not None and (value[0] in "./~" or Path(value).exists())
            lines.append((f"{part}.{name}", "a local copy" if local else json.dumps(value)))
    return lines

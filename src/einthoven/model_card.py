"""A model card as Hugging Face reads it: YAML in front, results as its `model-index`.

`align` writes it as README.md into the model directory, before there are results. An evaluation writes it anew, with
its figures, into the report and leaves the model alone: which figures are published is for the model's owner to say.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jinja2

from einthoven import schema
from einthoven.disclosure import Cell, hide
from einthoven.study import atomic

FILE: Final = "README.md"
WITH_RESULTS: Final = "model_card.md"
"""Its name in a report, where a README.md may be somebody else's."""
RECIPE: Final = ("space", "ecg", "text", "codes", "training", "augmentation")
"""The parts of the recipe that a card tells."""

MEANING: Final = {
    schema.REAL: "real recordings with their real records, as published or as a hospital has them",
    schema.SEMI_SYNTHETIC: "real recordings with simulated charts",
    schema.SIMULATED: "simulated recordings with simulated charts: it says nothing about real patients",
}

Shown = tuple[str, str, str, Mapping[str, float | None]]
"""Task, name, type and value of a result."""


def write_card(
    file: Path, recipe: Mapping[str, Any], counts: Mapping[str, Any], metrics: Mapping[str, Any] | None = None
) -> None:
    """Write the card of a model to `file`, atomically: its recipe, what training counted, and any evaluation of it.

    Small counts are hidden (disclosure.py): a card is made to be published.
    """
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
        counts={**counts, **_told(counts, ("pairs", "patients", "distinct_texts"))},
        modalities=modalities,
        settings=settings(recipe),
        metrics=metrics,
        results=found,
        measured=None if metrics is None else _told(metrics["counts"], ("recordings", "patients")),
    )
    with atomic(file) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _told(counts: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Cell]:
    return {name: hide([int(counts[name])])[0] for name in names if name in counts}


def results(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The main results: task and name as they are shown, metric type, value, low and high."""
    model = metrics["model"]
    rows: list[Shown] = []
    for kind, other in (("retrieval", "text"), ("retrieval_codes", "codes")):
        for direction, way in (("ecg_to_text", f"ECG to {other}"), ("text_to_ecg", f"{other} to ECG")):
            if found := model.get(kind, {}).get(direction, {}).get("distinct"):
                name = f"recall@10, {way}, distinct {'texts' if other == 'text' else 'codes'}"
                rows.append(("retrieval", name, "recall_at_10", found["recall@10"]))
    for kind, way in (("zeroshot", "prompts"), ("zeroshot_codes", "codes")):
        if found := model.get(kind):
            rows += _areas("zero-shot-classification", f"by {way}", found)
    for fraction, found in model.get("probe", {}).get("fractions", {}).items():
        rows += _areas("linear-probe", f"linear probe, {100 * float(fraction):g} % of training patients", found)
    if found := model.get("calibration"):
        name = f"expected calibration error, linear probe, {100 * float(found['probe']):g} % of training patients"
        rows.append(("linear-probe", name, "expected_calibration_error", found["macro"]["ece"]))
    return [
        {"task": task, "name": name, "type": metric, **{key: found[key] for key in ("value", "low", "high")}}
        for task, name, metric, found in rows
        if None not in (found["value"], found["low"], found["high"])
    ]


def _areas(task: str, by: str, found: Mapping[str, Any]) -> list[Shown]:
    """Both areas' means of what `discrimination` returned."""
    return [
        (task, f"macro AUROC, {by}", "roc_auc", found["macro"]),
        (task, f"macro AUPRC, {by}", "average_precision", found["auprc"]["macro"]),
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
        for name, value in recipe.get(part, {}).items() if part not in absent else ():
            local = name == "pretrained" and value is not None and (value[0] in "./~" or Path(value).exists())
            lines.append((f"{part}.{name}", "a local copy" if local else json.dumps(value)))
    return lines

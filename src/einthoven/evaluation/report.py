"""The result of an evaluation: `metrics.json` for machines, `report.html` for people.

Layout of the metrics (every part of "model" and "random_init" may be missing; then its rows and figures are). What the
parts hold is in docs/evaluate.md:

    {"data_kind": "real" | "semi-synthetic" | "simulated",
     "trained_on": the same kinds, or null or missing,    # the data the model was trained on
     "weights": str, "recipe": {...} or null,            # SHA-256 of the model's weights; what it was trained by
     "trained_from": {name: str} or null,                # digests of the pairs it was trained on
     "command": str, "split": str,                       # what made the numbers, on which split
     "seed": int, "resamples": int,                      # of the intervals
     "counts": {name: int},                              # e.g. recordings, patients, excluded
     "concatenation": "report" | "entity" | null,        # of notes, that the model's texts were; null: it has none
     "tokens": tokens.token_counts(...),                 # of both; missing where nothing was counted
     "model": {"retrieval": retrieval.retrieval(...),
               "zeroshot": zeroshot.zero_shot(...),
               "precision": precision.precision_at_k(...),
               "probe": transfer.probe_metrics(...),
               "calibration": calibration.calibrated(...),
               "outliers": protocol.flagged(...)},
     "random_init": {...},                               # the same encoders untrained: the control
     "subgroups": subgroups.subgroups(...),              # of the model
     "leads": leads.measure_subsets(...)}                # only with evaluation.lead_subsets

Every measured value is {"value", "low", "high"}, the bounds of a 95 % patient-bootstrap interval. NaN becomes null.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from einthoven.evaluation.discrimination import LEAST_POSITIVES
from einthoven.evaluation.figures import DIRECTIONS, SERIES, ReportFigures, drawn
from einthoven.evaluation.retrieval import RECALLS
from einthoven.pages import render
from einthoven.study import atomic, write_json
from einthoven.waveforms.draw import draw_svg

GALLERIES = {"distinct": "distinct texts", "all": "all recordings", "findings": "all recordings, equal findings"}
ZERO_SHOT = {"zeroshot": "Zero-shot", "zeroshot_codes": "Zero-shot by code"}
AREAS = {"AUROC": (), "AUPRC": ("auprc",)}
"""As it is called -> where its values are below what `discrimination` returns."""

FEW = f" (under {LEAST_POSITIVES} positives)"
SECOND = f" of classes with {LEAST_POSITIVES} positives or more"
"""After the name of a class that is marked, and of the mean that leaves such classes out."""


@dataclass(frozen=True)
class Row:
    """One line of the results table: texts as they are shown, value with its interval in brackets."""

    task: str
    measure: str
    model: str
    control: str


def table(metrics: Mapping[str, Any]) -> list[Row]:
    """The results, model beside control: for the terminal and for the page."""
    rows = _beside(metrics)
    for part in sorted(metrics.get("leads", {}).values(), key=lambda part: -len(part["leads"])):
        task = f"Only lead{'s' * (len(part['leads']) > 1)} {', '.join(part['leads'])}"
        rows += [Row(task, f"{r.task}, {r.measure}", r.model, r.control) for r in _beside(part) if _headline(r)]
    return rows


def _headline(row: Row) -> bool:
    plain = "all recordings" not in row.task and SECOND not in row.measure
    return plain and row.measure.startswith(("recall@10", "macro AUROC"))


def _beside(metrics: Mapping[str, Any]) -> list[Row]:
    found = {series: dict(_rows(metrics.get(series) or {})) for series, _ in SERIES}
    keys = dict.fromkeys(key for rows in found.values() for key in rows)
    return [Row(*key, *(found[series].get(key, "–") for series, _ in SERIES)) for key in keys]


Cells = list[tuple[tuple[str, str], str]]
"""Task and measure, and the value as it is shown."""


def _rows(part: Mapping[str, Any]) -> Cells:
    rows = _retrieval(part)
    for kind, other in (("precision", "text"), ("precision_codes", "code")):
        if precision := part.get(kind):
            measure = f"precision@{precision['k']}, mean of {len(precision['findings'])} findings, %"
            rows.append(((f"One finding as {other} → ECG", measure), shown(precision["mean"], 100, 1)))
    for kind, task in ZERO_SHOT.items():
        rows += _zero_shot(task, part[kind]) if part.get(kind) else []
    for fraction, found in part.get("probe", {}).get("fractions", {}).items():
        share = f", {100 * float(fraction):g} % of training patients"
        rows += [(("Linear probe", measure + share), value) for measure, value in _means(found)]
    if calibration := part.get("calibration"):
        task, macro = f"Calibration, probe of {100 * float(calibration['probe']):g} %", calibration["macro"]
        for name, words in (("ece", "equal widths"), ("ece_equal_mass", "equal sizes")):
            value = f"{shown(macro[name])}; {macro[name]['if_calibrated']:.3f} if calibrated"
            rows.append(((task, f"expected calibration error, bins of {words}"), value))
        rows.append(((task, "Brier score"), shown(macro["brier"])))
    if outliers := part.get("outliers"):
        measure = f"flagged by {outliers['detector']}, %; set to {100 * outliers['false_alarm']:g}"
        rows.append((("Outliers", measure), shown(outliers["flagged"], 100, 1)))
    return rows


def _retrieval(part: Mapping[str, Any]) -> Cells:
    rows: Cells = []
    for kind in ("retrieval", "retrieval_codes"):
        for direction, galleries in part.get(kind, {}).items():
            for gallery, found in galleries.items():
                task = retrieval_task(kind, direction, gallery)
                rows += [((task, f"recall@{k}, %"), shown(found[f"recall@{k}"], 100, 1)) for k in RECALLS]
                rows.append(((task, f"median rank of {found['gallery']}"), shown(found["median_rank"], 1, 1)))
                if "map" in found:
                    rows.append(((task, "mAP, %"), shown(found["map"], 100, 1)))
    return rows


def retrieval_task(kind: str, direction: str, gallery: str) -> str:
    """What a retrieval is called: `kind` is "retrieval" or "retrieval_codes"."""
    task = f"Retrieval {DIRECTIONS[direction]}, {GALLERIES[gallery]}"
    if kind == "retrieval":
        return task
    return task.replace("distinct texts", "distinct codes").replace("Text", "Codes").replace("text", "codes")


def _zero_shot(task: str, found: Mapping[str, Any]) -> Cells:
    rows = [((task, measure), value) for measure, value in _means(found)]
    for area, path in AREAS.items():
        for name, value in _below(found, path)["classes"].items():
            rows.append(((task, f"{area} {name}{FEW if name in found.get('few', ()) else ''}"), shown(value)))
    return rows + [((task, f"AUROC {name}"), "left out: one-sided labels") for name in found["left_out"]]


def _means(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Both areas' means over classes; the second ones, without the classes of few, where there are any."""
    rows = []
    for area, path in AREAS.items():
        of = _below(found, path)
        rows += [(f"macro {area}", shown(of["macro"]))] if "macro" in of else []
        if found.get("few"):
            enough = of["macro_frequent"]
            rows.append((f"macro {area}{SECOND}", "–" if enough is None else shown(enough)))
    return rows


def _below(found: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    for key in path:
        found = found.get(key, {"classes": {}})
    return found


def groups_table(metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The model's results by group, as they are shown: attribute, group, two counts, recall, then both macro means of
    the probe and of zero-shot, and the classes that the second mean leaves out."""
    rows = []
    for row in metrics.get("subgroups", ()):
        cells = [row["attribute"], row["group"], str(row["recordings"]), str(row["patients"])]
        cells.append("–" if row["recall@10"] is None else shown(row["recall@10"], 100, 1))
        few: dict[str, None] = {}
        for found in (row["probe"], row["zeroshot"]):
            means = (None, None) if found is None else (found["macro"], found["macro_frequent"])
            cells += ["–" if mean is None else shown(mean) for mean in means]
            few |= dict.fromkeys(() if found is None else found["few"])
        rows.append((*cells, ", ".join(few) or "–"))
    return rows


def by_finding(metrics: Mapping[str, Any]) -> list[tuple[str, float, Row]]:
    """Precision at k of single findings, the most frequent first: by what was searched, prevalence in %, and a row."""
    result = []
    for kind, other in (("precision", "text"), ("precision_codes", "code")):
        parts = [(metrics.get(series) or {}).get(kind, {}).get("findings", {}) for series, _ in SERIES]
        for name, found in sorted(parts[0].items(), key=lambda item: -item[1]["prevalence"]):
            cells = (shown(part[name], 100, 1) if name in part else "–" for part in parts)
            result.append((other, 100 * found["prevalence"], Row(name, f"{found['positives']}", *cells)))
    return result


def shown(found: Mapping[str, float | None], scale: float = 1, digits: int = 3) -> str:
    value, low, high = (found[key] for key in ("value", "low", "high"))
    if value is None or math.isnan(value):
        return "undefined"
    if low is None or high is None or math.isnan(low):
        return f"{scale * value:.{digits}f}"
    return f"{scale * value:.{digits}f} ({scale * low:.{digits}f}–{scale * high:.{digits}f})"


def write_report(out: Path, metrics: dict[str, Any], figures: ReportFigures) -> None:
    """Write `metrics.json` and the self-contained `report.html` into directory `out`, each atomically."""
    metrics = finite(metrics)
    examples = [
        (example, Markup(draw_svg(example.signal_mv, example.sampling_rate, example.title)))
        for example in figures.examples
    ]
    page = render(
        Path(__file__).with_name("report.html.j2"),
        metrics=metrics,
        rows=table(metrics),
        by_finding=by_finding(metrics),
        groups=groups_table(metrics),
        figures=drawn(metrics, figures),
        examples=examples,
    )
    write_json(out / "metrics.json", metrics)
    with atomic(out / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")


def finite(value: Any) -> Any:
    """Plain values as strict JSON has them: NumPy scalars unwrapped, NaN and infinity null."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value

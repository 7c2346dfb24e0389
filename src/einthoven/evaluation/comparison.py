"""Models side by side, evaluated on the same recordings: each measure of each, and the paired difference to the first.

Layout of `compare.json`:

    {"data_kind", "split", "command", "seed", "resamples", "counts": as in metrics.json,
     "models": [{"name", "reports": [str], "seeds": [int or null], "trained_on"}],
     "measures": [{"task", "measure", "scale": 100 or 1,
                   "values": [{"value", "low", "high", "runs": [float]} or null],      # of each model
                   "differences": [{"value", "low", "high", "p"} or null]}]}           # to the first; null for itself

Reports whose models were trained on the same pairs by recipes that differ in nothing but seeds are one model: its value
is the mean over its runs, taken inside each resample, and "runs" are their own values. The interval is about patients,
the range of the runs about training again.

A difference is null where the two did not answer the same queries: their texts are other concatenations of notes, say,
or their probes know other classes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.evaluation.discrimination import AUPRC, AUROC, CLASS, MACRO, MACRO_FREQUENT, class_statistics
from einthoven.evaluation.intervals import Floats, Integers, Statistics, bootstrap, differences
from einthoven.evaluation.report import FEW, SECOND, ZERO_SHOT, finite, retrieval_task
from einthoven.evaluation.retrieval import rank_statistics
from einthoven.evaluation.scores import Scores, read_scores
from einthoven.pages import render
from einthoven.study import atomic, read_manifest, write_json

SERIES: Final = "model"
SHOWN: Final = {"median_rank": ("median rank", 1.0), "map": ("mAP, %", 100.0)}


@dataclass(frozen=True)
class Evaluated:
    """One report, read."""

    name: str
    path: Path
    metrics: dict[str, Any]
    scores: Scores


@dataclass(frozen=True)
class Part:
    """Measures of one model that rest on the same recordings."""

    task: str
    subjects: Integers  # [n]
    queries: tuple[Any, ...]  # equal where two models answered the same
    statistics: Statistics
    labels: dict[str, tuple[str, float]]  # of each statistic, how it is shown, and times what


def compare_reports(paths: Sequence[Path], command: str, separate: bool = False) -> dict[str, Any]:
    """The comparison of two or more directories of evaluations; `separate`: each is a model of its own."""
    if len(paths) < 2:
        raise EinthovenError("compare needs two reports or more: directories that `einthoven evaluate` wrote.")
    reports = [_read(path, name) for path, name in zip(paths, names(paths), strict=True)]
    for other in reports[1:]:
        refuse_unlike(reports[0], other)
    models: dict[str, list[Evaluated]] = {}
    for report in reports:
        models.setdefault(report.name if separate else _family(report), []).append(report)
    metrics = reports[0].metrics
    seed, resamples = int(metrics["seed"]), int(metrics["resamples"])
    comparison = {
        **{key: metrics[key] for key in ("data_kind", "split", "counts", "seed", "resamples")},
        "command": command,
        "models": [_described(runs) for runs in models.values()],
        "measures": _measures([[parts(run) for run in runs] for runs in models.values()], resamples, seed),
    }
    return dict(finite(comparison))


def names(paths: Sequence[Path]) -> list[str]:
    """What tells the directories apart: their paths without the folders they begin and end with alike."""
    pieces = [path.absolute().parts for path in paths]
    if len(set(pieces)) < len(pieces):
        raise EinthovenError("compare: the same report is named twice.")
    shortest = min(map(len, pieces))
    start = next((i for i in range(shortest) if len({p[i] for p in pieces}) > 1), shortest - 1)
    end = next((i for i in range(1, shortest - start) if len({p[-i] for p in pieces}) > 1), shortest - start)
    return ["/".join(p[start : len(p) - end + 1]) for p in pieces]


def _read(path: Path, name: str) -> Evaluated:
    if read_manifest(path / "manifest.json") is None or not (path / "metrics.json").is_file():
        raise EinthovenError(f"{path} holds no finished evaluation; `einthoven evaluate … --out {path}` makes one.")
    metrics = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
    if not schema.SCORES.at(path).exists():
        raise EinthovenError(f"{path} is of a version that kept no scores: run `einthoven evaluate` again.")
    return Evaluated(name, path, metrics, read_scores(path)[SERIES])


def refuse_unlike(first: Evaluated, other: Evaluated) -> None:
    """Refuse reports that no paired difference can be taken of."""
    for key, said in (("data_kind", "data"), ("split", "split")):
        one, two = first.metrics[key], other.metrics[key]
        if one != two:
            raise EinthovenError(f"{other.path} is of {two} {said}, {first.path} of {one}: they cannot be compared.")
    if first.scores.recording_ids != other.scores.recording_ids:
        one, two = set(first.scores.recording_ids), set(other.scores.recording_ids)
        raise EinthovenError(
            f"{other.path} and {first.path} are of different recordings: {len(one & two)} in both, {len(one ^ two)} "
            "in one only. Evaluate both models on one study."
        )
    labels = first.scores.labels.keys() == other.scores.labels.keys() and all(
        np.array_equal(values, other.scores.labels[name], equal_nan=True)
        for name, values in first.scores.labels.items()
    )
    if not labels or not np.array_equal(first.scores.subjects, other.scores.subjects):
        raise EinthovenError(
            f"{other.path} and {first.path} have other labels or patients for the same recordings: "
            "evaluate both models on one study."
        )


def _family(report: Evaluated) -> str:
    """Equal for reports whose training differs only by seeds; a model without a recipe is its own."""
    recipe, inputs = (report.metrics.get(key) for key in ("recipe", "trained_from"))
    return report.name if recipe is None else json.dumps([_unseeded(recipe), inputs], sort_keys=True)


def _unseeded(recipe: Any) -> Any:
    if not isinstance(recipe, dict):
        return recipe
    return {key: _unseeded(value) for key, value in recipe.items() if key != "seed"}


def _described(runs: list[Evaluated]) -> dict[str, Any]:
    seeds = [((run.metrics.get("recipe") or {}).get("training") or {}).get("seed") for run in runs]
    name = runs[0].name if len(runs) == 1 else f"{runs[0].name} and {len(runs) - 1} more"
    trained = {"trained_on": runs[0].metrics.get("trained_on")}
    return {"name": name, "reports": [run.name for run in runs], "seeds": seeds, **trained}


def parts(report: Evaluated) -> dict[str, Part]:
    """All measures of one report, by place."""
    scores, texts = report.scores, str(report.metrics.get("concatenation"))
    found: dict[str, Part | None] = {place: _retrieval(scores, place, texts) for place in scores.ranks}
    for place, task in ZERO_SHOT.items():
        found[place] = _classes(scores, task, [place], "")
    for fraction, subsets in scores.probes().items():
        share = f", {100 * float(fraction):g} % of training patients"
        found[f"probe/{fraction}"] = _classes(scores, "Linear probe", subsets, share)
    return {place: part for place, part in found.items() if part is not None}


def _retrieval(scores: Scores, place: str, texts: str) -> Part:
    kind, direction, gallery = place.split("/")
    there, found, query_of = scores.queries(place)
    statistics = rank_statistics(found.best, query_of, found.precision)
    known = statistics(np.ones((1, len(query_of)), np.float32))
    labels = {name: SHOWN.get(name, (f"{name}, %", 100.0)) for name in known}
    queries = (there.tobytes(), scores.groups(place)[there].tobytes(), texts if kind == "retrieval" else "")
    return Part(retrieval_task(kind, direction, gallery), scores.subjects[there], queries, statistics, labels)


def _classes(scores: Scores, task: str, places: list[str], share: str) -> Part | None:
    """`places` are those of the same classes, as more than one probe scores them; `share` says of which probes."""
    runs = [found for place in places if (found := scores.matrix(place)) is not None]
    if not runs:
        return None
    classes, there, labels, _ = runs[0]
    if not ((labels.sum(axis=0) > 0) & (labels.sum(axis=0) < len(labels))).any():
        return None
    statistics, kept, few = class_statistics(labels, np.stack([run[3] for run in runs]), classes)
    shown: dict[str, tuple[str, float]] = {}
    for of, area in ((AUROC, "AUROC"), (AUPRC, "AUPRC")):
        shown[of + MACRO] = (f"macro {area}{share}", 1.0)
        if few and len(few) < len(kept):
            shown[of + MACRO_FREQUENT] = (f"macro {area}{SECOND}{share}", 1.0)
        for name in kept:
            shown[of + CLASS + name] = (f"{area} {name}{FEW if name in few else ''}{share}", 1.0)
    return Part(task, scores.subjects[there], (there.tobytes(), classes), statistics, shown)


def _measures(models: list[list[dict[str, Part]]], resamples: int, seed: int) -> list[dict[str, Any]]:
    """Every measure that any model has, in the order of the first that has it."""
    rows = []
    for place in dict.fromkeys(place for runs in models for run in runs for place in run):
        joined = [_joined([run[place] for run in runs if place in run]) for runs in models]
        first = joined[0]
        values = [None if part is None else _values(part, resamples, seed) for part in joined]
        apart = [
            differences(first[0].subjects, _mean(first), _mean(part), resamples, seed)
            if first is not None and part is not None and first[0].queries == part[0].queries
            else {}
            for part in joined[1:]
        ]
        shown = next(part[0] for part in joined if part is not None)
        for name, (measure, scale) in shown.labels.items():
            rows.append(
                {
                    "task": shown.task,
                    "measure": measure,
                    "scale": scale,
                    "values": [None if of is None else of.get(name) for of in values],
                    "differences": [None, *(of.get(name) for of in apart)],
                }
            )
    return rows


def _joined(runs: list[Part]) -> list[Part] | None:
    """The runs of one model, if they answered the same queries; else there is no mean to take."""
    return runs if runs and all(run.queries == runs[0].queries for run in runs) else None


def _mean(runs: list[Part]) -> Statistics:
    def statistics(w: Floats) -> dict[str, Floats]:
        each = [run.statistics(w) for run in runs]
        return {name: np.mean([of[name] for of in each], axis=0) for name in each[0]}

    return statistics


def _values(runs: list[Part], resamples: int, seed: int) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = dict(bootstrap(runs[0].subjects, _mean(runs), resamples, seed))
    if len(runs) > 1:
        once = np.ones((1, len(runs[0].subjects)), np.float32)
        each = [run.statistics(once) for run in runs]
        for name, of in found.items():
            of["runs"] = [float(values[name][0]) for values in each]
    return found


def table(comparison: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The comparison as it is shown: header, and rows of task, measure, the values, the differences with p."""
    models = [model["name"] for model in comparison["models"]]
    header = ["task", "measure", *models, *(f"{name} − {models[0]}" for name in models[1:])]
    rows = [
        [row["task"], row["measure"]]
        + [_shown(found, row) for found in row["values"]]
        + [_shown(found, row, "+") for found in row["differences"][1:]]
        for row in comparison["measures"]
    ]
    return header, rows


def _shown(found: dict[str, Any] | None, row: dict[str, Any], sign: str = "") -> str:
    """A value, of several runs with the lowest and the highest in square brackets, its interval in round ones."""
    if found is None or found["value"] is None:
        return "–"
    digits = 1 if row["scale"] == 100 or "rank" in row["measure"] else 3

    def number(value: float | None) -> str:
        return "–" if value is None else f"{row['scale'] * value:{sign}.{digits}f}"

    value, low, high = (number(found[key]) for key in ("value", "low", "high"))
    if sign:
        return f"{value} ({low} to {high}; p {found['p']:.3f})"
    runs = found.get("runs", ())
    return f"{value}{f' [{number(min(runs))}–{number(max(runs))}]' if runs else ''} ({low}–{high})"


def write_comparison(out: Path, comparison: dict[str, Any]) -> None:
    """Write `compare.json` and the self-contained `compare.html` into directory `out`, each atomically."""
    header, rows = table(comparison)
    template = Path(__file__).with_name("comparison.html.j2")
    page = render(template, comparison=comparison, header=header, rows=rows)
    write_json(out / "compare.json", comparison)
    with atomic(out / "compare.html") as temporary:
        temporary.write_text(page, encoding="utf-8")

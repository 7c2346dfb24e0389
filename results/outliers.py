"""The tables of docs/outliers.md: corruptions, other devices, and findings that a model never saw.

python results/outliers.py --ptbxl SRC --scratch CLASSIFIER --other brazil=DIR … [--runs runs/outliers]
python results/outliers.py                     # the tables from the committed JSON

Real data, validation split, seed 0. The model is that of `make results`; CLASSIFIER is one that `make baselines`
trained from scratch; each DIR is read by `einthoven ingest challenge`. The models that never saw a finding have the
small budget of the ablations.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from ablations import BUDGET, RECIPE
from runs import einthoven, file_name, flags, replaced, threads_of

from einthoven.evaluation.report import shown
from einthoven.study import write_json

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "outliers.json", HERE.parent / "docs" / "outliers.md"
START, END = "<!-- outliers: made by results/outliers.py -->", "<!-- end of outliers -->"
COMMAND = "make results-outliers PTBXL=path/to/ptb-xl DATA=path/to/data"
STRONG = 3
"""From this severity on; a corruption of one severity counts in any case."""
UNSEEN = ("MI", "STTC", "CD", "HYP")


def measure(options: argparse.Namespace) -> None:
    """Calibrate and measure the model; train and measure those that a finding was kept from."""
    runs, threads, log = options.runs, threads_of(1), options.runs / "log.txt"
    others: list[str] = []
    for name, _, place in (other.partition("=") for other in options.other):
        einthoven(["ingest", "challenge", place, str(runs / name)], log, threads)
        others += ["--other", str(runs / name)]
    if not (runs / "model").exists():  # a copy: the model of `make results` keeps the detectors that it has
        shutil.copytree(options.study / "model", runs / "model")
    einthoven(["calibrate", str(runs / "model"), str(options.study)], log, threads)
    beside = ["--against", str(options.scratch)] if options.scratch else []
    result = outliers(runs / "model", options.study, [*others, *beside], runs / "report", log, threads)
    unseen = {}
    for name in options.unseen:
        model = runs / f"without-{file_name(name)}"
        settings = flags([*BUDGET, f"training.without_class={name}"])
        einthoven(["align", str(options.study), "--recipe", str(RECIPE), "--out", str(model), *settings], log, threads)
        rows = outliers(model, options.study, [], model.with_suffix(".report"), log, threads)["rows"]
        (unseen[name],) = [row for row in rows if row["kind"] == "class"]
        print(f"without {name}: done", flush=True)
    write_json(RESULTS, {**result, "command": COMMAND, "unseen": unseen, "unseen_settings": list(BUDGET)})


def outliers(model: Path, study: Path, more: list[str], out: Path, log: Path, threads: int) -> dict[str, Any]:
    einthoven(["outliers", str(model), str(study), "--out", str(out), *more], log, threads)
    return dict(json.loads((out / "outliers.json").read_text(encoding="utf-8")))


def rendered(result: dict[str, Any]) -> str:
    """AUROC by severity; then every detector, on each encoder; then the findings never seen."""
    corruptions = [row for row in result["rows"] if row["kind"] == "corruption"]
    (mean,) = [row for row in result["rows"] if row["kind"] == "mean"]
    counts = result["counts"]
    lines = [
        f"**Real** data: PTB-XL at 100 Hz, {result['split']} split ({counts['recordings']} recordings of "
        f"{counts['patients']} patients are usual), seed {result['seed']}; brackets are 95 % patient-bootstrap "
        f"intervals. Made by `{result['command']}`. Not measured: {', '.join(result['not_possible']) or 'nothing'}.",
        "",
        "AUROC by severity:",
        "",
        "| corruption, severities 1 to 5 | exposure | the same, unforeseen | early | neighbours | exposure, control |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in dict.fromkeys(row["name"] for row in corruptions):
        rows = [row for row in corruptions if row["name"] == name]
        columns = [
            [row["model"]["exposure"] for row in rows],
            [row["unforeseen"] for row in rows],
            [row["model"]["early"] for row in rows],
            [row["model"]["neighbours"] for row in rows],
            [row["random_init"]["exposure"] for row in rows],
        ]
        cells = (", ".join(f"{part['auroc']['value']:.2f}" for part in column) for column in columns)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    names = result["detectors"]
    strong = {
        row["name"]: [other for other in corruptions if other["name"] == row["name"] and other["severity"] >= STRONG]
        or [row]
        for row in corruptions
    }
    lines += ["", "| | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    lines.append(_row("mean AUROC of the corruptions", [mean["model"].get(name) for name in names]))
    lines.append(_row("the same, unforeseen", [mean["unforeseen"] if name == "exposure" else None for name in names]))
    for series, told in (("against", "encoder from scratch"), ("random_init", "control")):
        lines.append(_row(f"the same, {told}", [mean.get(series, {}).get(name) for name in names]))
    means = [
        np.mean([np.mean([row["model"][name]["auroc"]["value"] for row in rows]) for rows in strong.values()])
        for name in names
    ]
    lines.append("| the same, severities 3 to 5 | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
    lines.append(_row("mean FPR@95 of the corruptions", [mean["model"].get(name) for name in names], "fpr95"))
    for row in (row for row in result["rows"] if row["kind"] == "study"):
        for series, told in (("model", ""), ("against", ", encoder from scratch"), ("random_init", ", control")):
            title = f"AUROC {row['name']} ({row['recordings']}){told}"
            lines.append(_row(title, [row.get(series, {}).get(name) for name in names]))
        flagged = (row["model"][name]["flagged"] for name in names)
        lines.append(f"| flagged of {row['name']} | " + " | ".join(f"{100 * share:.0f} %" for share in flagged) + " |")
    if result["unseen"]:
        lines += [
            "",
            "AUROC of recordings with a finding that the model never saw (small budget):",
            "",
        ]
        lines += ["| never seen | recordings | " + " | ".join(names) + " |", "| --- | --- |" + " --- |" * len(names)]
    for name, row in result["unseen"].items():
        cells = [row["model"].get(detector) for detector in names]
        lines.append(f"| {name} | {row['recordings']}{_row('', cells)[3:]}")
    return "\n".join(lines)


def _row(title: str, parts: list[dict[str, Any] | None], measured: str = "auroc") -> str:
    cells = ("–" if part is None else shown(part[measured]) for part in parts)
    return f"| {title} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ptbxl", help="PTB-XL as published; without it the page is made from the committed JSON")
    parser.add_argument("--study", type=Path, default=Path("runs/ptbxl"), help="that of `make results`, with its model")
    parser.add_argument("--runs", type=Path, default=Path("runs/outliers"))
    parser.add_argument("--scratch", type=Path, help="a classifier trained from scratch")
    parser.add_argument("--other", action="append", default=[], help="NAME=DIR of a Challenge-like folder")
    parser.add_argument("--unseen", nargs="*", default=UNSEEN)
    options = parser.parse_args()
    if options.ptbxl:
        einthoven(["ingest", "ptbxl", options.ptbxl, str(options.study)], options.runs / "log.txt", threads_of(1))
        measure(options)
    result = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), START, END, rendered(result)), encoding="utf-8")


if __name__ == "__main__":
    main()

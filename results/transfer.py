"""What an encoder is worth where labels are few: the table and the learning curves of docs/transfer.md.

python results/transfer.py --ptbxl SRC [--runs runs/baselines] [--only NAME …] [--fractions 0.01,0.1] [--subsets 3]
python results/transfer.py                     # the page and the figure from the committed JSON

Real data, validation split, seed 0. The models are those of `make baselines`, trained first where they are not there
yet. Each is read by a linear probe and trained on (`einthoven finetune`); beside them the same encoder from
random weights, under a probe and trained. Every run has a directory of its own: after a kill the same command goes on.
"""

import argparse
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import baselines
import matplotlib
import numpy as np
from baselines import CONTRAST, MAIN, RANDOM, SUPERVISED
from matplotlib.figure import Figure
from runs import as_they_end, einthoven, file_name, flags, main, replaced, threads_of

from einthoven.evaluation.finetuned import Run, finetuned_metrics, macro_difference
from einthoven.evaluation.report import shown
from einthoven.evaluation.targets import CLASSES, read_targets
from einthoven.finetuning import parse_fractions
from einthoven.study import atomic, write_json
from einthoven.training.finetune_study import PREDICTIONS, read_predictions
from einthoven.training.labelled import Labelled, labelled_splits

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "transfer.json", HERE.parent / "docs" / "transfer.md"
FIGURE = "transfer.svg"
START, END = "<!-- transfer: made by results/transfer.py -->", "<!-- end of transfer -->"

SPLIT, SEED, RESAMPLES = "validation", 0, 1000
EPOCHS = 24  # as many as the encoders were aligned for, and as `make baselines` gives the supervised one
PROBE, TUNED = "linear probe", "fine-tuned"
SCRATCH = SUPERVISED
MODELS = (*CONTRAST, SCRATCH)
DEFAULT = (MAIN, "SimCLR", "patient-contrastive", "CLIP, as in MERL", SCRATCH)


@dataclass(frozen=True)
class Tuning:
    """One classifier: which encoder it begins with, and which labels it sees."""

    model: str
    fraction: float
    subset: int

    def place(self, runs: Path) -> Path:
        """Those from scratch are the very runs of the supervised row of `make baselines`."""
        folder = runs / "models" if self.model == SCRATCH else runs / "finetuned"
        return folder / file_name(self.model) / f"{self.fraction:g}-{self.subset}"

    def train(self, runs: Path, epochs: int, threads: int) -> dict[str, Any]:
        begin = runs / "models" / file_name(MAIN if self.model == SCRATCH else self.model)
        given = ["--labels", CLASSES, "--fraction", f"{self.fraction:g}", "--subset", str(self.subset)]
        given += ["--random-init"] if self.model == SCRATCH else []
        given += [*flags([f"finetuning.epochs={epochs}"]), "--out", str(self.place(runs))]
        log = runs / "logs" / f"{file_name(self.model)}-{self.fraction:g}-{self.subset}.txt"
        einthoven(["finetune", str(begin), str(runs / "study"), *given], log, threads)
        return {}


def tunings(models: Iterable[str], fractions: Iterable[float], subsets: int) -> list[Tuning]:
    """Every classifier, those of few labels first."""
    return [
        Tuning(model, fraction, subset)
        for fraction in sorted(fractions)
        for model in models
        for subset in range(1 if fraction >= 1 else subsets)
    ]


def probe_of(metrics: dict[str, Any]) -> dict[str, Any]:
    """The linear probe's figures by fraction, of one series of an evaluation."""
    return {
        fraction: {"macro": part["macro"], "subsets": [run["macro"] for run in part["subsets"]]}
        for fraction, part in metrics["probe"]["fractions"].items()
    }


def tuned(found: dict[str, list[Run]], goal: Labelled, labels: tuple[str, ...]) -> dict[str, Any]:
    """Figures of the fine-tuned classifiers of each model by fraction, and MAIN's lead over every other, paired."""
    settings: dict[str, int] = {"resamples": RESAMPLES, "seed": SEED}
    models: dict[str, Any] = {}
    for model, runs in found.items():
        metrics = finetuned_metrics(runs, goal.values, labels, goal.subjects, task=CLASSES, **settings)
        models[model] = {
            fraction: {"macro": part["macro"], "subsets": [run["macro"] for run in part["subsets"]]}
            for fraction, part in metrics.items()
        }
    leads: dict[str, Any] = {}
    for other in (name for name in found if name != MAIN and MAIN in found):
        for fraction in models[other]:
            first, second = (
                np.stack([run.predictions for run in found[name] if f"{run.fraction:g}" == fraction])
                for name in (MAIN, other)
            )
            lead = macro_difference(goal.values, first, second, goal.subjects, **settings)
            leads.setdefault(other, {})[fraction] = lead
    return {"models": models, "leads": leads}


def measure(options: argparse.Namespace) -> None:
    """Models, then classifiers, several at a time; then all figures from what they predict."""
    runs, threads, study = options.runs, threads_of(options.jobs), options.runs / "study"
    einthoven(["ingest", "ptbxl", options.ptbxl, str(study)], runs / "study.txt", threads)
    einthoven(["pair", str(study)], runs / "study.txt", threads)
    asked = options.only or DEFAULT
    wanted = [name for name in MODELS if name in asked or name == MAIN]
    encoders = [name for name in wanted if name != SCRATCH]
    metrics = dict(as_they_end(encoders, lambda name: baselines.train(name, runs, threads), options.jobs))
    probes = {name: probe_of(metrics[name]["model"]) for name in encoders}
    if "random_init" in metrics[MAIN]:
        probes[RANDOM] = probe_of(metrics[MAIN]["random_init"])
    todo = tunings(wanted, parse_fractions(options.fractions), options.subsets)
    for done, _ in as_they_end(todo, lambda run: run.train(runs, options.epochs, threads), options.jobs):
        print(f"{done.model}, {done.fraction:g} of the labels, subset {done.subset}: done", flush=True)
    targets = read_targets(CLASSES, study)
    splits = labelled_splits(study, targets)
    goal = splits[SPLIT]
    found: dict[str, list[Run]] = {name: [] for name in wanted}
    for run in todo:
        predictions = read_predictions(run.place(runs) / PREDICTIONS, goal, targets.labels)
        found[run.model].append(Run(run.fraction, run.subset, predictions, {}))
    measured = tuned(found, goal, targets.labels)
    labelled = {
        f"{fraction:g}": [
            splits["train"].subset(fraction, SEED, subset).counts() for subset in range(1 if fraction >= 1 else 5)
        ]
        for fraction in sorted({*parse_fractions(options.fractions), 0.01, 0.1, 1.0})
    }
    write_json(
        options.json,
        {
            "command": f"make transfer PTBXL=path/to/ptb-xl{options_of(options)}",
            "data_kind": "real",
            "split": SPLIT,
            "seed": SEED,
            "epochs": options.epochs,
            "subsets": options.subsets,
            "counts": goal.counts(),
            "labelled": labelled,
            PROBE: probes,
            TUNED: measured["models"],
            "leads": measured["leads"],
        },
    )


def options_of(options: argparse.Namespace) -> str:
    """What was asked for beside the default, as the command is shown."""
    said = [f"--only {' '.join(map(repr, options.only))}"] if options.only else []
    said += [
        f"--{name} {value}"
        for name, value, usual in (
            ("fractions", options.fractions, "0.01,0.1,1"),
            ("subsets", options.subsets, 5),
            ("epochs", options.epochs, EPOCHS),
        )
        if value != usual
    ]
    return f' OPTIONS="{" ".join(said)}"' if said else ""


def rendered(results: dict[str, Any]) -> str:
    """Table, leads and figure; brackets are 95 % intervals."""
    fractions = sorted(results["labelled"], key=float)
    sizes = (
        f"{float(f):.0%}, {np.mean([part['recordings'] for part in results['labelled'][f]]):.0f} recordings"
        for f in fractions
    )
    counts = results["counts"]
    lines = [
        f"**Real** data: PTB-XL at 100 Hz, {results['split']} split ({counts['recordings']} labelled recordings of "
        f"{counts['patients']} patients), five super-classes, macro AUROC, seed {results['seed']}; means over "
        f"{results['subsets']} subsets of the training patients (linear probes: 5). Brackets are 95 % "
        f"patient-bootstrap intervals. Made by `{results['command']}`.",
        "",
        "| encoder | | " + " | ".join(sizes) + " |",
        "| --- | --- |" + " --- |" * len(fractions),
    ]
    for way in (PROBE, TUNED):
        for name in (name for name in (*MODELS, RANDOM) if name in results[way]):
            found = results[way][name]
            cells = (shown(found[f]["macro"]) if f in found else "–" for f in fractions)
            lines.append(f"| {name} | {way if name != SCRATCH else 'trained'} | " + " | ".join(cells) + " |")
    if results["leads"]:
        lines += ["", f"Fine-tuned {MAIN} minus the other, the same patients drawn for both:", ""]
        lines += ["| other | " + " | ".join(f"{float(f):.0%}" for f in fractions) + " |"]
        lines += ["| --- |" + " --- |" * len(fractions)]
    for name in (name for name in MODELS if name in results["leads"]):
        found = results["leads"][name]
        cells = (shown(found[f]) if f in found else "–" for f in fractions)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"![Macro AUROC by labelled patients, with intervals]({FIGURE})"])


def drawn(results: dict[str, Any]) -> str:
    """The learning curves as SVG: the same bytes for the same results."""
    colours = dict(zip((*MODELS, RANDOM), matplotlib.colormaps["tab10"].colors, strict=False))
    style = {"svg.fonttype": "none", "svg.hashsalt": "transfer", "font.family": "sans-serif", "font.size": 11}
    with matplotlib.rc_context({**style, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for panel, way in zip(panels, (PROBE, TUNED), strict=True):
            for i, (name, found) in enumerate(results[way].items()):
                at = sorted(found, key=float)
                macro = [found[f]["macro"] for f in at]
                value, low, high = (np.array([m[key] for m in macro]) for key in ("value", "low", "high"))
                x = 100 * np.array([float(f) for f in at]) * 1.03 ** (i - len(results[way]) / 2)  # side by side
                bars = np.stack([value - low, high - value])
                panel.errorbar(x, value, bars, label=name, color=colours[name], marker="o", ms=4, lw=1.5, capsize=2)
            panel.set(xscale="log", title=way, xlabel="labelled training patients, %")
            panel.set_xticks([1, 10, 100], ["1", "10", "100"])
            panel.minorticks_off()
        panels[0].set_ylabel("macro AUROC")
        names: dict[str, Any] = {}
        for panel in panels:
            handles, labels = panel.get_legend_handles_labels()
            names |= dict(zip(labels, handles, strict=True))
        figure.legend(names.values(), names.keys(), loc="outside right center", frameon=False, fontsize=9)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()


def with_table(page: str, results: dict[str, Any]) -> str:
    """The page with its table replaced."""
    return replaced(page, START, END, rendered(results))


def more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fractions", default="0.01,0.1,1", help="of the labels, for what is fine-tuned")
    parser.add_argument("--subsets", type=int, default=5, help="of each fraction below 1")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of fine-tuning")
    parser.add_argument("--json", type=Path, default=RESULTS, help="elsewhere for a trial, which leaves the page alone")


def main_here() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    more(parser)
    place = parser.parse_known_args()[0].json
    page = PAGE if place == RESULTS else place.with_suffix(".md")
    if page != PAGE:
        page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    main(__doc__, "runs/baselines", [*MODELS], measure, place, page, with_table, more)
    with atomic(page.with_name(FIGURE)) as temporary:
        temporary.write_text(drawn(json.loads(place.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main_here()

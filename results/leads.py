"""The table of leads in docs/ecg.md: twelve, six, two and one, with and without training on few.

python results/leads.py --ptbxl SRC --runs runs/leads
python results/leads.py                         # the table from the committed JSON

Two models of the small budget of the ablations; measured is the validation split.
"""

import argparse
from pathlib import Path

from ablations import BUDGET, RECIPE
from runs import aligned, as_they_end, bounded, einthoven, figures, file_name, main, replaced, threads_of

from einthoven.study import write_json

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "leads.json", HERE.parent / "docs" / "ecg.md"
START, END = "<!-- leads: made by results/leads.py -->", "<!-- end of leads -->"

ARMS = {
    "always all leads": (),
    "half of the strips with few": ("augmentation.lead_subset=0.5",),
}
SHOWN = ("ECG→text R@10", "zero-shot, text", "zero-shot, codes", "probe 10 %", "probe 100 %")


def measure(options: argparse.Namespace) -> None:
    """Train and measure both."""
    runs, threads = options.runs, threads_of(options.jobs)
    einthoven(["ingest", "ptbxl", options.ptbxl, str(runs / "study")], runs / "study.txt", threads)
    einthoven(["pair", str(runs / "study")], runs / "study.txt", threads)

    def train(arm: str) -> dict:
        settings = [*BUDGET, *ARMS[arm], "evaluation.lead_subsets=true"]
        return aligned(runs / "study", RECIPE, runs / "models" / file_name(arm), settings, threads)

    rows = {}
    for arm, metrics in as_they_end(list(ARMS), train, options.jobs):
        rows[arm] = {"12": figures(metrics["model"])}
        rows[arm] |= {count: figures(part["model"]) for count, part in metrics["leads"].items()}
        print(f"{arm}: done", flush=True)
    command = "make leads PTBXL=path/to/ptb-xl"
    of = {"data_kind": "real", "split": "validation", "seed": 0, "recordings": metrics["counts"]["recordings"]}
    write_json(RESULTS, {"command": command, **of, "settings": list(BUDGET), "arms": {arm: rows[arm] for arm in ARMS}})


def rendered(results: dict) -> str:
    """The table, with 95 % intervals."""
    lines = [
        f"**Real** data: PTB-XL at 100 Hz, {results['split']} split ({results['recordings']} recordings), "
        f"seed {results['seed']}, the small budget of the [ablations](ablations.md); brackets are 95 % "
        f"patient-bootstrap intervals. Made by `{results['command']}`.",
        "",
        "| trained on | leads | " + " | ".join(SHOWN) + " |",
        "| --- | --- |" + " --- |" * len(SHOWN),
    ]
    for arm, parts in results["arms"].items():
        for count in sorted(parts, key=int, reverse=True):
            cells = (bounded(parts[count].get(name), name) for name in SHOWN)
            lines.append(f"| {arm} | {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def with_table(page: str, results: dict) -> str:
    """The page with its table replaced."""
    return replaced(page, START, END, rendered(results))


if __name__ == "__main__":
    main(__doc__, "runs/leads", list(ARMS), measure, RESULTS, PAGE, with_table)

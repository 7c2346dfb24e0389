"""Render results/*.json into the README's results section.

python results/render.py              # README from the committed JSON
python results/render.py STUDY        # first take STUDY/report/metrics.json as results/ptbxl.json
"""

import json
import sys
from pathlib import Path

from runs import replaced

from einthoven.config import load_recipe, to_dict
from einthoven.evaluation.report import table
from einthoven.study import read_manifest, write_json

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
START, END = "<!-- results: made by results/render.py -->", "<!-- end of results -->"


def take(study: Path) -> None:
    """Copy the metrics of a study's report, with what made them."""
    metrics = json.loads((study / "report" / "metrics.json").read_text(encoding="utf-8"))
    manifest = read_manifest(study / "model" / "manifest.json")
    if manifest is None:
        sys.exit(f"{study}/model has no manifest: its training is not complete")
    metrics["recipe"] = to_dict(load_recipe(HERE.parent / "recipes" / "ptbxl.toml"))
    metrics["training_pairs"] = manifest["counts"]["pairs"]
    metrics["history"] = manifest["counts"]["history"]
    metrics["command"] = "make results PTBXL=path/to/ptb-xl"
    write_json(HERE / "ptbxl.json", metrics)


def rendered(metrics: dict) -> str:
    """The results section: label, origin and table."""
    counts = metrics["counts"]
    lines = [
        f"**{metrics['data_kind'].capitalize()}** data: PTB-XL at 100 Hz, {metrics['training_pairs']} training pairs "
        f"(folds 1–8 of the 9,657 recordings whose report is public), measured on the {metrics['split']} split "
        f"({counts['recordings']} recordings of {counts['patients']} patients, {counts['distinct_texts']} distinct "
        "reports). The same split chose the epoch and the zero-shot rule (`LOG.md`), so these figures are slightly "
        f"optimistic; PTB-XL's test fold was never touched. Seed {metrics['seed']}; brackets are 95 % "
        f"patient-bootstrap intervals. Made by `{metrics['command']}`.",
        "",
        "| task | measure | model | random-init control |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| {row.task} | {row.measure} | {row.model} | {row.control} |" for row in table(metrics)]
    return "\n".join(lines)


def with_results(readme: str, metrics: dict) -> str:
    """The README with its results section replaced."""
    return replaced(readme, START, END, rendered(metrics))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        take(Path(sys.argv[1]))
    found = json.loads((HERE / "ptbxl.json").read_text(encoding="utf-8"))
    README.write_text(with_results(README.read_text(encoding="utf-8"), found), encoding="utf-8")

"""Render results/ptbxl.json: the main rows into the README, all of them into docs/results.md.

python results/render.py              # both from the committed JSON
python results/render.py STUDY        # first take STUDY/report/metrics.json as results/ptbxl.json
"""

import json
import re
import sys
from pathlib import Path

from runs import replaced

from einthoven.config import load_recipe, to_dict
from einthoven.evaluation.report import table
from einthoven.study import read_manifest, write_json

HERE = Path(__file__).parent
README, PAGE = HERE.parent / "README.md", HERE.parent / "docs" / "results.md"
START, END = "<!-- results: made by results/render.py -->", "<!-- end of results -->"

MAIN = re.compile(
    r"Retrieval .*distinct .*\| (recall@1,|recall@10|median)|One finding|Zero-shot.*\| macro|"
    r"Linear probe \| macro AUROC"
)
"""Rows of the README, as "task | measure"."""


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


def rendered(metrics: dict, main: bool = False) -> str:
    """The results section: label, origin and table."""
    counts = metrics["counts"]
    lines = [
        f"**{metrics['data_kind'].capitalize()}** data: PTB-XL at 100 Hz, {metrics['training_pairs']} training pairs "
        f"(folds 1–8 of the 9,657 recordings whose report is public), measured on the {metrics['split']} split "
        f"({counts['recordings']} recordings of {counts['patients']} patients, {counts['distinct_texts']} distinct "
        "reports). The same split chose the epoch and the form of the zero-shot rule (`LOG.md`), so these figures are "
        f"slightly optimistic; PTB-XL's test fold was never touched. Seed {metrics['seed']}; brackets are 95 % "
        f"patient-bootstrap intervals. Made by `{metrics['command']}`.",
        "",
        "| task | measure | model | random-init control |",
        "| --- | --- | --- | --- |",
    ]
    rows = [row for row in table(metrics) if not main or MAIN.match(f"{row.task} | {row.measure}")]
    return "\n".join([*lines, *(f"| {row.task} | {row.measure} | {row.model} | {row.control} |" for row in rows)])


def with_results(page: str, metrics: dict, main: bool = True) -> str:
    """A page with its results section replaced: the main rows, or all."""
    return replaced(page, START, END, rendered(metrics, main))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        take(Path(sys.argv[1]))
    found = json.loads((HERE / "ptbxl.json").read_text(encoding="utf-8"))
    for path, main in ((README, True), (PAGE, False)):
        path.write_text(with_results(path.read_text(encoding="utf-8"), found, main), encoding="utf-8")

"""`einthoven labels`: what comes after an ECG, as a file of labels; `einthoven probe`: what features say of labels."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from einthoven import pipeline
from einthoven.cli_arguments import ModelPath, RecipePath, Settings, StudyPath, command_line, recipe_of
from einthoven.errors import EinthovenError
from einthoven.progress import Progress, silent
from einthoven.terminal import brief, console, say, shown

if TYPE_CHECKING:
    from einthoven.config import Evaluation
    from einthoven.study import Outcome


def labels(
    study: StudyPath,
    code: Annotated[list[str], typer.Option("--code", help="a pattern of codes, e.g. 'ICD10CM/I50*'; repeatable")],
    within: Annotated[float, typer.Option(help="days after the recording in which the first one counts")],
    out: Annotated[Path, typer.Option("--out", help="the file to write, .csv or .parquet")],
    gap: Annotated[float, typer.Option(help="days after the recording in which it counts as there before")] = 0.0,
    name: Annotated[str, typer.Option(help="of the label's column")] = "outcome",
    meds: Annotated[Path | None, typer.Option(help="write them as MEDS labels, too, to this .parquet")] = None,
) -> None:
    """Label recordings by what their patients' records say later: `finetune` and `probe` take the file."""
    from einthoven.evaluation import prognosis
    from einthoven.study import data_kind

    if out.suffix not in (".csv", ".parquet"):
        raise EinthovenError(f"--out {out}: expected a file named .csv or .parquet.")
    if meds is not None and (meds.suffix != ".parquet" or meds == out):
        raise EinthovenError(f"--meds {meds}: expected a file of its own, named .parquet.")
    kind = data_kind(study)
    wanted = prognosis.Outcome(name=name, patterns=tuple(code), within=within, gap=gap)
    found = prognosis.labels_of(study, wanted)
    prognosis.write_labels(found, name, out)
    if meds is not None:
        prognosis.write_meds_labels(found, meds)
    said = "; ".join(f"{key} {brief(value)}" for key, value in found.counts().items())
    console.print(f"labels ({kind} data): {said}", markup=False)


def probe_stage(
    model: Path,
    study: Path,
    given: str,
    out: Path,
    config: "Evaluation",
    split: str = "validation",
    command: str = "",
    progress: Progress = silent,
) -> "Outcome":
    """Model, waveforms and labels -> `probe.json` in `out`."""
    from einthoven.evaluation.targets import Asked, file_of
    from einthoven.study import data_kind, lock, run_stage, stage_manifest

    data_kind(study)
    Asked(labels=given, split=split)  # refuses the train split
    inputs = {"ingest": stage_manifest(study, "ingest")}
    inputs |= {name: model / name for name in pipeline.TRAINED_FILES[:2]}
    file = file_of(given)
    inputs |= {} if file is None else {"labels": file}
    settings = {name: getattr(config, name) for name in ("resamples", "label_fractions", "subsets", "control", "seed")}

    def work() -> dict[str, Any]:
        from einthoven.training.label_probes import probe_labels

        return probe_labels(model, study, given, split, out, config, command, progress)

    with lock(out):
        return run_stage(
            out / "manifest.json",
            config=settings | {"split": split, "labels": given if file is None else "file"},
            inputs=inputs,
            outputs={"probe.json": out / "probe.json"},
            work=work,
        )


def probe(
    model: ModelPath,
    study: StudyPath,
    labels: Annotated[str, typer.Option("--labels", help="classes, or a file: CSV or Parquet with recording_id")],
    out: Annotated[Path, typer.Option("--out", help="directory for probe.json")],
    split: Annotated[str, typer.Option(help="what is measured: validation or test")] = "validation",
    recipe: RecipePath = None,
    settings: Settings = None,
) -> None:
    """Fit linear probes for labels on a model's features, at each fraction of the training patients."""
    options, command = recipe_of(recipe, settings).evaluation, command_line(sys.argv[1:])
    with shown("probe") as progress:
        outcome = probe_stage(model, study, labels, out, options, split, command, progress)
    say("probe", outcome)
    print_probe(out)


def print_probe(out: Path) -> None:
    """A row for each label and fraction of the training patients, model beside control."""
    from einthoven.evaluation.report import shown as bounded

    result = json.loads((out / "probe.json").read_text(encoding="utf-8"))
    table = Table(title=f"{result['data_kind']} data, {result['split']} split, AUROC", title_justify="left")
    for column in ("label", "positives measured", "training patients", "model", "random-init control"):
        table.add_column(column)
    for label, part in result["labels"].items():
        seen = part[result["split"]]
        positives = f"{seen['positive']} of {seen['recordings']}"
        if "left_out" in part:
            table.add_row(escape(label), positives, "–", f"left out: {part['left_out']}", "–")
            continue
        for fraction, found in part["model"]["fractions"].items():
            control = part.get("random_init", {"fractions": {}})["fractions"].get(fraction)
            cells = [bounded(found["macro"]), "–" if control is None else bounded(control["macro"])]
            table.add_row(escape(label), positives, f"{100 * float(fraction):g} %", *cells)
    console.print(table)
    console.print(f"metrics: {out / 'probe.json'}", markup=False)

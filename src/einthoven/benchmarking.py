"""`einthoven benchmark`: zero-shot classification of published sets of labels, and of PTB-XL's own."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from einthoven import pipeline
from einthoven.cli_arguments import ModelPath, RecipePath, Settings, command_line, recipe_of
from einthoven.errors import EinthovenError
from einthoven.progress import Progress, silent
from einthoven.terminal import console, say, shown

if TYPE_CHECKING:
    from einthoven.config import Evaluation
    from einthoven.study import Outcome


def benchmark_stage(
    model: Path,
    studies: Sequence[Path],
    out: Path,
    config: "Evaluation",
    *,
    split: str = "validation",
    merl: Path | None = None,
    prompts: Path | None = None,
    command: str = "",
    progress: Progress = silent,
) -> "Outcome":
    """Model, studies and MERL's tables, or the studies' own statements -> `benchmark.json` in `out`."""
    from einthoven.study import data_kind, lock, run_stage, stage_manifest

    pipeline.check_split(split)
    if len(set(map(Path.resolve, studies))) < len(studies):
        raise EinthovenError("benchmark: a study is named twice.")
    for study in studies:
        data_kind(study)
    if merl is not None and not merl.is_dir():
        raise EinthovenError(f"--merl {merl}: no such directory; give a copy of MERL's finetune/data_split.")
    if prompts is not None and (merl is None or not prompts.is_file()):
        raise EinthovenError(f"--prompts {prompts}: expected MERL's file of prompts, beside --merl.")
    inputs = pipeline.model_inputs(model, pipeline.TRAINED_FILES[:4])
    inputs |= {f"study {i}": stage_manifest(study, "ingest") for i, study in enumerate(studies)}
    inputs |= {name: path for name, path in (("merl", merl), ("prompts", prompts)) if path is not None}

    def work() -> dict[str, Any]:
        from einthoven.evaluation.benchmark import benchmark as measure

        return measure(model, studies, split, merl, prompts, out, config, command, progress)

    with lock(out):
        return run_stage(
            out / "manifest.json",
            config={"resamples": config.resamples, "seed": config.seed, "split": split, "merl": merl is not None},
            inputs=inputs,
            outputs={"benchmark.json": out / "benchmark.json"},
            work=work,
        )


def benchmark(
    model: ModelPath,
    studies: Annotated[list[Path], typer.Argument(help="one or more studies, one of each data set")],
    out: Annotated[Path, typer.Option("--out", help="directory for benchmark.json")],
    split: Annotated[str, typer.Option(help="train, validation or test, of MERL's tables or of the study")] = "test",
    merl: Annotated[Path | None, typer.Option("--merl", help="your copy of MERL's data_split directory")] = None,
    prompts: Annotated[Path | None, typer.Option(help="MERL's CKEPE_prompt.json; else the one in --merl")] = None,
    recipe: RecipePath = None,
    settings: Settings = None,
) -> None:
    """Classify without labels: MERL's six sets, as published and corrected, or the four of PTB-XL alone."""
    options, command = recipe_of(recipe, settings).evaluation, command_line(sys.argv[1:])
    asked: dict[str, Any] = {"split": split, "merl": merl, "prompts": prompts, "command": command}
    with shown("benchmark") as progress:
        outcome = benchmark_stage(model, studies, out, options, progress=progress, **asked)
    say("benchmark", outcome)
    print_benchmark(out)


HEADER = ("set", "labels", "prompts", "classes", "AUROC", "AUPRC", "classes of ≥ 10", "AUROC ≥ 10", "AUPRC ≥ 10")


def table(result: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """A row for each set, rule of labelling and way of asking; brackets are 95 % intervals."""
    from einthoven.evaluation.report import shown as bounded

    for name, part in result["sets"].items():
        for rule, ways in part["labels"].items():
            for way, found in ways.items():
                often = found["macro_frequent"]
                cells = ["–", "–"] if often is None else [bounded(often["auroc"]), bounded(often["auprc"])]
                means = (bounded(found["macro"]["auroc"]), bounded(found["macro"]["auprc"]))
                yield (name, rule, way, str(len(found["classes"])), *means, str(found["frequent"]), *cells)


def print_benchmark(out: Path) -> None:
    """The table, and what it rests on."""
    result = json.loads((out / "benchmark.json").read_text(encoding="utf-8"))
    printed = Table(title=f"{result['data_kind']} data, {result['split']} split", title_justify="left")
    for column in HEADER:
        printed.add_column(column)
    for row in table(result):
        printed.add_row(*row)
    console.print(printed)
    for name, part in result["sets"].items():
        said = f"{name}: {part['recordings']} recordings of {part['patients']} patients"
        said += f", {part['in_a_train_split']} of them in a train split" if part["in_a_train_split"] else ""
        said += f"; {part['not_in_a_study']} of {part['listed']} in no study" if part.get("not_in_a_study") else ""
        if "changed" in part:
            said += f"; corrected labels: {part['changed']['labels']}"
            said += f" (in the whole table {part['changed_in_the_table']['labels']})"
        console.print(said, markup=False)
    for said in result["absent"]:
        console.print(f"not measured: {said}", markup=False)
    console.print(f"every class, with its positives: {out / 'benchmark.json'}", markup=False)

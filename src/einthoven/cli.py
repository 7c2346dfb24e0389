"""The command line: one command per stage, `run` for all of them, `demo` for a first look."""

import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from einthoven import benchmarking, cli_search, labelling, pipeline
from einthoven.cli_arguments import ModelPath, RecipePath, Replacing, Settings, StudyPath, command_line, recipe_of
from einthoven.cli_compare import compare
from einthoven.cli_evaluate import calibrate, evaluate, outliers, run_evaluation
from einthoven.errors import EinthovenError, told
from einthoven.processes import follows, several
from einthoven.serve.command import serve
from einthoven.sources import SOURCES, refuse_unknown
from einthoven.terminal import (
    console,
    print_card,
    print_finetuned,
    say,
    shown,
)

if TYPE_CHECKING:
    from einthoven.config import Recipe

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Pair ECGs with codes and notes, align them, search by text. Research use only, not a medical device.",
)


SHARED = ("pretrain", "align", "embed")
"""Commands that several processes do together; the others would do the same work side by side."""


@app.callback()
def one_process(context: typer.Context) -> None:
    if several() and context.invoked_subcommand not in SHARED:
        raise EinthovenError(
            f"{context.invoked_subcommand} is the work of one process: run it without torchrun. "
            f"Several processes share {', '.join(SHARED)}."
        )


@app.command()
def ingest(
    source: Annotated[str, typer.Argument(help=f"one of: {', '.join(SOURCES)}")],
    paths: Annotated[list[str], typer.Argument(help="SRC STUDY (for `simulated` only STUDY)")],
    recipe: RecipePath = None,
    sampling_rate: Annotated[int | None, typer.Option(help="hertz of the study; without it the source's best")] = None,
    settings: Settings = None,
    replacing: Replacing = False,
) -> None:
    """Read a source into a new study: recordings, events, notes, waveforms; exclusions with their reasons."""
    refuse_unknown(source)
    wanted = 1 if source == "simulated" else 2
    if len(paths) != wanted:
        expected = "STUDY" if wanted == 1 else "SRC STUDY"
        raise EinthovenError(f"ingest {source}: expected {expected}, got {len(paths)} paths.")
    config = replace(recipe_of(recipe, settings).source, name=source)
    if sampling_rate is not None:
        config = replace(config, sampling_rate=sampling_rate)
    with shown("ingest") as progress:
        outcome = pipeline.ingest(config, paths[0] if wanted == 2 else None, Path(paths[-1]), progress, replacing)
    say("ingest", outcome)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="ptb-xl, mimic-iv-demo, …; a wrong name lists them all")],
    dest: Annotated[Path, typer.Argument(help="the directory to write")],
    only: Annotated[list[str] | None, typer.Option(help="a pattern of paths, e.g. 'records100/*'; repeatable")] = None,
    base: Annotated[str | None, typer.Option(help="the address of a mirror's folder")] = None,
    connections: Annotated[int, typer.Option(min=1, max=16, help="files at a time")] = 4,
    verify: Annotated[bool, typer.Option("--verify", help="read every file again")] = False,
) -> None:
    """Download a public data set, checked; repeated, it goes on where it stopped."""
    from einthoven.sources.fetch import fetch as fetch_dataset

    with shown("fetch") as progress:
        done = fetch_dataset(
            name, dest, base=base, only=only or (), connections=connections, verify=verify, progress=progress
        )
    console.print(f"fetch: {done.downloaded} files downloaded ({done.bytes / 1e6:,.1f} MB), {done.there} were there")


@app.command()
def rechart(
    study: StudyPath,
    out: Annotated[Path, typer.Argument(help="the new, semi-synthetic study")],
    seed: Annotated[int, typer.Option(help="of the simulated chart")] = 0,
) -> None:
    """Give real recordings a simulated chart made from their findings: a semi-synthetic study."""
    say("rechart", pipeline.rechart(study, out, seed))


@app.command()
def entities(study: StudyPath, recipe: RecipePath = None, settings: Settings = None) -> None:
    """Find clinical terms in the notes, and whether they are denied, uncertain, past, of the family or imagined."""
    with shown("entities") as progress:
        outcome = pipeline.entities(recipe_of(recipe, settings).entities, study, progress)
    say("entities", outcome)


@app.command()
def export(
    form: Annotated[str, typer.Argument(metavar="FORMAT", help="meds: a MEDS 0.4 dataset; onnx: an ECG encoder")],
    source: Annotated[Path, typer.Argument(help="for meds the study, for onnx the model")],
    out: Annotated[Path, typer.Argument(help="the directory to write, or the .onnx file")],
) -> None:
    """Write a study's record (no waveforms), or a model's ECG encoder, in another format."""
    if form == "onnx":
        from einthoven.onnx_export import export_onnx

        console.print(f"export: {out}: {export_onnx(source, out)}", markup=False)
    elif form == "meds":
        say("export", pipeline.export_meds(source, out))
    else:
        raise EinthovenError(f"export {form}: unknown format; known: meds, onnx.")


@app.command()
def pair(
    study: StudyPath,
    recipe: RecipePath = None,
    engine: Annotated[str, typer.Option(help="duckdb, spark, or a Spark master such as spark://host:7077")] = "duckdb",
    memory: Annotated[
        str | None, typer.Option(help="what the engine may use, e.g. 4GB; then it spills to disk")
    ] = None,
    settings: Settings = None,
) -> None:
    """Give every recording the codes, notes and clinical terms of its window."""
    options = recipe_of(recipe, settings)
    with shown("pair") as progress:
        say("pair", pipeline.pair(options, study, progress, engine, memory))


@app.command()
def check(
    study: StudyPath,
    out: Annotated[
        Path | None, typer.Option("--out", help="directory of the data card; without it STUDY/check")
    ] = None,
) -> None:
    """Prove that no patient, recording or signal crosses splits and every table is sound; write a data card."""
    place = study / "check" if out is None else out
    command = shlex.join(["einthoven", "check", str(study), *(["--out", str(out)] if out is not None else [])])
    with shown("check") as progress:
        card = pipeline.check(study, place, command, progress)
    print_card(card)
    console.print(f"data card: {place / 'data_card.html'}")
    if card["findings"]["error"]:
        raise typer.Exit(1)


@app.command()
def pretrain(
    study: StudyPath,
    out: Annotated[Path, typer.Option("--out", help="the directory of the encoder to write")],
    recipe: RecipePath = None,
    settings: Settings = None,
) -> None:
    """Train sEHR-BERT to tell hidden codes in the timelines of a study. A killed run goes on where it stopped."""
    with shown("pretrain") as progress:
        outcome = pipeline.pretrain(recipe_of(recipe, settings), study, out, progress)
    say("pretrain", outcome)


@app.command()
def align(
    study: StudyPath,
    out: Annotated[Path, typer.Option("--out", help="the model directory to write")],
    recipe: RecipePath = None,
    settings: Settings = None,
) -> None:
    """Train ECG and text encoders to meet. A killed run goes on where it stopped."""
    with shown("align") as progress:
        outcome = pipeline.align(recipe_of(recipe, settings), study, out, progress)
    say("align", outcome)


@app.command()
def finetune(
    model: ModelPath,
    study: StudyPath,
    labels: Annotated[str, typer.Option("--labels", help="classes, age, or a file: CSV or Parquet with recording_id")],
    out: Annotated[Path, typer.Option("--out", help="the directory to write")],
    task: Annotated[str, typer.Option(help="auto, classes or regression")] = "auto",
    fraction: Annotated[float, typer.Option(help="of the training patients whose labels are used")] = 1.0,
    subset: Annotated[int, typer.Option(help="number of the subset, where --fraction is below 1")] = 0,
    fractions: Annotated[str | None, typer.Option(help="a table of several: 0.01,0.1,1")] = None,
    subsets: Annotated[int, typer.Option(min=1, help="of each of the --fractions below 1")] = 5,
    random_init: Annotated[bool, typer.Option("--random-init", help="the same encoder, from random weights")] = False,
    split: Annotated[
        str, typer.Option(help="what is measured: validation, which chose the epoch, or test")
    ] = "validation",
    recipe: RecipePath = None,
    settings: Settings = None,
) -> None:
    """Train a model's ECG encoder and a linear head for labels: classes or numbers. A killed run goes on."""
    from einthoven import finetuning
    from einthoven.evaluation.targets import Asked

    asked = Asked(labels=labels, task=task, fraction=fraction, subset=subset, random_init=random_init, split=split)
    options, command = recipe_of(recipe, settings), command_line(sys.argv[1:])
    with shown("finetune") as progress:
        if fractions is None:
            outcome = finetuning.finetune(model, study, out, options, asked, command, progress)
        elif (fraction, subset) != (1.0, 0):
            raise EinthovenError("finetune: either --fractions, with --subsets, or --fraction, with --subset.")
        else:
            wanted = finetuning.parse_fractions(fractions)
            outcome = finetuning.finetune_table(model, study, out, options, asked, wanted, subsets, command, progress)
    say("finetune", outcome)
    print_finetuned(out)


@app.command()
def embed(
    model: ModelPath,
    study: StudyPath,
    npz: Annotated[
        Path | None, typer.Option("--npz", help="write them to this .npz, too, with texts and prompts")
    ] = None,
) -> None:
    """Embed every recording of a study."""
    with shown("embed") as progress:
        outcome = pipeline.embed(model, study, progress)
    say("embed", outcome)
    if npz is not None and not follows():
        with shown("embed") as progress:
            arrays = pipeline.embed_to_file(model, study, npz, progress)
        console.print(f"{npz}: " + ", ".join(f"{name} {shape}" for name, shape in arrays.items()))


for measured in (evaluate, outliers, calibrate, compare, benchmarking.benchmark, labelling.labels, labelling.probe):
    app.command()(measured)


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="a TOML recipe")],
    study: Annotated[Path, typer.Option("--study", help="the study directory to write")],
    source: Annotated[str | None, typer.Option("--source", help="the published files")] = None,
    split: Annotated[str, typer.Option(help="the split to evaluate")] = "validation",
    settings: Settings = None,
    replacing: Replacing = False,
) -> None:
    """All stages of a recipe: ingest, pair, align, embed, evaluate, into STUDY/model and STUDY/report."""
    options = recipe_of(recipe, settings)
    run_all(options, source, study, split, command_line(sys.argv[1:]), replacing)


def run_all(options: "Recipe", source: str | None, study: Path, split: str, command: str, replacing: bool) -> None:
    pipeline.check_split(split)
    with shown("ingest") as progress:
        say("ingest", pipeline.ingest(options.source, source, study, progress, replacing))
    with shown("pair") as progress:
        say("pair", pipeline.pair(options, study, progress))
    with shown("align") as progress:
        say("align", pipeline.align(options, study, study / "model", progress))
    run_evaluation(study / "model", study, split, study / "report", options, command)


DEMO_QUERIES = ("atrial fibrillation", "left bundle branch block", "inferior infarct, old")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="directory to write")] = Path("demo"),
    recipe: Annotated[Path | None, typer.Option(help="another recipe than the built-in one")] = None,
    replacing: Replacing = False,
) -> None:
    """Simulate a cohort, pair, train, evaluate and answer three queries. Everything in it is simulated."""
    from importlib.resources import as_file, files

    from einthoven.config import load_recipe

    with as_file(files("einthoven") / "demo.toml") as built_in:
        options = load_recipe(recipe or built_in)
    console.print("einthoven demo: ECGs and charts are simulated; no figure below says anything about real patients.")
    run_all(options, None, out, "test", command_line(sys.argv[1:]), replacing)
    for query in DEMO_QUERIES:
        cli_search.search(out / "model", out, query, top=3, split="test")
    console.print(f"report: {out / 'report' / 'report.html'}")


cli_search.register(app)
app.command()(serve)


def main() -> None:
    """Entry point: a user's mistake, or a full disk, is one line on stderr and exit status 2, never a traceback."""
    quiet()
    try:
        app()
    except Exception as error:
        said = told(error)
        if said is None:
            raise
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"einthoven: {said}")
        sys.exit(2)


def quiet() -> None:
    """Libraries report to us, not to the user's terminal."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

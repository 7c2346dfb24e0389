"""The command line: one command per stage, `run` for all of them, `demo` for a first look."""

import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from einthoven import pipeline, schema
from einthoven.config import Recipe, load_recipe
from einthoven.errors import EinthovenError
from einthoven.study import Outcome, data_kind

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Pair ECGs with codes and notes, align them, search by text. Research use only, not a medical device.",
)
# of several processes only the first speaks; a log has room for a table
console = Console(highlight=False, width=None if sys.stdout.isatty() else 140, quiet=os.environ.get("RANK", "0") != "0")

StudyPath = Annotated[Path, typer.Argument(help="the study directory")]
ModelPath = Annotated[Path, typer.Argument(help="the model directory")]
RecipePath = Annotated[Path | None, typer.Option("--recipe", help="a TOML recipe; without it the defaults")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="a setting over the recipe's, e.g. pairing.codes_after=0; may be repeated"),
]


@contextmanager
def shown(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar with rate and time left; plain lines every 10 seconds where there is no terminal."""
    began = time.monotonic()
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(title, total=None, rate="")
            phase, began_at, first = "", began, 0

            def draw(done: int, total: int, note: str) -> None:
                nonlocal phase, began_at, first
                if note.split()[0] != phase:
                    bar.reset(task)
                    phase, began_at, first = note.split()[0], time.monotonic(), done
                rate = (done - first) / max(time.monotonic() - began_at, 1e-6)
                bar.update(task, completed=done, total=total, description=f"{title}: {note}", rate=f"{rate:,.1f}/s")

            yield draw
    else:
        yield plain_progress(title)
    console.print(f"{title}: {time.monotonic() - began:.1f} s")


def plain_progress(title: str, every: float = 10.0) -> Callable[[int, int, str], None]:
    """Lines for a log: at most one in `every` seconds."""
    state: dict[str, Any] = {"note": None}

    def line(done: int, total: int, note: str) -> None:
        now = time.monotonic()
        if state["note"] != note.split()[0]:
            state.update(note=note.split()[0], began=now, first=done, last=now)
        if now - state["last"] >= every:
            rate = (done - state["first"]) / (now - state["began"])
            left = (total - done) / rate if rate else float("inf")
            console.print(f"{title}: {note}: {done}/{total}, {rate:,.1f}/s, {left:,.0f} s left")
            state["last"] = now

    return line


def say(stage: str, outcome: Outcome) -> None:
    """One line of what a stage did, without the long parts of its counts."""
    if not outcome.fresh:
        console.print(f"{stage}: unchanged, nothing to do")
        return
    brief = {k: v for k, v in outcome.counts.items() if not isinstance(v, list)}
    parts = []
    for key, value in brief.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items()) or "none"
            parts.append(f"{key} ({value})")
        else:
            parts.append(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}")
    console.print(f"{stage}: " + "; ".join(parts))


def recipe_of(path: Path | None, settings: list[str] | None = None) -> Recipe:
    return load_recipe(path, settings or ())


@app.command()
def ingest(
    source: Annotated[str, typer.Argument(help=f"one of: {', '.join(pipeline.SOURCES)}")],
    paths: Annotated[list[str], typer.Argument(help="SRC STUDY (for `simulated` only STUDY)")],
    recipe: RecipePath = None,
    sampling_rate: Annotated[int | None, typer.Option(help="hertz of the study; without it the source's best")] = None,
    settings: Settings = None,
) -> None:
    """Read a source into a new study: recordings, events, notes, waveforms; exclusions with their reasons."""
    wanted = 1 if source == "simulated" else 2
    if len(paths) != wanted:
        expected = "STUDY" if wanted == 1 else "SRC STUDY"
        raise EinthovenError(f"ingest {source}: expected {expected}, got {len(paths)} paths.")
    config = replace(recipe_of(recipe, settings).source, name=source)
    if sampling_rate is not None:
        config = replace(config, sampling_rate=sampling_rate)
    with shown("ingest") as progress:
        outcome = pipeline.ingest(config, paths[0] if wanted == 2 else None, Path(paths[-1]), progress)
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
def entities(study: StudyPath, recipe: RecipePath = None) -> None:
    """Find clinical terms in the notes, and whether they are denied, uncertain, past, of the family or imagined."""
    with shown("entities") as progress:
        outcome = pipeline.entities(recipe_of(recipe).entities, study, progress)
    say("entities", outcome)


@app.command()
def export(
    form: Annotated[str, typer.Argument(metavar="FORMAT", help="meds: a MEDS 0.4 dataset")],
    study: StudyPath,
    out: Annotated[Path, typer.Argument(help="the directory to write")],
) -> None:
    """Write a study's events, notes, codes, splits and list of recordings in another format; no waveforms."""
    if form != "meds":
        raise EinthovenError(f"export {form}: unknown format; known: meds.")
    say("export", pipeline.export_meds(study, out))


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


def print_card(card: dict[str, Any]) -> None:
    """Counts by split, what was excluded, the rules, and every finding."""
    table = Table(title=f"{card['data_kind']} data", title_justify="left")
    table.add_column("count")
    for split in (*schema.SPLITS, "all"):
        table.add_column(split, justify="right")
    for row in card["counts"] or ():
        shown_cells = [f"{cell:,}" if isinstance(cell, int) else cell for cell in row["cells"]]
        table.add_row(row["name"], *shown_cells)
    console.print(table)
    for name, reach in card["dates"].items():
        console.print(f"{name}: {reach['first'] or '–'} to {reach['last'] or '–'}, {reach['undated']} without a time")
    excluded = ", ".join(f"{row['reason']} {row['rows']:,}" for row in card["excluded"] or ())
    console.print(f"excluded: {excluded or 'nothing'}; not made yet: {', '.join(card['not_made']) or 'nothing'}")
    console.print("rules: " + ", ".join(f"{count} {state}" for state, count in card["rules"].items()))
    for verdict in card["verdicts"]:
        for finding in verdict["findings"]:
            place = ", ".join(filter(None, (finding["file"], finding["column"])))
            rows = f" {finding['count']:,} rows" if finding["count"] else ""
            rows += f", first {', '.join(map(str, finding['rows']))}" if finding["rows"] else ""
            said = f"{place}: expected {finding['expected']}.{rows and rows + '.'} {finding['remedy']}"
            console.print(f"{finding['severity']} ({verdict['rule']}): {said}", markup=False, soft_wrap=True)


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
def embed(model: ModelPath, study: StudyPath) -> None:
    """Embed every recording of a study."""
    with shown("embed") as progress:
        outcome = pipeline.embed(model, study, progress)
    say("embed", outcome)


@app.command()
def search(
    model: ModelPath,
    study: StudyPath,
    text: Annotated[str, typer.Option("--text", help="what to look for, in words")],
    top: Annotated[int, typer.Option(min=1, help="how many recordings")] = 10,
    split: Annotated[str | None, typer.Option(help="only this split")] = None,
) -> None:
    """Find the recordings that fit a text best."""
    if split is not None:
        pipeline.check_split(split)
    print_hits(model, study, text, top, split)


def print_hits(model: Path, study: Path, text: str, top: int, split: str | None = None) -> None:
    hits = pipeline.search(model, study, text, top, split)
    table = Table(title=f"“{text}” · {data_kind(study)} data", title_justify="left")
    for column in ("rank", "recording", "split", "cosine", "findings of this recording"):
        table.add_column(column)
    for rank, hit in enumerate(hits, start=1):
        table.add_row(str(rank), hit.recording_id, hit.split, f"{hit.score:.3f}", "; ".join(hit.findings))
    console.print(table)


@app.command()
def evaluate(
    model: ModelPath,
    study: StudyPath,
    out: Annotated[Path, typer.Option("--out", help="directory for metrics.json and report.html")],
    split: Annotated[str, typer.Option(help="train, validation or test")] = "test",
    recipe: RecipePath = None,
    settings: Settings = None,
) -> None:
    """Measure a model on one split: retrieval, zero-shot classes, linear probes, an untrained control."""
    command = ["einthoven", "evaluate", str(model), str(study), "--split", split, "--out", str(out)]
    command += ["--recipe", str(recipe)] if recipe is not None else []
    command += [part for setting in settings or () for part in ("--set", setting)]
    run_evaluation(model, study, split, out, recipe_of(recipe, settings), shlex.join(command))


def run_evaluation(model: Path, study: Path, split: str, out: Path, recipe: Recipe, command: str) -> None:
    with shown("evaluate") as progress:
        outcome = pipeline.evaluate(model, study, split, out, recipe.evaluation, command, progress)
    say("evaluate", outcome)
    print_report(out)


def print_report(out: Path) -> None:
    import json

    from einthoven.evaluation.report import table

    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    shown_table = Table(title=f"{metrics['data_kind']} data, {metrics['split']} split", title_justify="left")
    for column in ("task", "measure", "model", "random-init control"):
        shown_table.add_column(column)
    for row in table(metrics):
        if "all recordings" in row.task:
            continue  # the stricter gallery stands in the report
        shown_table.add_row(row.task, row.measure, row.model, row.control)
    console.print(shown_table)
    console.print(f"report: {out / 'report.html'}")


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="a TOML recipe")],
    study: Annotated[Path, typer.Option("--study", help="the study directory to write")],
    source: Annotated[str | None, typer.Option("--source", help="the published files")] = None,
    split: Annotated[str, typer.Option(help="the split to evaluate")] = "validation",
    settings: Settings = None,
) -> None:
    """All stages of a recipe: ingest, pair, align, embed, evaluate, into STUDY/model and STUDY/report."""
    options = recipe_of(recipe, settings)
    run_all(options, source, study, split, command_line(sys.argv[1:]))


def command_line(arguments: list[str]) -> str:
    """The command as a report shows it: of a connection string, which may hold a password, only its kind."""
    return shlex.join(["einthoven", *(re.sub(r"^(.*?://).*", r"\1…", argument) for argument in arguments)])


def run_all(options: Recipe, source: str | None, study: Path, split: str, command: str) -> None:
    pipeline.check_split(split)
    with shown("ingest") as progress:
        say("ingest", pipeline.ingest(options.source, source, study, progress))
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
) -> None:
    """Simulate a cohort, pair, train, evaluate and answer three queries. Everything in it is simulated."""
    from importlib.resources import as_file, files

    with as_file(files("einthoven") / "demo.toml") as built_in:
        options = load_recipe(recipe or built_in)
    console.print("einthoven demo: ECGs and charts are simulated; no figure below says anything about real patients.")
    run_all(options, None, out, "test", shlex.join(["einthoven", *sys.argv[1:]]))
    for query in DEMO_QUERIES:
        print_hits(out / "model", out, query, 3, "test")
    console.print(f"report: {out / 'report' / 'report.html'}")


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit status 2, never a traceback."""
    quiet()
    try:
        app()
    except EinthovenError as error:
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"einthoven: {error}")
        sys.exit(2)
    except OSError as error:
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"einthoven: {error}")
        sys.exit(1)


def quiet() -> None:
    """Libraries report to us, not to the user's terminal."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

"""What a person at a terminal sees of the stages: progress, counts, tables."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from einthoven.search.archive import Answer
    from einthoven.study import Outcome

# of several processes only the first speaks; a log has room for a table
console = Console(highlight=False, width=None if sys.stdout.isatty() else 140, quiet=os.environ.get("RANK", "0") != "0")


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


def say(stage: str, outcome: "Outcome") -> None:
    """One line of what a stage did, without the long parts of its counts."""
    if not outcome.fresh:
        console.print(f"{stage}: unchanged, nothing to do")
        return
    said = {key: brief(value) for key, value in outcome.counts.items() if not isinstance(value, list)}
    console.print(f"{stage}: " + "; ".join(f"{key} {value}" for key, value in said.items()))


def brief(value: Any) -> str:
    """A count, or counts by name in brackets."""
    if isinstance(value, dict):
        return "(" + (", ".join(f"{key} {brief(item)}" for key, item in value.items()) or "none") + ")"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def print_hits(answer: "Answer", query: str, kind: str) -> None:
    """A ranking, and the kind of data that it is of."""
    flags = {True: "yes", False: "no", None: "–"}
    table = Table(title=f"{query} · {kind} data", title_justify="left")
    for column in ("rank", "recording", "split", "cosine", "age", "sex", "outlier", "findings of this recording"):
        table.add_column(column)
    for rank, hit in enumerate(answer.hits, start=1):
        age = "–" if hit.age is None else f"{hit.age:.0f}"
        place = (str(rank), hit.recording_id, hit.split, f"{hit.score:.3f}", age, hit.sex or "–", flags[hit.outlier])
        table.add_row(*map(escape, place), escape("; ".join(hit.findings)))
    console.print(table)
    if not answer.hits:
        console.print("no recording satisfies this.")
    if answer.outlier is not None:
        console.print(f"the ECG asked with is an outlier to the model: {flags[answer.outlier]}")


def print_card(card: dict[str, Any]) -> None:
    """Counts by split, what was excluded, the rules, and every finding."""
    from einthoven import schema

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


def print_report(out: Path) -> None:
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


def print_finetuned(out: Path) -> None:
    """The metrics of fine-tuned classifiers: a row for each label and measure, a column for each fraction of labels."""
    from einthoven.evaluation.report import shown as bounded

    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    start = "random weights" if metrics["random_init"] else "the model's weights"
    console.print(f"{metrics['data_kind']} data, {metrics['split']} split, trained from {start}")
    shown_table = Table()
    shown_table.add_column("measure")
    columns = [_measures(metrics["task"], part) for part in metrics["fractions"].values()]
    for fraction in metrics["fractions"]:
        shown_table.add_column(f"{float(fraction):.4g} of the labels", justify="right")
    for name in dict.fromkeys(name for column in columns for name in column):
        cells = (column.get(name) for column in columns)
        shown_table.add_row(escape(name), *("–" if cell is None else bounded(cell) for cell in cells))
    console.print(shown_table)
    if metrics["optimistic"]:
        console.print("the validation split chose the epoch too, so these figures are slightly optimistic")
    console.print(f"metrics: {out / 'metrics.json'}", markup=False)


def _measures(task: str, part: dict[str, Any]) -> dict[str, dict[str, float]]:
    if task == "classes":
        means = {"macro AUROC": part["macro"]}
        means |= {"macro AUPRC": part["auprc"]["macro"]} if "auprc" in part else {}  # not in what was written before
        return means | {f"AUROC {name}": found for name, found in part["classes"].items()}
    names = {"mae": "MAE", "rmse": "RMSE", "r": "Pearson r", "r2": "R²"}
    return {f"{names[key]} {label}": v for label, of in part["labels"].items() for key, v in of.items()}


def print_outliers(out: Path) -> None:
    from einthoven.evaluation.outlier_page import HEADER, table

    result = json.loads((out / "outliers.json").read_text(encoding="utf-8"))
    shown_table = Table(title=f"{result['data_kind']} data, {result['split']} split", title_justify="left")
    for column in HEADER:
        shown_table.add_column(column)
    for row in table(result):
        shown_table.add_row(*row)
    console.print(shown_table)
    console.print(f"report: {out / 'outliers.html'}")

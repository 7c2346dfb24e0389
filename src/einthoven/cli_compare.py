"""`einthoven compare`: evaluated models side by side."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from einthoven.terminal import console


def compare(
    reports: Annotated[list[Path], typer.Argument(help="directories of evaluations; the first is compared with")],
    out: Annotated[Path, typer.Option("--out", help="directory for compare.json and compare.html")],
    separate: Annotated[bool, typer.Option("--separate", help="keep models apart that differ only by seed")] = False,
) -> None:
    """Set models side by side that were evaluated on the same recordings, with paired intervals of the differences."""
    from einthoven.evaluation.comparison import compare_reports, write_comparison
    from einthoven.study import lock

    command = ["einthoven", "compare", *map(str, reports), "--out", str(out), *(["--separate"] if separate else [])]
    comparison = compare_reports(reports, shlex.join(command), separate)
    with lock(out):
        write_comparison(out, comparison)
    print_comparison(comparison)
    console.print(f"comparison: {out / 'compare.html'}")


def print_comparison(comparison: dict[str, Any]) -> None:
    from einthoven.evaluation.comparison import table

    title = f"{comparison['data_kind']} data, {comparison['split']} split"
    shown_table = Table(
        title=escape(f"{title}; differences to {comparison['models'][0]['name']}"), title_justify="left"
    )
    header, rows = table(comparison)
    for column in header:
        shown_table.add_column(escape(column), overflow="fold")
    for row in rows:
        if "all recordings" not in row[0] and not row[1].startswith(("AUROC", "AUPRC")):
            shown_table.add_row(*map(escape, row))  # single classes and the other galleries stand in the page
    console.print(shown_table)

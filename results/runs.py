"""Runs of einthoven, several at a time, and the tables on pages that are made of what they measured."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TypeVar

from einthoven.evaluation.report import shown

T = TypeVar("T")

MEASURES = {  # name -> where it is in the metrics of a model, and by what it is multiplied
    "ECG→text R@1": (("retrieval", "ecg_to_text", "distinct", "recall@1"), 100),
    "ECG→text R@10": (("retrieval", "ecg_to_text", "distinct", "recall@10"), 100),
    "ECG→codes R@10": (("retrieval_codes", "ecg_to_text", "distinct", "recall@10"), 100),
    "zero-shot, text": (("zeroshot", "macro"), 1),
    "zero-shot, codes": (("zeroshot_codes", "macro"), 1),
    "probe 1 %": (("probe", "fractions", "0.01", "macro"), 1),
    "probe 10 %": (("probe", "fractions", "0.1", "macro"), 1),
    "probe 100 %": (("probe", "fractions", "1", "macro"), 1),
}


def digits(measure: str) -> int:
    return 1 if MEASURES[measure][1] == 100 else 3


def figures(part: dict) -> dict[str, dict[str, float]]:
    """The measures that a model has, each with its interval, of its part of metrics.json."""
    found = {}
    for name, (path, scale) in MEASURES.items():
        value: object = part
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, dict) and value["value"] is not None:
            found[name] = {key: scale * value[key] for key in ("value", "low", "high")}
    return found


def bounded(figure: dict[str, float] | None, measure: str) -> str:
    """A value and its interval, for a table."""
    return "–" if figure is None else shown(figure, digits=digits(measure))


def file_name(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text)


def einthoven(arguments: list[str], log: Path, threads: int) -> None:
    """Run a command of einthoven; what it says goes to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with log.open("a", encoding="utf-8") as file:
        command = [sys.executable, "-m", "einthoven", *arguments]
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments[:3])} failed; see {log}")


def as_they_end(todo: list[T], train: Callable[[T], dict], jobs: int) -> Iterator[tuple[T, dict]]:
    """Each run and what it returned, as it ends, several at a time. One that fails takes no other with it."""
    failed = []
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(train, run): run for run in todo}
        for ended in as_completed(running):
            try:
                metrics = ended.result()
            except RuntimeError as error:
                failed.append(str(error))
                print(error, flush=True)
            else:
                yield running[ended], metrics
    if failed:
        sys.exit(f"{len(failed)} of {len(todo)} runs failed")


def flags(settings: list[str] | tuple[str, ...]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def aligned(study: Path, recipe: Path, place: Path, settings: list[str], threads: int) -> dict:
    """Train a model in `place` and measure it on the validation split; the metrics."""
    log, report = place.with_suffix(".txt"), place.with_name(place.name + ".report")
    trained = ["--recipe", str(recipe), "--out", str(place), *flags(settings)]
    einthoven(["align", str(study), *trained], log, threads)
    measured = flags([setting for setting in settings if setting.startswith("evaluation.")])
    where = ["--split", "validation", "--out", str(report)]
    einthoven(["evaluate", str(place), str(study), *where, *measured], log, threads)
    return json.loads((report / "metrics.json").read_text(encoding="utf-8"))


def threads_of(jobs: int) -> int:
    """Of each of several runs at a time, on the cores that this process may use."""
    return max(1, len(os.sched_getaffinity(0)) // jobs)


def replaced(page: str, start: str, end: str, table: str) -> str:
    """The page with another table between two marks, which stay."""
    before, rest = page.split(start)
    return f"{before}{start}\n{table}\n{end}{rest.split(end)[1]}"


def main(
    described: str | None,
    runs: str,
    names: list[str],
    measure: Callable[[argparse.Namespace], None],
    results: Path,
    page: Path,
    with_tables: Callable[[str, dict], str],
    more: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
) -> None:
    """The command line of these scripts: measure, if PTB-XL is given; then make the page from the results.

    `more` adds a script's own options.
    """
    parser = argparse.ArgumentParser(description=described, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ptbxl", help="PTB-XL as published; without it the page is made from the committed JSON")
    parser.add_argument("--runs", type=Path, default=Path(runs))
    parser.add_argument("--seeds", type=int, default=2, help="of ablations")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=names)
    more(parser)
    options = parser.parse_args()
    if options.ptbxl:
        try:
            measure(options)
        except RuntimeError as error:  # a command of einthoven has failed, and said why
            sys.exit(str(error))
    found = json.loads(results.read_text(encoding="utf-8"))
    page.write_text(with_tables(page.read_text(encoding="utf-8"), found), encoding="utf-8")

"""Faults, made on purpose: kill -9 at random points of every stage, a full disk, damaged files, a second writer …

python benchmarks/chaos [--kills 50] [--stages align,pair] [--out results/chaos.json]

On a small simulated study. After each fault the command is repeated; all files must then be, byte for byte, those of a
run that nothing disturbed. Exit status 1 where one is not.
"""

import argparse
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faults
import page
import whole
from child import load
from kills import Line, killed, undisturbed
from line import STAGES, Stage, after, begin
from trees import restore

from einthoven.study import write_json

sys.path.append(str(Path(__file__).parents[1]))
from machine import facts

SEED = 0
FAULTS: dict[str, Callable[..., faults.Fault]] = {
    "full disk": faults.full_disk,
    "little memory": faults.little_memory,
    "two writers": faults.second_writer,
    "damaged inputs": faults.damaged_inputs,
    "old or foreign manifests": faults.old_manifests,
}
"""Of each stage, a tenth as many as kills."""
OF_THE_WHOLE = ("read-only study", "wrong clocks", "killed worker")


def tell(text: str) -> None:
    print(f"\r{text:<78}", end="", flush=True) if sys.stdout.isatty() else None


def stage_of_line(line: Line, stage: Stage, kills: int, chosen: set[str], seed: int) -> dict[str, Any]:
    """Disturb one stage in every way; leave it done."""
    ended, wanted = undisturbed(line, stage)
    tally = killed(line, stage, ended, wanted, kills if "kills" in chosen else 0, seed, tell)
    found: dict[str, Any] = tally.facts() | {"faults": {}}
    for name, disturb in FAULTS.items():
        if name not in chosen or not kills:
            continue
        tell(f"{stage.name}: {name}")
        draw, trials = random.Random(f"{seed} {stage.name} {name}"), max(1, kills // 10)
        restore(line.kept, line.place)
        left_over = [ended.operations or 1] if name == "two writers" else []
        if name == "full disk":  # which asks how much the stage writes
            command_of(line, stage)
        found["faults"][name] = disturb(line, stage, wanted, *left_over, trials, draw).facts()
    restore(line.kept, line.place)
    command_of(line, stage)
    after(stage, line.place)
    return found


def command_of(line: Line, stage: Stage) -> None:
    if (ended := faults.run(line, stage)).code:
        raise SystemExit(f"{stage.name} fails undisturbed: {ended.said}")


def said(row: dict[str, Any]) -> str:
    """One line of a stage or of a fault, and one for each trial that lost something."""
    if "kills" in row:
        text = (
            f"{row['kills']} kills, {row['unfinished']} of them at work; {row['identical']} of {row['runs']} the same"
        )
    else:
        text = (
            f"{row['tried']} tried: {row['refused']} refused, {row['unhurt']} done all the same, {row['ended']} ended"
        )
        text = row["skipped"] or text
    return "\n".join([f"{text}, {row['lost']} lost", *(f"    {each}" for each in row["differences"])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="of each stage")
    parser.add_argument("--stages", help="only these, with commas between; earlier ones are run undisturbed")
    parser.add_argument(
        "--faults", help="only these, with commas between: kills, " + ", ".join((*FAULTS, *OF_THE_WHOLE))
    )
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, help="a JSON file")
    parser.add_argument("--page", action="store_true", help="render docs/faults.md, too")
    options = parser.parse_args()
    stages = _chosen(parser, options.stages, [stage.name for stage in STAGES])
    wanted = _chosen(parser, options.faults, ["kills", *FAULTS, *OF_THE_WHOLE])
    began = time.monotonic()
    load()
    with tempfile.TemporaryDirectory() as folder:
        line = Line(Path(folder) / "line", Path(folder) / "kept", Path(folder) / "said.log")
        begin(line.place, options.seed)
        rows = _stages(line, stages, wanted, options.kills, options.seed)
        others = _whole(line, wanted, max(1, options.kills // 10), options.seed) if len(stages) == len(STAGES) else {}
    results = [*rows, *(fault for row in rows for fault in row["faults"].values()), *others.values()]
    lost = sum(row["lost"] for row in results)
    print(f"{sum(row['kills'] for row in rows)} kills, {time.monotonic() - began:.0f} s, lost: {lost}")
    about = {"command": "make chaos", "data_kind": "simulated", "seed": options.seed, "kills": options.kills, **facts()}
    about["system"] = platform.release()
    found = {**about, "seconds": round(time.monotonic() - began), "stages": rows, "whole": others}
    if options.out:
        write_json(options.out, found)
    if options.page:
        page.write(found)
    print(page.rendered(found))
    sys.exit(lost > 0)


def _stages(line: Line, stages: set[str], wanted: set[str], kills: int, seed: int) -> list[dict[str, Any]]:
    rows = []
    for stage in STAGES[: 1 + max(i for i, stage in enumerate(STAGES) if stage.name in stages)]:
        rows.append(stage_of_line(line, stage, kills if stage.name in stages else 0, wanted, seed))
        if stage.name in stages:
            print(f"\r{stage.name} ({rows[-1]['seconds']:.1f} s): {said(rows[-1])}", flush=True)
            for name, fault in rows[-1]["faults"].items():
                print(f"  {name}: {said(fault)}", flush=True)
    return rows


def _whole(line: Line, wanted: set[str], trials: int, seed: int) -> dict[str, dict[str, Any]]:
    tests: dict[str, Callable[[], faults.Fault]] = {
        "wrong clocks": lambda: whole.wrong_clocks(line),
        "killed worker": lambda: whole.killed_worker(line, trials, random.Random(seed)),
        "read-only study": lambda: whole.only_read(line),
    }
    found = {}
    for name, test in tests.items():
        if name in wanted:
            tell(name)
            found[name] = test().facts()
            print(f"\r{name}: {said(found[name])}", flush=True)
    return found


def _chosen(parser: argparse.ArgumentParser, given: str | None, known: list[str]) -> set[str]:
    chosen = {name.strip() for name in given.split(",")} if given else set(known)
    if chosen - set(known):
        parser.error(f"unknown: {', '.join(sorted(chosen - set(known)))}; known: {', '.join(known)}")
    return chosen


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

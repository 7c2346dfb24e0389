"""A whole run: a child for each target, judged from outside, so that a crash, a hang and a full memory are seen.

    python -m fuzz [TARGET …] [--inputs N] [--seed 0] [--out results/fuzz.json] [--keep DIR]

Rule: an input is taken, or refused by an EinthovenError (the service: by an answer below 500, or 503). A finding is
any other exception, a process that ends, more than 5 s of a processor, more than a minute of the clock, or more than
1 GB of memory beside what was there before the input. The first input of each kind of finding is kept in DIR.
"""

import argparse
import json
import os
import platform
import selectors
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.target import Target
from fuzz.targets import TARGETS

STARTING = 600.0
"""Seconds for a child to make its valid inputs in."""


@dataclass
class Tally:
    """What became of a target's inputs."""

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    most_seconds: float = 0.0
    most_megabytes: float = 0.0

    def take(self, told: dict[str, Any]) -> None:
        self.outcomes[told["outcome"]] += 1
        self.most_seconds = max(self.most_seconds, told.get("seconds", 0.0))
        self.most_megabytes = max(self.most_megabytes, told.get("megabytes", 0.0))
        if told["outcome"] == "finding":
            same = [f for f in self.findings if f["what"] == told["what"]]
            if same:
                same[0]["inputs"] += 1
            else:
                self.findings.append({"what": told["what"], "inputs": 1, "first": told["input"]})


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", help=f"among {', '.join(TARGETS)}; none: all")
    parser.add_argument("--inputs", type=int, help="of each target, in place of its own number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--keep", type=Path, default=Path(".cache/fuzz"), help="a directory for what was found")
    arguments = parser.parse_args()
    names = arguments.targets or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        parser.error(f"{min(unknown)}: expected one of {', '.join(TARGETS)}")
    began, tallies = time.monotonic(), {}
    print(f"{'target':<16}{'inputs':>8}{'accepted':>10}{'refused':>9}{'findings':>10}", end="")
    print(f"{'seconds':>9}{'most s':>8}{'most MB':>9}")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        for name in names:
            target, keep = TARGETS[name], arguments.keep.absolute()
            inputs = arguments.inputs or target.inputs
            tallies[name] = fuzzed(target, inputs, [str(arguments.seed), str(keep), place])
            print(line(name, tallies[name]), flush=True)
    report = summary(tallies, arguments.seed, time.monotonic() - began)
    print(line("all", total := total_of(tallies)))
    for name, tally in tallies.items():
        for found in tally.findings:
            print(f"{name}: {found['what']}: {found['inputs']} inputs, first {found['first']}")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if total.findings else 0)


def fuzzed(target: Target, inputs: int, rest: list[str]) -> Tally:
    """All inputs of a target; after one that ended its process another goes on."""
    tally, following, began = Tally(), 0, time.monotonic()
    while following < inputs:
        following = _run(target, following, inputs, rest, tally)
    tally.seconds = time.monotonic() - began
    return tally


def _run(target: Target, first: int, inputs: int, rest: list[str], tally: Tally) -> int:
    """One child, from input `first` on; the input after the last that it had."""
    command = [sys.executable, "-m", "fuzz.child", target.name, str(first), str(inputs), *rest]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    at, wait = first - 1, STARTING
    with selectors.DefaultSelector() as selector, child.stdout as pipe:
        selector.register(pipe, selectors.EVENT_READ)
        cut = b""
        while True:
            if not selector.select(wait):
                child.kill()
                child.wait()
                tally.take({"outcome": "finding", "what": f"more than {wait:g} s of the clock", "input": at})
                return at + 1
            part = os.read(pipe.fileno(), 1 << 16)
            if not part:
                break
            *lines, cut = (cut + part).split(b"\n")
            for told in map(json.loads, lines):
                at, wait = told["input"], target.wall
                if "outcome" in told:
                    tally.take(told)
    status = child.wait()
    if status:
        if at < first:
            raise SystemExit(f"{target.name}: its valid inputs could not be made or were refused")
        tally.take({"outcome": "finding", "what": f"the process ended with {status}", "input": at})
    return at + 1


def total_of(tallies: dict[str, Tally]) -> Tally:
    total = Tally()
    for tally in tallies.values():
        total.outcomes += tally.outcomes
        total.findings += tally.findings
        total.seconds += tally.seconds
        total.most_seconds = max(total.most_seconds, tally.most_seconds)
        total.most_megabytes = max(total.most_megabytes, tally.most_megabytes)
    return total


def line(name: str, tally: Tally) -> str:
    counts = tally.outcomes
    cells = f"{name:<16}{counts.total():>8,}{counts['accepted']:>10,}{counts['refused']:>9,}{counts['finding']:>10,}"
    return cells + f"{tally.seconds:>9.0f}{tally.most_seconds:>8.2f}{tally.most_megabytes:>9.0f}"


def summary(tallies: dict[str, Tally], seed: int, seconds: float) -> dict[str, Any]:
    def told(tally: Tally) -> dict[str, Any]:
        counts = {name: tally.outcomes[name] for name in ("accepted", "refused", "finding")}
        most = {"most_seconds": round(tally.most_seconds, 2), "most_megabytes": round(tally.most_megabytes)}
        return {"inputs": tally.outcomes.total(), **counts, **most, "seconds": round(tally.seconds)}

    total = total_of(tallies)
    return {
        "seed": seed,
        **told(total),
        "seconds": round(seconds),
        "bounds": {"processor_seconds": 5, "megabytes": 1024},
        "targets": {name: told(tally) for name, tally in tallies.items()},
        "findings": {name: tally.findings for name, tally in tallies.items() if tally.findings},
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()

"""One target's inputs, one after the other: `python -m fuzz.child TARGET FIRST INPUTS SEED KEEP PLACE`.

Each input is a function of (seed, target, number). A line of JSON goes out before an input and after it.
"""

import json
import os
import resource
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np

from einthoven.errors import EinthovenError
from fuzz.damage import damaged
from fuzz.mutations import Tree
from fuzz.target import FindingError, Run, written
from fuzz.targets import TARGETS

SECONDS: Final = 5.0
"""Of a processor, for one input."""
MEGABYTES: Final = 1024.0
"""Beside what was there before an input."""
ROOM: Final = 4 << 30
"""Bytes of address space beside what the valid inputs took: who asks for more at once is refused by the system."""


def made(seeds: list[Tree], name: str, number: int, seed: int) -> Tree:
    """Input `number` of a target; the first are the valid ones."""
    if number < len(seeds):
        return seeds[number]
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), number])
    return damaged(seeds[rng.integers(len(seeds))], seeds, rng)


def judged(run: Run, tree: Tree) -> dict[str, Any]:
    """What became of an input, what kind of finding it is, and what it took."""
    before, began = _peak(reset=True), time.process_time()
    try:
        run(tree)
        told: dict[str, Any] = {"outcome": "accepted"}
    except EinthovenError:
        told = {"outcome": "refused"}
    except FindingError as error:
        told = {"outcome": "finding", "what": str(error)}
    except Exception as error:
        told = {"outcome": "finding", "what": _where(error)}
    seconds, megabytes = time.process_time() - began, (_peak() - before) / 1024
    if told["outcome"] != "finding":
        if seconds > SECONDS:
            told = {"outcome": "finding", "what": f"more than {SECONDS:g} s of a processor"}
        elif megabytes > MEGABYTES:
            told = {"outcome": "finding", "what": f"more than {MEGABYTES:g} MB"}
    return told | {"seconds": round(seconds, 3), "megabytes": round(megabytes, 1)}


def _where(error: BaseException) -> str:
    """The kind of an exception and the innermost lines of ours that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        f"{Path(f.filename).name}:{f.lineno}"
        for f in frames
        if "einthoven" in f.filename and "/fuzz/" not in f.filename
    ]
    return " < ".join([type(error).__name__, *reversed(ours[-3:])])


def _peak(reset: bool = False) -> float:
    """The most memory of this process since it was last reset, in kB; where that cannot be, since it began."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _bound() -> None:
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + ROOM, mapped + ROOM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(name: str, first: int, inputs: int, seed: int, keep: Path, place: Path) -> None:
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints is not for the parent
    warnings.simplefilter("ignore")

    def tell(number: int, **told: Any) -> None:
        out.write(json.dumps({"input": number, **told}).encode() + b"\n")

    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=place) as folder:
        seeds, run = TARGETS[name].prepare(Path(folder))
        for tree in seeds:
            run(tree)
        if Path("/proc/self/statm").exists():
            _bound()
        known: set[str] = set()
        for number in range(first, inputs):
            tell(number)
            tree = made(seeds, name, number, seed)
            told = judged(run, tree)
            if told["outcome"] == "finding" and told["what"] not in known:
                known.add(told["what"])
                written(tree, keep / name / str(number))
            tell(number, **told)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]), Path(sys.argv[6]))

"""Faults, made on purpose: kill -9 at random points of every stage, a full disk, damaged files, a second writer …

python benchmarks/chaos [--kills 50] [--stages align,pair] [--out results/chaos.json]

On a small simulated study. After each fault the command is repeated; all files must then be, byte for byte, those of a
run that nothing disturbed. Exit status 1 where one is not.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from child import load
from kills import Line, disturbed
from line import STAGES, begin

from einthoven.study import write_json

SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="of each stage")
    parser.add_argument("--stages", help="only these, with commas between; earlier ones are run undisturbed")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    chosen = [name.strip() for name in options.stages.split(",")] if options.stages else [s.name for s in STAGES]
    unknown = set(chosen) - {stage.name for stage in STAGES}
    if unknown:
        parser.error(f"unknown stages {', '.join(unknown)}; known: {', '.join(stage.name for stage in STAGES)}")
    os.environ["OMP_NUM_THREADS"] = "1"
    began = time.monotonic()
    load()
    lost = 0
    with tempfile.TemporaryDirectory() as folder:
        line = Line(Path(folder) / "line", Path(folder) / "kept", Path(folder) / "said.log")
        begin(line.place, options.seed)
        rows = []
        for stage in STAGES[: 1 + max(i for i, stage in enumerate(STAGES) if stage.name in chosen)]:
            kills = options.kills if stage.name in chosen else 0
            tally = disturbed(line, stage, kills, options.seed, lambda text: print(f"\r{text}   ", end="", flush=True))
            rows.append(tally.facts())
            print(f"\r{tally.stage}: {tally}", flush=True)
            lost += tally.runs - tally.identical
    print(f"{time.monotonic() - began:.0f} s, lost: {lost}")
    if options.out:
        write_json(options.out, {"stages": rows})
    sys.exit(lost > 0)


if __name__ == "__main__":
    main()

"""Several processes in a test: ranks that meet in a file, and what `torchrun` starts."""

import os
import subprocess
import sys
from pathlib import Path


def every_rank(script: str, world: int, place: Path) -> None:
    """Run Python source in `world` processes: its arguments are rank, world and a file of `place` to meet in."""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(rank), str(world), str(place / "store")],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors


def torchrun(script: Path, *words: str, ranks: int = 2) -> str:
    """What a script said, run by several processes of one thread each."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*start, str(script), *words], capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout

"""Faults of the finished line: a study that cannot be written, clocks that are wrong, a worker that is killed."""

import contextlib
import os
import random
import shutil
import time
from pathlib import Path

from child import Child, Ended, Plan, command
from faults import Fault, run
from kills import Line
from line import STAGES
from mounts import isolated, read_only
from trees import differences, digests, restore

READING = (
    "search model study --text fibrillation", "embed model study", "index model study",
    "check study --out card", "evaluate model study --split train --out again --set evaluation.control=false",
    "export meds study again-meds", "finetune model study --labels classes --out again-classifier --recipe recipe.toml",
    "pretrain study --out again-encoder --recipe recipe.toml", "align study --out again-model --recipe recipe.toml",
)  # fmt: skip
"""What a study and a model that may only be read are good for."""

WRITING = (
    "pair study --recipe recipe.toml --set pairing.codes_after=0", "entities study --set entities.replace=true",
    "calibrate model study --set evaluation.false_alarm=0.2", "ingest simulated study --recipe recipe.toml --replace "
    "--set source.seed=1", "align study --out model --recipe recipe.toml --set training.seed=1",
    "forget model study --subject 1",
)  # fmt: skip


def only_read(line: Line) -> Fault:
    """A read-only study and model: what reads them works, what writes them refuses."""
    fault = Fault()
    wanted = digests(line.place)

    def work() -> list[list[object]]:
        for name in ("study", "model"):
            read_only(line.place / name)
        return [[c, (e := command(c.split(), line.place, line.log)).code, e.said] for c in (*READING, *WRITING)]

    found = isolated(work)
    if found is None:
        fault.skipped = "this machine lets nobody mount"
        return fault
    after = digests(line.place)
    changed = [path for path in differences(wanted, after) if path.startswith(("study/", "model/"))]
    for arguments, code, said in found:
        ended = Ended(code, said, 0)
        right = code == 0 if arguments in READING else ended.clear
        fault.judge(arguments, ended, changed if right else [f"exit status {code}: {said.strip()[-300:]}"])
    return fault


def wrong_clocks(line: Line) -> Fault:
    """All files from the year 2040, or 1980: the stages find nothing to do, or do the same again."""
    fault = Fault()
    wanted = digests(line.place)
    shutil.rmtree(line.kept)
    shutil.copytree(line.place, line.kept, symlinks=True)
    for year in (1980, 2040):
        restore(line.kept, line.place)
        moment = (year - 1970) * 365 * 86400
        for path in (line.place, *line.place.rglob("*")):
            os.utime(path, (moment, moment))
        for stage in STAGES:
            ended = run(line, stage)
            expected = "unchanged, nothing to do" in ended.said or stage.name.startswith(
                "ingest"
            )  # by times of sources
            after = [] if expected else [f"done again: {ended.said.strip()[-200:]}"]
            fault.judge(f"{stage.name}, files of {year}", ended, after)
        # manifests of what was read from a directory name its times
        changed = [path for path in differences(wanted, digests(line.place)) if not path.endswith(".json")]
        if changed:
            fault.lost.append(f"files of {year}: {', '.join(changed[:5])}")
    restore(line.kept, line.place)
    return fault


def killed_worker(line: Line, trials: int, draw: random.Random) -> Fault:
    """Of several processes that read notes one is killed, as for want of memory: the command must end, and say so."""
    fault = Fault()
    stage = next(stage for stage in STAGES if stage.name == "entities")
    wanted = digests(line.place)
    for number in range(max(2, trials)):
        restore(line.kept, line.place)
        (line.place / "study" / "entities.parquet").unlink()
        shutil.rmtree(line.place / "study" / ".entities")
        child = Child(list(stage.arguments), line.place, line.log, Plan(before=_several_processes))
        worker = _worker_of(child.pid)
        time.sleep(draw.uniform(0, 3) if number else 0)  # first while it starts
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, 9)
        ended = child.ended(300)
        again = run(line, stage)
        after = [] if again.code == 0 else [again.said.strip()[-300:]]
        changed = [path for path in differences(wanted, digests(line.place)) if ".entities" not in path]
        right = (
            []
            if ended.clear or (number and ended.code == 0)
            else [f"exit status {ended.code}: {ended.said.strip()[-300:]}"]
        )
        fault.judge("entities", ended, right + after + changed)
    restore(line.kept, line.place)
    return fault


def _several_processes() -> None:
    from einthoven.entities import extract

    extract.ALONE, extract.BLOCK = 0, 8  # as for many notes


def _worker_of(parent: int, timeout: float = 60) -> int:
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        time.sleep(0.01)
    raise TimeoutError("no worker was started")

"""kill -9 at random points of a stage: half at a moment of its duration, half before one of its file operations."""

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from child import Ended, Plan, command, load
from line import Stage
from trees import differences, digests, restore

AGAIN = 3
"""Every so many trials the first re-run is killed, too."""


@dataclass
class Tally:
    """What was tried of a stage, and lost."""

    stage: str
    seconds: float  # of an undisturbed run
    operations: int  # on files, of the same
    kills: int = 0
    unfinished: int = 0  # kills that met the command at work
    runs: int = 0  # trials: a kill or two, then a run to the end
    identical: int = 0  # trials whose files are, byte for byte, those of the undisturbed run
    lost: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, object]:
        return {**vars(self), "lost": len(self.lost), "differences": self.lost}


@dataclass(frozen=True)
class Line:
    """Where trials are run. `place` is always the same, for its name may be in what is written."""

    place: Path
    kept: Path  # the state before the stage
    log: Path


def undisturbed(line: Line, stage: Stage) -> tuple[Ended, dict[str, str]]:
    """Keep the state before a stage in `line.kept`, then run it: how that went, and the digests of all files after."""
    if line.kept.exists():
        shutil.rmtree(line.kept)
    shutil.copytree(line.place, line.kept, symlinks=True)
    whole = _whole(line, stage)
    load(whole.modules)
    wanted = digests(line.place)
    restore(line.kept, line.place)
    whole = _whole(line, stage)  # once more: its time without imports
    if found := differences(wanted, digests(line.place)):
        raise SystemExit(f"{stage.name} is not the same twice, undisturbed: {', '.join(found)}")
    return whole, wanted


def killed(
    line: Line, stage: Stage, whole: Ended, wanted: dict[str, str], kills: int, seed: int, told: Callable[[str], None]
) -> Tally:
    """Run a stage `kills` times with a kill, and after each to its end."""
    tally = Tally(stage.name, round(whole.seconds, 3), whole.operations or 1)
    for number in range(kills):
        _trial(line, stage, tally, number, random.Random(f"{seed} {stage.name} {number}"), wanted)
        told(f"{stage.name}: {number + 1}/{kills} kills, {tally.runs - tally.identical} lost")
    return tally


def _whole(line: Line, stage: Stage) -> Ended:
    ended = command(list(stage.arguments), line.place, line.log)
    if ended.code != 0:
        raise SystemExit(f"{stage.name} fails undisturbed:\n{ended.said}")
    return ended


def _trial(line: Line, stage: Stage, tally: Tally, number: int, draw: random.Random, wanted: dict[str, str]) -> None:
    restore(line.kept, line.place)
    plans = [_plan(tally, number, draw) for _ in range(1 + (number % AGAIN == AGAIN - 1))]
    for plan in plans:
        killed = command(list(stage.arguments), line.place, line.log, plan)
        tally.kills += 1
        tally.unfinished += killed.unfinished
    ended = command(list(stage.arguments), line.place, line.log)
    found = differences(wanted, digests(line.place))
    tally.runs += 1
    if ended.code == 0 and not found:
        tally.identical += 1
    else:
        said = "" if ended.code == 0 else f"exit status {ended.code}: {ended.said.strip()[-300:]}"
        tally.lost.append(f"trial {number} ({_shown(plans)}): {said}{', '.join(found[:5])}")


def _plan(tally: Tally, number: int, draw: random.Random) -> Plan:
    if number % 2:
        return Plan(operation=draw.randint(1, tally.operations))
    return Plan(seconds=draw.uniform(0, tally.seconds))


def _shown(plans: Sequence[Plan]) -> str:
    return ", then ".join(
        f"before file operation {plan.operation}" if plan.seconds is None else f"after {plan.seconds:.3f} s"
        for plan in plans
    )

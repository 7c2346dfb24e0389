"""Other faults of a stage: a disk that fills up, too little memory, a second writer, a damaged input."""

import fcntl
import json
import os
import random
import re
import resource
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from child import Child, Ended, Plan, command
from kills import Line
from line import STAGES, Stage
from mounts import isolated, resized, small_disk
from trees import differences, digests, restore

from einthoven.study import read_manifest, write_manifest

GIB = 1 << 30
WAIT = 90
"""Seconds after which a command without memory is ended."""


@dataclass
class Fault:
    """What was tried of one kind of fault, and how it ended."""

    tried: int = 0
    refused: int = 0  # the command said what is wrong, in one line, and ended with status 2
    unhurt: int = 0  # it did its work all the same, with the same result
    ended: int = 0  # by a signal, or by a library in its own words; nothing was lost
    hung: int = 0  # it had to be ended; nothing was lost
    skipped: str = ""  # why it could not be tried here
    lost: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, object]:
        return {**vars(self), "lost": len(self.lost), "differences": self.lost}

    def judge(self, name: str, ended: Ended, after: list[str]) -> None:
        """Count a trial by how its command ended, and by what differs after its repetition."""
        self.tried += 1
        if "Traceback" in ended.said:
            self.lost.append(f"{name}: unclear: {ended.said.strip()[-400:]}")
        elif after:
            self.lost.append(f"{name}: {', '.join(after[:5])}")
        elif ended.code == 0:
            self.unhurt += 1
        elif ended.clear:
            self.refused += 1
        else:
            self.ended += 1


def run(line: Line, stage: Stage, plan: Plan | None = None) -> Ended:
    return command(list(stage.arguments), line.place, line.log, plan)


def left(line: Line, stage: Stage, wanted: dict[str, str]) -> list[str]:
    """Repeat a stage undisturbed; what then is not as it should be."""
    ended = run(line, stage)
    said = [] if ended.code == 0 else [f"repeated: {ended.said.strip()[-400:]}"]
    return said + differences(wanted, digests(line.place))


def full_disk(line: Line, stage: Stage, wanted: dict[str, str], trials: int, draw: random.Random) -> Fault:
    """A disk with room for a part of what the stage writes; then one that is large enough."""
    fault = Fault()
    growth = max(1, _size(wanted, line) - sum(f.stat().st_size for f in line.kept.rglob("*") if f.is_file()))
    for _ in range(trials):
        room = int(draw.uniform(0, 1) * growth)

        def work(room: int = room) -> list[object]:
            small_disk(line.place, GIB)
            shutil.copytree(line.kept, line.place, symlinks=True, dirs_exist_ok=True)
            status = os.statvfs(line.place)
            resized(line.place, (status.f_blocks - status.f_bfree) * status.f_frsize + room + 4096)
            ended = run(line, stage)
            resized(line.place, GIB)
            return [ended.code, ended.said, left(line, stage, wanted)]

        found = isolated(work)
        if found is None:
            fault.skipped = "this machine lets nobody mount"
            break
        fault.judge(f"{stage.name} with {room} bytes", Ended(found[0], found[1], 0), found[2])
    return fault


def _size(wanted: dict[str, str], line: Line) -> int:
    return sum((line.place / path).stat().st_size for path in wanted if (line.place / path).is_file())


def little_memory(line: Line, stage: Stage, wanted: dict[str, str], trials: int, draw: random.Random) -> Fault:
    """An address space with little room beyond what the imports take."""
    fault = Fault()
    for _ in range(trials):
        room = int(4 * 60 ** draw.uniform(0, 1)) << 20

        def limit(room: int = room) -> None:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room,) * 2)

        restore(line.kept, line.place)
        child = Child(list(stage.arguments), line.place, line.log, Plan(before=limit))
        try:
            ended = child.ended(WAIT)
        except TimeoutError:
            fault.hung += 1
            ended = Ended(-signal.SIGKILL, "", WAIT)
        fault.judge(f"{stage.name} with {room >> 20} MiB", ended, left(line, stage, wanted))
    return fault


def second_writer(
    line: Line, stage: Stage, wanted: dict[str, str], operations: int, trials: int, draw: random.Random
) -> Fault:
    """A writer is stopped somewhere, another begins, the first goes on."""
    fault = Fault()
    for _ in range(trials):
        restore(line.kept, line.place)
        operation = draw.randint(1, operations)
        log = line.log.with_name("first.log")
        first = Child(list(stage.arguments), line.place, log, Plan(operation=operation, signal=signal.SIGSTOP))
        first.stopped()
        held = [path for path in line.place.rglob(".lock") if _held(path)]
        second = run(line, stage)
        first.kill(signal.SIGCONT)
        ended = first.ended()
        after = left(line, stage, wanted)
        if held and not (second.clear and "being written by another process" in second.said):
            after = [f"a second writer was not refused: {second.said.strip()[-300:]}", *after]
        if not held and not (second.code == 0 or second.clear):
            after = [f"a second writer that should run: {second.said.strip()[-300:]}", *after]
        if not held and second.code == 0 and ended.code:
            after = [f"the first, after the second: {ended.said.strip()[-300:]}", *after]
        fault.judge(f"{stage.name}, stopped before file operation {operation}", second, after)
    return fault


def _held(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _flip(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    place = draw.randrange(len(content) * 8)
    changed[place // 8] ^= 1 << (place % 8)
    return bytes(changed)


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "a flipped bit": _flip,
    "cut short": lambda content, draw: content[: draw.randrange(len(content))],
    "zeros within": lambda content, draw: content[: len(content) // 2] + bytes(len(content) - len(content) // 2),
    "emptied": lambda content, draw: b"",
}

NOT_OURS = ("recipe.toml", "wfdb", "meds/")
"""What no stage of einthoven answers for: settings and the files of sources."""


def damaged_inputs(line: Line, stage: Stage, wanted: dict[str, str], trials: int, draw: random.Random) -> Fault:
    """A file that the stage may read is damaged, with its old modification time; then what is told is done."""
    fault = Fault()
    named = [word for word in stage.arguments if (line.kept / word).is_dir()]
    files = [
        path.relative_to(line.kept)
        for word in named
        for path in sorted((line.kept / word).rglob("*"))
        if path.is_file() and path.stat().st_size and not str(path.relative_to(line.kept)).startswith(NOT_OURS)
    ]
    for number in range(trials if files else 0):
        restore(line.kept, line.place)
        name, damage = draw.choice(files), list(DAMAGES)[number % len(DAMAGES)]
        _spoil(line.place / name, damage, draw)
        ended = run(line, stage)
        if ended.code == 0:
            after = [path for path in differences(wanted, digests(line.place)) if path != str(name)]
        else:
            if name.parts[0] == "real":  # made by no command: it is copied again
                restore(line.kept / "real", line.place / "real")
                after = left(line, stage, wanted)
            else:
                after = _recovered(line, stage, ended, wanted)
        fault.judge(f"{stage.name}, {name}: {damage}", ended, after)
    return fault


def _spoil(path: Path, damage: str, draw: random.Random) -> None:
    status = path.stat()
    path.write_bytes(DAMAGES[damage](path.read_bytes(), draw))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _recovered(line: Line, stage: Stage, ended: Ended, wanted: dict[str, str]) -> list[str]:
    """Delete what the message says, repeat the stages from the first on; what then differs."""
    for path in re.findall(r"delete (\S+?)[,.]? ", ended.said):
        shutil.rmtree(line.place / path, ignore_errors=True)
    for earlier in STAGES[: STAGES.index(stage)]:
        again = run(line, earlier)
        if again.code:
            return [f"{earlier.name} again: {again.said.strip()[-300:]}"]
    return left(line, stage, wanted)


def old_manifests(line: Line, stage: Stage, wanted: dict[str, str], trials: int, draw: random.Random) -> Fault:
    """Each manifest as another version, or nobody, would have written it; then the stages are repeated."""
    fault = Fault()
    for kind in ("another version", "a list", "no parts", "half")[:trials]:
        restore(line.kept, line.place)
        for path in (*line.place.rglob("manifests/*.json"), *line.place.rglob("manifest.json")):
            content = read_manifest(path)
            if content is None or path.is_relative_to(line.place / "real"):
                continue
            if kind == "another version":
                write_manifest(path, {**content, "version": "0.0.1"})
            else:
                path.write_text({"a list": "[]", "no parts": "{}", "half": json.dumps(content)[:99]}[kind])
        ended = run(line, stage)
        fault.judge(f"{stage.name}, manifests: {kind}", ended, _recovered(line, stage, ended, wanted))
    return fault

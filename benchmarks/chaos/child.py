"""A command of einthoven in a forked child: what it needs is imported once, and each child may be killed or stopped.

A child is the leader of its own process group: a kill takes what it started with it.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITING = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link")
"""What Python tells its auditors of changes to files: a kill before one of them is one between two states on disk."""


def load(modules: Iterable[str] = ("einthoven.cli",)) -> None:
    """Import here, once for all children. Nothing else is run here, so a child begins as a command does."""
    gc.unfreeze()
    for name in modules:
        with contextlib.suppress(Exception):  # some modules only load in their own way
            importlib.import_module(name)
    gc.freeze()


@dataclass
class Plan:
    """What happens to a child: nothing, or a signal at a moment, or before a file operation."""

    seconds: float | None = None
    operation: int | None = None  # from 1
    signal: int = signal.SIGKILL
    before: Callable[[], None] | None = None  # done in the child first: a limit, a mount


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int  # its exit status; -9: killed
    said: str  # stdout and stderr
    seconds: float
    operations: int | None = None  # file operations, where the command came to its end
    modules: tuple[str, ...] = ()  # that it had to import

    @property
    def unfinished(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def clear(self) -> bool:
        """A refusal as users should see it: one line of ours, no traceback."""
        return self.code == 2 and "Traceback" not in self.said and "einthoven: " in self.said


class Child:
    """A running command."""

    def __init__(self, arguments: list[str], place: Path, log: Path, plan: Plan | None = None) -> None:
        self.plan, self.log = plan or Plan(), log
        self.began = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _be(arguments, place, log, self.plan)
        with contextlib.suppress(PermissionError):
            os.setpgid(self.pid, self.pid)
        self._handle = os.pidfd_open(self.pid)

    def ended(self, timeout: float = 600) -> Ended:
        """Wait for its end, and kill it at the moment of its plan."""
        if self.plan.seconds is not None and not select.select([self._handle], [], [], self.plan.seconds)[0]:
            self.kill()
        if not select.select([self._handle], [], [], timeout)[0]:
            self.kill()
            os.waitpid(self.pid, 0)
            raise TimeoutError(f"a command did not end within {timeout} s: {self.log.read_text()[-2000:]}")
        _, status = os.waitpid(self.pid, 0)
        os.close(self._handle)
        facts = self.log.with_suffix(".facts")
        found = json.loads(facts.read_text()) if facts.exists() else {}
        facts.unlink(missing_ok=True)
        seconds = time.monotonic() - self.began
        said = self.log.read_text(errors="replace")
        return Ended(os.waitstatus_to_exitcode(status), said, seconds, **found)

    def kill(self, number: int = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def stopped(self, timeout: float = 600) -> bool:
        """Wait until it has been stopped by its plan; False where it ended before."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            found = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if found is not None:
                return found.si_code == os.CLD_STOPPED
            time.sleep(0.002)
        raise TimeoutError("a command neither stopped nor ended")


def command(arguments: list[str], place: Path, log: Path, plan: Plan | None = None) -> Ended:
    """Run a command in the directory `place` and wait for it."""
    return Child(arguments, place, log, plan).ended()


def _be(arguments: list[str], place: Path, log: Path, plan: Plan) -> None:
    """Be the child; never returns."""
    code = 70
    try:
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no stray if the suite itself is killed
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        if plan.before is not None:
            plan.before()
        os.chdir(place)
        sys.argv = ["einthoven", *arguments]
        before = set(sys.modules)
        count = _audited(plan)
        from einthoven import cli

        try:
            cli.main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        facts = {"operations": count(), "modules": sorted(set(sys.modules) - before)}
        log.with_suffix(".facts").write_text(json.dumps(facts))
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _audited(plan: Plan) -> Callable[[], int]:
    """Count file operations from here on, and take the plan's signal before the one it names."""
    count = 0

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in WRITING or (event == "open" and not _writes(arguments)):
            return
        count += 1
        if count == plan.operation:
            os.killpg(0, plan.signal)

    sys.addaudithook(audit)
    return lambda: count


def _writes(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    return bool(flags & (os.O_WRONLY | os.O_RDWR)) if mode is None else any(letter in mode for letter in "wax+")

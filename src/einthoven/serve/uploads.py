"""Uploaded ECGs are read by children, never in the server: `parsing.py` is what they run."""

import io
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from einthoven.serve.batching import Lane
from einthoven.serve.options import MAX_UPLOAD, Options
from einthoven.serve.parsing import LENGTH, READY, exactly
from einthoven.serve.problems import RefusedError
from einthoven.waveforms.formats import Ecg
from einthoven.waveforms.readers.protocol import MAX_VALUES, Hints

CHILDREN: Final = 2
WAITING: Final = 8
KEPT: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "SYSTEMROOT")
"""Of the environment: a child has no business with the server's secrets."""
QUIET: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""A process that forks must have one thread."""

MAX_ANSWER: Final = 4 * MAX_VALUES + (1 << 16)
START_SECONDS: Final = 60.0
"""Until a child must be ready: on a busy machine importing takes long, and no file is to blame."""

UNREADABLE: Final = "The file could not be read within the limits of time and memory; expected an ECG."


@dataclass(frozen=True)
class Upload:
    """A file as it came, and what its sender said of it."""

    content: bytes
    hints: Hints = field(default_factory=Hints)


@dataclass
class Child:
    """One process that reads files, one at a time, started anew after each failure."""

    options: Options
    command: Sequence[str] = (sys.executable, "-m", "einthoven.serve.parsing")
    _process: "subprocess.Popen[bytes] | None" = None
    _ended: bool = False

    def start(self) -> None:
        """Start it, if it is not there; it needs a second until it is ready."""
        if self._process is not None:
            return
        self._folder, self._ended, self._ready = tempfile.TemporaryDirectory(prefix="einthoven-"), False, False
        limits = (str(self.options.parse_seconds), str(self.options.parse_bytes), str(MAX_UPLOAD))
        self._process = subprocess.Popen(
            [*self.command, *limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what a library says of a damaged file may quote it
            cwd=self._folder.name,
            env={name: os.environ[name] for name in KEPT if name in os.environ}
            | QUIET
            | {"TMPDIR": self._folder.name, "PYTHONSAFEPATH": "1"},
            start_new_session=True,  # so that it can be ended with all it forked
        )

    def read(self, upload: Upload) -> Ecg:
        """The ECG in an upload; RefusedError 422 if it is none, or takes more than it may."""
        self.start()
        try:
            if not self._ready:
                with self._watched(START_SECONDS):
                    self._ready = self._answer(len(READY)) == READY
            with self._watched(self.options.parse_seconds):
                answer = self._exchanged(upload)
            return _ecg(answer)
        except (OSError, EOFError, ValueError):  # ended, by the clock or by its limits, or it wrote nonsense
            self._end()
            raise RefusedError(422, UNREADABLE) from None
        finally:
            if self._ended:
                self.close()
                self.start()

    def close(self) -> None:
        """End it and all it started, and remove what it may have written."""
        if self._process is not None:
            self._end()
            for pipe in (self._process.stdin, self._process.stdout):
                with suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            self._process.wait()
            self._process = None
            self._folder.cleanup()

    def _exchanged(self, upload: Upload) -> bytes:
        pipe = self._process.stdin  # type: ignore[union-attr]
        hints = upload.hints
        said = {"sampling_rate": hints.sampling_rate, "unit": hints.unit, "leads": hints.leads}
        line = json.dumps(said).encode() + b"\n"
        pipe.write(READY + LENGTH.pack(len(line) + len(upload.content)) + line + upload.content)  # type: ignore[union-attr]
        pipe.flush()  # type: ignore[union-attr]
        (length,) = LENGTH.unpack(self._answer(LENGTH.size))
        if length > MAX_ANSWER:
            raise ValueError("more than any ECG")
        return self._answer(length)

    def _answer(self, size: int) -> bytes:
        return exactly(self._process.stdout, size)  # type: ignore[union-attr]

    @contextmanager
    def _watched(self, seconds: float) -> Iterator[None]:
        """End the process unless the block ends in time."""
        watch = threading.Timer(seconds, self._end)
        watch.start()
        try:
            yield
        finally:
            watch.cancel()
            watch.join()

    def _end(self) -> None:
        self._ended = True
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # type: ignore[union-attr]


@dataclass
class Uploads:
    """A few children, and the lane that leads to them."""

    options: Options
    command: Sequence[str] = Child.command

    def __post_init__(self) -> None:
        self._children = [Child(self.options, self.command) for _ in range(CHILDREN)]
        self._free: queue.SimpleQueue[Child] = queue.SimpleQueue()
        for child in self._children:
            child.start()
            self._free.put(child)
        self.lane: Lane[Upload, Ecg] = Lane("uploads", self._work, WAITING, threads=CHILDREN)

    async def read(self, upload: Upload) -> Ecg:
        """The ECG in an upload; RefusedError 422 if it is none or takes too much, BusyError if too many wait."""
        return await self.lane.do(upload)

    def close(self) -> None:
        """Finish what was taken; end the children."""
        self.lane.close(2 * (self.options.parse_seconds + START_SECONDS))
        for child in self._children:
            child.close()

    def _work(self, uploads: Sequence[Upload]) -> list[Ecg | Exception]:
        child = self._free.get()
        try:
            return [child.read(upload) for upload in uploads]
        finally:
            self._free.put(child)


def _ecg(answer: bytes) -> Ecg:
    line, array = answer.split(b"\n", 1)
    facts: dict[str, Any] = json.loads(line)
    if "error" in facts:
        raise RefusedError(422, str(facts["error"]))
    signal_mv = np.load(io.BytesIO(array), allow_pickle=False)
    if signal_mv.dtype != np.float32 or signal_mv.ndim != 2 or len(signal_mv) != len(facts["leads"]):
        raise ValueError("no ECG")
    leads, derived = (tuple(str(lead) for lead in facts[name]) for name in ("leads", "derived"))
    return Ecg(signal_mv, float(facts["rate"]), leads, str(facts["format"]), derived)

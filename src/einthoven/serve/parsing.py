"""The child that reads uploaded ECGs: `python -m einthoven.serve.parsing SECONDS BYTES LIMIT`.

It imports the readers once and then forks for every file. The fork takes the file from standard input, reads it under
limits of processor time, memory and files, writes one answer to standard output and is gone, with all it knew of the
patient. If a fork fails in any other way than by saying so, the whole child ends: its server starts another.

One byte says that it is ready. A request is a byte, its length (8 bytes, big-endian), a JSON line of hints, and the
file. An answer is its length, a JSON line and, where the file could be read, a float32 npy [leads, samples]. No pickle
anywhere.
"""

import io
import json
import os
import resource
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from einthoven.errors import EinthovenError
from einthoven.waveforms.formats import Ecg, read_ecg

LENGTH = struct.Struct(">Q")
READY = b"\x01"
OUTSIDE = 32
"""Open files that a reader may need: libraries import on demand."""

Read = Callable[..., Ecg]


@dataclass(frozen=True)
class Limits:
    """Of the reading of one file."""

    seconds: float  # of the processor; the server looks at the clock
    memory: int  # bytes beside what the interpreter has
    size: int  # bytes of a file, read or written


def main(limits: Limits, read: Read = read_ecg) -> None:
    """Serve until standard input ends, or a reading fails."""
    _warm()
    os.write(1, READY)
    while os.read(0, 1):  # the mark of a request, all that this process ever reads of one
        child = os.fork()
        if child == 0:
            _fork(limits, read)
        _, status = os.waitpid(child, 0)
        if status:
            os._exit(1)  # what is left of the request in the pipe would be taken for the next


def _fork(limits: Limits, read: Read) -> None:
    """Never returns: what it raises must not reach the loop it was forked from."""
    status = 1
    try:
        bind(limits)
        answer = answered(os.fdopen(0, "rb", buffering=0, closefd=False), limits, read)
        view = memoryview(answer)
        while view:
            view = view[os.write(1, view) :]
        status = 0
    finally:
        os._exit(status)


def bind(limits: Limits) -> None:
    """Limit this process for the rest of its life. Its memory is limited where the system tells how much it has."""
    seconds = max(1, round(limits.seconds))
    bounds = {
        resource.RLIMIT_CPU: (seconds, seconds + 1),
        resource.RLIMIT_FSIZE: (limits.size, limits.size),
        resource.RLIMIT_NOFILE: (OUTSIDE, OUTSIDE),
        resource.RLIMIT_CORE: (0, 0),
    }
    try:
        with Path("/proc/self/statm").open(encoding="ascii") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
        bounds[resource.RLIMIT_AS] = (mapped + limits.memory, mapped + limits.memory)
    except OSError:
        bounds[resource.RLIMIT_DATA] = (limits.memory, limits.memory)
    for kind, (soft, hard) in bounds.items():
        most = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (soft, hard) if most == resource.RLIM_INFINITY else (min(soft, most), min(hard, most)))


def answered(stream: Any, limits: Limits, read: Read) -> bytes:
    """The answer to the request that `stream` holds."""
    (length,) = LENGTH.unpack(exactly(stream, LENGTH.size))
    line, content = exactly(stream, length).split(b"\n", 1)
    hints = json.loads(line)
    leads = hints.pop("leads")
    try:
        ecg = read(content, sampling_rate=hints["sampling_rate"], unit=hints["unit"],
                   leads=None if leads is None else tuple(leads), limit=limits.size)  # fmt: skip
    except EinthovenError as error:  # says what was expected, and quotes nothing of the file
        return _framed({"error": str(error)}, b"")
    array = io.BytesIO()
    np.save(array, ecg.signal, allow_pickle=False)
    facts = {"rate": ecg.sampling_rate, "leads": ecg.leads, "format": ecg.format, "derived": ecg.derived}
    return _framed(facts, array.getvalue())


def exactly(stream: Any, size: int) -> bytes:
    """`size` bytes of a raw stream; EOFError if it ends before."""
    parts, left = [], size
    while left:
        part = stream.read(min(left, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _framed(facts: dict[str, Any], array: bytes) -> bytes:
    line = json.dumps(facts).encode() + b"\n"
    return LENGTH.pack(len(line) + len(array)) + line + array


def _warm() -> None:
    """Import what the readers import on demand, so that no upload waits for it."""
    import importlib

    for module in ("h5py", "pydicom", "scipy.io", "defusedxml.ElementTree", "ecgdatakit.parsing.parsers"):
        try:
            importlib.import_module(module)
        except ImportError:
            continue


if __name__ == "__main__":
    main(Limits(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))

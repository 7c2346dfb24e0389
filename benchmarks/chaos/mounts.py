"""File systems of a process's own: a small disk, a directory that is only read. They end with the process."""

import ctypes
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

_NEW_MOUNTS, _NEW_USERS = 0x00020000, 0x10000000
_READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 32, 4096, 16384, 1 << 18


def isolated(work: Callable[[], Any]) -> Any:
    """What `work` returns, as JSON carries it, run in a process that may mount; None where this machine forbids it."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _answer(writing, work)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = json.loads(pipe.read() or b'{"failed": "killed"}')
    os.waitpid(pid, 0)
    if "failed" in answer:
        raise RuntimeError(answer["failed"])
    return answer["found"]


def _answer(pipe: int, work: Callable[[], Any]) -> None:
    try:
        found = work() if _unshared() else None
        answer = {"found": found}
    except BaseException:
        answer = {"failed": traceback.format_exc()}
    with os.fdopen(pipe, "wb") as file:
        file.write(json.dumps(answer).encode())
    os._exit(0)


def _unshared() -> bool:
    users, groups = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNTS) != 0:
        if libc.unshare(_NEW_MOUNTS | _NEW_USERS) != 0:
            return False
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {users} 1")
        Path("/proc/self/gid_map").write_text(f"0 {groups} 1")
    return bool(libc.mount(b"none", b"/", None, _RECURSIVE | _PRIVATE, None) == 0)


def _mount(kind: bytes, source: Path | None, target: Path, flags: int, data: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    what = b"none" if source is None else bytes(source)
    if libc.mount(what, bytes(target), kind, flags, data.encode() or None) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(target))


def small_disk(place: Path, size: int) -> None:
    """A disk in memory at `place`."""
    _mount(b"tmpfs", None, place, 0, f"size={size}")


def resized(place: Path, size: int) -> None:
    _mount(b"tmpfs", None, place, _REMOUNT, f"size={size}")


def read_only(place: Path) -> None:
    """Nothing below `place` can be written, by root neither."""
    _mount(b"", place, place, _BIND)
    _mount(b"", None, place, _REMOUNT | _BIND | _READ_ONLY)

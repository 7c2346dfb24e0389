"""Directory trees: told apart by the bytes of their files, and put back to a state of before."""

import hashlib
import shutil
from pathlib import Path

LOCKS = (".lock",)
"""Empty files whose presence says nothing."""

DRAWN = ("backend.json",)
"""Files that hold a name drawn at random: that of an index where several may lie."""


def digests(place: Path) -> dict[str, str]:
    """The SHA-256 of each file, and "directory" for each directory, by path."""
    found = {}
    for path in sorted(place.rglob("*")):
        if path.name not in LOCKS:
            found[str(path.relative_to(place))] = _digest(path)
    return found


def _digest(path: Path) -> str:
    if path.is_dir():
        return "directory"
    return "drawn" if path.name in DRAWN else hashlib.sha256(path.read_bytes()).hexdigest()


def differences(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    """Paths that are missing, too many or of other bytes."""
    return sorted(path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path))


def restore(kept: Path, place: Path) -> None:
    """Make `place` a copy of `kept`, modification times included."""
    if place.exists():
        shutil.rmtree(place)
    shutil.copytree(kept, place, symlinks=True)

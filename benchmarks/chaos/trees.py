"""Directory trees: told apart by the bytes of their files, and put back to a state of before."""

import hashlib
import shutil
from pathlib import Path

LOCKS = (".lock",)
"""Empty files whose presence says nothing."""


def digests(place: Path) -> dict[str, str]:
    """The SHA-256 of each file, and "directory" for each directory, by path."""
    found = {}
    for path in sorted(place.rglob("*")):
        if path.name not in LOCKS:
            content = "directory" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(place))] = content
    return found


def differences(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    """Paths that are missing, too many or of other bytes."""
    return sorted(path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path))


def restore(kept: Path, place: Path) -> None:
    """Make `place` a copy of `kept`, modification times included."""
    if place.exists():
        shutil.rmtree(place)
    shutil.copytree(kept, place, symlinks=True)

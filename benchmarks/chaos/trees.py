"""Directory trees: told apart by the bytes of their files, and put back to a state of before."""

import hashlib
import shutil
from pathlib import Path

from einthoven.study import read_manifest

LOCKS = (".lock",)
"""Empty files whose presence says nothing."""

DRAWN = ("backend.json",)
"""Files that hold a name drawn at random: that of an index where several may lie."""

OF_THE_RUN = {"entities.json": "texts_read"}
"""Manifests that count what a run had still to do: a repeated one reads fewer texts anew, and finds the others kept."""


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
    if path.name in DRAWN:
        return "drawn"
    content = read_manifest(path) if path.name in OF_THE_RUN else None
    if content is not None:
        del content["counts"][OF_THE_RUN[path.name]]
        return repr(content)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def differences(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    """Paths that are missing, too many or of other bytes."""
    return sorted(path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path))


def restore(kept: Path, place: Path) -> None:
    """Make `place` a copy of `kept`, modification times included."""
    if place.exists():
        shutil.rmtree(place)
    shutil.copytree(kept, place, symlinks=True)

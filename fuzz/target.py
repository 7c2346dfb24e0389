"""What a target of the fuzzer is: valid inputs, and what is done with an input."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzz.mutations import Tree

Run = Callable[[Tree], None]
"""Returns where an input is taken, and raises EinthovenError where it is refused; all else is a finding."""


class FindingError(Exception):
    """What a target itself holds against an answer; its text says what."""


@dataclass(frozen=True)
class Target:
    """Something that reads. `prepare` is given an empty folder and returns valid inputs and what runs one."""

    name: str
    prepare: Callable[[Path], tuple[list[Tree], Run]]
    inputs: int  # of a whole run
    wall: float = 60.0  # seconds after which an input hangs, waiting included


def written(tree: Tree, folder: Path) -> Path:
    """A tree as files, and no other, below a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def tree_of(folder: Path) -> Tree:
    """The files below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

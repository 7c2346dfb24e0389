"""How a stage tells how far it is: done, of how many, and of what."""

from collections.abc import Callable

Progress = Callable[[int, int, str], None]


def silent(done: int, total: int, note: str) -> None:
    """Progress for callers who show none."""

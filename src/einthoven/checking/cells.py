"""Counts that may leave the hospital: small ones are hidden."""

from collections.abc import Sequence
from typing import Final

SMALL_CELL: Final = 11
"""Counts of patients, recordings, notes or codes from 1 to one below this are never written out (the rule of CMS)."""
SMALL: Final = f"<{SMALL_CELL}"
HIDDEN: Final = "hidden"
"""A count that is not small, but would tell the one small count beside it, by subtraction from their sum."""

Cell = int | str


def hide(counts: Sequence[int]) -> list[Cell]:
    """The cells of a row whose sum is told: small ones are "<11"; of a single small one the next larger is hidden."""
    small = [place for place, count in enumerate(counts) if 0 < count < SMALL_CELL]
    shown: list[Cell] = [SMALL if place in small else count for place, count in enumerate(counts)]
    others = [place for place, count in enumerate(counts) if count >= SMALL_CELL]
    if len(small) == 1 and others:
        shown[min(others, key=lambda place: counts[place])] = HIDDEN
    return shown


def share(cell: Cell, of: Cell) -> float | None:
    """The share of one cell in another, where both are told."""
    return cell / of if isinstance(cell, int) and isinstance(of, int) and of else None

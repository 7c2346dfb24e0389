"""Counts that may leave the hospital: small ones are hidden, and those that would tell a small one by subtraction."""

import math
from collections.abc import Sequence
from typing import Final

SMALL_CELL: Final = 11
"""Counts of patients, recordings, notes or codes from 1 to one below this are never written out (the rule of CMS)."""
SMALL: Final = f"<{SMALL_CELL}"
HIDDEN: Final = "hidden"
"""A count, 0 or not small, that would help to tell a small one by subtraction."""

Cell = int | str


def hide(counts: Sequence[int]) -> list[Cell]:
    """The cells of a row whose sum is told, unless the sum is small itself.

    Small ones are "<11". Others are hidden, the smallest first and zeros last, until no small one follows from the sum.
    """
    small = [count for count in counts if 0 < count < SMALL_CELL]
    others = [place for place, count in enumerate(counts) if count not in small]
    others.sort(key=lambda place: (counts[place] == 0, counts[place]))
    hidden = 0
    if sum(counts) >= SMALL_CELL:
        while hidden < len(others) and _follows(small, [counts[place] for place in others], hidden):
            hidden += 1
    shown: list[Cell] = [SMALL if count in small else count for count in counts]
    for place in others[:hidden]:
        shown[place] = HIDDEN
    return shown


def _follows(small: list[int], others: list[int], hidden: int) -> bool:
    """Whether the sum of the small ones and of the first `hidden` others leaves one value for a small one.

    Who knows how they were chosen, knows that a hidden one is not small and no larger than those told.
    """
    if not small:
        return False
    zeros = 0 in others[:hidden]
    least = 0 if zeros else SMALL_CELL
    told = [count for count in others[hidden:] if count > 0]
    most = math.inf if zeros or not told else min(told)
    rest = sum(small) + sum(others[:hidden])
    low = rest - (len(small) - 1) * (SMALL_CELL - 1) - (hidden * most if hidden else 0)
    high = rest - (len(small) - 1) - hidden * least
    return max(1, low) >= min(SMALL_CELL - 1, high)


def with_sum(counts: Sequence[int]) -> list[Cell]:
    """The cells of a row, and of its sum."""
    cells = hide(counts)
    follows = len(counts) > 1 and sum(counts) == (SMALL_CELL - 1) * len(counts) and set(cells) == {SMALL}
    return [*cells, HIDDEN if follows else hide([sum(counts)])[0]]


def part_of(counts: Sequence[int], *wholes: Sequence[int]) -> list[Cell]:
    """The cells of a row and of its sum, where each count is a part of one in every whole, which are told as well.

    What is left of a whole is a count too: where it is small, or would help to tell a small one, the part is hidden.
    """
    cells = with_sum(counts)
    for whole in wholes:
        left = with_sum([all_of_it - count for all_of_it, count in zip(whole, counts, strict=True)])
        told = [isinstance(rest, int) and of != HIDDEN for rest, of in zip(left, with_sum(whole), strict=True)]
        cells = [cell if cell == SMALL or tell else HIDDEN for cell, tell in zip(cells, told, strict=True)]
    return cells


def share(cell: Cell, of: Cell) -> float | None:
    """The share of one cell in another, where both are told."""
    return cell / of if isinstance(cell, int) and isinstance(of, int) and of else None

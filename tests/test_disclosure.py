"""Small counts: whoever reads a row and its sum cannot tell any of them, even knowing how others were hidden."""

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from einthoven.disclosure import HIDDEN, SMALL, SMALL_CELL, Cell, hide, part_of, share, with_sum

SMALL_COUNTS = range(1, SMALL_CELL)
counts = st.one_of(st.just(0), st.integers(1, 14), st.sampled_from([10, 11, 12, 20]), st.integers(0, 60))


def possible(cells: list[Cell], total: Cell) -> list[set[int]]:
    """Of each cell the counts that it may have, if the total is what it says."""

    def values(cell: Cell) -> range:
        if isinstance(cell, int):
            return range(cell, cell + 1)
        return SMALL_COUNTS if cell == SMALL else range(61)

    rows = [row for row in product(*map(values, cells)) if not isinstance(total, int) or sum(row) == total]
    return [set(column) for column in zip(*rows, strict=True)]


@settings(max_examples=150, deadline=None)
@given(st.lists(counts, min_size=1, max_size=3))
def test_no_small_count_follows_from_the_sum(row: list[int]) -> None:
    *cells, total = with_sum(row)
    for count, cell, values in zip(row, cells, possible(cells, total), strict=True):
        assert (cell == SMALL) == (0 < count < SMALL_CELL)
        assert cell in (count, SMALL, HIDDEN) and count in values
        assert cell != SMALL or len(values) > 1
    assert total not in SMALL_COUNTS


def test_a_row_without_small_counts_is_told_whole() -> None:
    assert with_sum([0, 11, 300]) == [0, 11, 300, 311] and hide([12]) == [12] and hide([3, 0, 0]) == [SMALL, 0, 0]


def test_as_many_are_hidden_as_it_takes() -> None:
    assert hide([3, 500, 40]) == [SMALL, 500, HIDDEN]
    assert hide([3, 4, 500]) == [SMALL, SMALL, 500]  # 7 of two: none is told
    assert hide([10, 10, 0]) == [SMALL, SMALL, HIDDEN]  # 20 of two would tell both
    assert hide([10, 500, 500]) == [SMALL, HIDDEN, HIDDEN]  # 510 of two, of which one is at most 500
    assert with_sum([10, 10, 10]) == [SMALL, SMALL, SMALL, HIDDEN]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(counts, counts), min_size=1, max_size=3))
def test_what_is_left_of_the_whole_is_not_told_either(pairs: list[tuple[int, int]]) -> None:
    part, whole = [one for one, _ in pairs], [one + rest for one, rest in pairs]
    of = with_sum(whole)
    for count, cell, all_of_it, told in zip(
        [*part, sum(part)], part_of(part, whole), [*whole, sum(whole)], of, strict=True
    ):
        assert cell not in SMALL_COUNTS
        assert not (isinstance(cell, int) and isinstance(told, int) and 0 < all_of_it - count < SMALL_CELL)
    *cells, total = part_of(part, whole)
    rests = [w - c if isinstance(w, int) and isinstance(c, int) else HIDDEN for w, c in zip(of, cells, strict=False)]
    rest = of[-1] - total if isinstance(of[-1], int) and isinstance(total, int) else HIDDEN
    for (_, left), values in zip(pairs, possible(rests, rest), strict=True):
        assert not 0 < left < SMALL_CELL or len(values) > 1


def test_a_share_is_told_where_both_are() -> None:
    assert share(20, 80) == 0.25
    assert share(SMALL, 80) is None and share(20, HIDDEN) is None and share(0, 0) is None

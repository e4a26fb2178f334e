"""Tables as text: columns that are aligned by spaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
GAP = "  "


def aligned(rows: Sequence[Sequence[str]], sides: str = "<", least: Sequence[int] = (0,), gap: str = GAP) -> list[str]:
    """The lines of a table, in which each column is as wide as its widest cell.

    Args:
        rows: the cells of each row. Headings are a row like any other. All rows have the same number of cells.
        sides: the alignment of each column, `<` for left and `>` for right; the last one is that of all further columns.
        least: the least width of each column; the last one is that of all further columns.
        gap: what stands between two columns.

    Returns:
        A line for each row, without spaces at its end.

    Raises:
        ValueError: two rows differ in their number of cells.
    """
    columns = [*zip(*rows, strict=True)]
    padded = []
    for place, column in enumerate(columns):
        width, pad = max(_of(least, place), *map(len, column)), str.rjust if _of(sides, place) == ">" else str.ljust
        padded.append([pad(cell, width) for cell in column])
    return [gap.join(line).rstrip() for line in zip(*padded, strict=True)]


def _of(values: Sequence[T], place: int) -> T:
    """The value of a column where the last value is that of all further columns."""
    return values[min(place, len(values) - 1)]

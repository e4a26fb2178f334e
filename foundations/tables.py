"""Tables as text, with columns aligned by spaces."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
GAP = "  "
ASCII = {ord("±"): "+-", ord("…"): "~"}  # what replaces the characters of tables where only ASCII can be shown


def aligned(rows: Sequence[Sequence[str]], alignments: str = "<", min_widths: Sequence[int] = (0,), gap: str = GAP) -> list[str]:
    """The lines of a table. Each column is as wide as its widest cell, in characters that standard output can show.

    Args:
        rows: the cells of each row. The headings are the first row. All rows have the same number of cells.
        alignments: the alignment of each column, `<` for left and `>` for right. The last one holds for all further columns.
        min_widths: the minimum width of each column. The last one holds for all further columns.
        gap: the text between two columns.

    Returns:
        One line for each row, without trailing spaces.

    Raises:
        ValueError: two rows have different numbers of cells.
    """
    columns = [[*map(_shown, column)] for column in zip(*rows, strict=True)]
    padded = []
    for index, column in enumerate(columns):
        width = max(_of_column(min_widths, index), *map(len, column))
        pad = str.rjust if _of_column(alignments, index) == ">" else str.ljust
        padded.append([pad(cell, width) for cell in column])
    return [gap.join(line).rstrip() for line in zip(*padded, strict=True)]


def _shown(cell: str) -> str:
    """A cell with `ASCII` in place of characters that standard output cannot show."""
    try:
        cell.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return cell.translate(ASCII)
    return cell


def _of_column(values: Sequence[T], index: int) -> T:
    """The value of a column. The last value holds for all further columns."""
    return values[min(index, len(values) - 1)]

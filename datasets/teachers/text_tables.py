"""Tables of numbers in text files: values separated by commas or tabs, with or without a line of names, as pandas and numpy write them.

Nothing is guessed silently: what is left out is in the note of a table, and a cell that is no number is refused with its line and column.
"""

from __future__ import annotations

import csv
import io
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

MISSING = {"", "na", "n/a", "nan", "null", "none", "<na>", "#n/a", "-", "?"}  # how programs write a cell without a number, in lower case
UNNAMED = re.compile(r"(unnamed: 0(\.\d+)?)?", re.IGNORECASE)  # the names of the columns of row labels that pandas writes
COUNTERS = {"index", "id", "row"}  # names of a column that is left out if it counts the rows
DIGITS = re.compile(r"\d+")
DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+(e[-+]?\d+)?", re.IGNORECASE)
REMEDIES = {
    ";": "semicolons; save it with commas and decimal points (pandas: to_csv(sep=',', decimal='.'))",
    "\t": "tabs; name it .tsv",
    ",": "commas; name it .csv",
    " ": "spaces; save it with commas (numpy: savetxt(delimiter=','))",
    "|": "vertical bars; save it with commas",
}
OTHER_KINDS = {  # cells that are no numbers, with what they are and what is valid instead
    re.compile(r"true|false", re.IGNORECASE): "a truth value; save true and false as 1 and 0",
    DECIMAL_COMMA: "which has a decimal comma; save it with decimal points",
    re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d*)?"): "which has commas between thousands; save it without them",
    re.compile(r"[-+]?[\d.]+\s*%"): "a percentage; save it as a number",
    re.compile(r"\d{4}-\d\d-\d\d.*"): "a date; save it as a number, or leave out the column",
}
NUMBERS = "valid: numbers, which the network takes or gives; for classes its logits or probabilities, one column for each"


@dataclass(frozen=True)
class Table:
    """Numbers with the names of their columns.

    Attributes:
        values: `[rows, columns]`, float64.
        names: the names of the columns; their numbers from 1 if the file has no names.
        note: what the reader has left out or decided, for the user; empty if nothing.
    """

    values: np.ndarray
    names: tuple[str, ...]
    note: str = ""


def parse(content: bytes, separator: str) -> Table:
    """The table in the bytes of a text file.

    Args:
        content: UTF-8 text, with or without a byte order mark.
        separator: a comma or a tab.

    Raises:
        ValueError: the file is no such table. The message says where, and what is valid.
    """
    if b"\0" in content:
        raise ValueError("it is not UTF-8 text; valid: text saved as UTF-8")
    text = content.decode("utf-8-sig", errors="replace")
    rows = _rows(text, separator)
    start = [row for _, row in zip(range(2), rows, strict=False)]
    if not start:
        raise ValueError("it contains no rows")
    _check_separator(start[-1][1], separator)
    names, notes = _names(start), []
    body = [*start[1:], *rows] if names else [*start, *rows]
    if not body:
        raise ValueError("it contains no rows")
    if names and all(map(DIGITS.fullmatch, filter(None, names))):
        notes.append("line 1 is taken as the names of the columns")
    has_labels = bool(names) and len(names) > 1 and UNNAMED.fullmatch(names[0]) is not None
    if has_labels:
        notes.append("the first column has no name: it is taken as the labels of the rows and left out")
    columns = names or tuple(str(place + 1) for place in range(len(start[0][1])))
    is_plain = text.count("_") == (sum(cell.count("_") for cell in start[0][1]) if names else 0)
    values = _numbers(body, columns, has_labels, is_plain)
    columns = columns[has_labels:]
    if len(columns) > 1 and (np.diff(values[:, 0]) == 1).all():
        if columns[0].lower() in COUNTERS or UNNAMED.fullmatch(columns[0]):
            notes.append(f"column {columns[0]} counts the rows and is left out")
            values, columns = values[:, 1:], columns[1:]
        else:
            notes.append(f"column {columns[0]} counts the rows; it is kept as an input")
    return Table(values, columns, "; ".join(notes))


def _rows(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The number of the line and the cells of every row, without blank lines and comments. A comment with names counts as a row."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    comment: tuple[int, list[str]] | None = None
    is_started = False
    try:
        for row in reader:
            if not row or (len(row) == 1 and row[0] and not row[0].strip()):
                continue
            if row[0].lstrip().startswith("#") and not is_started:
                comment = reader.line_num, [row[0].lstrip().lstrip("#"), *row[1:]]
                continue
            if comment and not is_started and len(comment[1]) == len(row):
                yield comment
            is_started = True
            yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num} cannot be read ({error})") from None


def _check_separator(row: Sequence[str], separator: str) -> None:
    """Raises a ValueError if a row of values is separated by something else."""
    text = separator.join(row).strip()
    if ";" in text:
        raise ValueError(f"it is separated by {REMEDIES[';']}")
    if len(row) == 1 and not _is_number(text):
        other = next((sign for sign in ("\t", ",", "|", " ") if sign != separator and sign in text), None)
        if other and all(_is_number(cell) or cell.strip().lower() in MISSING for cell in text.split(other)):
            raise ValueError(f"it is separated by {REMEDIES[other]}")


def _names(start: Sequence[tuple[int, list[str]]]) -> tuple[str, ...]:
    """The names of the columns, if the first of the first two rows contains names.

    pandas names columns that have no names 0, 1, 2, ... Such a row is told from a row of values by the decimals in the row below. A row
    with a fraction is a row of values: no name is a fraction.
    """
    first = tuple(cell.strip() for cell in start[0][1])
    if any(cell.lower() not in MISSING and not _is_number(cell) and not DECIMAL_COMMA.fullmatch(cell) for cell in first):
        is_row = any(_is_number(cell) and not DIGITS.fullmatch(cell) for cell in first if cell.lower() not in MISSING)
        return () if is_row else first
    below = [cell.strip() for cell in start[1][1]] if len(start) > 1 else []
    labelled = len(first) > 1 and not first[0]
    numbered = first[labelled:]
    if not all(map(DIGITS.fullmatch, numbered)) or all(map(DIGITS.fullmatch, below[labelled:])):
        return ()
    numbers = [int(cell) for cell in numbered]
    begins = [place for place, number in enumerate(numbers) if not number]
    counts = all(number == 0 or (place and number == numbers[place - 1] + 1) for place, number in enumerate(numbers))
    return first if counts and len(begins) <= 2 else ()


def _numbers(rows: Sequence[tuple[int, list[str]]], columns: Sequence[str], has_labels: bool, is_plain: bool) -> np.ndarray:
    """The values `[rows, columns]` of rows of cells; `has_labels` leaves out the first column, `is_plain` says that there is no underscore.

    Raises:
        ValueError: a cell is missing or is no number, or a row has another length.
    """
    numbers, convert = array("d"), float if is_plain else _strict
    for line, row in rows:
        if len(row) != len(columns):
            raise ValueError(f"line {line} has {len(row)} values, not {len(columns)}; valid: rows of equal length")
        try:
            numbers.extend(map(convert, row[has_labels:]))
        except ValueError:
            del numbers[len(numbers) // (len(columns) - has_labels) * (len(columns) - has_labels) :]
            numbers.extend(_number(cell, line, columns[place]) for place, cell in enumerate(row) if place or not has_labels)
    values = np.frombuffer(numbers, dtype=np.float64).reshape(-1, len(columns) - has_labels).copy()
    missing = np.argwhere(np.isnan(values))
    if len(missing):
        row, column = missing[0]
        name, ends = columns[column + has_labels], len(columns) - has_labels - 1
        if len(missing) == len(values) > 0 and (missing[:, 1] == ends).all():
            raise ValueError("the last column is empty, because every line ends in a separator; remove it")
        place = f"line {rows[row][0]}, column {name or column + has_labels + 1}"
        cells = f"{len(missing)} cells contain no number, the first in" if len(missing) > 1 else "a cell contains no number:"
        raise ValueError(f"{cells} {place}; leave out {'their rows' if len(missing) > 1 else 'its row'}")
    return values


def _number(cell: str, line: int, column: str) -> float:
    """The number in a cell, NaN if it is missing; a ValueError if it is something else."""
    text = cell.strip()
    if text.lower() in MISSING:
        return float("nan")
    try:
        return _strict(text)
    except ValueError:
        kind = next((meaning for pattern, meaning in OTHER_KINDS.items() if pattern.fullmatch(text)), f"not a number; {NUMBERS}")
        raise ValueError(f"line {line}, column {column} contains {text[:40]!r}, {kind}") from None


def _strict(cell: str) -> float:
    """A number; Python would read `1_000` as one, which in a table is a label."""
    if "_" in cell:
        raise ValueError(cell)
    return float(cell)


def _is_number(cell: str) -> bool:
    try:
        _strict(cell)
    except ValueError:
        return False
    return True

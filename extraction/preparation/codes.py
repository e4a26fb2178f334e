"""Codes for missing values in X, such as -999, and what the network that gave the answers saw in their place.

A code is a number that occurs several times, far from all others of its column. Either the network saw the code itself, or the missing
values had been replaced, by zero or by a mean, before the network saw them. In the second case one number for each column explains the
answers of all rows with a code in it.

Axes: n rows, D inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from extraction.network import Layers
from extraction.preparation.coordinates import Coordinates
from extraction.preparation.rows import Rows

GAP = 10.0  # a code is this many times as far from the median of a column as all other numbers
OTHERS = 0.25  # of the rows have other numbers in its column that differ from the median, at least
OFTEN = 2  # times a code occurs, at least, in all columns together
KINDS = 3  # codes in a column, at most
GRID, STEPS = 200, 30  # numbers that are tried, and Gauss-Newton steps from the best one
DIGITS = 6  # of a number in a message


def coded(queries: torch.Tensor) -> torch.Tensor:
    """Which numbers of queries `[n, D]` are codes for missing values, `[n, D]`."""
    distances = (queries - queries.median(0).values).abs()
    ordered = distances.sort(0).values[int(OTHERS * len(queries)) :]  # the numbers nearest to the median may differ by any factor
    gaps = (ordered[1:] > GAP * ordered[:-1]) & (ordered[:-1] > 0)
    found = distances > torch.where(gaps, ordered[:-1], torch.inf).amin(0)
    found &= ((distances > 0) & ~found).sum(0) >= OTHERS * len(queries)
    for column in found.any(0).nonzero().flatten().tolist():
        found[:, column] &= len(torch.unique(queries[found[:, column], column])) <= KINDS
    values, places, counts = torch.unique(queries[found], return_inverse=True, return_counts=True)
    often = found.clone()
    often[found] = counts[places] >= OFTEN if len(values) else False
    return often


@dataclass(frozen=True)
class Replaced:
    """Codes that the network did not see.

    Attributes:
        column: of X.
        code: the number in the file.
        value: the number that the network saw.
        rows: the numbers of the rows with the code that this explains.
    """

    column: int
    code: float
    value: float
    rows: frozenset[int]

    def __str__(self) -> str:
        count = f"{len(self.rows)} rows" if len(self.rows) > 1 else "1 row"
        value = f"{self.value:.{DIGITS}g}" if abs(self.value) > 1e-9 else "0"
        return (
            f"{self.code:g} in column {self.column} of X is a code for a missing value, for which the network saw {value}: "
            f"{count} with it {'are' if len(self.rows) > 1 else 'is'} left out"
        )


def replaced(layers: Layers, inputs: Coordinates, rows: tuple[Rows, Rows], missed: Sequence[int], limit: torch.Tensor) -> list[Replaced]:
    """The codes in rows that the network misses, where one other number in their place explains the answers.

    Args:
        layers: of the network, for inputs and outputs after scaling.
        inputs: the scaling of the inputs.
        rows: of the file, before and after scaling.
        missed: the numbers of the rows that the network does not give.
        limit: the largest error of an answer, `[O]`.
    """
    before, after = rows
    queries = torch.cat([loader.examples for loader in before.loaders])
    if not missed or len(queries) != sum(len(loader.labels) for loader in after.loaders):
        return []
    answers = torch.cat([loader.labels for loader in after.loaders])
    numbers = torch.cat(before.numbers)
    codes = coded(queries)
    wrong = torch.isin(numbers, torch.tensor(sorted(missed)).to(numbers))
    found = []
    for column in codes.any(0).nonzero().flatten().tolist():
        for code in torch.unique(queries[codes[:, column], column]):
            here = wrong & (queries[:, column] == code) & (codes.sum(1) == 1)
            usual = queries[~codes[:, column], column]
            if int(here.sum()) * answers.shape[1] < OFTEN:
                continue
            value = _explanation(layers, inputs, (queries[here], answers[here], usual), column, limit)
            if value is not None:
                found.append(Replaced(column, float(code), value, frozenset(numbers[here].tolist())))
    return found


def codes_in(rows: Rows, numbers: Sequence[int]) -> str:
    """What is to be said of codes in some rows of the file before scaling, by their numbers; empty where they have none."""
    queries, codes, here = _of(rows, numbers)
    places = (codes & here[:, None]).nonzero()
    if not len(places):
        return ""
    shown = f"{float(queries[tuple(places[0])]):g}"
    return f" ({shown} in column {int(places[0, 1])} of X seems to be a code for a missing value: leave out rows with it)"


def all_coded(rows: Rows, numbers: Sequence[int]) -> bool:
    """Whether all of some rows of the file before scaling, by their numbers, have codes."""
    _, codes, here = _of(rows, numbers)
    return bool(codes[here].any(1).all())


def _of(rows: Rows, numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """All queries of the file `[n, D]`, which of their numbers are codes `[n, D]`, and which of the rows are meant `[n]`."""
    queries = torch.cat([loader.examples for loader in rows.loaders])
    return queries, coded(queries), torch.isin(torch.cat(rows.numbers), torch.tensor(sorted(numbers)).to(rows.numbers[0]))


def _explanation(
    layers: Layers, inputs: Coordinates, pairs: tuple[torch.Tensor, torch.Tensor, torch.Tensor], column: int, limit: torch.Tensor
) -> float | None:
    """The number in a column that gives all answers.

    Args:
        layers: of the network.
        inputs: the scaling of the inputs.
        pairs: queries `[n, D]` with a code, their answers `[n, O]`, and the other numbers of the column.
        column: its number.
        limit: the largest error of an answer, `[O]`.
    """
    queries, answers, usual = pairs
    before = inputs.apply(queries.index_fill(1, torch.tensor([column]).to(queries.device), 0.0))
    direction = (inputs.inward / inputs.spread[:, None])[column]

    def errors(value: torch.Tensor) -> torch.Tensor:
        return ((layers.pre_activations(before + value * direction) - answers) / limit).flatten()

    low, high = min(float(usual.min()), 0.0), max(float(usual.max()), 0.0)
    grid = torch.linspace(low, high, GRID).to(queries)
    value = grid[torch.stack([errors(each).square().sum() for each in grid]).argmin()]
    for _ in range(STEPS):
        missing, slope = torch.func.jvp(errors, (value,), (torch.ones_like(value),))[:2]
        value = value - (slope @ missing) / (slope @ slope).clamp_min(torch.finfo(value.dtype).tiny)
    return float(value) if bool((errors(value).abs() <= 1).all()) else None

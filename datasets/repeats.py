"""Queries that occur more than once in a file, and the pairs that are held out so that no held-out query is one for training.

Axes: n rows, D inputs, O outputs.
"""

from __future__ import annotations

import torch

LEAST = 10  # degrees of freedom that the errors of answers are estimated from
FAR = 6.0  # answers to a repeated query that differ by more than this many times the usual errors contradict each other
NORMAL = 1.4826  # the standard deviation of normal errors over the median of their magnitudes


def groups(queries: torch.Tensor) -> torch.Tensor:
    """The number of the distinct query of every row of `[n, D]`, in the order in which they occur first, `[n]`."""
    distinct, number = torch.unique(queries, dim=0, return_inverse=True)
    if len(distinct) == len(queries):
        return torch.arange(len(queries), device=queries.device)
    places = torch.arange(len(queries), device=queries.device)
    first = places.new_full((len(distinct),), len(queries)).scatter_reduce(0, number, places, "amin")
    return first.argsort().argsort()[number]


def held_out(queries: torch.Tensor, every: int) -> torch.Tensor:
    """Which rows of queries `[n, D]` are held out, `[n]`: every tenth distinct query for `every` 10, with all its repetitions.

    The last distinct query is held out where there are fewer.
    """
    number = groups(queries)
    count = int(number.max()) + 1
    return number == count - 1 if count < every else number % every == every - 1


def noise(queries: torch.Tensor, answers: torch.Tensor) -> tuple[torch.Tensor, int] | None:
    """The standard deviation of the errors of answers that repeated queries show, `[O]`, and the number of rows that repeat others.

    Answers to a query differ from their mean by errors alone ('pure error'). Differences that are far larger than most are contradictions
    and not counted.

    Args:
        queries: `[n, D]`.
        answers: `[n, O]`.

    Returns:
        None where fewer than LEAST rows repeat others.
    """
    number = groups(queries)
    counts = torch.bincount(number)
    repeats = len(number) - len(counts)
    if repeats < LEAST:
        return None
    sums = answers.new_zeros(len(counts), answers.shape[1]).index_add_(0, number, answers)
    several = counts[number] > 1
    share = counts.to(answers)[number][several, None]
    deviations = (answers - (sums / counts[:, None])[number])[several] * (share / (share - 1)).sqrt()
    typical = NORMAL * deviations.abs().median(0).values
    usual = deviations.abs() <= FAR * typical
    squares = torch.where(usual, deviations, 0.0).square().sum(0) / usual.sum(0).clamp_min(1)
    return squares.sqrt(), repeats

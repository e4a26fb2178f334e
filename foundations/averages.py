"""Averages over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation of one or more values. The deviation of a single value is 0.

    If a value is not finite, the results are not finite. If the squares overflow, the deviation is infinite.
    """
    mean = _mean(values)
    if len(values) == 1:
        return mean, 0.0
    try:
        return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    except OverflowError:
        return mean, math.inf


def _mean(values: Sequence[float]) -> float:
    """The mean of one or more values; NaN if both infinities are among them."""
    try:
        return math.fsum(values) / len(values)
    except OverflowError:
        return math.fsum(value / len(values) for value in values)
    except ValueError:
        return math.nan

"""The errors of the networks on the straight line between two trained networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Interpolation:
    """The errors of the networks `(1 - alpha) W1 + alpha W2` at one level.

    Attributes:
        alpha: the interpolation coefficients, from 0 to 1.
        train: the errors on the training set, one per coefficient.
        test: the errors on the test set, one per coefficient.
        unpruned: the number of remaining weights.
        total: the number of all weights.
    """

    alpha: Sequence[float]
    train: Sequence[float]
    test: Sequence[float]
    unpruned: int
    total: int

    @property
    def density(self) -> float:
        """The share of the weights that remains."""
        return self.unpruned / self.total


def barrier(errors: Sequence[float]) -> float:
    """The error barrier: the highest error on the line minus the mean error of its two ends."""
    return max(errors) - (errors[0] + errors[-1]) / 2

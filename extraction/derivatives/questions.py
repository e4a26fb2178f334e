"""The teacher as a function that is asked, in whichever coordinates suit, with a count of the queries and a budget.

Axes: n queries, d inputs, o outputs, k coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from extraction.derivatives.result import Lacking

Ask = Callable[[torch.Tensor], torch.Tensor]
ROUNDING = 1e-12  # of inputs at their limit
BATCH_VALUES = 2**23  # input values in one call


class BudgetSpent(Exception):
    """The next queries would exceed the budget; none of them was asked."""


@dataclass
class Count:
    """The queries so far, and the most that there may be; None for no limit."""

    asked: int = 0
    budget: int | None = None


class Questions:
    """A function `[n, d] -> [n, o]` in float64 that counts its queries.

    Args:
        ask: answers queries; the answers of equal queries are equal.
        inputs: the number of inputs.
        budget: the most queries.
        device: where queries and answers live.
        seed: of the random numbers by which queries are chosen.
    """

    def __init__(self, ask: Ask, inputs: int, budget: int | None = None, device: torch.device | str = "cpu", seed: int = 0):
        self.inputs, self.device, self.limit = inputs, torch.device(device), math.inf
        self.count = Count(0, budget)
        self._ask, self._generator = ask, torch.Generator().manual_seed(seed)

    def limited(self, limit: float) -> Questions:
        """The same teacher, for inputs of at most `limit` in size: larger ones raise Lacking, and are not asked."""

        def checked(points: torch.Tensor) -> torch.Tensor:
            if len(points) and not float(points.abs().max()) <= limit * (1 + ROUNDING):
                raise Lacking("a step of derivatives would leave the domain")
            return points.clamp(-limit, limit)

        other = self.through(checked, self.inputs)
        other.limit = limit
        return other

    @torch.no_grad()
    def __call__(self, queries: torch.Tensor) -> torch.Tensor:
        """The answers `[n, o]` to queries `[n, inputs]`.

        Raises:
            BudgetSpent: there are more queries than the budget has left.
        """
        count = self.count
        if count.budget is not None and count.asked + len(queries) > count.budget:
            raise BudgetSpent(f"{len(queries)} more queries exceed the budget of {count.budget}, of which {count.asked} are spent")
        count.asked += len(queries)
        batches = queries.split(max(1, BATCH_VALUES // self.inputs))
        return torch.cat([self._ask(batch) for batch in batches])

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normal numbers."""
        return torch.randn(*shape, dtype=torch.float64, generator=self._generator).to(self.device)

    def uniform(self, *shape: int) -> torch.Tensor:
        """Uniform numbers between -1 and 1."""
        return (2 * torch.rand(*shape, dtype=torch.float64, generator=self._generator) - 1).to(self.device)

    def through(self, to_inputs: Ask, inputs: int) -> Questions:
        """The same teacher asked in other coordinates `[n, inputs]`, with the same count, budget and random numbers.

        Args:
            to_inputs: maps the coordinates to queries of this object.
            inputs: the number of coordinates.
        """
        other = Questions(lambda points: self._ask(to_inputs(points)), inputs, device=self.device)
        other.count, other._generator = self.count, self._generator
        return other

    def within(self, origin: torch.Tensor, basis: torch.Tensor) -> Questions:
        """The teacher at `origin + basis z`, for an origin `[d]` and a basis `[d, k]`, as a function of z `[n, k]`."""
        return self.through(lambda points: origin + points @ basis.T, basis.shape[1])

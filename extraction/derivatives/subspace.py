"""The space that the gradients of a network span, which is the row space of its first layer.

Every gradient is a mixture of the incoming vectors of the first layer: `J(x) = (...) W`. Stacked Jacobians have the rank of W, and a gap in
their singular values shows it: at 784-128-10 they fall from 1e-1 to 1e-7 of the largest between the 128th and the 129th. Points are added
until there are more equations than the rank needs, so that little is measured in vain.

Axes: d inputs, r the rank, o outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from extraction.derivatives.differences import Scale, gradients
from extraction.derivatives.questions import Questions

SURPLUS = 4  # rows beyond the rank, at least, that show that it is complete
GROWTH = 6  # one point more for every so many
GAP = 30.0  # the least quotient of neighbouring singular values that counts as a gap
ERRORS = 1e3  # singular values behind the gap are at most so many times the precision


@dataclass(frozen=True)
class Span:
    """A subspace of the inputs.

    Attributes:
        basis: orthonormal, `[d, r]`.
        gap: the quotient of the last singular value that counts and the first that does not; infinite where there is no other.
        is_full: whether the subspace is the whole space, so that there may be more neurons than inputs.
    """

    basis: torch.Tensor
    gap: float
    is_full: bool

    @property
    def rank(self) -> int:
        """The dimension."""
        return self.basis.shape[1]

    def within(self, asked: Questions) -> Questions:
        """The teacher in this subspace, through the origin."""
        return asked.within(torch.zeros_like(self.basis[:, 0]), self.basis)


def gradient_span(asked: Questions, scale: Scale, points: Callable[[int], torch.Tensor], repeats: float = 1.0, least: int = 1) -> Span:
    """The space that the gradients at random points span.

    Args:
        asked: the teacher.
        scale: of its inputs and answers.
        points: so many random points `[n, d]`.
        repeats: rows for each dimension, at least; more than 1 where gradients are the same at many points.
        least: the least number of points; more than 1 where a neuron is inactive at many points.
    """
    inputs, unit = asked.inputs, scale.unit(asked.inputs)
    outputs = len(scale.spread)
    rows = torch.zeros(0, inputs, dtype=torch.float64, device=asked.device)
    asked_points = 0
    while True:
        more = 1 + asked_points // GROWTH if asked_points else least
        some = scale.inside(points(more), scale.first(inputs) * max(1.0, scale.limit * inputs**0.5 / unit) if scale.is_bounded else 0.0)
        steps = scale.first(inputs) * (some.norm(dim=1) / unit).clamp_min(1.0)  # far out, answers and their errors are larger
        jacobians = gradients(asked, some, steps) / scale.spread[:, None]
        asked_points += more
        rows = torch.cat([rows, jacobians.flatten(0, 1)])
        values, directions = torch.linalg.svd(rows, full_matrices=False)[1:]
        rank, gap = rank_by_gap(values, scale.relative_error**0.5)
        if repeats * rank + max(SURPLUS, outputs // 2) <= len(rows):
            return Span(directions[:rank].T.contiguous(), gap, rank == inputs)


def rank_by_gap(values: torch.Tensor, precision: float) -> tuple[int, float]:
    """The number of singular values that count, and the quotient at the gap behind them.

    Args:
        values: in descending order.
        precision: the error of the matrix, relative to its largest singular value.
    """
    relative = values / values[0]
    quotients = relative[:-1] / relative[1:].clamp_min(1e-300)
    possible = (relative[:-1] > precision) & (relative[1:] < ERRORS * precision) & (quotients > GAP)
    if not bool(possible.any()):
        return len(values), float("inf")
    best = int(torch.where(possible, quotients, 0.0).argmax())
    return best + 1, float(quotients[best])

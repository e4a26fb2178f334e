"""Neurons from the pieces of a piecewise-linear function on both sides of a kink.

Between two kinks the gradient is constant, so that a difference over any step within the piece is exact but for rounding. The Jacobian
changes across a kink by (outgoing) x (incoming). Every piece checks its gradient: J d must be the slope along the line.

Axes: d inputs, N kinks or neurons, o outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from extraction.derivatives.lines import SLOPES, Kinks, Line
from extraction.derivatives.questions import Questions

STEP = 0.01  # of gradients, as a share of the piece of a line
ATTEMPTS = 4  # to measure a gradient, each over a tenth of the step before
PARALLEL = 1e-6  # 1 - |cos| of neurons that are the same
RANK_ONE = 1e-6  # a larger second singular value of a jump of Jacobians: there are two kinks, or a step has crossed another

Neuron = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # the incoming vector, the bias and the outgoing vector


@dataclass(frozen=True)
class Neurons:
    """Neurons up to their signs: `outgoing max(0, incoming x + bias)` up to a linear function.

    Attributes:
        incoming: unit vectors, `[N, d]`.
        biases: `[N]`.
        outgoing: `[N, o]`.
    """

    incoming: torch.Tensor
    biases: torch.Tensor
    outgoing: torch.Tensor

    @classmethod
    def of(cls, found: Sequence[Neuron], asked: Questions, outputs: int) -> Neurons:
        """Neurons of a function that were found one by one."""
        if not found:
            empty = torch.zeros(0, dtype=torch.float64, device=asked.device)
            return cls(empty.reshape(0, asked.inputs), empty, empty.reshape(0, outputs))
        return cls(*(torch.stack(part) for part in zip(*found, strict=True)))

    def some(self, which: torch.Tensor) -> Neurons:
        """A part of them."""
        return Neurons(*(part[which] for part in vars(self).values()))

    def joined(self, others: Neurons) -> Neurons:
        """These and those others that are not among them."""
        pairs = ((a, b) for a, b in zip(vars(self).values(), vars(others.some(others.unlike(self))).values(), strict=True))
        return Neurons(*(torch.cat(pair) for pair in pairs))

    def unlike(self, others: Neurons) -> torch.Tensor:
        """Which of them are not among others, `[N]`."""
        cosines = (self.incoming @ others.incoming.T).abs()
        return (1 - cosines > PARALLEL).all(1)


def measured(asked: Questions, kinks: Kinks, which: torch.Tensor) -> Neurons:
    """The neurons of some kinks of a line, from the Jacobians on both sides.

    Args:
        asked: the function.
        kinks: all kinks of a line.
        which: the numbers of those that are measured.
    """
    edges = kinks.edges
    middles, lengths = (edges[1:] + edges[:-1]) / 2, edges.diff()
    pieces = {int(piece): _piece(asked, kinks.line, middles[piece], lengths[piece]) for piece in torch.cat([which, which + 1]).unique()}
    found = [neuron_between(pieces[kink], pieces[kink + 1], kinks.line.direction) for kink in which.tolist()]
    return Neurons.of([neuron for neuron in found if neuron is not None], asked, kinks.jumps.shape[1])


@dataclass(frozen=True)
class Affine:
    """A piece of the network: near the point, f is `value + jacobian (x - point)`."""

    point: torch.Tensor
    value: torch.Tensor
    jacobian: torch.Tensor


def _piece(asked: Questions, line: Line, place: torch.Tensor, length: torch.Tensor) -> Affine | None:
    """The piece of the network at a place of a line, or None where no step stays on the piece."""
    point = line.at(place[None])[0]
    here, there = asked(torch.stack([point, point + 0.4 * length * line.direction]))
    slope = (there - here) / (0.4 * length)
    for attempt in range(ATTEMPTS):
        piece = affine_piece(asked, point, STEP * float(length) * 0.1**attempt)
        along = piece.jacobian @ line.direction
        if float((along - slope).abs().max()) <= SLOPES * float((along.abs() + slope.abs()).max()):
            return piece
    return None


def affine_piece(asked: Questions, point: torch.Tensor, step: float) -> Affine:
    """The piece of the network at a point, if a step along every axis stays on it."""
    value = asked(point[None])[0]
    moves = step * torch.eye(asked.inputs, dtype=point.dtype, device=point.device)
    return Affine(point, value, (asked(point + moves) - value).T / step)


def neuron_between(before: Affine | None, after: Affine | None, near: torch.Tensor) -> Neuron | None:
    """The neuron between two pieces whose values agree on its plane, or None where there is not exactly one.

    Args:
        before: one piece; None where it could not be measured.
        after: the other.
        near: a vector `[d]` that points from one side of the plane to the other; the incoming vector takes its sign.
    """
    if before is None or after is None:
        return None
    left, sizes, right = torch.linalg.svd(after.jacobian - before.jacobian, full_matrices=False)
    if not float(sizes[0]) > 0 or (len(sizes) > 1 and sizes[1] > RANK_ONE * sizes[0]):
        return None
    forward = (right[0] @ (after.point - before.point)).sign()
    incoming, outgoing = right[0] * forward, left[:, 0] * sizes[0] * forward
    middle = (before.point + after.point) / 2
    values = [piece.value + piece.jacobian @ (middle - piece.point) for piece in (before, after)]
    bias = ((values[1] - values[0]) @ outgoing) / outgoing.square().sum() - incoming @ middle
    same = (incoming @ near).sign()
    return incoming * same, bias * same, outgoing

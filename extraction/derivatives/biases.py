"""The biases of a layer with more neurons than the next one, by the rank of Jacobians.

With h = tanh(u) the rest of a network is asked at any h, once the first layer is known. Its Jacobians by h have the rank of the next
layer's width. With biases that are off by b, u is off by b, and a Jacobian `dh/du` that is taken at the wrong place spoils the rank:
columns are multiplied by `1 - tanh(u)^2` over `1 - tanh(u + b)^2`, differently at each point. So the biases follow: the matrix of all
Jacobians, divided by `1 - tanh(u + b)^2`, must have low rank. Gauss-Newton on the part of the matrix outside of the spaces of its r
largest singular values converges quadratically. r may be too large, and is so at first: a layer that is narrower than r gives fewer
equations, but right ones. When b is right, a gap shows the rank.

Axes: P points, o outputs, H neurons.
"""

from __future__ import annotations

import torch

from extraction.derivatives.differences import gradients
from extraction.derivatives.questions import Questions
from extraction.derivatives.result import Lacking
from extraction.derivatives.subspace import rank_by_gap

BREADTH = 1.0  # the standard deviation of the weighted sums of the points
EQUATIONS = 4  # rows of Jacobians for each neuron
STEPS = 60
LARGEST_MOVE = 0.1
SETTLED = 1e-9


def settle(inner: Questions, precision: float) -> tuple[torch.Tensor, torch.Tensor]:
    """What is missing in the biases, `[H]`, and the row space of the next layer `[H, r]`, orthonormal.

    Args:
        inner: the network as a function of the weighted sums `[n, H]` of the layer, which are off by a constant.
        precision: of first differences.

    Raises:
        Lacking: the next layer is not narrower.
    """
    width = inner.inputs
    outputs = inner(torch.zeros(1, width, dtype=torch.float64, device=inner.device)).shape[1]
    points = BREADTH * inner.normal(-(-EQUATIONS * width // outputs), width)
    jacobians = gradients(inner, points, precision)
    offsets = torch.zeros_like(points[0])
    rank = width - max(1, width // 8)
    for _ in range(2):
        offsets = _fitted(jacobians, points, offsets, rank)
        matrix, _ = _corrected(jacobians, points, offsets)
        values, rows = torch.linalg.svd(matrix, full_matrices=False)[1:]
        rank, _ = rank_by_gap(values, precision)
        if rank >= width:
            raise Lacking("the second hidden layer is not narrower than the first, so that nothing shows the biases of the first")
    return offsets, rows[:rank].T.contiguous()


def _corrected(jacobians: torch.Tensor, points: torch.Tensor, offsets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The Jacobians by h, `[P o, H]`, and their derivatives by the offset of the same neuron."""
    hidden = torch.tanh(points + offsets)
    matrix = jacobians / (1 - hidden.square())[:, None]
    return matrix.flatten(0, 1), (matrix * (2 * hidden)[:, None]).flatten(0, 1)


def _fitted(jacobians: torch.Tensor, points: torch.Tensor, offsets: torch.Tensor, rank: int) -> torch.Tensor:
    """The offsets for which the rank is at most r."""
    eye = torch.eye(len(offsets), dtype=offsets.dtype, device=offsets.device)
    for _ in range(STEPS):
        matrix, slopes = _corrected(jacobians, points, offsets)
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        outside = eye - right[:rank].T @ right[:rank]
        slopes = slopes - left[:, :rank] @ (left[:, :rank].T @ slopes)
        normal = (slopes.T @ slopes) * outside
        move = torch.linalg.lstsq(normal, -(slopes * (matrix @ outside)).sum(0)[:, None], rcond=1e-12, driver="gelsd").solution[:, 0]
        offsets = offsets + move.clamp(-LARGEST_MOVE, LARGEST_MOVE)
        if float(move.abs().max()) < SETTLED:
            break
    return offsets

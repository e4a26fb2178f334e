"""The first layer in all inputs, one input at a time, when the rest of the network is known.

For a base point p with known weighted sums u of the first layer, `f(p + t e_i) = G(u + t w_i)`: an equation for the column w_i of the first
layer, with the same function G for every input i. Some base points have more equations than a column has elements, so that each column is a
small least-squares problem of its own, however many inputs there are. The steps t are as long as the network's scale: there is no
truncation error, and rounding errors are divided by a number of order 1. Gauss-Newton from a column that is right to 1e-6 takes two steps.

This is why nothing else here needs to be exact in all inputs: the rest is found, and polished, within the space that gradients span. A
fit of all 109,386 unknowns of 784-128-64-10 at once took 167 s; the columns of its first layer take two.

Axes: d inputs, H neurons, P base points, o outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from extraction.derivatives.questions import Questions
from extraction.network import Layers
from models import activation_functions
from models.activation_functions import value_and_slope

EQUATIONS, MORE = 2.0, 80  # for each unknown, and so many more
LENGTH = 0.8  # of a step, in units
STEPS = 4
SETTLED = 1e-15
CHUNK_VALUES = 2**24


@dataclass(frozen=True)
class Base:
    """Base points.

    Attributes:
        points: `[P, d]`.
        sums: the weighted sums of the first layer at them, `[P, H]`.
    """

    points: torch.Tensor
    sums: torch.Tensor


@torch.no_grad()
def columns(asked: Questions, base: Base, upper: Layers, start: torch.Tensor, step: float) -> torch.Tensor:
    """The weights of the first layer, `[H, d]`, without biases.

    Args:
        asked: the teacher in all inputs.
        base: base points.
        upper: the layers behind the first, the output layer last.
        start: the weights, nearly, `[H, d]`.
        step: t.
    """
    points, sums = base.points, base.sums
    moves = step * torch.eye(asked.inputs, dtype=points.dtype, device=points.device)
    answers = torch.stack([asked(point + moves) for point in points], 1)  # [d, P, o]
    found = start.T.clone()  # [d, H]
    for some in torch.arange(asked.inputs, device=points.device).split(max(1, CHUNK_VALUES // (answers[0].numel() * sums.shape[1]))):
        found[some] = _solved(upper, sums, answers[some], found[some], step)
    return found.T.contiguous()


def _solved(upper: Layers, sums: torch.Tensor, answers: torch.Tensor, found: torch.Tensor, step: float) -> torch.Tensor:
    """The columns `[some, H]` for answers `[some, P, o]`."""
    orthogonal = triangular = None
    for count in range(STEPS):
        values, jacobians = _outputs(upper, sums + step * found[:, None], with_jacobians=count == 0)
        if jacobians is not None:
            orthogonal, triangular = torch.linalg.qr(step * jacobians.flatten(1, 2))  # [some, P o, H]
        assert orthogonal is not None and triangular is not None
        residuals = (values - answers).flatten(1)[:, :, None]
        move = torch.linalg.solve_triangular(triangular, orthogonal.mT @ residuals, upper=True)[:, :, 0]
        found = found - move
        if float(move.abs().max()) <= SETTLED * float(found.abs().max()):
            break
    return found


def _outputs(upper: Layers, sums: torch.Tensor, with_jacobians: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The outputs `[..., o]` for weighted sums `[..., H]` of the first layer, and their derivatives by the sums, `[..., o, H]`."""
    activation = activation_functions.get(upper.act_fun)
    values, slopes = value_and_slope(activation, sums)
    jacobian = slopes[..., None, :]  # [..., 1, H], a diagonal matrix
    for depth, vectors in enumerate(upper.vectors):
        values = values @ vectors[:, :-1].T + vectors[:, -1]
        if with_jacobians:
            jacobian = vectors[:, :-1] * jacobian if depth == 0 else vectors[:, :-1] @ jacobian
        if depth < len(upper) - 1:
            values, slopes = value_and_slope(activation, values)
            jacobian = slopes[..., :, None] * jacobian if with_jacobians else jacobian
    return values, jacobian if with_jacobians else None

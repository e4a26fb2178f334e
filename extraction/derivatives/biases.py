"""The biases of a layer of tanh, and the width of the next layer, from a null space.

The answers are `f = G(tanh(u + b))`, and can be asked at any u, while b is unknown. Their Jacobian by u has the columns
`J_i = G_i / cosh(u_i + b_i)^2`, where the Jacobian G by the outputs of the layer has the rank r of the next layer's width. With
`2 cosh(u + b)^2 = cosh(2 u) cosh(2 b) + sinh(2 u) sinh(2 b) + 1`, each column of G is a mixture of three known ones:

    2 G_i = cosh(2 b_i) (J_i cosh(2 u_i)) + sinh(2 b_i) (J_i sinh(2 u_i)) + J_i

Where H neurons have a narrower layer behind them, there are H - r relations between the columns of G, and so as many null vectors of the
matrix of all `J_i cosh(2 u_i)`, `J_i sinh(2 u_i)` and `J_i`, stacked over points. Their parts that belong to neuron i are all proportional
to `cosh(2 b_i), sinh(2 b_i), 1`, which gives b_i: no start is needed, nothing is iterated, and the null space's dimension shows r by a gap.

Measured at 20-12-8-3: the gap is 8e-3 to 1e-7, and biases are right to 2e-7 with forward differences (4e-10 with central ones, which is not
needed). What lost: minimising the singular values beyond the rank by Gauss-Newton needs the rank and a start that is right to about 0.1.

Axes: P points, o outputs, H neurons.
"""

from __future__ import annotations

import torch

from extraction.derivatives.differences import gradients
from extraction.derivatives.questions import Questions
from extraction.derivatives.result import Lacking
from extraction.derivatives.subspace import rank_by_gap

BREADTH = 1.0  # the standard deviation of the weighted sums of the points
EQUATIONS = 4  # rows of Jacobians for each neuron, which has three columns
PROPORTIONAL = 0.1  # a larger second singular value of a neuron's part of the null vectors, as a share of the first: there is no such bias


def settle(inner: Questions, outputs: int, step: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The biases that are missing, `[H]`, and the row space of the next layer, `[H, r]`, orthonormal.

    Args:
        inner: the network by the weighted sums `[n, H]` of the layer, of which a constant is missing.
        outputs: o.
        step: of forward differences.

    Raises:
        Lacking: the next layer is not narrower.
    """
    width = inner.inputs
    points = BREADTH * inner.normal(-(-EQUATIONS * width // outputs), width)
    jacobians = gradients(inner, points, step)
    triples = torch.stack([torch.cosh(2 * points), torch.sinh(2 * points), torch.ones_like(points)])  # [3, P, H]
    matrix = (triples[:, :, None] * jacobians).flatten(1, 2)  # [3, P o, H]
    sizes = matrix.norm(dim=1)  # [3, H]
    values, vectors = torch.linalg.svd((matrix / sizes[:, None]).transpose(0, 1).flatten(1), full_matrices=False)[1:]
    rank, _ = rank_by_gap(values, step)
    if rank == len(values):
        raise Lacking("the second hidden layer is not narrower than the first, so that nothing shows the biases of the first")
    null = (vectors[rank:].unflatten(1, (3, width)) / sizes).permute(2, 1, 0)  # [H, 3, H - r]
    left, shares, _ = torch.linalg.svd(null, full_matrices=False)
    ambiguous = int((shares[:, 1] > PROPORTIONAL * shares[:, 0]).sum()) if shares.shape[1] > 1 else 0
    if ambiguous:
        raise Lacking(f"{ambiguous} of {width} biases of the first layer do not follow from the rank of its Jacobians")
    offsets = torch.atanh((left[:, 1, 0] / left[:, 0, 0]).clamp(-1 + 1e-12, 1 - 1e-12)) / 2
    corrected = (jacobians * torch.cosh(points + offsets).square()[:, None]).flatten(0, 1)
    rows = torch.linalg.svd(corrected, full_matrices=False)[2]
    return offsets, rows[: width - (len(values) - rank)].T.contiguous()

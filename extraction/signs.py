"""Which sign a neuron has, where the activation function leaves it open and it matters: relu, leaky_relu, softplus, gelu, silu.

There s(-x) = s(x) + slope x (`extraction/symmetry.py`), so that students may hold a neuron as its opposite, and leave a linear map of the
inputs to the rest of the network. Pure functions over tensors.

Axes: K neurons of a layer, D inputs with the bias last, Q queries, O outputs, L units of the next layer.
"""

from __future__ import annotations

import torch
from scipy.linalg import qr

from extraction.host import from_host, to_host
from extraction.network import fit_outputs_beside, least_squares
from extraction.symmetry import Symmetry, symmetries
from models import activation_functions
from models.mlp import with_ones

MOST_CHOICES = 16  # the largest number of signs that are tried together; the number of trials is two to this power


def resolve_signs(incoming: torch.Tensor, act_fun: str, queries: torch.Tensor, answers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Turns the neurons that the students hold as the opposite of the teacher's.

    A neuron with the wrong sign leaves the linear map `slope * w a'` behind. Fitted to the answers with the neurons and a free linear map T
    of the inputs, T is the sum of the maps of the wrong neurons: a linear least-squares problem for one fraction f for each neuron, which
    is near 1 for the wrong neurons and near 0 for the others.

    Args:
        incoming: `[K, D]`.
        act_fun: the name of s.
        queries: the inputs of the layer, `[Q, D - 1]`.
        answers: `[Q, O]`.

    Returns:
        The incoming vectors with the right signs `[K, D]`, and the fractions `[K]` (0 where signs do not matter).
    """
    slope = symmetries[act_fun].slope
    if slope == 0:
        return incoming, incoming.new_zeros(len(incoming))
    features = activation_functions.get(act_fun)(with_ones(queries) @ incoming.T)
    weights = fit_outputs_beside(features, queries, answers)
    outgoing, linear = weights[: len(incoming)], weights[len(incoming) : -1]
    left_behind = slope * torch.einsum("kd,ko->dok", incoming[:, :-1], outgoing).flatten(0, 1)
    fractions = least_squares(left_behind, linear.flatten()[:, None])[:, 0]
    return torch.where(fractions[:, None] > 0.5, -incoming, incoming), fractions


def sign_invariant_features(act_fun: str, pre_activations: torch.Tensor) -> torch.Tensor:
    """What the next layer can be built on while the signs of this layer are open: functions that span s(u) and s(-u).

    These are s(u) itself where its sign does not matter. Elsewhere they are the even part s(u) + slope u / 2, and u: s(u) and s(-u) are the
    even part plus and minus slope u / 2. Where u is so small that s is nearly linear, s(u) and s(-u) are nearly mirror images, and the rest
    is hard to learn; the even part and u are nearly uncorrelated. Given s(u) and s(-u) instead, students of softplus and silu with two
    layers of twelve were lost at the learning rate of the others.

    Args:
        act_fun: the name of s.
        pre_activations: u, `[Q, K]`.

    Returns:
        `[Q, K]`, or `[Q, 2 K]`.
    """
    slope, activations = symmetries[act_fun].slope, activation_functions.get(act_fun)(pre_activations)
    return activations if slope == 0 else torch.cat([activations + slope / 2 * pre_activations, pre_activations], 1)


def settle_signs(
    incoming: torch.Tensor, following: torch.Tensor, spread: torch.Tensor, symmetry: Symmetry
) -> tuple[torch.Tensor, torch.Tensor]:
    """The signs of a layer, from the weights that the next layer has over its sign-invariant features.

    Nothing is open where the next layer is built on the activations themselves.

    Args:
        incoming: of the layer with open signs, `[K, D]`.
        following: of the next layer, over even parts, linear parts and the bias, `[L, 2 K + 1]`, or activations and the bias, `[L, K + 1]`.
        spread: the standard deviation of each feature over the queries, `[2 K]` or `[K]`.
        symmetry: of the activation function.

    Returns:
        The incoming vectors with the right signs `[K, D]`, and those of the next layer over their activations `[L, K + 1]`.
    """
    if following.shape[1] == len(incoming) + 1:
        return incoming, following
    even, linear, bias = following.split([len(incoming), len(incoming), 1], 1)
    linear = -2 / symmetry.slope * linear
    wrong = (even * linear).sum(0) < 0
    linear = torch.where(wrong, -linear, linear)
    share = spread[: len(incoming)].square(), (symmetry.slope / 2 * spread[len(incoming) :]).square()
    weights = (share[0] * even + share[1] * linear) / (share[0] + share[1])
    return torch.where(wrong[:, None], -incoming, incoming), torch.cat([weights, bias], 1)


def has_joint_sign_flip(incoming: torch.Tensor, following: torch.Tensor, tolerance: float) -> bool:
    """Whether some neurons of a layer can be turned to their opposites together without a change of the function.

    An example are those of relu(x + 1) - relu(x). Turning neurons leaves the sum of their `slope * a w'` behind, and a constant, which the
    next bias can absorb where that sum is zero. This asks for a vector of zeros and ones in the null space of the matrix with a column
    `a (x) w` for each neuron. Once n of its values are known, n the dimension of that space, all are: there are 2^n - 1 to try. The answer
    is yes where there are too many to try.

    Args:
        incoming: `[K, D]`.
        following: the next layer's incoming vectors, `[L, K + 1]`.
        tolerance: the relative length of the sum below which it counts as zero.
    """
    weights, outgoing = incoming[:, :-1], following[:, :-1].T
    gram = (weights @ weights.T) * (outgoing @ outgoing.T)
    lengths = gram.diagonal().sqrt().clamp_min(torch.finfo(gram.dtype).tiny)
    eigenvalues, directions = torch.linalg.eigh(gram / lengths[:, None] / lengths)
    null = directions[:, eigenvalues <= len(gram) * tolerance**2]
    count = null.shape[1]
    if count == 0 or count > MOST_CHOICES:
        return count > 0
    _, pivots = qr(to_host(null).T, mode="r", pivoting=True)  # pyright: ignore[reportAssignmentType]
    places = from_host(pivots[:count], null).long()
    choices = (torch.arange(1, 2**count)[:, None] >> torch.arange(count) & 1).to(gram)
    turned = null @ torch.linalg.solve(null[places], (choices * lengths[places]).T)
    turned = (turned / lengths[:, None]).round().clamp(0, 1)
    left_behind = (turned * (gram @ turned)).sum(0)
    return bool((left_behind <= tolerance**2 * (gram.diagonal() @ turned)).any())


def all_signs(count: int, like: torch.Tensor) -> torch.Tensor:
    """All choices of so many signs, `[2^count, count]`; in the first half of them the last sign is 1."""
    return 1.0 - 2.0 * (torch.arange(2**count)[:, None] >> torch.arange(count) & 1).to(like)


def with_signs(maps: torch.Tensor, linear: torch.Tensor) -> torch.Tensor:
    """One factor with the signs that give a linear map best, `[M]`: all signs are tried, where least squares do not determine the factors.

    Args:
        maps: of the kinks, `[L D, M]`.
        linear: the linear map, `[L D]`.
    """
    count = maps.shape[1]
    signs = all_signs(count, maps)[: 2 ** (count - 1)]
    sums = signs @ maps.T
    factors = (sums @ linear) / sums.square().sum(1)
    best = int((factors[:, None] * sums - linear).norm(dim=1).argmin())
    return factors[best] * signs[best]

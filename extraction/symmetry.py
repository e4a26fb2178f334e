"""The symmetries of activation functions: what the outputs of a network leave open in a neuron.

A neuron is an incoming vector (w; b) and an outgoing vector a; it adds a s(w.x + b). For most activations s there are constants with
`s(-x) = parity * s(x) + constant + slope * x`, so that the opposite vector adds the same up to a constant and a linear term. Where
`s(cx) = c s(x)` for c > 0, the length of (w; b) can move to a.

Axes: K neurons, D inputs and the bias (so D + 1 is written `D`), O units of the next layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from models.slopes import LEAKY_SLOPE, slope_of


@dataclass(frozen=True)
class Symmetry:
    """A class of activation functions, by `s(-x) = parity * s(x) + constant + slope * x`; parity 0 where there is no such relation."""

    name: str
    parity: int = 0
    constant: float = 0.0
    slope: float = 0.0
    positive_scaling: bool = False

    @property
    def opposite_looks_alike(self) -> bool:
        """Whether students may contain a neuron as its opposite, and compensate by constants and linear terms."""
        return self.parity != 0

    @property
    def opposite_is_equal(self) -> bool:
        """Whether the sign of a neuron is free: the next layer alone can compensate it."""
        return self.parity != 0 and self.slope == 0


class Symmetries(dict[str, Symmetry]):
    """The symmetry of each activation function; those of the table, and leaky_relu with any slope."""

    def __missing__(self, name: str) -> Symmetry:
        slope = slope_of(name)
        if slope is None:
            raise KeyError(name)
        return kinked(slope)


def kinked(slope: float) -> Symmetry:
    """The symmetry of x above 0 and `slope * x` below."""
    return Symmetry("even_linear_positive_scaling", parity=1, slope=-1.0 - slope, positive_scaling=True)


symmetries = Symmetries(
    relu=kinked(0.0),
    leaky_relu=kinked(LEAKY_SLOPE),
    tanh=Symmetry("odd", parity=-1),
    identity=Symmetry("odd", parity=-1),
    sigmoid=Symmetry("odd_constant", parity=-1, constant=1.0),
    softplus=Symmetry("even_linear", parity=1, slope=-1.0),
    gelu=Symmetry("even_linear", parity=1, slope=-1.0),
    silu=Symmetry("even_linear", parity=1, slope=-1.0),
    g=Symmetry("none"),
)


def canonical(vectors: torch.Tensor, symmetry: Symmetry) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors of comparable length, and the factors that restore the original ones.

    Vectors get unit length where scaling is free. Elsewhere all are divided by their median length, which keeps their proportions. Signs do
    not change: `clustering.distances` compares vectors up to sign where the sign is free, so that no choice of signs can split a cluster.

    Args:
        vectors: `[K, D]`.

    Returns:
        The canonical vectors `[K, D]` and the factors `[K, 1]`: `vectors = factors * canonical`.
    """
    factors = vectors.norm(dim=1, keepdim=True).clamp_min(torch.finfo(vectors.dtype).tiny)
    if not symmetry.positive_scaling:
        factors = factors.median().expand_as(factors)
    return vectors / factors, factors


def transform(
    symmetry: Symmetry, incoming: torch.Tensor, outgoing: torch.Tensor, bias: torch.Tensor, factors: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same function with each neuron's incoming vector multiplied by a factor, and the next layer adapted.

    Args:
        symmetry: of the activation function. Factors must be positive unless `opposite_is_equal`, and 1 or -1 unless `positive_scaling`.
        incoming: `[K, D]`.
        outgoing: `[K, O]`.
        bias: the bias of the next layer, `[O]`.
        factors: `[K]`.

    Returns:
        The new incoming vectors, outgoing vectors and bias.
    """
    flipped = factors < 0
    inverse = torch.where(flipped, float(symmetry.parity), 1.0).to(incoming) / factors.abs()
    return incoming * factors[:, None], outgoing * inverse[:, None], bias + symmetry.constant * outgoing[flipped].sum(0)

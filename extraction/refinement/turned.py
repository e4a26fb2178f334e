"""Units that are active for every query, and stand for the wrong signs of others of their layer.

A relu unit may be recovered with the opposite sign: `max(0, z) = max(0, -z) + z`, and a unit that never switches carries the linear map z.
In the last hidden layer least squares over all queries settle signs; in a deeper layer the network gives all answers with the unit in
excess, and other answers where the unit switches. A unit has the wrong sign where its incoming weights are within the span of those that
never switch. Then its outgoing weights follow from their linear map, the units that never switch are left out, and the function is the
same.

Axes: K units of a layer, D inputs of it with the bias last, L units of the layer behind it, Q queries.
"""

from __future__ import annotations

import dataclasses

import torch

from extraction.fitting import fit_or_none, is_exact
from extraction.network import Layers
from extraction.refinement.selection import Candidate
from extraction.session import Session

WITHIN = 1e-6  # the largest part of unit vectors outside a space that counts as rounding


def with_turned_units(session: Session, best: Candidate, location: str) -> Candidate:
    """A network that gives the answers, without units that stand for the signs of others, where it still gives them.

    Args:
        session: the extraction.
        best: the network.
        location: the path that the folder of the fit begins with.
    """
    recovered, fitted = best
    if not is_exact(fitted.network, session.loaders.train):
        return best
    layers = turned(Layers.of(fitted.network), session.queries)
    if layers is None:
        return best
    again = fit_or_none(session, layers, location)
    if again is None or not is_exact(again.network, session.loaders.train):
        return best
    return recovered, dataclasses.replace(again, before=fitted.before)


@torch.no_grad()
def turned(layers: Layers, queries: torch.Tensor) -> Layers | None:
    """The layers with such units turned and left out, for queries `[Q, inputs]`; None where there are none."""
    if not layers.symmetry.positive_scaling:
        return None
    start = layers
    for depth in range(1, len(layers)):
        is_linear = (layers.replace(*layers.vectors[:depth]).pre_activations(queries) > 0).all(0)
        pair = _turned(layers.vectors[depth - 1], layers.vectors[depth], is_linear, -layers.symmetry.slope) if is_linear.any() else None
        if pair is not None:
            layers = layers.replace(*layers.vectors[: depth - 1], *pair, *layers.vectors[depth + 1 :])
    return layers if layers is not start else None


def _turned(layer: torch.Tensor, following: torch.Tensor, is_linear: torch.Tensor, jump: float) -> tuple[torch.Tensor, torch.Tensor] | None:
    """A layer and the one behind it, where some units are linear; None where they do not stand for signs of others.

    Args:
        layer: `[K, D]`.
        following: `[L, K + 1]`.
        is_linear: `[K]`.
        jump: the sum of the slopes of the activation function on both sides of 0: 1 for relu.
    """
    weights, outgoing, bias = layer[:, :-1], following[:, :-1], following[:, -1]
    lengths = weights.norm(dim=1, keepdim=True)
    _, sizes, space = torch.linalg.svd((weights / lengths)[is_linear], full_matrices=False)
    space = space[sizes > WITHIN * sizes[0]]
    outside = weights / lengths - (weights / lengths) @ space.T @ space
    wrong = ((outside.norm(dim=1) < WITHIN) & ~is_linear).nonzero()[:, 0]
    if len(wrong) != len(space):  # the map is that of other units, which never switch, or of none
        return None
    linear = outgoing[:, is_linear] @ weights[is_linear]  # [L, D - 1]
    moved = -linear @ torch.linalg.pinv(weights[wrong])  # [L, turned]: of the linear parts `moved z` that are taken away
    bias = bias + outgoing[:, is_linear] @ layer[is_linear, -1] + moved @ layer[wrong, -1]
    layer, outgoing = layer.clone(), outgoing.clone()
    layer[wrong], outgoing[:, wrong] = -layer[wrong], moved / jump
    return layer[~is_linear], torch.cat([outgoing[:, ~is_linear], bias[:, None]], 1)

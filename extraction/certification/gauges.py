"""Directions in the space of all weights that leave a network's function as it is, to first order.

Axes: P parameters of the network, K neurons of a layer, D inputs of a layer with the bias last.
"""

from __future__ import annotations

import torch

from extraction.symmetry import Symmetry
from models.mlp import FullyConnected


def free_directions(network: FullyConnected, symmetry: Symmetry, slopes: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """What fixes a choice among networks of the same function, and how weights move along it: two tensors `[directions, P]`.

    Neurons that can be scaled have their length for the first and their scale for the second. Units that never switch can be mixed,
    `W' = G W` and `A' = A G^-1`, and their biases can be shifted, which the next bias makes good for.

    Args:
        network: the network.
        symmetry: of its activation function.
        slopes: of its linear units, see `linear.linear_slopes`.
    """
    scalings, mixtures = scaling_directions(network, symmetry), linear_directions(network, symmetry, slopes)
    return torch.cat([scalings[0], mixtures[0]]), torch.cat([scalings[1], mixtures[1]])


def free_count(network: FullyConnected, symmetry: Symmetry, slopes: list[torch.Tensor]) -> int:
    """The number of directions that `free_directions` returns, without forming them."""
    scaled = sum(network.sizes[1:-1]) if symmetry.positive_scaling else 0
    linear = [int((slope != 0).sum()) for slope in slopes]
    return scaled + sum(units + units * (units - 1 if symmetry.positive_scaling else units) for units in linear)


def scaling_directions(network: FullyConnected, symmetry: Symmetry) -> tuple[torch.Tensor, torch.Tensor]:
    """How scaling a neuron moves its length and the weights: two tensors `[neurons, P]`, without rows where neurons cannot be scaled.

    The first holds the derivatives of each neuron's log length by the weights, the second those of the weights by the scale, which leave
    the function as it is.
    """
    vectors = network.layer_vectors()
    lengthwise: list[torch.Tensor] = []
    scalings: list[torch.Tensor] = []
    for depth, layer in enumerate(vectors[:-1] if symmetry.positive_scaling else []):
        for neuron, incoming in enumerate(layer):
            changes = [torch.zeros_like(each) for each in vectors]
            changes[depth][neuron] = incoming / incoming.square().sum()
            lengthwise.append(as_parameters(changes))
            changes[depth][neuron] = incoming
            changes[depth + 1][:, neuron] = -vectors[depth + 1][:, neuron]
            scalings.append(as_parameters(changes))
    return _stacked(lengthwise, vectors), _stacked(scalings, vectors)


def linear_directions(network: FullyConnected, symmetry: Symmetry, slopes: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for units that never switch, without their scalings where neurons can be scaled anyway; for the arguments see above."""
    vectors = network.layer_vectors()
    fixed: list[torch.Tensor] = []
    moves: list[torch.Tensor] = []
    for depth, slope in enumerate(slopes):
        layer, following = vectors[depth : depth + 2]
        units = torch.nonzero(slope)[:, 0].tolist()
        for unit in units:
            fix, move = ([torch.zeros_like(each) for each in vectors] for _ in range(2))
            fix[depth][unit, -1] = move[depth][unit, -1] = 1.0
            move[depth + 1][:, -1] = -slope[unit] * following[:, unit]
            fixed.append(as_parameters(fix))
            moves.append(as_parameters(move))
            for other in units:
                if unit != other or not symmetry.positive_scaling:
                    fix, move = ([torch.zeros_like(each) for each in vectors] for _ in range(2))
                    fix[depth][unit, :-1] = layer[other, :-1]
                    move[depth][unit] = layer[other]
                    move[depth + 1][:, other] = -slope[unit] / slope[other] * following[:, unit]
                    fixed.append(as_parameters(fix))
                    moves.append(as_parameters(move))
    return _stacked(fixed, vectors), _stacked(moves, vectors)


def as_parameters(vectors: list[torch.Tensor]) -> torch.Tensor:
    """Values for incoming vectors, `[K, D]` for each layer, in the order of the parameters, `[P]`."""
    return torch.cat([part.flatten() for each in vectors for part in (each[:, :-1], each[:, -1])])


def _stacked(rows: list[torch.Tensor], vectors: list[torch.Tensor]) -> torch.Tensor:
    """Rows as a tensor, `[rows, P]`, for a network with these vectors."""
    return torch.stack(rows) if rows else vectors[0].new_zeros(0, sum(each.numel() for each in vectors))

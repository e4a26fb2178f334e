"""A fitted network without the neurons that it does not need: dead neurons, twins, and those that the others can replace.

Axes: K neurons of a layer, D inputs with the bias last, Q queries, L units of the next layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from extraction.clustering import distances
from extraction.network import Layers, contributions, fit_outputs, some_of
from extraction.symmetry import Symmetry, canonical, transform
from models.mlp import FullyConnected, with_ones

TWIN_DISTANCE = 1e-2  # canonical distance below which two neurons of a fitted network are one
FLAT = 1e-13  # an eigenvalue below this share of the largest is rounding
DEAD_CONTRIBUTION = 1e-6  # share of the largest contribution below which a neuron of a fitted network does nothing


@dataclass(frozen=True)
class Removal:
    """A network without one of its neurons.

    Attributes:
        loss: the root mean square change of the next layer, as a share of the spread of its pre-activations.
        layers: the layers that are left.
        depth: the hidden layer of the neuron, counted from 1.
        neuron: its place in the layer.
    """

    loss: float
    layers: Layers
    depth: int
    neuron: int


def simplified(network: FullyConnected, queries: torch.Tensor) -> Layers | None:
    """The layers of a fitted network without dead neurons and twins; None where it has none.

    Args:
        network: in float64.
        queries: `[Q, inputs]`.
    """
    vectors, changed = network.layer_vectors(), False
    symmetry = Layers.of(network).symmetry
    for depth in range(1, len(vectors)):
        merged = merge(vectors[depth - 1], vectors[depth], contributions(network, depth, queries), symmetry)
        if merged is not None:
            (vectors[depth - 1], vectors[depth]), changed = merged, True
    return Layers(tuple(vectors), network.act_fun) if changed else None


@torch.no_grad()
def removals(network: FullyConnected, queries: torch.Tensor) -> list[Removal]:
    """A network without each of its neurons in turn, the others refitted to replace it.

    Args:
        network: in float64.
        queries: `[Q, inputs]`.

    Returns:
        One removal for each neuron of each hidden layer with two neurons or more; those that lose least come first.
    """
    layers, candidates = Layers.of(network), []
    for depth in range(1, len(layers)):
        width = layers.sizes[depth]
        activations = network.activations(some_of(queries), depth)
        for neuron in range(width if width > 1 else 0):
            following, loss = refit_without_neuron(activations, layers.vectors[depth], neuron)
            candidates.append(Removal(loss, layers.without_neuron(depth, neuron, following), depth, neuron))
    return sorted(candidates, key=lambda removal: removal.loss)


@torch.no_grad()
def least_losses_without(layers: Layers, queries: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """The loss that a network must have without each neuron of its last hidden layer, whatever the signs of the others.

    A neuron and its opposite differ by a linear map of the layer's inputs x, up to a factor. So no choice of signs does better than least
    squares over the other neurons and x. Without column k of a matrix F, the squares left by least squares rise by `b^2 / (F'F)^-1[k, k]`,
    b the coefficient of that column: one factorisation serves all neurons.

    Args:
        layers: the output layer last; the activation functions are such that signs are open.
        queries: `[Q, inputs]`.
        answers: `[Q, O]`.

    Returns:
        The mean squared error of each output over its variance, averaged over the outputs, at least, `[K]`.
    """
    inputs = layers.replace(*layers.vectors[:-2]).activations(queries)
    activations = layers.all_but_last.activations(queries)
    inputs, activations, wanted = (each - each.mean(0) for each in (inputs, activations, answers))
    values, directions = torch.linalg.eigh(inputs.T @ inputs)
    inverse = torch.where(values > FLAT * values.max(), 1 / values, 0.0)
    own = activations - inputs @ (directions @ (inverse[:, None] * (directions.T @ (inputs.T @ activations))))
    lengths = own.norm(dim=0).clamp_min(torch.finfo(own.dtype).tiny)
    own = own / lengths
    values, directions = torch.linalg.eigh(own.T @ own)
    inverse = (directions / values.clamp_min(FLAT)) @ directions.T
    rise = (inverse @ (own.T @ wanted)).square() / inverse.diagonal()[:, None]
    return (rise / wanted.square().sum(0).clamp_min(torch.finfo(own.dtype).tiny)).mean(1)


@torch.no_grad()
def merged_where_equally_active(layers: Layers, queries: torch.Tensor) -> Layers | None:
    """The layers with one neuron for all neurons of a layer that are active for the same queries; None where there are no such neurons.

    Where activations are linear on each side of a kink, neurons that are active for the same queries add a linear map there. A map of rank
    one is a single neuron. Two relu neurons whose kinks no query separates gave every answer exactly, 0.8 degrees from the teacher's one.

    Args:
        layers: of a network, the output layer last.
        queries: `[Q, inputs]`.
    """
    vectors, changed = list(layers.vectors), False
    for depth in range(1, len(vectors) if layers.symmetry.positive_scaling else 0):
        active = (layers.replace(*vectors[:depth]).pre_activations(queries) > 0).T
        incoming, outgoing, gone = vectors[depth - 1].clone(), vectors[depth][:, :-1].T.clone(), set()
        for first in range(len(incoming)):
            same = [other for other in range(first + 1, len(incoming)) if other not in gone and torch.equal(active[first], active[other])]
            if first not in gone and same and active[first].any() and not active[first].all():
                together = [first, *same]
                left, size, right = torch.linalg.svd(outgoing[together].T @ incoming[together])
                sign = torch.sign(right[0] @ incoming[first])
                incoming[first], outgoing[first] = sign * right[0], sign * size[0] * left[:, 0]
                gone.update(same)
        kept = [neuron for neuron in range(len(incoming)) if neuron not in gone]
        changed = changed or bool(gone)
        vectors[depth - 1], vectors[depth] = incoming[kept], torch.cat([outgoing[kept].T, vectors[depth][:, -1:]], 1)
    return layers.replace(*vectors) if changed else None


def merge(
    incoming: torch.Tensor, following: torch.Tensor, contribution: torch.Tensor, symmetry: Symmetry
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """A layer of a fitted network without its dead neurons and twins; None where it has none.

    A torn cluster gives a neuron twice. The fit does not suffer, and shows it: the copies coincide up to the symmetry. The first copy takes
    over what the others give to the next layer.

    Args:
        incoming: `[K, D]`.
        following: the next layer's incoming vectors, `[L, K + 1]`.
        contribution: of each neuron, `[K]`.
        symmetry: of the activation function.

    Returns:
        The incoming vectors of the remaining neurons, and those of the next layer over them.
    """
    alive = contribution > DEAD_CONTRIBUTION * contribution.max()
    vectors, _ = canonical(incoming, symmetry)
    twins = torch.triu(distances(vectors, symmetry.opposite_is_equal) < TWIN_DISTANCE, diagonal=1) & alive[:, None]
    kept = alive & ~twins.any(0)
    if bool(kept.all()):
        return None
    outgoing, bias = following[:, :-1].T.clone(), following[:, -1]
    for twin in torch.nonzero(twins.any(0) & alive)[:, 0].tolist():
        first = int(torch.nonzero(twins[:, twin])[0])
        sign = torch.sign(incoming[[twin]] @ incoming[first]) if symmetry.opposite_is_equal else outgoing.new_ones(1)
        scale = incoming[first].norm() / incoming[twin].norm() if symmetry.positive_scaling else outgoing.new_ones(1)
        _, taken, bias = transform(symmetry, incoming[[twin]], outgoing[[twin]], bias, sign * scale)
        outgoing[first] += taken[0]
    return incoming[kept], torch.cat([outgoing[kept].T, bias[:, None]], 1)


def refit_without_neuron(activations: torch.Tensor, following: torch.Tensor, neuron: int) -> tuple[torch.Tensor, float]:
    """The next layer, fitted by least squares over all neurons but one.

    Args:
        activations: of the layer, `[Q, K]`.
        following: the next layer's incoming vectors, `[L, K + 1]`.
        neuron: the place of the neuron that is left out.

    Returns:
        The next layer's vectors over the others, `[L, K]`, and the root mean square change of its pre-activations, as a share of their
        spread.
    """
    wanted = with_ones(activations) @ following.T
    others = torch.cat([activations[:, :neuron], activations[:, neuron + 1 :]], 1)
    fitted = fit_outputs(others, wanted)
    lost = (with_ones(others) @ fitted - wanted).square().mean().sqrt() / (wanted - wanted.mean(0)).square().mean().sqrt()
    return fitted.T, float(lost)

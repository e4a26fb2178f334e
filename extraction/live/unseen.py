"""Relu neurons that only few queries activate, in closed form from the errors of a network that lacks them.

A network that is right but for one relu neuron has errors only where this neuron is active, and there they are linear: with the
activations h below the neuron and the derivatives J of the outputs by the pre-activations of the layer behind it, the error of an answer is
`J v (w h + b)`. Least squares over queries of one linear piece give the matrix `v (w, b)`, which has rank one; that shows the layer of the
neuron, its weights and its side. No start is drawn, and nothing climbs: 64 ascents from random neurons found none that 20 of 5,600 queries
of a digits network activate.

Axes: Q queries with errors, C columns of queries, O outputs, K units of the layer behind a neuron, D inputs of its layer with the bias
last.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from extraction.live.box import Box
from extraction.network import Layers
from models.mlp import with_ones

MOST = 4  # neurons that are added
SEEDS = 8  # queries from whose neighbours a neuron is sought
SAME = 1e-6  # the largest residual of a linear piece, as a share of its errors
RANK_ONE = 1e-3  # the largest second singular value, as a share of the first
CUTOFF = 1e-8  # singular values of the equations below this share of the largest are rounding
CLEAR = 1e-3  # errors below this share of the largest are not clear of rounding
CENTRES, NEIGHBOURS = 2, 3  # queries with errors that others are asked close to, and of so many of the smallest errors one
CLOSE, SPARE = 1e-5, 10  # the distance as a share of the box, and queries beyond the number of inputs
LARGEST = 1500  # unknowns of a matrix
EXPLAINED = 1e-2  # an answer is explained where its error falls to this share


@dataclass(frozen=True)
class _Errors:
    """Queries `[Q, C]` that a network does not give, and what it lacks of their answers, `[Q, O]`."""

    queries: torch.Tensor
    missing: torch.Tensor

    def some(self, which: torch.Tensor) -> _Errors:
        """A part of them."""
        return _Errors(self.queries[which], self.missing[which])

    @property
    def sizes(self) -> torch.Tensor:
        """Their sizes, `[Q]`."""
        return self.missing.norm(dim=1)


@torch.no_grad()
def with_unseen(layers: Layers, queries: torch.Tensor, answers: torch.Tensor, limit: float) -> Layers | None:
    """A relu network with the neurons that explain its errors; None where no neuron does.

    Args:
        layers: the network, right but for these neurons.
        queries: all, `[Q, C]`.
        answers: to them, `[Q, O]`.
        limit: the size of an error, above which the network does not give an answer.
    """
    if not layers.symmetry.positive_scaling or layers.symmetry.slope != -1:
        return None
    start = layers
    for _ in range(MOST):
        missing = answers - layers.pre_activations(queries)
        is_wrong = missing.norm(dim=1) > limit
        found = _best(layers, _Errors(queries[is_wrong], missing[is_wrong]), (queries[~is_wrong], limit)) if is_wrong.any() else None
        if found is None:
            break
        layers = found
    return layers if layers is not start else None


def _best(layers: Layers, errors: _Errors, others: tuple[torch.Tensor, float]) -> Layers | None:
    """The network with the neuron that explains most errors, less those that it makes; in the highest layer where several do.

    Args:
        layers: the network.
        errors: of it.
        others: queries `[N, C]` that it gives, and the size of an error.
    """
    best, most = None, 0
    right, limit = others
    before, given = (layers.pre_activations(queries) for queries in (errors.queries, right))
    for seed in _seeds(errors):
        order = (errors.queries - errors.queries[seed]).norm(dim=1).argsort()
        for depth in range(len(layers) - 1, 0, -1):
            trial = _with_neuron_at(layers, depth, errors.some(order))
            if trial is None:
                continue
            left = (errors.missing - trial.pre_activations(errors.queries) + before).norm(dim=1)
            explained = int((left <= EXPLAINED * errors.sizes).sum())
            explained -= int(((trial.pre_activations(right) - given).norm(dim=1) > limit).sum())
            if explained > most:
                best, most = trial, explained
        if most == len(errors.queries):
            break
    return best


def _seeds(errors: _Errors) -> list[int]:
    """The places of some queries, those with small errors first: there, the neuron does not yet switch others in the layers behind it."""
    order = errors.sizes.argsort()
    order = order[errors.sizes[order] > CLEAR * errors.sizes.max()]
    return order[:: -(-len(order) // SEEDS)].tolist()


def clouds(errors_at: torch.Tensor, sizes: torch.Tensor, box: Box, generator: torch.Generator) -> torch.Tensor:
    """Queries close to CENTRES of those with errors, `[N, C]`: of one linear piece each, and enough of them to show it.

    Args:
        errors_at: queries that a network does not give, `[Q, C]`.
        sizes: of the errors, `[Q]`.
        box: the bounds of queries.
        generator: of random numbers.
    """
    order = sizes.argsort()
    order = order[sizes[order] > CLEAR * sizes.max()]
    centres = errors_at[order[: CENTRES * NEIGHBOURS : NEIGHBOURS]]
    count = errors_at.shape[1] + SPARE
    moves = torch.randn(len(centres), count, errors_at.shape[1], generator=generator, dtype=torch.float64).to(errors_at)
    return (centres[:, None] + CLOSE * (box.high - box.low) * moves).flatten(0, 1).clamp(box.low, box.high)


def _with_neuron_at(layers: Layers, depth: int, errors: _Errors) -> Layers | None:
    """The network with one neuron more in a hidden layer, from the first of some errors and as many after it as are of one linear piece."""
    below = layers.replace(*layers.vectors[: depth - 1])
    width, found = layers.vectors[depth - 1].shape[1], None
    count = width + SPARE // 2
    while found is None or count < 2 * len(errors.queries):
        part = errors.some(torch.arange(min(count, len(errors.queries)), device=errors.queries.device))
        inputs = with_ones(below.activations(part.queries))
        product = _product(layers, depth, part, inputs)
        neuron = None if product is None else _factors(product, inputs)
        if neuron is None:
            break
        found, count = neuron, 2 * count
    if found is None:
        return None
    layer, following = layers.vectors[depth - 1 : depth + 1]
    layer, following = torch.cat([layer, found[0][None]]), torch.cat([following[:, :-1], found[1][:, None], following[:, -1:]], 1)
    return layers.replace(*layers.vectors[: depth - 1], layer, following, *layers.vectors[depth + 1 :])


def _product(layers: Layers, depth: int, errors: _Errors, inputs: torch.Tensor) -> torch.Tensor | None:
    """The matrix `v (w, b)`, `[K, D]`, of a neuron in a hidden layer with inputs `[Q, D]`; None where none or any gives the errors."""
    units, outputs = len(layers.vectors[depth]), errors.missing.shape[1]
    if depth == len(layers) - 1:
        equations, target, free = inputs, errors.missing, 1
    elif units * inputs.shape[1] > LARGEST:
        return None
    else:
        equations = torch.einsum("qok,qd->qokd", _derivatives(layers, depth, errors.queries), inputs).flatten(0, 1).flatten(1)
        target, free = errors.missing.reshape(-1, 1), outputs
    left, sizes, right = torch.linalg.svd(equations, full_matrices=False)
    kept = sizes > CUTOFF * sizes[0]
    if not bool(kept[:1].any()) or int(kept.sum()) > len(target) - free:
        return None
    solution = right[kept].T @ ((left[:, kept].T @ target) / sizes[kept, None])
    if (equations @ solution - target).norm() > SAME * target.norm():
        return None
    return solution.T if depth == len(layers) - 1 else solution.view(units, inputs.shape[1])


def _derivatives(layers: Layers, depth: int, queries: torch.Tensor) -> torch.Tensor:
    """The derivatives of the outputs by the pre-activations of the layer behind hidden layer `depth`, `[Q, O, K]`."""
    outputs = layers.sizes[-1]
    result = torch.eye(outputs, dtype=queries.dtype, device=queries.device).expand(len(queries), -1, -1)
    for behind in range(len(layers) - 1, depth, -1):
        is_active = layers.replace(*layers.vectors[:behind]).pre_activations(queries) > 0
        result = (result @ layers.vectors[behind][:, :-1]) * is_active[:, None]
    return result


def _factors(product: torch.Tensor, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The incoming vector `[D]` and the outgoing weights `[K]` of a neuron that is active at inputs `[Q, D]`; None where it is not one."""
    left, sizes, right = torch.linalg.svd(product)
    if len(sizes) > 1 and sizes[1] > RANK_ONE * sizes[0]:
        return None
    sums = inputs @ right[0]
    if not (bool((sums > 0).all()) or bool((sums < 0).all())):
        return None
    sign = sums[0].sign()
    length = sizes[0].sqrt()
    return sign * length * right[0], sign * length * left[:, 0]

"""How exactly answers with errors determine the weights of a network, and whether what the network leaves of them is noise.

Axes: Q queries, P parameters of the network, O outputs, K neurons of a layer, D inputs of a layer with the bias last.
"""

from __future__ import annotations

import copy
import io
import math
import os
from statistics import NormalDist
from typing import Any

import numpy as np
import torch

from datasets.base import DataLoader
from extraction.answers import SPILLED, spreads
from extraction.certification.gauges import as_parameters, free_directions
from extraction.host import to_host
from extraction.linear import linear_slopes
from extraction.network import Layers, unknowns_of
from extraction.preparation.probabilities import Probabilities
from extraction.symmetry import Symmetry
from foundations.seeds import derive
from models.mlp import FullyConnected, with_ones
from platforms.platform import get_platform
from training.least_squares import CHUNK_VALUES, curvature, unit_curvature

CONFIDENCE = 0.95
FILE = "standard_errors.npz"
INVOLVED = 1e-6  # squared share of a weight in the combinations that the answers leave open
KNOTS = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)  # quantiles of a neuron's pre-activations at which residuals may bend
RANDOM_FEATURES = 40
GRAIN = 1e-3  # outputs that differ by less than this share of the errors of the answers are the same
AVERAGED = 500.0  # queries over which errors of arithmetic average out
ROUNDINGS, UNITS = 8, 4.0  # networks that compute in the format of the answers, and by how many units of rounding their weights differ
MOST_FEATURES, QUERIES_PER_FEATURE = 600, 8


@torch.no_grad()
def noise_of(network: FullyConnected | Probabilities, loader: DataLoader, unknowns: int) -> torch.Tensor:
    """The standard deviation of the answers' errors that the residuals of a least-squares fit show, `[O]`.

    Every unknown that was fitted takes its share of the residuals, so that the squares are divided by the degrees of freedom that are left.
    Queries with the same output and the same answer have one error in common, which counts once (see `_alike`). Errors of an output that is
    exact are those that the others leave in it.

    Args:
        network: fitted to the answers.
        loader: the queries and answers that it was fitted to.
        unknowns: the number of unknowns.
    """
    errors = network(loader.examples) - loader.labels
    count, outputs = errors.shape
    share = unknowns / outputs
    plain = (errors.square().sum(0) / max(1.0, count - share)).sqrt()
    noise = []
    for output, groups in enumerate(_alike(network, loader, plain)):
        sizes = groups.bincount()
        means = torch.zeros_like(sizes, dtype=errors.dtype).index_add(0, groups, errors[:, output]) / sizes
        noise.append((means.square().sum() / max(1.0, len(sizes) - share)).sqrt())
    found, units = torch.stack(noise), spreads(loader.labels)
    return torch.maximum(found, SPILLED * (found / units).max() * units)


def _alike(network: FullyConnected | Probabilities, loader: DataLoader, noise: torch.Tensor) -> list[torch.Tensor]:
    """Which queries have errors in common: for each output a number of the group of every query, `[Q]`.

    Errors of rounding are a function of the output. Where all relu neurons are inactive the output is the same for all queries, and so is
    the error; it does not average out. The same holds for queries that are asked twice. Errors of noise differ, and so do the answers.
    """
    outputs = network(loader.examples).detach() / (GRAIN * noise.clamp_min(torch.finfo(noise.dtype).tiny))
    pairs = zip(outputs.round().T, loader.labels.T, strict=True)
    return [torch.unique(torch.stack(pair), dim=1, return_inverse=True)[1] for pair in pairs]


def standard_errors(
    network: FullyConnected | Probabilities,
    symmetry: Symmetry,
    loader: DataLoader,
    noise: torch.Tensor,
    computed_in: torch.dtype | None = None,
) -> list[torch.Tensor]:
    """The standard error of every weight and bias, for a network that least squares have fitted to the answers.

    To first order the weights are off by `(J'J)^-1 J'e` for errors e of the answers. Their covariance is `(J'J)^-1 J'SJ (J'J)^-1`, where S
    is that of the errors (White 1980). It is estimated in several ways, and the largest variance counts for each weight:

    - Errors are independent, with the same variance for all answers of an output, but for those that queries have in common.
    - Errors are the residuals, whose squares and products within a query count as they are: a float32 network has larger errors where its
      numbers are larger, and outputs that share a hidden neuron share its errors.
    - Where answers have a number format, the network is taken to compute in it as well. It then makes errors that depend on the query, such
      as those of a library's approximation of tanh, so that more queries do not average them out: of AVERAGED queries and more, only
      so many count. The errors that this network makes, when it computes in that format, are the third estimate.

    The squared distance to the optimum, where the fit has not reached it, is added to the variance. Where neurons can be scaled, the errors
    are those at the neuron's length: errors along it are undone by scaling.

    Args:
        network: in float64.
        symmetry: of its activation function.
        loader: the queries and answers that it was fitted to.
        noise: the standard deviation of the answers' errors, `[O]`.
        computed_in: the number format of the answers, if it has fewer digits than float64.

    Returns:
        For each layer, in the shape of its incoming vectors `[K, D]`; infinite for weights of combinations that the answers leave open.
    """
    unit, lengths = unit_curvature(network, loader.examples, loader.labels)
    plain = network.network if isinstance(network, Probabilities) else network
    slopes = linear_slopes(Layers.of(plain), loader.examples)
    open_directions = free_directions(plain, symmetry, slopes), shift_directions(network)
    lengthwise, scalings = (torch.cat(pair) for pair in zip(*open_directions, strict=True))
    free = torch.nn.functional.normalize(scalings * lengths, dim=1)
    unit = unit + free.T @ free * len(unit)
    values, vectors = torch.linalg.eigh(unit)
    is_open = values <= len(unit) * torch.finfo(values.dtype).eps * values.max()
    inverse = vectors * torch.where(is_open, 0.0, 1 / values) @ vectors.T / lengths[:, None] / lengths
    projection = torch.eye(len(unit)).to(unit) - scalings.T @ torch.linalg.solve(lengthwise @ scalings.T, lengthwise)
    moves = projection @ inverse
    independent = _weighted_curvature(network, loader, noise) + _in_common(network, loader, noise)
    products, gradient = _gradients(network, loader, len(unit) - len(scalings))
    variances = [((moves @ estimate) * moves).sum(1).clamp_min(0) for estimate in (independent, products)]
    if computed_in is not None:
        variances = [variance * (1 + len(loader.labels) / AVERAGED) for variance in variances]
        variances.append((_pulls_of_rounding(network, loader, noise, computed_in) @ moves.T).square().mean(0))
    variance = torch.stack(variances).amax(0) + (moves @ gradient).square()
    involved = vectors[:, is_open].square().sum(1) > INVOLVED
    return _as_vectors(network, torch.where(involved, math.inf, variance.sqrt()))


def save(network: FullyConnected, errors: list[torch.Tensor], folder: str) -> None:
    """Writes standard errors as arrays with the names and shapes of the network's weights, to an `.npz` file in a folder."""
    parts = [part for vectors in errors for part in (vectors[:, :-1], vectors[:, -1])]
    arrays: dict[str, Any] = {name: to_host(part) for (name, _), part in zip(network.named_parameters(), parts, strict=True)}
    content = io.BytesIO()
    np.savez(content, **arrays)
    get_platform().write(os.path.join(folder, FILE), content.getvalue())


def largest_weight_error(network: FullyConnected, errors: list[torch.Tensor]) -> float:
    """The relative error that no weight exceeds with a probability of CONFIDENCE (Bonferroni), over the largest weight of its row or layer.

    Args:
        network: the network.
        errors: the standard errors of its weights, `[K, D]` for each layer.
    """
    return float(torch.cat([shares.flatten() for shares in relative_errors(network, errors)]).max())


def quantile_of(errors: list[torch.Tensor]) -> float:
    """The number of standard errors that none of so many weights exceeds with a probability of CONFIDENCE (Bonferroni)."""
    return NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / 2 / sum(each.numel() for each in errors))


@torch.no_grad()
def relative_errors(network: FullyConnected, errors: list[torch.Tensor]) -> list[torch.Tensor]:
    """The bounds of `largest_weight_error` for each weight; weights of an output are compared with the largest weight of that output."""
    vectors = network.layer_vectors()
    sizes = [each.abs().max() for each in vectors[:-1]] + [vectors[-1].abs().amax(1, keepdim=True)]
    return [quantile_of(errors) * each / size for each, size in zip(errors, sizes, strict=True)]


def uncertain_neurons(network: FullyConnected, errors: list[torch.Tensor], limit: float) -> list[str]:
    """The names of the neurons and outputs with a weight that may be off by more than a limit (see `relative_errors`)."""
    names = []
    *hidden, last = [(shares > limit).any(1) for shares in relative_errors(network, errors)]
    for depth, uncertain in enumerate(hidden):
        layer = f" of hidden layer {depth + 1}" if len(hidden) > 1 else ""
        names += [f"neuron {neuron}{layer}" for neuron in torch.nonzero(uncertain)[:, 0].tolist()]
    return names + [f"output {output}" for output in torch.nonzero(last)[:, 0].tolist()]


@torch.no_grad()
def held_out_excess(network: FullyConnected | Probabilities, loader: DataLoader, noise: torch.Tensor, share: float) -> float:
    """By how many standard deviations the squared errors on held-out answers exceed those of the noise and of the weights.

    Args:
        network: fitted to other answers.
        loader: the held-out queries and answers.
        noise: the standard deviation of the answers' errors, `[O]`.
        share: the number of unknowns for each answer that the network was fitted to, which is the part of errors of the weights.
    """
    loader = _distinct(loader)
    squares = ((network(loader.examples) - loader.labels) / noise).square().mean(0) - 1 - share
    return float(squares.max()) / math.sqrt(2 / len(loader.labels))


@torch.no_grad()
def structure(
    network: FullyConnected | Probabilities, loader: DataLoader, unknowns: int, computed_in: torch.dtype | None = None
) -> float | None:
    """By how many standard deviations the residuals follow functions of the queries more closely than noise would.

    A network that lacks a neuron, or has another activation function, leaves residuals that are a function of the query. Functions that
    bend where the network's neurons have certain pre-activations, and along random directions, are fitted to the residuals by least
    squares. Of pure noise with the variance v they take `v` each. This is a lack-of-fit test; it needs no repeated queries. Errors of
    arithmetic depend on the query, and do not average out over more than AVERAGED queries, so that functions take more of them.

    Args:
        network: fitted to the answers.
        loader: the queries and answers that it was fitted to.
        unknowns: the number of unknowns.
        computed_in: the number format of the answers, if it has fewer digits than float64.

    Returns:
        None where there are too few queries to tell.
    """
    noise, loader = noise_of(network, loader, unknowns), _distinct(loader)
    residuals = network(loader.examples) - loader.labels
    functions = _functions(network, loader)
    if functions is None or not bool((noise > 0).all()):
        return None
    orthogonal, triangular = torch.linalg.qr(functions)
    pivots = triangular.diagonal().abs()
    orthogonal = orthogonal[:, pivots > 1e-8 * pivots.max()]
    taken = float((orthogonal.T @ (residuals / noise)).square().sum())
    degrees = orthogonal.shape[1] * residuals.shape[1]
    each = 1 + len(residuals) / AVERAGED if computed_in is not None else 1.0
    return (taken / each - degrees) / math.sqrt(2 * degrees)


def _distinct(loader: DataLoader) -> DataLoader:
    """A loader without rows that repeat both the query and the answer of another one, whose error they share."""
    pairs = torch.cat([loader.examples, loader.labels], 1)
    distinct = torch.unique(pairs, dim=0)
    if len(distinct) == len(pairs):
        return loader
    examples, labels = distinct.split([loader.examples.shape[1], loader.labels.shape[1]], 1)
    return DataLoader(type(loader.dataset)(examples, labels), loader.batch_size, loader.seed, loader.examples.dtype)


def _functions(network: FullyConnected | Probabilities, loader: DataLoader) -> torch.Tensor | None:
    """Functions of the queries that residuals may follow, `[Q, F]`; None where there are too few queries."""
    generator = torch.Generator().manual_seed(derive(loader.seed, "structure"))
    examples, most = loader.examples, min(MOST_FEATURES, len(loader.examples) // QUERIES_PER_FEATURE)
    spread = examples.std(0)
    directions = torch.randn(examples.shape[1], RANDOM_FEATURES, generator=generator, dtype=torch.float64).to(examples)
    along = [((examples - examples.mean(0)) / torch.where(spread > 0, spread, 1.0)) @ directions]
    layers = Layers(tuple(network.layer_vectors()), network.act_fun).all_but_last
    along += [layers.replace(*layers.vectors[: depth + 1]).pre_activations(examples) for depth in range(len(layers))]
    bends = [(torch.relu(along[0]))]
    for sums in along[1:]:
        knots = torch.quantile(sums[:: max(1, len(sums) // 2000)], torch.tensor(KNOTS).to(sums), dim=0)
        bends += [sums, torch.relu(sums), *(torch.relu(sums - knot) for knot in knots)]
    functions = torch.cat(bends, 1)
    if functions.shape[1] > most:
        functions = functions[:, torch.randperm(functions.shape[1], generator=generator)[:most].to(functions.device)]
    return with_ones(functions) if most >= RANDOM_FEATURES // 2 else None


def _pulled(network: FullyConnected | Probabilities, examples: torch.Tensor, pulls: torch.Tensor) -> torch.Tensor:
    """The derivatives by the weights of each query's outputs, weighted by `pulls` `[Q, O]` and summed over outputs: `[Q, P]`."""
    layers = Layers(tuple(network.layer_vectors()), network.act_fun)
    inputs, sums = [examples], []
    for vectors in layers.vectors:
        sums.append((with_ones(inputs[-1]) @ vectors.T).requires_grad_())
        inputs.append(layers.activation(sums[-1]))
    outputs = network.linked(sums[-1]) if isinstance(network, Probabilities) else sums[-1]
    derivatives = torch.autograd.grad((outputs * pulls).sum(), sums)
    rows = [each[:, :, None] * with_ones(below)[:, None] for each, below in zip(derivatives, inputs, strict=False)]
    return torch.cat([part.flatten(1) for each in rows for part in (each[:, :, :-1], each[:, :, -1])], 1).detach()


def _gradients(network: FullyConnected | Probabilities, loader: DataLoader, unknowns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`J'SJ` `[P, P]` for the squares and products S of each query's residuals, and the gradient `J'r` of half their squares, `[P]`.

    The fit of the unknowns has taken a share of the residuals, which S gets back.
    """
    count = unknowns_of(network)
    products, gradient = loader.labels.new_zeros(count, count), loader.labels.new_zeros(count)
    chunk = max(1, CHUNK_VALUES // count)
    with torch.no_grad():
        residuals = network(loader.examples) - loader.labels
    for examples, pulls in zip(loader.examples.split(chunk), residuals.split(chunk), strict=True):
        rows = _pulled(network, examples, pulls)
        products, gradient = products + rows.T @ rows, gradient + rows.sum(0)
    queries, outputs = residuals.shape
    return products * (queries / max(1.0, queries - unknowns / outputs)), gradient


def _in_common(network: FullyConnected | Probabilities, loader: DataLoader, noise: torch.Tensor) -> torch.Tensor:
    """What `J'SJ` `[P, P]` has more because some queries have errors in common (see `_alike`)."""
    count = unknowns_of(network)
    more = loader.labels.new_zeros(count, count)
    chunk = max(1, CHUNK_VALUES // count)
    for output, groups in enumerate(_alike(network, loader, noise)):
        shared = torch.nonzero(groups.bincount()[groups] > 1)[:, 0]
        _, places = torch.unique(groups[shared], return_inverse=True)
        sums = loader.labels.new_zeros(int(places.max()) + 1 if len(places) else 0, count)
        for some, where in zip(shared.split(chunk), places.split(chunk), strict=True):
            pulls = torch.zeros_like(loader.labels[some])
            pulls[:, output] = noise[output]
            rows = _pulled(network, loader.examples[some], pulls)
            sums.index_add_(0, where, rows)
            more -= rows.T @ rows
        more += sums.T @ sums
    return more


def _pulls_of_rounding(
    network: FullyConnected | Probabilities, loader: DataLoader, noise: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """`J'e` for errors e that networks like this one make when they compute in a number format, `[ROUNDINGS, P]`.

    Their weights differ by some units of rounding, so that their errors are alike only in what does not depend on chance. The errors are
    at least as large as those of the answers.
    """
    generator = torch.Generator().manual_seed(derive(loader.seed, "rounding"))
    layers, pulled = Layers(tuple(network.layer_vectors()), network.act_fun), []
    for _ in range(ROUNDINGS):
        changes = [torch.randn(vectors.shape, generator=generator, dtype=torch.float64).to(vectors) for vectors in layers.vectors]
        pairs = zip(layers.vectors, changes, strict=True)
        low = layers.replace(*((vectors * (1 + UNITS * torch.finfo(dtype).eps * change)).to(dtype) for vectors, change in pairs))
        exact = layers.replace(*(vectors.to(noise) for vectors in low.vectors))
        rounded, outputs = low.pre_activations(loader.examples.to(dtype)).to(noise), exact.pre_activations(loader.examples)
        errors = network.linked(rounded) - network.linked(outputs) if isinstance(network, Probabilities) else rounded - outputs
        errors = torch.nan_to_num(errors, nan=0.0, posinf=0.0, neginf=0.0)
        errors = errors * (noise / errors.square().mean(0).sqrt().clamp_min(torch.finfo(noise.dtype).tiny)).clamp_min(1.0)
        pulls = torch.autograd.grad((network(loader.examples) * errors).sum(), list(network.parameters()))
        pulled.append(torch.cat([part.flatten() for part in pulls]))
    return torch.stack(pulled)


def _weighted_curvature(network: FullyConnected | Probabilities, loader: DataLoader, noise: torch.Tensor) -> torch.Tensor:
    """`J'SJ` `[P, P]` for variances S of the answers: the curvature of a network whose outputs are multiplied by their noise."""
    if isinstance(network, Probabilities):
        return curvature(network.times(noise), loader.examples, loader.labels * noise)
    *hidden, last = network.layer_vectors()
    scaled = copy.deepcopy(network)
    scaled.load_layer_vectors([*hidden, last * noise[:, None]])
    factors = [torch.ones_like(vectors) for vectors in hidden] + [noise[:, None].expand_as(last)]
    weights = as_parameters(factors)  # the derivatives by the weights of the last layer do not depend on their scale
    return weights[:, None] * curvature(scaled, loader.examples, loader.labels * noise) * weights


def shift_directions(network: FullyConnected | Probabilities) -> tuple[torch.Tensor, torch.Tensor]:
    """How a common shift of all logits moves their mean and the weights, as in `gauges.free_directions`: `[K + 1, P]` for softmax."""
    vectors = network.layer_vectors()
    shift, functionals, directions = network.shift() if isinstance(network, Probabilities) else None, [], []
    for column in range(vectors[-1].shape[1] if shift else 0):
        for rows, values in zip((directions, functionals), shift or (), strict=True):
            changes = [torch.zeros_like(each) for each in vectors]
            changes[-1][:, column] = values
            rows.append(as_parameters(changes))
    empty = vectors[0].new_zeros(0, sum(each.numel() for each in vectors))
    return (torch.stack(functionals), torch.stack(directions)) if shift else (empty, empty)


def _as_vectors(network: FullyConnected | Probabilities, values: torch.Tensor) -> list[torch.Tensor]:
    """Values `[P]` in the order of the parameters in the shape of the incoming vectors: the inverse of `as_parameters`."""
    parts, result = list(values.split([parameter.numel() for parameter in network.parameters()])), []
    for vectors in network.layer_vectors():
        weights, bias = parts.pop(0), parts.pop(0)
        result.append(torch.cat([weights.view(len(vectors), -1), bias[:, None]], 1))
    return result

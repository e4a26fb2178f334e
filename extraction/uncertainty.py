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
from extraction.gauges import as_parameters, free_directions
from extraction.host import to_host
from extraction.linear import linear_slopes
from extraction.network import Layers, with_ones
from extraction.probabilities import Probabilities
from extraction.symmetry import Symmetry
from foundations.seeds import derive
from models.mlp import FullyConnected
from platforms.platform import get_platform
from training.second_order import curvature

CONFIDENCE = 0.95
FILE = "standard_errors.npz"
INVOLVED = 1e-6  # squared share of a weight in the combinations that the answers leave open
KNOTS = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)  # quantiles of a neuron's pre-activations at which residuals may bend
RANDOM_FEATURES = 40
MOST_FEATURES, QUERIES_PER_FEATURE = 600, 8


@torch.no_grad()
def noise_of(network: FullyConnected | Probabilities, loader: DataLoader, unknowns: int) -> torch.Tensor:
    """The standard deviation of the answers' errors that the residuals of a least-squares fit show, `[O]`.

    Every unknown that was fitted takes its share of the residuals, so that the squares are divided by the degrees of freedom that are left.

    Args:
        network: fitted to the answers.
        loader: the queries and answers that it was fitted to.
        unknowns: the number of unknowns.
    """
    errors = network(loader.examples) - loader.labels
    left = max(1.0, len(errors) - unknowns / errors.shape[1])
    return (errors.square().sum(0) / left).sqrt()


def standard_errors(
    network: FullyConnected | Probabilities, symmetry: Symmetry, loader: DataLoader, noise: torch.Tensor
) -> list[torch.Tensor]:
    """The standard error of every weight and bias, for a network that least squares have fitted to the answers.

    To first order the weights are off by `(J'J)^-1 J'e` for errors e of the answers. Their covariance is `(J'J)^-1 J'SJ (J'J)^-1`, where S
    holds the variance of each answer (White 1980). With equal variances this is the inverse of the Fisher information, `s^2 (J'J)^-1`.
    The squared distance to the optimum, where the fit has not reached it, is added to the variance. Where neurons can be scaled, the errors
    are those at the neuron's length: errors along it are undone by scaling.

    Args:
        network: in float64.
        symmetry: of its activation function.
        loader: the queries and answers that it was fitted to.
        noise: the standard deviation of the answers' errors, `[O]`.

    Returns:
        For each layer, in the shape of its incoming vectors `[K, D]`; infinite for weights of combinations that the answers leave open.
    """
    square = curvature(network, loader.examples, loader.labels)
    half_squares = (network(loader.examples) - loader.labels).square().sum() / 2
    gradient = torch.cat([part.flatten() for part in torch.autograd.grad(half_squares, list(network.parameters()))])
    lengths = square.diagonal().sqrt()
    lengths = torch.where(lengths > 0, lengths, 1.0)
    plain = network.network if isinstance(network, Probabilities) else network
    slopes = linear_slopes(Layers.of(plain), loader.examples)
    open_directions = free_directions(plain, symmetry, slopes), shift_directions(network)
    lengthwise, scalings = (torch.cat(pair) for pair in zip(*open_directions, strict=True))
    free = torch.nn.functional.normalize(scalings * lengths, dim=1)
    unit = square / lengths[:, None] / lengths + free.T @ free * len(square)
    values, vectors = torch.linalg.eigh(unit)
    is_open = values <= len(square) * torch.finfo(values.dtype).eps * values.max()
    inverse = vectors * torch.where(is_open, 0.0, 1 / values) @ vectors.T / lengths[:, None] / lengths
    covariance = inverse @ _weighted_curvature(network, loader, noise) @ inverse
    projection = torch.eye(len(square)).to(square) - scalings.T @ torch.linalg.solve(lengthwise @ scalings.T, lengthwise)
    variances = ((projection @ covariance) * projection).sum(1).clamp_min(0) + (projection @ (inverse @ gradient)).square()
    involved = vectors[:, is_open].square().sum(1) > INVOLVED
    return _as_vectors(network, torch.where(involved, math.inf, variances.sqrt()))


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
    squares = ((network(loader.examples) - loader.labels) / noise).square().mean(0) - 1 - share
    return float(squares.max()) / math.sqrt(2 / len(loader.labels))


@torch.no_grad()
def structure(network: FullyConnected | Probabilities, loader: DataLoader, unknowns: int) -> float | None:
    """By how many standard deviations the residuals follow functions of the queries more closely than noise would.

    A network that lacks a neuron, or has another activation function, leaves residuals that are a function of the query. Functions that
    bend where the network's neurons have certain pre-activations, and along random directions, are fitted to the residuals by least
    squares. Of pure noise with the variance v they take `v` each. This is a lack-of-fit test; it needs no repeated queries.

    Args:
        network: fitted to the answers.
        loader: the queries and answers that it was fitted to.
        unknowns: the number of unknowns.

    Returns:
        None where there are too few queries to tell.
    """
    residuals = network(loader.examples) - loader.labels
    noise = noise_of(network, loader, unknowns)
    functions = _functions(network, loader)
    if functions is None or not bool((noise > 0).all()):
        return None
    orthogonal, triangular = torch.linalg.qr(functions)
    pivots = triangular.diagonal().abs()
    orthogonal = orthogonal[:, pivots > 1e-8 * pivots.max()]
    taken = float((orthogonal.T @ (residuals / noise)).square().sum())
    degrees = orthogonal.shape[1] * residuals.shape[1]
    return (taken - degrees) / math.sqrt(2 * degrees)


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

"""Networks that are planted in benchmarks and tests: drawn, and compared with the networks that were recovered from their answers.

Axes: Q queries, K neurons of a layer, D inputs of a layer with the bias last, O outputs.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from extraction import report
from extraction.certification.uncertainty import FILE
from extraction.evaluation import match
from extraction.network import Layers
from extraction.report import Report
from extraction.symmetry import transform
from foundations import paths
from foundations.model_hparams import ModelHparams
from models import registry as models
from models.mlp import FullyConnected

EITHER_SIDE = 0.1  # the least share of the queries on either side of the kink or centre of a neuron
FLAT = 1e-9  # a direction of standardised queries counts as one that no query varies in below this share of the largest
SAME = 1e-2  # the largest distance between the directions of two neurons that count as one


def draw(sizes: Sequence[int], act_fun: str, queries: torch.Tensor, generator: torch.Generator, length: float | None = None) -> Layers:
    """A random network whose hidden neurons all have queries on either side of their kink or centre.

    Args:
        sizes: the number of inputs, then the width of each layer.
        act_fun: of the hidden layers.
        queries: `[Q, inputs]`.
        generator: of the Gaussian weights and biases.
        length: of the incoming weights of every hidden neuron, whose bias has half a standard deviation then; free where left out.
    """
    while True:
        vectors = []
        for width, inputs in zip(sizes[1:], sizes[:-1], strict=True):
            weights = torch.randn(width, inputs, generator=generator, dtype=torch.float64)
            bias = torch.randn(width, 1, generator=generator, dtype=torch.float64)
            if length is not None:
                last = len(vectors) == len(sizes) - 2
                weights, bias = (1.0 if last else length) * torch.nn.functional.normalize(weights, dim=1), bias / 2
            vectors.append(torch.cat([weights, bias], 1))
        layers = Layers(tuple(vectors), act_fun)
        hidden = [layers.replace(*vectors[: depth + 1]).pre_activations(queries) for depth in range(len(vectors) - 1)]
        shares = torch.cat([(sums > 0).double().mean(0) for sums in hidden])
        if bool((torch.minimum(shares, 1 - shares) >= EITHER_SIDE).all()):
            return layers


def network_of(layers: Layers) -> FullyConnected:
    """The plain network with these layers, in float64."""
    name = f"mlp_{'_'.join(map(str, layers.sizes))}"
    network = models.get(ModelHparams(name, "kaiming_normal", "uniform", layers.act_fun)).double()
    assert isinstance(network, FullyConnected)
    network.load_layer_vectors(layers.vectors)
    return network


def over_inputs(layers: Layers, mean: torch.Tensor, spread: torch.Tensor) -> Layers:
    """The same network for other inputs, `mean + spread * inputs`, with a mean and a spread for each input, `[inputs]`."""
    first, *rest = layers.vectors
    weights = first[:, :-1] / spread
    return layers.replace(torch.cat([weights, (first[:, -1] - weights @ mean)[:, None]], 1), *rest)


def visible(layers: Layers, queries: torch.Tensor) -> Layers:
    """The network whose first layer has no weights along directions that no query varies in; it gives the same answers to the queries.

    Of all weights with these answers they are the shortest, in units of the spread of each column.
    """
    mean, spread = units_of(queries)
    (first, *rest), standard = layers.vectors, (queries - mean) / spread
    _, values, directions = torch.linalg.svd(standard, full_matrices=False)
    kept = directions[values > FLAT * values.max()]
    weights = (first[:, :-1] * spread) @ kept.T @ kept / spread
    bias = first[:, -1] + (first[:, :-1] - weights) @ mean
    return layers.replace(torch.cat([weights, bias[:, None]], 1), *rest)


def units_of(queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean and the spread of each column, `[inputs]`; the mean of a constant column is its value, and its spread is 1."""
    constant = queries.amax(0) == queries.amin(0)
    mean = torch.where(constant, queries[0], queries.mean(0))
    return mean, torch.where(constant, 1.0, (queries - mean).square().mean(0).sqrt())


def in_units(first: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """The incoming vectors of a first layer over standardised inputs, `[K, D]`."""
    mean, spread = units_of(queries)
    return torch.cat([first[:, :-1] * spread, (first[:, -1] + first[:, :-1] @ mean)[:, None]], 1)


def centred(layers: Layers) -> Layers:
    """The network whose outputs have mean zero, which answers after softmax do not tell from the network itself."""
    *hidden, last = layers.vectors
    return layers.replace(*hidden, last - last.mean(0))


def aligned(true: Layers, found: Layers, queries: torch.Tensor) -> Layers:
    """A planted network in the order, with the signs and with the lengths of the neurons of a recovered one of the same sizes."""
    vectors = list(true.vectors)
    for depth, ours in enumerate(found.vectors[:-1]):
        theirs, following = vectors[depth : depth + 2]
        compared = (in_units(theirs, queries), in_units(ours, queries)) if depth == 0 else (theirs, ours)
        pairs = match(*compared, true.symmetry)
        order = torch.empty_like(pairs.ours)
        order[pairs.theirs] = pairs.ours
        signs = pairs.signs[pairs.theirs.argsort()]
        lengths = ours.norm(dim=1) / theirs[order].norm(dim=1) if true.symmetry.positive_scaling else torch.ones_like(signs)
        incoming, outgoing, bias = transform(true.symmetry, theirs[order], following[:, order].T, following[:, -1], signs * lengths)
        vectors[depth], vectors[depth + 1] = incoming, torch.cat([outgoing.T, bias[:, None]], 1)
    return true.replace(*vectors)


def worst_error(true: Layers, found: Layers, queries: torch.Tensor) -> float:
    """The largest deviation of a weight or bias, over the largest in its layer, or of its output in the last layer.

    Weights of the first layer are compared as those of standardised inputs. A large bias of an output is compared with itself. Where an
    output is constant, so that its weights are 0, the largest weight of the other outputs takes their place.

    Args:
        true: the planted network, `aligned` with the other.
        found: the recovered network.
        queries: `[Q, inputs]`.
    """
    *hidden, last = zip(true.vectors, found.vectors, strict=True)
    hidden[0] = (in_units(hidden[0][0], queries), in_units(hidden[0][1], queries))
    shares = [(ours - theirs).abs().max() / theirs.abs().max() for theirs, ours in hidden]
    sizes = last[0][:, :-1].abs().amax(1, keepdim=True)
    sizes = torch.where(sizes > 0, sizes, sizes.max())
    shares.append(((last[1] - last[0]).abs() / torch.maximum(sizes, torch.cat([0 * last[0][:, :-1], last[0][:, -1:].abs()], 1))).max())
    return float(torch.stack(shares).max())


def in_standard_errors(true: Layers, found: Layers, errors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The deviations of all weights in units of their standard errors, one after the other; infinite errors hold for any deviation.

    Args:
        true: the planted network, `aligned` with the other.
        found: the recovered network.
        errors: the standard errors, `[K, D]` for each layer.
    """
    pairs = zip(true.vectors, found.vectors, errors, strict=True)
    return torch.cat([((ours - theirs) / error).flatten() for theirs, ours, error in pairs])


def shared_neurons(true: Layers, found: Layers, queries: torch.Tensor, up_to_sign: bool = False) -> int:
    """How many neurons of the first layer of a planted network have a partner in a recovered one, whose direction is the same.

    Where units that never switch are a linear map, other neurons may be their opposites, and the map makes good for that: `up_to_sign`.
    """
    theirs, ours = (torch.nn.functional.normalize(in_units(layers.vectors[0], queries), dim=1) for layers in (true, found))
    if up_to_sign:
        same = torch.minimum(torch.cdist(theirs, ours), torch.cdist(-theirs, ours)) <= SAME
        return int(min(same.any(0).sum(), same.any(1).sum()))
    pairs = match(theirs, ours, true.symmetry)
    return int(((theirs[pairs.ours] * pairs.signs[:, None] - ours[pairs.theirs]).norm(dim=1) <= SAME).sum())


@dataclass(frozen=True)
class Recovered:
    """What an extraction has left in its folder.

    Attributes:
        report: its report.
        layers: the recovered network.
        errors: the standard errors of its weights, `[K, D]` for each layer; None where there are none.
    """

    report: Report
    layers: Layers
    errors: list[torch.Tensor] | None


def recovered_in(root: str) -> Recovered | None:
    """The result of the extraction under a folder of results, an accepted one where there are two; None where there is none."""
    found = glob.glob(os.path.join(root, "extract_*", "seed_*", "main", "clustering_*"))
    reports = [folder for folder in found if os.path.exists(paths.report(folder))]
    if not reports:
        return None
    content = max(map(report.read, sorted(reports)), key=lambda content: content.certificate.accepted_to_precision)
    model = models.load(content.model_path, ModelHparams(content.model_name, "kaiming_normal", "uniform", content.act_fun)).double()
    path, errors = os.path.join(os.path.dirname(content.model_path), FILE), None
    if os.path.exists(path):
        with np.load(path) as arrays:
            parts = [torch.from_numpy(arrays[name]) for name, _ in model.named_parameters()]
        errors = [torch.cat([weights, bias[:, None]], 1) for weights, bias in zip(parts[::2], parts[1::2], strict=True)]
    return Recovered(content, Layers.of(model), errors)

"""What speaks for a recovered network when nobody can show the teacher's weights.

The figures rest on the answers alone. A network is accepted as exact where it gives every answer to the rounding floor, those held out as
well; where the answers leave no freedom in its weights, and no choice of signs; and where a rival, fitted to other answers from another
start, is the same function even where the two would differ most. That may refuse a right answer, such as one that was rounded. It says
nothing of inputs far from those that were asked, and cannot tell activation functions that are one and the same up to weights:
sigmoid(x) = (1 + tanh(x / 2)) / 2.

Axes: Q queries, P parameters of the network, O outputs; K neurons of a layer, D its inputs with the bias last, L units of the next layer.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping

import torch
from scipy.linalg import qr

from datasets.base import DataLoader
from extraction.clustering import distances
from extraction.expand_and_cluster import Reconstruction
from extraction.finetuning import layer_vectors
from extraction.symmetry import Symmetry, symmetries
from foundations.seeds import derive
from models.mlp import FullyConnected
from training.second_order import DENSE_PARAMETERS, LevenbergMarquardt, curvature
from training.train import Objective

FLOOR = 1e-11  # the largest error of an exact network, as a share of the spread of the answers
WEIGHT_ERROR = 1e-6  # how far the answers may leave a weight from the truth, as a share of the largest in its layer
TOUCH = 1e-6  # of the spread of what goes into a neuron: as close to its kink a query shows nothing of it
SEPARATION = 1e-6  # the angle between two neurons, in radians, below which they are one, or opposites that make a linear map
DISAGREEMENT = 1e-8  # of a network and its rival, as a share of the spread of the answers
EQUATIONS_PER_UNKNOWN = 5
DISTURBANCE = 1e-3  # of the rival's first weights, relative
MOST_CHOICES = 16  # of signs that are tried, to the power of two
RIVAL_STEPS, ASCENT_STEPS, ASCENTS, ASCENT_RATE = 30, 60, 256, 0.1


@dataclasses.dataclass(frozen=True)
class Certificate:
    """The figures, and whether they will do; None where the network is too large for one.

    Attributes:
        residual: the largest error on the queries, as a share of the spread of the answers.
        held_out_residual: the same on the pairs that were held out.
        equations: numbers among the answers.
        unknowns: parameters of the network, less those that a symmetry leaves free.
        rank: how many combinations of parameters the answers determine.
        weight_error_bound: how far the residual can have led a weight astray, as a share of the largest in its layer.
        agreement: the share of the students that hold the rarest of the neurons.
        separation: the smallest angle between two neurons of a layer, in radians.
        signs_settled: whether no neurons of a layer can be turned to their opposites together without a change of the function.
        disagreement: the largest difference between the network and its rival that gradient ascent finds, as a share of the spread.
        accepted: whether the network is exact, as far as answers can tell.
    """

    residual: float
    held_out_residual: float
    equations: int
    unknowns: int
    rank: int | None
    weight_error_bound: float | None
    agreement: float
    separation: float
    signs_settled: bool
    disagreement: float | None
    accepted: bool


def certify(result: Reconstruction, train_loader: DataLoader, test_loader: DataLoader) -> Certificate:
    """Examines a recovered network without the teacher's weights.

    Args:
        result: the reconstruction.
        train_loader: the queries and answers that it was recovered from, in float64.
        test_loader: others, likewise.
    """
    network, symmetry = result.network, symmetries[result.network.act_fun]
    spread = float((train_loader.labels - train_loader.labels.mean(0)).square().mean().sqrt()) or 1.0
    residual, held_out = (largest_error(network, loader) / spread for loader in (train_loader, test_loader))
    free = _free(network, symmetry)
    unknowns = sum(parameter.numel() for parameter in network.parameters()) - free
    apart = separation(network, symmetry)
    rank = bound = disagreement = None
    settled = signs_settled(network, symmetry)
    if unknowns + free <= DENSE_PARAMETERS:
        rank, bound = determination(network, symmetry, train_loader)
    if rank == unknowns and residual <= FLOOR:
        disagreement = rivalry(network, train_loader) / spread
    figures = residual, held_out, train_loader.labels.numel(), unknowns, rank, bound, agreement(result), apart, settled, disagreement
    found = Certificate(*figures, accepted=False)
    return dataclasses.replace(found, accepted=all(met(dataclasses.asdict(found)).values()))


def met(figures: Mapping[str, object]) -> dict[str, bool]:
    """Of each figure of which something is required, whether that is met; what was not examined is not."""
    bound, disagreement = figures["weight_error_bound"], figures["disagreement"]
    return {
        "residual": figures["residual"] <= FLOOR,
        "held_out_residual": figures["held_out_residual"] <= FLOOR,
        "equations": figures["equations"] > figures["unknowns"],
        "rank": figures["rank"] == figures["unknowns"],
        "weight_error_bound": bound is not None and bound <= WEIGHT_ERROR,
        "separation": figures["separation"] >= SEPARATION,
        "signs_settled": figures["signs_settled"],
        "disagreement": disagreement is not None and disagreement <= DISAGREEMENT,
    }


@torch.no_grad()
def largest_error(network: FullyConnected, loader: DataLoader) -> float:
    """The largest deviation from an answer."""
    return float((network(loader.examples) - loader.labels).abs().max())


def agreement(result: Reconstruction) -> float:
    """The share of the students with a say that hold the rarest of the recovered neurons."""
    shares = []
    for layer in result.layers:
        found = layer.clustering
        students = len(set(found.student.tolist()))
        shares += [len(set(found.student[found.labels == label].tolist())) / students for label in range(found.clusters)]
    return min(shares)


def separation(network: FullyConnected, symmetry: Symmetry) -> float:
    """The smallest angle between the incoming vectors of two neurons of a layer, up to sign where that is open, in radians."""
    least = math.pi
    for vectors in layer_vectors(network)[:-1]:
        if len(vectors) > 1:
            chords = distances(torch.nn.functional.normalize(vectors, dim=1), symmetry.opposite_looks_alike)
            chords.fill_diagonal_(2.0)
            least = min(least, 2 * math.asin(min(1.0, float(chords.min()) / 2)))
    return least


def signs_settled(network: FullyConnected, symmetry: Symmetry) -> bool:
    """Whether no neurons of a layer can be turned to their opposites together without a change of the function; false where in doubt."""
    vectors = layer_vectors(network)
    return symmetry.slope == 0 or not any(map(can_be_turned, vectors[:-1], vectors[1:]))


def can_be_turned(incoming: torch.Tensor, following: torch.Tensor) -> bool:
    """Whether some neurons of a layer are together no other than their opposites, as are those of relu(x + 1) - relu(x).

    Where s(-x) = s(x) + slope x, turning neurons leaves the sum of their `slope * a w'` behind, and a constant: nothing that the next bias
    cannot take where that sum is zero. That asks for a vector of zeros and ones in the null space of the matrix with a column `a (x) w` for
    each neuron. Once n of its values are known, n the dimension of that space, all are: there are 2^n - 1 to try.

    Args:
        incoming: `[K, D]`.
        following: the next layer's incoming vectors, `[L, K + 1]`.
    """
    weights, outgoing = incoming[:, :-1].cpu(), following[:, :-1].T.cpu()
    gram = (weights @ weights.T) * (outgoing @ outgoing.T)
    lengths = gram.diagonal().sqrt().clamp_min(torch.finfo(gram.dtype).tiny)
    eigenvalues, directions = torch.linalg.eigh(gram / lengths[:, None] / lengths)
    null = directions[:, eigenvalues <= len(gram) * SEPARATION**2]
    count = null.shape[1]
    if count == 0 or count > MOST_CHOICES:
        return count > 0
    places = torch.from_numpy(qr(null.T.numpy(), mode="r", pivoting=True)[1][:count]).long()
    choices = (torch.arange(1, 2**count)[:, None] >> torch.arange(count) & 1).to(gram)
    turned = null @ torch.linalg.solve(null[places], (choices * lengths[places]).T)
    turned = (turned / lengths[:, None]).round().clamp(0, 1)
    left_behind = (turned * (gram @ turned)).sum(0)
    return bool((left_behind <= SEPARATION**2 * (gram.diagonal() @ turned)).any())


def determination(network: FullyConnected, symmetry: Symmetry, loader: DataLoader) -> tuple[int, float | None]:
    """How well the answers determine the weights, to first order, for a network of at most DENSE_PARAMETERS.

    The curvature `J'J` of the residuals, every column of J at unit length, has an eigenvalue of zero for each combination of weights that
    the answers leave open. Where scaling is free, those that it leaves open are counted as closed.

    A weight of relu that no answer determines can be pushed until its neuron just touches a query with its kink, or one that is otherwise
    always active just lets go of one. Whether it does is a matter of rounding, and counts for nothing: neurons are examined as if they came
    into play a little later, and a little sooner. Three layers of ten, with two neurons that were never active together, had passed for
    determined through one such query.

    Returns:
        The rank, less the scalings; and the largest deviation of a weight that the residual allows, as a share of the largest weight of
        its layer, None where some combination is open.
    """
    count = sum(parameter.numel() for parameter in network.parameters())
    outputs = loader.labels.shape[1]
    chosen = _some(loader, -(-EQUATIONS_PER_UNKNOWN * count // outputs))
    queries, answers = loader.examples[chosen], loader.labels[chosen]
    touched = [_sooner(network, queries, share) for share in (-TOUCH, TOUCH)] if symmetry.positive_scaling else [network]
    spectra = [_spectrum(each, symmetry, queries, answers) for each in touched]
    rank, lengths, least = min(spectra, key=lambda spectrum: (spectrum[0], spectrum[2]))
    if rank + _free(network, symmetry) < count:
        return rank, None
    with torch.no_grad():
        rounded = torch.finfo(answers.dtype).eps * float(answers.norm())  # the answers themselves are
        error = float((network(queries) - answers).norm()) + rounded
    deviations = error / (lengths * math.sqrt(least))
    largest = torch.cat([vectors.abs().max().expand(vectors.numel()) for vectors in layer_vectors(network)])
    return rank, float((deviations / largest).max())


def _free(network: FullyConnected, symmetry: Symmetry) -> int:
    """How many weights scaling leaves free: one for each hidden neuron."""
    return sum(network.sizes[1:-1]) if symmetry.positive_scaling else 0


def _spectrum(network: FullyConnected, symmetry: Symmetry, queries: torch.Tensor, answers: torch.Tensor) -> tuple[int, torch.Tensor, float]:
    """The rank of the Jacobian less the scalings, the lengths of its columns `[P]`, and the least eigenvalue with unit lengths."""
    square = curvature(network, queries, answers)
    lengths = square.diagonal().sqrt()
    lengths = torch.where(lengths > 0, lengths, 1.0)
    scalings = _scalings(network) if symmetry.positive_scaling else square.new_zeros(0, len(square))
    free = torch.nn.functional.normalize(scalings * lengths, dim=1)
    eigenvalues = torch.linalg.eigvalsh(square / lengths[:, None] / lengths + free.T @ free * len(square))
    rounding = len(square) * torch.finfo(eigenvalues.dtype).eps * eigenvalues.max()
    return int((eigenvalues > rounding).sum()) - len(free), lengths, float(eigenvalues.min())


@torch.no_grad()
def _sooner(network: FullyConnected, queries: torch.Tensor, share: float) -> FullyConnected:
    """A copy of a network whose hidden neurons become active sooner, by a share of the spread of what goes into them."""
    moved = copy.deepcopy(network)
    for layer in moved.fc_layers:
        inputs = layer(queries)
        layer.bias += share * inputs.std(0)
        queries = network.activation(inputs)
    return moved


def _scalings(network: FullyConnected) -> torch.Tensor:
    """The directions in which scaling a neuron moves the weights and nothing else, `[neurons, P]`."""
    directions = []
    layers = [*network.fc_layers, network.fc]
    for layer, following in zip(layers[:-1], layers[1:], strict=True):
        for neuron in range(len(layer.bias)):
            parts = {id(parameter): torch.zeros_like(parameter) for parameter in network.parameters()}
            parts[id(layer.weight)][neuron], parts[id(layer.bias)][neuron] = layer.weight.data[neuron], layer.bias.data[neuron]
            parts[id(following.weight)][:, neuron] = -following.weight.data[:, neuron]
            directions.append(torch.cat([part.flatten() for part in parts.values()]))
    return torch.stack(directions)


def rivalry(network: FullyConnected, loader: DataLoader) -> float:
    """The largest difference of outputs between a network and a rival, where gradient ascent finds it.

    The rival begins near the network, at weights that are disturbed by DISTURBANCE, and is fitted to one half of the answers. The ascents
    begin halfway between two queries, and stay in the box that the queries span.
    """
    generator = torch.Generator().manual_seed(derive(loader.seed, "rival"))
    rival = copy.deepcopy(network)
    count = sum(parameter.numel() for parameter in rival.parameters())
    chosen = _some(loader, -(-2 * EQUATIONS_PER_UNKNOWN * count // loader.labels.shape[1]))[::2]
    with torch.no_grad():
        for parameter in rival.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
            parameter.add_(DISTURBANCE * parameter.abs().mean() * noise)
    optimizer, objective = LevenbergMarquardt(rival), Objective(rival, loader.examples[chosen], loader.labels[chosen])
    for _ in range(RIVAL_STEPS):
        optimizer.step(objective)
        if optimizer.converged:
            break
    low, high = loader.examples.amin(0), loader.examples.amax(0)
    pairs = torch.randint(len(loader.examples), (2, ASCENTS), generator=generator).to(low.device)
    inputs = loader.examples[pairs].mean(0).requires_grad_(True)
    ascent = torch.optim.Adam([inputs], lr=ASCENT_RATE * float((high - low).max()) or ASCENT_RATE, maximize=True)
    worst = 0.0
    for _ in range(ASCENT_STEPS):
        differences = (network(inputs) - rival(inputs)).square().sum(1)
        worst = max(worst, float(differences.detach().max().sqrt()))
        # each ascent by itself, at the same pace however small its difference
        (gradient,) = torch.autograd.grad(differences.clamp_min(torch.finfo(differences.dtype).tiny).log().sum(), inputs)
        inputs.grad = gradient
        ascent.step()
        inputs.data.clamp_(low, high)
    return worst


def _some(loader: DataLoader, count: int) -> torch.Tensor:
    """So many queries, drawn by the run's seed; all where there are no more."""
    generator = torch.Generator().manual_seed(derive(loader.seed, "certificate"))
    return torch.randperm(len(loader.examples), generator=generator)[:count]

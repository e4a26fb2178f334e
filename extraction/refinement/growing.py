"""Neurons that a fitted network lacks, from what it leaves unexplained of the answers.

Measured on 18 planted networks (tanh, sigmoid, relu, leaky_relu, gelu, softplus; 8, 16 or 40 neurons in one hidden layer, or two or three
layers) that lacked one or two neurons, the others disturbed by 1%: 17 became complete and exact, most of them with the first fit, in 2 to
60 s on a core that was shared by four. The other one, of 16 relu neurons with one output, had a neuron in excess: least squares cannot
resolve signs where a layer has more neurons than inputs times outputs. Extractions that ended with 39 of 40 tanh neurons (two seeds of
three), and with 5 of 8 relu neurons (a network of scikit-learn, 398 answers), became complete and were accepted.

Axes: N candidates, K neurons of a layer, D inputs of the layer with the bias last, L units of the layer behind it, Q queries, O outputs,
F directions.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from extraction.fitting import Fit, fit, fit_or_none, is_exact, relative_loss
from extraction.linear import settled
from extraction.network import PROBES, Layers, fit_outputs, some_of
from extraction.session import Session
from extraction.simplify import least_losses_without, merged_where_equally_active, removals
from extraction.students import Standardisation
from foundations.seeds import derive
from models.mlp import FullyConnected, with_ones

GROWTHS = 3  # growths that are fitted, before the best one counts
MOST_GROWN = 0.1  # neurons that are grown, for each neuron that was recovered
GROWABLE = 0.1  # the relative loss below which a network may lack no more than some neurons
LEAST_GROWN = 8  # neurons that may be grown in any network
NOISE = 4.0  # a growth explains more than this many times what it explains of noise
FOUND = 0.01  # a fit counts at once as the best that leaves this share of the loss or less
WORTHWHILE = 0.9  # a neuron is kept where it leaves this share of the loss or less
HALVED = 0.5  # a neuron is one of few that are lacking where it leaves this share of the loss or less
REPLACED = 1e-5  # the relative loss of an exact network without a neuron, before it is fitted, up to which the neuron may be in excess
SURELY = 2.0  # times a limit that a lower bound of the loss may be above it, for rounding
STARTS = 64  # candidates that climb together
CLIMB_STEPS, CLIMB_RATE = 150, 0.05  # of Adam, over standardised inputs
LENGTHS = (0.5, 3.0)  # the range of the first lengths of a candidate's weights, over standardised inputs
UNEVEN = 5.0  # inputs keep their proportions where the ratio of their standard deviations is larger
DISTINCT = 0.95  # candidates with a larger cosine are one
QUERIES_PER_WEIGHT = 8  # at least: by 1,000 queries, no neuron of 784 inputs explained more than the best of many neurons does of noise
DEPENDENT = 1e-10  # activations count as linearly dependent on others below this share of the square that is their own


@dataclass(frozen=True)
class Growth:
    """A network with one neuron more.

    Attributes:
        gain: the share of the squared residual that the neuron explains, with the layer behind it refitted, to first order.
        depth: the hidden layer of the neuron, counted from 1.
        layers: all layers, the output layer last; the new neuron is the last of its layer.
    """

    gain: float
    depth: int
    layers: Layers

    @property
    def is_on_top(self) -> bool:
        """Whether the neuron is in the last hidden layer."""
        return self.depth == len(self.layers) - 1

    @property
    def weights(self) -> int:
        """The number of the neuron's incoming and outgoing weights, with its bias."""
        return self.layers.vectors[self.depth - 1].shape[1] + len(self.layers.vectors[self.depth])


@dataclass(frozen=True)
class _Residual:
    """What a network leaves unexplained, as seen from the layer behind a hidden layer.

    That layer has L units. M of them interact: L, or 1 where it is the output layer, whose units can be fitted one by one.

    Attributes:
        inputs: of the hidden layer, standardised, `[Q, D - 1]`.
        pull: the residuals times the derivatives of the outputs by the units' pre-activations, `[Q, L]`.
        curvature: the products of the derivatives by two units, summed over outputs, `[Q, M M]`.
        explained: the derivatives times orthonormal directions in which the layer behind can move already, `[Q, F M]`.
        size: the sum of the squared residuals.
    """

    inputs: torch.Tensor
    pull: torch.Tensor
    curvature: torch.Tensor
    explained: torch.Tensor
    size: float

    def gains(self, activations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The share of the residual that neurons with activations `[N, Q]` explain, `[N]`, and their outgoing weights, `[N, L]`.

        Both are those of least squares over the outgoing weights, with all that the layer behind can do already taken out.
        """
        units = math.isqrt(self.curvature.shape[1])
        whole = (activations.square() @ self.curvature).unflatten(1, (units, units))
        known = (activations @ self.explained).unflatten(1, (-1, units))
        ridge = (DEPENDENT * whole.diagonal(dim1=1, dim2=2).mean(1)).clamp_min(torch.finfo(whole.dtype).tiny)
        ridge = ridge[:, None, None] * torch.eye(units, dtype=whole.dtype, device=whole.device)
        pull = (activations @ self.pull).unflatten(1, (units, -1))
        outgoing = torch.linalg.solve(whole - known.transpose(1, 2) @ known + ridge, pull)
        return (outgoing * pull).sum((1, 2)) / self.size, outgoing.flatten(1)


def grow(session: Session, start: Fit, location: str, only_few: bool = False) -> list[Fit]:
    """Adds neurons to a fitted network that lacks some, one at a time, and fits all of it again after each.

    Args:
        session: the extraction.
        start: the network.
        location: the path that the folders of the runs begin with.
        only_few: whether to give up at the first neuron that leaves more than half of the loss, so that many others are lacking.

    Returns:
        The fit before, then the fits with one neuron more each, up to the exact network, or the last that was worth its neuron.
    """
    fits, most = [start], max(LEAST_GROWN, math.ceil(MOST_GROWN * start.neurons))
    if relative_loss(start.network, session.loaders.train) > GROWABLE:
        return fits
    while len(fits) <= most and not is_exact(fits[-1].network, session.loaders.train):
        best, loss = None, relative_loss(fits[-1].network, session.loaders.train)
        least = (HALVED if only_few else WORTHWHILE) * loss
        for number, growth in enumerate(promising(fits[-1].network, session)[: 1 if only_few else GROWTHS]):
            layers = with_resolved_signs(growth.layers, session) if growth.is_on_top else growth.layers
            trial = fit_or_none(session, layers, f"{location}_{len(fits)}_{number + 1}")
            if trial is None:
                continue
            left = relative_loss(trial.network, session.loaders.train)
            if left <= least:
                best, least = trial, left
            if left <= FOUND * loss:
                break
        if best is None:
            break
        fits.append(best)
    if is_exact(fits[-1].network, session.loaders.train):
        fits[-1] = without_excess(session, fits[-1], f"{location}_excess")
    return fits


def without_excess(session: Session, exact: Fit, location: str) -> Fit:
    """An exact network without the neurons that others replace once they are merged or change sign, and all are fitted again.

    Where signs are open, a neuron may grow as the opposite of another, or far from all queries, and make good for wrong signs of others.

    Args:
        session: the extraction.
        exact: the network.
        location: the path that the folders of the runs begin with.
    """
    trials, is_smaller = 0, session.symmetry.slope != 0
    while is_smaller:
        is_smaller = False
        candidates = sorted((_loss(session, layers), place, layers) for place, layers in enumerate(_replaced(session, exact)))
        for _, _, layers in [candidate for candidate in candidates if candidate[0] <= REPLACED][:GROWTHS]:
            trials += 1
            trial = fit(session, layers, f"{location}_{trials}")
            if trial.neurons < exact.neurons and is_exact(trial.network, session.loaders.train):
                exact, is_smaller = trial, True
                break
    return exact


def _replaced(session: Session, exact: Fit) -> Iterator[Layers]:
    """The layers of a network with neurons merged that are active for the same queries, then without a neuron of the last layer.

    The signs of the other neurons are resolved, which takes seconds for layers of hundreds of inputs. So this is done only for neurons
    without which some signs may leave a loss of at most REPLACED.
    """
    merged = merged_where_equally_active(Layers.of(exact.network), session.queries)
    if merged is not None:
        yield merged
    last = len(exact.network.sizes) - 2
    losses = least_losses_without(Layers.of(exact.network), session.queries, session.answers)
    for removal in removals(exact.network, session.queries):
        if removal.depth == last and losses[removal.neuron] <= SURELY * REPLACED:
            layers = with_resolved_signs(removal.layers, session)
            if layers.sizes[-2] < exact.network.sizes[-2]:  # no unit was added that never switches
                yield layers


def _loss(session: Session, layers: Layers) -> float:
    """The relative loss of a network with these layers."""
    network, _ = layers.to_network(session.students_hparams)
    return relative_loss(network, session.loaders.train)


def promising(network: FullyConnected, session: Session) -> list[Growth]:
    """The growths of a network that explain more than noise, those that explain most first.

    The best of many neurons explains about a share P / E of noise, with P the neuron's weights and E the equations.
    """
    candidates = growths(network, session.queries, session.answers, session.seed)
    equations = some_of(session.answers, probes(network)).numel()
    return [growth for growth in candidates if growth.gain > NOISE * growth.weights / equations]


def with_resolved_signs(layers: Layers, session: Session) -> Layers:
    """The layers with the signs of the last hidden layer as least squares over all queries shows them, and the output layer of these."""
    last, below = layers.vectors[-2], layers.replace(*layers.vectors[:-2])
    inputs = below.activations(session.queries)
    last = settled(last, layers.act_fun, inputs, session.answers, session.seed)
    return below.followed_by(last, fit_outputs(layers.replace(last).activations(inputs), session.answers).T)


def probes(network: FullyConnected) -> int:
    """The largest number of queries that growths are sought by: several for each weight of a neuron."""
    return max(PROBES, QUERIES_PER_WEIGHT * max(network.sizes[:-2]))


def growths(network: FullyConnected, queries: torch.Tensor, answers: torch.Tensor, seed: int) -> list[Growth]:
    """A fitted network with one neuron more, in each hidden layer and from several starts, those that explain most first.

    Candidates climb together by Adam: each from random weights, towards the largest share of the residual that its neuron explains once its
    outgoing weights are those of least squares (orthogonal matching pursuit). Where signs are open, linear maps of the layer's inputs count
    as explained, since other neurons can change sign. A deeper network is linearised behind the layer.

    Args:
        network: in float64.
        queries: `[Q, inputs]`; some of them are used.
        answers: `[Q, O]`.
        seed: of the random weights.
    """
    x, y = (some_of(each, probes(network)) for each in (queries, answers))
    layers, found = Layers.of(network), []
    for depth in range(1, len(layers)):
        generator = torch.Generator().manual_seed(derive(seed, "growth", depth))
        found += _growths_of_layer(layers, depth, x, y, generator)
    return sorted(found, key=lambda growth: -growth.gain)


def _growths_of_layer(layers: Layers, depth: int, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator) -> list[Growth]:
    """The growths of one hidden layer, at most one for each start."""
    inputs = layers.replace(*layers.vectors[: depth - 1]).activations(x)
    scale = Standardisation.of(inputs)
    if depth == 1 and scale.spread.max() > UNEVEN * scale.spread.min():  # answers are scarce, see `coordinates.Coordinates.of_inputs`
        scale = dataclasses.replace(scale, spread=scale.spread.square().mean().sqrt().expand_as(scale.spread))
    residual = _residual(layers, depth, inputs, scale.apply(inputs), y)
    incoming = _climb(residual, layers, generator)
    with torch.no_grad():
        gains, outgoing = residual.gains(layers.activation(with_ones(residual.inputs) @ incoming.T).T)
    directions = torch.nn.functional.normalize(incoming, dim=1)
    alike = (directions @ directions.T).abs() if layers.symmetry.opposite_looks_alike else directions @ directions.T
    chosen: list[int] = []
    for place in torch.argsort(gains, descending=True).tolist():
        if not any(alike[place, other] > DISTINCT for other in chosen):
            chosen.append(place)
    incoming = scale.undo(incoming)
    return [Growth(float(gains[place]), depth, _with_neuron(layers, depth, incoming[place], outgoing[place])) for place in chosen]


def _with_neuron(layers: Layers, depth: int, incoming: torch.Tensor, outgoing: torch.Tensor) -> Layers:
    """The layers with one neuron more in hidden layer `depth`: incoming `[D]`, outgoing `[L]`."""
    layer, following = layers.vectors[depth - 1 : depth + 1]
    layer, following = torch.cat([layer, incoming[None]]), torch.cat([following[:, :-1], outgoing[:, None], following[:, -1:]], 1)
    return layers.replace(*layers.vectors[: depth - 1], layer, following, *layers.vectors[depth + 1 :])


def _climb(residual: _Residual, layers: Layers, generator: torch.Generator) -> torch.Tensor:
    """The incoming vectors of the candidates over standardised inputs, `[N, D]`, after they have climbed."""
    queries, width = residual.inputs.shape
    weights = torch.nn.functional.normalize(torch.randn(STARTS, width, generator=generator, dtype=torch.float64), dim=1)
    low, high = map(math.log, LENGTHS)
    weights = weights * (low + (high - low) * torch.rand(STARTS, 1, generator=generator, dtype=torch.float64)).exp()
    through = residual.inputs[torch.randint(queries, (STARTS,), generator=generator).to(residual.inputs.device)]
    weights = weights.to(through)
    vectors = torch.cat([weights, -(weights * through).sum(1, keepdim=True)], 1).requires_grad_()
    optimizer = torch.optim.Adam([vectors], CLIMB_RATE)
    inputs = with_ones(residual.inputs)
    for step in range(CLIMB_STEPS):
        optimizer.param_groups[0]["lr"] = CLIMB_RATE * (1 - step / CLIMB_STEPS)
        gains, _ = residual.gains(layers.activation(vectors @ inputs.T))
        (vectors.grad,) = torch.autograd.grad(-gains.clamp_min(1e-12).log().sum(), [vectors])
        optimizer.step()
    return vectors.detach()


def _residual(layers: Layers, depth: int, inputs: torch.Tensor, standardised: torch.Tensor, y: torch.Tensor) -> _Residual:
    """What the network leaves unexplained, seen from the layer behind hidden layer `depth`, for its inputs `[Q, D - 1]`."""
    layer, following, *rest = layers.vectors[depth - 1 :]
    activations = layers.replace(layer).activations(inputs)
    outputs = pre_activations = (with_ones(activations) @ following.T).requires_grad_()
    for vectors in rest:
        outputs = with_ones(layers.activation(outputs)) @ vectors.T
    derivatives = outputs.new_ones(len(outputs), 1, 1)
    if rest:
        columns = [torch.autograd.grad(column.sum(), pre_activations, retain_graph=True)[0] for column in outputs.unbind(1)]
        derivatives = torch.stack(columns, 1)
    queries, equations, units = derivatives.shape
    features = with_ones(torch.cat([activations, standardised], 1) if layers.symmetry.slope else activations)
    movable = torch.einsum("qem,qf->qefm", derivatives, features).reshape(queries * equations, -1)
    values, vectors = torch.linalg.eigh(movable.T @ movable)
    independent = values > DEPENDENT * values.max()
    directions = movable @ (vectors[:, independent] / values[independent].sqrt())
    missing = (y - outputs.detach()).reshape(queries * equations, -1)
    missing = (missing - directions @ (directions.T @ missing)).view(queries, equations, -1)
    return _Residual(
        standardised,
        torch.einsum("qec,qem->qmc", missing, derivatives).flatten(1),
        torch.einsum("qel,qem->qlm", derivatives, derivatives).flatten(1),
        torch.einsum("qef,qem->qfm", directions.view(queries, equations, -1), derivatives).flatten(1),
        float(missing.square().sum()),
    )

"""A linear map of the inputs that is added to the outputs of a network: a skip connection, found by a fit of both together.

Where s(x) = s(-x) + x, units that never switch add a linear map by themselves (`extraction/linear.py`). With tanh, sigmoid and g none do,
so that no plain network gives such answers. Students approximate the map by neurons with small weights, beside those of the network. So
the outputs of the neurons that students share are fitted with the inputs as further features. Where this explains much, network and map are
fitted together, and neurons that the map replaces are removed. If both then give the answers exactly, the rest of the extraction is that of
a plain network, from the answers less the map.

Axes: Q queries, D inputs, O outputs, P parameters of the network.
"""

from __future__ import annotations

import copy
import io
import math
import os
from collections.abc import Iterator

import numpy as np
import torch

from datasets.base import DataLoader
from extraction.answers import spreads
from extraction.descent import descend, has_stalled
from extraction.fitting import EQUATIONS_PER_UNKNOWN, EXACT, Fit, fit, is_exact
from extraction.host import to_host
from extraction.network import Layers, fit_outputs, unknowns_of
from extraction.session import Session
from extraction.symmetry import symmetries
from models.mlp import FullyConnected, with_ones
from platforms.platform import get_platform
from training.least_squares import unit_curvature
from training.second_order import DENSE_PARAMETERS

FILE = "linear_term.npy"
PAYS = 3.0  # a map is looked for where the squared error without it is this many times as large, or more
NEARLY = 1e-2  # the relative squared error of network and map, before they are fitted together, up to which they are
STEPS = 100  # of a fit of both
STALL = 25  # steps in which the squared error should at least halve
WORSE = 100.0  # a fit without a neuron counts as equally good up to this many times the squared error with it


class WithLinearTerm(torch.nn.Module):
    """A network plus a linear map of its inputs, `[O, D]`."""

    def __init__(self, network: FullyConnected, linear: torch.Tensor):
        super().__init__()
        self.network, self.linear = network, torch.nn.Parameter(linear)

    def forward(self, queries: torch.Tensor) -> torch.Tensor:
        """Outputs `[Q, O]` for queries `[Q, D]`."""
        return self.network(queries) + queries @ self.linear.T


def is_possible(act_fun: str) -> bool:
    """Whether a linear map of the inputs can be told from neurons with this activation function."""
    return symmetries[act_fun].slope == 0 and act_fun != "identity"


@torch.no_grad()
def gain(layers: Layers, queries: torch.Tensor, answers: torch.Tensor) -> tuple[float, float]:
    """The squared error of the best outputs over the last hidden layer, without and with the inputs, as shares of the variance.

    Args:
        layers: the output layer last.
        queries: `[Q, D]`.
        answers: `[Q, O]`.
    """
    activations, wanted = layers.all_but_last.activations(queries), answers / spreads(answers)
    losses = []
    for features in (activations, torch.cat([activations, queries], 1)):
        losses.append(float((with_ones(features) @ fit_outputs(features, wanted) - wanted).square().mean()))
    return losses[0], losses[1]


def with_linear_term(session: Session, layers: Layers, location: str) -> tuple[Session, Fit] | None:
    """The network beside a linear map of the inputs, and the session with the answers less this map.

    Args:
        session: the extraction.
        layers: of the network that students share, the output layer last.
        location: the path that the folder of the fit begins with.

    Returns:
        None unless network and map give the answers exactly.
    """
    if not is_possible(layers.act_fun):
        return None
    without, beside = gain(layers, session.queries, session.answers)
    network, _ = layers.to_network(session.students_hparams)
    if beside > NEARLY or without < PAYS * beside or unknowns_of(network) > DENSE_PARAMETERS:
        return None
    session.say("A linear map of the inputs explains much of what the network does not: fitting both together")
    model = _without_excess(session, _fitted(session, _started(layers, session)))
    if _loss(model, session.loaders.train) > EXACT**2:
        return None
    session = session.less_linear_map(model.linear.detach())
    found = fit(session, Layers.of(model.network), location)
    return (session, found) if is_exact(found.network, session.loaders.train) else None


def _started(layers: Layers, session: Session) -> WithLinearTerm:
    """A network with outputs and a linear map that least squares fit to the answers."""
    activations = layers.all_but_last.activations(session.queries)
    weights = fit_outputs(torch.cat([activations, session.queries], 1), session.answers).T
    outgoing, linear = torch.cat([weights[:, : activations.shape[1]], weights[:, -1:]], 1), weights[:, activations.shape[1] : -1]
    network, _ = layers.all_but_last.followed_by(outgoing).to_network(session.students_hparams)
    return WithLinearTerm(network, linear.clone())


def _fitted(session: Session, model: WithLinearTerm) -> WithLinearTerm:
    """The model after Levenberg-Marquardt steps on the answers, in place."""
    unknowns = unknowns_of(model)
    queries, outputs = session.answers.shape
    places = torch.linspace(0, queries - 1, min(queries, -(-EQUATIONS_PER_UNKNOWN * unknowns // outputs))).long().to(session.queries.device)
    descend(model, session.queries[places], session.answers[places], STEPS, has_stalled(STALL))
    return model


def _without_excess(session: Session, model: WithLinearTerm) -> WithLinearTerm:
    """The model without the neurons of the last hidden layer that the map and the others replace, as long as the fit is as good."""
    loss = _loss(model, session.loaders.train)
    while True:
        lost, layers = _least_needed(session, model)
        if layers is None or lost > WORSE * math.sqrt(loss) or (loss <= EXACT**2 and lost > EXACT):
            break
        trial = _fitted(session, _started(layers, session))
        after = _loss(trial, session.loaders.train)
        if not after <= max(WORSE * loss, EXACT**2):
            break
        model, loss = trial, after
    return model


def _least_needed(session: Session, model: WithLinearTerm) -> tuple[float, Layers | None]:
    """The layers without the neuron whose removal costs least once outputs and map are fitted again, and that cost, relative."""
    layers, best = Layers.of(model.network), (math.inf, None)
    for removed in _without_each(layers):
        _, left = gain(removed, session.queries, session.answers)
        best = min(best, (math.sqrt(left), removed), key=lambda pair: pair[0])
    return best


def _without_each(layers: Layers) -> Iterator[Layers]:
    """The layers without each neuron of the last hidden layer in turn; none where it has one neuron."""
    width = layers.sizes[-2]
    for neuron in range(width if width > 1 else 0):
        following = torch.cat([layers.vectors[-1][:, :neuron], layers.vectors[-1][:, neuron + 1 :]], 1)
        yield layers.without_neuron(len(layers) - 1, neuron, following)


@torch.no_grad()
def _loss(model: torch.nn.Module, loader: DataLoader) -> float:
    """The largest mean squared error of an output, as a share of its variance."""
    return float(((model(loader.examples) - loader.labels) / spreads(loader.labels)).square().mean(0).max())


def ambiguous(linear: torch.Tensor | None, act_fun: str) -> int:
    """How many weights of a linear map, `[O, D]`, may be those of units: all with g, which is linear far above 0; none with others."""
    return linear.numel() if linear is not None and act_fun == "g" else 0


def remarks(linear: torch.Tensor | None, act_fun: str) -> list[str]:
    """What is open of a linear map, `[O, D]`, or of its absence, a sentence each."""
    return ["the linear map may be that of units which never come near 0 on the queries"] if ambiguous(linear, act_fun) else []


def saved(linear: torch.Tensor | None, folder: str) -> list[str]:
    """Writes a linear map of the user's inputs, `[O, D]`, to a file in the folder of the network beside it.

    Returns:
        What is to be said of the map, a sentence; nothing where there is none.
    """
    if linear is None:
        return []
    content, path = io.BytesIO(), os.path.join(folder, FILE)
    np.save(content, to_host(linear))
    get_platform().write(path, content.getvalue())
    return [f"the answers are network(X) + X @ A.T: a linear map of X is added (a skip connection), with A in {FILE} beside the network"]


def beside(network: FullyConnected) -> WithLinearTerm:
    """A copy of a network with a linear map of zeros, whose weights are unknowns as well."""
    network = copy.deepcopy(network)
    return WithLinearTerm(network, network.layer_vectors()[0].new_zeros(network.sizes[-1], network.sizes[0]))


def determination(network: FullyConnected, loader: DataLoader) -> tuple[int, float | None]:
    """How well answers determine a network whose answers may contain any linear map of the inputs (see `certificate.determination`).

    Args:
        network: in float64, with an activation function for which `is_possible`.
        loader: the queries, and the answers less the linear map.

    Returns:
        The rank of network and map less the number of weights of the map; and the largest deviation of a weight of the network that the
        residual allows, as a share of the largest weight of its layer, None where some combination is open.
    """
    model = beside(network)
    unit, lengths = unit_curvature(model, loader.examples, loader.labels)
    eigenvalues = torch.linalg.eigvalsh(unit)
    rank = int((eigenvalues > len(unit) * torch.finfo(eigenvalues.dtype).eps * eigenvalues.max()).sum())
    known = rank - model.linear.numel()
    if rank < len(unit):
        return known, None
    with torch.no_grad():
        error = float((model(loader.examples) - loader.labels).norm()) + torch.finfo(lengths.dtype).eps * float(loader.labels.norm())
    vectors = network.layer_vectors()
    largest = torch.cat([each.abs().max().expand(each.numel()) for each in vectors])
    place = [name for name, _ in model.named_parameters()].index("linear")
    sizes = [parameter.numel() for parameter in model.parameters()]
    parts = lengths.split(sizes)
    lengths = torch.cat([part for number, part in enumerate(parts) if number != place])
    return known, float((error / (lengths * math.sqrt(float(eigenvalues.min()))) / largest).max())

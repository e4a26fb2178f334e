"""Queries by gradient ascent: where combinations of weights show in the outputs, and where hidden layers have extreme activations.

Axes: N starts, D columns of the user's inputs, C columns of the network's inputs, F open combinations, P parameters, Q queries, K neurons
of a layer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from extraction.live.box import Box
from extraction.network import Layers
from extraction.session import Session
from models.mlp import FullyConnected, with_ones

ASCENTS = 64  # for each combination; fewer where there are many
MOST_ASCENTS = 1024
STARTS, MOST_QUERIES = 8, 64  # queries for each combination, at least, and of all where these are few
NEAREST = 16  # queries at which a combination shows most, from which ascents start
CLIMB_STEPS, CLIMB_RATE = 100, 0.03  # of Adam, in units of the box
SMOOTH = (0.5, 0.01)  # the width of a kink during the ascent, as a share of the spread of the layer's pre-activations: first and last
SHOWS = 1e-8  # a combination shows where the outputs change by more than this share of the largest change of weights
ALONE = 8  # ascents to inputs where a neuron is active and the others of its layer are not
MIXTURES = 128  # ascents to inputs where a hidden layer has extreme activations, for each layer


def extremes(session: Session, layers: Layers, depth: int, box: Box, generator: torch.Generator) -> torch.Tensor:
    """Queries in a box where hidden layer `depth` has extreme activations, `[N, D]`.

    A neuron of the next layer that no query activates may be active there: where one neuron of this layer is active and the others are
    not, or at a mixture of them, drawn so that few count. The activations, in units of their spread, climb along a direction of length 1
    that has the signs and shares of the mixture.
    """
    part, scaling = layers.replace(*layers.vectors[:depth]), session.scaling
    width, own = len(part.vectors[-1]), (session.own or session.loaders).train.examples
    alone = 2 * torch.eye(width, dtype=torch.float64).repeat(ALONE, 1) - 1
    mixtures = torch.randn(MIXTURES, width, generator=generator, dtype=torch.float64) ** 3
    directions = torch.cat([alone, mixtures]).to(own)
    scales = _pre_activation_scales(layers, session.queries)[:depth]

    def height(x: torch.Tensor, smooth: float) -> torch.Tensor:
        values = scaling.inputs.apply(x) if scaling else x
        for vectors, scale in zip(part.vectors, scales, strict=True):
            values = _smooth(layers, smooth * scale)(with_ones(values) @ vectors.T)
        return (directions * torch.nn.functional.normalize(values, dim=1)).sum(1)

    start = own[torch.randint(len(own), (len(directions),), generator=generator).to(own.device)]
    return _ascended(start, box, height)


def _ascended(start: torch.Tensor, box: Box, height: Callable[[torch.Tensor, float], torch.Tensor]) -> torch.Tensor:
    """Where ascents by Adam of some heights end, which start at queries `[N, D]` and stay in a box; all `[N, D]`.

    Args:
        start: `[N, D]`.
        box: the bounds.
        height: of queries `[N, D]`, each for itself, with kinks of a width that falls from the first of SMOOTH to the last: `[N]`.
    """
    size = torch.where(box.high > box.low, box.high - box.low, 0.0)
    places = ((start - box.low) / torch.where(size > 0, size, 1.0)).clamp(0.0, 1.0).requires_grad_()
    optimizer = torch.optim.Adam([places], CLIMB_RATE)
    for step in range(CLIMB_STEPS):
        done = step / (CLIMB_STEPS - 1)
        heights = height(box.low + size * places, SMOOTH[0] ** (1 - done) * SMOOTH[1] ** done)
        (places.grad,) = torch.autograd.grad(-heights.sum(), places)
        optimizer.step()
        places.data.clamp_(0.0, 1.0)
    return (box.low + size * places).detach()


def climb(session: Session, network: FullyConnected, combinations: torch.Tensor, box: Box, generator: torch.Generator) -> torch.Tensor:
    """Queries in a box at which combinations of weights `[F, P]` show, `[N, D]`; none where they do not.

    A few combinations have more than STARTS each: a neuron may be active at such a query in the network and not in the teacher, which only
    bounds a weight, and more queries bound it more closely.

    Every ascent starts at a query. Kinks are smooth during the ascent, and less and less so: the gradient of a neuron that is not active is
    zero. An ascent gives two queries: its end, and one at random on the way from its start, if the combination shows there.
    """
    layers, scaling = Layers.of(network), session.scaling
    count = max(STARTS // 2, min(ASCENTS, MOST_ASCENTS // len(combinations)))
    changes = as_vectors(combinations.repeat_interleave(count, 0), layers)
    scales = _pre_activation_scales(layers, session.queries)

    def sensitivity(x: torch.Tensor, smooth: float) -> torch.Tensor:
        return _sensitivity(layers, changes, scaling.inputs.apply(x) if scaling else x, [smooth * scale for scale in scales])

    start = torch.cat([_starts(session, layers, each, count, generator) for each in combinations]).clamp(box.low, box.high)
    end = _ascended(start, box, lambda x, smooth: sensitivity(x, smooth).clamp_min(torch.finfo(x.dtype).tiny).log())
    between = start + torch.rand(len(end), 1, generator=generator, dtype=torch.float64).to(end) * (end - start)
    largest, found = combinations.abs().amax(1, keepdim=True), []
    each_way = max(STARTS, MOST_QUERIES // len(combinations)) // 2
    for each in (end, between):
        shows = sensitivity(each, 0.0).detach().sqrt().view(-1, count) > SHOWS * largest
        found.append(each[(shows & (shows.cumsum(1) <= each_way)).flatten()])
    return torch.cat(found)


def _starts(session: Session, layers: Layers, combination: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Queries for training at which ascents of a combination of weights `[P]` start, `[count, D]`.

    Every other one is drawn from the NEAREST queries at which the combination shows most where kinks are smooth, and the others from all.
    """
    own, inside = (session.own or session.loaders).train.examples, session.queries
    most = shown(layers, combination, inside, SMOOTH[0])
    nearest = most.topk(min(NEAREST, len(most))).indices
    chosen = torch.randint(len(own), (count,), generator=generator).to(own.device)
    chosen[::2] = nearest[torch.randint(len(nearest), chosen[::2].shape, generator=generator).to(own.device)]
    return own[chosen]


def shown(layers: Layers, combination: torch.Tensor, queries: torch.Tensor, smooth: float) -> torch.Tensor:
    """How much a combination of weights `[P]` shows at queries `[Q, C]`, with kinks of a share of the spread: `[Q]`; see `_sensitivity`."""
    change = [each.expand(len(queries), -1, -1) for each in as_vectors(combination[None], layers)]
    return _sensitivity(layers, change, queries, [smooth * scale for scale in _pre_activation_scales(layers, queries)]).detach()


def as_vectors(combinations: torch.Tensor, layers: Layers) -> list[torch.Tensor]:
    """Combinations `[N, P]` as changes of incoming vectors, `[N, K, D]` for each layer."""
    found, place = [], 0
    for vectors in layers.vectors:
        outputs, inputs = vectors.shape[0], vectors.shape[1] - 1
        weights = combinations[:, place : place + outputs * inputs].unflatten(1, (outputs, inputs))
        place += outputs * (inputs + 1)
        found.append(torch.cat([weights, combinations[:, place - outputs : place, None]], 2))
    return found


@torch.no_grad()
def _pre_activation_scales(layers: Layers, queries: torch.Tensor) -> list[float]:
    """The spread of the pre-activations of each hidden layer."""
    depths = range(1, len(layers))
    return [float(layers.replace(*layers.vectors[:depth]).pre_activations(queries).std(0).mean()) for depth in depths]


def _sensitivity(layers: Layers, changes: list[torch.Tensor], x: torch.Tensor, widths: list[float]) -> torch.Tensor:
    """The squared change of the outputs for changes of weights, `[N]`, each at a query of its own `[N, C]`, with kinks of some widths."""
    values, moves = x, torch.zeros_like(x)
    for depth, (vectors, change) in enumerate(zip(layers.vectors, changes, strict=True)):
        moves = moves @ vectors[:, :-1].T + torch.einsum("nkd,nd->nk", change, with_ones(values))
        values = with_ones(values) @ vectors.T
        if depth < len(widths):
            sums = values if values.requires_grad else values.requires_grad_()
            values = _smooth(layers, widths[depth])(sums)
            moves = moves * torch.autograd.grad(values.sum(), sums, create_graph=True)[0]
    return moves.square().sum(1)


def _smooth(layers: Layers, width: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """The activation function, its kink of some width where it has one."""
    if not layers.symmetry.positive_scaling or width == 0:
        return layers.activation
    leak = -1 - layers.symmetry.slope  # s(x) = leak x far below 0
    return lambda sums: leak * sums + (1 - leak) * width * torch.nn.functional.softplus(sums / width)

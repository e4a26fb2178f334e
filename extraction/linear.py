"""Units that never switch on the queries: there the activation function is linear, and the answers tell only a linear map.

A relu unit that is active for all queries adds a linear map of the layer's inputs, of rank one. So do gelu, silu and softplus units far
out, and leaky_relu units on either side. Several of them add one map, and any units with the same sum give the same answers: their number
and their biases are open, and the signs of other neurons where the map has full rank. The map is found by least squares, with the signs
of the other neurons that leave a map of the smallest rank. As many units as its rank carry it, so that the network stays a plain one.

Axes: K neurons of a layer, D inputs with the bias last, Q queries, O outputs, N choices of signs, R units that never switch.
"""

from __future__ import annotations

import torch

from extraction.network import Layers, fit_outputs, fit_outputs_beside
from extraction.signs import resolve_signs
from extraction.symmetry import Symmetry, symmetries
from foundations.seeds import derive
from models.mlp import with_ones

PAYS = 100.0  # a linear map is wanted where the squared error without it is this many times as large
UNEXPLAINED = 1e-3  # of the variance of the sums of the next layer, which students show up to such a share
NOTHING = 1e-20  # a squared error, as a share of the variance of the answers, that counts as none
MARGIN = 0.5  # the distance of a unit's kink from the queries, as a share of the range of its pre-activations
FAR = 40.0  # the pre-activation above which softplus, gelu and silu are the identity in float64
EVERY_CHOICE = 12  # signs of so many neurons are all tried; those of more neurons are improved from several starts
STARTS = 64
BITS = 20  # of a tolerance of 1e-6: a condition holds by chance for one in so many powers of two of the choices


@torch.no_grad()
def linear_slopes(layers: Layers, queries: torch.Tensor) -> list[torch.Tensor]:
    """The slopes of the units of each hidden layer that are linear for all queries `[Q, inputs]`; 0 for those that switch or are constant.

    Args:
        layers: of a network, the output layer last.
        queries: `[Q, inputs]`.

    Returns:
        `[K]` for each hidden layer.
    """
    found = []
    for layer in layers.vectors[:-1]:
        found.append(_slopes(layers.replace(layer), queries))
        queries = layers.replace(layer).activations(queries)
    return found


def _slopes(layer: Layers, inputs: torch.Tensor) -> torch.Tensor:
    """The slopes of the units of one layer, `[K]`, for its inputs `[Q, D - 1]`, as in `linear_slopes`."""
    sums = layer.pre_activations(inputs)
    if layer.symmetry.slope == 0:
        return sums.new_zeros(sums.shape[1])
    values, below = layer.activation(sums), -1 - layer.symmetry.slope  # s(x) = s(-x) - slope x, and s(-x) = -x for x far below 0
    rounding = 4 * torch.finfo(sums.dtype).eps * sums.abs().amax(0)
    above, under = (((values - slope * sums).abs() <= rounding).all(0) for slope in (1.0, below))
    return torch.where(above, 1.0, torch.where(under, below, 0.0)).to(sums)


@torch.no_grad()
def with_linear_units(layer: torch.Tensor, act_fun: str, inputs: torch.Tensor, answers: torch.Tensor, seed: int) -> torch.Tensor | None:
    """The last hidden layer with units that never switch, where a linear map of its inputs explains much of what the layer does not.

    Args:
        layer: its neurons, `[K, D]`; those that never switch are replaced.
        act_fun: their activation function.
        inputs: of the layer, `[Q, D - 1]`.
        answers: `[Q, O]`.
        seed: of the choices of signs that are tried first.

    Returns:
        The other neurons, some of them as their opposites, and the units behind them; None where no linear map is needed.
    """
    problem = _Problem.of(layer, act_fun, inputs, answers)
    if problem is None:
        return None
    enough = max(PAYS * problem.free, NOTHING)
    return problem.with_units(enough, seed) if problem.loss(layer) > enough else None


@torch.no_grad()
def between(layer: torch.Tensor, act_fun: str, inputs: torch.Tensor, sums: torch.Tensor, seed: int) -> torch.Tensor | None:
    """A hidden layer below another one with units that never switch, where the next layer needs a linear map of the inputs beside it.

    Args:
        layer: its neurons, `[K, D]`.
        act_fun: their activation function.
        inputs: of the layer, `[Q, D - 1]`.
        sums: the weighted sums of the next layer, as students show them, `[Q, L]`.
        seed: see `with_linear_units`.

    Returns:
        None where the layer explains the sums but for a share UNEXPLAINED; the layer with other signs alone where that is enough.
    """
    problem = _Problem.of(layer, act_fun, inputs, sums)
    if problem is None or problem.loss(layer) <= UNEXPLAINED:
        return None
    turned = problem.turned(problem.signs_of_least_rank(0, seed))
    return turned if problem.loss(turned) <= UNEXPLAINED else problem.with_units(UNEXPLAINED, seed)


def settled(layer: torch.Tensor, act_fun: str, inputs: torch.Tensor, answers: torch.Tensor, seed: int) -> torch.Tensor:
    """The last hidden layer with the right signs, and with the units that never switch that it needs; the arguments are those above."""
    switching = layer[_slopes(Layers((layer,), act_fun), inputs) == 0]
    turned, _ = resolve_signs(switching, act_fun, inputs, answers)
    more = with_linear_units(turned, act_fun, inputs, answers, seed)
    return turned if more is None else more


def with_linear_map(layers: Layers, queries: torch.Tensor, answers: torch.Tensor, seed: int) -> Layers | None:
    """The layers of a network with the units that never switch that its last hidden layer needs, and with outputs fitted to the answers.

    Args:
        layers: the output layer last.
        queries: `[Q, inputs]`.
        answers: `[Q, O]`.
        seed: see `with_linear_units`.

    Returns:
        None where no linear map is needed.
    """
    below, last = layers.replace(*layers.vectors[:-2]), layers.vectors[-2]
    inputs = below.activations(queries)
    more = with_linear_units(last, layers.act_fun, inputs, answers, seed)
    return None if more is None else below.followed_by(more, fit_outputs(layers.replace(more).activations(inputs), answers).T)


def remarks(layers: Layers, queries: torch.Tensor, signs_settled: bool) -> list[str]:
    """What units that never switch leave open, a sentence for each layer; and signs that are open.

    Args:
        layers: the output layer last.
        queries: `[Q, inputs]`.
        signs_settled: whether no neurons can change sign together.
    """
    found = []
    for depth, slopes in enumerate(linear_slopes(layers, queries), 1):
        units = [str(place) for place in torch.nonzero(slopes)[:, 0].tolist()]
        if units:
            carriers = f"neuron {units[0]} carries" if len(units) == 1 else f"neurons {', '.join(units[:-1])} and {units[-1]} carry"
            found.append(
                f"units of hidden layer {depth} that never switch on the queries add a linear map of rank {len(units)}, which {carriers}: "
                "the answers tell the map, but not from how many units or from which skip connection it comes, nor biases of such units"
            )
    if not signs_settled:
        found.append("some neurons can change sign together without a change of the function")
    return found


class _Problem:
    """The layer, its inputs and the answers, standardised; the linear map that remains for any choice of signs.

    Attributes:
        layer: the neurons that switch, `[K, D]`.
        free: the mean squared error of the best outputs over them and the inputs, as a share of the variance.
        linear: the map of least squares beside them, from inputs of unit covariance to standardised outputs, `[O, D - 1]`.
        maps: what each neuron takes from that map when it is turned to its opposite, `[K, O, D - 1]`.
    """

    def __init__(self, layer: torch.Tensor, act_fun: str, inputs: torch.Tensor, answers: torch.Tensor):
        self.layers, self.inputs = Layers((layer,), act_fun), inputs
        self.answers = (answers - answers.mean(0)) / answers.std(0).clamp_min(torch.finfo(answers.dtype).tiny)
        self.layer = layer
        centred = inputs - inputs.mean(0)
        values, directions = torch.linalg.eigh(centred.T @ centred / len(inputs))
        spread = torch.where(values > 1e-20 * values.max(), values, 0.0).sqrt()
        self.root = directions * spread @ directions.T
        self.inverse = directions * torch.where(spread > 0, 1 / spread, 0.0) @ directions.T
        activations = self.activations(layer)
        weights = fit_outputs_beside(activations, inputs, self.answers)
        self.free = float((with_ones(torch.cat([activations, inputs], 1)) @ weights - self.answers).square().mean())
        outgoing, linear = weights[: len(layer)], weights[len(layer) : -1]
        self.linear = linear.T @ self.root
        slope = symmetries[act_fun].slope
        self.maps = slope * torch.einsum("ko,kd->kod", outgoing, layer[:, :-1] @ self.root)

    @classmethod
    def of(cls, layer: torch.Tensor, act_fun: str, inputs: torch.Tensor, answers: torch.Tensor) -> _Problem | None:
        """The problem of the neurons that switch; None where linear maps of the inputs are no sums of units."""
        if symmetries[act_fun].slope == 0:
            return None
        return cls(layer[_slopes(Layers((layer,), act_fun), inputs) == 0], act_fun, inputs, answers)

    def activations(self, layer: torch.Tensor) -> torch.Tensor:
        """The activations of a layer `[K, D]`, `[Q, K]`."""
        return self.layers.replace(layer).activations(self.inputs)

    def loss(self, layer: torch.Tensor, *more: torch.Tensor) -> float:
        """The mean squared error of the best outputs over a layer and more features `[Q, F]`, as a share of the variance."""
        features = torch.cat([self.activations(layer), *more], 1)
        return float((with_ones(features) @ fit_outputs(features, self.answers) - self.answers).square().mean())

    def turned(self, signs: torch.Tensor) -> torch.Tensor:
        """The neurons with those turned to their opposites that have a one in `[K]`."""
        return torch.where(signs[:, None] > 0.5, -self.layer, self.layer)

    def with_units(self, enough: float, seed: int) -> torch.Tensor | None:
        """The neurons with units of the smallest rank behind them that leave a loss of `enough` or less; None where the map is zero."""
        full = min(self.inputs.shape[1], self.answers.shape[1])
        for rank in range(1, full + 1):
            turned = self.turned(self.signs_of_least_rank(rank, seed)) if rank < full else self.layer
            units = self.units(turned, rank)
            if rank == full or self.loss(torch.cat([turned, units])) <= enough:
                return torch.cat([turned, units])
        return None

    def units(self, turned: torch.Tensor, rank: int) -> torch.Tensor:
        """Units that never switch, which carry the map of a rank that remains beside some neurons, `[R, D]`."""
        weights = fit_outputs_beside(self.activations(turned), self.inputs, self.answers)
        _, _, directions = torch.linalg.svd(weights[len(turned) : -1].T @ self.root, full_matrices=False)
        return never_off(directions[:rank] @ self.inverse, self.inputs, not self.layers.symmetry.positive_scaling)

    def excess(self, signs: torch.Tensor, rank: int) -> torch.Tensor:
        """The squared part of the remaining maps beyond their best approximations of a rank, for choices `[N, K]`: `[N]`."""
        maps = self.linear - torch.einsum("nk,kod->nod", signs, self.maps)
        return _beyond(maps, rank)

    def signs_of_least_rank(self, rank: int, seed: int) -> torch.Tensor:
        """Which neurons are turned where the remaining map is nearest to a rank, `[K]`: ones and zeros."""
        count = len(self.layer)
        if count <= EVERY_CHOICE:
            signs = _all_choices(count).to(self.layer)
            return signs[self.excess(signs, rank).argmin()]
        generator = torch.Generator().manual_seed(derive(seed, "signs", rank))
        signs = torch.randint(2, (STARTS, count), generator=generator).to(self.layer)
        signs[0] = 0.0
        best, flips = self.excess(signs, rank), torch.eye(count).to(signs)
        while True:
            others = (signs[:, None] - flips).abs()  # each with one sign changed
            left, place = self.excess(others.flatten(0, 1), rank).view(len(signs), count).min(1)
            better = left < best
            if not better.any():
                return signs[best.argmin()]
            signs, best = torch.where(better[:, None], others[torch.arange(len(signs)), place], signs), torch.where(better, left, best)


def never_off(weights: torch.Tensor, inputs: torch.Tensor, smooth: bool) -> torch.Tensor:
    """Units with weights `[R, D - 1]` whose biases keep them active for all inputs `[Q, D - 1]`, far enough out where s is smooth."""
    sums = inputs @ weights.T
    low, high = sums.amin(0), sums.amax(0)
    return torch.cat([weights, (MARGIN * (high - low) - low + (FAR if smooth else 0.0))[:, None]], 1)


@torch.no_grad()
def moved_away(layers: Layers, queries: torch.Tensor) -> Layers:
    """The same function of the queries `[Q, inputs]`, and of all inputs between their bounds, with linear units that do not switch there.

    Where a unit switches that does not for any query is a matter of chance.
    """
    vectors, low, high = [each.clone() for each in layers.vectors], queries.amin(0), queries.amax(0)
    for depth, units in enumerate(linear_slopes(layers, queries)):
        weights = vectors[depth][:, :-1]
        reach = weights.abs() @ (high - low)
        shift = torch.where(units == 1, reach, torch.where(units == 0, 0.0, -reach))
        vectors[depth] = torch.cat([weights, (vectors[depth][:, -1] + shift)[:, None]], 1)
        vectors[depth + 1][:, -1] -= vectors[depth + 1][:, :-1] @ (units * shift)
        queries = layers.replace(vectors[depth]).activations(queries)
        low, high = queries.amin(0), queries.amax(0)
    return layers.replace(*vectors)


def has_open_signs(incoming: torch.Tensor, following: torch.Tensor, slopes: torch.Tensor, symmetry: Symmetry, tolerance: float) -> bool:
    """Whether neurons can change sign together, where units that never switch take over the linear map that this leaves.

    They can take over any map that keeps the rank of the sum. Groups of any size are tried of few neurons, and groups of one or two of
    many; larger groups only match by chance, unless the ranks leave few conditions: then the answer is yes, in doubt.

    Args:
        incoming: `[K, D]`.
        following: the next layer's incoming vectors, `[L, K + 1]`.
        slopes: of the units that never switch, `[K]`; 0 for the others.
        symmetry: of the activation function.
        tolerance: the relative size below which a part of a map counts as zero.
    """
    linear, weights, outgoing = slopes != 0, incoming[:, :-1], following[:, :-1].T
    rank, others = int(linear.sum()), (weights[~linear], outgoing[~linear])
    conditions = (weights.shape[1] - rank) * (outgoing.shape[1] - rank)
    count = len(others[0])
    if rank == 0 or count == 0:
        return False
    if rank >= min(weights.shape[1], outgoing.shape[1]) or (count > EVERY_CHOICE and BITS * conditions < BITS + count):
        return True
    known = (outgoing[linear] * slopes[linear, None]).T @ weights[linear]
    maps = -symmetry.slope * torch.einsum("kl,kd->kld", others[1], others[0])
    if count <= EVERY_CHOICE:
        choices = _all_choices(count)[1:]
    else:
        single = torch.eye(count)
        choices = torch.cat([single, torch.stack([single[i] + single[j] for i in range(count) for j in range(i)])])
    changed = torch.einsum("nk,kld->nld", choices.to(maps), maps)
    return bool((_beyond(known + changed, rank) <= tolerance**2 * changed.square().sum((1, 2))).any())


def _all_choices(count: int) -> torch.Tensor:
    """All vectors of so many zeros and ones, `[2 ** count, count]`, the vector of zeros first."""
    return torch.arange(2**count)[:, None] >> torch.arange(count) & 1


def _beyond(maps: torch.Tensor, rank: int) -> torch.Tensor:
    """The squared part of maps `[N, O, D]` beyond their best approximations of a rank, `[N]`."""
    gram = maps @ maps.transpose(1, 2) if maps.shape[1] <= maps.shape[2] else maps.transpose(1, 2) @ maps
    return torch.linalg.eigvalsh(gram)[:, : gram.shape[1] - rank].sum(1)

"""The first layer of a deep network of saturating neurons, one neuron at a time.

Far out, every tanh is saturated, save where a line crosses the plane of a neuron: answers along a far line are constant up to one jump
for each neuron. Bisection finds all jumps of a line in some 75 queries each. Within a jump, the answers are a function of one weighted
sum, and so the incoming vector follows from levels: if `f(x + t d) = f(x + h e_j)`, then `t w.d = h w_j`. The answers along d are
interpolated by Chebyshev polynomials, whose error falls to rounding at 33 nodes; no difference is taken and nothing is truncated, so that
directions are as precise as the answers. `v = w / (w.d)` must have `v.d = 1`, which it has for one neuron and not where two move: every
neuron is confirmed by measurements along all axes against one along d.

Far out, rounding of the inputs limits precision. With all directions known, every neuron is met a second time, near: the others are held at
+-HELD by the inverse of the layer.

The place of a jump is known up to the curvature of what comes behind (`biases` settles it), and the rate well enough to start from.

Axes: N crossings, H neurons and as many inputs, T points, o outputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from extraction.derivatives.differences import Scale
from extraction.derivatives.profiles import affine, levenberg_marquardt
from extraction.derivatives.questions import Questions
from extraction.derivatives.result import Lacking

FAR = 1e4  # the distance of far lines, in radii, for each neuron
REACH = 30.0  # lines are followed so many distances to both sides
CELLS = 64  # in the first division of a line
SHORTEST = 2.0  # intervals are divided down to this length; jumps have some 40 / |w.d|
JUMP = 1e-6  # the smallest change that counts, as a share of the spread
LINES = 8  # at most
QUARTER = math.atanh(0.5)  # the weighted sum at a quarter and at three quarters of a jump, up to sign
HALVINGS = 60  # of a bracket
NODES, WITHIN = 33, 1.2  # of Chebyshev interpolation, for weighted sums of up to WITHIN
MOVE = 0.3  # the typical change of the weighted sum by a step along an axis
CONFIRMED = 1e-3  # the largest |v.d - 1| of a neuron that is alone, far; near it is CONFIRMED_NEAR
CONFIRMED_NEAR = 1e-9
HELD_WIDE, REACH_WIDE, HELD, REACH_NEAR = 100.0, 80.0, 25.0, 4.0
AFFINE = 1e-6  # a larger error of an affine function of tanh, as a share of the jump: there is another hidden layer
MIDDLE = 3.0  # the largest |u| of answers across a jump
TAIL, DEGREE, SAMPLES = (2.5, 9.0), 6, 61  # |u| of answers in the tails of a jump, and the powers that stand for the layers behind


@dataclass(frozen=True)
class Crossing:
    """Places where lines `origin + t direction` cross the planes of neurons.

    Attributes:
        origins: `[N, H]`.
        directions: `[N, H]`.
        places: t in the middle of each jump, `[N]`.
        rates: the absolute value of w.d, roughly, `[N]`.
    """

    origins: torch.Tensor
    directions: torch.Tensor
    places: torch.Tensor
    rates: torch.Tensor

    @property
    def points(self) -> torch.Tensor:
        """The inputs at the middle of each jump, `[N, H]`."""
        return self.origins + self.places[:, None] * self.directions

    def some(self, which: torch.Tensor) -> Crossing:
        """A part of the crossings."""
        return Crossing(self.origins[which], self.directions[which], self.places[which], self.rates[which])


def first_layer(asked: Questions, scale: Scale) -> torch.Tensor:
    """The incoming vectors of H saturating neurons of H inputs, the bias last, `[H, H + 1]`.

    Directions are right to rounding, rates to about 1e-6, biases to about 1e-2.

    Raises:
        Lacking: not all of them were found.
    """
    vectors = asked.normal(0, asked.inputs + 1)
    for _ in range(LINES):
        vectors = torch.cat([vectors, _on_a_far_line(asked, scale, vectors)])
        if len(vectors) >= asked.inputs:
            break
    if len(vectors) != asked.inputs:
        raise Lacking(f"{len(vectors)} of {asked.inputs} neurons of the first layer were found on {LINES} far lines")
    vectors, _ = _met_near(asked, scale, vectors, (HELD_WIDE, REACH_WIDE), precisely=False)
    vectors, doubt = _met_near(asked, scale, vectors, (HELD, REACH_NEAR), precisely=True)
    unconfirmed = int((doubt > CONFIRMED_NEAR).sum())
    if unconfirmed:
        raise Lacking(
            f"{unconfirmed} of {asked.inputs} neurons of the first layer were not confirmed (worst doubt {float(doubt.max()):.0e})"
        )
    return vectors


def saturates(asked: Questions, scale: Scale) -> bool:
    """Whether answers far out along a line do not change any more."""
    directions = scale.radius * asked.normal(8, asked.inputs)
    near, far = (asked(distance * FAR * asked.inputs * directions) / scale.spread for distance in (1, 2))
    return float(((near - far).abs().amax(1) < JUMP).double().mean()) > 0.6


def is_deep(asked: Questions, scale: Scale) -> bool:
    """Whether answers across one jump of a far line are no affine function of one tanh, as they are with one hidden layer."""
    far = FAR * asked.inputs
    for _ in range(LINES):
        origin, direction = far * scale.radius * asked.normal(asked.inputs), scale.radius * asked.normal(asked.inputs)
        low, high = -REACH * far, REACH * far
        ends = torch.tensor([low, high], dtype=origin.dtype, device=origin.device)
        if float((asked(origin + ends[:, None] * direction) / scale.spread).diff(dim=0).abs().max()) > JUMP:
            break
    else:
        return False
    while high - low > 40 * SHORTEST:
        edges = torch.tensor([low, (low + high) / 2, high], dtype=origin.dtype, device=origin.device)
        changes = asked(origin + edges[:, None] * direction).diff(dim=0).norm(dim=1)
        low, high = edges[:2].tolist() if changes[0] > changes[1] else edges[1:].tolist()
    margin = 40.0  # beyond which the jump has ended; slow neurons have long jumps
    for _ in range(8):
        edges = torch.tensor([low - 2 * margin, low - margin, high + margin, high + 2 * margin], dtype=origin.dtype, device=origin.device)
        values = asked(origin + edges[:, None] * direction) / scale.spread
        if float((values[::2] - values[1::2]).abs().max()) < JUMP:
            break
        margin *= 2
    crossing = _located(asked, origin[None], direction[None], edges[1:2], edges[2:3])
    nodes = torch.linspace(-MIDDLE, MIDDLE, SAMPLES, dtype=origin.dtype, device=origin.device)[None] / crossing.rates
    values = asked(crossing.points + nodes.T * direction)
    left = torch.linalg.svd(values - values.mean(0), full_matrices=False)[0][None, :, 0]
    start = torch.stack([crossing.rates, torch.zeros_like(crossing.rates)], 1)
    _, losses = levenberg_marquardt(affine(torch.tanh), nodes, left, start)
    return float(losses.sqrt()) > AFFINE


def _on_a_far_line(asked: Questions, scale: Scale, known: torch.Tensor) -> torch.Tensor:
    """The neurons that a random far line crosses and that are not known yet, `[new, H + 1]`."""
    far = FAR * asked.inputs
    origin, direction = far * scale.radius * asked.normal(asked.inputs), scale.radius * asked.normal(asked.inputs)
    low, high = _jumps(asked, scale, origin, direction, REACH * far)
    expected = -(known[:, :-1] @ origin + known[:, -1]) / (known[:, :-1] @ direction)
    margin = 1e-6 * expected.abs() + 20
    is_known = ((low[:, None] - margin < expected) & (expected < high[:, None] + margin)).any(1)
    low, high = low[~is_known], high[~is_known]
    count = len(low)
    crossing = _located(asked, origin.expand(count, -1), direction.expand(count, -1), low, high)
    ratios, doubt = _directions(asked, crossing, scale.unit(asked.inputs))
    alone = doubt < CONFIRMED
    weights = (ratios * crossing.rates[:, None])[alone]
    return torch.cat([weights, -(weights * crossing.points[alone]).sum(1, keepdim=True)], 1)


def _jumps(
    asked: Questions, scale: Scale, origin: torch.Tensor, direction: torch.Tensor, reach: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ends `[jumps]` of the intervals of a line in which the answers change."""
    edges = torch.linspace(-reach, reach, CELLS + 1, dtype=origin.dtype, device=origin.device)
    values = asked(origin + edges[:, None] * direction) / scale.spread
    low, high, at_low, at_high = edges[:-1], edges[1:], values[:-1], values[1:]
    while True:
        changed = (at_high - at_low).abs().amax(1) > JUMP
        low, high, at_low, at_high = low[changed], high[changed], at_low[changed], at_high[changed]
        if not len(low) or float((high - low).max()) <= SHORTEST:
            break
        middle = (low + high) / 2
        at_middle = asked(origin + middle[:, None] * direction) / scale.spread
        low, high = torch.stack([low, middle], 1).flatten(), torch.stack([middle, high], 1).flatten()
        at_low, at_high = (torch.stack(pair, 1).flatten(0, 1) for pair in ((at_low, at_middle), (at_middle, at_high)))
    starts = torch.cat([low.new_ones(1, dtype=torch.bool), low[1:] > high[:-1]])[: len(low)]
    return low[starts], high[torch.cat([starts[1:], starts.new_ones(1)])[: len(low)]]


def _located(asked: Questions, origins: torch.Tensor, directions: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> Crossing:
    """The middle and the rate of each jump, by bisection to a quarter and three quarters of its height."""
    at_low, at_high = asked(origins + low[:, None] * directions), asked(origins + high[:, None] * directions)
    along = at_high - at_low
    along = along / along.square().sum(1, keepdim=True).clamp_min(1e-300)
    height = torch.tensor([0.25, 0.75]).to(low)[:, None].expand(-1, len(low))
    lows, highs = low.expand(2, -1).clone(), high.expand(2, -1).clone()
    for _ in range(HALVINGS):
        middle = (lows + highs) / 2
        points = origins + middle[:, :, None] * directions  # [2, N, H]
        values = ((asked(points.flatten(0, 1)).unflatten(0, (2, -1)) - at_low) * along).sum(2)
        lows, highs = torch.where(values < height, middle, lows), torch.where(values < height, highs, middle)
        width = (highs - lows).amax(0)
        between = ((highs + lows)[1] - (highs + lows)[0]).abs() / 2
        if bool((width < 0.05 * between).all()):
            break
    quarter, three = (lows + highs) / 2
    return Crossing(origins, directions, (quarter + three) / 2, 2 * QUARTER / (three - quarter).abs())


def _directions(asked: Questions, crossing: Crossing, unit: float) -> tuple[torch.Tensor, torch.Tensor]:
    """`w / (w.d)` of each neuron, `[N, H]`, and the doubt `|v.d - 1|` of each, `[N]`, infinite where it could not be measured."""
    if not len(crossing.places):
        return crossing.origins, crossing.places
    nodes = torch.cos(math.pi * (torch.arange(NODES, dtype=torch.float64, device=asked.device) + 0.5) / NODES)
    lengths = WITHIN / crossing.rates
    points = crossing.points
    along = points[:, None] + (nodes * lengths[:, None])[:, :, None] * crossing.directions[:, None]  # [N, NODES, H]
    values = asked(along.flatten(0, 1)).unflatten(0, along.shape[:2])
    mean = values.mean(1, keepdim=True)
    output = torch.linalg.svd(values - mean, full_matrices=False)[2][:, 0]  # [N, o]
    series = _chebyshev_series(((values - mean) @ output[:, :, None])[:, :, 0], nodes)
    ratios = torch.full_like(points, torch.nan)
    for shrink in (1.0, 0.25, 0.06):
        missing = ratios.isnan()
        if not bool(missing.any()):
            break
        neuron, axis = missing.nonzero().T
        step = MOVE * shrink * unit
        moved = points[neuron]
        moved[torch.arange(len(neuron)), axis] += step
        levels = ((asked(moved) - mean[neuron, 0]) * output[neuron]).sum(1)
        ratios[neuron, axis] = _inverted(series[neuron], levels) * lengths[neuron] / step
    doubt = ((ratios * crossing.directions).sum(1) - 1).abs()
    return ratios.nan_to_num(), doubt.nan_to_num(torch.inf)


def _chebyshev_series(values: torch.Tensor, nodes: torch.Tensor) -> torch.Tensor:
    """The coefficients of Chebyshev polynomials that interpolate values at Chebyshev nodes, `[N, NODES]`."""
    orders = torch.arange(len(nodes), dtype=values.dtype, device=values.device)
    transform = torch.cos(orders * torch.arccos(nodes)[:, None]) * 2 / len(nodes)
    series = values @ transform
    series[:, 0] /= 2
    return series


def _inverted(series: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Where in -1..1 each series takes its level, by Newton's method from 0; nan where it does not."""
    orders = torch.arange(series.shape[1], dtype=series.dtype, device=series.device)
    at = torch.zeros_like(levels)
    for _ in range(20):
        angle = torch.arccos(at.clamp(-1 + 1e-12, 1 - 1e-12))[:, None]
        error = (series * torch.cos(orders * angle)).sum(1) - levels
        slope = (series * orders * torch.sin(orders * angle) / torch.sin(angle)).sum(1)
        move = error / slope
        at = (at - move).clamp(-1, 1)
        if float(move.abs().max()) < 1e-15:
            break
    return torch.where((at.abs() < 0.999) & (move.abs() < 1e-9), at, torch.nan)


def _met_near(
    asked: Questions, scale: Scale, vectors: torch.Tensor, held: tuple[float, float], precisely: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The neurons again, each with the others held at `+-held[0]` and its own weighted sum within `+-held[1]`.

    Args:
        asked: the teacher.
        scale: of its inputs and answers.
        vectors: known so far, `[H, H + 1]`.
        held: see above.
        precisely: whether directions and rates are measured, and not biases alone.

    Returns:
        Better vectors, and the doubt of each direction `[H]`.
    """
    width = len(vectors)
    inverse = torch.linalg.inv(vectors[:, :-1])
    signs = asked.normal(width, width).sign()
    sums = held[0] * signs
    sums.fill_diagonal_(0)
    origins, directions = (sums - vectors[:, -1]) @ inverse.T, inverse.T.contiguous()
    reach = torch.full_like(vectors[:, -1], held[1])
    crossing = _located(asked, origins, directions, -reach, reach)
    if not precisely:
        return torch.cat([vectors[:, :-1], -(vectors[:, :-1] * crossing.points).sum(1, keepdim=True)], 1), torch.zeros_like(reach)
    ratios, doubt = _directions(asked, crossing, scale.unit(asked.inputs))
    weights = ratios * _rates(asked, crossing)[:, None]
    return torch.cat([weights, -(weights * crossing.points).sum(1, keepdim=True)], 1), doubt


def _rates(asked: Questions, crossing: Crossing) -> torch.Tensor:
    """The absolute value of w.d, `[N]`, from the tails of each jump.

    With u = k t + b and z = exp(-2 |u|), answers in a tail are a function of `tanh(u) = +-(1 - z) / (1 + z)`, and so a power series in z,
    whatever comes behind. The powers of `exp(-2 k t)` have free factors, which contain b; k is what the decay tells.
    """
    nodes = torch.linspace(*TAIL, SAMPLES, dtype=torch.float64, device=asked.device)
    found = []
    for side in (-1, 1):
        places = crossing.places[:, None] + side * nodes / crossing.rates[:, None]
        along = crossing.origins[:, None] + places[:, :, None] * crossing.directions[:, None]
        values = asked(along.flatten(0, 1)).unflatten(0, along.shape[:2])
        left = torch.linalg.svd(values - values.mean(1, keepdim=True), full_matrices=False)[0][:, :, 0]
        unknowns, losses = levenberg_marquardt(_decays, nodes.expand(len(left), -1), left, torch.ones_like(left[:, :1]))
        found.append((unknowns[:, 0], losses))
    factor = torch.where(found[0][1] < found[1][1], found[0][0], found[1][0])
    return crossing.rates * factor


def _decays(sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The powers of `exp(-2 u)`, and their derivatives by u."""
    orders = torch.arange(DEGREE + 1, dtype=sums.dtype, device=sums.device)
    powers = torch.exp(-2 * orders * (sums[..., None] - TAIL[0]))
    return powers, -2 * orders * powers

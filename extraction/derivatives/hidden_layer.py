"""The first hidden layer of a function whose activation function has one kink.

A neuron of the first layer has the same plane wherever it is met; the kinks of deeper layers lie on bent surfaces. A neuron is accepted
when two lines agree: its plane, measured on one line, predicts where the other has a kink, and across that kink the slope along the plane
does not change. Their number is the rank of the gradients, which says when all are found; where more are confirmed, those count that most
lines have confirmed, for a deeper neuron has one plane as long as no neuron of the first layer changes its side.

With as many neurons as there are dimensions (in the space that gradients span), one weighted sum can be moved alone. The slopes on both
sides of a plane give the slope a of the activation function and the sign of the neuron: with a bend b of the answers, the slope on the
negative side is `a / (1 - a) b`, or `-1 / (1 - a) b` for the wrong sign.

Axes: d inputs, N neurons, o outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from extraction.derivatives.grounds import Ground
from extraction.derivatives.kinks import crossings
from extraction.derivatives.lines import Kinks, find_kinks
from extraction.derivatives.pieces import Neurons, measured
from extraction.derivatives.result import Lacking

LINES = 24  # at most
MATCHED = 1e-6  # relative error of a predicted kink
SHARES = (0.1, 0.01, 1e-3)  # of the room at a kink, that slopes along a plane are measured over
ALONG = 1e-5  # a larger change of a slope along the plane, as a share of the slope and its change across: there is no such plane
MARGINS = (0.1, 0.02, 1e-3)  # of the room at a kink, that slopes across a plane are measured over
SLOPE = 1e-4  # the largest error of a / (1 - a)


@dataclass(frozen=True)
class Layer:
    """A hidden layer, up to the scales of its neurons.

    Attributes:
        rows: incoming vectors of unit length, `[N, d]`.
        biases: `[N]`.
        slope: of the activation function on the negative side.
        points: one on the plane of each neuron, `[N, d]`, away from other kinks.
    """

    rows: torch.Tensor
    biases: torch.Tensor
    slope: float
    points: torch.Tensor


def find_layer(ground: Ground, width: int) -> Layer:
    """The first hidden layer of a function.

    Args:
        ground: the function.
        width: the rank of its gradients.

    Raises:
        Lacking: not all of its neurons were found, or there are more of them than inputs.
    """
    asked = ground.asked
    candidates = Neurons.of([], asked, len(ground.scale.spread))
    votes, lines = candidates.biases, []
    for _ in range(LINES):
        kinks = find_kinks(asked, ground.line(), ground.scale, ground.precision)
        lines.append(kinks)
        votes[_confirmed(ground, kinks, candidates)] += 1
        known = _elected(candidates, votes, width)
        layer = None if known is None else _oriented(ground, known, lines)
        if layer is not None:
            return layer
        new = torch.ones_like(kinks.places, dtype=torch.bool)
        new[_matches(kinks, candidates)[0]] = False
        candidates = candidates.joined(measured(asked, kinks, new.nonzero()[:, 0]))
        votes = torch.cat([votes, votes.new_zeros(len(candidates.biases) - len(votes))])
    raise Lacking(f"{int((votes > 0).sum())} neurons of a hidden layer were confirmed on {LINES} lines, and gradients have rank {width}")


def _elected(candidates: Neurons, votes: torch.Tensor, width: int) -> Neurons | None:
    """So many neurons that more lines have confirmed than any other; None where there are not."""
    if len(votes) < width:
        return None
    ordered = votes.sort(descending=True, stable=True)
    most = torch.cat([ordered.values, votes.new_zeros(1)])
    return candidates.some(ordered.indices[:width].sort().values) if most[width - 1] > most[width] else None


def _matches(kinks: Kinks, neurons: Neurons) -> tuple[torch.Tensor, torch.Tensor]:
    """The numbers of kinks and of the neurons that predict them, `[pairs]` each."""
    if not len(kinks.places) or not len(neurons.biases):
        return kinks.places.new_zeros(0, dtype=torch.long), kinks.places.new_zeros(0, dtype=torch.long)
    places = crossings(kinks.line, neurons)
    distances = (kinks.places[:, None] - places).abs()
    size = kinks.line.origin.norm() + kinks.places.abs()[:, None]
    nearest = distances.argmin(0)  # [N]
    is_near = (distances <= MATCHED * size).gather(0, nearest[None])[0]
    return nearest[is_near], is_near.nonzero()[:, 0]


def _confirmed(ground: Ground, kinks: Kinks, neurons: Neurons) -> torch.Tensor:
    """The numbers of the neurons that predict a kink, along whose planes the slope does not change there."""
    which, who = _matches(kinks, neurons)
    if not len(which):
        return who
    rows = neurons.incoming[who]
    along = ground.asked.normal(*rows.shape)
    along = torch.nn.functional.normalize(along - (along * rows).sum(1, keepdim=True) * rows, dim=1)
    room = kinks.room[which]
    confirmed = torch.zeros_like(which, dtype=torch.bool)
    for share in SHARES:
        step = (share * room)[:, None]
        slopes = []
        for side in (-1, 1):
            points = kinks.line.at(kinks.places[which] + side * 0.5 * room)
            here, there = ground.asked(torch.cat([points, points + step * along])).chunk(2)
            slopes.append((there - here) / step)
        size = (slopes[0].abs() + slopes[1].abs() + kinks.jumps[which].abs()).amax(1)
        confirmed |= (slopes[1] - slopes[0]).abs().amax(1) <= ALONG * size
    return who[confirmed]


def _oriented(ground: Ground, neurons: Neurons, lines: list[Kinks]) -> Layer | None:
    """The layer, if the kinks of neurons on lines show the sign of each and one slope for all; None where they do not."""
    inverse = torch.linalg.pinv(neurons.incoming)
    found = [_slopes(ground, kinks, neurons, inverse, margin) for kinks in lines for margin in MARGINS]
    ratios, doubts, points = (torch.stack(part) for part in zip(*found, strict=True))  # [lines MARGINS, N, ...]
    best = doubts.argmin(0)  # [N]
    if float(doubts.amin(0).max()) > SLOPE:
        return None
    ratio = ratios.gather(0, best[None])[0]
    positive = ratio[ratio > -0.5]
    right = float(positive.median()) if len(positive) else float(-1 - ratio.median())  # the ratio of neurons with the right sign
    signs = torch.where((ratio - right).abs() < (ratio + 1 + right).abs(), 1.0, -1.0).to(ratio)
    error = float(torch.where(signs > 0, ratio - right, ratio + 1 + right).abs().max())
    if error > SLOPE:  # one of them is no neuron of this layer
        return None
    points = points[best, torch.arange(len(best), device=best.device)]
    return Layer(neurons.incoming * signs[:, None], neurons.biases * signs, right / (1 + right), points)


def _slopes(
    ground: Ground, kinks: Kinks, neurons: Neurons, inverse: torch.Tensor, margin: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Each neuron moved alone, through its kink of a line.

    Args:
        ground: the function.
        kinks: of a line.
        neurons: N of them.
        inverse: a column for each neuron that moves its weighted sum alone, `[d, N]`.
        margin: of the room at a kink that slopes are measured over.

    Returns:
        The slope of answers on the negative side of its plane as a share of the bend `[N]`, the error of this share, infinite where it was
        not measured, and a point of the plane `[N, d]`.
    """
    which, who = _matches(kinks, neurons)
    ratios, doubts = torch.zeros_like(neurons.biases), torch.full_like(neurons.biases, torch.inf)
    points = torch.zeros_like(neurons.incoming)
    if not len(which):
        return ratios, doubts, points
    rows, moves, places = neurons.incoming[who], inverse.T[who], kinks.points[which]
    places = places - ((rows * places).sum(1) + neurons.biases[who])[:, None] * rows
    step = kinks.room[which] * (rows @ kinks.line.direction).abs()
    if ground.is_positive:
        step = torch.minimum(step, (places / moves.abs()).amin(1))
    step = (margin * step).clamp_min(ground.precision.resolution)[:, None]
    values = {times: ground.asked(places + times * step * moves) for times in (-3, -2, -1, 1, 2, 3)}
    minus, plus = (values[-1] - values[-2]) / step, (values[2] - values[1]) / step
    bend = plus - minus
    ratio = (minus * bend).sum(1) / bend.square().sum(1)
    errors = [values[3 * side] - 2 * values[2 * side] + values[side] for side in (-1, 1)]  # other kinks
    errors += [values[1] - plus * step - values[-1] - minus * step, (minus - ratio[:, None] * bend) * step]
    rounding = ground.precision.rounding * values[1].abs().amax(1)
    size = (bend * step).abs().amax(1)
    doubt = (torch.stack(errors).abs().amax((0, 2)) + rounding) / size
    ratios[who], doubts[who], points[who] = ratio, doubt.nan_to_num(torch.inf), places
    return ratios, doubts, points

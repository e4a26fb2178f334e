"""One hidden layer of relu or leaky relu, from the kinks along lines.

Along a line (`lines`) there is one kink for each neuron whose plane the line crosses, and the Jacobians of the pieces on both sides show
its vectors (`pieces`). Every neuron is confirmed a second time, on another line: its plane and the size of its kink predict where that line
has a kink and how large. Two kinks that were taken for one give a neuron whose prediction fails, which is refused and found again on the
other line.

What is left of the Jacobian when all kinks are known is a sum of the same neurons, `sum_j z_j v_j w_j`: z is 0 or -1 for relu and its
opposite, `a / (1 - a)` or `-1 / (1 - a)` for a leaky relu of slope a. This names the activation function and the signs.

Axes: d inputs, N kinks or neurons, o outputs.
"""

from __future__ import annotations

import torch

from extraction.derivatives.differences import Scale
from extraction.derivatives.lines import EXACT, Kinks, Line, Precision, find_kinks
from extraction.derivatives.pieces import PARALLEL, Neurons, affine_piece, measured, neuron_between
from extraction.derivatives.questions import Questions
from extraction.derivatives.result import Lacking
from extraction.network import Layers
from models.slopes import slope_of, with_slope

REACH = 300.0  # lines are followed so many units to both sides
LINES, COMPLETE = 16, 2  # at most, and lines in a row without a kink that is not explained
MATCHED = 1e-5  # relative error of a predicted kink
EXPLAINED = 1e-5  # a larger share of a gradient that known neurons do not explain: there are others
DIGITS = 6  # of slopes, after the point
SIGNS = 1e-4  # the largest error of z


def is_piecewise_linear(asked: Questions, scale: Scale) -> bool:
    """Whether second differences over short steps vanish at most places."""
    points, step = scale.radius * asked.normal(32, asked.inputs), scale.radius * scale.relative_error**0.25
    moves = step * asked.normal(32, asked.inputs)
    points = scale.inside(points, float(moves.abs().max()) if scale.is_bounded else 0.0)
    bends = asked(points + moves) + asked(points - moves) - 2 * asked(points)
    return float((bends.abs() <= 50 * scale.error).all(1).double().mean()) > 0.75


def recover(asked: Questions, scale: Scale) -> Layers:
    """The network, the output layer last.

    Raises:
        Lacking: it has not one hidden layer of relu or leaky relu with at most as many neurons as inputs, or not all of them were found.
    """
    confirmed = find_neurons(asked, scale)
    act_fun, slope, signs = named(asked, scale, confirmed)
    return assembled(asked, refined(asked, scale, confirmed, signs), slope, act_fun, signs)


def find_neurons(asked: Questions, scale: Scale, precision: Precision = EXACT) -> Neurons:
    """All neurons of one hidden layer, each confirmed on two lines.

    Raises:
        Lacking: kinks are left that belong to none of them.
    """
    candidates = confirmed = Neurons.of([], asked, len(scale.spread))
    complete = 0
    for _ in range(LINES):
        kinks = find_kinks(asked, random_line(asked, scale), scale, precision)
        if not len(kinks.places) and not len(confirmed.biases):
            raise Lacking("the answers are constant, or an affine function of the inputs, along a line")
        if len(candidates.biases):
            confirmed = confirmed.joined(candidates.some(predicts(asked, scale, kinks, candidates)))
        new = unexplained(kinks, confirmed, scale.unit(asked.inputs))
        complete = complete + 1 if not len(new) else 0
        if complete == COMPLETE:
            return confirmed
        candidates = measured(asked, kinks, new)
    raise Lacking(
        f"{len(confirmed.biases)} neurons were confirmed on {LINES} lines, and {len(new)} kinks of the last line belong to none of them: "
        "there is more than one hidden layer, or answers are not exact"
    )


def random_line(asked: Questions, scale: Scale) -> Line:
    """A line near the origin, followed so far that it crosses the planes of nearly all neurons."""
    origin, direction = scale.radius * asked.normal(asked.inputs), asked.normal(asked.inputs)
    reach = REACH * scale.unit(asked.inputs)
    return Line(origin, direction / direction.norm(), -reach, reach)


def unexplained(kinks: Kinks, neurons: Neurons, unit: float) -> torch.Tensor:
    """The numbers of the kinks that no known neuron explains, for the unit of steps."""
    near = (kinks.places[:, None] - crossings(kinks.line, neurons)).abs() <= MATCHED * (unit + kinks.places[:, None].abs())
    return (~near.any(1)).nonzero()[:, 0]


def crossings(line: Line, neurons: Neurons) -> torch.Tensor:
    """Where the line crosses the plane of each neuron, `[N]`."""
    return -(neurons.incoming @ line.origin + neurons.biases) / (neurons.incoming @ line.direction)


def predicts(asked: Questions, scale: Scale, kinks: Kinks, neurons: Neurons) -> torch.Tensor:
    """Which neurons predict a kink and its size, `[N]`; neurons whose planes the line crosses beyond its reach do not."""
    line = kinks.line
    places = crossings(line, neurons)
    beyond = places.abs() + line.origin.norm()  # a distance that does not count as near, where there are fewer than two kinks
    distances = torch.cat([(kinks.places[:, None] - places).abs(), beyond.expand(2, -1)]).nan_to_num(torch.inf)  # [kinks + 2, N]
    nearest, second = distances.topk(2, 0, largest=False).values
    step = 0.5 * second
    bends = sum(sign * asked(line.at(places + move * step)) for sign, move in ((1, 1), (1, -1), (-2, 0)))
    expected = step[:, None] * (neurons.incoming @ line.direction).abs()[:, None] * neurons.outgoing
    size = expected.abs().amax(1)
    is_close = nearest <= MATCHED * (scale.unit(asked.inputs) + places.abs())
    return is_close & ((bends - expected).abs().amax(1) <= 1e-4 * size + 100 * scale.error.max())


def named(asked: Questions, scale: Scale, neurons: Neurons) -> tuple[str, float, torch.Tensor]:
    """The activation function of confirmed neurons, its slope, and the sign of each neuron, `[N]`.

    Raises:
        Lacking: what is left is no sum of the same neurons, or belongs to no known activation function.
    """
    point = scale.radius * asked.normal(asked.inputs)
    sums = neurons.incoming @ point + neurons.biases
    jumps = torch.einsum("no,nd->nod", neurons.outgoing, neurons.incoming)
    jacobian = affine_piece(asked, point, 0.5 * float((sums.abs() / neurons.incoming.abs().amax(1)).min())).jacobian
    left = jacobian - jumps[sums > 0].sum(0)
    z = torch.linalg.lstsq(jumps.flatten(1).T, left.flatten()[:, None], driver="gelsd").solution[:, 0]
    remainder = left - torch.einsum("n,nod->od", z, jumps)
    if float(remainder.abs().max()) > EXPLAINED * float(jacobian.abs().max()):
        raise Lacking("the kinks do not explain the gradient: there are neurons without kinks, or linear ones")
    positive = z[z > -0.5]
    plus = float(positive.median()) if len(positive) else float(-1 - z.median())  # a / (1 - a)
    act_fun = named_slope(plus / (1 + plus))
    slope = slope_of(act_fun) or 0.0
    plus, minus = slope / (1 - slope), -1 / (1 - slope)
    signs = torch.where((z - plus).abs() < (z - minus).abs(), 1.0, -1.0).to(z)
    if float(torch.where(signs > 0, z - plus, z - minus).abs().max()) <= SIGNS:
        return act_fun, slope, signs
    raise Lacking("the slopes of the neurons are those of no known activation function")


def named_slope(slope: float) -> str:
    """The activation function with a slope on the negative side, which is measured.

    Raises:
        Lacking: there is none.
    """
    rounded = abs(round(slope, DIGITS))
    if not -SIGNS < slope < 1 - SIGNS:
        raise Lacking(
            f"the activation function is piecewise linear with the slope {slope:.4g} on the negative side, which no known one has"
        )
    return with_slope(rounded if abs(slope - rounded) <= 10.0**-DIGITS / 5 else slope)


def refined(asked: Questions, scale: Scale, neurons: Neurons, signs: torch.Tensor) -> Neurons:
    """The neurons measured again, one at a time, with all others inactive.

    Incoming vectors are independent, so that all weighted sums can be `-radius`, and any one of them `+radius`. Steps of half the radius
    over the largest weight stay on a piece. Neurons that are inactive add no rounding errors: 784-128-1 is right to 1e-14 where Jacobians
    along a line, whose pieces are short, give 1e-9.
    """
    inverse = torch.linalg.pinv(neurons.incoming)
    sums = -scale.radius * signs
    centre = inverse @ (sums - neurons.biases)
    step = 0.5 * scale.radius / float(neurons.incoming.abs().max())
    before = affine_piece(asked, centre, step)
    better = []
    for number, known in enumerate(zip(*vars(neurons).values(), strict=True)):
        again = neuron_between(before, affine_piece(asked, centre - 2 * sums[number] * inverse[:, number], step), known[0])
        is_same = again is not None and float(1 - again[0] @ known[0]) < PARALLEL
        better.append(again if again is not None and is_same else known)
    return Neurons.of(better, asked, len(scale.spread))


def assembled(asked: Questions, neurons: Neurons, slope: float, act_fun: str, signs: torch.Tensor) -> Layers:
    """The layers of a network, whose output bias follows from one answer, where all neurons are inactive."""
    lengths = (neurons.outgoing.norm(dim=1) / (1 - slope)).sqrt()
    hidden = torch.cat([neurons.incoming, neurons.biases[:, None]], 1) * (signs * lengths)[:, None]
    weights = (neurons.outgoing / (1 - slope) / lengths[:, None]).T
    first = Layers((hidden,), act_fun)
    point = torch.linalg.pinv(neurons.incoming) @ (-signs * neurons.biases.abs().max() - neurons.biases)
    bias = asked(point[None])[0] - weights @ first.activations(point[None])[0]
    return first.followed_by(torch.cat([weights, bias[:, None]], 1))

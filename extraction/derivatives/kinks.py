"""One hidden layer of relu or leaky relu, from the kinks along lines.

Along a line the network is piecewise linear, with one kink for each neuron whose plane the line crosses. Two pieces that meet in one kink
show it exactly: the kink is where their extensions meet, and the answers close to it on both sides agree with them. Where they do not,
there are more kinks between, and the interval is divided. (The answer at the meeting itself shows nothing: it agrees wherever extensions
meet before the first of several kinks.) Between two kinks the gradient is constant, so that a difference over any step within the piece is
exact but for rounding. The Jacobian changes across a kink by (outgoing) x (incoming).

Every piece checks its gradient: J d must be the slope along the line. Every neuron is confirmed a second time, on another line: its plane
and the size of its kink predict where that line has a kink and how large. Two kinks that were taken for one give a neuron whose
prediction fails, which is refused and found again on the other line.

Deep networks are refused and leave nothing: on pieces that two lines share, a deeper neuron predicts kinks like one of the first layer.

What is left of the Jacobian when all kinks are known is a sum of the same neurons, `sum_j z_j v_j w_j`: z is 0 or -1 for relu and its
opposite, `a / (1 - a)` or `-1 / (1 - a)` for a leaky relu of slope a. This names the activation function and the signs.

Axes: d inputs, N kinks or neurons, o outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from extraction.derivatives.differences import Scale
from extraction.derivatives.questions import Questions
from extraction.derivatives.result import Lacking
from extraction.network import Layers
from models.activation_functions import LEAKY_SLOPE

REACH = 300.0  # lines are followed so many units to both sides
LINES, COMPLETE = 8, 2  # at most, and lines in a row without a kink that is not explained
SAME = 1e-9  # relative differences below this are rounding
CLOSE = 1e-5  # the distance from a kink, as a share of the interval, at which the pieces on both sides are checked
SHARE = 0.02  # of a piece or interval that a slope is measured over
LEVELS, MOST = 60, 2048  # divisions, and intervals at a time
SHORTEST = 1e-10  # intervals, as a share of the line, that are not divided any more
STEP = 0.01  # of gradients, as a share of the piece of a line
ATTEMPTS = 4  # to measure a gradient, each over a tenth of the step before
MATCHED = 1e-5  # relative error of a predicted kink
PARALLEL = 1e-6  # 1 - |cos| of neurons that are the same
RANK_ONE = 1e-6  # a larger second singular value of a jump of Jacobians: there are two kinks, or a step has crossed another
EXPLAINED = 1e-5  # a larger share of a gradient that known neurons do not explain: there are others
SIGNS = 1e-4  # the largest error of z


Neuron = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # the incoming vector, the bias and the outgoing vector


@dataclass(frozen=True)
class Neurons:
    """Neurons up to their signs: `outgoing max(0, incoming x + bias)` up to a linear function.

    Attributes:
        incoming: unit vectors, `[N, d]`.
        biases: `[N]`.
        outgoing: `[N, o]`.
    """

    incoming: torch.Tensor
    biases: torch.Tensor
    outgoing: torch.Tensor

    @classmethod
    def of(cls, found: Sequence[Neuron], inputs: int, outputs: int) -> Neurons:
        """Neurons from those found one by one."""
        if not found:
            empty = torch.zeros(0, dtype=torch.float64)
            return cls(empty.reshape(0, inputs), empty, empty.reshape(0, outputs))
        return cls(*(torch.stack(part) for part in zip(*found, strict=True)))

    def some(self, which: torch.Tensor) -> Neurons:
        """A part of them."""
        return Neurons(*(part[which] for part in vars(self).values()))

    def joined(self, others: Neurons) -> Neurons:
        """These and those others that are not among them."""
        pairs = ((a, b) for a, b in zip(vars(self).values(), vars(others.some(others.unlike(self))).values(), strict=True))
        return Neurons(*(torch.cat(pair) for pair in pairs))

    def unlike(self, others: Neurons) -> torch.Tensor:
        """Which of them are not among others, `[N]`."""
        cosines = (self.incoming @ others.incoming.T).abs()
        return (1 - cosines > PARALLEL).all(1)


@dataclass(frozen=True)
class Line:
    """`origin + t direction`, for vectors `[d]`, and its kinks t in ascending order, `[N]`."""

    origin: torch.Tensor
    direction: torch.Tensor
    kinks: torch.Tensor

    def at(self, places: torch.Tensor) -> torch.Tensor:
        """Inputs `[N, d]` at places `[N]`."""
        return self.origin + places[:, None] * self.direction


def is_piecewise_linear(asked: Questions, scale: Scale) -> bool:
    """Whether second differences over short steps vanish at most places."""
    points, step = scale.radius * asked.normal(32, asked.inputs), scale.radius * scale.relative_error**0.25
    moves = step * asked.normal(32, asked.inputs)
    bends = asked(points + moves) + asked(points - moves) - 2 * asked(points)
    return float((bends.abs() <= 50 * scale.error).all(1).double().mean()) > 0.75


def recover(asked: Questions, scale: Scale) -> Layers:
    """The network, the output layer last.

    Raises:
        Lacking: it has not one hidden layer of relu or leaky relu with at most as many neurons as inputs, or not all of them were found.
    """
    candidates = confirmed = Neurons.of([], asked.inputs, len(scale.spread))
    complete = 0
    for _ in range(LINES):
        line = find_kinks(asked, scale)
        if not len(line.kinks) and not len(confirmed.biases):
            raise Lacking("the answers are constant, or an affine function of the inputs, along a line")
        if len(candidates.biases):
            confirmed = confirmed.joined(candidates.some(predicts(asked, scale, line, candidates)))
        new = line.kinks[unexplained(line, confirmed)]
        complete = complete + 1 if not len(new) else 0
        if complete == COMPLETE:
            act_fun, slope, signs = named(asked, scale, confirmed)
            return assembled(asked, refined(asked, scale, confirmed, signs), slope, act_fun, signs)
        candidates = measured(asked, line, new)
    raise Lacking(
        f"{len(confirmed.biases)} neurons were confirmed on {LINES} lines, and {len(new)} kinks of the last line belong to none of them: "
        "there is more than one hidden layer, or answers are not exact"
    )


def find_kinks(asked: Questions, scale: Scale) -> Line:
    """All kinks of a random line."""
    origin, direction = scale.radius * asked.normal(asked.inputs), asked.normal(asked.inputs)
    direction = direction / direction.norm()
    line = Line(origin, direction, origin[:0])
    reach = REACH * scale.unit(asked.inputs)
    low, high = origin.new_tensor([-reach]), origin.new_tensor([reach])
    kinks = []
    left, right = _pieces(asked, line, low, reach * SHARE / REACH), _pieces(asked, line, high, -reach * SHARE / REACH)
    for _ in range(LEVELS):
        bent = _differ(left[1], right[1])
        low, high, left, right = _some(bent, low, high, left, right)
        if not len(low):
            break
        meeting, is_kink = _meeting(asked, line, low, high, left, right)
        kinks.append(meeting[is_kink])
        low, high, left, right = _some(~is_kink & (high - low > SHORTEST * reach), low, high, left, right)
        if not len(low):
            break
        if len(low) > MOST:
            raise Lacking(f"a line has more than {MOST} places where the answers bend: they are not piecewise linear, or not exact")
        middle = low + (high - low) * (0.5 + 0.1 * asked.uniform(len(low)))
        centre = _pieces(asked, line, middle, (high - low) * 1e-3 * SHARE)
        low, high = torch.cat([low, middle]), torch.cat([middle, high])
        left, right = _joined(left, centre), _joined(centre, right)
    return Line(origin, direction, torch.cat([*kinks, origin[:0]]).sort().values)


Piece = tuple[torch.Tensor, torch.Tensor]  # answers and slopes at the ends of intervals, [N, o] each


def _pieces(asked: Questions, line: Line, places: torch.Tensor, step: torch.Tensor | float) -> Piece:
    """The answers at places, and the slopes of the pieces that they lie in."""
    steps = torch.as_tensor(step).to(places).expand_as(places)
    here, there = asked(torch.cat([line.at(places), line.at(places + steps)])).chunk(2)
    return here, (there - here) / steps[:, None]


def _joined(one: Piece, other: Piece) -> Piece:
    return torch.cat([one[0], other[0]]), torch.cat([one[1], other[1]])


def _some(which: torch.Tensor, low: torch.Tensor, high: torch.Tensor, left: Piece, right: Piece):
    return low[which], high[which], (left[0][which], left[1][which]), (right[0][which], right[1][which])


def _differ(one: torch.Tensor, other: torch.Tensor, tolerance: float = 1e-7) -> torch.Tensor:
    """Which slopes differ, `[N]`."""
    return (one - other).abs().amax(1) > tolerance * (one.abs() + other.abs()).amax(1)


def _meeting(
    asked: Questions, line: Line, low: torch.Tensor, high: torch.Tensor, left: Piece, right: Piece
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the pieces at both ends of each interval meet, and whether there is nothing but one kink there."""
    bend = left[1] - right[1]
    gap = right[0] - left[0] + left[1] * low[:, None] - right[1] * high[:, None]
    meeting = (gap * bend).sum(1) / bend.square().sum(1)
    inside = (meeting > low) & (meeting < high)
    meeting = torch.where(inside, meeting, low)
    agrees = inside
    reach = (high - low)[:, None]
    size = SAME * (left[0].abs() + (left[1].abs() + right[1].abs()) * reach)
    close = CLOSE * (high - low)
    for place, (values, slopes), end in (
        (meeting - close, left, low),
        (meeting + close, right, high),
        ((meeting + low) / 2, left, low),
        ((meeting + high) / 2, right, high),
    ):
        expected = values + slopes * (place - end)[:, None]
        agrees = agrees & ((asked(line.at(place)) - expected).abs() <= size).all(1)
    return meeting, agrees


def unexplained(line: Line, neurons: Neurons) -> torch.Tensor:
    """Which kinks of a line no known neuron explains, `[kinks]`."""
    places = _crossings(line, neurons)
    near = (line.kinks[:, None] - places).abs() <= MATCHED * (1 + line.kinks[:, None].abs())
    return ~near.any(1)


def _crossings(line: Line, neurons: Neurons) -> torch.Tensor:
    """Where the line crosses the plane of each neuron, `[N]`."""
    return -(neurons.incoming @ line.origin + neurons.biases) / (neurons.incoming @ line.direction)


def predicts(asked: Questions, scale: Scale, line: Line, neurons: Neurons) -> torch.Tensor:
    """Which neurons predict a kink of a line and its size, `[N]`; neurons whose planes the line crosses beyond its reach do not."""
    places = _crossings(line, neurons)
    beyond = places.abs() + line.origin.norm()  # a distance that does not count as near, where there are fewer than two kinks
    distances = torch.cat([(line.kinks[:, None] - places).abs(), beyond.expand(2, -1)]).nan_to_num(torch.inf)  # [kinks + 2, N]
    nearest, second = distances.topk(2, 0, largest=False).values
    step = 0.5 * second
    bends = sum(sign * asked(line.at(places + move * step)) for sign, move in ((1, 1), (1, -1), (-2, 0)))
    expected = step[:, None] * (neurons.incoming @ line.direction).abs()[:, None] * neurons.outgoing
    size = expected.abs().amax(1)
    is_close = nearest <= MATCHED * (1 + places.abs())
    return is_close & ((bends - expected).abs().amax(1) <= 1e-4 * size + 100 * scale.error.max())


def measured(asked: Questions, line: Line, kinks: torch.Tensor) -> Neurons:
    """The neurons of some kinks of a line, from the Jacobians on both sides."""
    outside = (line.kinks[-1:] - line.kinks[:1] + line.origin.norm()) / 4
    edges = torch.cat([line.kinks[:1] - outside, line.kinks, line.kinks[-1:] + outside])
    middles, lengths = (edges[1:] + edges[:-1]) / 2, edges.diff()
    places = torch.searchsorted(line.kinks, kinks)
    pieces = {int(piece): _piece(asked, line, middles[piece], lengths[piece]) for piece in torch.cat([places, places + 1]).unique()}
    found = [_neuron(pieces[place], pieces[place + 1], line.direction) for place in places.tolist()]
    return Neurons.of([neuron for neuron in found if neuron is not None], asked.inputs, asked(line.origin[None]).shape[1])


@dataclass(frozen=True)
class Affine:
    """A piece of the network: near the point, f is `value + jacobian (x - point)`."""

    point: torch.Tensor
    value: torch.Tensor
    jacobian: torch.Tensor


def _piece(asked: Questions, line: Line, place: torch.Tensor, length: torch.Tensor) -> Affine | None:
    """The piece of the network at a place of a line, or None where no step stays on the piece."""
    point = line.at(place[None])[0]
    here, there = asked(torch.stack([point, point + 0.4 * length * line.direction]))
    slope = (there - here) / (0.4 * length)
    for attempt in range(ATTEMPTS):
        piece = _affine(asked, point, STEP * float(length) * 0.1**attempt)
        if not bool(_differ((piece.jacobian @ line.direction)[None], slope[None])):
            return piece
    return None


def _affine(asked: Questions, point: torch.Tensor, step: float) -> Affine:
    """The piece of the network at a point, if a step along every axis stays on it."""
    value = asked(point[None])[0]
    moves = step * torch.eye(asked.inputs, dtype=point.dtype, device=point.device)
    return Affine(point, value, (asked(point + moves) - value).T / step)


def _neuron(before: Affine | None, after: Affine | None, near: torch.Tensor) -> Neuron | None:
    """The neuron between two pieces whose values agree on its plane, or None where there is not exactly one.

    Args:
        before: one piece; None where it could not be measured.
        after: the other.
        near: a vector `[d]` that points from one side of the plane to the other; the incoming vector takes its sign.
    """
    if before is None or after is None:
        return None
    left, sizes, right = torch.linalg.svd(after.jacobian - before.jacobian, full_matrices=False)
    if not float(sizes[0]) > 0 or (len(sizes) > 1 and sizes[1] > RANK_ONE * sizes[0]):
        return None
    forward = (right[0] @ (after.point - before.point)).sign()
    incoming, outgoing = right[0] * forward, left[:, 0] * sizes[0] * forward
    middle = (before.point + after.point) / 2
    values = [piece.value + piece.jacobian @ (middle - piece.point) for piece in (before, after)]
    bias = ((values[1] - values[0]) @ outgoing) / outgoing.square().sum() - incoming @ middle
    same = (incoming @ near).sign()
    return incoming * same, bias * same, outgoing


def named(asked: Questions, scale: Scale, neurons: Neurons) -> tuple[str, float, torch.Tensor]:
    """The activation function of confirmed neurons, its slope, and the sign of each neuron, `[N]`.

    Raises:
        Lacking: what is left is no sum of the same neurons, or belongs to no known activation function.
    """
    point = scale.radius * asked.normal(asked.inputs)
    sums = neurons.incoming @ point + neurons.biases
    jumps = torch.einsum("no,nd->nod", neurons.outgoing, neurons.incoming)
    jacobian = _affine(asked, point, 0.5 * float((sums.abs() / neurons.incoming.abs().amax(1)).min())).jacobian
    left = jacobian - jumps[sums > 0].sum(0)
    z = torch.linalg.lstsq(jumps.flatten(1).T, left.flatten()[:, None], driver="gelsd").solution[:, 0]
    remainder = left - torch.einsum("n,nod->od", z, jumps)
    if float(remainder.abs().max()) > EXPLAINED * float(jacobian.abs().max()):
        raise Lacking("the kinks do not explain the gradient: there are neurons without kinks, or linear ones")
    for act_fun, slope in (("relu", 0.0), ("leaky_relu", LEAKY_SLOPE)):
        plus, minus = slope / (1 - slope), -1 / (1 - slope)
        signs = torch.where((z - plus).abs() < (z - minus).abs(), 1.0, -1.0).to(z)
        if float(torch.where(signs > 0, z - plus, z - minus).abs().max()) <= SIGNS:
            return act_fun, slope, signs
    raise Lacking("the slopes of the neurons are those of no known activation function")


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
    before = _affine(asked, centre, step)
    better = []
    for number, known in enumerate(zip(*vars(neurons).values(), strict=True)):
        again = _neuron(before, _affine(asked, centre - 2 * sums[number] * inverse[:, number], step), known[0])
        is_same = again is not None and float(1 - again[0] @ known[0]) < PARALLEL
        better.append(again if again is not None and is_same else known)
    return Neurons.of(better, asked.inputs, len(scale.spread))


def assembled(asked: Questions, neurons: Neurons, slope: float, act_fun: str, signs: torch.Tensor) -> Layers:
    """The layers of a network, whose output bias follows from one answer, where all neurons are inactive."""
    lengths = (neurons.outgoing.norm(dim=1) / (1 - slope)).sqrt()
    hidden = torch.cat([neurons.incoming, neurons.biases[:, None]], 1) * (signs * lengths)[:, None]
    weights = (neurons.outgoing / (1 - slope) / lengths[:, None]).T
    first = Layers((hidden,), act_fun)
    point = torch.linalg.pinv(neurons.incoming) @ (-signs * neurons.biases.abs().max() - neurons.biases)
    bias = asked(point[None])[0] - weights @ first.activations(point[None])[0]
    return first.followed_by(torch.cat([weights, bias[:, None]], 1))

"""The kinks of a piecewise-linear function along a line.

Two pieces that meet in one kink show it exactly: the kink is where their extensions meet, and the answers close to it on both sides agree
with them. Where they do not, there are more kinks between, and the interval is divided. (The answer at the meeting itself shows nothing: it
agrees wherever extensions meet before the first of several kinks.)

A function that is piecewise linear but for a narrow zone around each kink, as gelu, silu and softplus are from afar, is treated alike: no
answer is asked closer to a kink than the resolution.

Axes: d inputs, N kinks or intervals, o outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from extraction.derivatives.differences import Scale
from extraction.derivatives.questions import Questions
from extraction.derivatives.result import Lacking

SAME = 1e-9  # relative differences of answers below this are rounding
SLOPES = 1e-7  # the same of slopes
CLOSE = (1e-5, 1e-3)  # distances from a kink, as shares of the interval, at which the pieces on both sides are checked
SHARE = 2e-5  # of an interval that a slope is measured over
LEVELS, MOST = 60, 4096  # divisions, and intervals at a time
SHORTEST = 1e-10  # intervals, as a share of the line, that are not divided any more
ROUNDING = 8 * torch.finfo(torch.float64).eps  # of the difference of two answers, relative to them


@dataclass(frozen=True)
class Precision:
    """What a line can show.

    Attributes:
        resolution: no answer is asked closer to a kink, in units of t.
        rounding: the error of the difference of two answers, as a share of them.
        slopes: relative differences of slopes below this are rounding.
    """

    resolution: float = 0.0
    rounding: float = ROUNDING
    slopes: float = SLOPES


EXACT = Precision()


@dataclass(frozen=True)
class Line:
    """The points `origin + t direction`, for vectors `[d]` and t from `low` to `high`."""

    origin: torch.Tensor
    direction: torch.Tensor
    low: float
    high: float

    def at(self, places: torch.Tensor) -> torch.Tensor:
        """Inputs `[N, d]` at places t, `[N]`."""
        return self.origin + places[:, None] * self.direction


@dataclass(frozen=True)
class Kinks:
    """The kinks of a line.

    Attributes:
        line: the line.
        places: t in ascending order, `[N]`.
        jumps: of the slope along the line, `[N, o]`.
    """

    line: Line
    places: torch.Tensor
    jumps: torch.Tensor

    @property
    def points(self) -> torch.Tensor:
        """The inputs at the kinks, `[N, d]`."""
        return self.line.at(self.places)

    @property
    def edges(self) -> torch.Tensor:
        """The ends of the pieces, `[N + 2]`; not far from the outermost kinks, where rounding errors grow."""
        ends = self.places.new_tensor([self.line.low, self.line.high])
        if not len(self.places):
            return ends
        outside = (self.places[-1:] - self.places[:1] + self.line.origin.norm()) / 4
        first, last = torch.maximum(self.places[:1] - outside, ends[:1]), torch.minimum(self.places[-1:] + outside, ends[1:])
        return torch.cat([first, self.places, last])

    @property
    def room(self) -> torch.Tensor:
        """The length of the shorter of the two pieces at each kink, `[N]`."""
        lengths = self.edges.diff()
        return torch.minimum(lengths[:-1], lengths[1:])


@dataclass(frozen=True)
class _Pieces:
    """Answers and slopes at places of a line, in the pieces that the places lie in.

    Attributes:
        places: `[N]`.
        values: `[N, o]`.
        slopes: `[N, o]`.
        errors: of the slopes, `[N]`.
    """

    places: torch.Tensor
    values: torch.Tensor
    slopes: torch.Tensor
    errors: torch.Tensor

    def some(self, which: torch.Tensor) -> _Pieces:
        return _Pieces(*(part[which] for part in vars(self).values()))

    def joined(self, other: _Pieces) -> _Pieces:
        return _Pieces(*(torch.cat(pair) for pair in zip(vars(self).values(), vars(other).values(), strict=True)))

    def extended(self, places: torch.Tensor) -> torch.Tensor:
        """The answers at places of a line, if they lay in the same pieces."""
        return self.values + self.slopes * (places - self.places)[:, None]


def find_kinks(asked: Questions, line: Line, scale: Scale, precision: Precision = EXACT, most: int = MOST) -> Kinks:
    """All kinks of a line that are further from each other than the resolution.

    Args:
        asked: the function.
        line: the line.
        scale: of the function's inputs and answers.
        precision: of the line.
        most: intervals at a time.

    Raises:
        Lacking: there are too many.
    """
    length = line.high - line.low
    ends = line.origin.new_tensor([line.low, line.high])

    def pieces(places: torch.Tensor, steps: torch.Tensor) -> _Pieces:
        here, there = asked(torch.cat([line.at(places), line.at(places + steps)])).chunk(2)
        sizes = torch.maximum(here.abs().amax(1), scale.size(line.at(places)))
        return _Pieces(places, here, (there - here) / steps[:, None], precision.rounding * sizes / steps.abs())

    low, high = (pieces(ends[[end]], SHARE * length * ends.new_tensor([1 - 2 * end])) for end in (0, 1))
    shortest = max(SHORTEST * length, 2 * precision.resolution)
    places, jumps = [ends[:0]], [low.slopes[:0]]
    for _ in range(LEVELS):
        bent = _differ(low, high, precision.slopes)
        low, high = low.some(bent), high.some(bent)
        meeting, is_kink = _meeting(asked, line, (low, high), precision.resolution)
        places.append(meeting[is_kink])
        jumps.append((high.slopes - low.slopes)[is_kink])
        is_left = ~is_kink & (high.places - low.places > shortest)
        low, high = low.some(is_left), high.some(is_left)
        if not len(low.places):
            break
        if len(low.places) > most:
            raise Lacking(f"a line has more than {most} places where the answers bend: they are not piecewise linear, or not exact")
        lengths = high.places - low.places
        middle = pieces(low.places + lengths * (0.5 + 0.1 * asked.uniform(len(lengths))), SHARE * lengths)
        low, high = low.joined(middle), middle.joined(high)
    order = torch.cat(places).argsort()
    return Kinks(line, torch.cat(places)[order], torch.cat(jumps)[order])


def _differ(one: _Pieces, other: _Pieces, tolerance: float) -> torch.Tensor:
    """Which slopes differ, `[N]`."""
    size = (one.slopes.abs() + other.slopes.abs()).amax(1)
    return (one.slopes - other.slopes).abs().amax(1) > tolerance * size + one.errors + other.errors


def _meeting(asked: Questions, line: Line, ends: tuple[_Pieces, _Pieces], resolution: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the pieces at both ends of each interval meet, and whether there is nothing but one kink there."""
    left, right = ends
    low, high = left.places, right.places
    bend = left.slopes - right.slopes
    gap = right.values - left.values + left.slopes * low[:, None] - right.slopes * high[:, None]
    meeting = (gap * bend).sum(1) / bend.square().sum(1)
    agrees = (meeting > low + resolution) & (meeting < high - resolution)
    meeting = torch.where(agrees, meeting, low)
    reach = high - low
    size = left.values.abs() + (left.slopes.abs() + right.slopes.abs()) * reach[:, None]
    size = SAME * size + ((left.errors + right.errors) * reach)[:, None]
    checked = [((meeting + low) / 2, left), ((meeting + high) / 2, right)]
    for share in CLOSE:
        close = (share * reach).clamp_min(resolution)
        checked += [(meeting - close, left), (meeting + close, right)]
    for place, piece in checked:
        possible = agrees.nonzero()[:, 0]
        errors = (asked(line.at(place[possible])) - piece.extended(place)[possible]).abs()
        agrees[possible] = (errors <= size[possible]).all(1)
    return meeting, agrees

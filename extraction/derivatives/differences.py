"""Finite differences whose steps follow from the precision of the answers and the scale of the inputs.

The *radius* r is the scale of normal queries `r N(0, 1)` at which weighted sums of the inputs are of order 1, so that the network is
neither linear nor saturated. A step of r sqrt(d) along one of d axes then moves weighted sums by order 1: it is the *unit* of steps. With
a relative error e of the answers, forward differences are best at e^(1/2) units (error e^(1/2)), second differences at e^(1/4) units (the
same error).

| derivative | queries | error at e = 1e-16 |
|---|---|---|
| gradient of all outputs, forward | d + 1 | 1e-8 |
| gradient, central | 2 d | 1e-11; never worth twice the queries here, because seeds need not be exact |
| all second derivatives | d (d + 1) + 1 | 1e-8, from two queries for each pair of axes; four for each pair, as usual, gain nothing |

Axes: P points, d inputs, o outputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from extraction.derivatives.questions import Questions
from extraction.derivatives.result import Lacking

OCTAVES = 24  # radii from 2^-24 to 2^24 are tried
LINES, ERROR_LINES = 3, 7  # lines along which the radius and the error are measured
ORDER, NODES, SPACING = 6, 12, 2.0**-14  # differences of this order over so many points, in units, contain nothing but errors
VISIBLE = 1e-5  # changes below this share of the answers are not judged by their bends
BEND = 0.15  # the typical relative bend at the radius
BENT = 1e-6  # smaller bends are rounding: the network is affine, and has no radius
SHRUNK = 0.99  # of the limit of inputs, so that short lines stay inside
EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Scale:
    """The scale of inputs and answers.

    Attributes:
        radius: the standard deviation of inputs at which the network is neither linear nor saturated.
        spread: the standard deviation of each output over such inputs, `[o]`.
        error: the standard deviation of the error of each answer, `[o]`.
        limit: the largest absolute input that may be asked.
        reach: the radius without that limit, as far as bends within it show.
    """

    radius: float
    spread: torch.Tensor
    error: torch.Tensor
    limit: float = math.inf
    reach: float = 0.0

    @property
    def is_bounded(self) -> bool:
        """Whether there is a limit."""
        return self.limit < math.inf

    def inside(self, points: torch.Tensor, step: float = 0.0) -> torch.Tensor:
        """Points `[n, d]`, drawn towards 0 where they, or a step from them along an axis, exceed the limit."""
        return points * ((self.limit - step) / points.abs().amax(1, keepdim=True)).clamp(max=1.0)

    def size(self, points: torch.Tensor) -> torch.Tensor:
        """The size of the terms that answers at points `[n, d]` are sums of, `[n]`: answers near 0 have errors of this size."""
        return float(self.spread.max()) * (points.norm(dim=1) / self.unit(points.shape[1])).clamp_min(1.0)

    @property
    def relative_error(self) -> float:
        """The error of the answers as a share of their spread, for the worst output."""
        return float((self.error / self.spread).max())

    def unit(self, inputs: int) -> float:
        """The step along one of so many axes that moves weighted sums by order 1."""
        return max(self.radius, self.reach) * math.sqrt(inputs)

    def first(self, inputs: int) -> float:
        """The step of forward differences along one of so many axes."""
        return self.unit(inputs) * self.relative_error**0.5

    def second(self, inputs: int) -> float:
        """The step of second differences along one of so many axes."""
        return self.unit(inputs) * self.relative_error**0.25


def measure(asked: Questions, radius: float | None = None) -> Scale:
    """The scale of a teacher.

    Args:
        asked: the teacher, for any inputs near those of the radius.
        radius: if known; else the smallest at which the network is about as far from linear as it gets.

    Raises:
        Lacking: answers are not finite.
    """
    nearby = Scale(1.0, asked.normal(0), asked.normal(0), SHRUNK * asked.limit)
    if not bool(asked(nearby.inside(asked.normal(4, asked.inputs))).isfinite().all()):
        raise Lacking("answers are not finite")
    radius, reach = (radius, radius) if radius else _radius(asked)
    answers = asked(nearby.inside(radius * asked.normal(64, asked.inputs)))
    spread = answers.std(0)
    spread = torch.where(spread > 0, spread, spread.max().clamp_min(torch.finfo(spread.dtype).tiny))
    return Scale(radius, spread, _error(asked, radius, nearby).clamp_min(EPS / 4 * answers.abs().mean(0)), asked.limit, reach)


def _radius(asked: Questions) -> tuple[float, float]:
    """The smallest radius t with at least half of the largest relative `|f(2 t v) - 2 f(t v) + f(0)|`, over random directions v.

    Where inputs are limited, the second number is the radius beyond the limit at which it would be BEND.
    """
    directions = asked.normal(LINES, asked.inputs)
    directions = torch.cat([directions, -directions])
    radii = 2.0 ** torch.arange(-OCTAVES, OCTAVES + 1, dtype=torch.float64, device=asked.device)
    radii = radii[radii * directions.abs().max() <= asked.limit]
    points = radii[:, None, None] * directions
    centre = asked(torch.zeros_like(directions[:1]))
    values = asked(points.flatten(0, 1)).unflatten(0, points.shape[:2]) - centre  # [radii, 2 LINES, o]
    bends = (values[1:] - 2 * values[:-1]).abs() / (values[1:].abs() + 2 * values[:-1].abs()).clamp_min(1e-300)
    bend = torch.where(values[1:].abs() > VISIBLE * centre.abs(), bends, 0.0).mean((1, 2))
    if float(bend.max()) < BENT:
        return 1.0, 1.0
    best = int((bend >= 0.5 * bend.max()).nonzero()[0])
    radius = float(radii[1:][best])
    return radius, radius * max(1.0, BEND / float(bend[best])) if asked.limit < math.inf else radius


def _error(asked: Questions, radius: float, nearby: Scale) -> torch.Tensor:
    """The standard deviation of the errors of answers, `[o]`, from high differences along short lines (Hamming 1962, More and Wild 2011).

    A difference of order k of independent errors s has the standard deviation `s sqrt((2k)!) / k!`.
    """
    nodes = SPACING * radius * torch.arange(NODES, dtype=torch.float64, device=asked.device)
    starts, directions = asked.normal(ERROR_LINES, 1, asked.inputs) * radius, asked.normal(ERROR_LINES, 1, asked.inputs)
    points = nearby.inside(starts[:, 0])[:, None] + nodes[:, None] * directions
    values = asked(points.flatten(0, 1)).unflatten(0, points.shape[:2])
    differences = values.diff(n=ORDER, dim=1).square().mean(1).median(0).values  # a line that crosses a kink does not count
    return differences.sqrt() * math.factorial(ORDER) / math.sqrt(math.factorial(2 * ORDER))


def gradients(asked: Questions, points: torch.Tensor, step: float | torch.Tensor) -> torch.Tensor:
    """The Jacobians `[P, o, d]` at points `[P, d]` by forward differences: `d + 1` queries a point.

    Args:
        asked: the function.
        points: `[P, d]`.
        step: the same for all points, or one for each, `[P]`.
    """
    steps = torch.as_tensor(step).to(points).expand(len(points))
    moves = torch.cat([points.new_zeros(1, asked.inputs), torch.eye(asked.inputs, dtype=points.dtype, device=points.device)])
    values = torch.stack([asked(point + length * moves) for point, length in zip(points, steps, strict=True)])
    return (values[:, 1:] - values[:, :1]).mT / steps[:, None, None]


def curvatures(asked: Questions, point: torch.Tensor, step: float) -> torch.Tensor:
    """All second derivatives `[o, d, d]` at a point `[d]`, from `d (d + 1) + 1` queries.

    With `g(v) = f(x + v) + f(x - v)`, the derivative along i and j is `(g(e_i + e_j) - g(e_i) - g(e_j) + 2 f(x)) / 2`, exact up to fourth
    derivatives, so that every pair of axes needs two queries of its own.
    """
    inputs = asked.inputs
    axes = step * torch.eye(inputs, dtype=point.dtype, device=point.device)
    first, second = torch.triu_indices(inputs, inputs, 1, device=point.device)
    moves = torch.cat([axes, axes[first] + axes[second]])
    centre = asked(point[None])
    sums = asked(point + moves) + asked(point - moves)  # [d + pairs, o]
    single, pairs = sums[:inputs], sums[inputs:]
    result = point.new_zeros(centre.shape[1], inputs, inputs)
    result[:, first, second] = (pairs - single[first] - single[second] + 2 * centre).T / (2 * step**2)
    result = result + result.mT
    result.diagonal(dim1=1, dim2=2).copy_((single - 2 * centre).T / step**2)
    return result

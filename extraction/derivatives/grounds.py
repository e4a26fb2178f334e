"""Piecewise-linear functions, and where they may be asked.

The first hidden layer of a network may be asked anywhere. What is behind it is a function of its outputs h, which may be asked at h > 0,
where all neurons are active, or anywhere, where the activation function has an inverse.

Axes: d inputs, o outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from extraction.derivatives.differences import Scale
from extraction.derivatives.kinks import REACH
from extraction.derivatives.lines import EXACT, Line, Precision, find_kinks
from extraction.derivatives.questions import Questions

FAR = 30.0  # radii, at which gradients are measured, so that the biases do not decide which neurons are active
SPREAD = 3.0  # of the logarithms of positive inputs: a few of them are far larger than the others, so that sums take both signs
PAIRS, STRAIGHT = 16, 1e-4  # of points, and the largest bend between them, as a share of their difference, of an affine function
SAME_JUMP = 1e-4  # relative differences of the jumps of one neuron on parallel lines


@dataclass(frozen=True)
class Ground:
    """A function and where it may be asked.

    Attributes:
        asked: the function.
        scale: of its inputs and answers.
        is_positive: whether only inputs > 0 may be asked.
        precision: of its lines.
    """

    asked: Questions
    scale: Scale
    is_positive: bool = False
    precision: Precision = EXACT

    def points(self, count: int) -> torch.Tensor:
        """Random inputs `[count, d]`."""
        normal = self.asked.normal(count, self.asked.inputs)
        return self.scale.radius * (torch.exp(SPREAD * normal) if self.is_positive else FAR * normal)

    def line(self) -> Line:
        """A random line."""
        here, there = self.points(2)
        if not self.is_positive:
            here = here / FAR
        direction = there - here
        length = float(direction.norm())
        reach = REACH * self.scale.unit(self.asked.inputs)
        low, high = (0.0, length) if self.is_positive else (-reach, reach)
        return Line(here, direction / length, low, high)


def is_deep(ground: Ground) -> bool:
    """Whether kinks along parallel lines differ, as they do not with one hidden layer."""
    one = ground.line()
    other = Line(ground.points(1)[0], one.direction, one.low, one.high)
    jumps, others = (find_kinks(ground.asked, line, ground.scale, ground.precision).jumps for line in (one, other))
    if not len(jumps) or not len(others):
        return False
    distances = (jumps[:, None] - others).abs().amax(2)
    known = (distances <= SAME_JUMP * jumps.abs().amax(1, keepdim=True)).any(1)
    return float(known.double().mean()) < 0.5


def is_affine(ground: Ground) -> bool:
    """Whether there is no hidden layer: answers half way between two points are the mean of theirs."""
    one, other = ground.points(PAIRS), ground.points(PAIRS)
    values, others, middle = ground.asked(torch.cat([one, other, (one + other) / 2])).chunk(3)
    bends = (values + others - 2 * middle).abs().amax(1)
    return bool((bends <= STRAIGHT * (values - others).abs().amax(1)).all())

"""Levenberg-Marquardt on a few queries at once, without the files of a training run.

Axes: Q queries, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from training.second_order import LevenbergMarquardt
from training.train import Objective

Rule = Callable[[Sequence[float]], bool]  # from the squared errors before each step to whether this was the last one


def descend(model: torch.nn.Module, queries: torch.Tensor, answers: torch.Tensor, steps: int, is_over: Rule | None = None) -> None:
    """Takes a model down to a minimum of the mean squared error on all given answers, in place.

    Args:
        model: gives outputs `[Q, O]`, in float64.
        queries: `[Q, inputs]`.
        answers: `[Q, O]`.
        steps: the most steps; the descent ends earlier where the optimizer has converged.
        is_over: ends it earlier too, such as `has_stalled`.
    """
    _descend(LevenbergMarquardt(model), Objective(model, queries, answers), steps, is_over)  # type: ignore[arg-type]


def descend_in_bends(model: torch.nn.Module, queries: torch.Tensor, answers: torch.Tensor, steps: int, is_over: Rule | None = None) -> None:
    """Does the same as `descend`, with steps that bend (`AcceleratedSearch`), for a plain model or a stack of students."""
    _descend(LevenbergMarquardt(model, accelerated=True), Objective(model, queries, answers), steps, is_over)  # type: ignore[arg-type]


def _descend(optimizer: LevenbergMarquardt, objective: Objective, steps: int, is_over: Rule | None) -> None:
    losses: list[float] = []
    for _ in range(steps):
        losses.append(float(optimizer.step(objective)))
        if optimizer.converged or (is_over is not None and is_over(losses)):
            break


def has_stalled(steps: int) -> Rule:
    """The rule that the squared error has not halved in so many steps."""
    return lambda losses: len(losses) > steps and losses[-1] > losses[-1 - steps] / 2


def has_settled(steps: int, share: float) -> Rule:
    """The rule that the squared errors before the last steps differ by at most this share of the smallest of them."""
    return lambda losses: len(last := losses[-steps:]) == steps and max(last) - min(last) <= share * min(last)

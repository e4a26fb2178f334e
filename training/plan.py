"""What happens around the updates of a training run, and which part of it is to be done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from foundations.step import Step
from models.base import Model
from training.metric_logger import MetricLogger
from training.trackers.base import Identity

Callback = Callable[[str, Step, Model, torch.optim.Optimizer, MetricLogger], None]
StopRule = Callable[[Step, Model, MetricLogger], bool]


@dataclass(frozen=True)
class Plan:
    """A training run beside its hyperparameters, its model and its data.

    Attributes:
        callbacks: called before every update and once after the last (`step.last`).
        stop_when: rules that are evaluated before every update, after the callbacks; where one is met, that update is the last. A rule that
            is a function of its arguments ends a resumed run where it ends an uninterrupted one.
        start: where learning rate and data begin; the very start when left out.
        end: where training ends; `training_hparams.training_steps` when left out.
    """

    callbacks: Sequence[Callback] = ()
    stop_when: Sequence[StopRule] = ()
    start: Step | None = None
    end: Step | None = None


@dataclass(frozen=True)
class StandardPlan(Plan):
    """The plan of a standard run, whose own `callbacks` follow the standard ones.

    Attributes:
        verbose: whether anything is shown.
        epoch_lines: whether every evaluation is printed, or only a bar (on a terminal) or a line every few seconds.
        evaluate_only_at_end: whether to evaluate before and after training only.
        identity: what provenance and trackers record of the run; None for a run that is a part of another.
    """

    verbose: bool = True
    epoch_lines: bool = True
    evaluate_only_at_end: bool = False
    identity: Identity | None = None


WHOLE = Plan()
STANDARD = StandardPlan()

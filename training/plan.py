"""The plan of a training run: its callbacks, its stop rules, its first and its last step."""

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
    """What a training run consists of besides its hyperparameters, its model and its data.

    Attributes:
        callbacks: called before every update, and once after the last (`step.last`).
        stop_when: rules that are evaluated before every update, after the callbacks; once a rule is met, one more update follows. A rule
            that depends on its arguments alone ends a resumed run at the same step as an uninterrupted one.
        start: the first step of the learning rate and of the data; step 0 if None.
        end: the step at which training ends; `training_hparams.training_steps` if None.
    """

    callbacks: Sequence[Callback] = ()
    stop_when: Sequence[StopRule] = ()
    start: Step | None = None
    end: Step | None = None


@dataclass(frozen=True)
class StandardPlan(Plan):
    """The plan of a standard run; its `callbacks` are called after the standard ones.

    Attributes:
        verbose: whether anything is printed.
        epoch_lines: whether every evaluation is printed; if not, there is a bar (on a terminal) or a line every few seconds.
        has_curves: whether the curves of the metrics are drawn at the end.
        evaluate_only_at_end: whether to evaluate only before and after training.
        identity: what the provenance and the trackers record of the run; None if the run is a part of another run.
    """

    verbose: bool = True
    epoch_lines: bool = True
    has_curves: bool = True
    evaluate_only_at_end: bool = False
    identity: Identity | None = None


WHOLE = Plan()
STANDARD = StandardPlan()

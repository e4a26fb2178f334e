"""Divergence: a run whose last losses are not finite numbers. The run says so while it trains, at its end, and whenever it is listed."""

from __future__ import annotations

import itertools
import math
import operator
import sys

from foundations.step import Step
from training.metric_logger import MetricLogger
from training.plan import Callback

LOSSES = ("train_loss", "test_loss")


def remark(logger: MetricLogger) -> str:
    """When the last losses of a log ceased to be finite, such as `the test loss is not finite from step 12it on`; empty if they are finite.

    For a stack of students, the remark names the students whose loss is not finite.
    """
    remarks = []
    for name in LOSSES:
        values = logger.numbers(name)
        diverged = list(itertools.takewhile(lambda record: not math.isfinite(record[1]), reversed(values)))
        if diverged:
            first, finite = diverged[-1][0], values[: -len(diverged)]
            before = f" (it is finite at step {finite[-1][0]}it)" if finite else ""
            text = f"the {name.replace('_', ' ')}{_students(logger, name)} is not finite from step {first}it on{before}"
            remarks.append((first, text))
    return min(remarks, key=operator.itemgetter(0))[1] if remarks else ""


def _students(logger: MetricLogger, name: str) -> str:
    """The students whose last loss is not finite, such as ` of students 0 and 3 of 10`; empty without students."""
    losses = logger.latest(name.replace("_loss", "_individual_losses"))
    if not isinstance(losses, list):
        return ""
    diverged = [str(number) for number, loss in enumerate(losses) if not math.isfinite(loss)]
    return f" of students {', '.join(diverged)} (of 0 to {len(losses) - 1})" if diverged else ""


def create_warning_callback() -> Callback:
    """A callback that prints a warning to stderr at the first evaluation whose loss is not finite."""
    warned = False

    def run(output_location: str, step: Step, model, optimizer, logger: MetricLogger) -> None:
        nonlocal warned
        if not warned and any(not math.isfinite(logger.number_at(name, step) or 0.0) for name in LOSSES):
            warned = True
            print(f"Warning: {output_location} has diverged: {remark(logger)}", file=sys.stderr, flush=True)

    return run

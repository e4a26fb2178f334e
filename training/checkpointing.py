"""Checkpoints: everything that a run needs to go on as if it had never stopped."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field

import torch

from foundations import paths
from foundations.errors import ConfigError, reason
from foundations.step import Step
from models import base
from platforms.platform import get_platform
from training.metric_logger import MetricLogger
from training.optimizers import Schedule
from training.sharing import Share

SHARE = 0.02  # of the time that a run takes, which its checkpoints may


class Pace:
    """When it is time for the next checkpoint.

    Args:
        between: seconds that are at least between checkpoints at the starts of epochs, so that short epochs share one.
        within: seconds after which an epoch is interrupted for one.

    Both are stretched where a checkpoint is so slow that it would take more than its SHARE of the time, unless they are 0.
    """

    def __init__(self, between: float, within: float):
        self.between, self.within = between, within
        self.cost, self.begun, self.saved = 0.0, 0.0, time.monotonic()

    def is_due(self, step: Step) -> bool:
        """Whether a run that has come to a step should write one now; at the last it always should."""
        self.begun = time.monotonic()
        wanted = self.between if step.it == 0 else self.within
        return step.last or self.begun - self.saved >= (max(wanted, self.cost / SHARE) if wanted else 0)

    def done(self) -> None:
        """To be called when the checkpoint that was due is written."""
        self.saved = time.monotonic()
        self.cost = self.saved - self.begun


@dataclass
class State:
    """What changes in a run, and what a checkpoint holds of it beside the random generators."""

    model: base.Model
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    schedule: Schedule
    logger: MetricLogger = field(default_factory=MetricLogger)


def save(location: str, state: State) -> None:
    """Writes the checkpoint of a run in one stroke, keeps the one before, and then writes how far the run has come.

    The checkpoint comes first: a process that is killed between the two writes leaves a progress that lags behind, and never one that no
    checkpoint has. Nothing that is computed depends on the progress, so that it need not survive a power cut.
    """
    model, optimizer = state.model, state.optimizer.state_dict()
    content = {
        "model": model.state_dict(),
        "optimizer": model.whole(optimizer) if isinstance(model, Share) else optimizer,
        "scaler": state.scaler.state_dict(),
        "schedule": state.schedule.state_dict(),
        "logger": str(state.logger),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all(),
    }
    get_platform().write(paths.checkpoint(location), base.to_bytes(content), keep=paths.previous_checkpoint(location))
    _write_progress(location, state.schedule)


def _write_progress(location: str, schedule: Schedule) -> None:
    """Writes how far a run has come, for those who list runs."""
    epoch = schedule.iteration // schedule.iterations_per_epoch
    content = {"iteration": schedule.iteration, "epoch": epoch, "planned_iterations": schedule.planned}
    get_platform().write(paths.progress(location), json.dumps(content) + "\n", durable=False)


def drop_previous(location: str) -> None:
    """Removes the checkpoint before the newest, and the progress; for runs that are complete."""
    for path in (paths.previous_checkpoint(location), paths.progress(location)):
        get_platform().remove(path)


def restore(location: str, state: State) -> bool:
    """Puts the run's checkpoint, if there is one, into the state and the random generators.

    Where it is damaged, the one before takes its place, with a line that says so.

    Returns:
        Whether there is a checkpoint.

    Raises:
        ConfigError: all checkpoints there are are damaged, or belong to another run; the newest of them is named.
    """
    newest, previous = paths.checkpoint(location), paths.previous_checkpoint(location)
    there = [path for path in (newest, previous) if get_platform().exists(path)]
    failure = None
    for path in there:
        try:
            _restore(path, state)
        except ConfigError as error:
            failure = failure or error
            continue
        if failure:
            _write_progress(location, state.schedule)
            get_platform().move(previous, newest)
            print(f"{str(failure).partition(';')[0]}; going on from the checkpoint before it", file=sys.stderr, flush=True)
        return True
    if failure:
        raise failure
    return False


def _restore(path: str, state: State) -> None:
    content, model = base.read_state(path), state.model
    try:
        model.load_state_dict(content["model"])
        _restore_optimizer(state.optimizer, model.own(content["optimizer"]) if isinstance(model, Share) else content["optimizer"])
        state.scaler.load_state_dict(content["scaler"] if state.scaler.is_enabled() else {})
        state.schedule.load_state_dict(content["schedule"])
        state.logger = MetricLogger.from_str(content["logger"])
        torch.set_rng_state(content["random"])
        for device, random in zip(range(torch.cuda.device_count()), content["random_cuda"], strict=False):
            torch.cuda.set_rng_state(random, device)
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is not a checkpoint of this run ({reason(error)}); move it away to start again") from error


def _restore_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """`load_state_dict`, but every tensor keeps its number format, and lies in memory as its parameter does.

    torch casts the tensors of float64 models, and loses bits of NAdam's. Fused kernels refuse moments that lie otherwise than weights.
    """
    _check_groups(optimizer, state)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for place, values in state["state"].items():
        for name, value in values.items():
            _check_shapes(optimizer, parameters[place], name, value)
    optimizer.load_state_dict(state)
    for place, values in state["state"].items():
        parameter, restored = parameters[place], optimizer.state[parameters[place]]
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                like = parameter if value.shape == parameter.shape else restored[name]
                restored[name] = torch.empty_like(like, dtype=value.dtype, device=restored[name].device).copy_(value)


def _check_groups(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Raises a ValueError where a state is of an optimizer with other hyperparameters; learning rates and dampings change on the way."""
    for ours, theirs in zip(optimizer.param_groups, state["param_groups"], strict=True):
        for name in ours.keys() & theirs.keys() - {"params", "lr"}:
            same = len(ours[name]) == len(theirs[name]) if name == "damping" else ours[name] == theirs[name]
            if not same:
                raise ValueError(f"its optimizer has another {name}")


def _check_shapes(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter, name: str, value: object) -> None:
    """Raises a ValueError unless a value of an optimizer's state is a number, or as large as its parameter, or a list for all of them."""
    networks = getattr(optimizer, "networks", 1)
    whole = (networks, sum(each.numel() for each in optimizer.param_groups[0]["params"]) // networks)
    for part, shape in [(each, whole) for each in value] if isinstance(value, list) else [(value, parameter.shape)]:
        if isinstance(part, torch.Tensor) and part.shape not in (torch.Size(), torch.Size(shape)):
            raise ValueError(f"its optimizer's {name} has {list(part.shape)} for {list(shape)}")

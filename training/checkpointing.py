"""Checkpoints: everything that a run needs to go on as if it had never stopped."""

from __future__ import annotations

import torch

from foundations import paths
from foundations.errors import ConfigError, reason
from models import base
from platforms.platform import get_platform
from training.metric_logger import MetricLogger
from training.optimizers import Schedule


def save(
    location: str,
    model: base.Model,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    schedule: Schedule,
    logger: MetricLogger,
) -> None:
    """Writes the checkpoint of a run; it replaces the one before in one stroke."""
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "schedule": schedule.state_dict(),
        "logger": str(logger),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all(),
    }
    get_platform().write(paths.checkpoint(location), base.to_bytes(state))


def restore(
    location: str, model: base.Model, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, schedule: Schedule
) -> MetricLogger | None:
    """Puts the run's checkpoint, if there is one, into the model, the optimizer, the scaler, the schedule and the random generators.

    Returns:
        The log so far; None where there is no checkpoint.

    Raises:
        ConfigError: the checkpoint is damaged, or belongs to another model.
    """
    path = paths.checkpoint(location)
    if not get_platform().exists(path):
        return None
    state = base.read_state(path)
    try:
        model.load_state_dict(state["model"])
        _restore_optimizer(optimizer, state["optimizer"])
        scaler.load_state_dict(state["scaler"] if scaler.is_enabled() else {})
        schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["random_cuda"])
        return MetricLogger.from_str(state["logger"])
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is not a checkpoint of this run ({reason(error)}); move it away to start anew") from error


def _restore_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """`load_state_dict`, but every tensor keeps its number format; torch casts those of float64 models, and loses bits of NAdam's."""
    optimizer.load_state_dict(state)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for place, values in state["state"].items():
        restored = optimizer.state[parameters[place]]
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                restored[name] = restored[name].to(value.dtype).copy_(value)

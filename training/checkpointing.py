"""Checkpoints: the full state of a run, so that a resumed run ends in the same bits as an uninterrupted one."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field

import torch

from foundations import json_text, paths
from foundations.errors import ConfigError, reason
from foundations.step import Step
from models import base
from platforms.platform import get_platform
from training.metric_logger import MetricLogger
from training.optimizers import Schedule
from training.sharing import StackShard

TIME_SHARE = 0.02  # the largest share of the run time that checkpoints may take


class CheckpointTimer:
    """Decides when a checkpoint is due.

    Args:
        between: the shortest time between checkpoints at the starts of epochs, in seconds; several short epochs share a checkpoint.
        within: the time after which a checkpoint is written within an epoch, in seconds.

    Both times are extended if checkpoints would take more than TIME_SHARE of the run time, unless they are 0.
    """

    def __init__(self, between: float, within: float):
        self.between, self.within = between, within
        self.cost, self.begun, self.saved = 0.0, 0.0, time.monotonic()

    def is_due(self, step: Step) -> bool:
        """Whether a checkpoint is due at a step; at the last step it always is."""
        self.begun = time.monotonic()
        wanted = self.between if step.it == 0 else self.within
        return step.last or self.begun - self.saved >= (max(wanted, self.cost / TIME_SHARE) if wanted else 0)

    def done(self) -> None:
        """Records that the checkpoint has been written."""
        self.saved = time.monotonic()
        self.cost = self.saved - self.begun


@dataclass
class State:
    """The state of a run. A checkpoint contains it together with the states of the random generators."""

    model: base.Model
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    schedule: Schedule
    logger: MetricLogger = field(default_factory=MetricLogger)


def save(location: str, state: State) -> None:
    """Writes the checkpoint of a run atomically, keeps the previous checkpoint, and then writes the progress of the run.

    The order matters: if the process is killed between the two writes, the progress is older than the checkpoint, never newer. No result
    depends on the progress, so it need not survive a power cut.
    """
    model, optimizer = state.model, state.optimizer.state_dict()
    content = {
        "model": model.state_dict(),
        "optimizer": model.gather_optimizer_state(optimizer) if isinstance(model, StackShard) else optimizer,
        "scaler": state.scaler.state_dict(),
        "schedule": state.schedule.state_dict(),
        "logger": str(state.logger),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all(),
    }
    get_platform().write(paths.checkpoint(location), base.to_bytes(content), keep=paths.previous_checkpoint(location))
    _write_progress(location, state.schedule)


def _write_progress(location: str, schedule: Schedule) -> None:
    """Writes the progress of a run, which the listing of runs reads."""
    epoch = schedule.iteration // schedule.iterations_per_epoch
    content = {"iteration": schedule.iteration, "epoch": epoch, "planned_iterations": schedule.planned}
    get_platform().write(paths.progress(location), json_text.dumps(content) + "\n", durable=False)


def drop_previous(location: str) -> None:
    """Removes the previous checkpoint and the progress of a run that is complete."""
    for path in (paths.previous_checkpoint(location), paths.progress(location)):
        get_platform().remove(path)


def restore(location: str, state: State) -> bool:
    """Loads the run's checkpoint, if there is one, into the state and the random generators.

    If the newest checkpoint is damaged, the previous one replaces it, and a line on standard error says so.

    Returns:
        Whether there is a checkpoint.

    Raises:
        ConfigError: every checkpoint is damaged or belongs to another run; the error names the newest.
    """
    newest, previous = paths.checkpoint(location), paths.previous_checkpoint(location)
    existing = [path for path in (newest, previous) if get_platform().exists(path)]
    failure = None
    for path in existing:
        try:
            _restore(path, state)
        except ConfigError as error:
            failure = failure or error
            continue
        if failure:
            _write_progress(location, state.schedule)
            get_platform().move(previous, newest)
            print(f"{str(failure).partition(';')[0]}; resuming from the previous checkpoint", file=sys.stderr, flush=True)
        return True
    if failure:
        raise failure
    return False


def _restore(path: str, state: State) -> None:
    """Loads a file of a checkpoint into the state and the random generators."""
    content, model = base.read_state(path), state.model
    try:
        if "model_state_dict" in content:
            _restore_ancestor(content, state)
            return
        model.load_state_dict(content["model"])
        optimizer = content["optimizer"]
        _restore_optimizer(state.optimizer, model.shard_optimizer_state(optimizer) if isinstance(model, StackShard) else optimizer)
        state.scaler.load_state_dict(content["scaler"] if state.scaler.is_enabled() else {})
        state.schedule.load_state_dict(content["schedule"])
        state.logger = MetricLogger.from_str(content["logger"])
        torch.set_rng_state(content["random"])
        for device, random in zip(range(torch.cuda.device_count()), content["random_cuda"], strict=False):
            torch.cuda.set_rng_state(random, device)
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is not a checkpoint of this run ({reason(error)}); move it away to start again") from error


def _restore_ancestor(content: dict, state: State) -> None:
    """Loads a checkpoint of OpenLTH or of the published code, and resumes as they do: it has neither random states nor a schedule.

    Raises:
        ValueError: the state of the optimizer belongs to other parameters.
    """
    model, schedule, theirs = state.model, state.schedule, content["optimizer_state_dict"]
    weights = _unwrapped(content["model_state_dict"])
    model.load_state_dict(model.convert_state_dict(weights))
    ours = state.optimizer.param_groups
    if [len(group["params"]) for group in ours] != [len(group["params"]) for group in theirs["param_groups"]]:
        raise ValueError("its optimizer trains other parameters")
    if schedule.plateau:
        schedule.plateau.optimizer.param_groups[0]["lr"] = theirs["param_groups"][0]["lr"] / schedule.lr
    schedule.advance_to(Step.from_epoch(content["ep"], content["it"], schedule.iterations_per_epoch))
    if schedule.iteration:
        groups = [
            old | {name: value for name, value in group.items() if name != "params"}
            for group, old in zip(ours, theirs["param_groups"], strict=True)
        ]
        optimizer = {"state": _converted_moments(theirs["state"], list(weights), model), "param_groups": groups}
        _restore_optimizer(state.optimizer, model.shard_optimizer_state(optimizer) if isinstance(model, StackShard) else optimizer)
    state.logger = MetricLogger.from_str(content["logger"])


def _unwrapped(state: dict) -> dict:
    """Weights without the prefixes of parallel and of pruned models, which store their masks as well."""
    state = {name: values for name, values in state.items() if not name.removeprefix("module.").startswith("mask_")}
    for wrapper in ("module.", "model."):
        if all(name.startswith(wrapper) for name in state):
            state = {name.removeprefix(wrapper): values for name, values in state.items()}
    return state


def _converted_moments(state: dict, names: list[str], model: base.Model) -> dict:
    """The state of an optimizer by parameter, with the tensors in the layout of a model. `names` are the names of the weights."""
    converted = {place: dict(values) for place, values in state.items()}
    for moment in {name for values in state.values() for name, value in values.items() if isinstance(value, torch.Tensor) and value.dim()}:
        theirs = {name: state[place][moment] for place, name in enumerate(names) if place in state}
        ours = model.convert_state_dict(theirs)
        if ours.keys() != theirs.keys():
            for place, (name, _) in enumerate(model.named_parameters()):
                converted[place][moment] = ours[name]
    return converted


def _restore_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """`load_state_dict`, but every tensor keeps its number format, and gets the memory layout of its parameter.

    torch casts the tensors of float64 models, which loses bits of NAdam's. Fused kernels require moments in the layout of the weights.
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
    """Raises a ValueError if a state belongs to an optimizer with other hyperparameters. Learning rates and dampings may differ."""
    for ours, theirs in zip(optimizer.param_groups, state["param_groups"], strict=True):
        for name in ours.keys() & theirs.keys() - {"params", "lr"}:
            same = len(ours[name]) == len(theirs[name]) if name == "damping" else ours[name] == theirs[name]
            if not same:
                raise ValueError(f"the {name} of its optimizer differs")


def _check_shapes(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter, name: str, value: object) -> None:
    """Raises a ValueError unless a value of an optimizer's state is a number, has its parameter's shape, or is a list of flat tensors."""
    networks = getattr(optimizer, "networks", 1)
    flat_shape = (networks, sum(other.numel() for other in optimizer.param_groups[0]["params"]) // networks)
    for part, shape in [(item, flat_shape) for item in value] if isinstance(value, list) else [(value, parameter.shape)]:
        if isinstance(part, torch.Tensor) and part.shape not in (torch.Size(), torch.Size(shape)):
            raise ValueError(f"the {name} of its optimizer has shape {list(part.shape)}; valid: {list(shape)}")

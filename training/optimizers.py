"""Optimizers by name, and the learning rate over time."""

from __future__ import annotations

import bisect
import math

import torch

from foundations.errors import ConfigError, unknown
from foundations.step import Step
from foundations.step import parse as parse_step
from foundations.training_hparams import DECAYS, PRECISIONS, TrainingHparams
from platforms.platform import get_platform
from training.centring import Centring
from training.lbfgs import LBFGS
from training.second_order import LevenbergMarquardt, SecondOrder

ACCELERATED = "accelerated_levenberg_marquardt"
LEAST_SQUARES = ["levenberg_marquardt", ACCELERATED]
OPTIMIZERS = ["sgd", "adam", "nadam", "lbfgs", *LEAST_SQUARES]
ADAPTIVE = {"adam": torch.optim.Adam, "nadam": torch.optim.NAdam}
SECOND_ORDER = ["lbfgs", *LEAST_SQUARES]
ADAM_BETA1, ADAM_BETA2 = TrainingHparams.adam_beta1, 0.999
MILESTONE_FACTOR = 0.1
PLATEAU_FACTOR = 10**-0.5
SMALLEST_RATE = 1e-7  # a plateau schedule lowers the rate no further, and ends training


def get_optimizer(training_hparams: TrainingHparams, model: torch.nn.Module) -> torch.optim.Optimizer:
    """The optimizer of the hyperparameters, over all parameters of a model that require a gradient."""
    optimizer = _optimizer(training_hparams, model)
    if training_hparams.centred and training_hparams.optimizer_name not in SECOND_ORDER:
        Centring(optimizer, model)
    return optimizer


def _optimizer(training_hparams: TrainingHparams, model: torch.nn.Module) -> torch.optim.Optimizer:
    h = training_hparams
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decay = h.weight_decay or 0.0
    if h.optimizer_name == "sgd":
        return _sgd(parameters, h.lr, h.momentum or h.nesterov_momentum, decay, h.nesterov_momentum > 0)
    if h.optimizer_name in ADAPTIVE:
        kind, fused = ADAPTIVE[h.optimizer_name], {"fused": True} if h.optimizer_name == "adam" else {}
        return kind(parameters, lr=h.lr, betas=(h.adam_beta1, ADAM_BETA2), weight_decay=decay, **fused)
    if h.optimizer_name == "lbfgs":
        return LBFGS(model, lr=h.lr)
    if h.optimizer_name in LEAST_SQUARES:
        return LevenbergMarquardt(model, lr=h.lr, ridge=decay, accelerated=h.optimizer_name == ACCELERATED)
    raise unknown("--optimizer_name", h.optimizer_name, OPTIMIZERS)


def _sgd(parameters: list[torch.nn.Parameter], lr: float, momentum: float, decay: float, nesterov: bool) -> torch.optim.SGD:
    """SGD whose momentum starts at zero, with the same result as torch's default.

    Without it, torch's fused kernel uses uninitialised memory as momentum if gradients overflow in the first step of fp16.
    """
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=decay, nesterov=nesterov, fused=True)
    if momentum:
        for parameter in parameters:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def choices() -> dict[str, list[str]]:
    """The valid values of the fields of TrainingHparams that have a closed list, for `--help`."""
    return {"optimizer_name": OPTIMIZERS, "polish_optimizer": SECOND_ORDER, "lr_decay": list(DECAYS), "precision": list(PRECISIONS)}


def check(training_hparams: TrainingHparams, classes: bool) -> None:
    """Checks that the optimizer exists and can train with these hyperparameters.

    Args:
        training_hparams: how to train.
        classes: whether the labels are classes rather than real-valued targets.

    Raises:
        ConfigError: the optimizer is unknown, or does not support a hyperparameter or the labels.
    """
    name = training_hparams.optimizer_name
    if name not in OPTIMIZERS:
        raise unknown("--optimizer_name", name, OPTIMIZERS)
    if name in LEAST_SQUARES and classes:
        raise ConfigError(f"--optimizer_name: {name} fits real-valued targets only; valid here: sgd, adam, nadam, lbfgs")
    if name in SECOND_ORDER and training_hparams.arithmetic in ("bf16", "fp16"):
        flag = "apex_fp16" if training_hparams.apex_fp16 else "precision"
        raise ConfigError(f"--{flag}: {name} needs more precision than 16 bits; valid here: float32, tf32, float64")
    for field in ("momentum", "nesterov_momentum", "weight_decay"):
        if name in SECOND_ORDER and getattr(training_hparams, field):
            raise ConfigError(f"--{field}: {name} does not use it; leave it out, or use sgd or adam")
    if name not in ADAPTIVE and training_hparams.adam_beta1 != ADAM_BETA1:
        raise ConfigError(f"--adam_beta1: {name} does not use it; leave it out, or use adam or nadam")
    _check_continuation(training_hparams)


def _check_continuation(h: TrainingHparams) -> None:
    """Raises a ConfigError if `--further_training` is not after the end of training, as far as that is known without the dataset."""
    if h.further_training is None or h.plateau_opt or h.optimizer_name in SECOND_ORDER:
        return  # such a run may have ended early
    until, end = (parse_step(text) for text in (h.further_training, h.training_steps))
    if until[0] <= end[0] and until[1] <= end[1]:
        raise ConfigError(
            f"--further_training: {h.further_training} is not after the end of training, {h.training_steps}; "
            f"--extra_training {h.further_training} trains for that many more steps"
        )


def ambiguity(h: TrainingHparams) -> str | None:
    """Why the hyperparameters mean something else in OpenLTH or in the published Expand-and-Cluster code; None if they do not.

    The names of runs equal OpenLTH's, so that a name must not stand for two results.
    """
    if h.optimizer_name in ADAPTIVE and h.nesterov_momentum:
        hint = "" if h.optimizer_name == "nadam" else "--optimizer_name nadam is Adam with Nesterov momentum; "
        return f"--nesterov_momentum: {h.optimizer_name} does not use it, and OpenLTH ignores it; {hint}valid here: 0"
    if h.optimizer_name in ADAPTIVE and h.momentum not in (0, ADAM_BETA1):
        return (
            f"--momentum: {h.optimizer_name} does not use it, and OpenLTH ignores it; "
            f"--adam_beta1 {h.momentum:g} sets the decay rate of the first moment; valid here: 0 or {ADAM_BETA1:g}"
        )
    if h.optimizer_name == "sgd" and h.nesterov_momentum and h.momentum not in (0, h.nesterov_momentum):
        return f"--nesterov_momentum: {h.nesterov_momentum:g} contradicts --momentum {h.momentum:g}; valid: equal values, or 0 for one"
    for name in ("milestone_steps", "warmup_steps"):
        if h.plateau_opt and getattr(h, name):
            return f"--{name}: the published Expand-and-Cluster code ignores it with --plateau_opt; valid: only one of the two flags"
    return None


class Schedule:
    """The learning rate at every iteration, and the end of training.

    The rate is `lr` times a warm-up, times `delta` for each milestone passed, times a decay curve, times the reduction by plateaus.
    Training ends at the planned iteration, or earlier if a plateau schedule has ended, if a second-order optimizer has converged, or after
    `stop`. `extra_training` adds steps to that, `further_training` goes on until a step. The decay curve spans `training_steps`, even if
    only a part of them is planned.

    Rates equal those of OpenLTH and, with `plateau_opt`, of the published Expand-and-Cluster code: a plateau is an epoch whose mean loss is
    not below the smallest so far, and training ends after an epoch at SMALLEST_RATE.
    """

    def __init__(self, training_hparams: TrainingHparams, optimizer: torch.optim.Optimizer, iterations_per_epoch: int, planned: Step):
        h = training_hparams
        steps = lambda text: Step.from_str(text, iterations_per_epoch).iteration  # noqa: E731
        self.optimizer, self.lr, self.iterations_per_epoch, self.planned = optimizer, h.lr, iterations_per_epoch, planned.iteration
        self.length = steps(h.training_steps)
        self.warmup = steps(h.warmup_steps) if h.warmup_steps else 0
        self.milestones = [steps(milestone) for milestone in h.milestones]
        self.delta = h.delta
        self.cosine = h.lr_decay == "cosine"
        self.further = steps(h.further_training) if h.further_training else 0
        self.extra = steps(h.extra_training) if h.extra_training else 0
        self.finished_at: int | None = None
        self.stopped = False
        self.iteration = 0
        self.epoch_loss: torch.Tensor | float = 0.0
        self.plateau = self._plateau(h) if h.plateau_opt else None
        self._apply()

    def _plateau(self, h: TrainingHparams) -> torch.optim.lr_scheduler.ReduceLROnPlateau:
        """torch's plateau schedule on a separate rate that starts at `lr` and is multiplied with the other factors."""
        rate = torch.optim.SGD([torch.zeros(1)], lr=h.lr)
        factor = PLATEAU_FACTOR if h.delta is None else h.delta
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            rate, factor=factor, patience=h.patience, threshold=0.0, cooldown=h.cooldown, min_lr=SMALLEST_RATE
        )

    def factor(self, iteration: int) -> float:
        """The factor of the learning rate at an iteration, without the reduction by plateaus."""
        factor = min(1.0, iteration / self.warmup) if self.warmup else 1.0
        factor *= (MILESTONE_FACTOR if self.delta is None else self.delta) ** bisect.bisect(self.milestones, iteration)
        if self.cosine:
            start, length = 0, self.length
            if self.finished_at is not None and self._end > self.finished_at:
                start, length = self.finished_at, self._end - self.finished_at
            factor *= (1 + math.cos(math.pi * min(1.0, (iteration - start) / max(length, 1)))) / 2
        return factor

    @property
    def plateau_rate(self) -> float:
        """The learning rate that plateaus have left."""
        return self.plateau.optimizer.param_groups[0]["lr"] if self.plateau else self.lr

    @property
    def _end(self) -> int:
        """The last iteration, of a run that has ended."""
        assert self.finished_at is not None
        return max(self.finished_at + self.extra, self.further)

    def advance_to(self, step: Step) -> None:
        """Sets the current step without training."""
        self.iteration = step.iteration
        self._apply()

    def step(self, loss: torch.Tensor) -> None:
        """Advances by one update. `loss` is the loss of the batch, or the contribution of this process to it."""
        self.iteration += 1
        if self.plateau:
            self.epoch_loss = self.epoch_loss + get_platform().all_reduce_sum(loss.detach()).double()
            if self.iteration % self.iterations_per_epoch == 0:
                self._end_epoch(self.plateau, float(self.epoch_loss) / self.iterations_per_epoch)
                self.epoch_loss = 0.0
        self._apply()

    def _end_epoch(self, plateau: torch.optim.lr_scheduler.ReduceLROnPlateau, loss: float) -> None:
        """Tells the plateau schedule the mean loss of an epoch, or ends training. Training that goes on has no smallest rate."""
        if self.finished_at is not None:
            plateau.min_lrs, plateau.eps = [0.0], 0.0
        elif self.plateau_rate < SMALLEST_RATE + plateau.eps:
            self.stopped = True
            return
        plateau.step(loss)

    def stop(self) -> None:
        """Ends training after the next update. A checkpoint contains the end once `is_over` has registered it, but not the request."""
        self.stopped = True

    def is_over(self) -> bool:
        """Whether training is complete."""
        converged = isinstance(self.optimizer, SecondOrder) and self.optimizer.converged
        early = self.stopped or converged
        if self.finished_at is None and (self.iteration >= self.planned or early):
            self.finished_at = self.iteration
            self._apply()
        return self.finished_at is not None and self.iteration >= self._end

    def _apply(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.plateau_rate * self.factor(self.iteration)

    def state_dict(self) -> dict:
        """The state of the schedule, as plain values."""
        plateau = None
        if self.plateau:
            plateau = {name: getattr(self.plateau, name) for name in ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")}
            plateau["rate"] = self.plateau_rate
        return {"iteration": self.iteration, "finished_at": self.finished_at, "epoch_loss": float(self.epoch_loss), "plateau": plateau}

    def load_state_dict(self, state: dict) -> None:
        """Restores the state from a `state_dict`.

        Raises:
            ValueError: the state belongs to another kind of schedule.
        """
        plateau = dict(state["plateau"] or {})
        if "scale" in plateau:  # of an earlier version
            plateau["rate"] = self.lr * plateau.pop("scale")
        counts, numbers = (state["iteration"], state["finished_at"] or 0), (state["epoch_loss"], *plateau.values())
        plain = all(type(count) is int and count >= 0 for count in counts) and all(type(number) in (int, float) for number in numbers)
        if not plain or plateau.keys() != (self.state_dict()["plateau"] or {}).keys():
            raise ValueError("its schedule is of another kind")
        self.iteration, self.finished_at, self.epoch_loss = state["iteration"], state["finished_at"], state["epoch_loss"]
        if self.plateau:
            self.plateau.optimizer.param_groups[0]["lr"] = plateau.pop("rate")
            for name, value in plateau.items():
                setattr(self.plateau, name, value)
        self._apply()


def get_lr_schedule(training_hparams: TrainingHparams, optimizer: torch.optim.Optimizer, iterations_per_epoch: int) -> Schedule:
    """The learning rate of a complete training run. `step(loss)` advances it by one update."""
    planned = Step.from_str(training_hparams.training_steps, iterations_per_epoch)
    return Schedule(training_hparams, optimizer, iterations_per_epoch, planned)

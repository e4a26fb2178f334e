"""The hyperparameters of a training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from foundations import step
from foundations.errors import ConfigError, unknown
from foundations.hparams import Hparams, hashed_as, unhashed

DECAYS = ("cosine",)
PRECISIONS = ("float32", "tf32", "bf16", "fp16", "float64")


@dataclass
class TrainingHparams(Hparams):
    """How weights are changed."""

    optimizer_name: str
    lr: float
    training_steps: str
    data_order_seed: int | None = None
    momentum: float = 0.0
    nesterov_momentum: float = 0.0
    milestone_steps: str | None = None
    delta: float | None = hashed_as("gamma", None)
    warmup_steps: str | None = None
    weight_decay: float | None = None
    centred: bool = False
    lr_decay: str | None = None
    plateau_opt: bool = False
    patience: int = 100
    cooldown: int = 200
    precision: str = "float32"
    apex_fp16: bool = False
    polish_optimizer: str | None = None
    polish_steps: str = "200it"
    further_training: str | None = unhashed(None)

    _name = "Training Hyperparameters"
    _description = "The optimizer, its learning rate over time, and the length of training."
    _optimizer_name = "The optimizer."
    _lr = "The learning rate. Gauss-Newton and Levenberg-Marquardt steps are multiplied by it; 1 is the full step."
    _training_steps = "How long to train: epochs (40ep), iterations (500it) or both (3ep20it)."
    _data_order_seed = "The seed of the order of the examples, where it is not to follow from --global_seed."
    _momentum = "The momentum of SGD, or the first decay rate of Adam where it is set."
    _nesterov_momentum = "The Nesterov momentum of SGD."
    _milestone_steps = "When the learning rate is multiplied by --delta, such as 80ep,120ep."
    _delta = "The factor of milestones (0.1 when left out) and of plateaus (1/sqrt(10) when left out)."
    _warmup_steps = "How long the learning rate rises from 0 in a line."
    _weight_decay = "The L2 penalty on the weights."
    _centred = (
        "Step as if the activations of hidden neurons were centred, which changes the way and not the network: for sgd and adam, and fully "
        "connected networks."
    )
    _lr_decay = "The curve along which the learning rate falls to 0 at the end of training."
    _plateau_opt = (
        "Multiply the learning rate by --delta whenever the training loss has not improved for --patience epochs, and stop when "
        "it has fallen by a factor of 10,000."
    )
    _patience = "Epochs without improvement before a plateau is declared."
    _cooldown = "Epochs after a plateau in which no other is declared."
    _precision = (
        "The number format of the arithmetic. tf32 needs an NVIDIA GPU. bf16 and fp16 are mixed precision: weights stay in float32, and "
        "the losses of fp16 are scaled."
    )
    _apex_fp16 = "The older name of --precision fp16, which names the same folder as in OpenLTH. It needs no Apex."
    _polish_optimizer = "Extraction only: when trained, students go on in float64 with this second-order optimizer, until two are exact."
    _polish_steps = "How long to polish at most."
    _further_training = "Train a finished run for this many steps more, in the same folder."

    def __post_init__(self):
        self.require("lr", 0 < self.lr < math.inf, "a finite number more than 0")
        self.require("momentum", 0 <= self.momentum < 1, "0 or more and less than 1")
        self.require("nesterov_momentum", 0 <= self.nesterov_momentum < 1, "0 or more and less than 1")
        self.require("delta", self.delta is None or 0 < self.delta < 1, "between 0 and 1")
        self.require("weight_decay", self.weight_decay is None or 0 <= self.weight_decay < math.inf, "a finite number, 0 or more")
        self.require("patience", self.patience >= 0, "0 or more")
        self.require("cooldown", self.cooldown >= 0, "0 or more")
        self.require("training_steps", any(step.parse(self.training_steps, "--training_steps")), "1it or more")
        self.require("polish_steps", any(step.parse(self.polish_steps, "--polish_steps")), "1it or more")
        for name in ("warmup_steps", "further_training"):
            if getattr(self, name) is not None:
                step.parse(getattr(self, name), f"--{name}")
        for milestone in self.milestones:
            step.parse(milestone, "--milestone_steps")
        if self.lr_decay is not None and self.lr_decay not in DECAYS:
            raise unknown("--lr_decay", self.lr_decay, DECAYS)
        if self.precision not in PRECISIONS:
            raise unknown("--precision", self.precision, PRECISIONS)
        if self.apex_fp16 and self.precision != "float32":
            raise ConfigError(f"--apex_fp16: stands for --precision fp16, and not for {self.precision}; valid: one flag of the two")

    @property
    def arithmetic(self) -> str:
        """The number format of the arithmetic, by whichever name it was asked for: one of PRECISIONS."""
        return "fp16" if self.apex_fp16 else self.precision

    @property
    def stored_precision(self) -> str:
        """The number format of weights and inputs, as torch calls it: float32 unless all is float64."""
        return "float64" if self.precision == "float64" else "float32"

    @property
    def milestones(self) -> list[str]:
        """The milestone steps one by one."""
        return self.milestone_steps.split(",") if self.milestone_steps else []

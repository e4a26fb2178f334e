"""The hyperparameters of training."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from foundations import step
from foundations.errors import ConfigError, unknown
from foundations.hparams import Hparams, hashed_as, normalised, unhashed

LARGEST_SEED = 2**62  # the seed of an epoch is the sum of the seed and the number of the epoch, in 64 bits
DECAYS = ("cosine",)
PRECISIONS = ("float32", "tf32", "bf16", "fp16", "float64")


@dataclass
class TrainingHparams(Hparams):
    """The optimizer, its schedule, and the length and precision of training."""

    optimizer_name: str
    lr: float
    training_steps: str = normalised(step.canonical)
    data_order_seed: int | None = None
    momentum: float = 0.0
    nesterov_momentum: float = 0.0
    milestone_steps: str | None = normalised(step.canonical_list, None)
    delta: float | None = hashed_as("gamma", None)
    warmup_steps: str | None = normalised(step.canonical, None)
    weight_decay: float | None = None
    _: dataclasses.KW_ONLY  # OpenLTH has other fields from here on
    adam_beta1: float = 0.9
    centred: bool = False
    lr_decay: str | None = None
    plateau_opt: bool = False
    patience: int = 100
    cooldown: int = 200
    precision: str = "float32"
    apex_fp16: bool = False
    polish_optimizer: str | None = None
    polish_steps: str = normalised(step.canonical, "200it")
    further_training: str | None = unhashed(None)
    extra_training: str | None = unhashed(None)

    _name = "Training Hyperparameters"
    _description = "The optimizer, its learning rate schedule, and the length of training."
    _optimizer_name = "The optimizer."
    _lr = "The learning rate. Gauss-Newton and Levenberg-Marquardt steps are multiplied by it: 1 is the full step."
    _training_steps = "How long to train: epochs (40ep), iterations (500it) or both (3ep20it)."
    _data_order_seed = "The seed of the order of the examples. By default it is derived from --global_seed."
    _momentum = "The momentum of SGD."
    _nesterov_momentum = "The Nesterov momentum of SGD."
    _adam_beta1 = "The decay rate of the first moment of adam and nadam."
    _milestone_steps = "The steps at which the learning rate is multiplied by --delta, such as 80ep,120ep."
    _delta = "The factor of the learning rate at milestones (0.1 by default) and at plateaus (1/sqrt(10) by default)."
    _warmup_steps = "The length of the linear warmup of the learning rate from 0."
    _weight_decay = "The L2 penalty on the weights."
    _centred = (
        "Step as if the activations of hidden neurons were centred. This changes the optimisation path, not the function. "
        "Valid for sgd and adam, and for fully connected networks."
    )
    _lr_decay = "The curve along which the learning rate decays to 0 at the end of training."
    _plateau_opt = (
        "Multiply the learning rate by --delta whenever the training loss has not improved for --patience epochs. "
        "Stop after an epoch at the smallest learning rate, 1e-7."
    )
    _patience = "The number of epochs without improvement after which a plateau is declared."
    _cooldown = "The number of epochs after a plateau in which no further plateau is declared."
    _precision = (
        "The number format of the arithmetic. tf32 needs an NVIDIA GPU. bf16 and fp16 are mixed precision: weights stay in float32. "
        "With fp16 the loss is scaled."
    )
    _apex_fp16 = "The older name of --precision fp16. It gives the run the same name as in OpenLTH. Apex is not needed."
    _polish_optimizer = (
        "Extraction only: after training, train the students further in float64 with this second-order optimizer, until two are exact."
    )
    _polish_steps = "The maximum number of steps of --polish_optimizer."
    _further_training = "Train a finished run until this step, in the same folder, as in the published Expand-and-Cluster code."
    _extra_training = "Train a finished run for this many more steps, in the same folder."

    def __post_init__(self):
        self.require("lr", 0 < self.lr < math.inf, "a finite number more than 0")
        self.require("momentum", 0 <= self.momentum < 1, "0 or more and less than 1")
        self.require("nesterov_momentum", 0 <= self.nesterov_momentum < 1, "0 or more and less than 1")
        self.require("adam_beta1", 0 <= self.adam_beta1 < 1, "0 or more and less than 1")
        seed = self.data_order_seed
        self.require("data_order_seed", seed is None or abs(seed) <= LARGEST_SEED, f"-{LARGEST_SEED} to {LARGEST_SEED}")
        self.require("delta", self.delta is None or 0 < self.delta < 1, "between 0 and 1")
        self.require("weight_decay", self.weight_decay is None or 0 <= self.weight_decay < math.inf, "a finite number, 0 or more")
        self.require("patience", self.patience >= 0, "0 or more")
        self.require("cooldown", self.cooldown >= 0, "0 or more")
        self.require("training_steps", any(step.parse(self.training_steps, "--training_steps")), "1it or more")
        self.require("polish_steps", any(step.parse(self.polish_steps, "--polish_steps")), "1it or more")
        for name in ("warmup_steps", "further_training", "extra_training"):
            if getattr(self, name) is not None:
                step.parse(getattr(self, name), f"--{name}")
        for milestone in (self.milestone_steps or "0ep").split(","):
            step.parse(milestone, "--milestone_steps")
        if self.further_training is not None and self.extra_training is not None:
            raise ConfigError("--extra_training: cannot be combined with --further_training; valid: only one of the two flags")
        if self.lr_decay is not None and self.lr_decay not in DECAYS:
            raise unknown("--lr_decay", self.lr_decay, DECAYS)
        if self.precision not in PRECISIONS:
            raise unknown("--precision", self.precision, PRECISIONS)
        if self.apex_fp16 and self.precision != "float32":
            raise ConfigError(
                f"--apex_fp16: means --precision fp16 and contradicts --precision {self.precision}; valid: only one of the two flags"
            )

    @property
    def arithmetic(self) -> str:
        """The number format of the arithmetic from `precision` or `apex_fp16`: one of PRECISIONS."""
        return "fp16" if self.apex_fp16 else self.precision

    @property
    def stored_precision(self) -> str:
        """The number format of weights and inputs by its name in torch: float64 for `float64`, else float32."""
        return "float64" if self.precision == "float64" else "float32"

    @property
    def continues(self) -> bool:
        """Whether a finished run is trained on."""
        return self.further_training is not None or self.extra_training is not None

    @property
    def milestones(self) -> list[str]:
        """The canonical texts of the milestone steps, in their canonical order."""
        return step.canonical_list(self.milestone_steps).split(",") if self.milestone_steps else []

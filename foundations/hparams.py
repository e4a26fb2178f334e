"""Hyperparameters: dataclasses that turn into flags, into text, and into the name of a run.

A field is a hyperparameter: its annotation is its type (bool, int, float, str, any of them `| None`, or another Hparams), its
default is what leaves training as it would be without it, and a class attribute `_field` is its help. A field without a default
is required. `_name` and `_description` head the group.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from foundations import step
from foundations.errors import ConfigError, unknown
from foundations.seeds import NOT_CHOSEN

DECAYS = ("cosine",)
PRECISIONS = ("float32", "tf32", "bf16", "fp16", "float64")
UNSUPERVISED_LABELS = ("rotation",)
LINKAGES = ("average", "complete", "single", "weighted")


def unhashed(default: object) -> dataclasses.Field:
    """A hyperparameter that does not name the run."""
    return dataclasses.field(default=default, metadata={"hashed": False})


def hashed_as(name: str, default: object) -> dataclasses.Field:
    """A hyperparameter that keeps an older name inside the hash."""
    return dataclasses.field(default=default, metadata={"hash_name": name})


@dataclass
class Hparams:
    """The base of every bundle of hyperparameters."""

    _name = "Hyperparameters"
    _description = ""

    @classmethod
    def hyperparameters(cls) -> list[tuple[dataclasses.Field, type]]:
        """Each field with its type, None aside."""
        hints = typing.get_type_hints(cls)
        rows = []
        for field in dataclasses.fields(cls):
            kinds = typing.get_args(hints[field.name]) or (hints[field.name],)
            rows.append((field, next(kind for kind in kinds if kind is not types.NoneType)))
        return rows

    @classmethod
    def add_args(
        cls,
        parser: argparse.ArgumentParser,
        defaults: Hparams | None = None,
        prefix: str | None = None,
        choices: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Adds a group with one flag a hyperparameter.

        Args:
            parser: where the flags go.
            defaults: values that stand in for the class's own defaults.
            prefix: makes `--prefix_field` of `--field`.
            choices: for fields with a closed list of values, bundles within bundles included, the list that help shows and that shells
                complete (`values` of the flag).
        """
        title = cls._name if prefix is None else f"{cls._name} ({prefix})"
        group = parser.add_argument_group(title, cls._description)
        for field, kind in cls.hyperparameters():
            default = _default(field) if defaults is None else getattr(defaults, field.name)
            name = field.name if prefix is None else f"{prefix}_{field.name}"
            if isinstance(kind, type) and issubclass(kind, Hparams):
                kind.add_args(parser, None if default is dataclasses.MISSING else default, name, choices)
                continue
            values = (choices or {}).get(field.name, ())
            text = _help(getattr(cls, f"_{field.name}", ""), default, values)
            default = None if default is dataclasses.MISSING else default
            if kind is bool:
                group.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=default, help=text)
            else:
                flag = group.add_argument(f"--{name}", type=_PARSERS[kind], default=default, help=text, metavar=kind.__name__.upper())
                flag.values = values

    @classmethod
    def create_from_args(cls, args: argparse.Namespace, prefix: str | None = None) -> Hparams:
        """The bundle that parsed flags describe.

        Raises:
            ConfigError: a required flag is missing, or a value is out of its range.
        """
        values = {}
        for field, kind in cls.hyperparameters():
            name = field.name if prefix is None else f"{prefix}_{field.name}"
            if isinstance(kind, type) and issubclass(kind, Hparams):
                values[field.name] = kind.create_from_args(args, name)
                continue
            values[field.name] = getattr(args, name)
            if values[field.name] is None and field.default is dataclasses.MISSING:
                elsewhere = "" if getattr(args, "default_hparams", None) else ", or start from --default_hparams=NAME"
                raise ConfigError(f"--{name} is required; give it{elsewhere}")
        try:
            return cls(**values)
        except ConfigError as error:
            raise error if prefix is None else ConfigError(str(error).replace("--", f"--{prefix}_", 1)) from None

    def require(self, field: str, condition: bool, valid: str) -> None:
        """Raises a ConfigError that names a field, its value and what is valid, unless the condition holds."""
        if not condition:
            raise ConfigError(f"--{field}: {getattr(self, field)} is out of range; valid: {valid}")

    @property
    def display(self) -> str:
        """The group's name, and a line for each hyperparameter that is required or differs from its default."""
        lines = [self._name]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Hparams):
                lines.append(value.display)
            elif value != _default(field):
                lines.append(f"    * {field.name} => {value}")
        return "\n".join(lines)

    def __str__(self):
        """The canonical text: what differs from its default, sorted by name."""
        shown = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.metadata.get("hashed", True) and value != _default(field):
                shown[field.metadata.get("hash_name", field.name)] = str(value) if isinstance(value, Hparams) else repr(value)
        return f"Hparams({', '.join(f'{name}={shown[name]}' for name in sorted(shown))})"

    def to_dict(self) -> dict[str, object]:
        """Every hyperparameter with its value, as JSON can hold it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Hparams:
        """The bundle that `to_dict` described; fields that it did not know have their defaults.

        Raises:
            TypeError: a value is not of its hyperparameter's type, or a required one is missing.
        """
        found = {}
        for field, kind in cls.hyperparameters():
            if field.name not in values:
                continue
            value = values[field.name]
            if isinstance(kind, type) and issubclass(kind, Hparams):
                value = kind.from_dict(value)
            elif not (type(value) is kind or (kind is float and type(value) is int) or (value is None and field.default is None)):
                raise TypeError(f"{field.name} is {value!r:.40}")
            found[field.name] = value
        return cls(**found)

    @classmethod
    def from_text(cls, texts: Mapping[str, str]) -> Hparams:
        """The bundle whose values `display` showed as text; names that it does not know are passed over.

        Raises:
            ValueError: a text is no value of its hyperparameter.
            TypeError: a required hyperparameter is missing.
        """
        known = {field.name: kind for field, kind in cls.hyperparameters() if field.name in texts}
        return cls(**{name: texts[name] == "True" if kind is bool else kind(texts[name]) for name, kind in known.items()})


def _default(field: dataclasses.Field) -> object:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _help(text: str, default: object, choices: Sequence[str]) -> str:
    notes = [f"one of: {', '.join(choices)}"] if choices else []
    if default is dataclasses.MISSING:
        notes.append("required")
    elif default is not None and default is not False:
        notes.append(f"default: {default}")
    return f"{text} ({'; '.join(notes)})".replace("%", "%%") if notes else text.replace("%", "%%")


def _parser(kind: type, article: str):
    def parse(text: str):
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {article}") from None

    return parse


_PARSERS = {int: _parser(int, "a whole number"), float: _parser(float, "a number"), str: str}


@dataclass
class DatasetHparams(Hparams):
    """Which examples, and how many at a time."""

    dataset_name: str
    batch_size: int
    teacher_name: str | None = None
    teacher_seed: int = NOT_CHOSEN
    datagen: str | None = None
    samples: int | None = unhashed(None)
    d_in: int | None = unhashed(None)
    do_not_augment: bool = False
    transformation_seed: int | None = None
    subsample_fraction: float | None = None
    random_labels_fraction: float | None = None
    unsupervised_labels: str | None = None
    blur_factor: int | None = None

    _name = "Dataset Hyperparameters"
    _description = "The examples to train on, and for the dataset 'teacher' who answers which queries."
    _dataset_name = "The dataset. 'teacher' asks a trained network for its outputs."
    _batch_size = "Examples in a batch."
    _teacher_name = (
        "Who answers the queries of the dataset 'teacher': the hash of a train run or a unique prefix of it, the name of a model "
        "(its default run, trained first when absent), or a .npz file with arrays X and y."
    )
    _teacher_seed = "The seed of the teacher's run."
    _datagen = "The queries: policies joined by +, each with an optional count, such as digits+random:4000. A file of answers has its own."
    _samples = "Queries in all; policies without a count share them. Inferred when left out."
    _d_in = "Inputs of the teacher. Inferred when left out, checked when given."
    _do_not_augment = "Train on the images as they are, without random crops and mirroring."
    _transformation_seed = "The seed of what changes the dataset: subsampling, random labels, rotation, augmentation (0 when left out)."
    _subsample_fraction = "The share of the training examples that is kept, drawn at random."
    _random_labels_fraction = "The share of the training examples that get a class drawn at random."
    _unsupervised_labels = "Another task, in training and test. 'rotation': by how many quarter turns an image has been turned."
    _blur_factor = "Blur training images by shrinking them so many times and enlarging them again."

    def __post_init__(self):
        self.require("batch_size", self.batch_size >= 1, "1 or more")
        self.require("samples", self.samples is None or self.samples >= 1, "1 or more")
        self.require("d_in", self.d_in is None or self.d_in >= 1, "1 or more")
        self.require("teacher_seed", self.teacher_seed >= NOT_CHOSEN, "-1 (not chosen) or more")
        for name in ("subsample_fraction", "random_labels_fraction"):
            self.require(name, getattr(self, name) is None or 0 < getattr(self, name) <= 1, "more than 0 and at most 1")
        self.require("blur_factor", self.blur_factor is None or self.blur_factor >= 1, "1 or more")
        if self.unsupervised_labels not in (None, *UNSUPERVISED_LABELS):
            raise unknown("--unsupervised_labels", self.unsupervised_labels, UNSUPERVISED_LABELS)
        if self.unsupervised_labels is not None and self.random_labels_fraction is not None:
            raise ConfigError("--random_labels_fraction: does not go with --unsupervised_labels, which replaces all labels")


@dataclass
class ModelHparams(Hparams):
    """Which network, and how its weights begin."""

    model_name: str
    model_init: str
    batchnorm_init: str
    act_fun: str = "relu"
    batchnorm_frozen: bool = False
    output_frozen: bool = False
    others_frozen: bool = False
    others_frozen_exceptions: str | None = None

    _name = "Model Hyperparameters"
    _description = "The network, its initialisation, and what of it stays as it begins."
    _model_name = "The model, such as digits_lenet_16 or students_digits_lenet(10)_64."
    _model_init = "How kernels begin."
    _batchnorm_init = "How BatchNorm scales begin."
    _act_fun = "The activation function of the hidden layers."
    _batchnorm_frozen = "Leave the scales and shifts of BatchNorm layers as they begin; their running statistics still follow the data."
    _output_frozen = "Leave the output layer as it begins."
    _others_frozen = "Leave everything else as it begins."
    _others_frozen_exceptions = (
        "Tensors that --others_frozen spares, by name and joined by commas, such as conv.weight,blocks.0.conv1.weight."
    )


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


@dataclass
class PruningHparams(Hparams):
    """How a network is pruned; each strategy has its own subclass."""

    pruning_strategy: str

    _name = "Pruning Hyperparameters"
    _description = "The strategy, and what it takes."
    _pruning_strategy = "The pruning strategy."


@dataclass
class ExtractionHparams(Hparams):
    """How a network is read off its students; they are hashed on their own, so that the same students serve many."""

    gamma: float = 0.7
    beta: float = 6.0
    linkage: str = "average"
    boruta: str | None = None
    finetune_optimizer: str = "levenberg_marquardt"
    finetune_lr: float = 1.0
    finetune_training_steps: str = "60it"
    finetune_batch_size: int | None = None

    _name = "Extraction Hyperparameters"
    _description = "Clustering of the students' neurons, and fine-tuning of the network that they share."
    _gamma = "The share of the students that must have a neuron for it to count as the teacher's."
    _beta = "A cluster counts while the median angle between its neurons is at most pi/beta."
    _linkage = "How the distance of two clusters follows from those of their neurons."
    _boruta = "The dataset whose uninformative inputs, by the Boruta procedure, are left out of clustering and of the score."
    _finetune_optimizer = "The optimizer that fine-tunes the reconstructed network."
    _finetune_lr = "Its learning rate."
    _finetune_training_steps = "How long to fine-tune at most; it stops earlier when the loss is at the rounding floor."
    _finetune_batch_size = "Queries in a step of fine-tuning (when left out, twenty equations for each unknown, or all queries)."

    def __post_init__(self):
        self.require("gamma", 0 < self.gamma <= 1, "more than 0 and at most 1")
        self.require("beta", 1 <= self.beta < math.inf, "a finite number, 1 or more")
        if self.linkage not in LINKAGES:
            raise unknown("--linkage", self.linkage, LINKAGES)
        self.require("finetune_lr", 0 < self.finetune_lr < math.inf, "a finite number more than 0")
        self.require("finetune_batch_size", self.finetune_batch_size is None or self.finetune_batch_size >= 1, "1 or more")
        length = step.parse(self.finetune_training_steps, "--finetune_training_steps")
        self.require("finetune_training_steps", any(length), "1it or more")

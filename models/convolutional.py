"""The base class of the convolutional families. Their names are `<family>_D` or `<family>_D_W` with depth D and width W."""

from __future__ import annotations

import abc
import re

from foundations.dataset_hparams import DatasetHparams
from foundations.defaults import DefaultHparams
from foundations.model_hparams import ModelHparams
from foundations.training_hparams import TrainingHparams
from models import base


class Convolutional(base.Model):
    """A network for colour images of any size. A subclass that defines the following attributes is a family."""

    family: str  # the prefix of the names
    default_suffix: str  # the bare family name stands for the family name with this suffix
    depths: str  # the valid depths, as text for error messages
    width: int | None  # the default number of filters of the first block; None if names cannot contain a width
    outputs: int  # the default number of outputs
    dataset: str  # here and below: defaults of training
    batch_size: int
    lr: float
    training_steps: str
    milestone_steps: str
    warmup_steps: str | None = None

    @abc.abstractmethod
    def __init__(self, depth: int, width: int | None, act_fun: str, initializer: base.Initializer, outputs: int):
        super().__init__()

    @staticmethod
    @abc.abstractmethod
    def has_depth(depth: int) -> bool:
        """Whether the family has a network of this depth."""

    @property
    def channels(self) -> int:
        return 3

    @classmethod
    def parse(cls, model_name: str) -> tuple[int, int | None] | None:
        """The depth and the width in a name; None if the name is not valid in this family."""
        match = re.fullmatch(rf"{cls.family}_([1-9]\d*)(?:_([1-9]\d*))?", model_name)
        if match is None or not cls.has_depth(int(match[1])) or (match[2] and cls.width is None):
            return None
        return int(match[1]), int(match[2]) if match[2] else cls.width

    @classmethod
    def is_valid_model_name(cls, model_name: str) -> bool:
        return cls.parse(model_name) is not None

    @classmethod
    def name_rules(cls) -> list[str]:
        return [f"{cls.family}_D{'' if cls.width is None else '[_W]'} (D = {cls.depths})"]

    @classmethod
    def default_members(cls) -> dict[str, str]:
        return {cls.family: cls.family + cls.default_suffix}

    @classmethod
    def get_model_from_name(
        cls, model_name: str, initializer: base.Initializer, outputs: int | None = None, act_fun: str = "relu"
    ) -> Convolutional:
        parsed = cls.parse(model_name)
        assert parsed is not None  # the name is valid
        depth, width = parsed
        return cls(depth, width, act_fun, initializer, outputs or cls.outputs)

    @classmethod
    def default_hparams(cls, model_name: str) -> DefaultHparams:
        """The defaults of the family: its dataset, and SGD with momentum and the family's schedule."""
        return DefaultHparams(
            DatasetHparams(dataset_name=cls.dataset, batch_size=cls.batch_size),
            ModelHparams(model_name=model_name, model_init="kaiming_normal", batchnorm_init="uniform"),
            TrainingHparams(
                optimizer_name="sgd",
                lr=cls.lr,
                training_steps=cls.training_steps,
                momentum=0.9,
                milestone_steps=cls.milestone_steps,
                delta=0.1,
                warmup_steps=cls.warmup_steps,
                weight_decay=1e-4,
            ),
        )


class CifarConvolutional(Convolutional):
    """The base class of the families for CIFAR-10: ten classes, and the schedule of He et al. (2016)."""

    outputs = 10
    dataset, batch_size = "cifar10", 128
    lr, training_steps, milestone_steps = 0.1, "160ep", "80ep,120ep"

    @property
    def output_layer_names(self) -> list[str]:
        return ["fc.weight", "fc.bias"]

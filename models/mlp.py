"""Fully connected networks `mlp_D_P_Q_..._O` of any input and output size, and the base classes of the fully connected families."""

from __future__ import annotations

import abc
import re
from collections.abc import Callable, Sequence
from typing import ClassVar, cast

import torch
from torch import nn

from foundations.dataset_hparams import DatasetHparams
from foundations.defaults import DefaultHparams
from foundations.errors import ConfigError
from foundations.model_hparams import ModelHparams
from foundations.training_hparams import TrainingHparams
from models import activation_functions, base, parallel

Affine = nn.Linear | parallel.Linear


def with_ones(inputs: torch.Tensor) -> torch.Tensor:
    """Inputs `[..., D - 1]` with the constant 1 that meets the bias, `[..., D]`."""
    return torch.cat([inputs, torch.ones_like(inputs[..., :1])], -1)


class Perceptron(base.Model):
    """Affine layers with an activation function between them. `linear` builds an affine layer from its numbers of inputs and outputs."""

    def __init__(self, sizes: list[int], act_fun: str, initializer: base.Initializer, linear: Callable[[int, int], Affine]):
        super().__init__()
        self.sizes, self.act_fun = sizes, act_fun
        self.activation = activation_functions.get(act_fun)
        self.fc_layers = nn.ModuleList(linear(*pair) for pair in zip(sizes[:-2], sizes[1:-1], strict=True))
        self.fc = linear(sizes[-2], sizes[-1])
        self.apply(initializer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps examples `[B, ...]`, which are flattened, to the outputs of the last layer."""
        return self.forward_from(self.activations(x, len(self.fc_layers)), len(self.fc_layers))

    def activations(self, x: torch.Tensor, depth: int) -> torch.Tensor:
        """The activations of hidden layer `depth`, counted from 1, for inputs `[B, ...]`; the flattened inputs for depth 0."""
        x = x.flatten(1)
        for layer in self.fc_layers[:depth]:
            x = self.activation(layer(x))
        return x

    def forward_from(self, activations: torch.Tensor, depth: int) -> torch.Tensor:
        """The outputs for given activations of hidden layer `depth`."""
        for layer in self.fc_layers[depth:]:
            activations = self.activation(layer(activations))
        return self.fc(activations)

    @property
    def affine_layers(self) -> list[Affine]:
        """All affine layers, the output layer last."""
        return [*cast("Sequence[Affine]", self.fc_layers), self.fc]

    @abc.abstractmethod
    def layer_vectors(self) -> list[torch.Tensor]:
        """Copies of the incoming vectors of each layer with the bias last, `[..., width, fan_in + 1]`; the output layer is last."""

    @abc.abstractmethod
    def load_layer_vectors(self, vectors: Sequence[torch.Tensor]) -> None:
        """Sets the weights and biases of each layer from its vectors, in the form of `layer_vectors`."""

    @property
    def input_size(self) -> int:
        return self.sizes[0]

    @property
    def output_layer_names(self) -> list[str]:
        return ["fc.weight", "fc.bias"]


class FullyConnected(Perceptron):
    """A multilayer perceptron. A subclass that defines the following attributes is a family, and has stacks of students.

    State-dict keys: `fc_layers.<i>.weight` `[width, fan_in]` and `.bias` for the hidden layers, `fc.weight` and `fc.bias` for the output
    layer, as in OpenLTH.
    """

    families: ClassVar[dict[str, type[FullyConnected]]] = {}

    family: str  # the prefix of the names
    default_suffix: str  # the bare family name stands for the family name with this suffix
    inputs: int | None = None  # None: names contain the numbers of inputs and outputs
    outputs: int | None = None  # the default number of outputs; None: see `inputs`
    dataset: str  # here and below: defaults of training
    training_steps = "40ep"
    students_suffix: str  # number and sizes of the default students
    students_queries: str  # the `--datagen` of the students
    students_lr, students_steps = 0.02, "6000it"
    deep_students_steps = "20000it"  # for students with more than one hidden layer
    deep_optimizer: tuple[str, float] | None = ("adam", 0.01)  # for three or more hidden layers: SGD does not train sigmoid there

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.families[cls.family] = cls

    def __init__(self, sizes: list[int], act_fun: str, initializer: base.Initializer):
        super().__init__(sizes, act_fun, initializer, nn.Linear)

    def layer_vectors(self) -> list[torch.Tensor]:
        return [torch.cat([layer.weight.data, layer.bias.data[:, None]], 1) for layer in self.affine_layers]

    def load_layer_vectors(self, vectors: Sequence[torch.Tensor]) -> None:
        for layer, rows in zip(self.affine_layers, vectors, strict=True):
            layer.weight.data, layer.bias.data = rows[:, :-1].clone(), rows[:, -1].clone()

    @classmethod
    def parse(cls, model_name: str, outputs: int | None = None) -> list[int] | None:
        """Inputs, hidden widths and outputs of the network with a name; None if the name is not valid in this family."""
        if not re.fullmatch(rf"{cls.family}(_[1-9]\d*)+", model_name):
            return None
        sizes = [int(size) for size in model_name.removeprefix(f"{cls.family}_").split("_")]
        if cls.inputs is not None and cls.outputs is not None:
            return [cls.inputs, *sizes, outputs or cls.outputs]
        if len(sizes) < 3:
            return None
        if outputs not in (None, sizes[-1]):
            raise ConfigError(f"--model_name: {model_name} has {sizes[-1]} outputs; this dataset needs {outputs}")
        return sizes

    @classmethod
    def layer_sizes(cls, model_name: str, outputs: int | None = None) -> list[int]:
        """`parse` for a valid name."""
        sizes = cls.parse(model_name, outputs)
        assert sizes is not None
        return sizes

    @classmethod
    def name_of(cls, sizes: list[int]) -> str:
        """The name of the network with these inputs, hidden widths and outputs: the inverse of `parse`."""
        return "_".join([cls.family, *map(str, sizes if cls.inputs is None else sizes[1:-1])])

    @classmethod
    def is_valid_model_name(cls, model_name: str) -> bool:
        return cls.parse(model_name) is not None

    @classmethod
    def name_rules(cls) -> list[str]:
        return [f"{cls.family}_{'P_Q_...' if cls.inputs is not None else 'D_P_Q_..._O'}"]

    @classmethod
    def default_members(cls) -> dict[str, str]:
        return {cls.family: cls.family + cls.default_suffix}

    @classmethod
    def get_model_from_name(
        cls, model_name: str, initializer: base.Initializer, outputs: int | None = None, act_fun: str = "relu"
    ) -> FullyConnected:
        return cls(cls.layer_sizes(model_name, outputs), act_fun, initializer)

    @classmethod
    def default_hparams(cls, model_name: str) -> DefaultHparams:
        is_deep = len(cls.layer_sizes(model_name)) > 4
        optimizer_name, lr = cls.deep_optimizer if is_deep and cls.deep_optimizer else ("sgd", 0.1)
        return DefaultHparams(
            DatasetHparams(dataset_name=cls.dataset, batch_size=128),
            ModelHparams(model_name=model_name, model_init="kaiming_normal", batchnorm_init="uniform"),
            TrainingHparams(optimizer_name=optimizer_name, lr=lr, training_steps=cls.training_steps),
            pruning_layers_to_ignore="fc.weight",
        )


class Model(FullyConnected):
    """The family whose names contain all sizes: D inputs, hidden widths P, Q, ..., and O outputs."""

    family, default_suffix = "mlp", "_64_16_10"
    dataset = "digits"
    students_suffix, students_queries = "(10)_64_64_10", "digits+random"

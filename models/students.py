"""Students: N networks of the same shape in one model, for every fully connected family.

`students_<family>(N)_<sizes>` is N networks `<family>_<sizes>`, trained together and independently: a tensor holds the parameters of all
students along its first axis. The training loss is the sum of the losses of the students, so the gradient of a student does not depend on
the other students. Axes: N students, B batch, O outputs.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from foundations.dataset_hparams import DatasetHparams
from foundations.defaults import DefaultHparams
from foundations.extraction_hparams import ExtractionHparams
from foundations.training_hparams import TrainingHparams
from models import base, initializers, parallel
from models.mlp import FullyConnected, Perceptron


class Model(Perceptron):
    """A stack of N fully connected networks: maps the same inputs `[B, ...]` for all networks to `[N, B, O]`.

    State-dict keys are those of a single network; `fc_layers.<i>.weight` is `[N, fan_in, width]`, its bias `[N, 1, width]`.

    Attributes:
        ridge: the penalty on the squares of a student's weights, biases excepted, as a share of its loss. It vanishes together with the
            loss, so that the weights of an exact student do not change.
    """

    ridge = 0.0

    def __init__(self, networks: int, sizes: list[int], act_fun: str, initializer: base.Initializer):
        super().__init__(sizes, act_fun, initializer, functools.partial(parallel.Linear, networks))
        self.networks = networks
        if act_fun == "sigmoid" and initializer is not initializers.published_students:
            self._initialise_like_tanh()

    @torch.no_grad()
    def _initialise_like_tanh(self) -> None:
        """Transforms the initial weights: sigmoid students then compute the function of tanh students with the original weights.

        sigmoid(x) = (1 + tanh(x / 2)) / 2. With the usual initialisation, sigmoid neurons are almost linear and are recovered less
        precisely: the first of two hidden layers of twelve neurons was at 1 - |cos| = 1e-3 after 20,000 steps. With this initialisation
        it was at 2e-4, although the loss was three times as large.
        """
        for depth, layer in enumerate(self.affine_layers):
            if depth:
                layer.bias.sub_(layer.weight.sum(1, keepdim=True))
                layer.weight.mul_(2)
            if layer is not self.fc:
                layer.weight.mul_(2)
                layer.bias.mul_(2)

    def individual_losses(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of each student, `[N]`: mean squared error for real-valued targets, cross-entropy for class labels."""
        if labels.is_floating_point():
            return (outputs - labels).square().mean((1, 2))
        log_likelihood = F.log_softmax(outputs, -1).gather(-1, labels.expand(len(outputs), -1).unsqueeze(-1))
        return -log_likelihood.mean((1, 2))

    def loss_criterion(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The sum of the losses and penalties of the students."""
        losses = self.individual_losses(outputs, labels)
        if self.ridge:
            squares = torch.stack([layer.weight.square().sum((1, 2)) for layer in self.affine_layers]).sum(0)
            losses = losses + self.ridge * losses.detach() * squares / squares.detach()
        return losses.sum()

    def layer_vectors(self) -> list[torch.Tensor]:
        return [torch.cat([layer.weight.data, layer.bias.data], 1).transpose(1, 2) for layer in self.affine_layers]

    @torch.no_grad()
    def load_layer_vectors(self, vectors: Sequence[torch.Tensor]) -> None:
        """Sets weights and biases from the vectors of each layer: `[N, width, fan_in + 1]`, or `[width, fan_in + 1]` for all students."""
        for layer, rows in zip(self.affine_layers, vectors, strict=True):
            layer.weight.copy_(rows[..., :-1].mT.expand_as(layer.weight))
            layer.bias.copy_(rows[..., None, :, -1].expand_as(layer.bias))

    def select(self, i: int) -> Model:
        """A copy of student i, as a stack of one."""
        return self.part(i, i + 1)

    def part(self, first: int, end: int) -> Model:
        """A copy of the students `first` to `end - 1` as a stack, with the same parameters frozen."""
        students = Model(end - first, self.sizes, self.act_fun, lambda module: None).to(self.fc.weight)
        students.ridge = self.ridge
        students.load_state_dict({name: tensor[first:end] for name, tensor in self.state_dict().items()})
        for original, copy in zip(self.parameters(), students.parameters(), strict=True):
            copy.requires_grad_(original.requires_grad)
        return students

    def convert_state_dict(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Converts a state dict of the published Expand-and-Cluster code to the keys and layouts of this model.

        There all layers, including the output layer, are `fc_layers.<i>.fc` `[fan_in, width, N]` with the bias `fc_layers.<i>.b`
        `[width, N]`.
        """
        layers = [f"fc_layers.{depth}" for depth in range(len(self.sizes) - 1)]
        if set(state) != {f"{layer}.{name}" for layer in layers for name in ("fc", "b")}:
            return state
        converted = {}
        for theirs, ours in zip(layers, [*layers[:-1], "fc"], strict=True):
            converted[f"{ours}.weight"] = state[f"{theirs}.fc"].movedim(-1, 0).contiguous()
            converted[f"{ours}.bias"] = state[f"{theirs}.b"].movedim(-1, 0).unsqueeze(1).contiguous()
        return converted

    @staticmethod
    def parse(model_name: str) -> tuple[type[FullyConnected], int, str] | None:
        """The family, the number of students (1 by default) and the name of a single student; None if the name is not valid."""
        match = re.fullmatch(rf"students_({'|'.join(FullyConnected.families)})(?:\(([1-9]\d*)\))?((?:_\d+)+)", model_name)
        if match is None:
            return None
        family, networks, name = FullyConnected.families[match[1]], int(match[2] or 1), match[1] + match[3]
        return (family, networks, name) if family.is_valid_model_name(name) else None

    @staticmethod
    def is_valid_model_name(model_name: str) -> bool:
        return Model.parse(model_name) is not None

    @staticmethod
    def name_rules() -> list[str]:
        rules = [rule for family in FullyConnected.families.values() for rule in family.name_rules()]
        return [re.sub(r"(_(?:D|P)_)", r"(N)\1", f"students_{rule}", count=1) for rule in rules]

    @staticmethod
    def default_members() -> dict[str, str]:
        return {f"students_{name}": f"students_{name}{family.students_suffix}" for name, family in FullyConnected.families.items()}

    @staticmethod
    def get_model_from_name(model_name: str, initializer: base.Initializer, outputs: int | None = None, act_fun: str = "relu") -> Model:
        parsed = Model.parse(model_name)
        assert parsed is not None  # the name is valid
        family, networks, name = parsed
        return Model(networks, family.layer_sizes(name, outputs), act_fun, initializer)

    @staticmethod
    def default_hparams(model_name: str) -> DefaultHparams:
        """The defaults of students: the family's default teacher, its queries, and Adam for longer where students are deep."""
        parsed = Model.parse(model_name)
        assert parsed is not None  # the name is valid
        family, _, student = parsed
        teacher = family.family + family.default_suffix
        teacher_defaults = family.default_hparams(teacher)
        is_deep = len(family.layer_sizes(student)) > 3
        steps = family.deep_students_steps if is_deep else family.students_steps
        return DefaultHparams(
            DatasetHparams(dataset_name="teacher", batch_size=256, teacher_name=teacher, datagen=family.students_queries),
            dataclasses.replace(teacher_defaults.model_hparams, model_name=model_name),
            TrainingHparams(optimizer_name="adam", lr=family.students_lr, training_steps=steps, centred=is_deep, lr_decay="cosine"),
            ExtractionHparams(),
            teacher_defaults.pruning_strategy,
            teacher_defaults.pruning_layers_to_ignore,
        )

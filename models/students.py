"""Students: N networks of one shape in one model, for every fully connected family.

`students_<family>(N)_<sizes>` is N times `<family>_<sizes>`, trained at once and independently: their parameters share a leading axis, and
the training loss is the sum of theirs, so that no student's gradient sees another. Axes: N students, B batch, O outputs.
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
from models import base, parallel
from models.mlp import FullyConnected, Perceptron


class Model(Perceptron):
    """A stack of N fully connected networks: `[B, ...]`, seen by all of them, to `[N, B, O]`.

    State-dict keys are those of one network; `fc_layers.<i>.weight` is `[N, fan_in, width]`, its bias `[N, 1, width]`.
    """

    def __init__(self, networks: int, sizes: list[int], act_fun: str, initializer: base.Initializer):
        super().__init__(sizes, act_fun, initializer, functools.partial(parallel.Linear, networks))
        self.networks = networks
        if act_fun == "sigmoid":
            self._begin_as_tanh()

    @torch.no_grad()
    def _begin_as_tanh(self) -> None:
        """Rewrites the drawn weights so that sigmoid students begin as the functions that tanh students with these weights would be.

        sigmoid(x) = (1 + tanh(x / 2)) / 2. Begun in the usual way their neurons are all but linear, and stay harder to tell apart: two
        hidden layers of twelve had the first at 1 - |cos| of 1e-3 after 20,000 steps, against 2e-4 like this, at three times the loss.
        """
        for depth, layer in enumerate((*self.fc_layers, self.fc)):
            if depth:
                layer.bias -= layer.weight.sum(1, keepdim=True)
                layer.weight *= 2
            if layer is not self.fc:
                layer.weight *= 2
                layer.bias *= 2

    def individual_losses(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of each student, `[N]`: mean squared error, or cross-entropy where the labels are classes."""
        if labels.is_floating_point():
            return (outputs - labels).square().mean((1, 2))
        log_likelihood = F.log_softmax(outputs, -1).gather(-1, labels.expand(len(outputs), -1).unsqueeze(-1))
        return -log_likelihood.mean((1, 2))

    def loss_criterion(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The sum of the students' losses."""
        return self.individual_losses(outputs, labels).sum()

    def layer_vectors(self) -> list[torch.Tensor]:
        return [torch.cat([layer.weight.data, layer.bias.data], 1).transpose(1, 2) for layer in (*self.fc_layers, self.fc)]

    @torch.no_grad()
    def load_layer_vectors(self, vectors: Sequence[torch.Tensor]) -> None:
        """Takes weights and biases from the vectors of each layer, `[N, width, fan_in + 1]`, or `[width, fan_in + 1]` for all alike."""
        for layer, rows in zip((*self.fc_layers, self.fc), vectors, strict=True):
            layer.weight.copy_(rows[..., :-1].mT.expand_as(layer.weight))
            layer.bias.copy_(rows[..., None, :, -1].expand_as(layer.bias))

    def select(self, i: int) -> Model:
        """Student i alone, as a stack of one with its own copy of the weights."""
        return self.part(i, i + 1)

    def part(self, first: int, end: int) -> Model:
        """The students from one up to another as a stack with its own copy of the weights; what is frozen is so there, too."""
        students = Model(end - first, self.sizes, self.act_fun, lambda module: None).to(self.fc.weight)
        students.load_state_dict({name: tensor[first:end] for name, tensor in self.state_dict().items()})
        for ours, theirs in zip(self.parameters(), students.parameters(), strict=True):
            theirs.requires_grad_(ours.requires_grad)
        return students

    def convert_state_dict(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A state dict by this model's keys, also of the published Expand-and-Cluster code.

        There every layer, the output layer too, is `fc_layers.<i>.fc` `[fan_in, width, N]` with the bias `fc_layers.<i>.b` `[width, N]`.
        """
        layers = [f"fc_layers.{depth}" for depth in range(len(self.sizes) - 1)]
        if set(state) != {f"{layer}.{name}" for layer in layers for name in ("fc", "b")}:
            return state
        adapted = {}
        for theirs, ours in zip(layers, [*layers[:-1], "fc"], strict=True):
            adapted[f"{ours}.weight"] = state[f"{theirs}.fc"].movedim(-1, 0).contiguous()
            adapted[f"{ours}.bias"] = state[f"{theirs}.b"].movedim(-1, 0).unsqueeze(1).contiguous()
        return adapted

    @staticmethod
    def parse(model_name: str) -> tuple[type[FullyConnected], int, str] | None:
        """The family, the number of students (1 where the name gives none) and the name of one of them; None for other names."""
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
        return {f"students_{name}": f"students_{name}{family.students}" for name, family in FullyConnected.families.items()}

    @staticmethod
    def get_model_from_name(model_name, initializer, outputs=None, act_fun="relu") -> Model:
        family, networks, name = Model.parse(model_name)
        return Model(networks, family.parse(name, outputs), act_fun, initializer)

    @staticmethod
    def default_hparams(model_name: str) -> DefaultHparams:
        family, _, student = Model.parse(model_name)
        teacher = family.family + family.member
        plain = family.default_hparams(teacher)
        deep = len(family.parse(student)) > 3
        steps = family.deep_students_steps if deep else family.students_steps
        return DefaultHparams(
            DatasetHparams(dataset_name="teacher", batch_size=256, teacher_name=teacher, datagen=family.queries),
            dataclasses.replace(plain.model_hparams, model_name=model_name),
            TrainingHparams(optimizer_name="adam", lr=family.students_lr, training_steps=steps, centred=deep, lr_decay="cosine"),
            ExtractionHparams(),
            plain.pruning_strategy,
            plain.pruning_layers_to_ignore,
        )

"""Centred steps against plain steps of a network that is written in centred coordinates."""

import copy
import dataclasses
import functools

import torch
from torch import nn

from foundations.model_hparams import ModelHparams
from models import activation_functions
from models import registry as models
from pruning.mask import Mask
from pruning.pruned_model import PrunedModel
from testing.test_case import TestCase
from training.optimizers import get_optimizer
from training.test.test_train import hparams

QUERIES = torch.randn(64, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
ANSWERS = QUERIES[:, :2].sin() + QUERIES[:, 2:4].square()


class Centred(nn.Module):
    """A plain network over activations minus a constant. Its biases are pre-activations at that constant."""

    def __init__(self, network, act_fun: str):
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy([*network.fc_layers, network.fc]))
        self.activation, self.centre = activation_functions.get(act_fun), activation_functions.gaussian_mean(act_fun)
        for layer in self.layers[1:]:
            layer.bias.data += self.centre * layer.weight.data.sum(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layers[0](x)
        for layer in self.layers[1:]:
            x = layer(self.activation(x) - self.centre)
        return x

    def plain(self) -> list[torch.Tensor]:
        """The parameters of the plain network with the same function, in the order of the layers."""
        return [self.layers[0].weight, self.layers[0].bias] + [
            each for layer in self.layers[1:] for each in (layer.weight, layer.bias - self.centre * layer.weight.sum(1))
        ]


def network(act_fun: str = "softplus", name: str = "mlp_5_7_6_2"):
    return models.get(ModelHparams(name, "kaiming_normal", "uniform", act_fun), seed=1).double()


def take_steps(model, optimizer, steps: int = 10) -> None:
    """Takes steps on the mean squared error; for a stack, on the sum over its networks."""

    def closure() -> torch.Tensor:
        model.zero_grad()
        loss = (model(QUERIES) - ANSWERS).square().mean((-2, -1)).sum()
        loss.backward()
        return loss.detach()

    for _ in range(steps):
        optimizer.step(closure)


class CentringTest(TestCase):
    def assert_steps_like(self, reference, act_fun: str = "softplus", **changes):
        model = network(act_fun)
        expected = Centred(model, act_fun)
        take_steps(expected, reference(expected.parameters(), lr=0.1))
        take_steps(model, get_optimizer(hparams(lr=0.1, centred=True, **changes), model))
        for found, wanted in zip(model.parameters(), expected.plain(), strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)

    def test_steps_equal_those_of_a_network_in_centred_coordinates(self):
        for act_fun in ("softplus", "sigmoid", "g"):
            with self.subTest(act_fun):
                self.assert_steps_like(torch.optim.Adam, act_fun, optimizer_name="adam")
        self.assert_steps_like(functools.partial(torch.optim.SGD, momentum=0.9), momentum=0.9)

    def test_steps_of_a_stack_equal_those_of_single_students(self):
        stack = network("g", "students_mlp(3)_5_7_6_2")
        alone = [stack.select(i) for i in range(3)]
        for model in (stack, *alone):
            take_steps(model, get_optimizer(hparams(optimizer_name="adam", centred=True), model))
        for i, student in enumerate(alone):
            for name, tensor in student.state_dict().items():
                torch.testing.assert_close(stack.state_dict()[name][i : i + 1], tensor, rtol=0, atol=1e-12)

    def test_accumulated_gradients_are_centred(self):
        one, other = network(), network()
        h = hparams(optimizer_name="adam", centred=True)
        take_steps(one, get_optimizer(h, one), 1)
        (other(QUERIES) - ANSWERS).square().mean().backward()
        get_optimizer(h, other).step()
        torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)

    def test_pruned_weights_stay_zero(self):
        for name in ("mlp_5_7_6_2", "students_mlp(3)_5_7_6_2"):
            model = network(name=name)
            weights = {key: model.state_dict()[key] for key in model.prunable_layer_names}
            pruned = PrunedModel(model, Mask({key: weight.abs() > 0.3 for key, weight in weights.items()}))
            before = copy.deepcopy(pruned.state_dict())
            take_steps(pruned, get_optimizer(hparams(centred=True), pruned), 3)
            for key, left in pruned.mask.items():
                self.assertFalse(pruned.state_dict()[key][~left].any())
                self.assertFalse(torch.equal(pruned.state_dict()[key], before[key]))

    def test_frozen_layers_do_not_change(self):
        model = network()
        model.fc.requires_grad_(False)
        before = copy.deepcopy(model.fc.state_dict())
        take_steps(model, get_optimizer(hparams(centred=True), model), 3)
        torch.testing.assert_close(dict(model.fc.state_dict()), dict(before), rtol=0, atol=0)

    def test_centring_does_not_change_steps_with_odd_activation_functions(self):
        one, other = network("tanh"), network("tanh")
        h = hparams(optimizer_name="adam")
        take_steps(one, get_optimizer(h, one))
        take_steps(other, get_optimizer(dataclasses.replace(h, centred=True), other))
        torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)

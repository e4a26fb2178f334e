"""Gradient flow against finite differences of the squared norm of the gradient."""

import math

import torch
from torch.func import functional_call
from torch.nn import functional as F

from models.base import Model
from pruning import registry
from pruning.mask import Mask
from pruning.test.test_base import SIZES, classes, joined, lowest, prune, toy_convolution
from testing.test_case import TestCase
from training.test.test_train import network, regression_loader

STEP = 1e-5


def flow(model: Model, kernels: dict[str, torch.Tensor], mask: Mask, data, temperature: float) -> float:
    """The squared norm of the gradient by the weights left."""
    examples, labels = data
    kernels = {name: values.detach().requires_grad_() for name, values in kernels.items()}
    outputs = functional_call(model, kernels, (examples.double(),)) / temperature
    loss = F.mse_loss(outputs, labels) if labels.is_floating_point() else F.cross_entropy(outputs, labels)
    gradients = torch.autograd.grad(loss, list(kernels.values()))
    return sum((gradient * mask[name]).square().sum() for name, gradient in zip(kernels, gradients, strict=True)).item()


def losses_of_flow(model: Model, mask: Mask, data, temperature: float) -> list[float]:
    """How fast the flow falls as each weight goes to zero, for a start."""
    kernels = {name: model.state_dict()[name] * left for name, left in mask.items()}
    found = []
    for name, values in kernels.items():
        for place in range(values.numel()):
            flows = []
            for factor in (1 + STEP, 1 - STEP):
                changed = values.clone()
                changed.view(-1)[place] *= factor
                flows.append(flow(model, {**kernels, name: changed}, mask, data, temperature))
            found.append((flows[0] - flows[1]) / (2 * STEP))
    return found


class TestGrasp(TestCase):
    def assert_pruned(self, model: Model, before: Mask, after: Mask, data, temperature: float):
        scores = losses_of_flow(model, before, data, temperature)
        places = [place for place, kept in enumerate(joined(before).tolist()) if kept]
        gone = {places[place] for place in lowest([scores[place] for place in places], math.ceil(0.4 * len(places)))}
        self.assertEqual({place for place in places if not joined(after)[place]}, gone)

    def test_removal_keeps_the_norm_of_the_gradient_largest(self):
        for model, shape in ((network(SIZES), (4,)), (toy_convolution(), (2, 4, 4))):
            data = [torch.cat(parts)[:16] for parts in zip(*classes(shape=shape), strict=True)]
            first = prune("grasp", model, fraction=0.4, pruning_examples=16, pruning_temperature=3.0)
            second = prune("grasp", model, first, 0.4, pruning_examples=16, pruning_temperature=3.0)
            self.assert_pruned(model.train(), Mask.ones_like(model), first, data, 3.0)
            self.assert_pruned(model, first, second, data, 3.0)

    def test_real_valued_targets_have_no_temperature(self):
        model, loader = network("mlp_4_13_7_2"), regression_loader()
        hparams = registry.get_pruning_hparams("grasp")("grasp", 0.4)
        mask = registry.get(hparams).prune(hparams, model, data=loader)
        self.assert_pruned(model, Mask.ones_like(model), mask, (loader.examples, loader.labels), 1.0)

"""Connection sensitivity against finite differences."""

import math

import torch
from torch.nn import functional as F

from models.base import Model
from pruning.test.test_base import SIZES, STUDENTS, ToyConvolution, classes, joined, lowest, prune, toy_convolution
from testing.test_case import TestCase
from training.test.test_train import network

STEP = 1e-5


@torch.no_grad()
def sensitivities(model: Model, names: list[str]) -> list[float]:
    """How the loss of the first 16 examples changes with a factor on each weight."""
    shape = (2, 4, 4) if isinstance(model, ToyConvolution) else (4,)
    examples, labels = (torch.cat(parts)[:16] for parts in zip(*classes(shape=shape), strict=True))
    found = []
    for weights in (model.state_dict()[name].view(-1) for name in names):
        for place in range(len(weights)):
            value, losses = weights[place].item(), []
            for factor in (1 + STEP, 1 - STEP):
                weights[place] = value * factor
                losses.append(F.cross_entropy(model(examples.double()), labels).item())
            weights[place] = value
            found.append(abs(losses[0] - losses[1]) / (2 * STEP))
    return found


class TestSnip(TestCase):
    def test_weights_with_the_least_sensitivity_are_removed(self):
        for model in (network(SIZES), toy_convolution()):
            mask = prune("snip", model, fraction=0.4, pruning_examples=16)
            scores = sensitivities(model.train(), list(mask))
            gone = {place for place, kept in enumerate(joined(mask).tolist()) if not kept}
            self.assertEqual(gone, lowest(scores, math.ceil(0.4 * len(scores))))

    def test_pruned_weights_do_not_affect_scores(self):
        model = network(SIZES)
        first = prune("snip", model, fraction=0.3, pruning_examples=16)
        second = prune("snip", model, first, 0.3, pruning_examples=16)
        for name, left in first.items():
            model.state_dict()[name].mul_(left)
        scores = sensitivities(model, list(first))
        places = [place for place, kept in enumerate(joined(first).tolist()) if kept]
        gone = {places[place] for place in lowest([scores[place] for place in places], math.ceil(0.3 * len(places)))}
        self.assertEqual({place for place in places if not joined(second)[place]}, gone)

    def test_scores_depend_on_the_batch(self):
        masks = [prune("snip", network(STUDENTS), fraction=0.5, pruning_examples=examples) for examples in (3, 16)]
        self.assertNotEqual(*masks)

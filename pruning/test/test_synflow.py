"""Synaptic flow against sums over all paths."""

import itertools
import math

import torch

from foundations.errors import ConfigError
from models.base import Model
from pruning import base, registry, synflow
from pruning.mask import Mask
from pruning.test.test_base import SIZES, STUDENTS, joined, lowest, prune, toy_convolution
from testing.test_case import TestCase
from training.test.test_train import network


def path_sums(model: Model, mask: Mask) -> dict[str, torch.Tensor]:
    """For each weight of a fully connected network, the sum over the paths through it of the products of their magnitudes."""
    layers = [(model.state_dict()[name].abs() * left).tolist() for name, left in mask.items()]
    sums = {name: torch.zeros(left.shape, dtype=torch.float64) for name, left in mask.items()}
    for path in itertools.product(*map(range, model.sizes)):
        steps = list(zip(path[1:], path[:-1], strict=True))
        product = math.prod(layer[to][start] for layer, (to, start) in zip(layers, steps, strict=True))
        for name, step in zip(sums, steps, strict=True):
            sums[name][step] += product
    return sums


class TestSynflow(TestCase):
    def assert_pruned(self, model: Model, left: list[int], mask: Mask):
        """Removes the lowest of the weights left until so many are, round by round, and compares."""
        expected = Mask.ones_like(model)
        for count in left:
            scores, kept = joined(path_sums(model, expected)).tolist(), joined(expected)
            places = kept.nonzero().flatten().tolist()
            for place in lowest([scores[place] for place in places], len(places) - count):
                kept[places[place]] = False
            parts = kept.split([values.numel() for values in expected.values()])
            expected = Mask({name: part.view(expected[name].shape) for name, part in zip(expected, parts, strict=True)})
        self.assertEqual(mask, expected)

    def test_one_round_removes_the_weights_with_the_least_flow(self):
        for act_fun in ("relu", "tanh"):
            model = network("mlp_4_6_5_3", act_fun=act_fun)
            self.assert_pruned(model, [69 - 28], prune("synflow", model, fraction=0.4, pruning_iterations=1))

    def test_several_rounds_follow_an_exponential_schedule(self):
        model = network("mlp_4_6_5_3")
        left = [math.floor(69 * 0.1 ** (k / 4)) for k in (1, 2, 3)] + [69 - math.ceil(0.9 * 69)]
        self.assertEqual(left, [38, 21, 12, 6])
        self.assert_pruned(model, left, prune("synflow", model, fraction=0.9, pruning_iterations=4))

    def test_many_rounds_leave_no_layer_empty(self):
        model = network("mlp_4_60_60_2")
        model.fc_layers[1].weight.data *= 1e-3
        self.assertTrue(all(left.any() for left in prune("synflow", model, fraction=0.99).values()))
        self.assertEqual(prune("sparse_global", model, fraction=0.99)["fc_layers.1.weight"].sum(), 0)

    def test_the_flow_through_every_layer_is_the_same(self):
        """As Tanaka et al. prove; with a trained normalisation as well, and with biases, which take no part."""
        model = toy_convolution()
        for values in (model.norm.weight.data, model.norm.bias.data, model.norm.running_mean, model.norm.running_var):
            values.uniform_(0.5, 2.0)
        model.norm.weight.data[0] *= -1
        for stack in (model, network(STUDENTS)):
            ones = torch.ones(1, *((2, 4, 4) if stack is model else (4,)))
            problem = base.Problem(base.PruningHparams("synflow"), synflow.linearised(stack), Mask.ones_like(stack), [], [(ones, ones)])
            for i in range(problem.networks):
                flows = [synflow.Strategy.score(problem)(name, i).sum().item() for name in problem.mask]
                self.assertGreater(flows[0], 0)
                for flow in flows[1:]:
                    self.assertAlmostEqual(flow / flows[0], 1, places=12)

    def test_no_data_are_needed_if_the_model_has_an_input_size(self):
        hparams = registry.get_pruning_hparams("synflow")("synflow", pruning_iterations=3)
        model = network(SIZES)
        self.assertEqual(registry.get(hparams).prune(hparams, model), prune("synflow", model, pruning_iterations=3))
        with self.assertRaisesRegex(ConfigError, "synflow"):
            registry.get(hparams).prune(hparams, toy_convolution())

    def test_deep_products_do_not_overflow(self):
        model = network("mlp_4" + "_60" * 12 + "_2").float()
        for parameter in model.parameters():
            parameter.data *= 1e4
        self.assertGreater(prune("synflow", model, fraction=0.5, pruning_iterations=2).unpruned, 0)

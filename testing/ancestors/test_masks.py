"""Masks of OpenLTH and of the published Expand-and-Cluster code, weight for weight.

Their rule: count all remaining weights, those of ignored layers too, and take `ceil(fraction * count)` in float64. That is a place in the
sorted magnitudes of the remaining weights that may be removed. What is larger than the weight at this place stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from foundations.errors import ConfigError
from foundations.model_hparams import ModelHparams
from lottery.branch import randomly_prune
from models import registry as models
from models.base import Model
from pruning import registry
from pruning.mask import Mask
from testing.test_case import TestCase
from testing.toy_model import ToyModel

Arrays = Mapping[str, np.ndarray]
LAYERS = ("fc_layers.0.weight", "fc_layers.1.weight", "fc.weight")


def rule(weights: Arrays, left: Arrays, fraction: float, names: Sequence[str], counted: Sequence[str]) -> dict[str, np.ndarray]:
    """The masks of some layers after one step of the rule, from magnitudes that are sorted as a list."""
    place = int(np.ceil(np.float64(fraction) * sum(int(left[name].sum()) for name in counted)))
    threshold = sorted(abs(value) for name in names for value in weights[name][left[name]])[place]
    return {name: left[name] & (np.abs(weights[name]) > threshold) for name in names}


def network(name: str, seed: int = 0) -> Model:
    """A network with normal weights that numpy draws."""
    model, generator = models.get(ModelHparams(name, "kaiming_normal", "uniform"), 10), np.random.default_rng(seed)
    for parameter in model.parameters():
        parameter.data = torch.from_numpy(generator.normal(size=parameter.shape).astype(np.float32))
    return model


def arrays(model: Model) -> dict[str, np.ndarray]:
    return {name: model.state_dict()[name].numpy() for name in LAYERS}


def prune(strategy: str, model: Model, mask: Mask | None = None, fraction: float = 0.2, **hparams: object) -> Mask:
    pruning_hparams = registry.get_pruning_hparams(strategy)(strategy, fraction, **hparams)
    return registry.get(pruning_hparams).prune(pruning_hparams, model, mask)


def vector(*weights: float) -> ToyModel:
    """A network whose only layer that can be pruned has these weights."""
    model = ToyModel(len(weights), 1)
    model.fc.weight.data = torch.tensor([weights], dtype=torch.float32)
    return model


def left(*weights: float, fraction: float = 0.2, strategy: str = "sparse_global") -> list[int]:
    """The mask of a layer with these weights after one step."""
    return prune(strategy, vector(*weights), fraction=fraction)["fc.weight"].int().flatten().tolist()


class TestCounts(TestCase):
    def counts(self, name: str, levels: int, ignored: str | None = "fc.weight") -> list[int]:
        model, mask, counts = network(name), None, []
        for _ in range(levels):
            mask = prune("sparse_global", model, mask, pruning_layers_to_ignore=ignored)
            counts.append(mask.unpruned)
        return counts

    def test_ignored_weights_count_and_one_more_weight_goes(self):
        self.assertEqual(self.counts("mnist_lenet_8_6", 3), [5103, 4081, 3263])  # of 6,380: 1276 + 1, 1021 + 1, 817 + 1 go

    def test_the_last_of_twenty_levels(self):
        self.assertEqual(self.counts("mnist_lenet_300_100", 20)[-1], 3062)  # of 266,200

    def test_the_fraction_is_a_float(self):
        for fraction, weights, gone in ((0.55, 100, 56 + 1), (0.07, 100, 8 + 1), (0.29, 100, 29 + 1), (0.2, 35, 7 + 1), (0.14, 50, 8 + 1)):
            with self.subTest(fraction=fraction, weights=weights):
                self.assertEqual(weights - sum(left(*range(1, weights + 1), fraction=fraction)), gone)


class TestMasks(TestCase):
    def test_sparse_global_and_han_keep_what_is_larger_than_the_threshold(self):
        model, names = network("mnist_lenet_8_6"), LAYERS[:2]
        weights, mask = arrays(model), None
        expected = {name: np.ones_like(values, bool) for name, values in weights.items()}
        for _ in range(4):
            expected |= rule(weights, expected, 0.3, names, LAYERS)
            masks = [prune(strategy, model, mask, 0.3, pruning_layers_to_ignore="fc.weight") for strategy in ("sparse_global", "han")]
            for mask in masks:
                self.assertEqual(mask, Mask(expected))

    def test_fc19_prunes_the_output_layer_at_half_the_fraction_and_the_others_together(self):
        model = network("mnist_lenet_30_20")
        weights, mask = arrays(model), None
        expected = {name: np.ones_like(values, bool) for name, values in weights.items()}
        for _ in range(4):
            hidden, output = rule(weights, expected, 0.3, LAYERS[:2], LAYERS[:2]), rule(weights, expected, 0.15, LAYERS[2:], LAYERS[2:])
            expected = hidden | output
            mask = prune("fc19", model, mask, 0.3)
            self.assertEqual(mask, Mask(expected))

    def test_fc19_counts_an_ignored_layer(self):
        model = network("mnist_lenet_30_20")
        weights = arrays(model)
        whole = {name: np.ones_like(values, bool) for name, values in weights.items()}
        expected = whole | rule(weights, whole, 0.2, LAYERS[:1], LAYERS[:2]) | rule(weights, whole, 0.1, LAYERS[2:], LAYERS[2:])
        self.assertEqual(prune("fc19", model, pruning_layers_to_ignore=LAYERS[1]), Mask(expected))

    def test_sparse_layerwise_keeps_the_threshold(self):
        model = network("mnist_lenet_8_6")
        mask = prune("sparse_layerwise", model)
        for name, values in arrays(model).items():
            threshold = sorted(np.abs(values).flatten())[int(np.ceil(0.2 * values.size))]
            self.assertTrue(np.array_equal(mask[name].numpy(), np.abs(values) >= threshold))


class TestBorders(TestCase):
    def test_all_weights_that_equal_the_threshold_are_removed(self):
        self.assertEqual(left(3, 1, -2, 2, 2, 4, 2, 5, -6, 7), [1, 0, 0, 0, 0, 1, 0, 1, 1, 1])  # the third smallest magnitude is 2
        self.assertEqual(left(3, 3, -3, 3), [0, 0, 0, 0])
        self.assertEqual(left(0, 0, 0, 1, 2), [0, 0, 0, 1, 1])

    def test_sparse_layerwise_keeps_all_of_them(self):
        self.assertEqual(left(3, 1, -2, 2, 2, 4, 2, 5, -6, 7, strategy="sparse_layerwise"), [1, 0, 1, 1, 1, 1, 1, 1, 1, 1])
        self.assertEqual(left(3, 3, -3, 3, strategy="sparse_layerwise"), [1, 1, 1, 1])

    def test_a_layer_of_small_weights_is_removed_completely(self):
        model = network("mnist_lenet_8_6")
        model.fc_layers[1].weight.data *= 1e-9
        mask = prune("sparse_global", model)
        self.assertEqual((mask["fc_layers.1.weight"].sum(), mask.unpruned), (0, 5103))

    def test_two_weights_are_the_last_that_can_be_pruned(self):
        self.assertEqual(left(1, 2), [0, 0])
        with self.assertRaisesRegex(ConfigError, "cannot be pruned again: weight 2 in .* but there are only 1 in fc.weight"):
            left(1)

    def test_ignored_weights_can_leave_too_few_others(self):
        model = network("mnist_lenet_8_6")  # 6,320 weights, and 60 that are ignored
        with self.assertRaisesRegex(ConfigError, "weight 6,380 in order of size .* there are only 6,320 in .*; valid: fewer --levels"):
            prune("sparse_global", model, fraction=0.9998, pruning_layers_to_ignore="fc.weight")


class TestRandomMasks(TestCase):
    """OpenLTH's `randomly_prune --seed 7`: the order of normal numbers, seeded anew for each layer in the order of the names."""

    def order(self, size: int, seed: int) -> torch.Tensor:
        return torch.argsort(torch.normal(torch.zeros(size), torch.ones(size), generator=torch.Generator().manual_seed(seed)))

    def setUp(self):
        super().setUp()
        self.ticket = prune("sparse_global", network("mnist_lenet_8_6"), fraction=0.8)

    def test_layers_are_shuffled_one_by_one(self):
        found = randomly_prune.shuffled_in_layers(self.ticket, 1, 7)
        for place, name in enumerate(("fc.weight", "fc_layers.0.weight", "fc_layers.1.weight")):
            values = self.ticket[name].flatten()
            self.assertEqual(found[name].flatten().tolist(), values[self.order(len(values), 7 + place)].tolist())

    def test_all_layers_are_shuffled_together(self):
        found, names = randomly_prune.shuffled(self.ticket, 1, 7), ("fc.weight", "fc_layers.0.weight", "fc_layers.1.weight")
        values = torch.cat([self.ticket[name].flatten() for name in names])
        self.assertEqual(torch.cat([found[name].flatten() for name in names]).tolist(), values[self.order(6380, 7)].tolist())

    def test_the_first_student_has_the_mask_of_a_network_alone(self):
        pair = Mask({name: torch.stack([values, values]) for name, values in self.ticket.items()})
        for shuffle in (randomly_prune.shuffled, randomly_prune.shuffled_in_layers):
            both, alone = shuffle(pair, 2, 7), shuffle(self.ticket, 1, 7)
            self.assertTrue(all(torch.equal(both[name][0], alone[name]) for name in alone))
            self.assertFalse(all(torch.equal(both[name][1], alone[name]) for name in alone))

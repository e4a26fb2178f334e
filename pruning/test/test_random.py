"""Random pruning: uniform, and reproducible from the seed."""

import math

from pruning.mask import Mask
from pruning.test.test_base import SIZES, STUDENTS, joined, prune
from testing.test_case import TestCase
from training.test.test_train import network


class TestRandom(TestCase):
    def test_the_mask_depends_on_the_seed_and_not_on_the_weights(self):
        other = network(SIZES)
        other.fc.weight.data.zero_()
        self.assertEqual(prune("random", network(SIZES), seed=1), prune("random", other, seed=1))
        self.assertNotEqual(prune("random", network(SIZES), seed=1), prune("random", network(SIZES), seed=2))

    def test_all_weights_are_removed_with_equal_probability(self):
        model, seeds = network(SIZES), 400
        kept = sum(joined(prune("random", model, seed=seed, fraction=0.5)).double() for seed in range(seeds)) / seeds
        self.assertLess((kept - 0.5).abs().max(), 5 * math.sqrt(0.25 / seeds))

    def test_students_lose_different_weights(self):
        mask = prune("random", network(STUDENTS), fraction=0.5)
        self.assertNotEqual(mask.select(0), mask.select(1))

    def test_layers_can_be_pruned_separately(self):
        mask = prune("random", network(SIZES), fraction=0.3, pruning_layerwise=True)
        for name, left in Mask.ones_like(network(SIZES)).items():
            self.assertEqual(mask[name].sum(), left.numel() - math.ceil(0.3 * left.numel()))

    def test_two_steps_are_as_random_as_one(self):
        model = network(SIZES)
        twice = prune("random", model, prune("random", model, fraction=0.5, seed=7), 0.5, seed=7)
        once = prune("random", model, fraction=0.75, seed=7)
        self.assertEqual(twice, once)

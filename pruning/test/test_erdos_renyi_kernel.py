"""Densities of layers against the formula, and whole numbers that add up."""

import math
import random

from pruning import erdos_renyi_kernel
from pruning.mask import Mask
from pruning.test.test_base import SIZES, STUDENTS, prune, toy_convolution
from testing.test_case import TestCase
from training.test.test_train import network

LARGE = "mlp_40_60_50_10"


def counts(mask: Mask) -> dict[str, int]:
    return {name: int(left.sum()) for name, left in mask.items()}


class TestDensities(TestCase):
    def test_the_number_of_weights_is_proportional_to_the_sum_of_dimensions(self):
        """`n * epsilon * (a + b) / (a b)` of `n = a b` weights is `epsilon (a + b)`."""
        mask = prune("erdos_renyi_kernel", network(LARGE), fraction=0.95)
        sums = {"fc_layers.0.weight": 100, "fc_layers.1.weight": 110, "fc.weight": 60}
        scale = mask.unpruned / sum(sums.values())
        for name, count in counts(mask).items():
            self.assertLess(abs(count - scale * sums[name]), 1)

    def test_a_convolution_has_four_dimensions(self):
        mask = prune("erdos_renyi_kernel", toy_convolution(), fraction=0.9)
        sums = {"fc.weight": 2 + 5, "convolution.weight": 5 + 2 + 3 + 3}
        for name, count in counts(mask).items():
            self.assertLess(abs(count - mask.unpruned * sums[name] / sum(sums.values())), 1)

    def test_a_layer_at_full_density_gives_its_excess_to_the_others(self):
        mask = prune("erdos_renyi_kernel", network(LARGE), fraction=0.5)
        self.assertTrue(mask["fc.weight"].all())
        rest = mask.unpruned - 500
        self.assertLess(abs(counts(mask)["fc_layers.0.weight"] - rest * 100 / 210), 1)

    def test_power_zero_makes_all_densities_equal(self):
        mask = prune("erdos_renyi_kernel", network(LARGE), fraction=0.8, pruning_erk_power=0.0)
        for left in mask.values():
            self.assertLess(abs(left.sum() - 0.2 * left.numel()), 1)

    def test_students_have_the_densities_of_one_network(self):
        stack, alone = (
            prune("erdos_renyi_kernel", network(STUDENTS), fraction=0.6),
            prune("erdos_renyi_kernel", network(SIZES), fraction=0.6),
        )
        for i in range(3):
            self.assertEqual(counts(stack.select(i)), counts(alone))

    def test_a_layer_with_less_than_its_share_keeps_all_its_weights(self):
        model = network(LARGE)
        ones = Mask.ones_like(model)
        first = ones["fc_layers.0.weight"].clone()
        first[:, 1:] = False
        mask = prune("erdos_renyi_kernel", model, Mask({**ones, "fc_layers.0.weight": first}), fraction=0.5)
        self.assertEqual(counts(mask)["fc_layers.0.weight"], 60)
        self.assertEqual(mask.unpruned, (60 + 3000 + 500) // 2)


class TestApportion(TestCase):
    def test_parts_sum_to_the_total_within_limits_and_in_proportion(self):
        generator = random.Random(0)
        for _ in range(300):
            size = generator.randint(1, 6)
            shares, limits = [generator.uniform(0.1, 9) for _ in range(size)], [generator.randint(0, 20) for _ in range(size)]
            total = generator.randint(0, sum(limits))
            made = erdos_renyi_kernel.apportion(total, shares, limits)
            self.assertEqual(sum(made), total)
            self.assertTrue(all(0 <= part <= limit for part, limit in zip(made, limits, strict=True)))
            low, high = 0.0, 1000.0  # the scale by bisection
            for _ in range(100):
                middle = (low + high) / 2
                enough = sum(min(limit, middle * share) for share, limit in zip(shares, limits, strict=True)) >= total
                low, high = (low, middle) if enough else (middle, high)
            for part, share, limit in zip(made, shares, limits, strict=True):
                self.assertLess(abs(part - min(limit, high * share)), 1 + 1e-9)

    def test_equal_shares_are_given_in_order(self):
        self.assertEqual(erdos_renyi_kernel.apportion(5, [1.0, 1.0, 1.0], [9, 9, 9]), [2, 2, 1])
        self.assertEqual(math.fsum(erdos_renyi_kernel.apportion(0, [1.0, 2.0], [3, 3])), 0)

"""Queries of Gaussian noise."""

import scipy.stats
import torch

from datasets.datagen.gaussian import Gaussian
from datasets.datagen.registry import registered_policies
from testing.test_case import TestCase


def make(count: int, train: bool = True, seed: int = 0) -> torch.Tensor:
    return Gaussian().generate(count, train, 5, torch.Generator().manual_seed(seed))


class GaussianTest(TestCase):
    def test_values_are_standard_normal(self):
        self.assertGreater(scipy.stats.kstest(make(4000).flatten().numpy(), "norm").pvalue, 0.01)

    def test_wide_has_three_times_the_standard_deviation(self):
        wide = registered_policies["wide"].generate(4000, True, 5, torch.Generator().manual_seed(0))
        self.assertGreater(scipy.stats.kstest((wide / 3).flatten().numpy(), "norm").pvalue, 0.01)

    def test_inputs_are_independent(self):
        correlation = torch.corrcoef(make(4000).T) - torch.eye(5)
        self.assertLess(correlation.abs().max().item(), 5 / 4000**0.5)

    def test_the_count_is_the_number_of_training_queries(self):
        self.assertEqual(make(13).shape, (13, 5))

    def test_test_queries_are_a_quarter_of_the_count_rounded_up(self):
        self.assertEqual([len(make(count, train=False)) for count in (1, 4, 5, 4000)], [1, 1, 2, 1000])

    def test_all_randomness_comes_from_the_generator(self):
        self.assertTrue(torch.equal(make(3), make(3)))
        self.assertFalse(torch.equal(make(3), make(3, seed=1)))

"""Queries of uniform noise."""

import scipy.stats
import torch

from datasets.datagen.uniform import Uniform
from testing.test_case import TestCase


def make(count: int, train: bool = True, seed: int = 0) -> torch.Tensor:
    return Uniform().generate(count, train, 5, torch.Generator().manual_seed(seed))


class UniformTest(TestCase):
    def test_values_are_uniform_between_minus_and_plus_sqrt_3(self):
        expected = scipy.stats.uniform(-(3**0.5), 2 * 3**0.5)
        self.assertGreater(scipy.stats.kstest(make(4000).flatten().numpy(), expected.cdf).pvalue, 0.01)

    def test_values_have_mean_0_and_variance_1(self):
        values = make(4000)
        self.assertAlmostEqual(values.mean().item(), 0, delta=0.02)
        self.assertAlmostEqual(values.var().item(), 1, delta=0.02)

    def test_inputs_are_independent(self):
        correlation = torch.corrcoef(make(4000).T) - torch.eye(5)
        self.assertLess(correlation.abs().max().item(), 5 / 4000**0.5)

    def test_the_count_is_the_number_of_training_queries_and_test_has_a_quarter(self):
        self.assertEqual(make(13).shape, (13, 5))
        self.assertEqual(make(13, train=False).shape, (4, 5))

    def test_all_randomness_comes_from_the_generator(self):
        self.assertTrue(torch.equal(make(3), make(3)))
        self.assertFalse(torch.equal(make(3), make(3, seed=1)))

"""Networks of smooth activation functions that look like relu from afar."""

import unittest

import torch

from extraction.derivatives import differences, from_afar, profiles
from extraction.derivatives.questions import Questions
from extraction.derivatives.recovering import recover
from extraction.derivatives.test import known
from extraction.evaluation import score


class TestFromAfar(unittest.TestCase):
    def found(self, sizes, act_fun, seed=0):
        network = known.layers(sizes, act_fun, seed)
        asked = known.asked(network)
        result = recover(asked)
        self.assertEqual((result.lacks, result.queries), ((), asked.count.asked))
        self.assertTrue(score(result.layers, network).identified)
        return score(result.layers, network).max_relative_error

    def test_more_neurons_than_inputs_are_found(self):
        self.assertLess(self.found((6, 9, 6), "gelu"), 1e-11)

    def test_two_hidden_layers_are_found(self):
        self.assertLess(self.found((14, 8, 4, 3), "silu"), 1e-11)

    def test_only_functions_that_are_piecewise_linear_from_afar_have_a_far_scale(self):
        asked = known.asked(known.layers((6, 5, 2), "softplus"))
        self.assertIsNotNone(from_afar.far_scale(asked, differences.measure(asked)))
        asked = Questions(lambda x: x.square(), 6)
        self.assertIsNone(from_afar.far_scale(asked, differences.measure(asked)))

    def test_a_neuron_among_others_that_are_affine_is_named(self):
        asked = Questions(lambda x: torch.nn.functional.silu(0.7 * x[:, :1] + 0.2) @ known.normal(1, 2) + x @ known.normal(2, 2, seed=1), 2)
        axes = profiles.Axes(torch.zeros(1, 2).double(), torch.tensor([[1.0, 0.5]]).double())
        asked_profiles = profiles.ask_profiles(asked, axes, torch.tensor([24.0]).double(), has_line=True)
        fitted, _ = profiles.named(asked_profiles)
        self.assertEqual(fitted.act_fun, "silu")
        self.assertAlmostEqual(float(fitted.rates.abs()), 0.7, places=7)
        self.assertAlmostEqual(float(fitted.places * fitted.rates.sign()), 0.2, places=7)

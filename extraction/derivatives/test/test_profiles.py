"""Profiles and their names."""

import unittest

import torch

from extraction.derivatives import profiles
from extraction.derivatives.questions import Questions
from extraction.derivatives.test.known import normal
from models import activation_functions

RATES, BIASES = torch.tensor([0.7, -1.3, 2.0]).double(), torch.tensor([0.2, -0.4, 1.0]).double()


def asked(function) -> profiles.Profiles:
    """The profiles of three neurons that are alone along each axis, with two outputs."""
    alone = Questions(lambda y: function(RATES * y + BIASES) @ normal(3, 2) + 0.3, 3)
    return profiles.ask_profiles(alone, profiles.Axes.of_coordinates(torch.zeros(3).double()), torch.full((3,), 12.0).double())


class TestNames(unittest.TestCase):
    def test_smooth_activation_functions_are_named_with_rates_and_biases(self):
        for name in profiles.SMOOTH:
            with self.subTest(name=name):
                fitted, errors = profiles.named(asked(activation_functions.get(name)))
                expected, sign, scale = name, 1.0, 1.0
                if name in profiles.TWINS:  # the same function up to scales, and up to the sign of the neuron
                    expected, sign, scale = "tanh", torch.sign(fitted.rates) * torch.sign(RATES), 0.5 if name == "sigmoid" else 1.0
                self.assertEqual(fitted.act_fun, expected)
                torch.testing.assert_close(fitted.rates * sign, RATES * scale, rtol=1e-6, atol=0)
                torch.testing.assert_close(fitted.places * sign, BIASES * scale, rtol=1e-6, atol=0)

    def test_another_function_is_unknown(self):
        fitted, errors = profiles.named(asked(lambda u: u.sin() + u / 3))
        self.assertIsNone(fitted)
        self.assertGreater(min(errors.values()), profiles.UNKNOWN)

    def test_the_first_of_twins_among_the_candidates_is_named(self):
        self.assertEqual(profiles.named(asked(torch.tanh), ("gelu", "sigmoid"))[0].act_fun, "sigmoid")

    def test_neurons_that_move_together_are_seen(self):
        alone = Questions(lambda y: torch.tanh(y @ normal(3, 3)) @ normal(3, 2, seed=1), 3)
        found = profiles.ask_profiles(alone, profiles.Axes.of_coordinates(torch.zeros(3).double()), torch.full((3,), 4.0).double())
        self.assertGreater(found.impurity.min(), 1e-2)
        self.assertLess(asked(torch.tanh).impurity.max(), 1e-12)

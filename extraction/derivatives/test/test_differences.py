"""Finite differences against autograd, and the scale of teachers against what is known of them."""

import dataclasses
import unittest

import torch
from torch.func import hessian, jacrev

from extraction.derivatives import differences
from extraction.derivatives.questions import Questions
from extraction.derivatives.test import known

NETWORK = known.layers((5, 4, 3), "silu")


def single(x: torch.Tensor) -> torch.Tensor:
    return NETWORK.pre_activations(x[None])[0]


class TestDerivatives(unittest.TestCase):
    def test_gradients_are_those_of_autograd_and_take_one_query_more_than_inputs(self):
        asked, points = known.asked(NETWORK), known.normal(2, 5)
        found = differences.gradients(asked, points, 1e-7)
        torch.testing.assert_close(found, torch.stack([jacrev(single)(point) for point in points]), atol=1e-6, rtol=0)
        self.assertEqual(asked.count.asked, 2 * 6)

    def test_second_derivatives_are_those_of_autograd_and_take_two_queries_a_pair(self):
        asked, point = known.asked(NETWORK), known.normal(5)
        found = differences.curvatures(asked, point, 2e-4)
        torch.testing.assert_close(found, hessian(single)(point), atol=3e-7, rtol=0)
        self.assertEqual(asked.count.asked, 5 * 6 + 1)


class TestScale(unittest.TestCase):
    def test_the_radius_follows_the_inputs(self):
        asked = known.asked(NETWORK)
        small = Questions(lambda x: NETWORK.pre_activations(x * 1024), 5)
        ratio = differences.measure(asked).radius / differences.measure(small).radius
        self.assertEqual(ratio, 1024)

    def test_the_error_of_answers_is_measured(self):
        generator = torch.Generator().manual_seed(0)
        noisy = Questions(lambda x: NETWORK.pre_activations(x) + 1e-6 * torch.randn(len(x), 3, generator=generator, dtype=torch.float64), 5)
        rounded = Questions(lambda x: NETWORK.pre_activations(x).float().double(), 5)
        self.assertLess((differences.measure(noisy).error / 1e-6 - 1).abs().max(), 0.6)
        self.assertLess(differences.measure(rounded).error.max(), 1e-7)
        self.assertGreater(differences.measure(rounded).error.min(), 1e-9)
        self.assertLess(differences.measure(known.asked(NETWORK)).error.max(), 1e-15)

    def test_points_are_drawn_inside_a_limit_along_their_direction(self):
        scale = dataclasses.replace(differences.measure(known.asked(NETWORK)), limit=0.5)
        points = torch.tensor([[0.1, -0.2], [1.0, -2.0]], dtype=torch.float64)
        torch.testing.assert_close(scale.inside(points), torch.tensor([[0.1, -0.2], [0.25, -0.5]], dtype=torch.float64))

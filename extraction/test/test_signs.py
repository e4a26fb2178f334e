"""Recovery of the signs of neurons, on known layers."""

import unittest

import torch

from extraction.network import fit_outputs
from extraction.signs import resolve_signs, settle_signs, sign_invariant_features
from extraction.symmetry import symmetries
from extraction.test.test_recovery import random
from models.activation_functions import activation_functions
from models.mlp import with_ones


class TestResolveSigns(unittest.TestCase):
    def test_exactly_the_negated_neurons_are_negated_back(self):
        queries, truth, outgoing = random(800, 6), random(5, 7, seed=1), random(5, 3, seed=2)
        turned = torch.tensor([1.0, -1, -1, 1, -1], dtype=torch.float64)[:, None]
        for act_fun in ("relu", "leaky_relu", "softplus", "gelu", "silu"):
            with self.subTest(act_fun):
                s = activation_functions[act_fun]
                answers = s(with_ones(queries) @ truth.T) @ outgoing + 0.3
                found, fractions = resolve_signs(turned * truth, act_fun, queries, answers)
                torch.testing.assert_close(found, truth)
                torch.testing.assert_close(fractions, (turned[:, 0] < 0).double(), rtol=0, atol=1e-6)

    def test_free_signs_are_not_changed(self):
        vectors = random(4, 3)
        found, _ = resolve_signs(vectors, "tanh", random(10, 2), random(10, 1))
        self.assertTrue(torch.equal(found, vectors))


class TestSettleSigns(unittest.TestCase):
    def test_the_next_layer_determines_the_signs(self):
        inputs, truth, following = random(50, 6), random(5, 7, seed=1), random(4, 6, seed=2)
        wrong = torch.tensor([False, True, True, False, True])
        held = torch.where(wrong[:, None], -truth, truth)
        for act_fun in ("relu", "softplus", "gelu"):
            with self.subTest(act_fun):
                s, symmetry = activation_functions[act_fun], symmetries[act_fun]
                pre_activations = with_ones(inputs) @ held.T
                features = sign_invariant_features(act_fun, pre_activations)
                wanted = with_ones(s(with_ones(inputs) @ truth.T)) @ following.T
                over_both = fit_outputs(features, wanted).T  # an exact fit exists
                torch.testing.assert_close(with_ones(features) @ over_both.T, wanted)
                over_both[1] *= -1  # the signs of the next layer are unknown as well
                noisy = over_both + 1e-5 * random(4, 11, seed=3)
                vectors, settled = settle_signs(held, noisy, features.std(0), symmetry)
                torch.testing.assert_close(vectors, truth)
                settled[1] *= -1
                torch.testing.assert_close(settled, following, rtol=0, atol=1e-4)

    def test_the_feature_with_more_variance_has_more_weight(self):
        held, even, linear = random(1, 3), torch.tensor([[2.0]]).double(), torch.tensor([[1.5]]).double()
        following = torch.cat([even, linear, torch.zeros(1, 1)], 1).double()
        for spread, expected in (([1.0, 0.0], 2.0), ([0.0, 1.0], 3.0), ([1.0, 2.0], 2.5)):
            _, settled = settle_signs(held, following, torch.tensor(spread).double(), symmetries["softplus"])
            self.assertAlmostEqual(settled[0, 0].item(), expected)

    def test_the_sign_invariant_features_are_even(self):
        pre_activations = random(20, 3)
        for act_fun in ("relu", "leaky_relu", "softplus", "gelu", "silu"):
            straight, turned = (sign_invariant_features(act_fun, sign * pre_activations)[:, :3] for sign in (1, -1))
            torch.testing.assert_close(straight, turned)

    def test_free_signs_need_no_second_activation(self):
        pre_activations = random(20, 3)
        self.assertTrue(torch.equal(sign_invariant_features("tanh", pre_activations), torch.tanh(pre_activations)))
        vectors, following = random(3, 4), random(2, 4, seed=1)
        for act_fun in ("tanh", "relu"):
            self.assertEqual(settle_signs(vectors, following, torch.ones(3), symmetries[act_fun]), (vectors, following))


if __name__ == "__main__":
    unittest.main()

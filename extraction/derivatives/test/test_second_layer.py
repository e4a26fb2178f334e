"""A second hidden layer of gelu, silu or softplus, from afar."""

import unittest

import torch

from extraction.derivatives.result import Lacking
from extraction.derivatives.second_layer import _signed, find, suits
from extraction.derivatives.test import known
from extraction.network import Layers


class TestFind(unittest.TestCase):
    def test_a_layer_that_widens_shows_its_rows_lengths_and_biases_up_to_signs(self):
        second = torch.tensor([[1.0, -0.7, 0.2], [-0.4, 1.1, -0.3], [1.3, -1.6, 0.5]], dtype=torch.float64)
        eye = torch.eye(2, 3, dtype=torch.float64)
        network = Layers((eye, second, known.normal(1, 4)), "softplus")
        found = find(known.asked(network), "softplus")
        distances = torch.minimum(torch.cdist(found, second), torch.cdist(found, -second))
        self.assertLess(float(distances.amin(0).max()), 1e-5)

    def test_a_layer_without_kinks_far_out_is_said(self):
        network = Layers((torch.eye(2, 3, dtype=torch.float64), known.normal(1, 3)), "gelu")
        with self.assertRaisesRegex(Lacking, "no neuron of the second layer"):
            find(known.asked(network), "gelu")


class TestSigns(unittest.TestCase):
    def test_the_linear_map_that_is_left_shows_the_signs(self):
        true, third = known.normal(4, 4), known.normal(3, 5, seed=1)
        signs = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
        shown = true * signs[:, None]
        mixed = known.normal(3, 4, seed=2)  # weights of s(-z) that cancel, as four rows in three dimensions are dependent
        null = torch.linalg.svd(shown[:, :-1].T)[2][-1]
        turned = torch.where(signs < 0, third[:, :-1], 0.0) + mixed[:, :1] * null
        weights = third[:, :-1] - turned
        bias = third[:, -1:] + mixed[:, :1] * (null @ shown[:, -1])
        found, following = _signed(shown, torch.cat([weights, turned, bias], 1))
        torch.testing.assert_close(found, true)
        torch.testing.assert_close(following, third)

    def test_functions_with_open_signs_that_look_like_relu_suit(self):
        self.assertEqual(
            [name for name in ("gelu", "silu", "softplus", "g", "tanh", "sigmoid", "relu") if suits(name)], ["gelu", "silu", "softplus"]
        )


if __name__ == "__main__":
    unittest.main()

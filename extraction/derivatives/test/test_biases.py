"""Biases of a layer of tanh from a null space."""

import unittest

import torch

from extraction.derivatives import biases
from extraction.derivatives.result import Lacking
from extraction.derivatives.test import known


def behind(sizes: tuple[int, ...], missing: torch.Tensor):
    """The network by the weighted sums of a layer without its biases, and the layers behind it."""
    network = known.layers(sizes, "tanh")
    asked = known.asked(network)
    return asked.through(lambda sums: torch.tanh(sums + missing), len(missing)), network


class TestSettle(unittest.TestCase):
    def test_biases_and_the_rows_of_the_next_layer_are_found_without_a_start(self):
        missing = torch.linspace(-2, 2, 7, dtype=torch.float64)
        inner, network = behind((7, 4, 2), missing)
        offsets, rows = biases.settle(inner, 2, 1e-7)
        torch.testing.assert_close(offsets, missing, atol=1e-4, rtol=0)
        weights = network.vectors[0][:, :-1]
        self.assertEqual(rows.shape, (7, 4))
        self.assertLess((weights - weights @ rows @ rows.T).abs().max(), 1e-4)

    def test_a_next_layer_that_is_not_narrower_is_said(self):
        inner, _ = behind((4, 5, 2), torch.zeros(4, dtype=torch.float64))
        with self.assertRaisesRegex(Lacking, "not narrower"):
            biases.settle(inner, 2, 1e-7)

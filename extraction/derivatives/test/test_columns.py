"""The first layer column by column."""

import unittest

import torch

from extraction.derivatives.columns import Base, columns
from extraction.derivatives.test import known


class TestColumns(unittest.TestCase):
    def test_columns_are_right_to_rounding_from_a_start_that_is_nearly_right(self):
        for sizes in ((12, 5, 3), (12, 5, 4, 3)):
            with self.subTest(sizes=sizes):
                network = known.layers(sizes, "tanh")
                weights, points = network.vectors[0][:, :-1], known.normal(4, 12)
                sums = network.replace(network.vectors[0]).pre_activations(points)
                start = weights + 1e-4 * known.normal(5, 12)
                asked = known.asked(network)
                found = columns(asked, Base(points, sums), network.replace(*network.vectors[1:]), start, 1.5)
                torch.testing.assert_close(found, weights, atol=1e-13, rtol=0)
                self.assertEqual(asked.count.asked, 4 * 12)

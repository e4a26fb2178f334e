"""The boxes of the benchmark are what its description says, and their results are judged rightly."""

import unittest

import torch

from extraction.evaluation import score
from extraction.network import Layers
from testing.benchmarks.black_boxes import as_tanh, draw, table


class TestBoxes(unittest.TestCase):
    def test_a_number_draws_the_same_box_again(self):
        one, other = draw(4), draw(4)
        self.assertEqual((str(one), len(one.queries)), ("12-5-2 relu", 3043))
        self.assertTrue(torch.equal(one.answers, other.answers))

    def test_a_sigmoid_network_is_a_tanh_network(self):
        generator = torch.Generator().manual_seed(0)
        sizes = [(4, 3), (5, 4), (2, 5)]
        vectors = tuple(torch.randn(width, fan_in + 1, generator=generator, dtype=torch.float64) for width, fan_in in sizes)
        sigmoid, queries = Layers(vectors, "sigmoid"), torch.randn(50, 3, generator=generator, dtype=torch.float64)
        tanh = as_tanh(sigmoid)
        torch.testing.assert_close(tanh.pre_activations(queries), sigmoid.pre_activations(queries), rtol=0, atol=1e-13)
        self.assertTrue(score(tanh, tanh).identified)

    def test_outcomes_are_counted_by_depth(self):
        rows = [{"depth": depth, "outcome": outcome} for depth, outcome in ((1, "found"), (1, "refused"), (3, "WRONG"))]
        lines = [line.split() for line in table(rows).splitlines()]
        self.assertEqual(lines[1:], [["1", "1", "1", "0"], ["3", "0", "0", "1"]])


if __name__ == "__main__":
    unittest.main()

"""The span of gradients and its rank."""

import unittest

import torch

from extraction.derivatives import differences, subspace
from extraction.derivatives.questions import Questions
from extraction.derivatives.test import known


def gradient_span(asked: Questions) -> subspace.Span:
    return subspace.gradient_span(asked, differences.measure(asked), lambda count: asked.normal(count, asked.inputs))


class TestSpan(unittest.TestCase):
    def test_the_rank_is_the_width_and_the_span_the_rows_of_the_first_layer(self):
        for sizes in ((9, 4, 2), (9, 4, 3, 2), (9, 4, 1)):
            with self.subTest(sizes=sizes):
                network = known.layers(sizes, "gelu")
                span = gradient_span(known.asked(network))
                rows = network.vectors[0][:, :-1]
                self.assertEqual((span.rank, span.is_full), (4, False))
                self.assertLess((rows - rows @ span.basis @ span.basis.T).abs().max(), 1e-5)

    def test_as_many_neurons_as_inputs_fill_the_space(self):
        self.assertTrue(gradient_span(known.asked(known.layers((4, 6, 2), "gelu"))).is_full)

    def test_the_rank_ends_at_the_gap(self):
        values = torch.tensor([1.0, 1e-1, 1e-3, 1e-8, 1e-9])
        self.assertEqual(subspace.rank_by_gap(values, 1e-8)[0], 3)
        self.assertEqual(subspace.rank_by_gap(values[:3], 1e-8)[0], 3)

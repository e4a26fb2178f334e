"""Whole networks from derivatives."""

import unittest

import torch

from extraction.derivatives.questions import Questions
from extraction.derivatives.recovering import recover
from extraction.derivatives.test import known
from extraction.evaluation import score


class TestShallow(unittest.TestCase):
    def test_a_network_is_found_without_its_width_and_activation_function(self):
        for act_fun, sizes in (("gelu", (12, 5, 3)), ("g", (8, 4, 2)), ("softplus", (7, 3, 1))):
            with self.subTest(act_fun=act_fun, sizes=sizes):
                network = known.layers(sizes, act_fun)
                asked = known.asked(network)
                result = recover(asked)
                self.assertEqual((result.lacks, result.queries), ((), asked.count.asked))
                compared = score(result.layers, network)
                self.assertTrue(compared.identified)
                self.assertLess(compared.max_relative_error, 1e-12)

    def test_a_budget_that_is_spent_is_what_is_lacking(self):
        asked = known.asked(known.layers((12, 5, 3), "gelu"), budget=400)
        result = recover(asked)
        self.assertIsNone(result.layers)
        self.assertRegex(result.lacks[0], "budget of 400")
        self.assertLessEqual(asked.count.asked, 400)

    def test_an_unknown_activation_function_is_said(self):
        first, last = known.layers((8, 4, 3), "tanh").vectors
        asked = Questions(lambda x: torch.sin(2 * x @ first[:, :-1].T + first[:, -1]) @ last[:, :-1].T, 8)
        result = recover(asked)
        self.assertIsNone(result.layers)
        self.assertRegex(result.lacks[0], "activation function is unknown")

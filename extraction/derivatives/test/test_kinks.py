"""Kinks along lines, and the neurons that they show."""

import unittest

import torch

from extraction.derivatives import differences, kinks, lines
from extraction.derivatives.questions import Questions
from extraction.derivatives.result import Lacking
from extraction.derivatives.test import known


def teacher(network):
    asked = known.asked(network)
    return asked, differences.measure(asked)


class TestKinks(unittest.TestCase):
    def setUp(self):
        self.network = known.layers((6, 5, 2), "relu", seed=3)
        self.asked, self.scale = teacher(self.network)

    def test_every_kink_of_a_line_is_found(self):
        found = lines.find_kinks(self.asked, kinks.random_line(self.asked, self.scale), self.scale)
        line, vectors = found.line, self.network.vectors[0]
        true = -(vectors[:, :-1] @ line.origin + vectors[:, -1]) / (vectors[:, :-1] @ line.direction)
        torch.testing.assert_close(found.places, true.sort().values, atol=1e-6, rtol=1e-6)

    def test_neither_rounding_where_answers_are_zero_nor_near_kinks_give_false_ones(self):
        for seed in (1, 8):  # in turn, answers are 0 near a kink, and two kinks are near
            first = torch.cat([known.normal(40, 60, seed=seed), torch.zeros(40, 1, dtype=torch.float64)], 1)
            asked = known.asked(self.network.replace(first, known.normal(1, 41, seed=100 + seed)))
            scale = differences.measure(asked)
            for _ in range(12):
                line = kinks.random_line(asked, scale)
                true = -(first[:, :-1] @ line.origin) / (first[:, :-1] @ line.direction)
                found = lines.find_kinks(asked, line, scale).places
                errors = (found[:, None] - true).abs() / (scale.unit(60) + true.abs())
                self.assertLess(errors.amin(1).max(), 1e-6)

    def test_a_neuron_that_stands_for_two_is_refused_on_another_line(self):
        found = lines.find_kinks(self.asked, kinks.random_line(self.asked, self.scale), self.scale)
        right = kinks.measured(self.asked, found, torch.arange(len(found.places)))
        merged = kinks.Neurons(right.incoming + right.incoming.roll(1, 0), right.biases + right.biases.roll(1, 0), right.outgoing)
        other = lines.find_kinks(self.asked, kinks.random_line(self.asked, self.scale), self.scale)
        within_reach = kinks.crossings(other.line, right).abs() < 100
        self.assertGreater(within_reach.sum(), 1)
        self.assertTrue(torch.equal(kinks.predicts(self.asked, self.scale, other, right), within_reach))
        self.assertFalse(kinks.predicts(self.asked, self.scale, other, merged).any())

    def test_piecewise_linear_and_smooth_networks_are_told_apart(self):
        self.assertTrue(kinks.is_piecewise_linear(self.asked, self.scale))
        self.assertFalse(kinks.is_piecewise_linear(*teacher(known.layers((6, 5, 2), "softplus"))))

    def test_an_affine_teacher_has_no_kinks(self):
        asked = Questions(lambda x: x @ known.normal(4, 2) + 1, 4)
        with self.assertRaisesRegex(Lacking, "affine function of the inputs"):
            kinks.recover(asked, differences.measure(asked))

    def test_a_deep_network_is_refused(self):
        with self.assertRaisesRegex(Lacking, "more than one hidden layer"):
            kinks.recover(*teacher(known.layers((8, 4, 3, 1), "relu")))

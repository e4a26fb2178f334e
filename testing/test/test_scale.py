"""The benchmark of large networks: its teachers and its scores."""

import unittest

import torch

from extraction.network import Layers
from testing.benchmarks import scale

TARGET = scale.Target("sigmoid", (6, 4, 3, 2), "P", 0, 0, 0)


class TestScores(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.network = scale.teacher(TARGET)

    def test_a_sigmoid_network_is_compared_as_the_equal_one_of_tanh(self):
        x = torch.randn(9, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        torch.testing.assert_close(scale.as_tanh(self.network).pre_activations(x), self.network.pre_activations(x))
        self.assertLess(max(scale.layer_errors(scale.as_tanh(self.network), self.network)), 1e-15)

    def test_order_and_signs_do_not_count_and_errors_and_widths_do(self):
        first, second, last = scale.as_tanh(self.network).vectors
        order = torch.tensor([2, 0, 3, 1])
        second = torch.cat([-second[:, order], second[:, -1:]], 1)
        found = scale.as_tanh(self.network).replace(-first[order], second, last)
        self.assertLess(max(scale.layer_errors(found, self.network)), 1e-15)
        wrong = found.replace(found.vectors[0], second, last + 0.5 * last.abs().max())
        self.assertAlmostEqual(scale.layer_errors(wrong, self.network)[2], 0.5)
        self.assertEqual(scale.layer_errors(found.replace(first[:3], second[:, [0, 1, 2, 4]], last), self.network), [float("inf")])


class TestTeachers(unittest.TestCase):
    def test_teachers_are_the_same_at_every_call_and_differ_by_seed(self):
        first = scale.teacher(TARGET).vectors[0]
        self.assertTrue(torch.equal(first, scale.teacher(TARGET).vectors[0]))
        self.assertFalse(torch.equal(first, scale.teacher(TARGET, 1).vectors[0]))

    def test_training_lowers_the_loss_of_a_teacher(self):
        x, y = torch.ones(4, 6, dtype=torch.float64), torch.tensor([0, 1, 1, 1])
        start = Layers((torch.full((3, 7), 0.1, dtype=torch.float64), torch.zeros(2, 4, dtype=torch.float64)), "tanh")
        end = scale.trained(start, [(x, y)] * 20, 1e-2, torch.nn.functional.cross_entropy)
        losses = [float(torch.nn.functional.cross_entropy(each.pre_activations(x), y)) for each in (start, end)]
        self.assertLess(losses[1], losses[0])

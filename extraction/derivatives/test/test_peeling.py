"""Networks of relu and leaky relu with several hidden layers, and what they lack."""

import unittest

import torch

from extraction.derivatives import grounds, hidden_layer, peeling
from extraction.derivatives.differences import measure
from extraction.derivatives.grounds import Ground
from extraction.derivatives.questions import Questions
from extraction.derivatives.recovering import recover
from extraction.derivatives.result import Lacking
from extraction.derivatives.test import known
from extraction.evaluation import score


def ground_of(network, **kinds):
    asked = known.asked(network)
    return Ground(asked, measure(asked), **kinds)


class TestPeeling(known.RecoveryTestCase):
    def test_deep_networks_are_found_without_their_widths_and_slopes(self):
        for act_fun, sizes in (("relu", (20, 10, 5, 2)), ("leaky_relu", (12, 6, 4, 2)), ("relu", (16, 8, 4, 1))):
            with self.subTest(act_fun=act_fun, sizes=sizes):
                self.assert_found(known.layers(sizes, act_fun), 1e-11)

    def test_a_second_layer_may_be_wider(self):
        network = known.layers((8, 3, 6, 2), "relu")
        result = recover(known.asked(network))
        self.assertEqual(result.lacks, ())
        self.assertLess(score(result.layers, network).max_relative_error, 1e-9)

    def test_more_neurons_than_inputs_are_fitted_to_rounding(self):
        network = known.layers((6, 9, 4), "relu")
        result = recover(known.asked(network))
        self.assertEqual(result.lacks, ())
        self.assertLess(score(result.layers, network).max_relative_error, 1e-12)

    def test_slopes_are_measured(self):
        for sizes in ((9, 4, 3), (9, 4, 1), (12, 6, 4, 2)):
            with self.subTest(sizes=sizes):
                network = known.layers(sizes, "leaky_relu:0.2", seed=1)
                result = recover(known.asked(network))
                self.assertEqual((result.lacks, result.layers.act_fun), ((), "leaky_relu:0.2"))
                self.assertTrue(score(result.layers, network).identified)

    def test_a_slope_that_no_activation_function_has_is_said(self):
        first, last = known.layers((9, 4, 3), "relu").vectors
        asked = Questions(lambda x: (x @ first[:, :-1].T + first[:, -1]).abs() @ last[:, :-1].T, 9)
        with self.assertRaisesRegex(Lacking, "slope -1 "):
            peeling.recover(asked, measure(asked), peeling.span_of(asked, measure(asked)))


class TestHiddenLayer(unittest.TestCase):
    def test_neurons_of_the_first_of_two_layers_are_found_with_their_signs(self):
        network = known.layers((8, 8, 5, 2), "leaky_relu", seed=1)
        layer = hidden_layer.find_layer(ground_of(network), 8)
        true = torch.nn.functional.normalize(network.vectors[0][:, :-1], dim=1)
        self.assertLess((1 - (layer.rows @ true.T).amax(1)).max(), 1e-10)
        self.assertAlmostEqual(layer.slope, 0.01, places=8)
        sums = (layer.points * layer.rows).sum(1) + layer.biases
        self.assertLess(sums.abs().max(), 1e-12)

    def test_those_are_elected_that_most_lines_confirm(self):
        asked = known.asked(known.layers((3, 2, 1), "relu"))
        neurons = hidden_layer.Neurons(torch.eye(3, dtype=torch.float64), known.normal(3), known.normal(3, asked.inputs))
        elected = hidden_layer._elected(neurons, torch.tensor([3.0, 1, 2]), 2)
        self.assertTrue(torch.equal(elected.incoming, neurons.incoming[[0, 2]]))
        self.assertIsNone(hidden_layer._elected(neurons, torch.tensor([3.0, 2, 2]), 2))


class TestGrounds(unittest.TestCase):
    def test_depth_shows_on_parallel_lines(self):
        self.assertTrue(grounds.is_deep(ground_of(known.layers((20, 10, 8, 2), "relu"))))
        self.assertFalse(grounds.is_deep(ground_of(known.layers((20, 10, 2), "relu"))))

    def test_affine_functions_are_told(self):
        asked = Questions(lambda x: x @ known.normal(4, 2) + 1, 4)
        self.assertTrue(grounds.is_affine(Ground(asked, measure(asked, radius=1.0))))
        self.assertFalse(grounds.is_affine(ground_of(known.layers((6, 5, 2), "relu"))))

    def test_lines_of_positive_inputs_stay_positive(self):
        ground = ground_of(known.layers((6, 5, 2), "relu"), is_positive=True)
        line = ground.line()
        self.assertGreater(line.at(torch.tensor([line.low, line.high], dtype=torch.float64)).min(), 0)

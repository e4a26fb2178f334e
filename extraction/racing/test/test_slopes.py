"""The slope of leaky_relu from networks that are the same function with another slope."""

import unittest

import torch

from extraction.network import Layers
from extraction.racing.slopes import better_act_fun, rounded


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def in_pairs(incoming, following, slope):
    """A layer of relu with the function of a layer of leaky_relu: max(z, 0) - slope * max(-z, 0)."""
    weights, bias = following[:, :-1], following[:, -1:]
    return torch.cat([incoming, -2 * incoming]), torch.cat([weights, -slope / 2 * weights, bias], 1)


def with_units_that_never_switch(incoming, following, slope):
    """The same with a relu neuron for every neuron, and units far on either side of their kinks for the linear map."""
    together, after = beside_a_linear_map(incoming, following, slope)
    together[5:8, -1] += 1000
    together[8:, -1] -= 1000
    after[:, -1] -= 1000
    return together, after


def beside_a_linear_map(incoming, following, slope):
    """The same with a relu neuron for every neuron, and pairs of relu neurons for the linear map, of which there are as many as outputs."""
    weights, bias = following[:, :-1], following[:, -1:]
    linear = slope * weights @ incoming  # z max(0, .) has (1 - slope) of the weight, and slope * z is linear
    together = torch.cat([incoming, linear, -linear])
    ones = torch.eye(len(weights), dtype=torch.float64)
    return together, torch.cat([(1 - slope) * weights, ones, -ones, bias], 1)


class TestSlopes(unittest.TestCase):
    def test_networks_of_relu_show_the_slope_with_which_they_are_smaller(self):
        first, last = random(5, 7), random(3, 6, seed=1)
        middle = random(4, 6, seed=8)
        x = random(200, 6, seed=3)
        for slope, expected in ((0.2, "leaky_relu:0.2"), (0.01, "leaky_relu"), (0.123456789, "leaky_relu:0.123456789")):
            for written in (in_pairs, beside_a_linear_map, with_units_that_never_switch):
                with self.subTest(slope=slope, written=written.__name__):
                    vectors = written(first, last, slope)
                    same = Layers((first, last), f"leaky_relu:{slope}").pre_activations(x)
                    torch.testing.assert_close(Layers(vectors, "relu").pre_activations(x), same)
                    self.assertEqual(better_act_fun(Layers(vectors, "relu"), x), expected)
            with self.subTest(slope=slope, deep=True):
                one, between = in_pairs(first, middle, slope)
                two, end = in_pairs(between, random(3, 5, seed=4), slope)
                self.assertEqual(better_act_fun(Layers((one, two, end), "relu"), x), expected)

    def test_one_output_tells_the_slope_of_more_neurons_than_inputs(self):
        first, last, x = random(6, 5), random(1, 7, seed=1), random(200, 4, seed=3)
        self.assertEqual(better_act_fun(Layers(in_pairs(first, last, 0.2), "relu"), x), "leaky_relu:0.2")
        self.assertIsNone(better_act_fun(Layers((first, last), "leaky_relu:0.2"), x))

    def test_networks_that_no_slope_makes_smaller_keep_theirs(self):
        first, last = random(5, 7), random(3, 6, seed=1)
        for act_fun in ("relu", "leaky_relu", "leaky_relu:0.2", "tanh"):
            self.assertIsNone(better_act_fun(Layers((first, last), act_fun), random(200, 6)), act_fun)
        self.assertIsNone(better_act_fun(Layers((torch.cat([first, -first]), random(3, 11, seed=5)), "relu"), random(200, 6)))

    def test_an_estimate_has_the_fewest_digits_that_are_near_enough(self):
        cases = {(0.2 + 1e-14, 1e-12): 0.2, (1e-14, 1e-12): 0.0, (0.12345678901234, 1e-12): 0.123456789012}
        for (value, tolerance), expected in cases.items():
            self.assertEqual(rounded(value, tolerance), expected)


if __name__ == "__main__":
    unittest.main()

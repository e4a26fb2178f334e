"""Hypotheses, and the flags that name them."""

import unittest

import torch

from extraction.hypothesis import (
    ACT_FUNS,
    SAME_FUNCTIONS,
    Hypothesis,
    hypotheses,
    parse_act_funs,
    parse_depths,
    remark,
)
from foundations.errors import ConfigError
from models import registry
from models.activation_functions import activation_functions


class TestHypotheses(unittest.TestCase):
    def test_every_activation_function_of_the_table_is_a_hypothesis_except_the_identity(self):
        self.assertEqual({*ACT_FUNS, "identity"}, set(activation_functions))

    def test_fewer_layers_come_first(self):
        found = hypotheses((1, 2), ("relu", "tanh"))
        self.assertEqual(found, [Hypothesis(1, "relu"), Hypothesis(1, "tanh"), Hypothesis(2, "relu"), Hypothesis(2, "tanh")])
        self.assertEqual(min(found).depth, 1)

    def test_students_have_the_depth_and_the_width(self):
        name = Hypothesis(3, "g").students(4, 12, (5, 2))
        self.assertEqual(name, "students_mlp(4)_5_12_12_12_2")
        self.assertEqual(registry.resolve(name), name)

    def test_all_depths_and_functions_are_tried_by_default(self):
        self.assertEqual([parse_depths(text) for text in (None, "auto", "2", "3+1")], [(1, 2, 3), (1, 2, 3), (2,), (1, 3)])
        self.assertEqual(parse_act_funs(None), parse_act_funs("auto"))

    def test_only_one_of_two_functions_is_tried_whose_networks_are_the_same(self):
        self.assertEqual(parse_act_funs("auto"), ("relu", "leaky_relu", "tanh", "softplus", "gelu", "silu", "g"))
        self.assertEqual(
            [parse_act_funs(text) for text in ("sigmoid", "sigmoid+relu", "tanh+sigmoid")], [("sigmoid",), ("relu", "sigmoid"), ("tanh",)]
        )

    def test_leaky_relu_with_a_slope_is_a_hypothesis_where_it_is_stated(self):
        self.assertEqual(parse_act_funs("leaky_relu:0.20+tanh+relu"), ("relu", "tanh", "leaky_relu:0.2"))
        self.assertEqual(parse_act_funs("auto+leaky_relu:0.2"), (*parse_act_funs("auto"), "leaky_relu:0.2"))
        with self.assertRaisesRegex(ConfigError, "^--act_fun: "):
            parse_act_funs("leaky_relu:2")

    def test_functions_that_count_as_the_same_are_the_same_up_to_affine_maps(self):
        x = torch.linspace(-4, 4, 50, dtype=torch.float64)
        for name, other in SAME_FUNCTIONS.items():
            one, two = activation_functions[name](x), activation_functions[other](x / 2)
            features = torch.stack([two, torch.ones_like(two)], 1)
            errors = features @ torch.linalg.lstsq(features, one[:, None]).solution - one[:, None]
            self.assertLess(float(errors.abs().max()), 1e-14)
            self.assertIn(other, remark(name))
            self.assertIn(name, remark(other))
        self.assertEqual(remark("relu"), "")

    def test_what_is_not_valid_is_refused_with_what_is(self):
        for text in ("0", "4", "two", "1,2", "", "1+", "-1"):
            with self.subTest(text), self.assertRaisesRegex(ConfigError, "^--depth: .*valid: auto, or numbers from 1 to 3 joined by [+]"):
                parse_depths(text)
        for text in ("identity", "relu+", "tanh,relu"):
            with self.subTest(text), self.assertRaisesRegex(ConfigError, "^--act_fun: .*valid: auto, g, gelu"):
                parse_act_funs(text)
        with self.assertRaisesRegex(ConfigError, "did you mean 'tanh'"):
            parse_act_funs("relu+tahn")


if __name__ == "__main__":
    unittest.main()

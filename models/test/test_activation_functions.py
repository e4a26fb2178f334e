"""The activation functions compared with their formulas, and their symmetries."""

import math

import numpy as np
import torch

from foundations.errors import ConfigError
from models import activation_functions, slopes
from testing.test_case import TestCase

GRID = torch.linspace(-6, 6, 241, dtype=torch.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


FORMULAS = {
    "relu": lambda x: max(x, 0.0),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "tanh": math.tanh,
    "sigmoid": sigmoid,
    "softplus": softplus,
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    "silu": lambda x: x * sigmoid(x),
    "g": lambda x: sigmoid(4 * x) + softplus(x),
    "identity": lambda x: x,
}


def values(name: str, x: torch.Tensor = GRID) -> np.ndarray:
    return activation_functions.get(name)(x).numpy()


def is_affine(y: np.ndarray) -> bool:
    """Whether values on the grid are an affine function."""
    return bool(np.abs(y - np.polyval(np.polyfit(GRID.numpy(), y, 1), GRID.numpy())).max() < 1e-9)


class ActivationFunctionsTest(TestCase):
    def test_each_function_agrees_with_its_formula(self):
        for name, formula in FORMULAS.items():
            with self.subTest(name):
                np.testing.assert_allclose(values(name), [formula(x) for x in GRID.tolist()], rtol=1e-12, atol=1e-14)

    def test_a_name_gives_the_slope_of_leaky_relu(self):
        expected = [x if x > 0 else 0.2 * x for x in GRID.tolist()]
        np.testing.assert_allclose(values("leaky_relu:0.2"), expected, rtol=1e-12, atol=1e-14)
        names = {"relu": 0.0, "leaky_relu": 0.01, "leaky_relu:0.2": 0.2, "leaky_relu:1e-3": 1e-3, "tanh": None}
        for name, slope in names.items():
            self.assertEqual(slopes.slope_of(name), slope, name)
        for name in ("leaky_relu:", "leaky_relu:0", "leaky_relu:1", "leaky_relu:nan", "leaky_relu:-0.1", "relu:0.2", "leaky_relu:x"):
            self.assertIsNone(slopes.slope_of(name), name)
            with self.assertRaisesRegex(ConfigError, "--act_fun"):
                activation_functions.get(name)
        self.assertEqual([slopes.with_slope(slope) for slope in (0.0, 0.01, 0.2)], ["relu", "leaky_relu", "leaky_relu:0.2"])

    def test_every_function_has_a_formula_in_this_test(self):
        self.assertEqual(set(FORMULAS), set(activation_functions.activation_functions))

    def test_no_function_changes_its_input_or_shares_memory_with_it(self):
        for name in FORMULAS:
            x = GRID.clone()
            activation_functions.get(name)(x).add_(1)
            self.assertTrue(torch.equal(x, GRID), name)

    def test_the_gaussian_mean_agrees_with_gauss_hermite_quadrature(self):
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        for name, formula in FORMULAS.items():
            expected = sum(weight * formula(node) for node, weight in zip(nodes, weights, strict=True)) / math.sqrt(2 * math.pi)
            self.assertAlmostEqual(activation_functions.gaussian_mean(name), expected, delta=5e-3 if "relu" in name else 1e-5)
        self.assertAlmostEqual(activation_functions.gaussian_mean("relu"), 1 / math.sqrt(2 * math.pi), delta=1e-5)
        self.assertEqual(activation_functions.gaussian_mean("tanh"), 0)

    def test_the_error_for_an_unknown_name_suggests_the_nearest_name(self):
        with self.assertRaisesRegex(ConfigError, "--act_fun: 'tahn' is not known, did you mean 'tanh'.*sigmoid"):
            activation_functions.get("tahn")


class SymmetryTest(TestCase):
    def test_tanh_and_identity_are_odd(self):
        for name in ("tanh", "identity"):
            np.testing.assert_allclose(values(name, -GRID), -values(name), atol=1e-15)

    def test_sigmoid_is_odd_around_one_half(self):
        np.testing.assert_allclose(values("sigmoid", -GRID), 1 - values("sigmoid"), atol=1e-15)

    def test_mirroring_subtracts_a_linear_function(self):
        slopes = {"softplus": 1, "gelu": 1, "silu": 1, "relu": 1, "leaky_relu": 1.01}
        for name, slope in slopes.items():
            with self.subTest(name):
                np.testing.assert_allclose(values(name, -GRID), values(name) - slope * GRID.numpy(), atol=1e-14)

    def test_only_rectifiers_and_identity_are_positively_homogeneous(self):
        scaling = {name for name in FORMULAS if np.allclose(values(name, 3 * GRID), 3 * values(name))}
        self.assertEqual(scaling, {"relu", "leaky_relu", "identity"})

    def test_only_g_has_no_symmetry(self):
        def symmetric(name):
            return any(is_affine(values(name) + sign * values(name, -GRID)) for sign in (1, -1))

        self.assertEqual({name for name in FORMULAS if not symmetric(name)}, {"g"})

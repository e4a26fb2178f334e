"""The laws in the table of symmetries, checked on random values."""

import unittest

import torch

from extraction.symmetry import canonical, symmetries, transform
from models.activation_functions import activation_functions, get


class TestSymmetries(unittest.TestCase):
    def setUp(self):
        self.generator = torch.Generator().manual_seed(0)
        self.x = torch.linspace(-5, 5, 201, dtype=torch.float64)

    def random(self, *shape):
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def test_every_activation_function_has_a_symmetry(self):
        self.assertEqual(set(symmetries), set(activation_functions))

    def test_the_opposite_law_holds(self):
        for name, symmetry in symmetries.items():
            if symmetry.opposite_looks_alike:
                with self.subTest(name):
                    s = activation_functions[name]
                    expected = symmetry.parity * s(self.x) + symmetry.constant + symmetry.slope * self.x
                    torch.testing.assert_close(s(-self.x), expected, rtol=0, atol=1e-12)

    def test_leaky_relu_with_another_slope_has_the_laws_of_that_slope(self):
        s, symmetry = get("leaky_relu:0.2"), symmetries["leaky_relu:0.2"]
        torch.testing.assert_close(s(-self.x), symmetry.parity * s(self.x) + symmetry.slope * self.x, rtol=0, atol=1e-12)
        self.assertTrue(symmetry.positive_scaling)
        with self.assertRaises(KeyError):
            symmetries["leaky_relu:2"]

    def test_the_scaling_law_holds_only_where_declared(self):
        for name, symmetry in symmetries.items():
            if name != "identity":
                with self.subTest(name):
                    s = activation_functions[name]
                    self.assertEqual(torch.allclose(s(3 * self.x), 3 * s(self.x)), symmetry.positive_scaling)

    def test_the_function_g_has_no_opposite_law(self):
        g = activation_functions["g"]
        columns = torch.stack([g(self.x), torch.ones_like(self.x), self.x], 1)
        solution = torch.linalg.lstsq(columns, g(-self.x)[:, None]).solution
        self.assertGreater((columns @ solution - g(-self.x)[:, None]).abs().max().item(), 0.1)

    def test_transforms_keep_the_function(self):
        x = torch.cat([self.random(50, 3), torch.ones(50, 1, dtype=torch.float64)], 1)
        incoming, outgoing, bias = self.random(6, 4), self.random(6, 2), self.random(2)
        for name, symmetry in symmetries.items():
            with self.subTest(name):
                s, ones = activation_functions[name], torch.ones(6, dtype=torch.float64)
                signs = torch.sign(self.random(6)) if symmetry.opposite_is_equal else ones
                scales = 0.5 + self.random(6).abs() if symmetry.positive_scaling else ones
                w, a, b = transform(symmetry, incoming, outgoing, bias, signs * scales)
                torch.testing.assert_close(s(x @ w.T) @ a + b, s(x @ incoming.T) @ outgoing + bias)

    def test_canonical_vectors_of_scaling_activations_have_unit_length(self):
        vectors = self.random(7, 3)
        found, factors = canonical(vectors, symmetries["relu"])
        torch.testing.assert_close(found.norm(dim=1), torch.ones(7, dtype=torch.float64))
        torch.testing.assert_close(found * factors, vectors)

    def test_canonical_vectors_of_other_activations_keep_their_length_ratios(self):
        vectors = self.random(7, 3)
        found, factors = canonical(vectors, symmetries["tanh"])
        torch.testing.assert_close(found / found[0].norm(), vectors / vectors[0].norm())
        self.assertAlmostEqual(found.norm(dim=1).median().item(), 1.0)
        torch.testing.assert_close(found * factors, vectors)


if __name__ == "__main__":
    unittest.main()

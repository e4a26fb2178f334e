"""Gauss-Newton by preconditioned conjugate gradients, against autograd and against what is to be found."""

import unittest

import torch
from torch.func import jacrev

from extraction.derivatives import gauss_newton
from extraction.derivatives.test import known
from extraction.network import Layers


class TestProducts(unittest.TestCase):
    def products(self, sizes: tuple[int, ...]):
        """A linearised network, a change of its weights, and what autograd says of J times it and J' times something."""
        network, queries = known.layers(sizes, "gelu"), known.normal(20, 3)
        answers = known.layers(sizes, "gelu", seed=1).pre_activations(queries)
        spread = answers.std(0)
        problem = gauss_newton.Linearised(network, queries, answers, spread)
        vectors = problem.layers.vectors

        def outputs(*vectors: torch.Tensor) -> torch.Tensor:
            return network.replace(*vectors).pre_activations(queries) / spread

        jacobian = jacrev(outputs, argnums=tuple(range(len(vectors))))(*vectors)
        change = [known.normal(*each.shape) for each in vectors]
        pushed = [torch.einsum("noij,ij->no", part, each) for part, each in zip(jacobian, change, strict=True)]
        pulled = [torch.einsum("noij,no->ij", part, known.normal(20, 2)) for part in jacobian]
        return problem, change, pushed, pulled

    def test_push_and_pull_are_the_jacobian_and_its_transpose(self):
        problem, change, pushed, pulled = self.products((3, 4, 2))
        torch.testing.assert_close(problem.push(change), sum(pushed))
        torch.testing.assert_close(problem.pull(known.normal(20, 2)), pulled)

    def test_the_output_layer_of_deep_networks_is_eliminated(self):
        problem, change, pushed, pulled = self.products((3, 4, 3, 2))
        change[-1] = torch.zeros_like(change[-1])
        features = problem.inputs[-1]
        left = torch.eye(20, dtype=torch.float64) - features @ torch.linalg.pinv(features)
        torch.testing.assert_close(problem.push(change), left @ sum(pushed[:-1]))
        torch.testing.assert_close(problem.pull(known.normal(20, 2))[:-1], pulled[:-1])
        torch.testing.assert_close(left @ problem.residuals, problem.residuals)


class TestPolish(unittest.TestCase):
    def test_a_network_that_is_nearly_right_is_taken_to_rounding(self):
        for act_fun in ("tanh", "softplus"):
            with self.subTest(act_fun=act_fun):
                truth, queries = known.layers((4, 3, 2), act_fun), 2 * known.normal(100, 4)
                start = truth.replace(*(vectors + 1e-2 * known.normal(*vectors.shape) for vectors in truth.vectors))
                result = gauss_newton.polish(start, queries, truth.pre_activations(queries))
                self.assertLess(result.error, 1e-14)
                for found, true in zip(result.layers.vectors, truth.vectors, strict=True):
                    torch.testing.assert_close(found, true, atol=1e-12, rtol=0)

    def test_weights_that_are_not_free_do_not_change(self):
        truth, queries = known.layers((4, 3, 2), "tanh"), 2 * known.normal(100, 4)
        free = torch.zeros_like(truth.vectors[0])
        free[:, -1] = 1
        start = truth.replace(truth.vectors[0] + 0.05 * free, truth.vectors[1])
        result = gauss_newton.polish(start, queries, truth.pre_activations(queries), (free,))
        self.assertTrue(torch.equal(result.layers.vectors[0][:, :-1], truth.vectors[0][:, :-1]))
        torch.testing.assert_close(result.layers.vectors[0], truth.vectors[0], atol=1e-12, rtol=0)

    def test_a_fit_never_gets_worse(self):
        start, queries = known.layers((4, 3, 2), "tanh"), known.normal(30, 4)
        answers = known.normal(30, 2, seed=5)
        before = ((start.pre_activations(queries) - answers) / answers.std(0)).square().mean().sqrt()
        self.assertLessEqual(gauss_newton.polish(start, queries, answers).error, before)
        self.assertIsInstance(gauss_newton.polish(start, queries, answers).layers, Layers)

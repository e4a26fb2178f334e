"""The normal equations of fully connected networks against Jacobians by backpropagation, one row after the other."""

from unittest import mock

import numpy as np
import torch

from testing.test_case import TestCase
from training import normal_equations
from training.least_squares import LeastSquares
from training.test.test_linear_solvers import random
from training.test.test_train import network


class NormalEquationsTest(TestCase):
    def check(self, name: str, act_fun: str, frozen: str = "", examples: int = 12) -> None:
        """Compares J'J and J'r with the products of a dense J, for both orders of summation and for batches in parts."""
        model = network(name, act_fun=act_fun).double()
        for key, parameter in model.named_parameters():
            parameter.requires_grad_(key != frozen)
        inputs = random(examples, 3, seed=1)
        problem = LeastSquares(model, inputs, random(examples, 4, seed=2))
        rows = problem.gather([parameter.detach() for parameter in model.parameters() if parameter.requires_grad])
        rows = rows + 0.3 * random(*rows.shape, seed=3)
        residuals = problem.residuals(rows)
        expected = [self.products(problem, row, errors) for row, errors in zip(rows, residuals, strict=True)]
        for cost in (0, 10**6):  # sums over the outputs first, and rows of J first
            for chunk in (300, 2**23):
                with mock.patch.multiple(normal_equations, PRODUCT_COST=cost, CHUNK_VALUES=chunk), self.subTest(cost=cost, chunk=chunk):
                    square, gradient = problem.normal_equations(rows, residuals)
                    for found, vector, (true, along) in zip(square, gradient, expected, strict=True):
                        np.testing.assert_allclose(found.numpy(), true, rtol=1e-12, atol=1e-12)
                        np.testing.assert_allclose(vector[:, 0].numpy(), along, rtol=1e-12, atol=1e-12)

    @staticmethod
    def products(problem: LeastSquares, row: torch.Tensor, residuals: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """J'J and J'r of one network."""
        row = row.clone().requires_grad_()
        outputs = problem.outputs(row, problem.examples).flatten()
        jacobian = torch.stack([torch.autograd.grad(one, row, retain_graph=True)[0] for one in outputs]).numpy()
        return jacobian.T @ jacobian, jacobian.T @ residuals.numpy()

    def test_one_hidden_layer(self):
        self.check("mlp_3_5_4", "gelu")

    def test_three_hidden_layers_that_narrow_and_widen(self):
        self.check("mlp_3_5_2_6_4", "relu")

    def test_a_stack(self):
        self.check("students_mlp(3)_3_5_2_4", "tanh")

    def test_frozen_tensors_have_no_columns(self):
        self.check("students_mlp(2)_3_5_2_4", "sigmoid", frozen="fc_layers.0.weight")
        self.check("mlp_3_5_4", "silu", frozen="fc.bias")

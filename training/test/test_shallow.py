"""J'J of networks with one hidden layer against J by backpropagation."""

from unittest import mock

import torch

from models.base import Model
from testing.test_case import TestCase
from training import shallow
from training.linear_solvers import DenseSolver
from training.test.test_linear_solvers import dense_jacobian, network, point_of, random


class ShallowTest(TestCase):
    def check(self, model: Model):
        examples, labels = random(40, 5, seed=1), random(40, 3, seed=2)
        point = point_of(model, examples, labels)
        self.assertTrue(shallow.is_shallow(point.problem))
        jacobian = torch.from_numpy(dense_jacobian(point))
        square, gradient = shallow.normal_equations(point.problem, point.rows, point.residuals)
        torch.testing.assert_close(square[0], jacobian.T @ jacobian, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradient[0, :, 0], jacobian.T @ point.residuals[0], rtol=1e-12, atol=1e-12)

    def test_plain_networks_and_students(self):
        for name, act_fun in (("mlp_5_6_3", "gelu"), ("mlp_5_1_3", "tanh"), ("students_mlp(2)_5_9_3", "sigmoid")):
            with self.subTest(name):
                self.check(network(name, act_fun=act_fun).double())

    def test_in_parts(self):
        with mock.patch.object(shallow, "CHUNK_VALUES", 7 * 6 * 6):
            self.check(network("mlp_5_6_3", act_fun="tanh").double())

    def test_frozen_weights(self):
        for frozen in ("fc_layers.0.weight", "fc.bias"):
            with self.subTest(frozen):
                model = network("mlp_5_6_3", act_fun="tanh").double()
                dict(model.named_parameters())[frozen].requires_grad_(False)
                self.check(model)

    def test_deeper_networks_keep_their_own_way(self):
        point = point_of(network("mlp_5_6_4_3", act_fun="tanh").double(), random(40, 5, seed=1), random(40, 3, seed=2))
        self.assertFalse(shallow.is_shallow(point.problem))
        ways = [DenseSolver(point, without_jacobian).curvature for without_jacobian in (True, False)]
        self.assertTrue(torch.equal(*ways))

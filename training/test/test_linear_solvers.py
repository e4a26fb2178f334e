"""Steps, Jacobians and preconditioners of large networks against dense algebra in numpy."""

from unittest import mock

import numpy as np
import torch

from models.base import Model
from models.mlp import FullyConnected
from pruning.mask import Mask
from pruning.pruned_model import PrunedModel
from testing.test_case import TestCase
from testing.toy_model import ToyModel
from training import linear_solvers
from training.jacobian import AutogradJacobian, LayerJacobian, jacobian_of
from training.least_squares import LeastSquares, Point
from training.linear_solvers import IterativeSolver
from training.preconditioning import InputFactors, KroneckerFactors, OwnSubspace
from training.test.test_train import network


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def plain(name: str, act_fun: str = "tanh") -> FullyConnected:
    model = network(name, act_fun=act_fun)
    assert isinstance(model, FullyConnected)
    return model


def point_of(model: Model, examples: torch.Tensor, labels: torch.Tensor, penalty: float = 0.0) -> Point:
    """The first network of a model, with a penalty on all its weights."""
    problem = LeastSquares(model, examples, labels)
    rows = problem.gather([parameter.detach() for parameter in model.parameters() if parameter.requires_grad])[:1]
    return Point(problem, rows, problem.residuals(rows), penalty * problem.weights[:1], problem.free[:1])


def dense_jacobian(point: Point) -> np.ndarray:
    """J, one backpropagation for each row."""
    row = point.rows[0].clone().requires_grad_()
    outputs = point.problem.outputs(row, point.problem.examples).flatten()
    rows = torch.stack([torch.autograd.grad(one, row, retain_graph=True)[0] for one in outputs])
    return (rows * point.free[0]).detach().numpy()


def dense_step(point: Point, damping: float, scale: np.ndarray | None = None) -> np.ndarray:
    """The step of the damped and penalised normal equations; pruned weights do not move."""
    jacobian, residuals, row = dense_jacobian(point), point.residuals[0].numpy(), point.rows[0].numpy()
    penalty, left = point.penalty[0].numpy() * len(residuals), point.free[0].numpy() > 0
    square = jacobian.T @ jacobian + np.diag(penalty)
    square += damping * np.diag(np.diag(square) if scale is None else scale)
    step = np.zeros_like(row)
    step[left] = np.linalg.solve(square[np.ix_(left, left)], (jacobian.T @ residuals + penalty * row)[left])
    return step


class ProductsTest(TestCase):
    """Products of J and J' with vectors."""

    examples, labels = random(30, 4, seed=1), random(30, 3, seed=2)

    def assert_products(self, model: Model, kind: type) -> None:
        point = point_of(model, self.examples, self.labels)
        jacobian, expected = jacobian_of(point.problem, point.rows[0], point.free[0]), dense_jacobian(point)
        self.assertIs(type(jacobian), kind)
        vector, errors = random(expected.shape[1], seed=3) * point.free[0], random(expected.shape[0], seed=4)
        np.testing.assert_allclose(jacobian.forward(vector).numpy(), expected @ vector.numpy(), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(jacobian.transposed(errors).numpy(), expected.T @ errors.numpy(), rtol=1e-10, atol=1e-12)
        if isinstance(jacobian, LayerJacobian):
            np.testing.assert_allclose(jacobian.squares.numpy(), (expected**2).sum(0), rtol=1e-10, atol=1e-12)

    def test_of_plain_networks(self):
        for name, act_fun in (("mlp_4_5_3", "gelu"), ("mlp_4_5_6_3", "leaky_relu"), ("mlp_4_5_6_2_3", "g")):
            with self.subTest(name):
                self.assert_products(plain(name, act_fun), LayerJacobian)

    def test_of_students(self):
        self.assert_products(network("students_mlp(2)_4_5_6_3", act_fun="tanh"), LayerJacobian)

    def test_of_pruned_networks(self):
        inner = plain("mlp_4_5_3")
        mask = {name: random(*value.shape, seed=9) > 0 for name, value in inner.named_parameters() if name.endswith("weight")}
        self.assert_products(PrunedModel(inner, Mask(mask)), LayerJacobian)

    def test_of_networks_with_frozen_layers(self):
        for layer in ("fc_layers.0.weight", "fc.weight"):
            model = plain("mlp_4_5_6_3")
            model.get_parameter(layer).requires_grad_(False)
            self.assert_products(model, LayerJacobian)

    def test_of_other_models(self):
        self.assert_products(ToyModel(4, 3).double(), AutogradJacobian)

    def test_in_parts_that_are_computed_again(self):
        with mock.patch.multiple("training.jacobian", KEPT_VALUES=1, PART_VALUES=100):
            self.assert_products(plain("mlp_4_5_6_3"), LayerJacobian)
            self.assert_products(ToyModel(4, 3).double(), AutogradJacobian)


class StepTest(TestCase):
    """Steps by conjugate gradients equal those of dense normal equations."""

    examples, labels = random(60, 4, seed=1), random(60, 3, seed=2)

    def assert_step(self, model: Model, damping: float = 1e-3, penalty: float = 0.0) -> None:
        point = point_of(model, self.examples, self.labels, penalty)
        step = IterativeSolver(point, InputFactors()).step(damping, 1e-12)
        np.testing.assert_allclose(step.vector.numpy(), dense_step(point, damping), rtol=1e-6, atol=1e-8)
        moved = point.residuals[0].numpy() - dense_jacobian(point) @ step.vector.numpy()
        there = (point.rows[0] - step.vector).square() @ point.penalty[0] * 180 + np.square(moved).sum()
        here = point.rows[0].square() @ point.penalty[0] * 180 + point.residuals.square().sum()
        self.assertAlmostEqual(step.decrease(1.0), float(here - there), places=8)

    def test_of_plain_networks(self):
        for name, act_fun in (("mlp_4_5_3", "gelu"), ("mlp_4_5_6_3", "tanh"), ("mlp_4_7_3", "relu")):
            with self.subTest(name):
                self.assert_step(plain(name, act_fun))

    def test_of_students(self):
        self.assert_step(network("students_mlp(2)_4_8_3", act_fun="tanh"))

    def test_with_a_penalty(self):
        self.assert_step(plain("mlp_4_5_3"), penalty=0.1)

    def test_of_pruned_networks(self):
        inner = plain("mlp_4_5_3")
        mask = {name: random(*value.shape, seed=9) > 0 for name, value in inner.named_parameters() if name.endswith("weight")}
        self.assert_step(PrunedModel(inner, Mask(mask)))

    def test_of_networks_with_frozen_tensors(self):
        for frozen in ("fc.bias", "fc_layers.0.weight"):
            with self.subTest(frozen):
                model = plain("mlp_4_5_3")
                model.get_parameter(frozen).requires_grad_(False)
                self.assert_step(model)

    def test_with_inputs_and_neurons_that_are_zero(self):
        self.examples = self.examples.clone()
        self.examples[:, 1] = 0
        model = plain("mlp_4_5_3", "relu")
        vectors = model.layer_vectors()
        vectors[0][2] = torch.tensor([0.0, 0.0, 0.0, 0.0, -1.0])
        model.load_layer_vectors(vectors)
        point = point_of(model, self.examples, self.labels)
        step = IterativeSolver(point, InputFactors()).step(1e-3, 1e-10).vector
        still = np.abs(dense_jacobian(point)).max(0) == 0
        self.assertEqual(int(still.sum()), 5 + 5 - 1 + 3)
        self.assertEqual(step[torch.from_numpy(still)].abs().max().item(), 0)
        self.assertTrue(bool(step.isfinite().all()))

    def test_of_other_models_are_damped_by_the_identity(self):
        model = ToyModel(4, 3).double()
        point = point_of(model, self.examples, self.labels)
        jacobian = dense_jacobian(point)
        gradient = jacobian.T @ point.residuals[0].numpy()
        probe = np.square(jacobian @ gradient).sum() / np.square(gradient).sum()
        step = IterativeSolver(point, InputFactors()).step(0.5, 1e-12).vector
        np.testing.assert_allclose(step.numpy(), dense_step(point, 0.5, np.full(len(step), probe)), rtol=1e-6, atol=1e-9)


class PreconditionerTest(TestCase):
    """What preconditioners know of J'J."""

    def test_kronecker_factors_are_exact_where_inputs_and_derivatives_are_independent(self):
        """Without hidden layers in front of it, all derivatives of the output layer are one."""
        model = plain("mlp_6_4_3", "identity")
        point = point_of(model, random(50, 6, seed=3), random(50, 3, seed=4))
        jacobian = jacobian_of(point.problem, point.rows[0], point.free[0])
        assert isinstance(jacobian, LayerJacobian)
        kronecker, dense, first = KroneckerFactors(jacobian, InputFactors(), 1), dense_jacobian(point), 4 * 7
        block = jacobian.join([torch.ones(4, 7).double(), torch.zeros(3, 5).double()]) > 0
        vector = random(len(block), seed=5) * block
        square = (dense.T @ dense)[np.ix_(block, block)]
        scale = np.diag(np.diag(square))
        expected = np.linalg.solve(square + 0.1 * scale, vector[block].numpy())
        self.assertEqual(int(block.sum()), first)
        np.testing.assert_allclose(kronecker.apply(vector, 0.1)[block].numpy(), expected, rtol=1e-8)

    def test_the_own_subspace_holds_the_schur_complement_of_the_output_layer(self):
        """With fewer inputs than neurons the subspace is the whole layer, which makes J'J exact."""
        model, examples = plain("mlp_3_5_2", "gelu"), random(200, 3, seed=3)
        point = point_of(model, examples, random(200, 2, seed=4))
        jacobian = jacobian_of(point.problem, point.rows[0], point.free[0])
        assert isinstance(jacobian, LayerJacobian)
        with mock.patch("training.preconditioning.SUBSPACE_ROWS", 1000):
            own = OwnSubspace(jacobian, 1e-6)
        dense = dense_jacobian(point)
        block = (jacobian.join([torch.ones(5, 4).double(), torch.zeros(2, 6).double()]) > 0).numpy()
        last = dense[:, ~block]
        left = dense[:, block] - last @ np.linalg.lstsq(last, dense[:, block], rcond=None)[0]
        vector = torch.from_numpy(left.T @ random(400, seed=6).numpy())
        whole = torch.zeros(len(block), dtype=torch.float64)
        whole[torch.from_numpy(block)] = vector
        found = own.apply(whole)[torch.from_numpy(block)].numpy()
        np.testing.assert_allclose(left.T @ left @ found, vector.numpy(), rtol=1e-3, atol=1e-4 * float(vector.abs().max()))

    def test_preconditioners_save_iterations(self):
        examples = random(1500, 40, seed=1) * torch.logspace(0, -2, 40)
        teacher = plain("mlp_40_8_3")
        labels = teacher(examples).detach()
        with torch.no_grad():
            for number, parameter in enumerate(teacher.parameters()):
                parameter += 0.01 * random(*parameter.shape, seed=number)
        point, counts = point_of(teacher, examples, labels), []
        for pays in (False, True):
            with mock.patch.object(OwnSubspace, "pays", return_value=pays):
                solver = IterativeSolver(point, InputFactors())
                solver.step(1e-10, 1e-5)
                counts.append(solver.iterations)
        self.assertLess(counts[1], counts[0] / 2)
        solution = linear_solvers.conjugate_gradients(
            lambda v: solver.jacobian.transposed(solver.jacobian.forward(v)), solver.gradient, 300, goal=linear_solvers.Goal(1e-5)
        )
        self.assertGreater(solution.iterations, 2 * counts[0])

    def test_the_factor_of_the_inputs_is_that_of_the_batch_in_any_order(self):
        factors, examples = InputFactors(), random(20, 3)
        one = factors.of(examples)
        self.assertIs(factors.of(examples[torch.arange(19, -1, -1)]), one)
        other = factors.of(examples[1:])
        moment = other.scale[:, None] * (other.vectors * other.values @ other.vectors.T) * other.scale
        inputs = np.column_stack([examples[1:].numpy(), np.ones(19)])
        np.testing.assert_allclose(moment.numpy(), inputs.T @ inputs / 19, rtol=1e-9, atol=1e-12)

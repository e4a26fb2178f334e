"""Levenberg-Marquardt, L-BFGS and conjugate gradients against numpy and scipy."""

import copy
from collections.abc import Callable
from unittest import mock

import numpy as np
import scipy.optimize
import torch
from torch.func import jvp

from datasets.base import DataLoader
from datasets.teacher_dataset import Dataset
from foundations.errors import ConfigError
from models.base import Model
from testing.test_case import TestCase
from testing.toy_model import ToyModel
from training import least_squares, second_order
from training.lbfgs import LBFGS, two_loop
from training.least_squares import LeastSquares
from training.linear_solvers import conjugate_gradients
from training.second_order import LevenbergMarquardt
from training.test.test_train import TrainTestCase, hparams, network, weights
from training.train import Objective, train


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def loss(model: Model, examples: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.no_grad():
        return (model(examples) - labels).square().mean().item()


def descend(
    model: Model, examples: torch.Tensor, labels: torch.Tensor, steps: int = 1, lr: float = 1.0, ridge: float = 0.0
) -> LevenbergMarquardt:
    """Takes at most `steps` full-batch steps, until the optimizer has converged."""
    optimizer = LevenbergMarquardt(model, lr, ridge)
    for _ in range(steps):
        optimizer.step(Objective(model, examples, labels))
        if optimizer.converged:
            break
    return optimizer


class LinearTest(TestCase):
    """A linear network gives a linear least-squares problem with a known solution."""

    examples, labels = random(40, 3, seed=1), random(40, 2, seed=2)

    def setUp(self):
        super().setUp()
        torch.manual_seed(0)
        self.model = ToyModel().double()
        design = np.column_stack([self.examples.numpy(), np.ones(40)])
        solution = np.linalg.lstsq(design, self.labels.numpy(), rcond=None)[0]
        self.solution = torch.from_numpy(np.concatenate([solution[:3].T.ravel(), solution[3]]))

    def test_one_step_solves_the_problem_up_to_the_damping(self):
        descend(self.model, self.examples, self.labels)
        torch.testing.assert_close(weights(self.model), self.solution, rtol=0, atol=1e-5)

    def test_a_few_steps_solve_the_problem_to_rounding_and_converge(self):
        optimizer = descend(self.model, self.examples, self.labels, steps=10)
        torch.testing.assert_close(weights(self.model), self.solution, rtol=0, atol=1e-8)
        self.assertTrue(optimizer.converged)

    def test_a_rate_of_one_half_halves_the_step(self):
        middle = (weights(self.model) + self.solution) / 2
        descend(self.model, self.examples, self.labels, lr=0.5)
        torch.testing.assert_close(weights(self.model), middle, rtol=0, atol=1e-5)

    def test_the_iterative_solver_solves_the_problem(self):
        with mock.patch.object(second_order, "DENSE_PARAMETERS", 0):
            descend(self.model, self.examples, self.labels, steps=20)
        torch.testing.assert_close(weights(self.model), self.solution, rtol=0, atol=1e-6)

    def ridge_solution(self) -> torch.Tensor:
        """The minimum of the mean squared error plus a penalty on the weights that is half of the error at the model's weights."""
        design, targets = np.column_stack([self.examples.numpy(), np.ones(40)]), self.labels.numpy()
        weight, bias = weights(self.model)[:6].view(2, 3).numpy(), weights(self.model)[6:].numpy()
        error = ((design @ np.vstack([weight.T, bias]) - targets) ** 2).mean()
        penalty = 80 * 0.5 * error / (weight**2).sum() * np.diag([1, 1, 1, 0])
        solution = np.linalg.solve(design.T @ design + penalty, design.T @ targets)
        return torch.from_numpy(np.concatenate([solution[:3].T.ravel(), solution[3]]))

    def test_a_step_with_a_ridge_solves_the_penalised_problem(self):
        wanted = self.ridge_solution()
        self.assertGreater(float((wanted - self.solution).abs().max()), 1e-3)
        descend(self.model, self.examples, self.labels, ridge=0.5)
        torch.testing.assert_close(weights(self.model), wanted, rtol=0, atol=1e-5)

    def test_a_step_returns_the_loss_before_the_step(self):
        before = loss(self.model, self.examples, self.labels)
        returned = LevenbergMarquardt(self.model).step(Objective(self.model, self.examples, self.labels))
        self.assertAlmostEqual(returned.item(), before, places=14)


class NetworkTest(TestCase):
    """A small network that starts near a teacher of the same shape."""

    examples = random(60, 3, seed=1)

    def setUp(self):
        super().setUp()
        self.teacher = network("mlp_3_4_2")
        self.labels = self.teacher(self.examples).detach()
        self.model = copy.deepcopy(self.teacher)
        with torch.no_grad():
            for number, parameter in enumerate(self.model.parameters()):
                parameter += 1e-2 * random(*parameter.shape, seed=number)

    def test_the_residual_falls_to_the_rounding_floor_and_the_weights_equal_the_teachers(self):
        optimizer = descend(self.model, self.examples, self.labels, steps=20)
        self.assertLess(loss(self.model, self.examples, self.labels), 1e-24)
        torch.testing.assert_close(weights(self.model), weights(self.teacher), rtol=0, atol=1e-11)
        self.assertTrue(optimizer.converged)

    def test_convergence_is_quadratic(self):
        losses = []
        for _ in range(4):
            losses.append(loss(self.model, self.examples, self.labels))
            descend(self.model, self.examples, self.labels)
        self.assertLess(losses[1], losses[0] * 1e-2)
        self.assertLess(losses[2], losses[1] * 1e-4)

    def test_at_the_solution_it_has_converged_and_changes_no_weight(self):
        optimizer = descend(self.teacher, self.examples, self.labels)
        self.assertTrue(optimizer.converged)
        torch.testing.assert_close(weights(self.teacher), weights(network("mlp_3_4_2")), rtol=0, atol=0)

    def test_away_from_the_solution_it_has_not_converged(self):
        self.assertFalse(descend(self.model, self.examples, self.labels).converged)

    def test_the_iterative_solver_reaches_the_solution(self):
        with mock.patch.object(second_order, "DENSE_PARAMETERS", 0):
            descend(self.model, self.examples, self.labels, steps=20)
        self.assertLess(loss(self.model, self.examples, self.labels), 1e-24)
        torch.testing.assert_close(weights(self.model), weights(self.teacher), rtol=0, atol=1e-10)

    def test_a_step_solves_the_damped_normal_equations(self):
        optimizer, step = LevenbergMarquardt(self.model), self.damped_steps()
        optimizer.param_groups[0]["damping"] = [0.3]
        optimizer.step(Objective(self.model, self.examples, self.labels))
        np.testing.assert_allclose(weights(self.model).numpy(), step(0.3), rtol=1e-9, atol=1e-11)

    def damped_steps(self) -> Callable[[float], np.ndarray]:
        """A function from the damping to the parameters after a step. Its Jacobian has one backpropagation for each row."""
        start = weights(self.model).numpy()
        residuals = (self.model(self.examples) - self.labels).flatten()
        rows = [torch.autograd.grad(one, list(self.model.parameters()), retain_graph=True) for one in residuals]
        jacobian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows]).numpy()
        curvature, gradient = jacobian.T @ jacobian, jacobian.T @ residuals.detach().numpy()
        return lambda damping: start - np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), gradient)

    def test_a_jacobian_in_pieces_gives_the_same_step(self):
        twin = copy.deepcopy(self.model)
        descend(self.model, self.examples, self.labels)
        with mock.patch.object(least_squares, "CHUNK_VALUES", 26 * 2 * 7):
            descend(twin, self.examples, self.labels)
        torch.testing.assert_close(weights(twin), weights(self.model), rtol=1e-9, atol=1e-12)

    def test_the_damping_falls_tenfold_after_a_step_that_lowers_the_loss(self):
        optimizer = LevenbergMarquardt(self.model)
        for power in range(3):
            self.assertAlmostEqual(optimizer.param_groups[0]["damping"][0], second_order.FIRST_DAMPING / 10**power, delta=1e-15)
            optimizer.step(Objective(self.model, self.examples, self.labels))

    def test_the_damping_rises_tenfold_until_a_step_lowers_the_loss(self):
        self.start_far_away()
        before, twin = loss(self.model, self.examples, self.labels), copy.deepcopy(self.model)
        step = self.damped_steps()
        optimizer = LevenbergMarquardt(self.model)
        optimizer.step(Objective(self.model, self.examples, self.labels))
        taken = 10 * optimizer.param_groups[0]["damping"][0]
        self.assertGreater(taken, 5 * second_order.FIRST_DAMPING)
        np.testing.assert_allclose(weights(self.model).numpy(), step(taken), rtol=1e-6)
        self.assertLess(loss(self.model, self.examples, self.labels), before)
        torch.nn.utils.vector_to_parameters(torch.from_numpy(step(taken / 10)), twin.parameters())
        self.assertGreater(loss(twin, self.examples, self.labels), before)

    def test_the_loss_never_rises(self):
        self.start_far_away()
        optimizer, losses = LevenbergMarquardt(self.model), []
        for _ in range(15):
            losses.append(loss(self.model, self.examples, self.labels))
            optimizer.step(Objective(self.model, self.examples, self.labels))
        self.assertTrue(all(after < before for before, after in zip(losses[:-1], losses[1:], strict=True)))

    def start_far_away(self):
        with torch.no_grad():
            for number, parameter in enumerate(self.model.parameters()):
                parameter.copy_(random(*parameter.shape, seed=number + 30))

    def test_frozen_parameters_do_not_change_and_the_others_are_solved_for(self):
        self.model.fc_layers.requires_grad_(False)
        frozen = self.model.fc_layers[0].weight.clone()
        descend(self.model, self.examples, self.labels, steps=10)
        hidden = np.tanh(self.examples.numpy() @ frozen.numpy().T + self.model.fc_layers[0].bias.numpy())
        solution = np.linalg.lstsq(np.column_stack([hidden, np.ones(60)]), self.labels.numpy(), rcond=None)[0]
        self.assertTrue(torch.equal(self.model.fc_layers[0].weight, frozen))
        np.testing.assert_allclose(self.model.fc.weight.detach().numpy().T, solution[:-1], atol=1e-8)
        np.testing.assert_allclose(self.model.fc.bias.detach().numpy(), solution[-1], atol=1e-8)

    def test_class_labels_are_refused(self):
        with self.assertRaisesRegex(
            ConfigError, "--optimizer_name: levenberg_marquardt minimises squared errors, not the loss of class labels"
        ):
            descend(self.model, self.examples, torch.zeros(60, dtype=torch.int64))


class AcceleratedTest(TestCase):
    """Steps that bend as the residuals do."""

    examples = random(60, 3, seed=1)

    def start(self, act_fun: str) -> tuple[Model, torch.Tensor]:
        """A network far from the teacher, and the teacher's answers."""
        model = network("mlp_3_4_2", act_fun=act_fun)
        labels = model(self.examples).detach()
        with torch.no_grad():
            for number, parameter in enumerate(model.parameters()):
                parameter += 0.5 * random(*parameter.shape, seed=number)
        return model, labels

    def test_a_step_has_the_bend_of_the_second_derivative_along_it(self):
        model, labels = self.start("identity")
        row, residuals = weights(model), (model(self.examples) - labels).flatten()
        problem = LeastSquares(model, self.examples, labels)

        def moved(share: torch.Tensor) -> torch.Tensor:
            return (problem.outputs(row + share * straight, self.examples) - labels).flatten()

        rows = [torch.autograd.grad(one, list(model.parameters()), retain_graph=True) for one in residuals]
        jacobian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
        square = jacobian.T @ jacobian
        damped = square + 10.0 * torch.diag(square.diagonal())
        straight = -torch.linalg.solve(damped, jacobian.T @ residuals.detach())
        zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
        second = jvp(lambda share: jvp(moved, (share,), (one,))[1], (zero,), (one,))[1]
        bend = -torch.linalg.solve(damped, jacobian.T @ second) / 2
        self.assertGreater(float(bend.norm()), 1e-3 * float(straight.norm()))
        optimizer = LevenbergMarquardt(model, accelerated=True)
        optimizer.param_groups[0]["damping"] = [10.0]
        optimizer.step(Objective(model, self.examples, labels))
        torch.testing.assert_close(weights(model), row + straight + bend, rtol=1e-9, atol=1e-11)
        self.assertEqual(optimizer.param_groups[0]["damping"], [10.0 / second_order.FALL])

    def test_the_loss_falls_to_the_rounding_floor_and_never_rises(self):
        model, labels = self.start("tanh")
        optimizer, losses = LevenbergMarquardt(model, accelerated=True), []
        while not optimizer.converged and len(losses) < 300:
            losses.append(float(optimizer.step(Objective(model, self.examples, labels))))
        self.assertTrue(optimizer.converged)
        self.assertEqual(losses, sorted(losses, reverse=True))
        self.assertLess(loss(model, self.examples, labels), 1e-24)

    def test_steps_of_a_stack_equal_those_of_single_students(self):
        students = network("students_mlp(3)_3_6_2", act_fun="tanh").double()
        labels = self.start("tanh")[1]
        alone = [students.select(i).double() for i in range(3)]
        for model in [students, *alone]:
            optimizer = LevenbergMarquardt(model, accelerated=True)
            for _ in range(4):
                optimizer.step(Objective(model, self.examples, labels))
        for i, student in enumerate(alone):
            torch.testing.assert_close(weights(students.select(i)), weights(student), rtol=1e-6, atol=1e-9)


class StackTest(TrainTestCase):
    """Steps of a stack equal those of its students alone."""

    def setUp(self):
        super().setUp()
        self.examples = random(80, 3, seed=1)
        self.labels = network("mlp_3_4_2", act_fun="tanh")(self.examples).detach()
        self.students = network("students_mlp(3)_3_6_2", act_fun="tanh")

    def alone(self, steps: int) -> list[Model]:
        students = [self.students.select(i) for i in range(3)]
        for student in students:
            descend(student, self.examples, self.labels, steps)
        return students

    def test_steps_of_a_stack_equal_those_of_single_students(self):
        alone = self.alone(steps=6)
        optimizer = descend(self.students, self.examples, self.labels, steps=6)
        for i, student in enumerate(alone):
            for ours, theirs in zip(self.students.select(i).parameters(), student.parameters(), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
        self.assertGreater(len(set(optimizer.param_groups[0]["damping"])), 1)  # students have different dampings

    def test_a_student_at_the_solution_does_not_change_while_others_train(self):
        with torch.no_grad():
            for parameter, solution in zip(self.students.parameters(), self.solution().parameters(), strict=True):
                parameter[1] = solution[0]
        before = [parameter.clone() for parameter in self.students.parameters()]
        optimizer = descend(self.students, self.examples, self.labels)
        for parameter, start in zip(self.students.parameters(), before, strict=True):
            self.assertTrue(torch.equal(parameter[1], start[1]))
            self.assertFalse(torch.equal(parameter[0], start[0]))
        self.assertFalse(optimizer.converged)

    def solution(self) -> Model:
        """A student equal to the teacher, with additional dead neurons."""
        teacher, student = network("mlp_3_4_2", act_fun="tanh"), network("students_mlp(1)_3_6_2", act_fun="tanh")
        with torch.no_grad():
            student.fc.weight.zero_()
            student.fc_layers[0].weight[0, :, :4], student.fc_layers[0].bias[0, 0, :4] = (
                teacher.fc_layers[0].weight.T,
                teacher.fc_layers[0].bias,
            )
            student.fc.weight[0, :4], student.fc.bias[0, 0] = teacher.fc.weight.T, teacher.fc.bias
        return student


class StopTest(TrainTestCase):
    def test_training_stops_when_the_optimizer_has_converged(self):
        examples = random(60, 3, seed=1)
        loader = DataLoader(Dataset(examples, network("mlp_3_4_2")(examples).detach()), 60, dtype=torch.float64)
        model = network("mlp_3_4_2")
        with torch.no_grad():
            model.fc.weight += 1e-2
        end = train(hparams("500ep", "levenberg_marquardt", 1.0), model, loader, self.folder())
        self.assertTrue(end.last)
        self.assertLess(end.iteration, 20)
        self.assertLess(loss(model, loader.examples, loader.labels), 1e-24)


class LBFGSTest(TrainTestCase):
    """L-BFGS on convex problems, whose minimum other solvers give."""

    examples, labels, classes = random(40, 3, seed=1), random(40, 2, seed=2), torch.arange(40) % 2

    def minimise(self, model: Model, labels: torch.Tensor, steps: int = 200) -> list[float]:
        """Takes full-batch steps until the optimizer has converged; returns the losses before the steps."""
        optimizer, losses = LBFGS(model), []
        while not optimizer.converged and len(losses) < steps:
            losses.append(optimizer.step(Objective(model, self.examples, labels)).item())
        self.assertTrue(optimizer.converged)
        return losses

    def test_lbfgs_reaches_the_least_squares_solution(self):
        model = ToyModel().double()
        self.minimise(model, self.labels)
        design = np.column_stack([self.examples.numpy(), np.ones(40)])
        solution = np.linalg.lstsq(design, self.labels.numpy(), rcond=None)[0]
        np.testing.assert_allclose(model.fc.weight.detach().numpy(), solution[:3].T, atol=1e-6)
        np.testing.assert_allclose(model.fc.bias.detach().numpy(), solution[3], atol=1e-6)

    def test_lbfgs_reaches_the_same_cross_entropy_minimum_as_scipy(self):
        losses = self.minimise(ToyModel().double(), self.classes)

        def cross_entropy(flat):
            logits = self.examples.numpy() @ flat[:6].reshape(3, 2) + flat[6:]
            return np.mean(np.logaddexp(logits[:, 0], logits[:, 1]) - logits[np.arange(40), self.classes.numpy()])

        self.assertAlmostEqual(losses[-1], scipy.optimize.minimize(cross_entropy, np.zeros(8), tol=1e-10).fun, places=9)

    def test_the_loss_never_rises(self):
        model = network("mlp_3_4_2")
        optimizer, losses = LBFGS(model), []
        for _ in range(50):
            losses.append(optimizer.step(Objective(model, self.examples, self.labels)).item())
        self.assertTrue(all(after <= before for before, after in zip(losses[:-1], losses[1:], strict=True)))
        self.assertLess(losses[-1], losses[0] / 2)

    def test_the_first_step_follows_the_negative_gradient(self):
        model = network("mlp_3_4_2")
        before = weights(model)
        Objective(model, self.examples, self.labels)()
        gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        LBFGS(model).step(Objective(model, self.examples, self.labels))
        moved = weights(model) - before
        self.assertAlmostEqual((moved @ gradient / moved.norm() / gradient.norm()).item(), -1, places=12)

    def test_the_direction_equals_that_of_the_full_bfgs_matrix(self):
        networks, parameters, pairs = 3, 5, 4
        gradients, steps = random(networks, parameters, seed=1), random(pairs, networks, parameters, seed=2)
        roots = random(networks, parameters, parameters, seed=3)
        changes = torch.einsum("nij,nkj,pnk->pni", roots, roots, steps)
        steps[1, 0], changes[1, 0] = 0, 0  # the first network leaves out a pair
        steps[:, 2], changes[:, 2] = 0, 0  # the last network has no history
        directions = two_loop(gradients, list(steps), list(changes))
        for i in range(networks):
            history = [(s, y) for s, y in zip(steps[:, i].numpy(), changes[:, i].numpy(), strict=True) if y.any()]
            expected = -inverse_curvature(history, parameters) @ gradients[i].numpy()
            np.testing.assert_allclose(directions[i].numpy(), expected, rtol=1e-9, atol=1e-11)


def inverse_curvature(history: list[tuple[np.ndarray, np.ndarray]], parameters: int) -> np.ndarray:
    """The BFGS approximation of the inverse Hessian, as a matrix (Nocedal & Wright, equations 6.17 and 7.20)."""
    inverse = np.eye(parameters)
    if history:
        step, change = history[-1]
        inverse *= (step @ change) / (change @ change)
    for step, change in history:
        rate = 1 / (change @ step)
        left = np.eye(parameters) - rate * np.outer(step, change)
        inverse = left @ inverse @ left.T + rate * np.outer(step, step)
    return inverse


class ConjugateGradientsTest(TestCase):
    def setUp(self):
        super().setUp()
        root = random(30, 20, seed=4)
        self.matrix, self.right = root.T @ root + torch.eye(20, dtype=torch.float64), random(20, seed=5)
        self.products = 0

    def solve(self, right: torch.Tensor, iterations: int) -> torch.Tensor:
        def product(vector):
            self.products += 1
            return self.matrix @ vector

        return conjugate_gradients(product, right, iterations).vector

    def test_the_solution_equals_that_of_numpy(self):
        expected = np.linalg.solve(self.matrix.numpy(), self.right.numpy())
        np.testing.assert_allclose(self.solve(self.right, 100).numpy(), expected, rtol=1e-11, atol=1e-13)

    def test_iterations_stop_when_the_residual_is_at_rounding_level(self):
        self.solve(self.right, 1000)
        self.assertLess(self.products, 60)

    def test_the_number_of_products_is_limited(self):
        self.solve(self.right, 3)
        self.assertEqual(self.products, 3)

    def test_one_iteration_is_steepest_descent(self):
        step = (self.right @ self.right) / (self.right @ self.matrix @ self.right) * self.right
        torch.testing.assert_close(self.solve(self.right, 1), step, rtol=1e-13, atol=0)

    def test_a_right_hand_side_of_zero_gives_zero(self):
        self.assertEqual(self.solve(torch.zeros(20, dtype=torch.float64), 10).abs().max().item(), 0)

    def test_the_right_hand_side_is_not_changed(self):
        before = self.right.clone()
        self.solve(self.right, 10)
        self.assertTrue(torch.equal(self.right, before))

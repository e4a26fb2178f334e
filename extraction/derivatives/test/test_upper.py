"""What is behind a first layer, by students."""

import unittest
from unittest import mock

import torch

from extraction.derivatives import upper
from extraction.derivatives.differences import Scale
from extraction.derivatives.result import Lacking
from extraction.derivatives.test import known
from extraction.derivatives.upper import Problem, Students, _State, minimal, train
from extraction.network import Layers


def students(count: int = 2, act_fun: str = "tanh") -> Students:
    """Random students with 3 first neurons, 4 and 2 behind them, and 2 outputs."""
    upper = (known.normal(count, 4, 4), known.normal(count, 2, 5, seed=1), known.normal(count, 2, 3, seed=2))
    return Students(1 + 0.1 * known.normal(count, 3, 2, seed=3), upper, act_fun)


class TestStudents(unittest.TestCase):
    def test_a_student_is_a_network_of_the_first_weighted_sums(self):
        problem = Problem(known.normal(9, 3, seed=4), known.normal(9, 2, seed=5))
        state = _State.of(problem, students())
        for number in range(2):
            outputs = state.students.layers(number).pre_activations(problem.queries)
            torch.testing.assert_close(state.residuals[number], (outputs - problem.answers) / problem.answers.std(0))

    def test_the_jacobian_is_that_of_differences(self):
        problem = Problem(known.normal(5, 3, seed=4), known.normal(5, 2, seed=5))
        state = _State.of(problem, students())
        unknowns = state.jacobian.shape[2] - state.students.upper[-1][0].numel()
        for place in range(0, unknowns, 7):
            step = torch.zeros(2, unknowns, dtype=torch.float64)
            step[:, place] = 1e-6
            ends = [_State.of(problem, students().moved(sign * step)).residuals for sign in (-1, 1)]
            expected = (ends[0] - ends[1]) / 2e-6 / problem.scales
            torch.testing.assert_close(state.jacobian[:, :, place], expected.flatten(1), rtol=1e-6, atol=1e-6)

    def test_steps_are_taken_in_what_the_output_layer_cannot_compensate(self):
        problem = Problem(known.normal(30, 3, seed=4), known.normal(30, 2, seed=5))
        state = _State.fitted(problem, students())
        features = state.inputs[-1]
        torch.testing.assert_close(features.mT @ state.residuals, torch.zeros(2, 3, 2, dtype=torch.float64), rtol=0, atol=1e-10)
        columns = state.projected.unflatten(1, (30, 2))
        self.assertLess(float(torch.einsum("nqk,nqop->nkop", features, columns).abs().max()), 1e-10)
        left = state.jacobian[:, :, :-6].unflatten(1, (30, 2)) - columns  # is a mixture of the features
        mixtures = torch.linalg.lstsq(features, left.flatten(2)).solution
        torch.testing.assert_close(features @ mixtures, left.flatten(2))

    def test_students_near_the_solution_come_to_it_and_lose_what_they_do_not_need(self):
        queries, true = known.normal(200, 3, seed=4), students(1)
        problem = Problem(queries, true.layers(0).pre_activations(queries))
        wide = Students(true.first, (torch.cat([true.upper[0], known.normal(1, 1, 4, seed=6)], 1), true.upper[1], true.upper[2]), "tanh")
        second = torch.cat([true.upper[1][:, :, :-1], torch.zeros(1, 2, 1, dtype=torch.float64), true.upper[1][:, :, -1:]], 2)
        wide = Students(wide.first, (wide.upper[0], second, true.upper[2]), "tanh")
        moved = wide.moved(0.01 * known.normal(1, sum(each[0].numel() for each in (wide.first, *wide.upper[:-1])), seed=7))
        found, losses = train(problem, moved, 60, 1e-22)
        self.assertLess(float(losses[0]), 1e-20)
        self.assertEqual(minimal(problem, found, float(losses[0]))[0].layers(0).sizes, [3, 3, 4, 2, 2])


class TestRecover(unittest.TestCase):
    scale = Scale(1.0, torch.ones(1, dtype=torch.float64), torch.full((1,), 1e-16, dtype=torch.float64))

    def test_a_first_layer_that_is_nearly_known_is_enough(self):
        network = Layers((known.normal(2, 6), known.normal(3, 3, seed=1), known.normal(1, 4, seed=2)), "tanh")
        nearly = network.vectors[0].clone()
        nearly[:, -1] += 0.01
        with mock.patch.multiple(upper, WIDTHS=((4,),), HEATS=((12, 60), (4, 300))):
            found = upper.recover(known.asked(network), self.scale, nearly, "tanh")
        queries = known.normal(50, 5, seed=3)
        self.assertEqual(found.sizes, network.sizes)
        torch.testing.assert_close(found.pre_activations(queries), network.pre_activations(queries), rtol=0, atol=1e-10)

    def test_too_many_unknowns_are_said(self):
        network = known.layers((40, 40, 40, 1), "tanh")
        with self.assertRaisesRegex(Lacking, "over 400 unknowns"):
            upper.recover(known.asked(network), self.scale, network.vectors[0], "tanh")

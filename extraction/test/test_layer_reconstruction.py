"""A layer is recovered from neurons whose truth is known."""

import unittest

import numpy as np
import torch

from extraction.layer_reconstruction import Neurons, fit_outputs, is_surplus, necessary, recover, resolve_signs, with_ones
from extraction.symmetry import symmetries
from models.activation_functions import activation_functions


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def students_of(truth, outgoing, copies=2, surplus=3, students=6, noise=1e-4, seed=0):
    """Students that hold every neuron of the truth `copies` times, sharing its outgoing vector, and surplus neurons without effect."""
    incoming, outputs = [], []
    for student in range(students):
        draw = lambda *shape, k=student: random(*shape, seed=100 * seed + k)  # noqa: E731
        vectors = truth.repeat(copies, 1) + noise * draw(copies * len(truth), truth.shape[1])
        incoming.append(torch.cat([vectors, draw(surplus, truth.shape[1])]))
        outputs.append(torch.cat([outgoing.repeat(copies, 1) / copies, 1e-7 * draw(surplus, outgoing.shape[1])]))
    incoming, outputs = torch.stack(incoming), torch.stack(outputs)
    return Neurons(incoming, outputs, outputs.norm(dim=2), torch.full((students,), 1e-10, dtype=torch.float64))


class TestRecover(unittest.TestCase):
    def setUp(self):
        self.truth, self.outgoing = random(5, 9, seed=1), random(5, 3, seed=2)

    def test_finds_every_neuron_once_in_the_scale_of_the_best_student(self):
        for act_fun in ("tanh", "relu", "g"):
            with self.subTest(act_fun):
                found = recover(students_of(self.truth, self.outgoing), symmetries[act_fun], 0.7, 6).incoming
                gaps = torch.cdist(self.truth, found)
                self.assertEqual(found.shape, self.truth.shape)
                self.assertEqual(sorted(gaps.argmin(1).tolist()), list(range(5)))
                self.assertLess(gaps.amin(1).max().item(), 1e-2)

    def test_takes_the_student_with_the_lowest_loss(self):
        neurons = students_of(self.truth, self.outgoing, copies=1)
        neurons.losses[3] = 1e-12
        found = recover(neurons, symmetries["tanh"], 0.7, 6).incoming
        torch.testing.assert_close(torch.cdist(found, neurons.incoming[3][:5]).amin(1), torch.zeros(5, dtype=torch.float64))

    def test_copies_are_averaged_by_contribution(self):
        neurons = students_of(self.truth, self.outgoing, copies=2, surplus=0, noise=0.0)
        off = 0.02 * random(6, 5, 9, seed=3)
        neurons.incoming[:, :5] += 3 * off
        neurons.incoming[:, 5:] -= off
        neurons.outgoing[:, :5] *= 0.5
        neurons.outgoing[:, 5:] *= 1.5
        weighted = Neurons(neurons.incoming, neurons.outgoing, neurons.outgoing.norm(dim=2), neurons.losses)
        found = recover(weighted, symmetries["tanh"], 0.7, 6).incoming
        self.assertLess(torch.cdist(self.truth, found).amin(1).max().item(), 1e-12)

    def test_is_none_where_students_share_nothing(self):
        neurons = Neurons(random(6, 4, 9), random(6, 4, 3), torch.ones(6, 4), torch.full((6,), 1e-9))
        self.assertIsNone(recover(neurons, symmetries["g"], 1.0, 12))

    def test_surplus_neurons_are_those_below_the_residual_and_nothing_large(self):
        neurons = Neurons(random(1, 4, 3), random(1, 4, 1), torch.tensor([[1.0, 0.5, 1e-3, 0.2]]), torch.tensor([1e-6]))
        self.assertEqual(is_surplus(neurons).tolist(), [[False, False, True, False]])
        poor = Neurons(neurons.incoming, neurons.outgoing, neurons.contribution, torch.tensor([1.0]))
        self.assertEqual(is_surplus(poor).tolist(), [[False, False, True, False]])


class TestResolveSigns(unittest.TestCase):
    def test_turns_exactly_the_neurons_that_were_turned(self):
        queries, truth, outgoing = random(800, 6), random(5, 7, seed=1), random(5, 3, seed=2)
        turned = torch.tensor([1.0, -1, -1, 1, -1], dtype=torch.float64)[:, None]
        for act_fun in ("relu", "leaky_relu", "softplus", "gelu", "silu"):
            with self.subTest(act_fun):
                s = activation_functions[act_fun]
                answers = s(with_ones(queries) @ truth.T) @ outgoing + 0.3
                found, fractions = resolve_signs(turned * truth, s, symmetries[act_fun], queries, answers)
                torch.testing.assert_close(found, truth)
                torch.testing.assert_close(fractions, (turned[:, 0] < 0).double(), rtol=0, atol=1e-6)

    def test_leaves_free_signs_alone(self):
        vectors = random(4, 3)
        found, _ = resolve_signs(vectors, torch.tanh, symmetries["tanh"], random(10, 2), random(10, 1))
        self.assertTrue(torch.equal(found, vectors))


class TestNetwork(unittest.TestCase):
    def test_fit_outputs_equals_numpy(self):
        features, answers = random(50, 4), random(50, 2, seed=1)
        expected = np.linalg.lstsq(np.c_[features.numpy(), np.ones(50)], answers.numpy(), rcond=None)[0]
        np.testing.assert_allclose(fit_outputs(features, answers).numpy(), expected)

    def test_dead_neurons_and_twins_are_not_necessary(self):
        base = random(3, 4)
        vectors = torch.cat([base, 2 * base[:1], -base[1:2], random(1, 4, seed=5)])
        contribution = torch.tensor([1.0, 1, 1, 1, 1, 1e-9], dtype=torch.float64)
        expected = {
            "relu": [True, True, True, False, True, False],
            "tanh": [True, True, True, True, False, False],
            "g": [True, True, True, True, True, False],
        }
        for act_fun, kept in expected.items():
            with self.subTest(act_fun):
                self.assertEqual(necessary(vectors, contribution, symmetries[act_fun]).tolist(), kept)

    def test_the_twin_of_a_dead_neuron_is_kept(self):
        vectors = random(2, 4)[[0, 0, 1]]
        contribution = torch.tensor([1e-9, 1.0, 1.0], dtype=torch.float64)
        self.assertEqual(necessary(vectors, contribution, symmetries["g"]).tolist(), [False, True, True])


if __name__ == "__main__":
    unittest.main()

"""A layer is recovered from neurons whose truth is known."""

import unittest

import numpy as np
import torch

from extraction.layer_reconstruction import (
    Neurons,
    fit_outputs,
    is_surplus,
    merge,
    over_standardised,
    recover,
    resolve_signs,
    settle_signs,
    signless,
    standardisation,
    unstandardised,
    with_ones,
    without,
)
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
    return Neurons(incoming, outputs.norm(dim=2), torch.full((students,), 1e-5, dtype=torch.float64))


class TestStandardisation(unittest.TestCase):
    def test_vectors_over_standardised_inputs_give_the_same_pre_activations(self):
        inputs, incoming = 3 * random(50, 4, seed=1) + 7, random(6, 5, seed=2)
        mean, spread = standardisation(inputs)
        standard = (inputs - mean) / spread
        np.testing.assert_allclose(standard.mean(0), np.zeros(4), atol=1e-12)
        np.testing.assert_allclose(standard.std(0), np.ones(4))
        expected = with_ones(standard) @ incoming.T
        torch.testing.assert_close(with_ones(inputs) @ unstandardised(incoming, mean, spread).T, expected)
        stack = incoming.expand(3, -1, -1)
        torch.testing.assert_close(over_standardised(unstandardised(stack, mean, spread), mean, spread), stack)

    def test_a_constant_column_keeps_its_scale(self):
        inputs = random(50, 2, seed=1)
        inputs[:, 1] = 4.0
        mean, spread = standardisation(inputs)
        self.assertEqual((mean[1].item(), spread[1].item()), (4.0, 1.0))


class TestWithout(unittest.TestCase):
    activations, following = random(100, 4, seed=1), random(3, 5, seed=2)

    def test_it_is_the_least_squares_fit_of_the_others(self):
        found, lost = without(self.activations, self.following, 1)
        others = np.column_stack([np.delete(self.activations.numpy(), 1, axis=1), np.ones(100)])
        wanted = (with_ones(self.activations) @ self.following.T).numpy()
        solution = np.linalg.lstsq(others, wanted, rcond=None)[0]
        np.testing.assert_allclose(found.numpy(), solution.T)
        share = np.sqrt(np.mean((others @ solution - wanted) ** 2)) / np.sqrt(np.mean((wanted - wanted.mean(0)) ** 2))
        self.assertAlmostEqual(lost, share, places=12)

    def test_nothing_is_lost_with_a_neuron_that_the_others_make_up(self):
        activations = self.activations.clone()
        activations[:, 2] = 2 * activations[:, 0] - activations[:, 3] + 1
        found, lost = without(activations, self.following, 2)
        self.assertLess(lost, 1e-14)
        kept = with_ones(activations[:, [0, 1, 3]])
        torch.testing.assert_close(kept @ found.T, with_ones(activations) @ self.following.T)


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

    def test_students_much_worse_than_the_best_two_have_no_say(self):
        neurons = students_of(self.truth, self.outgoing)
        others = students_of(random(5, 9, seed=8), self.outgoing)
        neurons.incoming[2:] = others.incoming[2:]
        self.assertGreater(self.gaps(recover(neurons, symmetries["tanh"], 0.5, 6)).min().item(), 0.1)
        neurons.residual[:2] = 1e-14
        found = recover(neurons, symmetries["tanh"], 0.5, 6)
        self.assertEqual(len(found.incoming), 5)
        self.assertLess(self.gaps(found).max().item(), 1e-2)
        self.assertEqual(set(found.clustering.student.tolist()), {0, 1})

    def gaps(self, found):
        return torch.cdist(self.truth, found.incoming).amin(1)

    def test_a_cluster_needs_two_students_however_few_have_a_say(self):
        neurons = students_of(self.truth, self.outgoing, copies=1, surplus=3)
        neurons.residual[:2] = 1e-14
        neurons.contribution[:, 5:] = 1.0
        self.assertEqual(len(recover(neurons, symmetries["tanh"], 0.34, 6).incoming), 5)

    def test_uninformative_inputs_do_not_count(self):
        neurons = students_of(self.truth, self.outgoing)
        neurons.incoming[:, :, 2] = 10 * random(6, 13, seed=4)
        informative = torch.arange(8) != 2
        found = recover(neurons, symmetries["tanh"], 0.7, 6, informative=informative)
        self.assertEqual(len(found.incoming), 5)
        seen = torch.arange(9) != 2
        self.assertLess(torch.cdist(self.truth[:, seen], found.incoming[:, seen]).amin(1).max().item(), 1e-2)
        self.assertEqual(found.incoming.shape[1], 9)
        without_mask = recover(neurons, symmetries["tanh"], 0.7, 6)
        self.assertTrue(without_mask is None or len(without_mask.incoming) != 5)

    def test_what_contributes_little_is_recovered_in_doubt_only(self):
        neurons = students_of(self.truth, self.outgoing, copies=1, surplus=0)
        neurons.contribution[:, 4] = 5 * neurons.residual[0]
        self.assertEqual(len(recover(neurons, symmetries["tanh"], 0.7, 6).incoming), 4)
        found = recover(neurons, symmetries["tanh"], 0.7, 6, doubtful=0.5)
        self.assertLess(self.gaps(found).max().item(), 1e-2)

    def test_takes_the_student_with_the_lowest_loss(self):
        neurons = students_of(self.truth, self.outgoing, copies=1)
        neurons.residual[3] = 1e-6
        found = recover(neurons, symmetries["tanh"], 0.7, 6).incoming
        torch.testing.assert_close(torch.cdist(found, neurons.incoming[3][:5]).amin(1), torch.zeros(5, dtype=torch.float64))

    def test_copies_are_averaged_by_contribution(self):
        neurons = students_of(self.truth, self.outgoing, copies=2, surplus=0, noise=0.0)
        off = 0.02 * random(6, 5, 9, seed=3)
        neurons.incoming[:, :5] += 3 * off
        neurons.incoming[:, 5:] -= off
        neurons.contribution[:, :5] *= 0.5
        neurons.contribution[:, 5:] *= 1.5
        found = recover(neurons, symmetries["tanh"], 0.7, 6).incoming
        self.assertLess(torch.cdist(self.truth, found).amin(1).max().item(), 1e-12)

    def test_is_none_where_students_share_nothing(self):
        neurons = Neurons(random(6, 4, 9), torch.ones(6, 4), torch.full((6,), 1e-5))
        self.assertIsNone(recover(neurons, symmetries["g"], 1.0, 12))

    def test_surplus_neurons_are_those_below_the_residual_and_nothing_large(self):
        contribution = torch.tensor([[1.0, 0.5, 1e-3, 0.2]])
        for residual in (1e-3, 1.0):
            with self.subTest(residual=residual):
                neurons = Neurons(random(1, 4, 3), contribution, torch.tensor([residual]))
                self.assertEqual(is_surplus(neurons).tolist(), [[False, False, True, False]])


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


class TestSettleSigns(unittest.TestCase):
    def test_the_next_layer_tells_which_sign_it_is_built_on(self):
        inputs, truth, following = random(50, 6), random(5, 7, seed=1), random(4, 6, seed=2)
        wrong = torch.tensor([False, True, True, False, True])
        held = torch.where(wrong[:, None], -truth, truth)
        for act_fun in ("relu", "softplus", "gelu"):
            with self.subTest(act_fun):
                s, symmetry = activation_functions[act_fun], symmetries[act_fun]
                pre_activations = with_ones(inputs) @ held.T
                features = signless(s, symmetry, pre_activations)
                wanted = with_ones(s(with_ones(inputs) @ truth.T)) @ following.T
                over_both = fit_outputs(features, wanted).T  # there is one that gives it exactly
                torch.testing.assert_close(with_ones(features) @ over_both.T, wanted)
                over_both[1] *= -1  # the sign of what the next layer holds is open as well
                noisy = over_both + 1e-5 * random(4, 11, seed=3)
                vectors, settled = settle_signs(held, noisy, features.std(0), symmetry)
                torch.testing.assert_close(vectors, truth)
                settled[1] *= -1
                torch.testing.assert_close(settled, following, rtol=0, atol=1e-4)

    def test_the_part_that_varies_more_says_more(self):
        held, even, linear = random(1, 3), torch.tensor([[2.0]]).double(), torch.tensor([[1.5]]).double()
        following = torch.cat([even, linear, torch.zeros(1, 1)], 1).double()
        for spread, expected in (([1.0, 0.0], 2.0), ([0.0, 1.0], 3.0), ([1.0, 2.0], 2.5)):
            _, settled = settle_signs(held, following, torch.tensor(spread).double(), symmetries["softplus"])
            self.assertAlmostEqual(settled[0, 0].item(), expected)

    def test_the_even_part_is_even(self):
        pre_activations = random(20, 3)
        for act_fun in ("relu", "leaky_relu", "softplus", "gelu", "silu"):
            s, symmetry = activation_functions[act_fun], symmetries[act_fun]
            straight, turned = (signless(s, symmetry, sign * pre_activations)[:, :3] for sign in (1, -1))
            torch.testing.assert_close(straight, turned)

    def test_free_signs_need_no_second_activation(self):
        pre_activations = random(20, 3)
        self.assertTrue(torch.equal(signless(torch.tanh, symmetries["tanh"], pre_activations), torch.tanh(pre_activations)))
        vectors, following = random(3, 4), random(2, 4, seed=1)
        for act_fun in ("tanh", "relu"):
            self.assertEqual(settle_signs(vectors, following, torch.ones(3), symmetries[act_fun]), (vectors, following))


class TestNetwork(unittest.TestCase):
    def test_fit_outputs_equals_numpy(self):
        features, answers = random(50, 4), random(50, 2, seed=1)
        expected = np.linalg.lstsq(np.c_[features.numpy(), np.ones(50)], answers.numpy(), rcond=None)[0]
        np.testing.assert_allclose(fit_outputs(features, answers).numpy(), expected)

    def test_twins_are_merged_without_a_change_to_the_function(self):
        inputs, base, following = random(40, 3), random(3, 4), random(2, 7, seed=1)
        contribution = torch.ones(6, dtype=torch.float64)
        for act_fun, others in {"relu": (2.0, 0.5), "tanh": (-1.0, 1.0), "sigmoid": (-1.0, 1.0), "g": (1.0, 1.0)}.items():
            with self.subTest(act_fun):
                s = activation_functions[act_fun]
                vectors = torch.cat([base, others[0] * base[:1], others[1] * base[1:2], others[0] * base[:1]])
                kept, taken = merge(vectors, following, contribution, symmetries[act_fun])
                self.assertTrue(torch.equal(kept, base))
                before = with_ones(s(with_ones(inputs) @ vectors.T)) @ following.T
                torch.testing.assert_close(with_ones(s(with_ones(inputs) @ kept.T)) @ taken.T, before)

    def test_opposites_are_no_twins_where_a_sign_matters(self):
        base, contribution = random(2, 4), torch.ones(3, dtype=torch.float64)
        vectors = torch.cat([base, -base[:1]])
        for act_fun in ("relu", "softplus", "g"):
            self.assertIsNone(merge(vectors, random(2, 4, seed=1), contribution, symmetries[act_fun]))

    def test_dead_neurons_go_and_their_twins_stay(self):
        vectors = random(2, 4)[[0, 0, 1]]
        contribution = torch.tensor([1e-9, 1.0, 1.0], dtype=torch.float64)
        kept, following = merge(vectors, random(2, 4, seed=1), contribution, symmetries["g"])
        self.assertTrue(torch.equal(kept, vectors[1:]))
        self.assertTrue(torch.equal(following, random(2, 4, seed=1)[:, 1:]))


if __name__ == "__main__":
    unittest.main()

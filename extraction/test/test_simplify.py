"""Superfluous neurons are removed, on known layers."""

import unittest

import numpy as np
import torch

from extraction.network import Layers
from extraction.simplify import least_losses_without, merge, merged_where_equally_active, refit_without_neuron, simplified
from extraction.symmetry import symmetries
from extraction.test.known_networks import network, queries
from extraction.test.test_recovery import random
from foundations.model_hparams import ModelHparams
from models.activation_functions import activation_functions
from models.mlp import with_ones


class TestRefit(unittest.TestCase):
    activations, following = random(100, 4, seed=1), random(3, 5, seed=2)

    def test_refit_without_neuron_is_the_least_squares_fit_of_the_others(self):
        found, lost = refit_without_neuron(self.activations, self.following, 1)
        others = np.column_stack([np.delete(self.activations.numpy(), 1, axis=1), np.ones(100)])
        wanted = (with_ones(self.activations) @ self.following.T).numpy()
        solution = np.linalg.lstsq(others, wanted, rcond=None)[0]
        np.testing.assert_allclose(found.numpy(), solution.T)
        share = np.sqrt(np.mean((others @ solution - wanted) ** 2)) / np.sqrt(np.mean((wanted - wanted.mean(0)) ** 2))
        self.assertAlmostEqual(lost, share, places=12)

    def test_a_linearly_dependent_neuron_is_removed_without_loss(self):
        activations = self.activations.clone()
        activations[:, 2] = 2 * activations[:, 0] - activations[:, 3] + 1
        found, lost = refit_without_neuron(activations, self.following, 2)
        self.assertLess(lost, 1e-14)
        kept = with_ones(activations[:, [0, 1, 3]])
        torch.testing.assert_close(kept @ found.T, with_ones(activations) @ self.following.T)


class TestLeastLossesWithout(unittest.TestCase):
    def test_they_are_those_of_least_squares_over_the_other_neurons_and_the_inputs(self):
        inputs, incoming, answers = random(60, 3), random(4, 4), random(60, 2, seed=1)
        for act_fun in ("relu", "gelu"):
            layers = Layers((incoming, random(2, 5)), act_fun)
            activations = layers.all_but_last.activations(inputs).numpy()
            found = least_losses_without(layers, inputs, answers)
            whole = self.loss(activations, inputs, answers)
            for neuron in range(4):
                without = self.loss(np.delete(activations, neuron, axis=1), inputs, answers)
                np.testing.assert_allclose(found[neuron], (without - whole).mean(), rtol=1e-9)

    def test_a_neuron_with_a_twin_or_an_opposite_can_be_spared(self):
        inputs, incoming, answers = random(60, 3), random(3, 4), random(60, 2, seed=1)
        found = least_losses_without(Layers((torch.cat([incoming, -2 * incoming[:1]]), random(2, 5)), "relu"), inputs, answers)
        self.assertLess(float(found[[0, 3]].max()), 1e-9)
        self.assertGreater(float(found[[1, 2]].min()), 1e-4)

    def loss(self, activations, inputs, answers):
        features = np.column_stack([activations, inputs, np.ones(len(inputs))])
        left = answers.numpy() - features @ np.linalg.lstsq(features, answers.numpy(), rcond=None)[0]
        return (left**2).mean(0) / answers.numpy().var(0)


class TestMerge(unittest.TestCase):
    def test_merging_duplicates_keeps_the_function(self):
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

    def test_neurons_that_are_active_for_the_same_queries_are_one_if_their_map_has_rank_one(self):
        inputs, (base, following) = random(40, 3), (random(3, 4), random(2, 4, seed=1))
        nudge = 1e-9 * random(1, 4, seed=2)
        split = torch.cat([base, 0.3 * base[:1] + nudge]), torch.cat([following[:, :-1], following[:, :1], following[:, -1:]], 1)
        layers = Layers(split, "relu")
        merged = merged_where_equally_active(layers, inputs)
        assert merged is not None
        self.assertEqual(merged.sizes, [3, 3, 2])
        torch.testing.assert_close(merged.pre_activations(inputs), layers.pre_activations(inputs), rtol=1e-12, atol=1e-12)
        self.assertIsNone(merged_where_equally_active(merged, inputs))
        self.assertIsNone(merged_where_equally_active(Layers(split, "tanh"), inputs))

    def test_opposites_are_not_duplicates_without_a_sign_symmetry(self):
        base, contribution = random(2, 4), torch.ones(3, dtype=torch.float64)
        vectors = torch.cat([base, -base[:1]])
        for act_fun in ("relu", "softplus", "g"):
            self.assertIsNone(merge(vectors, random(2, 4, seed=1), contribution, symmetries[act_fun]))

    def test_dead_neurons_are_removed_and_their_duplicates_stay(self):
        vectors = random(2, 4)[[0, 0, 1]]
        contribution = torch.tensor([1e-9, 1.0, 1.0], dtype=torch.float64)
        kept, following = merge(vectors, random(2, 4, seed=1), contribution, symmetries["g"])
        self.assertTrue(torch.equal(kept, vectors[1:]))
        self.assertTrue(torch.equal(following, random(2, 4, seed=1)[:, 1:]))


class TestSimplified(unittest.TestCase):
    def test_a_network_without_superfluous_neurons_is_not_simplified(self):
        self.assertIsNone(simplified(network("mlp_4_5_6_3"), queries()))

    def test_duplicates_in_every_layer_are_merged(self):
        model = network("mlp_4_5_6_3")
        wide = model.layer_vectors()
        for depth, neuron in ((0, 1), (1, 4)):
            wide[depth] = torch.cat([wide[depth], -wide[depth][[neuron]]])
            outgoing, bias = wide[depth + 1][:, :-1], wide[depth + 1][:, -1:]
            outgoing[:, neuron] *= 0.3
            wide[depth + 1] = torch.cat([outgoing, -outgoing[:, [neuron]] * 0.7 / 0.3, bias], 1)
        hparams = ModelHparams("students_mlp(3)_4_9_9_3", "kaiming_normal", "uniform", "tanh")
        built, built_hparams = Layers(tuple(wide), "tanh").to_network(hparams)
        self.assertEqual(built_hparams.model_name, "mlp_4_6_7_3")
        torch.testing.assert_close(built(queries()), model(queries()))
        for found, expected in zip(simplified(built, queries()).vectors, model.layer_vectors(), strict=True):
            torch.testing.assert_close(found, expected)


if __name__ == "__main__":
    unittest.main()

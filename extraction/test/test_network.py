"""Networks as values, against torch modules and numpy."""

import copy
import unittest
from unittest import mock

import numpy as np
import torch

from extraction.network import Layers, contributions, fit_outputs, fit_outputs_beside, least_squares, stack_name
from extraction.test.known_networks import network, queries
from extraction.test.test_recovery import random
from foundations.model_hparams import ModelHparams

STUDENTS = ModelHparams("students_mlp(3)_4_9_9_3", "kaiming_normal", "uniform", "tanh")


class TestFitOutputsBeside(unittest.TestCase):
    def test_many_inputs_are_eliminated_without_a_change_of_the_solution(self):
        features, inputs, answers = random(50, 3), random(50, 5, seed=1), random(50, 2, seed=2)
        inputs[:, 2] = 7.0
        expected = np.linalg.lstsq(np.column_stack([features, inputs, np.ones(50)]), answers, rcond=None)[0]
        constant = expected[5] * 7.0 + expected[-1]
        for limit in (0, 5):
            with mock.patch("extraction.network.WIDE_INPUTS", limit):
                found = fit_outputs_beside(features, inputs, answers).numpy()
            np.testing.assert_allclose(found[[0, 1, 2, 3, 4, 6, 7]], expected[[0, 1, 2, 3, 4, 6, 7]], rtol=1e-9)
            np.testing.assert_allclose(found[5] * 7.0 + found[-1], constant, rtol=1e-9)


class TestLayers(unittest.TestCase):
    def test_a_network_round_trip_through_layers_is_exact(self):
        model = network("mlp_4_5_6_3")
        layers = Layers.of(model)
        self.assertEqual((layers.sizes, len(layers)), ([4, 5, 6, 3], 3))
        built, hparams = layers.to_network(STUDENTS)
        self.assertEqual(hparams.model_name, "mlp_4_5_6_3")
        self.assertTrue(torch.equal(built(queries()), model(queries())))

    def test_a_stack_round_trip_through_layers_is_exact(self):
        stack = network("students_mlp(3)_4_5_6_2")
        layers = Layers.of(stack)
        self.assertEqual(layers.sizes, [4, 5, 6, 2])
        built = layers.to_students(STUDENTS, 3).double()
        torch.testing.assert_close(built(queries()), stack(queries()), rtol=1e-5, atol=1e-5)  # new students are float32
        for student in range(3):
            ours, _ = layers.student(student).to_network(STUDENTS)
            torch.testing.assert_close(ours(queries()), stack(queries())[student])

    def test_layers_are_copies_of_the_weights(self):
        model = network("mlp_4_5_3")
        layers = Layers.of(model)
        before = layers.vectors[0].clone()
        model.fc_layers[0].weight.data.zero_()
        self.assertTrue(torch.equal(layers.vectors[0], before))

    def test_the_first_layers_give_the_activations_of_the_network(self):
        model = network("mlp_4_5_6_3")
        part = Layers.of(model).all_but_last
        torch.testing.assert_close(part.activations(queries()), model.activations(queries(), 2))
        torch.testing.assert_close(part.activation(part.pre_activations(queries())), model.activations(queries(), 2))
        torch.testing.assert_close(Layers.of(model).pre_activations(queries()), model(queries()))

    def test_removing_a_neuron_without_contribution_keeps_the_function(self):
        model = network("mlp_4_5_6_3")
        model.fc_layers[1].weight.data[:, 2] = 0
        layers = Layers.of(model)
        following = layers.vectors[1][:, [0, 1, 3, 4, 5]]
        smaller, hparams = layers.without_neuron(1, 2, following).to_network(STUDENTS)
        self.assertEqual(hparams.model_name, "mlp_4_4_6_3")
        torch.testing.assert_close(smaller(queries()), model(queries()))

    def test_students_are_named_by_their_sizes(self):
        self.assertEqual(stack_name(3, [4, 9, 3]), "students_mlp(3)_4_9_3")


class TestContributions(unittest.TestCase):
    def test_for_one_hidden_layer_contributions_are_deviation_times_outgoing_length(self):
        model, x = network("mlp_4_5_3"), queries()
        activations = np.tanh(x.numpy() @ model.fc_layers[0].weight.detach().numpy().T + model.fc_layers[0].bias.detach().numpy())
        expected = activations.std(0) * np.linalg.norm(model.fc.weight.detach().numpy(), axis=0)
        np.testing.assert_allclose(contributions(model, 1, x).numpy(), expected)

    def test_contributions_of_a_stack_equal_those_of_its_students(self):
        stack, x = network("students_mlp(3)_4_5_6_2"), queries()
        for depth in (1, 2):
            found = contributions(stack, depth, x)
            for student in range(3):
                torch.testing.assert_close(found[student], contributions(stack.select(student), depth, x)[0])

    def test_contributions_of_wide_layers_equal_those_of_narrow_ones(self):
        for model in (network("mlp_4_5_6_3"), network("students_mlp(3)_4_5_6_2")):
            found = contributions(model, 2, queries())
            with mock.patch("extraction.network.WIDE", 5):
                torch.testing.assert_close(contributions(model, 2, queries()), found)

    def test_a_neuron_without_outgoing_weights_contributes_nothing(self):
        model = copy.deepcopy(network("mlp_4_5_6_3"))
        model.fc_layers[1].weight.data[:, 2] = 0
        found = contributions(model, 1, queries())
        self.assertEqual(found[2].item(), 0)
        self.assertTrue((found[[0, 1, 3, 4]] > 0).all())


class TestLeastSquares(unittest.TestCase):
    def test_fit_outputs_equals_numpy(self):
        features, answers = random(50, 4), random(50, 2, seed=1)
        expected = np.linalg.lstsq(np.c_[features.numpy(), np.ones(50)], answers.numpy(), rcond=None)[0]
        np.testing.assert_allclose(fit_outputs(features, answers).numpy(), expected)

    def test_fit_outputs_returns_the_shortest_of_many_solutions(self):
        matrix, right = random(50, 5), random(50, 2, seed=1)
        matrix[:, 4] = matrix[:, 0] - 2 * matrix[:, 1]
        matrix[:, 2] = 0
        np.testing.assert_allclose(least_squares(matrix, right).numpy(), np.linalg.pinv(matrix.numpy()) @ right.numpy(), atol=1e-12)


if __name__ == "__main__":
    unittest.main()

"""From layers to an exact network, on networks that are known."""

import copy
import os
import unittest

import numpy as np
import torch

from datasets.base import DataLoader
from datasets.teacher_dataset import Dataset
from extraction.desc import ExtractionDesc
from extraction.finetuning import assemble, contributions, dispensable, fit, is_exact, layer_vectors, relative_loss, simplify, trim
from foundations.model_hparams import ModelHparams
from models import registry
from testing.test_case import TestCase


def network(name, act_fun="tanh", seed=0):
    return registry.get(ModelHparams(name, "kaiming_normal", "uniform", act_fun), seed=seed).double()


def queries(count=200, inputs=4):
    return torch.randn(count, inputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class TestContributions(unittest.TestCase):
    def test_with_one_hidden_layer_they_are_spread_times_outgoing_length(self):
        model, x = network("mlp_4_5_3"), queries()
        activations = np.tanh(x.numpy() @ model.fc_layers[0].weight.detach().numpy().T + model.fc_layers[0].bias.detach().numpy())
        expected = activations.std(0) * np.linalg.norm(model.fc.weight.detach().numpy(), axis=0)
        np.testing.assert_allclose(contributions(model, 1, x).numpy(), expected)

    def test_those_of_a_stack_are_those_of_its_students(self):
        stack, x = network("students_mlp(3)_4_5_6_2"), queries()
        for depth in (1, 2):
            found = contributions(stack, depth, x)
            for student in range(3):
                torch.testing.assert_close(found[student], contributions(stack.select(student), depth, x)[0])

    def test_a_neuron_that_nothing_listens_to_contributes_nothing(self):
        model = network("mlp_4_5_6_3")
        model.fc_layers[1].weight.data[:, 2] = 0
        found = contributions(model, 1, queries())
        self.assertEqual(found[2].item(), 0)
        self.assertTrue((found[[0, 1, 3, 4]] > 0).all())


class TestAssembly(unittest.TestCase):
    def test_a_network_is_its_layer_vectors(self):
        model = network("mlp_4_5_6_3")
        hparams = ModelHparams("students_mlp(3)_4_9_9_3", "kaiming_normal", "uniform", "tanh")
        built, found = assemble(layer_vectors(model), hparams)
        self.assertEqual(found.model_name, "mlp_4_5_6_3")
        self.assertTrue(torch.equal(built(queries()), model(queries())))

    def test_a_network_that_needs_all_its_neurons_is_left_alone(self):
        self.assertIsNone(simplify(network("mlp_4_5_6_3"), queries()))

    def test_twins_in_every_layer_are_merged(self):
        model = network("mlp_4_5_6_3")
        wide = copy.deepcopy(layer_vectors(model))
        for depth, neuron in ((0, 1), (1, 4)):
            wide[depth] = torch.cat([wide[depth], -wide[depth][[neuron]]])
            outgoing, bias = wide[depth + 1][:, :-1], wide[depth + 1][:, -1:]
            outgoing[:, neuron] *= 0.3
            wide[depth + 1] = torch.cat([outgoing, -outgoing[:, [neuron]] * 0.7 / 0.3, bias], 1)
        built, hparams = assemble(wide, ModelHparams("students_mlp(3)_4_9_9_3", "kaiming_normal", "uniform", "tanh"))
        self.assertEqual(hparams.model_name, "mlp_4_6_7_3")
        torch.testing.assert_close(built(queries()), model(queries()))
        for found, expected in zip(simplify(built, queries()), layer_vectors(model), strict=True):
            torch.testing.assert_close(found, expected)


class TestExcess(TestCase):
    """Neurons that are not the teacher's are found out."""

    def setUp(self):
        super().setUp()
        self.teacher, x = network("mlp_4_5_3"), queries(400)
        loader = DataLoader(Dataset(x, self.teacher(x).detach()), 400, seed=1, dtype=torch.float64)
        self.loaders = loader, loader
        self.desc = ExtractionDesc.default_for("students_mlp(3)_4_9_3")
        self.desc.model_hparams.act_fun = "tanh"

    def surrounded(self, noise, strangers):
        """The teacher's layers a little off, with neurons of nobody's beside its own."""
        hidden, output = layer_vectors(self.teacher)
        more = queries(strangers, 5) if strangers else hidden[:0]
        hidden = torch.cat([hidden + noise * queries(5, 5), more])
        return [hidden, torch.cat([output[:, :-1], 0.1 * queries(3, strangers) if strangers else output[:, :0], output[:, -1:]], 1)]

    def assert_is_the_teacher(self, found):
        self.assertTrue(is_exact(found.network, self.loaders[0]))
        self.assertEqual(found.model_hparams.model_name, "mlp_4_5_3")

    def test_the_relative_loss_is_one_of_predicting_the_mean(self):
        hidden, output = layer_vectors(self.teacher)
        output = torch.cat([torch.zeros(3, 5), self.loaders[0].labels.mean(0)[:, None]], 1).to(output)
        model, _ = assemble([hidden, output], self.desc.model_hparams)
        self.assertAlmostEqual(relative_loss(model, self.loaders[0]), 1.0, places=2)

    def test_what_is_dispensable_comes_first_and_the_others_take_over(self):
        hidden, output = layer_vectors(self.teacher)
        halves = output * torch.tensor([1, 1, 0.5, 1, 1, 1])
        twice = [torch.cat([hidden, hidden[[2]]]), torch.cat([halves[:, :5], halves[:, [2]], halves[:, -1:]], 1)]
        model, _ = assemble(twice, self.desc.model_hparams)
        x = queries(400)
        torch.testing.assert_close(model(x), self.teacher(x))
        found = dispensable(model, x)
        self.assertEqual(len(found), 6)
        self.assertEqual([lost < 1e-10 for lost, _ in found], [True, True, False, False, False, False])
        smaller, hparams = assemble(found[0][1], self.desc.model_hparams)
        self.assertEqual(hparams.model_name, "mlp_4_5_3")
        torch.testing.assert_close(smaller(x), self.teacher(x))

    def test_a_network_of_the_right_size_is_fitted_as_it_is(self):
        found = fit(self.surrounded(1e-2, 0), self.desc, self.loaders, os.path.join(self.root, "fit"), verbose=False)
        self.assert_is_the_teacher(found)

    def test_strangers_are_trimmed_away(self):
        found = trim(self.surrounded(1e-2, 3), self.desc, self.loaders, os.path.join(self.root, "trim"), verbose=False)
        self.assert_is_the_teacher(found[-1])

    def test_a_network_that_lacks_a_neuron_is_not_exact_and_keeps_those_it_has(self):
        hidden, output = self.surrounded(1e-2, 0)
        lacking = [hidden[1:], output[:, 1:]]
        found = trim(lacking, self.desc, self.loaders, os.path.join(self.root, "trim"), verbose=False)
        self.assertEqual([each.model_hparams.model_name for each in found], ["mlp_4_4_3"])
        self.assertFalse(is_exact(found[0].network, self.loaders[0]))

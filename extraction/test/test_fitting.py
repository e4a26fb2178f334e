"""Fits of recovered layers to exact networks, on known networks."""

import os

import torch

from extraction.fitting import fit, is_exact, relative_loss
from extraction.network import Layers
from extraction.search import trim
from extraction.simplify import removals
from extraction.test.known_networks import answered, network, queries, session_of
from foundations.errors import ConfigError
from testing.test_case import TestCase


class TestExcess(TestCase):
    """Surplus neurons are removed."""

    def setUp(self):
        super().setUp()
        self.teacher = network("mlp_4_5_3")
        self.session = session_of("students_mlp(3)_4_9_3", answered(self.teacher, queries(400), 400), self.root)
        self.loader = self.session.loaders.train
        self.hparams = self.session.desc.model_hparams

    def folder(self, name: str) -> str:
        """The path of a folder in the folder of a run."""
        return os.path.join(self.root, "extract_toy", "seed_1", "main", name)

    def surrounded(self, noise: float, surplus: int) -> Layers:
        """The teacher's layers with noise and surplus neurons."""
        hidden, output = self.teacher.layer_vectors()
        more = queries(surplus, 5) if surplus else hidden[:0]
        outgoing = 0.1 * queries(3, surplus) if surplus else output[:, :0]
        layers = torch.cat([hidden + noise * queries(5, 5), more]), torch.cat([output[:, :-1], outgoing, output[:, -1:]], 1)
        return Layers(layers, "tanh")

    def assert_is_the_teacher(self, found):
        self.assertTrue(is_exact(found.network, self.loader))
        self.assertEqual((found.model_hparams.model_name, found.neurons), ("mlp_4_5_3", 5))

    def test_fine_tuning_that_diverges_is_said_to_diverge(self):
        layers = self.surrounded(0.01, 0)
        hparams = self.session.desc.extraction_hparams
        for optimizer, lr in (("sgd", 1e30), ("adam", 100.0)):
            hparams.finetune_optimizer, hparams.finetune_lr, hparams.finetune_training_steps = optimizer, lr, "20it"
            with (
                self.subTest(optimizer),
                self.assertRaisesRegex(ConfigError, f"--finetune_lr: fine-tuning with {optimizer} .* has diverged"),
            ):
                fit(self.session, layers, self.folder(optimizer))

    def test_the_relative_loss_of_predicting_the_mean_is_one(self):
        hidden, output = self.teacher.layer_vectors()
        output = torch.cat([torch.zeros(3, 5), self.loader.labels.mean(0)[:, None]], 1).to(output)
        model, _ = Layers((hidden, output), "tanh").to_network(self.hparams)
        self.assertAlmostEqual(relative_loss(model, self.loader), 1.0, places=2)

    def test_the_removal_with_the_smallest_loss_is_first_and_refits_the_other_neurons(self):
        hidden, output = self.teacher.layer_vectors()
        halves = output * torch.tensor([1, 1, 0.5, 1, 1, 1])
        twice = torch.cat([hidden, hidden[[2]]]), torch.cat([halves[:, :5], halves[:, [2]], halves[:, -1:]], 1)
        model, _ = Layers(twice, "tanh").to_network(self.hparams)
        x = queries(400)
        torch.testing.assert_close(model(x), self.teacher(x))
        found = removals(model, x)
        self.assertEqual(len(found), 6)
        self.assertEqual([removal.loss < 1e-10 for removal in found], [True, True, False, False, False, False])
        smaller, hparams = found[0].layers.to_network(self.hparams)
        self.assertEqual(hparams.model_name, "mlp_4_5_3")
        torch.testing.assert_close(smaller(x), self.teacher(x))

    def test_a_network_of_the_right_size_keeps_its_neurons(self):
        self.assert_is_the_teacher(fit(self.session, self.surrounded(1e-2, 0), self.folder("fit")))

    def test_surplus_neurons_are_removed(self):
        self.assert_is_the_teacher(trim(self.session, self.surrounded(1e-2, 3), self.folder("trim"))[-1])

    def test_a_network_that_lacks_a_neuron_is_not_exact_and_keeps_its_neurons(self):
        hidden, output = self.surrounded(1e-2, 0).vectors
        found = trim(self.session, Layers((hidden[1:], output[:, 1:]), "tanh"), self.folder("trim"))
        self.assertEqual([fitted.model_hparams.model_name for fitted in found], ["mlp_4_4_3"])
        self.assertFalse(is_exact(found[0].network, self.loader))

    def test_a_network_that_is_wrong_in_a_weak_output_alone_is_not_exact(self):
        scales = torch.tensor([1.0, 1.0, 1e-12], dtype=torch.float64)
        teacher, wrong = network("mlp_4_5_3"), network("mlp_4_5_3")
        for model in (teacher, wrong):
            model.fc.weight.data *= scales[:, None]
            model.fc.bias.data *= scales
        wrong.fc.weight.data[2] = 0
        loader = answered(teacher, queries(400), 400).train
        self.assertTrue(is_exact(teacher, loader))
        self.assertFalse(is_exact(wrong, loader))
        variance = loader.labels.var(0, correction=0)[2]
        expected = (wrong(loader.examples) - loader.labels)[:, 2].square().mean() / variance / 3
        self.assertAlmostEqual(relative_loss(wrong, loader), expected.item())

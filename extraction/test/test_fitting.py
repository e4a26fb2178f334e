"""Fits of recovered layers to exact networks, on known networks."""

import dataclasses
import os

import torch

from datasets.base import DataLoader, Loaders
from datasets.teacher_dataset import Dataset
from extraction.answers import Answers
from extraction.fitting import fit, gives_answers, is_exact, overstated, relative_loss
from extraction.network import Layers
from extraction.refinement.selection import fit_to_all_answers, trim, without_uninformative_neurons
from extraction.simplify import removals
from extraction.test.known_networks import answered, network, queries, session_of, without_pictures
from foundations.errors import ConfigError
from models.registry import latest_weights_file
from testing.test_case import TestCase


class TestExcess(TestCase):
    """Surplus neurons are removed."""

    def setUp(self):
        super().setUp()
        self.enterContext(without_pictures())
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


class TestAnswersWithErrors(TestCase):
    """Errors of answers are not fitted by neurons in excess, and all answers count in every step."""

    def setUp(self):
        super().setUp()
        self.enterContext(without_pictures())
        self.teacher = network("mlp_4_5_3")
        x = torch.randn(900, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        y = self.teacher(x).detach()
        y += 1e-3 * torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        parts = [DataLoader(Dataset(x[chosen], y[chosen]), 100, 1, torch.float64) for chosen in (slice(0, 800), slice(800, 900))]
        self.session = session_of("students_mlp(3)_4_9_3", Loaders(*parts), self.root)
        self.location = os.path.join(self.root, "extract_toy", "seed_1", "main", "fit")

    def slope(self, fitted, loader):
        """The largest derivative of the squared errors, which is zero at the least-squares solution."""
        errors = (fitted.network(loader.examples) - loader.labels).square().mean()
        return max(float(part.abs().max()) for part in torch.autograd.grad(errors, list(fitted.network.parameters())))

    def test_the_last_fits_reach_least_squares_over_all_answers(self):
        fitted = fit(self.session, Layers.of(self.teacher), self.location, None)
        self.assertLess(self.slope(fitted, self.session.loaders.train), 1e-9)
        last = fit_to_all_answers(self.session, fitted, f"{self.location}_all")
        everything = self.session.with_all_answers.loaders.train
        self.assertEqual(len(everything.labels), 900)
        self.assertLess(self.slope(last, everything), 1e-9)
        self.assertGreater(self.slope(fitted, everything), 1e-7)

    def test_held_out_answers_that_are_missed_join_no_fit(self):
        self.session.loaders.test.labels += 0.1
        fitted = fit(self.session, Layers.of(self.teacher), self.location, None)
        self.assertIsNone(fit_to_all_answers(self.session, fitted, f"{self.location}_all"))

    def test_a_neuron_that_fits_errors_is_removed_and_the_others_stay(self):
        hidden, output = self.teacher.layer_vectors()
        more = torch.cat([output[:, :-1], 1e-4 * queries(3, 1), output[:, -1:]], 1)
        layers = Layers((torch.cat([hidden, queries(1, 5)]), more), "tanh")
        fitted = fit(self.session, layers, self.location, None)
        self.assertEqual(fitted.neurons, 6)
        smaller = without_uninformative_neurons(self.session, fitted, self.location)
        self.assertEqual(smaller.model_hparams.model_name, "mlp_4_5_3")
        self.assertLess(relative_loss(smaller.network, self.session.loaders.train), 1e-5)

    def test_a_stated_precision_says_when_a_network_gives_the_answers(self):
        for given, expected in (("noise:0.001", True), ("noise:1e-5", False), ("float64", False)):
            session = dataclasses.replace(self.session, precision=Answers.of(self.session.answers, given))
            self.assertIs(gives_answers(session, self.teacher), expected)


class TestUnequalErrors(TestCase):
    """Outputs whose answers have fewer digits do not spoil those of others."""

    def test_an_exact_output_determines_the_hidden_neurons(self):
        self.enterContext(without_pictures())
        teacher, x = network("mlp_3_3_2"), queries(400, 3)
        hidden, outputs = teacher.layer_vectors()
        y = teacher(x).detach()
        y[:, 1] = y[:, 1].round(decimals=2)
        loader = DataLoader(Dataset(x, y), 400, 1, torch.float64)
        session = session_of("students_mlp(2)_3_6_2", Loaders(loader, loader), self.root)
        start, location = Layers((1.01 * hidden, outputs), "tanh"), os.path.join(self.root, "extract_toy", "seed_1", "main", "fit")
        blind = fit(session, start, location, None)
        session = dataclasses.replace(session, precision=Answers.of(y))
        fitted = fit(session, start, f"{location}_weighted", None)
        off, rest = ((each.network.layer_vectors()[0] - hidden).abs().max() for each in (blind, fitted))
        self.assertGreater(off, 1e-4)
        self.assertLess(rest, 1e-8)
        self.assertLess((fitted.network(x) - y)[:, 1].abs().max(), 6e-3)
        self.assertTrue(gives_answers(session, fitted.network))
        saved = torch.load(latest_weights_file(fitted.location), weights_only=True)
        torch.testing.assert_close(saved["fc.weight"], fitted.network.fc.weight.data)

    def test_errors_that_differ_little_have_no_weights(self):
        self.assertIsNone(Answers(("a", "b"), (1e-3, 2e-3)).weights)
        self.assertIsNone(Answers.exact(2).weights)
        self.assertEqual(Answers(("a", "b", "c"), (1e-3, 1e-4, 0.0)).weights.tolist(), [1, 10, 1000])


class TestStatements(TestCase):
    """What `--answers` states, against the errors that a network leaves."""

    def said(self, given, noise):
        teacher, x = network("mlp_4_3_2"), queries(400)
        loaders = answered(teacher, x, 400)
        loaders.train.labels = loaders.train.labels + noise * queries(400, 2)
        session = session_of("students_mlp(2)_4_6_2", loaders, self.root)
        return overstated(dataclasses.replace(session, precision=Answers.of(session.answers, given)), teacher)

    def test_a_statement_far_above_the_errors_is_contradicted(self):
        (remark,) = self.said("noise:0.5", 1e-3)
        self.assertRegex(remark, r"errors that are [45]00 times smaller than --answers noise:0.5 states")
        self.assertEqual(len(self.said("decimals:3", 0.0)), 1)

    def test_a_statement_near_the_errors_or_below_them_is_not(self):
        for given, noise in (("noise:0.001", 1e-3), ("noise:0.0001", 1e-3), ("noise:0.004", 1e-3), (None, 0.0), ("float64", 0.0)):
            self.assertEqual(self.said(given, noise), [])

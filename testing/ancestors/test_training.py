"""How OpenLTH and the published Expand-and-Cluster train: rates, updates, initial weights, examples and names, from their formulas."""

from __future__ import annotations

import bisect
import hashlib
import json
import math
import os

import numpy as np
import torch
from torch import nn

import EC
from datasets import base, imagenet, registry, transformations
from foundations import paths, revisions
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError
from foundations.model_hparams import ModelHparams
from foundations.step import Step
from foundations.training_hparams import TrainingHparams
from models import initializers, parallel
from models import registry as models
from models.mnist_lenet import Model as LeNet
from testing import run_folders
from testing.test_case import TestCase
from training import optimizers

BATCHES = 10  # in an epoch


class TwoWeights(nn.Module):
    """The function `w . x` of two weights."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))


GRADIENTS = [[1.0, -2.0], [0.5, 3.0], [-1.0, 0.25], [2.0, 1.0]]  # of four updates


def updated(**changes) -> list[float]:
    """The two weights after updates with these gradients, at a rate of 0.1."""
    model = TwoWeights()
    optimizer = optimizers.get_optimizer(TrainingHparams(**{"optimizer_name": "sgd", "lr": 0.1, "training_steps": "4it"} | changes), model)
    for gradient in GRADIENTS:
        model.w.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    return model.w.tolist()


def sgd(momentum: float = 0.0, nesterov: bool = False, decay: float = 0.0) -> list[float]:
    """The same by the formulas of SGD: v = m v + g; w = w - lr v, or w - lr (g + m v) with Nesterov momentum."""
    ends = []
    for place, weight in enumerate((1.0, -2.0)):
        velocity = 0.0
        for gradients in GRADIENTS:
            gradient = gradients[place] + decay * weight
            velocity = momentum * velocity + gradient
            weight -= 0.1 * (gradient + momentum * velocity if nesterov else velocity)
        ends.append(weight)
    return ends


def adam(beta1: float = 0.9, decay: float = 0.0) -> list[float]:
    """The same by the formulas of Adam (Kingma & Ba 2015), with beta2 = 0.999, epsilon = 1e-8 and an L2 penalty."""
    ends = []
    for place, weight in enumerate((1.0, -2.0)):
        first = second = 0.0
        for step, gradients in enumerate(GRADIENTS, 1):
            gradient = gradients[place] + decay * weight
            first, second = beta1 * first + (1 - beta1) * gradient, 0.999 * second + 0.001 * gradient**2
            weight -= 0.1 * first / (1 - beta1**step) / (math.sqrt(second / (1 - 0.999**step)) + 1e-8)
        ends.append(weight)
    return ends


class OptimizerTest(TestCase):
    def assert_weights(self, actual: list[float], expected: list[float]):
        for one, other in zip(actual, expected, strict=True):
            self.assertAlmostEqual(one, other, places=12)

    def refused(self, **changes) -> str:
        return optimizers.ambiguity(TrainingHparams(**{"optimizer_name": "sgd", "lr": 0.1, "training_steps": "9ep"} | changes)) or ""

    def test_adam_ignores_both_momenta(self):
        self.assert_weights(updated(optimizer_name="adam", momentum=0.5, nesterov_momentum=0.7), adam())
        self.assert_weights(updated(optimizer_name="adam", weight_decay=0.1), adam(decay=0.1))
        self.assert_weights(updated(optimizer_name="adam", adam_beta1=0.5), adam(0.5))

    def test_of_two_momenta_sgd_takes_the_value_of_momentum_and_the_formula_of_nesterov(self):
        self.assert_weights(updated(momentum=0.9), sgd(0.9))
        self.assert_weights(updated(nesterov_momentum=0.6), sgd(0.6, nesterov=True))
        self.assert_weights(updated(momentum=0.9, nesterov_momentum=0.6), sgd(0.9, nesterov=True))
        self.assert_weights(updated(momentum=0.9, nesterov_momentum=0.9, weight_decay=0.1), sgd(0.9, nesterov=True, decay=0.1))

    def test_what_means_the_same_is_accepted(self):
        for changes in (
            {"optimizer_name": "adam", "momentum": 0.9},
            {"optimizer_name": "adam", "adam_beta1": 0.5},
            {"optimizer_name": "nadam", "adam_beta1": 0.5},
            {"momentum": 0.9, "nesterov_momentum": 0.9},
            {"nesterov_momentum": 0.6},
            {"milestone_steps": "5it,2ep,2ep,30it", "warmup_steps": "1ep"},
            {"plateau_opt": True, "patience": 3, "delta": 0.5},
        ):
            self.assertEqual(self.refused(**changes), "", changes)

    def test_what_means_something_else_is_refused(self):
        for changes, expected in (
            ({"optimizer_name": "adam", "momentum": 0.5}, "--momentum: adam .*--adam_beta1 0.5 .*; valid here: 0 or 0.9"),
            ({"optimizer_name": "nadam", "momentum": 0.5}, "--momentum: nadam .*; valid here: 0 or 0.9"),
            ({"optimizer_name": "adam", "nesterov_momentum": 0.9}, "--nesterov_momentum: adam .*--optimizer_name nadam .*; valid here: 0"),
            ({"optimizer_name": "nadam", "nesterov_momentum": 0.9}, "--nesterov_momentum: nadam does not use it.*; valid here: 0"),
            ({"momentum": 0.9, "nesterov_momentum": 0.6}, "--nesterov_momentum: 0.6 contradicts --momentum 0.9; valid: equal values.*"),
            ({"plateau_opt": True, "milestone_steps": "1ep"}, "--milestone_steps: .* with --plateau_opt; valid: only one .*"),
            ({"plateau_opt": True, "warmup_steps": "1ep"}, "--warmup_steps: .* with --plateau_opt; valid: only one .*"),
        ):
            with self.subTest(**changes):
                self.assertRegex(self.refused(**changes), f"^{expected}$")

    def test_the_refusal_names_the_folder_of_an_earlier_version(self):
        flags = ("train", "--default_hparams=digits_lenet_4", "--optimizer_name=adam", "--momentum=0.5", "--training_steps=1it")
        status, _, err = self.command(*flags)
        self.assertEqual((status, err.count("\n"), self.files()), (2, 1, []))
        self.assertNotIn("train_", err)
        texts = ("Hparams(batch_size=128, dataset_name='digits')",)
        texts += ("Hparams(batchnorm_init='uniform', model_init='kaiming_normal', model_name='digits_lenet_4')",)
        texts += ("Hparams(lr=0.1, momentum=0.5, optimizer_name='adam', training_steps='1it')",)
        name = f"train_{hashlib.md5(';'.join(texts).encode()).hexdigest()}"
        os.makedirs(os.path.join(self.root, name, "seed_0", "main"))
        for command in (flags, ("runs", "why", *flags)):
            status, _, err = self.command(*command)
            self.assertEqual((status, err.count("\n")), (2, 1))
            self.assertIn(f"({name} was trained by an earlier version", err)


class RateTest(TestCase):
    def schedule(self, **changes) -> optimizers.Schedule:
        h = TrainingHparams(**{"optimizer_name": "sgd", "lr": 0.4, "training_steps": "60ep"} | changes)
        return optimizers.Schedule(h, optimizers.get_optimizer(h, TwoWeights()), BATCHES, Step.from_str(h.training_steps, BATCHES))

    def rates(self, count: int, **changes) -> list[float]:
        schedule, rates = self.schedule(**changes), []
        for _ in range(count):
            rates.append(schedule.optimizer.param_groups[0]["lr"])
            schedule.step(torch.tensor(1.0))
        return rates

    def test_milestones_and_warmup_multiply(self):
        expected = [0.4 * (0.3 ** bisect.bisect([15, 20, 20], it) * min(1.0, it / 12)) for it in range(40)]
        self.assertEqual(self.rates(40, milestone_steps="15it,2ep,2ep", delta=0.3, warmup_steps="12it"), expected)

    def test_milestones_in_another_order_count_like_there(self):
        expected = [0.4 * 0.5 ** bisect.bisect([20, 15], it) for it in range(40)]
        self.assertEqual(self.rates(40, milestone_steps="2ep,15it", delta=0.5), expected)

    def plateaus(self, losses: list[float], lr: float, factor: float, patience: int, cooldown: int) -> list[float]:
        """The rates of the epochs of the published code: an epoch is bad unless its loss is the smallest; 1e-7 ends training."""
        rates, best, bad, rest = [], math.inf, 0, 0
        for loss in losses:
            rates.append(lr)
            if lr < 1e-7 + 1e-8:
                break
            best, bad = (loss, 0) if loss < best else (best, bad + 1)
            if rest:
                rest, bad = rest - 1, 0
            if bad > patience:
                new, rest, bad = max(lr * factor, 1e-7), cooldown, 0
                lr = new if lr - new > 1e-8 else lr
        return rates

    def epochs(self, losses: list[float], **changes) -> list[float]:
        """The rates of our epochs with these losses, until training is over."""
        schedule, rates = self.schedule(plateau_opt=True, training_steps="1000ep", **changes), []
        for loss in losses:
            rates.append(schedule.optimizer.param_groups[0]["lr"])
            for _ in range(BATCHES):
                self.assertFalse(schedule.is_over())
                schedule.step(torch.tensor(loss))
            if schedule.is_over():
                break
        return rates

    def test_a_plateau_is_an_epoch_without_any_improvement(self):
        creeping = [1 - 1e-6 * epoch for epoch in range(60)]
        self.assertEqual(set(self.epochs(creeping, lr=1e-3, patience=2, cooldown=0)), {1e-3})

    def test_plateaus_lower_the_rate_and_training_ends_after_an_epoch_at_the_smallest(self):
        losses = [1.0, 0.5, 0.5, 0.7, 0.4, 0.4, 0.4] + [0.4] * 300
        for lr, delta, patience, cooldown in ((1e-3, 10**-0.5, 2, 3), (0.4, 0.1, 0, 0), (1e-7, 0.5, 0, 1), (1.2e-7, 0.95, 1, 0)):
            ours = self.epochs(losses, lr=lr, delta=delta, patience=patience, cooldown=cooldown)
            self.assertEqual(ours, self.plateaus(losses, lr, delta, patience, cooldown))
        self.assertEqual(len(self.plateaus(losses, 1e-3, 0.1, 0, 0)), 8)  # lowered after the third, fourth, sixth and seventh

    def test_further_training_ends_at_a_step_and_extra_training_after_steps(self):
        for changes, expected in (({"further_training": "5ep"}, 50), ({"extra_training": "5ep"}, 70), ({"further_training": "25it"}, 25)):
            schedule = self.schedule(training_steps="2ep", **changes)
            while not schedule.is_over():
                schedule.step(torch.tensor(1.0))
            self.assertEqual((schedule.iteration, schedule.finished_at), (expected, 20))


class FurtherTrainingTest(TestCase):
    flags = ("train", "--default_hparams=digits_lenet_2", "--batch_size=500", "--global_seed=1", "--quiet", "--training_steps=2ep")

    def trained(self, *more: str) -> str:
        """The folder of the run after training."""
        self.assertEqual(self.command(*self.flags, *more), (0, "", ""))
        return os.path.dirname(next(os.path.join(self.root, path) for path in self.files() if path.endswith("logger")))

    def test_five_epochs_after_two_end_at_five_and_the_run_shows_it(self):
        self.assertIn("model_ep2_it0.pth", os.listdir(self.trained()))
        self.assertNotIn("trained_steps", self.command("runs")[1])
        with open(paths.hparams_dict(self.trained()), encoding="utf-8") as file:
            self.assertEqual(json.load(file)["results"], revisions.RESULTS)
        for _ in range(2):
            folder = self.trained("--further_training=5ep")
            self.assertEqual({"model_ep2_it0.pth", "model_ep5_it0.pth"} - {*os.listdir(folder)}, set())
            self.assertNotIn("model_ep7_it0.pth", os.listdir(folder))
        name = os.path.relpath(folder, self.root).split(os.sep)[0]
        heading, row = self.command("runs")[1].splitlines()
        self.assertEqual(dict(zip(heading.split(), row.split(), strict=False))["trained_steps"], "5ep")
        self.assertRegex(
            self.command("runs", "show", name)[1],
            r"(?s)trained_steps[^\n]*\n +1 +finished +5ep .*\* trained_steps +5ep\n.*--further_training=5ep\n",
        )
        self.assertIn(name[6:12], self.command("runs", "--where", "trained_steps=5ep")[1])
        self.command(*self.flags, "--lr=0.2")
        other = next(path.split(os.sep)[0] for path in self.files() if not path.startswith(name))
        self.assertRegex(self.command("runs", "diff", name, other)[1], r"trained_steps +5ep +2ep")

    def test_a_step_that_is_not_after_the_end_is_refused(self):
        for further in ("1ep", "2ep", "0ep"):
            status, _, err = self.command(*self.flags, f"--further_training={further}")
            self.assertEqual((status, err.count("\n"), self.files()), (2, 1, []))
            self.assertRegex(err, f"--further_training: {further} is not after the end of training, 2ep; --extra_training {further} ")
        status, _, err = self.command(*self.flags, "--further_training=5ep", "--extra_training=1ep")
        self.assertEqual((status, self.files()), (2, []))
        self.assertIn("--extra_training: cannot be combined with --further_training", err)


class LengthTest(TestCase):
    def test_the_files_of_weights_show_how_long_a_run_was_trained(self):
        for planned, ends, expected in (
            ("2ep", ["ep2_it0"], "2ep"),
            ("2ep", ["ep2_it0", "ep7_it0"], "7ep"),
            ("2ep", ["ep3_it4"], "3ep4it"),
            ("900ep", ["ep44_it0"], "44ep"),
            ("500it", ["ep0_it500"], "500it"),
            ("500it", ["ep0_it320"], "320it"),
            ("500it", ["ep40_it0"], "500it"),  # the length of an epoch is not known
            ("500it", ["ep40_it0", "ep50_it3"], "50ep3it"),
            ("3ep20it", ["ep4_it0"], "3ep20it"),
            ("3ep20it", ["ep3_it20", "ep9_it0"], "9ep"),
            ("2ep", [], "2ep"),
        ):
            files = ["model_ep0_it0.pth", "logger", *(f"model_{end}.pth" for end in ends)]
            self.assertEqual(paths.trained_steps(files, planned), expected, (planned, ends))


class ChangedResultsTest(TestCase):
    flags = "--default_hparams=digits_lenet_16", "--lr=0.1"

    def why(self, *more: str, **record: int) -> str:
        """What `runs why` prints of a finished run whose record has these entries."""
        _, location, _ = self.command("train", *self.flags, *more, "--global_seed=4", "--display_output_location")
        folder, parsed = location.strip(), EC.COMMANDS.parse("train", [*self.flags, *more])[1].create().desc
        run_folders.finish(folder if record else run_folders.record(folder, parsed, 4))
        if record:
            run_folders.write(paths.hparams_dict(folder), parsed.to_json(seed=4, **record))
        status, out, err = self.command("runs", "why", "train", *self.flags, *more)
        self.assertEqual((status, err), (0, ""))
        self.assertIn("exists:", out)
        return out

    def test_why_says_what_an_earlier_version_computed_differently(self):
        for flag, expected in {
            "--model_init=binary": "model_init: binary weights",
            "--subsample_fraction=0.5": "transformation_seed: it drew other examples",
            "--random_labels_fraction=0.5": "transformation_seed: it drew other examples",
            "--data_order_seed=0": "data_order_seed: it gave other orders",
            "--plateau_opt": "plateau_opt: a plateau allowed improvements",
        }.items():
            with self.subTest(flag):
                self.assertIn(f"made by an earlier version (seed 4): {expected}", self.why(flag))

    def test_other_runs_and_new_runs_have_not_changed(self):
        self.assertNotIn("earlier version", self.why())
        self.assertNotIn("earlier version", self.why("--model_init=binary", results=revisions.RESULTS))


class InitialWeightsTest(TestCase):
    def test_binary_weights_have_the_standard_deviation_of_a_sample(self):
        for layer in (nn.Linear(3, 2), nn.Conv2d(2, 3, 2)):
            torch.manual_seed(5)
            initializers.binary(layer)
            torch.manual_seed(5)
            drawn = nn.init.kaiming_normal_(torch.empty_like(layer.weight)).double()
            size = math.sqrt((drawn - drawn.mean()).square().sum().item() / (drawn.numel() - 1))
            torch.testing.assert_close(layer.weight.detach().double(), drawn.sign() * size, rtol=1e-6, atol=0)

    def test_a_single_binary_weight_is_finite(self):
        layer = nn.Linear(1, 1)
        initializers.binary(layer)
        self.assertTrue(layer.weight.isfinite().all())

    def test_published_students_have_the_variance_of_one_kernel_for_all(self):
        layer = parallel.Linear(20, 40, 50)
        torch.manual_seed(0)
        initializers.published_students(layer)
        theirs = torch.zeros(40, 50, 20)  # inputs, outputs, networks
        torch.manual_seed(0)
        nn.init.kaiming_normal_(theirs)
        self.assertAlmostEqual(theirs.std().item(), math.sqrt(2 / (50 * 20)), delta=3e-4)
        self.assertAlmostEqual(layer.weight.std().item(), math.sqrt(2 / (50 * 20)), delta=3e-4)
        self.assertEqual(layer.bias.abs().max().item(), 0)

    def test_published_students_are_another_name_for_every_activation_function(self):
        name = "students_mnist_lenet(5)_6"
        for act_fun in ("relu", "sigmoid"):
            model = models.get(ModelHparams(name, "published_students", "uniform", act_fun), seed=1)
            self.assertEqual(model.fc_layers[0].bias.abs().max().item(), 0)
            self.assertAlmostEqual(model.fc_layers[0].weight.std().item(), math.sqrt(2 / (6 * 5)), delta=5e-3)

    def test_teachers_are_initialised_like_there(self):
        torch.manual_seed(3)
        ours = LeNet([784, 4, 10], "relu", initializers.kaiming_normal)
        torch.manual_seed(3)
        layers = [nn.Linear(784, 4), nn.Linear(4, 10)]
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight)
        for one, other in zip(ours.affine_layers, layers, strict=True):
            self.assertTrue(torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias))


class ExamplesTest(TestCase):
    def selected(self, count: int = 3000, train: bool = True, **changes) -> tuple[torch.Tensor, torch.Tensor]:
        return transformations.select_examples(DatasetHparams("mnist", 128, **changes), train, torch.arange(count) % 10, 10)

    def test_shares_are_rounded_up_in_floating_point(self):
        self.assertEqual([*map(len, self.selected(subsample_fraction=0.07))], [211, 211])  # 0.07 * 3000 is 210.00000000000003
        for count, share, expected in ((50000, 0.07, 3501), (60000, 0.07, 4200), (60000, 0.1, 6000), (50000, 0.28, 14001), (7, 1.0, 7)):
            self.assertEqual(len(self.selected(count, subsample_fraction=share)[0]), expected)

    def test_the_examples_are_those_of_openlth(self):
        for seed in (None, 0, 7):
            kept, labels = self.selected(subsample_fraction=0.1, transformation_seed=seed)
            expected = np.random.RandomState((seed or 0) + 1).permutation(3000)[:300]
            self.assertEqual(kept.tolist(), expected.tolist())
            self.assertEqual(labels.tolist(), (expected % 10).tolist())

    def test_random_labels_are_those_of_openlth(self):
        expected = np.arange(3000) % 10
        expected[np.random.RandomState(4).permutation(3000)[:211]] = np.random.RandomState(3).randint(10, size=211)
        _, labels = self.selected(random_labels_fraction=0.07, transformation_seed=3)
        self.assertEqual(labels.tolist(), expected.tolist())

    def test_rotations_are_those_of_openlth_in_both_sets(self):
        for train in (True, False):
            _, labels = self.selected(40, train, unsupervised_labels="rotation", transformation_seed=3)
            self.assertEqual(labels.tolist(), np.random.RandomState(3).randint(4, size=40).tolist())
        kept, labels = self.selected(40, subsample_fraction=0.5, unsupervised_labels="rotation")
        self.assertEqual((len(kept), labels.tolist()), (20, np.random.RandomState(0).randint(4, size=20).tolist()))

    def test_seeds_that_numpy_refuses_are_refused(self):
        for seed in (-1, 2**32 - 1):
            with self.assertRaisesRegex(ConfigError, f"^--transformation_seed: {seed} is out of range; valid: 0 to 4294967294$"):
                registry.check(DatasetHparams("mnist", 128, transformation_seed=seed))

    def test_a_chosen_order_of_the_data_is_that_of_openlth(self):
        loaders = registry.get_both(DatasetHparams("digits", 128), TrainingHparams("sgd", 0.1, "2ep", data_order_seed=6), seed=1)
        for epoch in range(2):
            expected = torch.randperm(1437, generator=torch.Generator().manual_seed(6 + epoch))
            self.assertTrue(torch.equal(loaders[0].order(epoch), expected))
            batch, _ = next(loaders[0].epoch(epoch))
            self.assertTrue(torch.equal(batch, loaders[0].examples[expected[:128]]))

    def test_images_are_cropped_and_standardised_like_there(self):
        crop = imagenet.Decoder([], 1, open).crop.transforms[0]
        self.assertEqual((crop.size, tuple(crop.scale), tuple(crop.ratio)), ((224, 224), (0.1, 1.0), (0.8, 1.25)))
        middle = imagenet.Decoder([], None, open).crop.transforms
        self.assertEqual((middle[0].size, middle[1].size), (256, (224, 224)))
        images = registry.registered_datasets
        moments = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        self.assertEqual((images["cifar10"].Dataset.mean, images["cifar10"].Dataset.std), moments)
        self.assertEqual((base.IMAGENET_MEAN, base.IMAGENET_STD), moments)
        self.assertEqual((images["mnist"].Dataset.mean, images["mnist"].Dataset.std), ((0.1307,), (0.3081,)))


class NameTest(TestCase):
    def test_what_openlth_does_not_know_has_another_name_only_if_it_is_set(self):
        plain = "Hparams(lr=0.1, optimizer_name='adam', training_steps='1ep')"
        self.assertEqual(str(TrainingHparams("adam", 0.1, "1ep", adam_beta1=0.9, further_training="2ep", extra_training=None)), plain)
        self.assertEqual(str(TrainingHparams("adam", 0.1, "1ep", adam_beta1=0.8)), plain.replace("(", "(adam_beta1=0.8, "))
        self.assertEqual(str(TrainingHparams("nadam", 0.1, "1ep")), plain.replace("adam", "nadam"))

    def test_momenta_keep_their_texts(self):
        both = "Hparams(gamma=0.1, lr=0.1, milestone_steps='80ep,120ep', momentum=0.9, nesterov_momentum=0.9, optimizer_name='sgd', "
        both += "training_steps='160ep')"
        h = TrainingHparams("sgd", 0.1, "160ep", momentum=0.9, nesterov_momentum=0.9, milestone_steps="80ep,120ep", delta=0.1)
        self.assertEqual(str(h), both)

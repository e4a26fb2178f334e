"""Training does not change frozen parameters in any bit, and changes all others."""

import copy

import torch

from datasets import cifar10
from datasets.base import DataLoader
from foundations.errors import ConfigError
from foundations.model_hparams import ModelHparams
from foundations.training_hparams import TrainingHparams
from models import registry
from testing.test_case import TestCase
from training.test.test_train import regression_loader
from training.train import train

NAME = "cifar_resnet_8_4"
OUTPUT = {"fc.weight", "fc.bias"}
SPARED = "conv.weight,blocks.1.shortcut.0.weight"


def hparams(model_name: str = NAME, **frozen) -> ModelHparams:
    return ModelHparams(model_name, "kaiming_normal", "uniform", **frozen)


def is_norm(name: str) -> bool:
    return "bn" in name or "shortcut.1" in name


def all_names() -> set[str]:
    return {name for name, _ in registry.meta_model(hparams()).named_parameters()}


NORMS = {name for name in all_names() if is_norm(name)}
OTHERS = all_names() - NORMS - OUTPUT

CASES = (
    ({"batchnorm_frozen": True}, NORMS),
    ({"output_frozen": True}, OUTPUT),
    ({"others_frozen": True}, OTHERS),
    ({"others_frozen": True, "others_frozen_exceptions": SPARED}, OTHERS - set(SPARED.split(","))),
    ({"batchnorm_frozen": True, "output_frozen": True}, NORMS | OUTPUT),
    ({"batchnorm_frozen": True, "others_frozen": True}, NORMS | OTHERS),
    ({"batchnorm_frozen": True, "output_frozen": True, "others_frozen": True, "others_frozen_exceptions": "conv.weight"},)
    + (all_names() - {"conv.weight"},),
)


class FreezingTest(TestCase):
    def test_every_parameter_belongs_to_one_of_three_kinds(self):
        self.assertEqual((len(NORMS), len(OUTPUT), len(OTHERS)), (18, 2, 9))

    def test_nothing_is_frozen_by_default(self):
        self.assertTrue(all(parameter.requires_grad for parameter in registry.get(hparams()).parameters()))

    def test_frozen_parameters_need_no_gradient_and_all_others_do(self):
        for flags, frozen in CASES:
            for model in (registry.get(hparams(**flags)), registry.meta_model(hparams(**flags))):
                with self.subTest(flags):
                    self.assertEqual({name for name, parameter in model.named_parameters() if not parameter.requires_grad}, frozen)

    def test_momentum_and_weight_decay_do_not_change_frozen_parameters(self):
        loader = DataLoader(cifar10.Dataset(torch.randn(12, 3, 32, 32), torch.arange(12) % 10), 5)
        training = TrainingHparams("sgd", 0.1, "3it", momentum=0.9, weight_decay=0.1)
        for number, (flags, frozen) in enumerate(CASES):
            model = registry.get(hparams(**flags), 10, seed=1)
            before = copy.deepcopy(model.state_dict())
            train(training, model, loader, f"{self.root}/{number}")
            moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
            statistics = {name for name in before if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
            with self.subTest(flags):
                self.assertEqual(moved, (all_names() - frozen) | statistics)
                self.assertTrue(all(parameter.grad is None for name, parameter in model.named_parameters() if name in frozen))

    def test_layers_of_students_can_be_frozen(self):
        for optimizer in ("sgd", "adam", "lbfgs"):
            model = registry.get(hparams("students_mlp(3)_4_5_2", others_frozen=True), seed=1)
            before = copy.deepcopy(model.state_dict())
            train(TrainingHparams(optimizer, 0.1, "3it", precision="float64"), model, regression_loader(), f"{self.root}/{optimizer}")
            for name, value in model.state_dict().items():
                self.assertEqual(torch.equal(value.float(), before[name]), name not in OUTPUT, name)

    def test_levenberg_marquardt_trains_the_other_parameters_only(self):
        model = registry.get(hparams("mlp_4_5_2", others_frozen=True), seed=1)
        before = copy.deepcopy(model.state_dict())
        train(TrainingHparams("levenberg_marquardt", 1.0, "3it", precision="float64"), model, regression_loader(), self.root)
        for name, value in model.state_dict().items():
            self.assertEqual(torch.equal(value.float(), before[name]), name not in OUTPUT, name)


class CheckTest(TestCase):
    def assert_refused(self, words: str, **flags):
        with self.assertRaisesRegex(ConfigError, words):
            registry.check_fits(hparams(**flags), 3072, 10, (3, 32, 32))

    def test_the_error_for_an_unknown_exception_suggests_the_nearest_parameter(self):
        words = r"'conv.wieght' is not a parameter of cifar_resnet_8_4, did you mean 'conv.weight'\?; valid: conv.weight, bn.weight"
        self.assert_refused(f"^--others_frozen_exceptions: {words}", others_frozen=True, others_frozen_exceptions="bn.weight,conv.wieght")

    def test_running_statistics_are_not_parameters(self):
        self.assert_refused("'bn.running_mean' is not a parameter", others_frozen=True, others_frozen_exceptions="bn.running_mean")

    def test_spaces_around_names_are_ignored(self):
        registry.check_fits(hparams(others_frozen=True, others_frozen_exceptions=SPARED.replace(",", " , ")), 3072, 10, (3, 32, 32))

    def test_exceptions_without_others_frozen_are_refused(self):
        self.assert_refused("--others_frozen_exceptions: .* add --others_frozen$", others_frozen_exceptions="conv.weight")

    def test_freezing_all_parameters_is_refused(self):
        every = {"batchnorm_frozen": True, "output_frozen": True, "others_frozen": True}
        self.assert_refused("--batchnorm_frozen --output_frozen --others_frozen freezes all parameters of cifar_resnet_8_4", **every)
        with self.assertRaisesRegex(ConfigError, "^--output_frozen --others_frozen freezes all parameters of mlp_3_4_2"):
            registry.check_fits(hparams("mlp_3_4_2", output_frozen=True, others_frozen=True), 3, 2)

    def test_the_command_line_refuses_before_it_writes(self):
        students = ("--default_hparams=students_digits_lenet", "--others_frozen")
        refused = {
            ("train", "--default_hparams=digits_lenet", "--output_frozen", "--others_frozen"): "freezes all parameters of digits_lenet_16",
            (
                "train",
                "--default_hparams=digits_lenet",
                "--others_frozen",
                "--others_frozen_exceptions=fc.wight",
            ): "did you mean 'fc.weight'",
            ("train", *students, "--optimizer_name=levenberg_marquardt"): "--optimizer_name: levenberg_marquardt cannot train",
            ("extract", *students): "--others_frozen: students with frozen weights cannot imitate the teacher",
        }
        for command, words in refused.items():
            status, _, err = self.command(*command)
            self.assertEqual((status, self.files()), (2, []))
            self.assertIn(words, err)

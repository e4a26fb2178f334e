"""The arguments, flags and checks that the base of branches derives from a `branch_function`."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import Literal
from unittest import mock

import torch

from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError
from foundations.training_hparams import TrainingHparams
from lottery.branch import base, randomly_prune, registry, retrain
from lottery.branch.arguments import BranchArguments, LevelRangeArgs
from lottery.test.test_runner import LotteryTestCase
from pruning.mask import Mask
from testing.test_case import TestCase


class Example(base.Branch):
    """Does this.

    And that.
    """

    def branch_function(self, size: int, kind: Literal["a", "b"] = "a", share: float | None = None, wild: bool = False) -> None:
        """Something.

        Args:
            size: how much SGD there is,
                on two lines.
            kind: which: the first (a) or not (b).
            share: of it.
        """

    @staticmethod
    def validate(arguments: BranchArguments) -> None:
        arguments.require("size", arguments.size > 0, "1 or more")


class Noise(base.Branch):
    """Train tickets with noise on their weights, as the manual for new branches has it."""

    def branch_function(self, scale: float = 0.1, seed: int | None = None) -> None:
        """Trains what the level started from, with noise.

        Args:
            scale: the standard deviation of the noise.
            seed: its seed (when left out, it follows from --global_seed).
        """
        model = self.ticket()
        generator = torch.Generator().manual_seed(self.derived_seed(seed))
        with torch.no_grad():
            for weights in model.parameters():
                weights += scale * torch.randn(weights.shape, generator=generator)
        self.train(model, self.mask)


class TestArguments(TestCase):
    def test_the_signature_determines_names_types_and_defaults(self):
        kinds = {field.name: (kind, field.default) for field, kind in Example.Arguments.hyperparameters()}
        expected = {"size": (int, dataclasses.MISSING), "kind": (str, "a"), "share": (float, None), "wild": (bool, False)}
        self.assertEqual(kinds, expected)

    def test_the_docstring_is_the_help_text(self):
        self.assertEqual(Example.Arguments._size, "How much SGD there is, on two lines.")
        self.assertEqual(Example.Arguments._kind, "Which: the first (a) or not (b).")
        self.assertEqual(Example.description(), "Does this.")

    def test_closed_lists_and_ranges_are_checked(self):
        with self.assertRaisesRegex(ConfigError, "^--kind: 'c' is not known.*valid: a, b"):
            Example.Arguments(1, "c")
        with self.assertRaisesRegex(ConfigError, "^--size: 0 is out of range; valid: 1 or more"):
            Example.Arguments(0)

    def test_defaults_are_not_part_of_the_name(self):
        self.assertEqual(str(Example.Arguments(3, "b")), "Hparams(kind='b', size=3)")

    def test_branches_have_the_arguments_and_the_names_of_openlth(self):
        self.assertEqual(randomly_prune.Branch.Arguments._name, "Branch Hyperparameters")
        self.assertEqual(str(randomly_prune.Branch.Arguments(seed=7)), "Hparams(seed=7)")
        text = str(retrain.Branch.Arguments(DatasetHparams("digits", 9), TrainingHparams("sgd", 0.1, "1ep")))
        dataset = "Hparams(batch_size=9, dataset_name='digits')"
        training = "Hparams(lr=0.1, optimizer_name='sgd', training_steps='1ep')"
        self.assertEqual(text, f"Hparams(retrain_d={dataset}, retrain_t={training})")

    def test_every_argument_of_every_branch_has_a_help_text(self):
        for name, branch in registry.registered_branches.items():
            self.assertEqual(branch.name, name)
            for field, kind in branch.Arguments.hyperparameters():
                self.assertTrue(kind in base.INHERITED or getattr(branch.Arguments, f"_{field.name}", ""), (name, field.name))


class TestLevels(TestCase):
    def test_levels_and_ranges_are_read(self):
        for text, levels in {"3": [3], "0-2,5": [0, 1, 2, 5], "5, 1-1,4-5": [1, 4, 5], "10-12": [10, 11, 12]}.items():
            self.assertEqual(LevelRangeArgs(text).numbers(), levels)

    def test_invalid_levels_are_refused(self):
        for text in ("", "1-", "-1", "a", "1,,2", "2-1", "1-2-3"):
            with self.subTest(text), self.assertRaisesRegex(ConfigError, "^--levels: .* is out of range; valid: .*ranges"):
                LevelRangeArgs(text)


class TestCommand(LotteryTestCase):
    def test_without_a_name_all_branches_are_listed(self):
        for arguments in ((), ("--help",), ("-h",)):
            status, out, err = self.command("lottery_branch", *arguments)
            self.assertEqual((status, err), (0, ""))
            for name, branch in registry.registered_branches.items():
                self.assertIn(f"* EC.py lottery_branch {name} [...] => {branch.description()}\n", out)

    def test_the_help_of_a_branch_lists_its_flags_and_those_of_the_trunk(self):
        status, out, _ = self.command("lottery_branch", "randomly_prune", *self.small, "--help")
        self.assertEqual(status, 0)
        for flag in ("--levels", "--seed", "--strategy", "--pruning_fraction", "--rewinding_steps", "--lr", "--global_seed"):
            self.assertIn(f" {flag} ", out)
        self.assertIn("one of: layerwise, global, even, identity", " ".join(out.split()))

    def test_display_output_location_needs_no_trunk(self):
        flags = (*self.small, "--levels=0-1,4", "--strategy=even")
        folders = self.folders("lottery_branch", "randomly_prune", *flags)
        trunk = self.folders("lottery", *self.small, "--levels=4")
        name = "lottery_branch_randomly_prune_" + hashlib.md5(b"Hparams(strategy='even')").hexdigest()
        self.assertEqual(folders, [os.path.join(os.path.dirname(trunk[level]), name) for level in (0, 1, 4)])
        self.assertEqual(self.files(), [])

    def test_the_error_for_a_missing_trunk_has_the_command_that_trains_it(self):
        flags = ("--seed", "7", "--strategy=even", "--rewinding_steps", "1it", "--levels", "0-2", "--quiet")
        status, _, err = self.command("lottery_branch", "randomly_prune", *self.small, *flags)
        self.assertEqual((status, err.count("\n")), (2, 1))
        self.assertIn("level 0 is not trained", err)
        command = err.strip().partition(": python EC.py ")[2].split()
        self.assertEqual(command, ["lottery", *self.small, "--rewinding_steps", "1it", "--quiet", "--levels=2"])
        self.assertEqual(self.command(*command), (0, "", ""))
        self.assertEqual(self.command("lottery_branch", "randomly_prune", *self.small, *flags), (0, "", ""))

    def test_a_new_branch_is_a_function_and_a_line(self):
        trunk = self.lottery()
        with mock.patch.dict(registry.registered_branches, test_base=Noise):
            flags = ("test_base", *self.small, "--levels=1", "--scale=0.5")
            self.assertEqual(self.command("lottery_branch", *flags, "--quiet"), (0, "", ""))
            (folder,) = self.folders("lottery_branch", *flags)
        self.assertIn(f"lottery_branch_test_base_{hashlib.md5(b'Hparams(scale=0.5)').hexdigest()}", folder)
        mask, noisy, start = Mask.load(trunk[1]), self.weights(folder), self.weights(trunk[1])
        for name, weights in noisy.items():
            left = mask[name] if name in mask else torch.ones_like(weights, dtype=torch.bool)
            self.assertFalse(bool((weights[left] == start[name][left]).any()))
            self.assertFalse(bool(weights[~left].any()))

    def test_invalid_commands_are_refused_in_one_line_and_write_nothing(self):
        self.lottery()
        before = self.contents()
        levels = (*self.small, "--levels=0-1")
        for expected, arguments in {
            "branch: 'randomly_prun' is not known, did you mean 'randomly_prune'": ("randomly_prun", *levels),
            "the name of a branch must come before --levels=1": ("--levels=1", "randomly_prune"),
            "level 2 is not trained": ("retrain", *self.small, "--levels=1-3"),
            "--levels is required": ("retrain", *self.small),
            "--levels: 3-1 is out of range": ("retrain", *self.small, "--levels=3-1"),
            "more is not an argument of": ("retrain", *levels, "more"),
            "--strategy: 'evn' is not known, did you mean 'even'": ("randomly_prune", *levels, "--strategy=evn"),
            "--points: 1 is out of range; valid: 2 to 10,000": ("linear_connectivity", *levels, "--points=1"),
            "--retrain_t_lr: 0.0 is out of range": ("retrain", *levels, "--retrain_t_lr=0"),
            "--retrain_t_further_training: finished levels": ("retrain", *levels, "--retrain_t_further_training=1ep"),
            "--retrain_d: --dataset_name: 'digit' is not known": ("retrain", *levels, "--retrain_d_dataset_name=digit"),
            "--retrain_d: --model_name: digits_lenet_6_5 takes 64": ("retrain", *levels, "--retrain_d_dataset_name=mnist"),
            "--pruning_fraction: 2.0 is out of range": ("retrain", *levels, "--pruning_fraction=2"),
        }.items():
            with self.subTest(expected):
                status, _, err = self.command("lottery_branch", *arguments, "--quiet")
                self.assertEqual((status, err.count("\n")), (2, 1), err)
                self.assertIn(expected, err)
                self.assertEqual(self.contents(), before)

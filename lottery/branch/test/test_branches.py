"""The branches, on a small trunk."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from unittest import mock

import torch

from datasets import registry as datasets
from foundations import paths
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError
from foundations.step import Step
from foundations.training_hparams import TrainingHparams
from lottery.branch import linear_connectivity, registry
from lottery.branch.randomly_prune import _evenly
from lottery.desc import LotteryDesc
from lottery.interpolation import Interpolation, barrier
from lottery.test.test_runner import LotteryTestCase
from models import registry as models
from platforms.platform import get_platform
from pruning.mask import Mask
from pruning.pruned_model import PrunedModel
from testing import toy_teacher
from testing.test_case import TestCase
from training import train as train_module
from training.evaluation import evaluate
from training.plan import Plan

PRUNED = ["fc_layers.0.weight", "fc_layers.1.weight"]


class BranchTestCase(LotteryTestCase):
    def branch(self, name: str, *arguments: str, levels: str = "2", small: tuple[str, ...] | None = None) -> list[str]:
        """Runs a branch, and returns its folders."""
        arguments = (name, *(small or self.small), f"--levels={levels}", *arguments)
        self.assertEqual(self.command("lottery_branch", *arguments, "--quiet"), (0, "", ""))
        return self.folders("lottery_branch", *arguments)

    def trained(self, model, mask: Mask, training_hparams: TrainingHparams, seed: int = 3, **steps: Step) -> dict[str, torch.Tensor]:
        """The weights that a network with a mask has after training on the digits."""
        loader, _ = datasets.get_both(DatasetHparams("digits", 500), training_hparams, 3)
        loader.seed, model = seed, PrunedModel(model, mask)
        train_module.train(training_hparams, model, loader, os.path.join(self.root, "plain"), Plan(**steps))
        return model.state_dict()


class TestRandomlyPrune(BranchTestCase):
    def setUp(self):
        super().setUp()
        self.trunk = self.lottery("--pruning_fraction=0.5", levels=2)
        self.ticket = Mask.load(self.trunk[2])

    def mask(self, *arguments: str, level: int = 2) -> Mask:
        return Mask.load(self.branch("randomly_prune", "--pruning_fraction=0.5", *arguments, levels=str(level))[0])

    def test_layerwise_masks_have_the_layer_counts_of_the_ticket(self):
        mask = self.mask()
        self.assertNotEqual(mask, self.ticket)
        for name in mask:
            self.assertEqual(mask[name].sum(), self.ticket[name].sum())

    def test_global_masks_have_the_total_count_of_the_ticket(self):
        mask = self.mask("--strategy=global")
        self.assertEqual(mask.unpruned, self.ticket.unpruned)
        for name in mask:
            self.assertNotEqual(mask[name].sum(), self.ticket[name].sum())

    def test_layers_to_ignore_are_not_pruned(self):
        whole, mask = (self.mask("--strategy=global", *flags) for flags in ((), (f"--layers_to_ignore={PRUNED[0]}, fc.weight",)))
        self.assertTrue(mask[PRUNED[0]].all() and mask["fc.weight"].all())
        self.assertTrue(torch.equal(mask[PRUNED[1]], whole[PRUNED[1]]))

    def test_even_masks_have_the_same_density_in_every_layer(self):
        mask = self.mask("--strategy=even")
        self.assertEqual(mask.unpruned, self.ticket.unpruned)
        left = sum(int(mask[name].sum()) for name in PRUNED) / sum(mask[name].numel() for name in PRUNED)
        for name in PRUNED:
            self.assertLessEqual(abs(int(mask[name].sum()) - left * mask[name].numel()), 1)
        self.assertTrue(mask["fc.weight"].all())

    def test_identity_reproduces_the_ticket(self):
        (folder,) = self.branch("randomly_prune", "--pruning_fraction=0.5", "--strategy=identity")
        for step in ("ep0_it0", "ep2_it0"):
            self.assert_same(self.weights(folder, step), self.weights(self.trunk[2], step))

    def test_remaining_weights_have_the_values_that_the_trunk_rewinds_to(self):
        (folder,) = self.branch("randomly_prune", "--pruning_fraction=0.5", "--seed=7")
        self.assert_same(self.weights(folder), self.weights(self.trunk[0]), Mask.load(folder))

    def test_training_starts_at_the_weights_and_the_step_that_are_named(self):
        flags, start, end = ("--pruning_fraction=0.5", "--rewinding_steps=2it"), "ep0_it2", "ep2_it0"
        trunk = self.lottery(*flags, levels=1)
        initial = models.get(LotteryDesc.default_for("digits_lenet_6_5").model_hparams, 10, seed=3).state_dict()
        for name, step, weights in (
            ("rewind", start, self.weights(trunk[0], start)),
            ("init", "ep0_it0", initial),
            ("end", "ep0_it0", self.weights(trunk[1], end)),
        ):
            (folder,) = self.branch("randomly_prune", *flags, f"--start_at={name}", levels="1")
            self.assert_same(self.weights(folder, step), weights, Mask.load(folder))

    def test_arguments_out_of_range_are_refused(self):
        for flag, expected in {
            "--start_at=rewinding": "--start_at: 'rewinding' is not known, did you mean 'rewind'?",
            "--layers_to_ignore=fc.weigth": "--layers_to_ignore: 'fc.weigth' is not known, did you mean 'fc.weight'?",
            "--layers_to_ignore=fc.bias": "--layers_to_ignore: 'fc.bias' is not known",
            f"--seed={2**63}": f"--seed: {2**63} is out of range; valid: a number of 64 bits",
        }.items():
            arguments = (*self.small, "--pruning_fraction=0.5", "--levels=2", "--quiet", flag)
            status, _, err = self.command("lottery_branch", "randomly_prune", *arguments)
            self.assertEqual((status, err.count("\n")), (2, 1))
            self.assertIn(expected, err)

    def test_masks_depend_on_the_seed_and_are_nested(self):
        self.assertNotEqual(self.mask("--seed=7"), self.mask("--seed=8"))
        self.assertNotEqual(self.mask("--seed=7"), self.mask())
        later, earlier = (self.mask("--seed=7", level=level) for level in (2, 1))
        self.assertTrue(all(bool((earlier[name] >= later[name]).all()) for name in later))

    def test_levels_of_an_earlier_version_are_not_continued(self):
        """An earlier version drew other masks for the same seed."""
        arguments = ("--pruning_fraction=0.5", "--seed=7")
        (folder,) = self.branch("randomly_prune", *arguments, levels="1")
        Mask({name: values.flip(0, 1) for name, values in Mask.load(folder).items()}).save(folder)
        self.branch("randomly_prune", *arguments, levels="1")
        before = self.contents()
        status, _, err = self.command("lottery_branch", "randomly_prune", *self.small, *arguments, "--levels=1-2")
        self.assertEqual((status, err.count("\n")), (2, 1))
        self.assertIn(f"an earlier version of this program drew the random mask of {folder}", err)
        self.assertEqual(self.contents(), before)
        _, out, _ = self.command("runs", "why", "lottery_branch", "randomly_prune", *self.small, *arguments, "--levels=1-2")
        self.assertIn("Seed 3 cannot be continued: an earlier version of this program drew the random mask", out)

    def test_each_student_has_the_counts_of_its_ticket(self):
        teacher, _ = toy_teacher.make("mlp_6_4_3", "tanh", seed=1)
        small = ("--default_hparams=students_mlp(2)_6_5_3", f"--teacher_name={teacher}", "--teacher_seed=1", "--datagen=random:40")
        small = (*small, "--training_steps=2ep", "--global_seed=3", "--pruning_layers_to_ignore=")
        ticket = Mask.load(self.lottery(small=small)[1])
        for strategy in ("layerwise", "global", "even"):
            mask = Mask.load(self.branch("randomly_prune", f"--strategy={strategy}", levels="1", small=small)[0])
            for student in (0, 1):
                self.assertEqual(mask.select(student).unpruned, ticket.select(student).unpruned)
                if strategy == "layerwise":
                    counts = [[int(values.sum()) for values in each.select(student).values()] for each in (mask, ticket)]
                    self.assertEqual(*counts)


class TestStudents(BranchTestCase):
    def test_every_branch_takes_stacks_of_students(self):
        teacher, _ = toy_teacher.make("mlp_6_4_3", "tanh", seed=1)
        small = ("--default_hparams=students_mlp(2)_6_5_3", f"--teacher_name={teacher}", "--teacher_seed=1", "--datagen=random:300")
        small = (*small, "--training_steps=2ep", "--global_seed=3")
        trunk = self.lottery("--rewinding_steps=1it", small=small)
        for name in registry.registered_branches:
            with self.subTest(name):
                (folder,) = self.branch(name, "--rewinding_steps=1it", levels="1", small=small)
                run = os.path.join(folder, "copy_2") if name == "linear_connectivity" else folder
                self.assertEqual(Mask.load(run).unpruned, Mask.load(trunk[1]).unpruned)
                self.assertIn("test_individual_losses", Path(paths.logger(run)).read_text())


class TestEvenly(TestCase):
    def test_parts_sum_to_the_total_in_proportion(self):
        for total in range(0, 101, 7):
            parts = _evenly([total, 100 - total], {"a": 33, "b": 1, "c": 66})
            for network, count in enumerate((total, 100 - total)):
                self.assertEqual(sum(each[network] for each in parts.values()), count)
                for name, size in {"a": 33, "b": 1, "c": 66}.items():
                    self.assertLess(abs(parts[name][network] - count * size / 100), 1)
                    self.assertLessEqual(parts[name][network], size)


class TestRandomlyReinitialize(BranchTestCase):
    def test_new_weights_are_trained_with_the_mask_of_the_level(self):
        trunk = self.lottery(levels=2)
        folder, other = (self.branch("randomly_reinitialize", *seed)[0] for seed in ((), ("--seed=7",)))
        mask, start = Mask.load(folder), self.weights(folder)
        self.assertEqual(mask, Mask.load(trunk[2]))
        self.assert_same(start, start, mask)
        states = [start, self.weights(other), self.weights(trunk[2])]
        for first, second in ((0, 1), (0, 2), (1, 2)):
            for name in mask:
                left = mask[name]
                self.assertFalse(bool((states[first][name][left] == states[second][name][left]).any()))
        self.assertEqual(set(os.listdir(folder)) - set(os.listdir(trunk[2])), {"hparams.log", "hparams_dict"})

    def test_training_starts_at_the_start_of_levels_or_at_zero(self):
        self.lottery("--rewinding_steps=2it")
        for flags, start in (((), "ep0_it2"), (("--start_at_step_zero",), "ep0_it0")):
            (folder,) = self.branch("randomly_reinitialize", "--rewinding_steps=2it", *flags, levels="1")
            self.assertIn(f"model_{start}.pth", os.listdir(folder))

    def test_the_output_ends_with_a_table_and_the_comparison(self):
        self.lottery()
        _, out, _ = self.command("lottery_branch", "randomly_reinitialize", *self.small, "--levels=0-1")
        self.assertRegex(
            out, r"(?m)^ +1 +370 +79\.74% .*it\n(.*\n){2} +0 .*\(1\) .*\(1\)\n +1 .*\(1\) .*\(1\)\nPicture: .*comparison\.png$"
        )

    def test_finished_levels_of_a_branch_are_not_trained_again(self):
        self.lottery(levels=2)
        with mock.patch.object(train_module, "train", side_effect=train_module.train) as loop:
            for levels, runs in (("0,2", 2), ("0,2", 2), ("0-2", 3)):
                self.branch("randomly_reinitialize", levels=levels)
                self.assertEqual(loop.call_count, runs)

    def test_a_run_killed_at_any_write_ends_in_the_same_bits(self):
        self.lottery()
        folders = self.branch("randomly_reinitialize", levels="0-1")
        undisturbed = self.contents()
        for folder in folders:
            shutil.rmtree(folder)
        self.assertGreater(self.kill_at_every_write(False, "lottery_branch", "randomly_reinitialize", *self.small, "--levels=0-1"), 5)
        self.assertEqual(self.contents(), undisturbed)


class TestRetrain(BranchTestCase):
    def test_the_ticket_is_trained_with_other_hyperparameters(self):
        trunk = self.lottery("--rewinding_steps=1it", levels=2)
        mask = Mask.load(trunk[2])
        for flags, start in (((), 1), (("--start_at_step_zero",), 0)):
            (folder,) = self.branch("retrain", "--rewinding_steps=1it", "--retrain_t_lr=0.05", "--retrain_t_momentum=0.5", *flags)
            self.assert_same(self.weights(folder, f"ep0_it{start}"), self.weights(trunk[2], "ep0_it1"))
            model = models.get(LotteryDesc.default_for("digits_lenet_6_5").model_hparams, 10)
            model.load_state_dict(self.weights(trunk[2], "ep0_it1"))
            expected = self.trained(model, mask, TrainingHparams("sgd", 0.05, "2ep", momentum=0.5), start=Step(start, 3))
            self.assert_same(self.weights(folder, "ep2_it0"), expected)
            shutil.rmtree(os.path.join(self.root, "plain"))

    def test_retraining_without_changes_reproduces_the_trunk(self):
        trunk = self.lottery(levels=2)
        self.assert_same(self.weights(self.branch("retrain")[0], "ep2_it0"), self.weights(trunk[2], "ep2_it0"))

    def test_data_of_the_same_shape_are_accepted(self):
        self.lottery()
        teacher, _ = toy_teacher.make("mlp_64_3_10", "relu", seed=1)
        asked = (f"--retrain_d_teacher_name={teacher}", "--retrain_d_teacher_seed=1", "--retrain_d_datagen=random:1000")
        (folder,) = self.branch("retrain", "--retrain_d_dataset_name=teacher", *asked, levels="1")
        self.assertIn("model_ep2_it0.pth", os.listdir(folder))
        self.assertNotIn("accuracy", Path(paths.logger(folder)).read_text())

    def test_a_start_beyond_the_end_is_refused_and_writes_nothing(self):
        self.lottery("--rewinding_steps=2it")
        before = self.contents()
        flags = ("--rewinding_steps=2it", "--levels=1", "--retrain_t_training_steps=2it", "--quiet")
        status, _, err = self.command("lottery_branch", "retrain", *self.small, *flags)
        self.assertEqual((status, err.count("\n")), (2, 1))
        self.assertIn("levels start at ep0_it2, but training ends at 2it", err)
        self.assertEqual(self.contents(), before)


class TestLinearConnectivity(BranchTestCase):
    def setUp(self):
        super().setUp()
        pictures = mock.patch("lottery.plotting.barriers")
        self.picture = pictures.start()
        self.addCleanup(pictures.stop)

    def result(self, folder: str) -> dict:
        with open(paths.barrier(folder)) as file:
            return json.load(file)

    def test_errors_are_those_of_the_interpolated_networks(self):
        trunk = self.lottery()
        (folder,) = self.branch("linear_connectivity", "--points=3", levels="1")
        found, mask = self.result(folder), Mask.load(trunk[1])
        self.assertEqual((found["alpha"], found["unpruned"]), ([0, 0.5, 1], mask.unpruned))
        copies = [self.weights(os.path.join(folder, f"copy_{number}"), "ep2_it0") for number in (1, 2)]
        loaders = datasets.get_both(DatasetHparams("digits", 500), TrainingHparams("sgd", 0.3, "2ep"), 3)
        model = models.get(LotteryDesc.default_for("digits_lenet_6_5").model_hparams, 10)
        for place, alpha in enumerate((0, 0.5, 1)):
            model.load_state_dict({name: (1 - alpha) * value + alpha * copies[1][name] for name, value in copies[0].items()})
            for part, loader in zip(("train", "test"), loaders, strict=True):
                self.assertAlmostEqual(found[part][place], 1 - evaluate(model, loader)["accuracy"], delta=2 / 360)

    def test_copies_have_equal_initial_weights_and_different_data_orders(self):
        trunk = self.lottery("--rewinding_steps=1it")
        (folder,) = self.branch("linear_connectivity", "--rewinding_steps=1it", levels="1")
        first, second = (os.path.join(folder, f"copy_{number}") for number in (1, 2))
        for copy in (first, second):
            self.assert_same(self.weights(copy, "ep0_it1"), self.weights(trunk[1], "ep0_it1"))
            end = self.weights(copy, "ep2_it0")
            self.assert_same(end, end, Mask.load(trunk[1]))
        ends = [self.weights(each, "ep2_it0")["fc.weight"] for each in (first, second, trunk[1])]
        self.assertEqual(len({end.numpy().tobytes() for end in ends}), 3)

    def test_there_is_no_barrier_if_all_examples_are_one_batch(self):
        small = (*self.small, "--batch_size=5000")
        self.lottery(small=small)
        found = self.result(self.branch("linear_connectivity", levels="1", small=small)[0])
        self.assertEqual(barrier(found["test"]), 0)

    def test_the_barrier_is_the_highest_error_minus_the_mean_of_the_ends(self):
        self.assertAlmostEqual(barrier([0.1, 0.5, 0.3, 0.2]), 0.35)
        self.assertEqual(barrier([0.2, 0.1, 0.2]), 0)

    def test_a_damaged_file_of_errors_is_refused(self):
        Mask({"fc.weight": torch.ones(3, 4)}).save(os.path.join(self.root, "copy_1"))
        path, line = paths.barrier(self.root), [0, 0.5, 1]
        whole = {"alpha": line, "train": line, "test": line}
        get_platform().write(path, json.dumps(whole))
        self.assertEqual(linear_connectivity.read(self.root), Interpolation(line, line, line, 12, 12))
        wrong = [[], None, *({name: value for name, value in whole.items() if name != left_out} for left_out in whole)]
        wrong += [whole | {"test": each} for each in (None, 3, "x", [0, 1], [0, "x", 1], [0, [1], 1], [0, 10**400, 1])]
        for content in (*wrong, dict.fromkeys(whole, line[:1])):
            get_platform().write(path, json.dumps(content))
            with self.assertRaisesRegex(ConfigError, f"^{path} is damaged"):
                linear_connectivity.read(self.root)

    def test_errors_that_are_no_numbers_are_read_as_nan(self):
        Mask({"fc.weight": torch.ones(3, 4)}).save(os.path.join(self.root, "copy_1"))
        for text in ("null", "NaN"):
            get_platform().write(paths.barrier(self.root), f'{{"alpha": [0, 1], "train": [0, 1], "test": [1, {text}]}}')
            first, second = linear_connectivity.read(self.root).test
            self.assertEqual((first, math.isnan(second)), (1, True))

    def test_integers_are_not_interpolated(self):
        first, second = ({"weight": torch.tensor([value]), "count": torch.tensor(int(value))} for value in (1.0, 3.0))
        found = linear_connectivity.interpolate(first, second, 0.25)
        self.assertEqual((found["weight"].item(), found["count"].item()), (1.5, 1))

    def test_finished_levels_are_not_trained_again_and_the_output_ends_with_the_table(self):
        self.lottery()
        self.branch("linear_connectivity", levels="0-1")
        with mock.patch.object(train_module, "train") as loop:
            _, out, _ = self.command("lottery_branch", "linear_connectivity", *self.small, "--levels=0-1")
        loop.assert_not_called()
        self.assertRegex(out, r"(?m)^level .*barrier .*\n +0 +464 +100\.00% .*\n +1 +370 +79\.74% .*\nPicture: ")
        self.assertEqual(sorted(self.picture.call_args.args[0]), [0, 1])

"""The command `lottery`: levels, rewinding, pretraining, and resuming."""

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
from foundations.step import Step
from foundations.training_hparams import TrainingHparams
from lottery.desc import LotteryDesc
from models import base as models_base
from models import registry as models
from platforms.platform import get_platform
from pruning import registry as strategies
from pruning.mask import Mask
from testing import toy_teacher
from testing.test_case import TestCase
from training import train as train_module
from training.plan import Plan
from training.standard_callbacks import run_at_step, save_model

BATCHES = 3  # an epoch of the digits in batches of 500


class LotteryTestCase(TestCase):
    """A test that prunes a small network for the digits, and draws no pictures."""

    small = ("--default_hparams=digits_lenet_6_5", "--training_steps=2ep", "--batch_size=500", "--lr=0.3", "--global_seed=3")

    def setUp(self):
        super().setUp()
        for picture in ("training.plotting.curves", "lottery.plotting.tickets", "lottery.plotting.comparison"):
            patch = mock.patch(picture, lambda drawn, path: get_platform().write(path, "picture") if path.endswith(".png") else None)
            patch.start()
            self.addCleanup(patch.stop)

    def lottery(self, *arguments: str, levels: int = 1, small: tuple[str, ...] | None = None) -> list[str]:
        """Runs a command that succeeds, and returns the folders of its levels."""
        arguments = (*(small or self.small), f"--levels={levels}", *arguments)
        self.assertEqual(self.command("lottery", *arguments, "--quiet"), (0, "", ""))
        return self.folders("lottery", *arguments)

    def folders(self, *arguments: str) -> list[str]:
        """The folders that a command says it would write to."""
        status, out, err = self.command(*arguments, "--display_output_location")
        self.assertEqual((status, err), (0, ""))
        return out.splitlines()

    def weights(self, folder: str, step: str = "ep0_it0") -> dict[str, torch.Tensor]:
        return models_base.read_state(os.path.join(folder, f"model_{step}.pth"))

    def assert_same(self, first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], mask: Mask | None = None):
        """That two states are equal bit for bit, or that the first is what a mask leaves of the second."""
        self.assertEqual(first.keys(), second.keys())
        for name, value in second.items():
            expected = torch.where(mask[name], value, 0) if mask and name in mask else value
            self.assertTrue(torch.equal(first[name], expected), name)

    def contents(self) -> dict[str, bytes]:
        """The bytes of every file under the root but pictures, checkpoints, and when the runs were started."""
        others = (".png", "checkpoint.pth", "checkpoint_previous.pth", "progress.json", "provenance.json")
        kept = [name for name in self.files() if not name.endswith(others)]
        return {name: Path(self.root, name).read_bytes() for name in kept}

    def kill_at_every_write(self, after: bool, *command: str) -> int:
        """Runs a command until it succeeds; start n is killed before or after its nth write. Returns the number of starts."""
        write = get_platform().write
        for start in range(1, 100):
            writes = 0

            def dying(path, content, keep=None, durable=True, start=start):
                nonlocal writes
                writes += 1
                if writes == start and not after:
                    raise KeyboardInterrupt
                write(path, content, keep, durable)
                if writes == start:
                    raise KeyboardInterrupt

            patches = (
                mock.patch("platforms.base.Platform.write", staticmethod(dying)),
                mock.patch.object(train_module, "CHECKPOINT_SECONDS", 0),
            )
            with patches[0], patches[1]:
                if self.command(*command, "--quiet")[0] == 0:
                    return start
        raise AssertionError("the command never succeeds")

    def trained_in(self, *arguments: str, levels: int) -> list[str]:
        """The run folders in which a command trains anything."""
        with mock.patch.object(train_module, "train", side_effect=train_module.train) as loop:
            self.lottery(*arguments, levels=levels)
        return [os.path.basename(os.path.dirname(call.args[3])) for call in loop.call_args_list]


class TestMaskFiles(LotteryTestCase):
    def test_the_mask_of_another_network_is_named(self):
        other, folder = self.lottery(levels=0, small=("--default_hparams=digits_lenet_3_5", *self.small[1:])), self.lottery(levels=0)
        for level, flags in (
            (folder[0], ("lottery", "--levels=1")),
            (folder[0], ("lottery_branch", "randomly_reinitialize", "--levels=0")),
        ):
            shutil.copy(paths.mask(other[0]), paths.mask(level))
            status, _, err = self.command(flags[0], *flags[1:], *self.small, "--quiet")
            self.assertEqual((status, err.count("\n")), (2, 1), err)
            self.assertIn(f"{paths.mask(level)} does not fit the model: the mask has shape [3, 64] for ", err)
            self.assertIn("its model has [6, 64]", err)


class TestLevels(LotteryTestCase):
    def test_a_level_writes_exactly_its_files(self):
        folders = self.lottery("--rewinding_steps=2it")
        self.assertRegex(os.path.relpath(folders[1], self.root), r"^lottery_[0-9a-f]{32}/seed_3/level_1/main$")
        seed = os.path.dirname(os.path.dirname(folders[0]))
        self.assertEqual(sorted(os.listdir(seed)), ["level_0", "level_1", "level_pretrain", "levels_0-1.png"])
        files = ["checkpoint.pth", "logger", "mask.pth", "model_ep0_it2.pth", "model_ep2_it0.pth"]
        files += ["provenance.json", "sparsity_report.json"]
        self.assertEqual(sorted(os.listdir(folders[1])), files)
        self.assertEqual(sorted(os.listdir(folders[0])), sorted([*files, "hparams.log", "hparams_dict"]))

    def test_each_level_removes_a_fraction_of_all_remaining_weights_and_one_more(self):
        left, masks = 64 * 6 + 6 * 5 + 5 * 10, []
        for folder in self.lottery("--pruning_fraction=0.3", levels=4):
            with open(paths.sparsity_report(folder)) as file:
                self.assertEqual(json.load(file), {"total": 64 * 6 + 6 * 5 + 5 * 10, "unpruned": left})
            masks.append(Mask.load(folder))
            self.assertTrue(masks[-1]["fc.weight"].all())
            left -= math.ceil(3 * left / 10) + 1
        for before, after in zip(masks[:-1], masks[1:], strict=True):
            self.assertTrue(all(bool((before[name] >= after[name]).all()) for name in before))

    def test_every_level_starts_from_the_masked_initial_weights(self):
        folders = self.lottery(levels=2)
        first = self.weights(folders[0])
        self.assert_same(first, models.get(LotteryDesc.default_for("digits_lenet_6_5").model_hparams, 10, seed=3).state_dict())
        for folder in folders:
            mask, end = Mask.load(folder), self.weights(folder, "ep2_it0")
            self.assert_same(self.weights(folder), first, mask)
            self.assert_same(end, end, mask)
            self.assertFalse(torch.equal(end["fc.weight"], first["fc.weight"]))

    def test_the_smallest_trained_weights_are_removed(self):
        whole, pruned = self.lottery("--pruning_fraction=0.5")
        end, mask = self.weights(whole, "ep2_it0"), Mask.load(pruned)
        names = ["fc_layers.0.weight", "fc_layers.1.weight"]
        kept, gone = (torch.cat([end[name][chosen(mask[name])].abs() for name in names]) for chosen in (lambda m: m, lambda m: ~m))
        self.assertGreaterEqual(kept.min(), gone.max())

    def test_level_0_equals_the_command_train(self):
        folder = self.lottery(levels=0)[0]
        self.command("train", *self.small, "--quiet")
        (trained,) = self.folders("train", *self.small)
        self.assert_same(self.weights(folder, "ep2_it0"), self.weights(trained, "ep2_it0"))
        self.assertEqual(*(Path(paths.logger(each)).read_text() for each in (folder, trained)))

    def test_without_rewinding_the_trained_weights_are_kept(self):
        folders = self.lottery("--pruning_strategy=han", levels=2)
        for before, after in zip(folders[:-1], folders[1:], strict=True):
            self.assert_same(self.weights(after), self.weights(before, "ep2_it0"), Mask.load(after))

    def test_masks_of_initial_weights_do_not_depend_on_training(self):
        for strategy, same in (("snip", True), ("sparse_global", False)):
            masks = [Mask.load(self.lottery(f"--pruning_strategy={strategy}", f"--lr={lr}")[1]) for lr in (0.1, 3.0)]
            self.assertEqual(masks[0] == masks[1], same, strategy)

    def test_the_seed_determines_all_files(self):
        self.assertEqual(len(set(self.lottery(levels=2))), 3)
        before = self.contents()
        shutil.rmtree(self.root)
        self.lottery(levels=2)
        self.assertEqual(self.contents(), before)

    def test_a_random_seed_is_drawn_once_for_all_levels(self):
        unseeded = self.small[:-1]
        folders = self.lottery(levels=0, small=unseeded)
        self.assertIn("seed_-1", folders[0])
        folders = self.lottery(levels=1, small=unseeded)
        self.assert_same(self.weights(folders[1]), self.weights(folders[0]), Mask.load(folders[1]))

    def test_the_output_ends_with_a_table_and_a_picture(self):
        status, out, err = self.command("lottery", *self.small, "--levels=2")
        self.assertEqual((status, err), (0, ""))
        self.assertIn("Level 2 of 2: 295 of 464 weights (63.58%)", out)
        lines = out.splitlines()
        self.assertEqual([line.split()[0] for line in lines[-5:]], ["level", "0", "1", "2", "Picture:"])
        self.assertTrue(os.path.exists(lines[-1].removeprefix("Picture: ")))
        self.assertEqual(self.command("lottery", *self.small, "--levels=2")[1].splitlines()[-5:], lines[-5:])

    def test_display_output_location_prints_all_levels_and_writes_nothing(self):
        folders = self.folders("lottery", *self.small, "--levels=2")
        self.assertEqual([folder.split(os.sep)[-2] for folder in folders], ["level_0", "level_1", "level_2"])
        self.assertEqual(self.files(), [])

    def test_every_strategy_prunes_networks_and_stacks_of_students(self):
        teacher, _ = toy_teacher.make("mlp_6_4_3", "tanh", seed=1)
        asked = (f"--teacher_name={teacher}", "--teacher_seed=1", "--datagen=random:40", "--training_steps=2ep", "--global_seed=3")
        students = ("--default_hparams=students_mlp(2)_6_5_3", *asked)
        flags = ("--pruning_fraction=0.4", "--pruning_layers_to_ignore=")
        for strategy in strategies.registered_strategies:
            for small, network in ((self.small, 64 * 6 + 6 * 5 + 5 * 10), (students, 6 * 5 + 5 * 3)):
                with self.subTest(strategy=strategy, model=small[0]):
                    mask = Mask.load(self.lottery(f"--pruning_strategy={strategy}", *flags, small=small)[1])
                    for alone in [mask] if small is self.small else [mask.select(0), mask.select(1)]:
                        self.assertEqual(alone.total, network)
                        hidden, output = ((384, 30), 50) if small is self.small else ((30,), 15)
                        removed = {
                            "fc19": math.ceil(2 * sum(hidden) / 5) + 1 + math.ceil(output / 5) + 1,
                            "sparse_layerwise": sum(math.ceil(2 * size / 5) for size in (*hidden, output)),
                        }.get(strategy, math.ceil(2 * network / 5) + (strategy in ("sparse_global", "han")))
                        self.assertEqual(alone.unpruned, network - removed)

    def test_the_metric_of_students_is_the_loss(self):
        teacher, _ = toy_teacher.make("mlp_6_4_3", "tanh", seed=1)
        asked = (f"--teacher_name={teacher}", "--teacher_seed=1", "--datagen=random:40", "--training_steps=2ep", "--global_seed=3")
        _, out, _ = self.command("lottery", "--default_hparams=students_mlp(2)_6_5_3", *asked, "--levels=0")
        self.assertIn("test loss       best", out)


class TestPretraining(LotteryTestCase):
    def test_levels_are_rewound_to_the_weights_of_that_training_step(self):
        """Whatever the learning rate does over training."""
        changes = ("--lr_decay=cosine", "--warmup_steps=3it", "--milestone_steps=4it")
        folders = self.lottery("--rewinding_steps=1ep2it", *changes)
        hparams = TrainingHparams("sgd", 0.3, "2ep", lr_decay="cosine", warmup_steps="3it", milestone_steps="4it")
        loader, _ = datasets.get_both(DatasetHparams("digits", 500), hparams, 3)
        model = models.get(LotteryDesc.default_for("digits_lenet_6_5").model_hparams, 10, seed=3)
        plain = os.path.join(self.root, "plain")
        train_module.train(hparams, model, loader, plain, Plan([run_at_step(Step(5, BATCHES), save_model)]))
        for folder in folders:
            self.assert_same(self.weights(folder, "ep1_it2"), self.weights(plain, "ep1_it2"), Mask.load(folder))
        self.assert_same(self.weights(folders[0], "ep2_it0"), model.state_dict())

    def test_pretraining_with_the_same_hyperparameters_equals_rewinding(self):
        folders = self.lottery("--rewinding_steps=2it")
        before = self.contents()
        shutil.rmtree(self.root)
        self.assertEqual(self.lottery("--pretrain", "--pretrain_training_steps=2it"), folders)
        self.assertEqual(self.contents(), before)

    def test_training_continues_from_the_last_step_of_pretraining(self):
        folder = self.lottery("--rewinding_steps=1ep", levels=0)[0]
        log = Path(paths.logger(folder)).read_text()
        self.assertEqual([line.split("$")[1] for line in log.splitlines() if line.startswith("test_loss")], ["3", "6"])

    def test_other_hyperparameters_of_pretraining_are_used(self):
        steps = ("--pretrain", "--pretrain_training_steps=2it")
        rewound = self.weights(self.lottery(*steps, levels=0)[0], "ep0_it2")
        other = self.weights(self.lottery(*steps, "--pretrain_lr=0.05", levels=0)[0], "ep0_it2")
        self.command("train", *self.small, "--lr=0.05", "--training_steps=2it", "--quiet")
        (trained,) = self.folders("train", *self.small, "--lr=0.05", "--training_steps=2it")
        self.assert_same(other, self.weights(trained, "ep0_it2"))
        self.assertFalse(torch.equal(other["fc.weight"], rewound["fc.weight"]))

    def test_a_dataset_with_other_outputs_gets_a_new_output_layer(self):
        teacher, _ = toy_teacher.make("mlp_64_3_2", "relu", seed=1)
        asked = (f"--pretrain_teacher_name={teacher}", "--pretrain_teacher_seed=1", "--pretrain_datagen=random:1200")
        steps = ("--pretrain", "--pretrain_dataset_name=teacher", "--pretrain_training_steps=2it")
        folder = self.lottery(*steps, *asked, levels=0)[0]
        pretrained = self.weights(folder.replace("level_0", "level_pretrain"), "ep0_it2")
        self.assertEqual(pretrained["fc.weight"].shape, (2, 5))
        start, fresh = self.weights(folder, "ep0_it2"), models.get(LotteryDesc.default_for("digits_lenet_6_5").model_hparams, 10, 3)
        for name, value in start.items():
            expected = fresh.state_dict()[name] if name.startswith("fc.") else pretrained[name]
            self.assertTrue(torch.equal(value, expected), name)

    def test_help_lists_the_flags_of_pretraining_with_pretrain(self):
        for arguments, listed in (((), False), (("--pretrain",), True)):
            _, out, _ = self.command("lottery", *self.small, *arguments, "--help")
            for flag in ("--pretrain_lr", "--pretrain_dataset_name", "--pretrain_training_steps"):
                self.assertEqual(f" {flag} " in out, listed, flag)


class TestResuming(LotteryTestCase):
    def test_finished_levels_are_not_trained_again(self):
        self.assertEqual(self.trained_in("--rewinding_steps=2it", levels=1), ["level_pretrain", "level_0", "level_1"])
        before = self.contents()
        self.assertEqual(self.trained_in("--rewinding_steps=2it", levels=1), [])
        self.assertEqual(self.trained_in("--rewinding_steps=2it", levels=2), ["level_2"])
        self.assertEqual({name: self.contents()[name] for name in before}, before)

    def test_lost_weights_are_restored_from_the_checkpoint(self):
        folders = self.lottery(levels=1)
        before = self.contents()
        os.remove(os.path.join(folders[1], "model_ep2_it0.pth"))
        self.lottery(levels=2)
        self.assertEqual({name: self.contents()[name] for name in before}, before)

    def test_a_run_killed_at_any_write_ends_in_the_same_bits(self):
        """Start after start dies before, or just after, one more write than the last start."""
        for after, arguments in (
            (False, ("--rewinding_steps=2it",)),
            (True, ("--pruning_strategy=han", "--precision=float64")),
            (False, ("--pruning_strategy=snip", "--precision=float64")),
        ):
            self.lottery(*arguments, levels=2)
            undisturbed = self.contents()
            shutil.rmtree(self.root)
            self.assertGreater(self.kill_at_every_write(after, "lottery", *self.small, "--levels=2", *arguments), 5)
            self.assertEqual(self.contents(), undisturbed, arguments)
            shutil.rmtree(self.root)


class TestEarlierVersions(LotteryTestCase):
    """Earlier versions removed fewer weights: a fraction of the weights that are not ignored, and none more."""

    def setUp(self):
        super().setUp()
        self.level = self.lottery()[1]
        mask = Mask.load(self.level)
        kept = mask[(name := "fc_layers.0.weight")].clone()
        kept.view(-1)[(~kept).flatten().nonzero()[: 381 - mask.unpruned]] = True  # 414 of 464 weights are not ignored; 83 went
        Mask({**mask, name: kept}).save(self.level)

    def test_their_levels_are_read_but_not_continued(self):
        before = self.contents()
        status, out, err = self.command("lottery", *self.small, "--levels=1")
        self.assertEqual((status, err), (0, ""))
        self.assertRegex(out, r"\n +1 +381 +82\.11%")
        self.lottery(levels=0)
        status, out, err = self.command("lottery", *self.small, "--levels=2")
        self.assertEqual((status, out, err.count("\n")), (2, "", 1))
        self.assertRegex(
            err, "an earlier version .* pruned level 1 of .*: 381 of 464 weights are left, and this version leaves 370; .*move"
        )
        self.assertEqual({name: content for name, content in self.contents().items() if "levels_0-0" not in name}, before)
        os.remove(os.path.join(self.level, "model_ep2_it0.pth"))
        self.assertEqual(self.command("lottery", *self.small, "--levels=1")[0], 2)

    def test_why_tells_the_reason(self):
        _, out, _ = self.command("runs", "why", "lottery", *self.small[:-1], "--levels=2")
        self.assertRegex(out, "exists:\n.*\n.*\nSeed 3 cannot be continued: an earlier version of this program pruned level 1 of")

    def test_other_seeds_are_compared_without_them(self):
        other = (*self.small[:-1], "--global_seed=4", "--levels=1")
        with mock.patch("lottery.plotting.comparison") as drawn:
            status, out, err = self.command("lottery", *other)
            self.assertEqual((status, err), (0, ""))
            self.assertEqual(
                [line for line in out.splitlines() if line.startswith("Not in")][0].split(", ")[0], "Not in the comparison: seed 3"
            )
            self.assertFalse(drawn.called)  # one seed remains
            self.command("lottery_branch", "randomly_reinitialize", *other)
        self.assertEqual([len(outcomes) for outcomes in drawn.call_args.args[0]["tickets"].values()], [1, 1])

    def test_their_branches_can_be_run(self):
        self.command("lottery_branch", "randomly_reinitialize", *self.small, "--levels=1")
        (folder,) = self.folders("lottery_branch", "randomly_reinitialize", *self.small, "--levels=1")
        self.assertEqual(Mask.load(folder).unpruned, 381)


class TestErrors(LotteryTestCase):
    def test_invalid_commands_are_refused_in_one_line_and_write_nothing(self):
        pretrain = ("--pretrain", "--pretrain_training_steps=1it")
        for expected, arguments in {
            "--levels is required": (),
            "--levels: -1 is out of range": ("--levels=-1",),
            "--levels: 10 is out of range; valid: 9 or less": ("--levels=10",),
            "--pruning_fraction: 0.0 is out of range": ("--levels=1", "--pruning_fraction=0"),
            "--pruning_layers_to_ignore: 'fc' is not known": ("--levels=1", "--pruning_layers_to_ignore=fc"),
            "did you mean 'snip'": ("--levels=1", "--pruning_strategy=snipp"),
            "--rewinding_steps: 6it is out of range": ("--levels=1", "--rewinding_steps=6it"),
            "--further_training: finished levels cannot be trained further": ("--levels=1", "--further_training=1ep"),
            "--polish_optimizer: only extract polishes students": ("--levels=1", "--polish_optimizer=lbfgs"),
            "--pretrain_further_training: finished": ("--levels=1", *pretrain, "--pretrain_further_training=1ep"),
            "pretraining: --model_name: digits_lenet_6_5 takes 64 inputs": ("--levels=1", *pretrain, "--pretrain_dataset_name=mnist"),
            "pretraining: --dataset_name: 'digit' is not known": ("--levels=1", *pretrain, "--pretrain_dataset_name=digit"),
            "pretraining: --teacher_name is required": ("--levels=1", *pretrain, "--pretrain_dataset_name=teacher"),
        }.items():
            with self.subTest(expected):
                status, _, err = self.command("lottery", *self.small, *arguments, "--quiet")
                self.assertEqual((status, err.count("\n")), (2, 1), err)
                self.assertIn(expected, err)
                self.assertEqual(self.files(), [])

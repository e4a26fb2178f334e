"""Names of lottery ticket experiments, and flags for rewinding and pretraining."""

from __future__ import annotations

import dataclasses
import hashlib

from foundations.arguments import ArgumentParser
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError
from foundations.model_hparams import ModelHparams
from foundations.step import Step
from foundations.training_hparams import TrainingHparams
from lottery.desc import LotteryDesc
from pruning import fc19, sparse_global
from testing.test_case import TestCase
from training.desc import TrainingDesc

DEFAULTS = "--default_hparams=digits_lenet_4"


def resnet_20(**training) -> LotteryDesc:
    return LotteryDesc(
        DatasetHparams("cifar10", 128),
        ModelHparams("cifar_resnet_20", "kaiming_normal", "uniform"),
        TrainingHparams("sgd", 0.1, "160ep", **training),
        sparse_global.PruningHparams("sparse_global"),
    )


def parse(*arguments: str) -> LotteryDesc:
    parser = ArgumentParser("EC.py lottery", arguments)
    parser.add_argument("--default_hparams")
    name = parser.peek("default_hparams")
    LotteryDesc.add_args(parser, LotteryDesc.default_for(name) if name else None)
    return LotteryDesc.create_from_args(parser.parse())


class TestNames(TestCase):
    def test_names_equal_those_of_openlth(self):
        """The names that OpenLTH's own test holds for these hyperparameters."""
        milestones = {"momentum": 0.9, "milestone_steps": "80ep,120ep", "delta": 0.1}
        golden = {
            "da8fd50859ba6d59aceca9d50ebcbf7e": {},
            "028eb999ecd1980cd012589829c945a3": {"momentum": 0.9},
            "e696cbf42d8758b8afdf2a16fad1de15": milestones,
            "93bc65d66dfa64ffaf2a0ab105433a2c": milestones | {"weight_decay": 1e-4},
            "4e7b9ee929e8b1c911c5295233e6828f": milestones | {"weight_decay": 1e-4, "warmup_steps": "20ep"},
            "d51482c0d378de4cc71b87b38df2ea84": milestones | {"weight_decay": 1e-4, "warmup_steps": "20ep", "data_order_seed": 0},
        }
        self.assertEqual({f"lottery_{md5}" for md5 in golden}, {resnet_20(**training).hashname for training in golden.values()})

    def test_the_name_covers_pruning_and_pretraining(self):
        desc = parse("--default_hparams=mnist_lenet_300_100", "--rewinding_steps=500it")
        dataset = "Hparams(batch_size=128, dataset_name='mnist')"
        texts = [
            dataset,
            "Hparams(batchnorm_init='uniform', model_init='kaiming_normal', model_name='mnist_lenet_300_100')",
            dataset,
            "Hparams(lr=0.1, optimizer_name='sgd', training_steps='500it')",
            "Hparams(pruning_layers_to_ignore='fc.weight', pruning_strategy='sparse_global')",
            "Hparams(lr=0.1, optimizer_name='sgd', training_steps='40ep')",
        ]
        self.assertEqual(desc.hashname, f"lottery_{hashlib.md5(';'.join(texts).encode()).hexdigest()}")

    def test_levels_are_folders_within_the_folder_of_the_seed(self):
        desc = resnet_20()
        self.assertEqual(desc.run_path("/r", 5, 3), f"/r/{desc.hashname}/seed_5/level_3/main")
        self.assertEqual(desc.run_path("/r", 5, "pretrain"), f"/r/{desc.hashname}/seed_5/level_pretrain/main")
        self.assertEqual(desc.run_path("/r", level=0, experiment="x"), f"/r/{desc.hashname}/seed_-1/level_0/x")


class TestFlags(TestCase):
    def test_defaults_come_from_the_model(self):
        desc = parse(DEFAULTS)
        self.assertEqual(vars(desc), vars(desc) | vars(TrainingDesc.default_for("digits_lenet_4")))
        self.assertEqual(desc.pruning_hparams, sparse_global.PruningHparams("sparse_global", 0.2, "fc.weight"))
        self.assertEqual((desc.pretrain_dataset_hparams, desc.pretrain_training_hparams), (None, None))

    def test_students_have_defaults_of_their_own(self):
        desc = parse("--default_hparams=students_digits_lenet(3)_12")
        self.assertEqual((desc.dataset_hparams.dataset_name, desc.pruning_hparams.pruning_strategy), ("teacher", "sparse_global"))

    def test_the_strategy_determines_the_flags(self):
        desc = parse(DEFAULTS, "--pruning_strategy=fc19", "--pruning_output_fraction=0.05")
        self.assertEqual(desc.pruning_hparams, fc19.PruningHparams("fc19", pruning_output_fraction=0.05))

    def test_rewinding_equals_pretraining_with_the_hyperparameters_of_training(self):
        rewound = parse(DEFAULTS, "--lr=0.3", "--rewinding_steps=5it")
        self.assertEqual(rewound, parse(DEFAULTS, "--lr=0.3", "--pretrain", "--pretrain_training_steps=5it"))
        self.assertEqual(rewound.pretrain_training_hparams, TrainingHparams("sgd", 0.3, "5it"))
        self.assertTrue(rewound.rewinds_to_training)

    def test_rewinding_to_the_start_is_no_pretraining(self):
        self.assertEqual(parse(DEFAULTS, "--rewinding_steps=0ep0it"), parse(DEFAULTS))

    def test_pretraining_inherits_the_hyperparameters_of_training(self):
        training = (DEFAULTS, "--lr=0.3", "--momentum=0.9", "--plateau_opt", "--batch_size=50")
        own = ("--pretrain", "--pretrain_training_steps=5it", "--pretrain_lr", "0.2", "--no-pretrain_plateau_opt")
        desc = parse(*training, *own)
        self.assertEqual(desc.pretrain_training_hparams, TrainingHparams("sgd", 0.2, "5it", momentum=0.9))
        self.assertEqual(desc.pretrain_dataset_hparams, desc.dataset_hparams)
        self.assertFalse(desc.rewinds_to_training)

    def test_another_dataset_inherits_the_batch_size_only(self):
        teacher = ("--dataset_name=teacher", "--teacher_name=x", "--teacher_seed=3", "--datagen=random", "--batch_size=50")
        pretrain = ("--pretrain", "--pretrain_training_steps=5it")
        same, other = parse(DEFAULTS, *teacher, *pretrain), parse(DEFAULTS, *teacher, *pretrain, "--pretrain_dataset_name=digits")
        self.assertEqual(same.pretrain_dataset_hparams, same.dataset_hparams)
        self.assertEqual(other.pretrain_dataset_hparams, DatasetHparams("digits", 50))

    def test_flags_of_pretraining_need_pretrain(self):
        with self.assertRaisesRegex(ConfigError, "--pretrain_lr is valid only together with --pretrain"):
            parse(DEFAULTS, "--pretrain_lr=1")

    def test_errors_name_the_flag(self):
        pretrain = ("--pretrain", "--pretrain_training_steps=5it")
        for arguments, message in (
            (("--pretrain",), "^--pretrain_training_steps is required"),
            ((*pretrain, "--rewinding_steps=5it"), "^--rewinding_steps: 5it is out of range; valid: no value together with --pretrain"),
            (("--rewinding_steps=5",), "^--rewinding_steps: '5' is not a step"),
            ((*pretrain, "--pretrain_lr=-1"), "^--pretrain_lr: -1.0 is out of range"),
            ((*pretrain, "--pretrain_batch_size=0"), "^--pretrain_batch_size: 0 is out of range"),
            ((*pretrain, "--pretrain_lr_decay=cosin"), "^--pretrain_lr_decay: 'cosin' is not known, did you mean 'cosine'"),
            (("--pruning_fraction=1",), "^--pruning_fraction: 1.0 is out of range; valid: more than 0 and less than 1"),
        ):
            with self.subTest(arguments), self.assertRaisesRegex(ConfigError, message):
                parse(DEFAULTS, *arguments)

    def test_the_pruning_strategy_is_required(self):
        flags = ["--dataset_name=digits", "--batch_size=9", "--model_name=digits_lenet_4", "--model_init=binary", "--batchnorm_init=fixed"]
        with self.assertRaisesRegex(ConfigError, "^--pruning_strategy is required"):
            parse(*flags, "--optimizer_name=sgd", "--lr=1", "--training_steps=1ep")


class TestStart(TestCase):
    def test_levels_start_at_the_last_step_of_pretraining(self):
        desc = parse(DEFAULTS, "--pretrain", "--pretrain_training_steps=2ep3it", "--pretrain_batch_size=9")
        self.assertEqual((parse(DEFAULTS).start_step(10), desc.start_step(10)), (Step(0, 10), Step(23, 10)))

    def test_levels_must_start_before_the_end_of_training(self):
        desc = parse(DEFAULTS, "--rewinding_steps=400it")
        self.assertEqual(desc.start_step(11), Step(400, 11))
        with self.assertRaisesRegex(ConfigError, "--rewinding_steps: 400it is out of range; valid: less than the 40ep of training"):
            desc.start_step(10)


class TestDisplay(TestCase):
    def test_rewinding_is_displayed_as_one_line(self):
        self.assertTrue(parse(DEFAULTS, "--rewinding_steps=5it").display.endswith("\nRewinding\n    * rewinding_steps => 5it"))

    def test_pretraining_is_displayed_with_its_flags(self):
        desc = parse(DEFAULTS, "--pretrain", "--pretrain_training_steps=5it", "--pretrain_lr=0.2")
        shown = desc.display.partition("\nPretraining\n")[2]
        for line in ("* pretrain_dataset_name => digits", "* pretrain_lr => 0.2", "* pretrain_training_steps => 5it"):
            self.assertIn(line, shown)
        self.assertEqual(desc.log, desc.display)

    def test_without_pretraining_the_display_ends_with_pruning(self):
        self.assertTrue(parse(DEFAULTS).display.endswith(dataclasses.replace(parse(DEFAULTS)).pruning_hparams.display))

"""Names that users of OpenLTH and of the published Expand-and-Cluster know: flags, attributes, arguments and functions."""

from __future__ import annotations

import importlib
import os
import re

import torch

import EC
from datasets import registry as datasets
from datasets.base import DataLoader
from foundations.arguments import ArgumentParser
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError
from foundations.extraction_hparams import ExtractionHparams
from foundations.model_hparams import ModelHparams
from foundations.step import Step
from foundations.training_hparams import TrainingHparams
from lottery.desc import LotteryDesc
from platforms import local
from pruning.sparse_global import PruningHparams
from testing.test_case import TestCase
from training import optimizers, standard_callbacks
from training.desc import TrainingDesc
from training.job import JobArgs

# The flags of OpenLTH's `train`, and those that the published Expand-and-Cluster adds to them.
JOB = ["default_hparams", "quiet", "evaluate_only_at_end", "platform", "display_output_location", "num_workers"]
DATASET = ["dataset_name", "batch_size", "do_not_augment", "transformation_seed", "subsample_fraction", "random_labels_fraction"]
DATASET += ["unsupervised_labels", "blur_factor", "teacher_name", "teacher_seed", "samples", "datagen", "d_in"]
MODEL = ["model_name", "model_init", "batchnorm_init", "batchnorm_frozen", "output_frozen", "others_frozen", "others_frozen_exceptions"]
TRAINING = ["optimizer_name", "lr", "training_steps", "data_order_seed", "momentum", "nesterov_momentum", "milestone_steps", "delta"]
TRAINING += ["plateau_opt", "patience", "cooldown", "warmup_steps", "weight_decay", "apex_fp16", "further_training"]
TRAIN = [*JOB, "global_seed", *DATASET, *MODEL, "act_fun", *TRAINING]
LOTTERY = [*TRAIN, "levels", "rewinding_steps", "pretrain", "pruning_strategy", "pruning_fraction", "pruning_layers_to_ignore"]
EXTRACT = [*TRAIN, "gamma", "beta", "finetune_lr", "boruta"]
STRATEGY = "--pruning_strategy=sparse_global"

SGD = TrainingHparams("sgd", 0.1, "2ep")
DIGITS = DatasetHparams("digits", 500)
LENET = ModelHparams("digits_lenet_4", "kaiming_normal", "uniform")


def parser(command: str, *arguments: str) -> ArgumentParser:
    return EC.COMMANDS.parser(command, arguments)


class TestFlags(TestCase):
    def assert_refused(self, message: str, command: str, *arguments: str) -> None:
        with self.assertRaises(ConfigError) as caught:
            parser(command, *arguments).parse()
        self.assertTrue(str(caught.exception).startswith(message), caught.exception)

    def test_flags_with_the_same_name_exist(self):
        for command, names in (("train", TRAIN), ("lottery", LOTTERY), ("extract", EXTRACT)):
            flags = {flag for action in parser(command, STRATEGY)._actions for flag in action.option_strings}
            self.assertEqual([name for name in names if f"--{name}" not in flags], [], command)

    def test_the_error_for_a_renamed_flag_names_the_flag_that_took_over(self):
        for command in ("train", "lottery", "extract"):
            self.assert_refused("--replicate is called --global_seed here", command, "--replicate", "3")
        for command in ("train", "lottery"):
            self.assert_refused("--gamma is called --delta here", command, "--gamma=0.1")
        self.assert_refused("--finetune_traning_steps is called --finetune_training_steps", "extract", "--finetune_traning_steps", "3ep")

    def test_prefixed_flags_are_explained_as_well(self):
        self.assert_refused("--pretrain_gamma is called --pretrain_delta here", "lottery", "--pretrain", "--pretrain_gamma", "0.1")
        self.assert_refused("--retrain_t_gamma is called --retrain_t_delta here", "lottery_branch", "retrain", "--retrain_t_gamma=0.1")
        self.assert_refused("--pretrain_training_steps is valid only together with --pretrain", "lottery", "--pretrain_training_steps=1it")

    def test_a_flag_without_a_counterpart_is_explained(self):
        self.assert_refused("--conv_level does not exist here: extract recovers", "extract", "--conv_level", "1")
        for name in ("subset_start", "subset_end", "subset_stride"):
            self.assert_refused(f"--{name} does not exist here: --subsample_fraction", "train", f"--{name}=1")

    def test_a_flag_that_no_ancestor_has_is_not_an_argument(self):
        self.assert_refused("--gammas=1 is not an argument of EC.py train", "train", "--gammas=1")
        self.assert_refused("--replicate is not an argument of EC.py runs", "runs", "--replicate", "1")


class TestHyperparameters(TestCase):
    def test_an_attribute_that_is_no_field_raises(self):
        hparams = TrainingHparams("sgd", 0.1, "1ep")
        with self.assertRaisesRegex(AttributeError, "TrainingHparams has no field 'gamma', which is called delta here"):
            hparams.gamma = 0.5
        with self.assertRaisesRegex(AttributeError, "no field 'momentun', did you mean 'momentum'"):
            hparams.momentun = 0.5
        with self.assertRaisesRegex(AttributeError, "JobArgs has no field 'replicate', which is called global_seed here"):
            JobArgs().replicate = 2
        with self.assertRaisesRegex(AttributeError, "no field 'root'"):
            local.Platform().root = "/tmp"

    def test_a_value_of_the_wrong_type_raises_also_when_it_is_assigned(self):
        hparams = TrainingHparams("sgd", 0.1, "1ep")
        for name, value in (("lr", "0.1"), ("lr", None), ("lr", True), ("training_steps", 5), ("patience", 1.5), ("patience", True)):
            with self.subTest(name=name, value=value), self.assertRaisesRegex(TypeError, f"TrainingHparams.{name} is "):
                setattr(hparams, name, value)
        hparams.weight_decay = None
        hparams.lr = 2
        self.assertEqual((repr(hparams.lr), hparams.weight_decay), ("2.0", None))

    def test_positional_arguments_with_another_meaning_in_an_ancestor_raise(self):
        calls = {
            "do_not_augment": lambda: DatasetHparams("cifar10", 128, True),
            "transformation_seed": lambda: DatasetHparams("cifar10", 128, False, 3),
            "batchnorm_frozen": lambda: ModelHparams("cifar_resnet_20", "kaiming_normal", "uniform", True),
            "apex_fp16": lambda: TrainingHparams("sgd", 0.1, "1ep", None, 0.9, 0.0, "1ep", 0.1, "1it", 1e-4, True),
            "plateau_opt": lambda: TrainingHparams("sgd", 0.1, "1ep", None, 0.9, 0.0, None, 0.1, False),
            "finetune_traning_steps": lambda: ExtractionHparams(0.7, 6.0, "average"),
            "replicate": lambda: JobArgs(1),
            "the order of a training run": lambda: TrainingDesc(LENET, DIGITS, SGD),
            "the order of an experiment": lambda: LotteryDesc(LENET, DIGITS, SGD, PruningHparams("sparse_global")),
        }
        for meaning, call in calls.items():
            with self.subTest(meaning), self.assertRaises(TypeError):
                call()

    def test_positional_arguments_with_the_same_meaning_are_valid(self):
        hparams = TrainingHparams("sgd", 0.1, "160ep", 7, 0.9, 0.0, "80ep,120ep", 0.1, "5ep", 1e-4)
        self.assertEqual((hparams.data_order_seed, hparams.delta, hparams.weight_decay), (7, 0.1, 1e-4))
        pruning = PruningHparams("sparse_global", 0.3, "fc.weight")
        self.assertEqual((pruning.pruning_fraction, pruning.pruning_layers_to_ignore), (0.3, "fc.weight"))


class TestInterface(TestCase):
    def test_a_step_is_made_from_an_iteration_or_an_epoch(self):
        self.assertEqual((Step.from_iteration(7, 3).ep, Step.from_iteration(7, 3).it), (2, 1))
        self.assertEqual(Step.from_epoch(2, 1, 3), Step.from_iteration(7, 3))
        self.assertEqual(Step.zero(3).iteration, 0)

    def test_iterations_per_epoch_and_classes_of_a_dataset(self):
        self.assertEqual(datasets.iterations_per_epoch(DIGITS), 3)  # 1,437 examples
        self.assertEqual(datasets.num_classes(DIGITS), 10)
        loader = datasets.get(DIGITS, train=False)
        self.assertIsInstance(loader, DataLoader)
        self.assertEqual(loader.iterations_per_epoch, 1)

    def test_the_learning_rate_schedule_has_milestones_and_warmup(self):
        model = torch.nn.Linear(1, 1)
        hparams = TrainingHparams("sgd", 1.0, "4ep", milestone_steps="2ep,3ep", delta=0.5, warmup_steps="2it")
        schedule = optimizers.get_lr_schedule(hparams, optimizers.get_optimizer(hparams, model), 2)
        rates = []
        while not schedule.is_over():
            rates.append(schedule.optimizer.param_groups[0]["lr"])
            schedule.step(torch.tensor(1.0))
        self.assertEqual(rates, [0.0, 0.5, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25])

    def test_run_every_step_calls_at_every_step(self):
        steps = []
        callback = standard_callbacks.run_every_step(lambda location, step, *rest: steps.append(step.iteration))
        for iteration in range(3):
            callback("", Step.from_iteration(iteration, 2), None, None, None)
        self.assertEqual(steps, [0, 1, 2])

    def test_one_process_is_the_primary_one_and_waits_for_no_other(self):
        platform = local.Platform()
        platform.barrier()
        self.assertEqual((platform.rank, platform.world_size, platform.is_primary_process), (0, 1, True))


class TestTable(TestCase):
    """The table of names in foundations/README.md."""

    def test_every_name_of_the_right_column_exists(self):
        path = os.path.join(os.path.dirname(EC.__file__), "foundations", "README.md")
        with open(path, encoding="utf-8") as file:
            rows = re.findall(r"^\| (.*) \| (.*) \|$", file.read().partition("## Names in OpenLTH")[2], re.MULTILINE)
        names = [name for _, here in rows for name in re.findall(r"`((?:\w+\.)+\w+)`", here)]
        self.assertGreater(len(names), 30)
        self.assertEqual([name for name in names if not exists(name)], [])

    def test_a_name_that_does_not_exist_is_noticed(self):
        self.assertEqual([exists("training.train.nothing"), exists("training.nothing.x"), exists("foundations.step.Step.ep")], [0, 0, 1])


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute or a field in a module."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            if not hasattr(value, part) and part not in getattr(value, "__dataclass_fields__", {}):
                return False
            value = getattr(value, part, None)
        return True
    return False

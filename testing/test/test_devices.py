"""Every workflow runs on a device that refuses to mix with the CPU: a GPU where there is one, elsewhere a pretended one.

The pretended device computes on the CPU, so that all results have to be the same bits.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import unittest
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from lottery.branch import registry as branches
from models import base
from platforms import registry as platforms
from pruning import registry as strategies
from testing import dataset_files, pretended_device, toy_teacher
from testing.test_case import CpuPlatform, TestCase
from training import checkpointing
from training.evaluation import evaluate

ON_GPU = torch.cuda.is_available()
FIGURES_ERROR = 1e-5  # of evaluations and certificates, relative: evaluations have other batches than on the CPU
STEP = re.compile(r"ep\d+_it\d+")

DIGITS = ("--default_hparams=digits_lenet_6_5", "--training_steps=2ep", "--batch_size=500", "--lr=0.1", "--global_seed=3", "--quiet")
IMAGES = ("--default_hparams=cifar_resnet_8_4", "--training_steps=2ep", "--batch_size=4", "--global_seed=3", "--quiet")
STUDENTS = ("--default_hparams=students_mlp(3)_3_5_2", "--training_steps=6it", "--batch_size=100", "--global_seed=3", "--quiet")
POLISHED = ("--polish_optimizer=levenberg_marquardt", "--polish_steps=30it", "--global_seed=3")
PICTURES = ("training.plotting.save", "lottery.plotting.save", "extraction.plotting.save")


class DeviceTestCase(TestCase):
    """A test that runs commands on the CPU and on the device."""

    def setUp(self):
        super().setUp()
        if not ON_GPU and pretended_device.missing():
            self.skipTest(pretended_device.missing())
        for picture in PICTURES:
            patch = mock.patch(picture)  # all is drawn; what is drawn is not rendered
            patch.start()
            self.addCleanup(patch.stop)

    def assert_same(self, *commands: tuple[str, ...], prepare: Callable[[], object] = lambda: None) -> None:
        """That commands succeed on the device and write the networks and masks that they write on the CPU, and the same figures.

        On a GPU, whose rounding differs, that they write networks and masks for the same runs.

        Args:
            commands: the arguments of each.
            prepare: writes what the commands need to the folder of results.
        """
        on_cpu = self.results("cpu", commands, prepare)
        self.assert_results(self.results("device", commands, prepare), on_cpu)

    def assert_results(self, there: dict[str, object], on_cpu: dict[str, object]) -> None:
        """That commands have written the same on the device as on the CPU; on a GPU, networks of the same names, but for their steps."""
        self.assertTrue(on_cpu)
        if ON_GPU:
            self.assert_same_names(there, on_cpu)
            return
        self.assertEqual(there.keys(), on_cpu.keys())
        for path, expected in on_cpu.items():
            with self.subTest(path):
                self.assert_equal(there[path], expected)

    def assert_same_names(self, there: dict[str, object], on_cpu: dict[str, object]) -> None:
        """That results have the same names, but for the steps in them; networks on the way to a recovered network are left out."""
        self.assertEqual(*({STEP.sub("", path) for path in written if "finetune" not in path} for written in (there, on_cpu)))

    def results(self, name: str, commands: tuple[tuple[str, ...], ...], prepare: Callable[[], object] = lambda: None) -> dict[str, object]:
        """Runs commands on `cpu` or on the `device`, in a folder of results of their own; returns what they have written, by path."""
        root = os.path.join(self.root, name)
        with mock.patch.dict(os.environ, EC_ROOT=root):
            prepare()
            with on_device() if name == "device" else mock.patch.dict(platforms.registered_platforms, local=CpuPlatform):
                for command in commands:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", DeprecationWarning)  # of torch, in some versions
                        status, out, err = self.command(*command)
                    self.assertEqual((status, err), (0, ""), out)
        files = [path for path in sorted(Path(root).rglob("*")) if "checkpoint" not in path.name]
        results = {str(path.relative_to(root)): base.read_state(str(path)) for path in files if path.suffix == ".pth"}
        results |= {str(path.relative_to(root)): evaluations(path) for path in files if path.name == "logger"}
        return results | {str(path.relative_to(root)): report(path) for path in files if path.name == "report.json"}

    def assert_equal(self, result: object, expected: object):
        """That two results are equal, their tensors bit for bit."""
        if isinstance(expected, dict):
            self.assertEqual(result.keys(), expected.keys())
            for name, value in expected.items():
                self.assert_equal(result[name], value)
        elif isinstance(expected, list):
            self.assertEqual(len(result), len(expected))
            for value, other in zip(result, expected, strict=True):
                self.assert_equal(value, other)
        elif isinstance(expected, torch.Tensor):
            self.assertTrue(torch.equal(result, expected))
        elif isinstance(expected, float):
            np.testing.assert_allclose(result, expected, rtol=FIGURES_ERROR)
        else:
            self.assertEqual(result, expected)


def on_device() -> contextlib.AbstractContextManager:
    """Has commands run on the device."""
    return contextlib.nullcontext() if ON_GPU else pretended_device.installed()


def evaluations(path: Path) -> list[float]:
    """The numbers in a log."""
    return [number for line in path.read_text().splitlines() for number in np.ravel(json.loads(line.split("$")[2]))]


def report(path: Path) -> dict[str, object]:
    """What a report says of the network, but for the folder that it is in."""
    content = json.loads(path.read_text())
    return {name: content[name] for name in ("identified", "max_relative_error", "certificate", "layers", "before_finetuning")}


def teacher(model_name: str, act_fun: str) -> tuple[str, ...]:
    """The flags that ask a toy teacher, which they write."""
    name, _ = toy_teacher.make(model_name, act_fun, seed=1)
    return f"--teacher_name={name}", "--teacher_seed=1", f"--act_fun={act_fun}"


class TestTraining(DeviceTestCase):
    def test_a_command_trains_on_the_device(self):
        with on_device(), mock.patch("training.standard_callbacks.evaluate", wraps=evaluate) as evaluations:
            self.assertEqual(self.command("train", *DIGITS), (0, "", ""))
        devices = {next(call.args[0].parameters()).device.type for call in evaluations.call_args_list}
        self.assertEqual(devices, {"cuda" if ON_GPU else pretended_device.NAME})

    def test_a_fully_connected_network(self):
        optimizers = {
            "sgd": ("--momentum=0.9", "--warmup_steps=2it", "--milestone_steps=4it"),
            "sgd on a plateau": ("--nesterov_momentum=0.9", "--plateau_opt"),
            "adam": ("--optimizer_name=adam", "--lr=0.01", "--weight_decay=0.01", "--centred"),
            "nadam": ("--optimizer_name=nadam", "--lr=0.01"),
            "lbfgs": ("--optimizer_name=lbfgs", "--lr=1"),
            "float64": ("--precision=float64",),
            "bf16": ("--precision=bf16",),
            "fp16": ("--precision=fp16",),
            "frozen": ("--others_frozen",),
            "other images": ("--subsample_fraction=0.5", "--random_labels_fraction=0.5", "--blur_factor=2"),
            "rotation": ("--unsupervised_labels=rotation",),
        }
        for name, flags in optimizers.items():
            with self.subTest(name):
                self.assert_same(("train", *DIGITS, *flags))

    def test_a_convolutional_network(self):
        with dataset_files.cifar10(os.path.join(self.root, "datasets"), train=10, test=4):
            for precision in ("float32", "bf16"):
                with self.subTest(precision):
                    self.assert_same(("train", *IMAGES, f"--precision={precision}"))

    def test_a_network_on_images_that_are_read_from_files(self):
        dataset_files.write_imagenet(os.path.join(self.root, "imagenet"))
        flags = ("--training_steps=1ep", "--batch_size=6", "--warmup_steps=0it", "--global_seed=3", "--quiet")
        self.assert_same(("train", "--default_hparams=imagenet_resnet_18_4", *flags))

    def test_a_step_does_not_wait_for_the_device(self):
        if ON_GPU:
            self.skipTest("a GPU does not count")
        asked = (*STUDENTS, *teacher("mlp_3_3_2", "relu"), "--datagen=random:3000")
        commands = {
            "sgd": ("train", *DIGITS, "--plateau_opt"),
            "fp16": ("train", *DIGITS, "--momentum=0.9", "--precision=fp16"),
            "students": ("train", *asked, "--centred"),
            "a ticket": ("lottery", *DIGITS, "--centred", "--act_fun=g", "--levels=0"),
        }
        for name, command in commands.items():
            with self.subTest(name):
                waits = []
                for steps in (4, 8):  # within the first epoch
                    with pretended_device.recorded_waits() as record, on_device():
                        flags = ("--batch_size=100", f"--training_steps={steps}it")
                        self.assertEqual(self.command(*command, *flags), (0, "", ""))
                    waits.append(len(record))
                self.assertGreater(waits[0], 0)
                self.assertEqual(*waits)

    def test_students(self):
        asked = (*teacher("mlp_3_3_2", "tanh"), "--datagen=random:300")
        flags = {
            "adam": ("--centred",),
            "lbfgs": ("--optimizer_name=lbfgs", "--lr=1", "--batch_size=300"),
            "levenberg_marquardt": ("--optimizer_name=levenberg_marquardt", "--lr=1", "--batch_size=300"),
        }
        for name, own in flags.items():
            with self.subTest(name):
                self.assert_same(("train", *STUDENTS, *asked, *own), prepare=lambda: teacher("mlp_3_3_2", "tanh"))

    def test_levenberg_marquardt_with_products(self):
        asked = (*teacher("mlp_3_3_2", "tanh"), "--datagen=random:300", "--optimizer_name=levenberg_marquardt", "--lr=1")
        with mock.patch("training.second_order.DENSE_PARAMETERS", 0), mock.patch("training.linear_solvers.CG_ITERATIONS", 10):
            self.assert_same(("train", *STUDENTS, *asked), prepare=lambda: teacher("mlp_3_3_2", "tanh"))

    def test_an_interrupted_run_goes_on(self):
        optimizers = {
            "adam": ("--optimizer_name=adam", "--lr=0.01", "--plateau_opt"),
            "nadam": ("--optimizer_name=nadam", "--lr=0.01"),
            "lbfgs": ("--optimizer_name=lbfgs", "--lr=1", "--batch_size=2000", "--training_steps=6it"),
            "fp16": ("--precision=fp16",),
        }
        for name, flags in optimizers.items():
            command = ("train", *DIGITS, *flags)
            with self.subTest(name):
                undisturbed = self.results("cpu", (command,))
                interrupted = self.results("device", (command,), lambda command=command: self.interrupt(command))
                self.assert_results(interrupted, undisturbed)

    def interrupt(self, command: tuple[str, ...]) -> None:
        """Runs a command on the device until its third checkpoint."""
        save, calls = checkpointing.save, 0

        def save_and_stop(*state):
            nonlocal calls
            calls += 1
            save(*state)
            if calls == 3:
                raise KeyboardInterrupt

        with contextlib.ExitStack() as patches:
            patches.enter_context(on_device())
            patches.enter_context(mock.patch.multiple("training.train", CHECKPOINT_SECONDS=1e-9, CHECKPOINT_SECONDS_WITHIN=1e-9))
            patches.enter_context(mock.patch.object(checkpointing, "TIME_SHARE", math.inf))
            patches.enter_context(mock.patch.object(checkpointing, "save", save_and_stop))
            self.assertEqual(self.command(*command)[0], 130)


class TestExtraction(DeviceTestCase):
    """Extraction solves least-squares problems by another method on a device, so that its results agree to rounding only."""

    def assert_results(self, there: dict[str, object], on_cpu: dict[str, object]) -> None:
        self.assert_same_names(there, on_cpu)
        if not ON_GPU:
            students = {path: value for path, value in on_cpu.items() if "clustering_" not in path}
            super().assert_results({path: there.get(path) for path in students}, students)
        reports = [[value for path, value in results.items() if path.endswith("report.json")] for results in (there, on_cpu)]
        for ours, expected in zip(*reports, strict=True):
            self.assertEqual(
                [layer["recovered_width"] for layer in ours["layers"]], [layer["recovered_width"] for layer in expected["layers"]]
            )
            self.assertEqual(ours["certificate"]["accepted"], expected["certificate"]["accepted"])
            self.assertLess(ours["max_relative_error"], 1e-9)

    def assert_extracts(self, model_name: str, act_fun: str, students: str, *flags: str) -> None:
        asked = teacher(model_name, act_fun)
        command = ("extract", f"--default_hparams={students}", *asked, *POLISHED, *flags, "--quiet")
        self.assert_same(command, prepare=lambda: teacher(model_name, act_fun))
        (path,) = Path(self.root, "device").rglob("report.json")
        self.assertTrue(json.loads(path.read_text())["identified"])

    def test_one_layer_of_tanh(self):
        self.assert_extracts("mlp_3_3_2", "tanh", "students_mlp(5)_3_8_2", "--datagen=random:300", "--training_steps=100it")

    def test_one_layer_of_relu(self):
        self.assert_extracts("mlp_3_3_2", "relu", "students_mlp(5)_3_8_2", "--datagen=random:300", "--training_steps=100it")

    def test_two_layers_of_tanh(self):
        flags = ("--datagen=random:200", "--training_steps=300it", "--polish_steps=20it", "--gamma=0.67", "--beta=3")
        self.assert_extracts("mlp_3_3_2_2", "tanh", "students_mlp(3)_3_6_5_2", *flags)

    def test_two_layers_of_relu(self):
        flags = ("--datagen=random:400", "--training_steps=500it", "--gamma=0.4", "--beta=3")
        flags = (*flags, "--global_seed=4")  # with most other seeds the rounding decides whether all neurons are found
        self.assert_extracts("mlp_3_3_2_2", "relu", "students_mlp(5)_3_6_5_2", *flags)


class TestLottery(DeviceTestCase):
    def test_each_strategy(self):
        for name in strategies.registered_strategies:
            with self.subTest(name):
                self.assert_same(("lottery", *DIGITS, "--levels=1", f"--pruning_strategy={name}"))

    def test_strategies_with_a_convolutional_network(self):
        with dataset_files.cifar10(os.path.join(self.root, "datasets"), train=10, test=4):
            for name in ("sparse_global", "han", "snip", "grasp", "synflow"):
                with self.subTest(name):
                    self.assert_same(("lottery", *IMAGES, "--training_steps=1ep", "--levels=1", f"--pruning_strategy={name}"))

    def test_strategies_with_students(self):
        asked = (*teacher("mlp_3_3_2", "tanh"), "--datagen=random:300")
        for name in ("sparse_global", "han", "random", "snip"):
            with self.subTest(name):
                command = ("lottery", *STUDENTS, *asked, "--centred", "--levels=1", f"--pruning_strategy={name}")
                self.assert_same(command, prepare=lambda: teacher("mlp_3_3_2", "tanh"))

    def test_levels_that_start_later_or_from_another_training(self):
        for flags in (
            ("--rewinding_steps=2it",),
            ("--pretrain", "--pretrain_training_steps=1ep", "--pretrain_unsupervised_labels=rotation"),
        ):
            with self.subTest(flags[0]):
                self.assert_same(("lottery", *DIGITS, "--levels=1", *flags))

    def test_each_branch(self):
        for name in branches.registered_branches:
            with self.subTest(name):
                branch = ("lottery_branch", name, *DIGITS, "--levels=1")
                self.assert_same(("lottery", *DIGITS, "--levels=1"), branch)


if __name__ == "__main__":
    unittest.main()

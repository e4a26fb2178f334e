"""Commands that are refused, with status 2 and one line on stderr, change nothing in the folders of results and data."""

from __future__ import annotations

import os
import shutil
from unittest import mock

import numpy as np
import torch

from testing import dataset_files
from testing.test_case import TestCase

DIGITS = "--default_hparams=digits_lenet_4 --training_steps=2ep --batch_size=500 --global_seed=0 --quiet"
STUDENTS = "--default_hparams=students_digits_lenet(3)_8 --training_steps=1it --global_seed=0 --quiet --teacher_seed=0"
STUDENT = "--default_hparams=mlp_64_4_10 --training_steps=1it --global_seed=0 --quiet --dataset_name=teacher --datagen=random:10"
ANSWERS = "--default_hparams=mlp_3_4_2 --dataset_name=teacher --training_steps=2ep --batch_size=10 --global_seed=0 --quiet"
RESNET = "--default_hparams=imagenet_resnet_18_2 --dataset_name=cifar10 --training_steps=1ep --batch_size=3 --global_seed=0 --quiet"
IMAGENET = "--default_hparams=imagenet_resnet_18_2 --training_steps=1it --batch_size=2 --global_seed=0 --quiet"

# What the error contains, and the command. {good}, {diverged} and {damaged} are hashes of teachers, {root} is the folder of results.
REFUSED = [
    # values of flags
    ("--lr", f"train {DIGITS} --lr=0"),
    ("--training_steps", f"train {DIGITS} --training_steps=0ep"),
    ("--act_fun", f"train {DIGITS} --act_fun=rellu"),
    ("--dataset_name", f"train {DIGITS} --dataset_name=digit"),
    ("takes 64 inputs; the examples have 784", f"train {DIGITS} --dataset_name=mnist"),
    ("--optimizer_name", f"train {DIGITS} --optimizer_name=levenberg_marquardt"),
    ("--precision", f"train {DIGITS} --precision=tf32"),
    ("--tracker", f"train {DIGITS} --tracker=tensorbored"),
    ("--gamma", f"extract {STUDENTS} --teacher_name={{good}} --gamma=0.5"),
    ("--levels", f"lottery {DIGITS} --levels=-1"),
    ("--pruning_fraction", f"lottery {DIGITS} --levels=1 --pruning_fraction=2"),
    ("finished levels", f"lottery {DIGITS} --levels=1 --further_training=1ep"),
    # steps
    ("--rewinding_steps: 5ep is out of range", f"lottery {DIGITS} --levels=1 --rewinding_steps=5ep"),
    ("--rewinding_steps: 6it is out of range", f"lottery {DIGITS} --levels=1 --rewinding_steps=6it"),
    ("2ep is out of range", f"lottery {DIGITS} --levels=1 --pretrain --pretrain_training_steps=2ep"),
    ("20it is out of range", f"lottery {ANSWERS} --teacher_name={{root}}/answers.npz --levels=1 --rewinding_steps=20it"),
    # teachers
    ("not finite; the training has diverged", f"train {STUDENT} --teacher_name={{diverged}} --teacher_seed=0"),
    ("not finite; the training has diverged", f"extract {STUDENTS} --teacher_name={{diverged}}"),
    ("not finite; the training has diverged", f"lottery {STUDENT} --levels=1 --teacher_name={{diverged}} --teacher_seed=0"),
    ("is damaged", f"train {STUDENT} --teacher_name={{damaged}} --teacher_seed=0"),
    ("is damaged", f"extract {STUDENTS} --teacher_name={{damaged}}"),
    ("no seed 7", f"train {STUDENT} --teacher_name={{good}} --teacher_seed=7"),
    ("is not a teacher", f"extract {STUDENTS} --teacher_name=train_0000"),
    ("does not exist", f"train {ANSWERS} --teacher_name={{root}}/missing.npz"),
    ("not finite", f"train {ANSWERS} --teacher_name={{root}}/nan.npz"),
    ("too large for torch.float32", f"train {ANSWERS} --teacher_name={{root}}/huge.npz"),
    ("takes 5 inputs; the examples have 3", f"train {ANSWERS} --default_hparams=mlp_5_4_2 --teacher_name={{root}}/answers.npz"),
    # data
    ("imagenet/train does not exist", f"train {IMAGENET}"),
    ("imagenet/train does not exist", f"lottery {IMAGENET} --levels=1"),
    ("no JPEGs", f"train {IMAGENET} @imagenet"),
    ("single example", f"train {RESNET} @cifar10"),
    ("single example", f"lottery {RESNET} --levels=1 @cifar10"),
    (
        "single example",
        f"lottery {RESNET} --batch_size=2 --levels=1 --pretrain --pretrain_training_steps=1it --pretrain_batch_size=1 @cifar10",
    ),
    ("expected 5 labels", "train --default_hparams=mnist_lenet_4 --training_steps=1it --quiet @mnist"),
    # branches, sweeps and platforms
    ("is not trained", f"lottery_branch retrain {DIGITS} --levels=0"),
    ("--levels", f"lottery_branch randomly_prune {DIGITS} --levels=3-1"),
    ("did you mean 'retrain'", f"lottery_branch rewind {DIGITS} --levels=0"),
    ("--lr", f"sweep train {DIGITS} --lr=0.1,x"),
    ("--act_fun", f"sweep train {DIGITS} --lr=0.1,0.2 --act_fun=rellu"),
    ("--time", f"train {DIGITS} --platform=slurm --time=1"),
    ("--extra_lines", f"train {DIGITS} --platform=slurm --extra_lines=output=x"),
    ("sbatch is not installed", f"train {DIGITS} --platform=slurm"),
    ("torchrun", f"train {DIGITS} --platform=distributed"),
    ("--platform", f"train {DIGITS} --platform=slurn"),
]


class RefusedTest(TestCase):
    def setUp(self):
        super().setUp()
        self.write_answers()
        dataset_files.write_idx(os.path.join(self.root, "other"), "MNIST")
        with open(os.path.join(self.root, "other", "MNIST", "raw", "train-labels-idx1-ubyte"), "wb") as file:
            file.write(bytes([0, 0, 8, 1, 0, 0, 0, 4, 1, 2, 3, 4]))
        self.status_of(f"train {DIGITS} --training_steps=1it")
        (good,) = (name for name in os.listdir(self.root) if name.startswith("train_"))
        self.names = {"root": self.root, "good": good, "diverged": f"train_{'d' * 32}", "damaged": f"train_{'e' * 32}"}
        for name in ("diverged", "damaged"):
            shutil.copytree(os.path.join(self.root, good), os.path.join(self.root, self.names[name]))
        path = os.path.join("seed_0", "main", "model_ep0_it1.pth")
        weights = torch.load(os.path.join(self.root, self.names["diverged"], path), weights_only=True)
        torch.save({name: value * float("nan") for name, value in weights.items()}, os.path.join(self.root, self.names["diverged"], path))
        os.truncate(os.path.join(self.root, self.names["damaged"], path), 1000)

    def write_answers(self):
        random = np.random.RandomState(0)
        x, y = random.randn(100, 3), random.randn(100, 2)
        for name, factor in (("answers", 1.0), ("nan", float("nan")), ("huge", 1e40)):
            np.savez(os.path.join(self.root, f"{name}.npz"), X=x, y=y * factor)

    def status_of(self, command: str) -> tuple[int, str]:
        """The exit status and the standard error of a command. A word `@name` stands for a dataset to read."""
        words, environment = command.split(), {}
        if words[-1] == "@imagenet":
            environment["EC_IMAGENET_ROOT"] = os.path.join(self.root, "other", "imagenet")
        if words[-1] == "@mnist":
            environment["EC_DATASET_ROOT"] = os.path.join(self.root, "other")
        with mock.patch.dict(os.environ, environment):
            status, _, err = self.command(*(word for word in words if not word.startswith("@")))
        return status, err

    def tree(self) -> set[str]:
        """All folders and files under the root, with the time of the last change of each file."""
        found = set()
        for folder, _, names in os.walk(self.root):
            found |= {folder, *(f"{os.path.join(folder, name)} {os.stat(os.path.join(folder, name)).st_mtime_ns}" for name in names)}
        return found

    def test_refused_commands_change_nothing(self):
        cifar10 = dataset_files.cifar10(os.environ["EC_DATASET_ROOT"])
        cifar10.__enter__()
        self.addCleanup(cifar10.__exit__, None, None, None)
        os.makedirs(os.path.join(self.root, "other", "imagenet", "train", "n01"))
        os.makedirs(os.path.join(self.root, "other", "imagenet", "val", "n01"))
        with mock.patch("shutil.which", return_value=None):
            for said, command in REFUSED:
                with self.subTest(command=command):
                    before = self.tree()
                    status, err = self.status_of(command.format(**self.names))
                    self.assertEqual((status, err.count("\n")), (2, 1), err)
                    self.assertIn(said, err)
                    self.assertEqual(self.tree() ^ before, set())

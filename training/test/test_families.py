"""Two iterations of every family of models by the command line, from its defaults to its files.

FAMILIES has a member of each with the dataset that it trains on by default. Datasets that have files of their own are read in their own
tests; here the random images of `testing/toy_images.py` stand in for those of colour.
"""

import os
from unittest import mock

import torch

from datasets import registry as datasets
from models import base
from models import registry as models
from testing import toy_images
from testing.test_case import TestCase
from training.metric_logger import MetricLogger

FAMILIES = {
    "digits_lenet_300_100": "digits",
    "mlp_64_16_10": "digits",
    "cifar_lenet_20": "cifar10",
    "cifar_vgg_11": "cifar10",
    "cifar_resnet_8_4": "cifar10",
    "imagenet_resnet_18_8": "imagenet",
    "imagenet_resnet_50_8": "cifar10",
}


class FamiliesTest(TestCase):
    def setUp(self):
        super().setUp()
        patch = mock.patch.dict(datasets.registered_datasets, {"cifar10": toy_images, "imagenet": toy_images})
        patch.start()
        self.addCleanup(patch.stop)

    def train(self, name: str, *options: str) -> str:
        """Trains a model for two iterations and returns the folder of the run."""
        options = ("train", f"--default_hparams={name}", "--training_steps=2it", "--batch_size=6", "--global_seed=1", *options)
        self.assertEqual(self.command(*options, "--quiet", "--evaluate_only_at_end"), (0, "", ""))
        return self.command(*options, "--display_output_location")[1].strip()

    def test_two_iterations_from_the_defaults_change_the_weights_and_leave_the_files(self):
        for name, dataset in FAMILIES.items():
            with self.subTest(name):
                folder = self.train(name, f"--dataset_name={dataset}")
                first, last = sorted(file for file in os.listdir(folder) if file.startswith("model_"))
                before, after = (base.read_state(os.path.join(folder, file)) for file in (first, last))
                self.assertTrue(all(value.isfinite().all() for value in after.values()))
                self.assertTrue(any((value != before[key]).any() for key, value in after.items()))
                self.assertGreater(MetricLogger.load(folder).latest("test_loss"), 0)

    def test_every_family_is_run_here_or_needs_files(self):
        needs_files = {"mnist_lenet"}
        families = {models.family_of(name) for name in FAMILIES} | {models.family_of(models.resolve(name)) for name in needs_files}
        students = {family for family in models.registered_models if hasattr(family, "individual_losses")}
        self.assertEqual(families | students, set(models.registered_models))

    def test_activation_functions_and_initialisers_serve_images(self):
        for options in (("--act_fun=silu", "--model_init=orthogonal", "--batchnorm_init=fixed"), ("--act_fun=g", "--model_init=binary")):
            self.train("cifar_resnet_8_4", *options)

    def test_a_frozen_run_moves_what_is_left(self):
        folder = self.train("cifar_resnet_8_4", "--others_frozen", "--batchnorm_frozen")
        before, after = (base.read_state(os.path.join(folder, f"model_ep{epoch}_it0.pth")) for epoch in (0, 1))
        moved = {
            name
            for name, value in after.items()
            if not torch.equal(value, before[name]) and not name.split(".")[-1].startswith(("run", "num"))
        }
        self.assertEqual(moved, {"fc.weight", "fc.bias"})

"""Two iterations of every family of models by the command line.

FAMILIES has a member of every family and a dataset, by default that of the family for most. The tests write the files of the dataset in
their real format.
"""

import os

import torch

from models import base
from models import registry as models
from testing import dataset_files
from testing.test_case import TestCase
from training.metric_logger import MetricLogger

FAMILIES = {
    "digits_lenet_300_100": "digits",
    "mnist_lenet_300_100": "mnist",
    "mlp_64_16_10": "digits",
    "cifar_lenet_20": "cifar10",
    "cifar_vgg_11": "cifar10",
    "cifar_resnet_20_4": "cifar10",
    "imagenet_resnet_18_8": "imagenet",
    "imagenet_resnet_50_8": "cifar10",
}


class FamiliesTest(TestCase):
    def setUp(self):
        super().setUp()
        dataset_files.write_idx(os.environ["EC_DATASET_ROOT"], train=12, test=5)
        dataset_files.write_imagenet(os.environ["EC_IMAGENET_ROOT"])
        cifar10 = dataset_files.cifar10(os.environ["EC_DATASET_ROOT"], train=12, test=5)
        cifar10.__enter__()
        self.addCleanup(cifar10.__exit__, None, None, None)

    def train(self, name: str, *options: str) -> str:
        """Trains a model for two iterations and returns the folder of the run."""
        options = ("train", f"--default_hparams={name}", "--training_steps=2it", "--batch_size=6", "--global_seed=1", *options)
        self.assertEqual(self.command(*options, "--quiet", "--evaluate_only_at_end"), (0, "", ""))
        return self.command(*options, "--display_output_location")[1].strip()

    def test_two_iterations_change_the_weights_and_write_the_run_files(self):
        for name, dataset in FAMILIES.items():
            with self.subTest(name):
                folder = self.train(name, f"--dataset_name={dataset}")
                first, last = sorted(file for file in os.listdir(folder) if file.startswith("model_"))
                before, after = (base.read_state(os.path.join(folder, file)) for file in (first, last))
                self.assertTrue(all(value.isfinite().all() for value in after.values()))
                self.assertTrue(any((value != before[key]).any() for key, value in after.items()))
                self.assertGreater(MetricLogger.load(folder).latest("test_loss"), 0)

    def test_help_shows_the_defaults_of_every_family(self):
        for name in FAMILIES:
            with self.subTest(name):
                status, text, err = self.command("train", f"--default_hparams={name}", "--help")
                self.assertEqual((status, err), (0, ""))
                h = models.get_default_hparams(name)
                for value in (h.dataset_hparams.dataset_name, h.dataset_hparams.batch_size, name, h.training_hparams.training_steps):
                    self.assertIn(f"default: {value})", " ".join(text.split()))

    def test_these_tests_cover_every_family(self):
        families = {models.family_of(name) for name in FAMILIES}
        students = {family for family in models.registered_models if hasattr(family, "individual_losses")}
        self.assertEqual(families | students, set(models.registered_models))

    def test_activation_functions_and_initialisers_work_for_image_models(self):
        for options in (("--act_fun=silu", "--model_init=orthogonal", "--batchnorm_init=fixed"), ("--act_fun=g", "--model_init=binary")):
            self.assertIn("model_ep1_it0.pth", os.listdir(self.train("cifar_resnet_8_4", *options)))

    def test_training_changes_only_unfrozen_weights(self):
        folder = self.train("cifar_resnet_8_4", "--others_frozen", "--batchnorm_frozen")
        before, after = (base.read_state(os.path.join(folder, f"model_ep{epoch}_it0.pth")) for epoch in (0, 1))
        moved = {
            name
            for name, value in after.items()
            if not torch.equal(value, before[name]) and not name.split(".")[-1].startswith(("run", "num"))
        }
        self.assertEqual(moved, {"fc.weight", "fc.bias"})

"""The check of the sizes of batches, against the errors of torch for batches that are too small for BatchNorm."""

from unittest import mock

import torch

from datasets import cifar10
from datasets.base import DataLoader
from foundations.errors import ConfigError
from foundations.model_hparams import ModelHparams
from foundations.step import Step
from foundations.training_hparams import TrainingHparams
from models import registry
from platforms.platform import get_platform
from testing.test_case import TestCase
from training import batches

RESNET = ModelHparams("imagenet_resnet_18_2", "kaiming_normal", "uniform")  # its last feature maps of 32x32 images have 1x1 pixels


class BatchesTest(TestCase):
    def check(self, count: int, batch_size: int, steps: str, model: ModelHparams = RESNET, start: int = 0, further: str | None = None):
        loader = DataLoader(cifar10.Dataset(torch.zeros(count, 3, 32, 32), torch.zeros(count)), batch_size)
        hparams = TrainingHparams("sgd", 0.1, steps, further_training=further)
        batches.check(model, 10, hparams, loader, Step(start, len(loader)))

    def test_a_batch_of_one_example_is_refused_if_training_reaches_it(self):
        cases = [
            ("1ep", 0, None, True),
            ("3it", 0, None, False),
            ("4it", 0, None, True),
            ("3it", 0, "1it", True),
            ("4it", 2, None, True),
            ("7it", 4, None, False),
            ("8it", 4, None, True),
        ]
        for steps, start, further, is_refused in cases:
            with self.subTest(steps=steps, start=start, further=further):
                if not is_refused:
                    self.check(10, 3, steps, start=start, further=further)
                    continue
                with self.assertRaises(ConfigError) as caught:
                    self.check(10, 3, steps, start=start, further=further)
                self.assertRegex(
                    str(caught.exception), "^--batch_size: 3 .* 10 training examples: .*single example.* valid: 4, for example$"
                )

    def test_it_is_refused_exactly_where_torch_refuses_to_compute(self):
        for name in ("imagenet_resnet_18_2", "cifar_resnet_8_2", "cifar_vgg_11", "mlp_3072_4_10"):
            hparams = ModelHparams(name, "kaiming_normal", "uniform")
            try:
                registry.get(hparams, 10).train()(torch.zeros(1, 3, 32, 32))
                refused = False
            except ValueError:
                refused = True
            self.assertEqual(refused, name.startswith("imagenet"))
            try:
                self.check(10, 9, "1ep", hparams)
                self.assertFalse(refused, name)
            except ConfigError:
                self.assertTrue(refused, name)

    def test_single_examples_are_named(self):
        for count, batch_size, valid in ((4, 1, "2"), (5, 2, "3"), (1, 1, "more examples"), (1, 8, "more examples")):
            with self.assertRaisesRegex(ConfigError, f"valid: {valid}(, for example)?$"):
                self.check(count, batch_size, "1ep")
        for count, batch_size in ((4, 2), (2, 8), (5, 3)):
            self.check(count, batch_size, "2ep")

    def test_a_batch_is_divided_among_gpus(self):
        with mock.patch.object(type(get_platform()), "devices", 2):
            self.check(8, 4, "1ep")
            for batch_size in (2, 3):  # parts of 1 and 1, or of 2 and 1
                with self.assertRaisesRegex(ConfigError, "one of 2 GPUs gets a single example of a batch.* valid: 4, for example"):
                    self.check(8, batch_size, "1ep")

    def test_the_sizes_are_those_of_the_batches_of_a_loader(self):
        for count, batch_size in ((10, 3), (9, 3), (2, 3), (3, 1)):
            loader = DataLoader(cifar10.Dataset(torch.zeros(count, 1), torch.zeros(count)), batch_size)
            sizes = [len(labels) for epoch in range(3) for _, labels in loader.epoch(epoch)]
            for start in range(len(sizes)):
                for end in range(start, len(sizes) + 1):
                    self.assertEqual(batches.batch_sizes(count, batch_size, start, end), set(sizes[start:end]))

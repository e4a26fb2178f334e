"""CIFAR-10: files in its original format, and the standard augmentation, compared with torchvision on single images."""

import itertools
import os
from unittest import mock

import numpy as np
import torch
import torchvision.transforms.functional as reference
from PIL import Image

from datasets import registry
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError
from testing import dataset_files
from testing.test_case import TestCase

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def standard(image: np.ndarray) -> torch.Tensor:
    """The input of a network for an image `[32, 32, 3]` of bytes, computed with torchvision."""
    return reference.normalize(reference.to_tensor(image), MEAN, STD)


def fingerprint(image: torch.Tensor) -> bytes:
    """The rounded pixels of a standardised image."""
    return image.mul(100).round().short().numpy().tobytes()


class Cifar10Test(TestCase):
    def setUp(self):
        super().setUp()
        files = dataset_files.cifar10(os.environ["EC_DATASET_ROOT"])
        self.content = files.__enter__()
        self.addCleanup(files.__exit__, None, None, None)

    def loader(self, train: bool = True, batch_size: int = 4, **changes):
        return registry.get(DatasetHparams("cifar10", batch_size, **changes), train, seed=3)

    def test_images_and_labels_are_those_of_the_files_standardised_as_by_torchvision(self):
        for train, (images, labels) in self.content.items():
            dataset = self.loader(train).dataset
            torch.testing.assert_close(dataset.examples, torch.stack([standard(image) for image in images]), rtol=0, atol=1e-5)
            self.assertEqual(dataset.labels.tolist(), labels.tolist())

    def test_files_in_the_folder_of_openlth_are_found(self):
        root = os.environ["EC_DATASET_ROOT"]
        os.mkdir(os.path.join(root, "cifar10"))
        os.rename(os.path.join(root, "cifar-10-batches-py"), os.path.join(root, "cifar10", "cifar-10-batches-py"))
        self.assertEqual(self.loader().dataset.labels.tolist(), self.content[True][1].tolist())

    def test_the_shape_is_the_values_of_an_image_and_the_number_of_classes(self):
        self.assertEqual(registry.shape(DatasetHparams("cifar10", 4)), (3 * 32 * 32, 10))

    def test_training_uses_crops_with_a_black_margin_of_four_and_mirror_images(self):
        images, labels = self.content[True]
        padded = [reference.pad(Image.fromarray(image), 4) for image in images]
        crops = {}
        for number, flip, top, left in itertools.product(range(10), (False, True), range(9), range(9)):
            crop = reference.crop(reference.hflip(padded[number]) if flip else padded[number], top, left, 32, 32)
            crops[fingerprint(standard(np.array(crop)))] = number
        for epoch in range(4):
            seen = []
            for batch, classes in self.loader().epoch(epoch):
                numbers = [crops[fingerprint(example)] for example in batch]
                self.assertEqual(labels[numbers].tolist(), classes.tolist())
                seen += numbers
            self.assertEqual(sorted(seen), list(range(10)))

    def test_evaluation_uses_the_original_images(self):
        for train, (images, _) in self.content.items():
            seen = torch.cat([batch for batch, _ in self.loader(train)])
            torch.testing.assert_close(seen, torch.stack([standard(image) for image in images]), rtol=0, atol=1e-5)

    def test_the_test_set_is_never_augmented_and_training_only_by_default(self):
        for train, changes in ((False, {}), (True, {"do_not_augment": True})):
            loader = self.loader(train, **changes)
            known = {example.numpy().tobytes() for example in loader.dataset.examples}
            seen = [example.numpy().tobytes() for batch, _ in loader.epoch(0) for example in batch]
            self.assertTrue(len(seen) == len(known) and set(seen) == known)

    def test_augmented_images_are_converted_to_the_precision(self):
        hparams = DatasetHparams("cifar10", 4)
        single, double = (registry.get(hparams, seed=3, dtype=dtype) for dtype in (torch.float32, torch.float64))
        for (one, _), (other, _) in zip(single.epoch(0), double.epoch(0), strict=True):
            self.assertEqual(other.dtype, torch.float64)
            self.assertTrue(torch.equal(one.double(), other))

    def test_missing_files_that_cannot_be_downloaded_are_explained(self):
        os.remove(os.path.join(os.environ["EC_DATASET_ROOT"], "cifar-10-batches-py", "data_batch_3"))
        offline = mock.patch("torchvision.datasets.cifar.download_and_extract_archive", side_effect=OSError("no network"))
        with offline, self.assertRaises(ConfigError) as caught:
            self.loader()
        self.assertRegex(str(caught.exception), r"^CIFAR10 is not under .* and cannot be downloaded \(no network\)$")

    def test_a_network_trains_on_it_and_can_be_a_teacher_for_its_images(self):
        model = "--model_name=mlp_3072_4_10"
        flags = ["--default_hparams=mlp_3072_4_10", model, "--training_steps=2it", "--global_seed=1", "--quiet"]
        status, _, err = self.command("train", *flags, "--dataset_name=cifar10", "--batch_size=4", "--subsample_fraction=0.5")
        self.assertEqual((status, err), (0, ""))
        (name,) = (folder for folder in os.listdir(self.root) if folder.startswith("train_"))
        teacher = ["--dataset_name=teacher", f"--teacher_name={name}", "--teacher_seed=1", "--datagen=cifar10"]
        status, _, err = self.command("train", *flags, *teacher)
        self.assertEqual((status, err), (0, ""))

"""MNIST: read from files of its own format, and what is said where there are none."""

import os
import struct
import sys
import urllib.error
from unittest import mock

import numpy as np
import torch

from datasets import registry
from foundations.errors import ConfigError
from foundations.hparams import DatasetHparams
from testing.test_case import TestCase

COUNTS = {"train": 5, "t10k": 3}


def write_files(root: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Writes IDX files as they come from yann.lecun.com, uncompressed, under a dataset folder; returns their images and labels."""
    folder = os.path.join(root, "MNIST", "raw")
    os.makedirs(folder)
    random = np.random.RandomState(0)
    content = {}
    for part, count in COUNTS.items():
        images = random.randint(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = random.randint(0, 10, count).astype(np.uint8)
        with open(os.path.join(folder, f"{part}-images-idx3-ubyte"), "wb") as file:
            file.write(struct.pack(">IIII", 0x803, count, 28, 28) + images.tobytes())
        with open(os.path.join(folder, f"{part}-labels-idx1-ubyte"), "wb") as file:
            file.write(struct.pack(">II", 0x801, count) + labels.tobytes())
        content[part] = images, labels
    return content


class MnistTest(TestCase):
    hparams = DatasetHparams("mnist", batch_size=2)

    @property
    def folder(self) -> str:
        return os.environ["EC_DATASET_ROOT"]

    def test_images_are_standardised_pixels_from_the_dataset_folder(self):
        content = write_files(self.folder)
        for part, train in (("train", True), ("t10k", False)):
            examples = registry.get(self.hparams, train).dataset.examples.cpu()
            expected = (torch.from_numpy(content[part][0]).double() / 255 - 0.1307) / 0.3081
            self.assertEqual(examples.shape, (COUNTS[part], 1, 28, 28))
            torch.testing.assert_close(examples[:, 0].double(), expected, rtol=0, atol=1e-6)

    def test_labels_are_the_files(self):
        content = write_files(self.folder)
        for part, train in (("train", True), ("t10k", False)):
            self.assertEqual(registry.get(self.hparams, train).dataset.labels.tolist(), content[part][1].tolist())

    def test_files_that_are_there_are_not_downloaded(self):
        write_files(self.folder)
        with mock.patch("torchvision.datasets.mnist.download_and_extract_archive") as download:
            registry.get(self.hparams)
        download.assert_not_called()

    def test_missing_files_that_cannot_be_downloaded_are_explained(self):
        offline = urllib.error.URLError("no network")
        download = mock.patch("torchvision.datasets.mnist.download_and_extract_archive", side_effect=offline)
        with download, mock.patch("builtins.print"), self.assertRaises(ConfigError) as caught:
            registry.get(self.hparams)
        self.assertRegex(str(caught.exception), f"^MNIST is not under {self.folder} and cannot be downloaded")
        self.assertNotIn("\n", str(caught.exception))

    def test_a_torchvision_that_cannot_be_imported_is_explained_in_one_line_that_names_torch(self):
        with mock.patch.dict(sys.modules, {"torchvision": None}), self.assertRaises(ConfigError) as caught:
            registry.get(self.hparams)
        self.assertIn(torch.__version__, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))

"""MNIST and Fashion-MNIST: files in their original format, and errors for missing files."""

import os
import sys
import urllib.error
from unittest import mock

import torch

from datasets import fashion_mnist, mnist, registry
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError
from testing import dataset_files
from testing.test_case import TestCase


class Images:
    """The tests of both datasets. A subclass defines the names, the mean and the standard deviation."""

    name: str
    folder_name: str
    moments: tuple[float, float]

    @property
    def hparams(self) -> DatasetHparams:
        return DatasetHparams(self.name, batch_size=2)

    @property
    def folder(self) -> str:
        return os.environ["EC_DATASET_ROOT"]

    def test_images_are_standardised_pixels_from_the_dataset_folder(self):
        for train, (pixels, _) in dataset_files.write_idx(self.folder, self.folder_name).items():
            examples = registry.get(self.hparams, train).dataset.examples.cpu()
            expected = (torch.from_numpy(pixels).double() / 255 - self.moments[0]) / self.moments[1]
            self.assertEqual(examples.shape, (len(pixels), 1, 28, 28))
            torch.testing.assert_close(examples[:, 0].double(), expected, rtol=0, atol=2e-6)

    def test_labels_are_those_of_the_files(self):
        for train, (_, labels) in dataset_files.write_idx(self.folder, self.folder_name).items():
            self.assertEqual(registry.get(self.hparams, train).dataset.labels.tolist(), labels.tolist())

    def test_files_in_the_folder_of_openlth_are_found(self):
        content = dataset_files.write_idx(os.path.join(self.folder, self.name), self.folder_name)
        with mock.patch("torchvision.datasets.mnist.download_and_extract_archive") as download:
            labels = registry.get(self.hparams).dataset.labels.tolist()
        self.assertEqual(labels, content[True][1].tolist())
        download.assert_not_called()

    def test_files_in_the_folder_of_torchvision_come_first(self):
        dataset_files.write_idx(os.path.join(self.folder, self.name), self.folder_name)
        dataset_files.write_idx(self.folder, self.folder_name, train=7)
        self.assertEqual(len(registry.get(self.hparams).dataset), 7)

    def test_existing_files_are_not_downloaded(self):
        dataset_files.write_idx(self.folder, self.folder_name)
        with mock.patch("torchvision.datasets.mnist.download_and_extract_archive") as download:
            registry.get(self.hparams)
        download.assert_not_called()

    def test_missing_files_that_cannot_be_downloaded_are_explained(self):
        offline = urllib.error.URLError("no network")
        download = mock.patch("torchvision.datasets.mnist.download_and_extract_archive", side_effect=offline)
        with download, mock.patch("builtins.print"), self.assertRaises(ConfigError) as caught:
            registry.get(self.hparams)
        self.assertRegex(str(caught.exception), f"^{self.folder_name} is not under {self.folder} and cannot be downloaded")
        self.assertNotIn("\n", str(caught.exception))


class MnistTest(Images, TestCase):
    name, folder_name, moments = "mnist", "MNIST", (0.1307, 0.3081)

    def test_a_torchvision_that_cannot_be_imported_is_explained_in_one_line_that_names_torch(self):
        with mock.patch.dict(sys.modules, {"torchvision": None}), self.assertRaises(ConfigError) as caught:
            registry.get(self.hparams)
        self.assertIn(torch.__version__, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))


class FashionMnistTest(Images, TestCase):
    name, folder_name, moments = "fashion_mnist", "FashionMNIST", (0.2860, 0.3530)

    def test_it_is_read_from_other_files_than_mnist(self):
        dataset_files.write_idx(self.folder, "MNIST")
        dataset_files.write_idx(self.folder, "FashionMNIST", train=7)
        self.assertEqual((len(mnist.Dataset.read(True)[0]), len(fashion_mnist.Dataset.read(True)[0])), (5, 7))

"""Files that are well formed but do not fit their dataset: an error of one line names the file, what was expected and what was found."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import struct
from collections.abc import Callable, Mapping
from unittest import mock

import numpy as np
import torch

from datasets import boruta, digits, registry
from datasets.datagen import registry as datagen
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError
from testing import dataset_files
from testing.test_case import TestCase

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx(values: np.ndarray, kind: int = 0x08) -> bytes:
    """An IDX file; its magic number says that values have this kind."""
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, kind, values.ndim, *values.shape) + values.tobytes()


def images(*shape: int) -> bytes:
    return idx(np.zeros(shape, np.uint8))


def labels(*values: int) -> bytes:
    return idx(np.array(values, np.uint8))


class MisfitTestCase(TestCase):
    def assert_misfit(self, use: Callable[[], object], path: str, *said: str):
        with self.assertRaises(ConfigError) as caught:
            use()
        message = str(caught.exception)
        self.assertNotIn("\n", message)
        self.assertTrue(message.startswith(path), message)
        for words in said:
            self.assertIn(words, message)


class IdxTest(MisfitTestCase):
    def test_files_that_do_not_fit_are_named(self):
        cases = [
            (LABELS, labels(0, 1, 2, 3), "expected 5 labels, as many as train-images-idx3-ubyte has images, found 4"),
            (LABELS, labels(0, 1, 2, 3, 4, 5), "expected 5 labels", "found 6"),
            (LABELS, labels(0, 1, 10, 3, 255), "expected labels from 0 to 9, found 10 at index 2"),
            (LABELS, idx(np.zeros((5, 10), np.uint8)), "an IDX file of bytes with 1 axes, found a file that begins with 00000802"),
            (LABELS, images(5, 28, 28), "with 1 axes", "00000803"),
            (LABELS, idx(np.zeros(5, ">i4"), 0x0C), "an IDX file of bytes", "00000c01"),
            (LABELS, labels(0, 1, 2, 3, 4)[:-1], "expected 13 bytes for shape 5, found 12"),
            (LABELS, b"", "found a file that begins with nothing"),
            (LABELS, b"PK\3\4 a zip", "found a file that begins with 504b0304"),
            (IMAGES, images(5, 32, 32), "expected images of 28x28 pixels, found 32x32"),
            (IMAGES, images(5, 28, 14), "expected images of 28x28 pixels, found 28x14"),
            (IMAGES, images(5, 28, 28, 3), "an IDX file of bytes with 3 axes, found a file that begins with 00000804"),
            (IMAGES, images(5, 784), "with 3 axes", "00000802"),
            (IMAGES, images(5, 28, 28)[:-784], "expected 3936 bytes for shape 5x28x28, found 3152"),
            (IMAGES, images(5, 28, 28) + b"more", "expected 3936 bytes", "found 3940"),
            (IMAGES, images(0, 28, 28), "expected one image or more, found none"),
            (IMAGES, idx(np.zeros((5, 28, 28), np.float32), 0x0D), "an IDX file of bytes", "00000d03"),
            ("t10k-images-idx3-ubyte", images(3, 27, 28), "expected images of 28x28 pixels, found 27x28"),
            ("t10k-labels-idx1-ubyte", labels(1, 2, 12), "expected labels from 0 to 9, found 12 at index 2"),
        ]
        for folder_name, name in (("MNIST", "mnist"), ("FashionMNIST", "fashion_mnist")):
            dataset_files.write_idx(os.environ["EC_DATASET_ROOT"], folder_name)
            folder = os.path.join(os.environ["EC_DATASET_ROOT"], folder_name, "raw")
            for file_name, content, *said in cases:
                path = os.path.join(folder, file_name)
                with self.subTest(file_name=file_name, said=said), open(path, "rb") as file:
                    right = file.read()
                    with open(path, "wb") as changed:
                        changed.write(content)
                    self.assert_misfit(lambda name=name, file_name=file_name: self.load(name, file_name), f"{path} does not fit", *said)
                    with open(path, "wb") as restored:
                        restored.write(right)
            self.load(name, IMAGES)

    def load(self, name: str, file_name: str) -> object:
        return registry.get(DatasetHparams(name, 4), train=file_name.startswith("train"))

    def test_a_network_cannot_be_asked_about_them_either(self):
        dataset_files.write_idx(os.environ["EC_DATASET_ROOT"], "MNIST")
        path = os.path.join(os.environ["EC_DATASET_ROOT"], "MNIST", "raw", LABELS)
        with open(path, "wb") as file:
            file.write(labels(0, 1))
        for use in (lambda: boruta.mask("mnist"), lambda: datagen.resolve("mnist:2", 784), lambda: datagen.generate("mnist", True, 784, 0)):
            self.assert_misfit(use, path, "expected 5 labels", "found 2")


class CifarTest(MisfitTestCase):
    def setUp(self):
        super().setUp()
        files = dataset_files.cifar10(os.environ["EC_DATASET_ROOT"], test=2)  # every batch has two images
        files.__enter__()
        self.addCleanup(files.__exit__, None, None, None)
        self.folder = os.path.join(os.environ["EC_DATASET_ROOT"], "cifar-10-batches-py")

    def load_with(self, name: str, **changes: object) -> None:
        """Reads the dataset with changes to a batch, whose checksum counts as right."""
        from torchvision.datasets import CIFAR10

        path = os.path.join(self.folder, name)
        with open(path, "rb") as file:
            right = file.read()
        content = pickle.dumps({key: value for key, value in (pickle.loads(right) | changes).items() if value is not None})
        lists = {
            kind: [[file, hashlib.md5(content).hexdigest() if file == name else md5] for file, md5 in getattr(CIFAR10, kind)]
            for kind in ("train_list", "test_list")
        }
        try:
            with open(path, "wb") as file:
                file.write(content)
            with mock.patch.multiple(CIFAR10, **lists):
                registry.get(DatasetHparams("cifar10", 4), train=name.startswith("data"))
        finally:
            with open(path, "wb") as file:
                file.write(right)

    def test_batches_that_do_not_fit_are_named(self):
        grey, small, large = (np.zeros((2, values), np.uint8) for values in (1024, 768, 12288))
        cases: list[tuple[Mapping[str, object], tuple[str, ...]]] = [
            ({"labels": [1]}, ("expected 2 labels, as many as images, found 1",)),
            ({"labels": [1, 2, 3]}, ("expected 2 labels", "found 3")),
            ({"labels": [1, 10]}, ("expected labels from 0 to 9, found 10 at index 1",)),
            ({"labels": [-1, 1]}, ("expected labels from 0 to 9, found -1 at index 0",)),
            ({"data": grey}, ("expected images of 3072 values (3x32x32), found data of shape (2, 1024)",)),
            ({"data": small}, ("3072", "(2, 768)")),
            ({"data": large}, ("3072", "(2, 12288)")),
            ({"data": None}, ("a dict of data and labels",)),
            ({"labels": None}, ("a dict of data and labels",)),
        ]
        for name in ("data_batch_2", "test_batch"):
            for changes, said in cases:
                with self.subTest(name=name, said=said):
                    use = lambda name=name, changes=changes: self.load_with(name, **changes)  # noqa: E731
                    self.assert_misfit(use, os.path.join(self.folder, name), *said)

    def test_a_file_with_another_checksum_is_named_and_not_replaced(self):
        path = os.path.join(self.folder, "data_batch_4")
        with open(path, "ab") as file:
            file.write(b"more")
        with open(path, "rb") as file:
            content = file.read()
        for train in (True, False):
            use = lambda train=train: registry.get(DatasetHparams("cifar10", 4), train=train)  # noqa: E731
            self.assert_misfit(use, path, "expected the MD5 checksum ", f"found {hashlib.md5(content).hexdigest()}; delete it")
        with open(path, "rb") as file:
            self.assertEqual(file.read(), content)


class AnyDatasetTest(MisfitTestCase):
    def test_what_any_image_dataset_reads_is_checked(self):
        pixels, classes = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.arange(4)
        cases = [
            (pixels[:, 0], classes, "expected images of 1x8x8 values, found 8x8"),
            (pixels.expand(4, 3, 8, 8), classes, "found 3x8x8"),
            (pixels[:0], classes[:0], "expected one image or more, found none"),
            (pixels, classes[:3], "expected 4 labels, as many as images, found 3"),
            (pixels, classes + 7, "expected labels from 0 to 9, found 7 to 10"),
            (pixels, classes - 1, "found -1 to 2"),
            (pixels, classes.float(), "expected labels from 0 to 9"),
        ]
        for found_pixels, found_labels, said in cases:
            with self.subTest(said=said), mock.patch.object(digits.Dataset, "read", lambda train, _=(found_pixels, found_labels): _):
                use = lambda: registry.get(DatasetHparams("digits", 4))  # noqa: E731
                self.assert_misfit(use, "the training set of digits does not fit the dataset", said)


class MaskTest(MisfitTestCase):
    def test_a_mask_for_another_number_of_inputs_is_named(self):
        path = os.path.join(os.environ["EC_BORUTA_ROOT"], "digits.json")
        os.makedirs(os.path.dirname(path))
        for content, found in (([True] * 784, "a list of 784 values"), ([], "a list of 0 values"), ({"mask": 1}, "dict"), ([1] * 64, "64")):
            with open(path, "w") as file:
                json.dump(content, file)
            for use in (lambda: boruta.mask("digits"), lambda: boruta.check("digits", 64)):
                self.assert_misfit(use, path, "expected a list of 64 values true or false, found", found)


class AnswersTest(MisfitTestCase):
    def test_answers_that_do_not_fit_are_named(self):
        random = np.random.RandomState(0)
        x, y = random.randn(20, 5), random.randn(20, 2)
        cases = [
            ({"X": x[:19], "y": y}, r"19 queries X and 20 answers y; valid: equal numbers"),
            ({"X": x, "y": y[:5]}, r"20 queries X and 5 answers y"),
            ({"X": x, "y": y[:, :1]}, r"--model_name: .*_5_4_2 has 2 outputs.* 1"),
            ({"X": x[:, :4], "y": y}, r"--model_name: mlp_5_4_2 takes 5 inputs; the examples have 4"),
            ({"X": x.reshape(20, 5, 1, 1).repeat(2, 3), "y": y}, r"takes 5 inputs; the examples have 10"),
            ({"X": np.where(x == x.max(), np.nan, x), "y": y}, "not finite"),
            ({"X": x, "y": np.where(y == y.max(), np.inf, y)}, "not finite"),
            ({"X": x * 1e39, "y": y}, r"too large for torch.float32; valid: magnitudes up to 3.4e\+38, or --precision float64"),
            ({"X": x, "y": y * 1e200}, r"too large for torch.float32"),
            ({"X": x, "labels": y}, "must contain arrays X and y"),
            ({"X": x.astype(str), "y": y}, "X contains texts"),
            ({"X": x.astype(complex), "y": y}, "X contains complex numbers"),
            ({"X": x[:0], "y": y[:0]}, "X has shape"),
            ({"X": x[:9], "y": y[:9]}, "valid: equal numbers, 10 or more"),
        ]
        path = os.path.join(self.root, "answers.npz")
        for arrays, said in cases:
            with self.subTest(said=said):
                np.savez(path, **arrays)
                flags = ("--default_hparams=mlp_5_4_2", f"--teacher_name={path}", "--training_steps=1it", "--quiet")
                status, _, err = self.command("train", "--dataset_name=teacher", *flags)
                self.assertEqual(status, 2)
                self.assertEqual(err.count("\n"), 1)
                self.assertTrue(re.search(said, err), err)
                self.assertEqual(self.files(), ["answers.npz"])

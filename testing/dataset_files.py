"""Small datasets in the formats of the real ones, for tests of the code that reads them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import struct
from collections.abc import Iterator
from unittest import mock

import numpy as np
from PIL import Image

Parts = dict[bool, tuple[np.ndarray, np.ndarray]]  # whether of training -> pixels and labels


def write_idx(root: str, name: str = "MNIST", train: int = 5, test: int = 3) -> Parts:
    """Writes IDX files, uncompressed, where torchvision looks for a dataset (`MNIST` or `FashionMNIST`): images `[n, 28, 28]`."""
    folder = os.path.join(root, name, "raw")
    os.makedirs(folder)
    random = np.random.RandomState(0)
    content = {}
    for part, count in (("train", train), ("t10k", test)):
        images = random.randint(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = random.randint(0, 10, count).astype(np.uint8)
        with open(os.path.join(folder, f"{part}-images-idx3-ubyte"), "wb") as file:
            file.write(struct.pack(">IIII", 0x803, count, 28, 28) + images.tobytes())
        with open(os.path.join(folder, f"{part}-labels-idx1-ubyte"), "wb") as file:
            file.write(struct.pack(">II", 0x801, count) + labels.tobytes())
        content[part == "train"] = images, labels
    return content


@contextlib.contextmanager
def cifar10(root: str, train: int = 10, test: int = 4) -> Iterator[Parts]:
    """Writes the pickles of CIFAR-10, with `train` images in five batches, and makes torchvision accept their checksums.

    Yields images `[n, 32, 32, 3]` and labels.
    """
    folder = os.path.join(root, "cifar-10-batches-py")
    os.makedirs(folder)
    random = np.random.RandomState(0)
    content, checksums = {}, {}
    for is_train, names, count in ((True, [f"data_batch_{batch}" for batch in range(1, 6)], train), (False, ["test_batch"], test)):
        pixels = random.randint(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        labels = random.randint(0, 10, count)
        for name, places in zip(names, np.array_split(np.arange(count), len(names)), strict=True):
            batch = {"data": pixels[places].reshape(len(places), -1), "labels": labels[places].tolist()}
            checksums[name] = _write_pickle(os.path.join(folder, name), batch)
        content[is_train] = pixels.transpose(0, 2, 3, 1), labels
    checksums["batches.meta"] = _write_pickle(os.path.join(folder, "batches.meta"), {"label_names": [str(label) for label in range(10)]})
    lists = {
        "train_list": [[name, checksums[name]] for name in checksums if name.startswith("data")],
        "test_list": [["test_batch", checksums["test_batch"]]],
        "meta": {"filename": "batches.meta", "key": "label_names", "md5": checksums["batches.meta"]},
    }
    with mock.patch.multiple("torchvision.datasets.CIFAR10", **lists):
        yield content


def _write_pickle(path: str, content: dict) -> str:
    """Writes a pickle; returns its MD5."""
    data = pickle.dumps(content)
    with open(path, "wb") as file:
        file.write(data)
    return hashlib.md5(data).hexdigest()


def write_imagenet(root: str, classes: int = 3, train: int = 4, test: int = 2) -> None:
    """Writes `train/` and `val/` with a folder of JPEGs for each class, of different sizes; the last of each folder is grey."""
    random = np.random.RandomState(0)
    for part, count in (("train", train), ("val", test)):
        for label in range(classes):
            folder = os.path.join(root, part, f"n{label:08d}")
            os.makedirs(folder)
            for number in range(count):
                height, width = random.randint(230, 300, 2)
                coarse = Image.fromarray(random.randint(0, 256, (8, 8, 3), dtype=np.uint8)).resize((width, height))
                image = coarse.convert("L") if number == count - 1 else coarse
                image.save(os.path.join(folder, f"{part}_{label}_{number}.JPEG"), quality=90)

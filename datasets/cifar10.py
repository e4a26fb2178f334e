"""50,000 colour images of 32x32 pixels for training and 10,000 for test (Krizhevsky 2009), read with torchvision."""

from __future__ import annotations

import hashlib
import os
import pickle

import numpy as np
import torch

from datasets import base
from foundations import imports
from foundations.errors import ConfigError
from platforms.platform import get_platform


class Dataset(base.ImageDataset):
    """The images; missing files are downloaded to the dataset folder. Training uses random crops and mirror images."""

    image_shape, classes = (3, 32, 32), 10
    mean, std = base.IMAGENET_MEAN, base.IMAGENET_STD  # as in OpenLTH, so that networks trained there receive the same inputs
    is_augmented = True

    @staticmethod
    def read(train: bool) -> tuple[torch.Tensor, torch.Tensor]:
        batches = _check_checksums(train)
        try:
            pixels, labels = base.read_with_torchvision("CIFAR10", train)
            if len(pixels) != len(labels) or not 0 <= int(labels.min()) <= int(labels.max()) < Dataset.classes:
                raise ConfigError(f"CIFAR10: {len(pixels)} images and {len(labels)} labels do not fit each other")
        except ConfigError:
            for path in batches:
                _check_batch(path)
            raise
        return pixels.permute(0, 3, 1, 2).contiguous(), labels


def _check_checksums(train: bool) -> list[str]:
    """The paths of the batches of the training or test set, if all files exist; empty if some must be downloaded.

    Raises:
        ConfigError: a file exists but has another checksum. torchvision would replace it.
    """
    torchvision = imports.torchvision().datasets.CIFAR10
    lists = {True: torchvision.train_list, False: torchvision.test_list}
    for root in base.folders_of("CIFAR10"):
        folder = os.path.join(root, torchvision.base_folder)
        if all(_has_checksum(os.path.join(folder, name), expected) for name, expected in [*lists[True], *lists[False]]):
            return [os.path.join(folder, name) for name, _ in lists[train]]
    return []


def _has_checksum(path: str, expected: str) -> bool:
    """Whether a file exists; a ConfigError if it has another checksum."""
    if not get_platform().exists(path):
        return False
    try:
        with get_platform().open(path, "rb") as file:
            found = hashlib.md5(file.read(), usedforsecurity=False).hexdigest()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror or error})") from None
    if found != expected:
        raise base.does_not_fit(path, f"the MD5 checksum {expected}", f"{found}; delete it to download CIFAR-10 again")
    return True


def _check_batch(path: str) -> None:
    """Checks the images and labels in a pickle whose checksum is right.

    Raises:
        ConfigError: they do not fit each other or the dataset.
    """
    with get_platform().open(path, "rb") as file:
        batch = pickle.load(file, encoding="latin1")
    values, classes = int(np.prod(Dataset.image_shape)), Dataset.classes
    if not isinstance(batch, dict) or not {"data", "labels"} <= batch.keys():
        raise base.does_not_fit(path, "a dict of data and labels", f"a {type(batch).__name__}")
    images, labels = np.asarray(batch["data"]), np.asarray(batch["labels"])
    if images.ndim != 2 or images.shape[1] != values:
        raise base.does_not_fit(path, f"images of {values} values ({base.times(Dataset.image_shape)})", f"data of shape {images.shape}")
    if labels.shape != (len(images),):
        raise base.does_not_fit(path, f"{len(images)} labels, as many as images", str(labels.size))
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise base.does_not_fit(path, f"labels from 0 to {classes - 1}", f"{labels[wrong[0]]} at index {wrong[0]}")


DataLoader = base.DataLoader

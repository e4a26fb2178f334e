"""The base classes of all datasets and loaders.

A small dataset is two tensors on the device of the platform. Batches depend on the seed of the loader and the epoch only, so that training
can resume in the middle of an epoch.
"""

from __future__ import annotations

import abc
import contextlib
import copy
import functools
import math
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch

from datasets import transformations
from foundations import imports
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError, reason
from foundations.seeds import derive
from platforms.platform import get_platform

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of red, green and blue


class Dataset(abc.ABC, torch.utils.data.Dataset):
    """Examples `[n, ...]` (float32) with labels `[n]` (classes) or targets `[n, outputs]` (float64).

    Training batches are transformed by the `augmentation`, if there is one; evaluation batches are not. `image_shape` is channels, height
    and width; None if the examples are not images.
    """

    image_shape: tuple[int, int, int] | None = None

    def __init__(self, examples: torch.Tensor, labels: torch.Tensor, augmentation: transformations.CropAndFlip | None = None):
        if len(examples) != len(labels):
            raise ValueError(f"{len(examples)} examples but {len(labels)} labels")
        device = get_platform().torch_device
        self.examples, self.labels = examples.to(device), labels.to(device)
        self.augmentation = augmentation

    @classmethod
    @abc.abstractmethod
    def create(cls, dataset_hparams: DatasetHparams, train: bool, seed: int) -> Dataset:
        """Builds the training or the test set from the hyperparameters and the seed of the run."""

    @classmethod
    @abc.abstractmethod
    def shape(cls, dataset_hparams: DatasetHparams) -> tuple[int, int]:
        """The number of values of an example, and the number of outputs that a model needs."""

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.examples[index], self.labels[index]


class DataLoader:
    """Batches of a dataset.

    Args:
        dataset: the dataset to load from.
        batch_size: examples in a batch; the last batch of an epoch may be smaller.
        seed: the seed of the order of the examples and of the augmentation.
        dtype: the number format of examples and real-valued targets.
    """

    is_stream = False  # True: examples are read from files for every batch; False: they are in memory
    order_seed: int | None = None  # if set, the order of epoch e is that of OpenLTH with this seed of the data order
    shard = (0, 1)  # index and count: batches are split into `count` parts, and the loader returns the part `index`

    def __init__(self, dataset: Dataset, batch_size: int, seed: int = 0, dtype: torch.dtype = torch.float32):
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.examples = dataset.examples.to(dtype)
        self.labels = dataset.labels.to(dtype) if dataset.labels.is_floating_point() else dataset.labels

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        return -(-len(self.dataset) // self.batch_size)

    @property
    def iterations_per_epoch(self) -> int:
        """The number of batches of an epoch, by its name in OpenLTH."""
        return len(self)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All batches in the order of the dataset."""
        return self.in_order(self.batch_size)

    def over(self, dataset: Dataset) -> DataLoader:
        """A loader of another dataset, in the same batch size, order and number format."""
        other = type(self)(dataset, self.batch_size, self.seed, self.examples.dtype)
        other.order_seed = self.order_seed
        return other

    def at(self, places: torch.Tensor) -> DataLoader:
        """A loader of the examples at some places, in their order, or where a mask is true, that is like this one otherwise."""
        return self.over(type(self.dataset)(self.dataset.examples[places], self.dataset.labels[places]))

    def selected(self, mask: torch.Tensor) -> DataLoader:
        """A loader of the examples where a mask `[n]` is true; this loader if it is true everywhere."""
        return self if bool(mask.all()) else self.at(mask)

    def sharded(self, index: int, count: int) -> DataLoader:
        """A loader that returns one of `count` parts of each batch. The sizes of the parts differ by at most one example."""
        loader = copy.copy(self)
        loader.shard = index, count
        return loader

    def shard_fraction(self, it: int) -> float:
        """The fraction of the examples of batch `it` that the loader returns: 1 unless the loader is sharded."""
        index, count = self.shard
        whole = min(self.batch_size, len(self.dataset) - it * self.batch_size)
        return (whole // count + (index < whole % count)) / whole

    def _shard_of(self, batch: torch.Tensor) -> torch.Tensor:
        """The part of a batch that the loader returns."""
        index, count = self.shard
        return batch if count == 1 else batch.tensor_split(count)[index]

    def in_order(self, batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All batches in the order of the dataset, with another batch size, for evaluation."""
        for examples, labels in zip(self.examples.split(batch_size), self.labels.split(batch_size), strict=True):
            yield self._shard_of(examples), self._shard_of(labels)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The shuffled batches of an epoch, from batch `start` on.

        A batch of the complete dataset is not shuffled, unless there is an augmentation.
        """
        augmentation = self.dataset.augmentation
        if augmentation is None and self.batch_size >= len(self.dataset):
            yield from [(self._shard_of(self.examples), self._shard_of(self.labels))][start:]
            return
        images = functools.partial(self.examples.index_select, 0) if augmentation is None else augmentation.epoch(self.seed, epoch)
        for indices in map(self._shard_of, _move_async(self.order(epoch), self.labels.device).split(self.batch_size)[start:]):
            yield images(indices).to(self.examples.dtype), self.labels[indices]

    def order(self, epoch: int) -> torch.Tensor:
        """The indices of the examples in the order of an epoch, `[n]` on the CPU."""
        seed = derive(self.seed, "data order", epoch) if self.order_seed is None else self.order_seed + epoch
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(len(self.dataset), generator=generator)


class Loaders(NamedTuple):
    """The loaders of the training set and the test set."""

    train: DataLoader
    test: DataLoader


def _move_async(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Moves values from the CPU to a device; the CPU does not wait for a GPU to finish its work."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


class ImageDataset(Dataset):
    """Images with class labels. A subclass defines the following attributes and how to read the images.

    `mean` and `std` `[channels]` are those of the pixels divided by `max_value`. `is_augmented` is True if training uses random crops and
    mirror images.
    """

    image_shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    max_value: int = 255
    is_augmented = False

    @staticmethod
    @abc.abstractmethod
    def read(train: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Reads pixels `[n, channels, height, width]` (uint8) and labels `[n]` (int64)."""

    @classmethod
    def read_checked(cls, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """The pixels and labels that `read` returns.

        Raises:
            ConfigError: they do not fit each other or the dataset.
        """
        pixels, labels = cls.read(train)
        name = f"the {'training' if train else 'test'} set of {cls.__module__.rpartition('.')[2]}"
        if tuple(pixels.shape[1:]) != cls.image_shape:
            raise does_not_fit(name, f"images of {times(cls.image_shape)} values", times(pixels.shape[1:]))
        if not len(pixels):
            raise does_not_fit(name, "one image or more", "none")
        if labels.shape != (len(pixels),):
            raise does_not_fit(name, f"{len(pixels)} labels, as many as images", times(labels.shape))
        if labels.is_floating_point() or not 0 <= int(labels.min()) <= int(labels.max()) < cls.classes:
            raise does_not_fit(name, f"labels from 0 to {cls.classes - 1}", f"{labels.min().item()} to {labels.max().item()}")
        return pixels, labels

    @classmethod
    def load(cls, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Standardised, untransformed images `[n, channels, height, width]` and labels `[n]`."""
        pixels, labels = cls.read_checked(train)
        return standardise(pixels, *cls.moments(pixels.device)), labels

    @classmethod
    def moments(cls, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of the pixels that `read` returns, `[channels, 1, 1]` each."""
        return channel_moments(cls.mean, cls.std, cls.max_value, device)

    @classmethod
    def create(cls, dataset_hparams: DatasetHparams, train: bool, seed: int) -> ImageDataset:
        """The chosen examples of the dataset on the platform's device, standardised, and augmented for training where that is asked for."""
        pixels, labels = cls.read_checked(train)
        kept, labels = transformations.select_examples(dataset_hparams, train, labels, cls.classes)
        device = get_platform().torch_device
        pixels, labels, moments = pixels[kept].to(device), labels.to(device), cls.moments(device)

        def finish(pixels: torch.Tensor, indices: torch.Tensor | slice) -> torch.Tensor:
            return transformations.apply(dataset_hparams, train, standardise(pixels, *moments), labels[indices])

        augmentation = None
        if train and cls.is_augmented and not dataset_hparams.do_not_augment:
            augmentation = transformations.CropAndFlip(pixels, finish, transformations.seed_of(dataset_hparams))
        return cls(finish(pixels, slice(None)), labels, augmentation)

    @classmethod
    def shape(cls, dataset_hparams: DatasetHparams | None = None) -> tuple[int, int]:
        classes = cls.classes if dataset_hparams is None else transformations.output_count(dataset_hparams, cls.classes)
        return math.prod(cls.image_shape), classes


def does_not_fit(path: str, expected: str, found: str) -> ConfigError:
    """The error for a file whose content does not fit its dataset."""
    return ConfigError(f"{path} does not fit the dataset: expected {expected}, found {found}")


def times(sizes: Sequence[int]) -> str:
    """Sizes as text, such as `3x32x32`."""
    return "x".join(map(str, sizes))


def channel_moments(mean: Sequence[float], std: Sequence[float], max_value: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each channel, multiplied by the maximum value of a pixel: `[channels, 1, 1]` each."""

    def scaled(values: Sequence[float]) -> torch.Tensor:
        return (max_value * torch.tensor(values, dtype=torch.float64)).view(-1, 1, 1).to(device, torch.float32)

    return scaled(mean), scaled(std)


def standardise(pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Subtracts the mean of each channel from pixels `[n, channels, height, width]` and divides by its standard deviation: float32."""
    return pixels.float().sub_(mean).div_(std)


class _TorchvisionDataset(Protocol):
    """The attributes that the datasets of torchvision have in common."""

    data: torch.Tensor | np.ndarray
    targets: torch.Tensor | list[int]


_SUBFOLDERS = {"MNIST": "mnist", "FashionMNIST": "fashion_mnist", "CIFAR10": "cifar10"}


def folders_of(name: str) -> tuple[str, str]:
    """The folders that may contain a dataset: the dataset folder, and its subfolder to which OpenLTH and the published code download it."""
    root = get_platform().dataset_root
    return root, os.path.join(root, _SUBFOLDERS[name])


def read_with_torchvision(name: str, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The pixels and labels of a dataset of torchvision, in its layout. Missing files are downloaded to the dataset folder.

    Raises:
        ConfigError: torchvision does not match the installed torch, or the files are missing or damaged and cannot be downloaded.
    """
    if get_platform().world_size > 1:
        get_platform().on_primary(lambda: len(_open_with_torchvision(name, train).data))  # downloads the files before the others read them
    dataset = _open_with_torchvision(name, train)
    return torch.as_tensor(dataset.data), torch.as_tensor(dataset.targets)


def _open_with_torchvision(name: str, train: bool) -> _TorchvisionDataset:
    root = get_platform().dataset_root
    for folder in folders_of(name):
        with contextlib.suppress(RuntimeError):  # it is not there
            return _open_in(folder, name, train, download=False)
    try:
        return _open_in(root, name, train, download=True)
    except (RuntimeError, OSError) as error:
        raise ConfigError(f"{name} is not under {root} and cannot be downloaded ({reason(error)})") from error


def _open_in(folder: str, name: str, train: bool, download: bool) -> _TorchvisionDataset:
    """The dataset in a folder, in the layout of torchvision; a ConfigError if its files are damaged."""
    try:
        return getattr(imports.torchvision().datasets, name)(folder, train=train, download=download)
    except (AssertionError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"{name} under {folder} is damaged ({reason(error)}); delete its files there") from error

"""The base of every dataset and loader.

A small dataset is two tensors on the platform's device. A loader slices a permutation of them, and is a pure function of its seed and the
epoch, so that training can resume in the middle of an epoch.
"""

from __future__ import annotations

import abc
import copy
import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

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

    Where there is an `augmentation`, training sees what that makes of the examples; evaluation sees them as they are. `image_shape` is
    channels, height and width where the examples are images.
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
        """The training or the test set that some hyperparameters describe; `seed` is the run's."""

    @classmethod
    @abc.abstractmethod
    def shape(cls, dataset_hparams: DatasetHparams) -> tuple[int, int]:
        """Values an example, and outputs that a model needs."""

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.examples[index], self.labels[index]


class DataLoader:
    """Batches of a dataset.

    Args:
        dataset: what to load from.
        batch_size: examples in a batch; the last of an epoch may be smaller.
        seed: of the order of the examples, and of their augmentation.
        dtype: the number format of examples and real-valued targets.
    """

    is_stream = False  # whether examples are read as they are needed, rather than held in memory
    shard = (0, 1)  # which of how many parts each batch is cut down to

    def __init__(self, dataset: Dataset, batch_size: int, seed: int = 0, dtype: torch.dtype = torch.float32):
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.examples = dataset.examples.to(dtype)
        self.labels = dataset.labels.to(dtype) if dataset.labels.is_floating_point() else dataset.labels

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One pass in the order of the dataset."""
        return self.in_order(self.batch_size)

    def sharded(self, index: int, count: int) -> DataLoader:
        """A loader of the same batches that gives only one of several parts of each, equal in size to within one example."""
        loader = copy.copy(self)
        loader.shard = index, count
        return loader

    def shard_fraction(self, it: int) -> float:
        """The share of batch `it` of an epoch that the loader gives of it: 1 unless the batches are divided."""
        index, count = self.shard
        whole = min(self.batch_size, len(self.dataset) - it * self.batch_size)
        return (whole // count + (index < whole % count)) / whole

    def _shard_of(self, batch: torch.Tensor) -> torch.Tensor:
        """The part of a batch that the loader gives."""
        index, count = self.shard
        return batch if count == 1 else batch.tensor_split(count)[index]

    def in_order(self, batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One pass in the order of the dataset, in batches of another size, for evaluation."""
        for examples, labels in zip(self.examples.split(batch_size), self.labels.split(batch_size), strict=True):
            yield self._shard_of(examples), self._shard_of(labels)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The shuffled batches of an epoch, from batch `start` on; a batch of everything is the dataset as it stands, unless augmented."""
        augmentation = self.dataset.augmentation
        if augmentation is None and self.batch_size >= len(self.dataset):
            yield from [(self._shard_of(self.examples), self._shard_of(self.labels))][start:]
            return
        images = functools.partial(self.examples.index_select, 0) if augmentation is None else augmentation.epoch(self.seed, epoch)
        for indices in map(self._shard_of, _without_waiting(self.order(epoch), self.labels.device).split(self.batch_size)[start:]):
            yield images(indices).to(self.examples.dtype), self.labels[indices]

    def order(self, epoch: int) -> torch.Tensor:
        """The places of the examples in the order of an epoch, `[n]` on the CPU."""
        generator = torch.Generator().manual_seed(derive(self.seed, "data order", epoch))
        return torch.randperm(len(self.dataset), generator=generator)


class Loaders(NamedTuple):
    """The loader of the training set, and that of the test set."""

    train: DataLoader
    test: DataLoader


def _without_waiting(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Values from the CPU on a device; where that is a GPU, the CPU does not wait for what it is doing."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


class ImageDataset(Dataset):
    """Images with class labels. A subclass names the sizes and says how to read them.

    `mean` and `std` `[channels]` are of pixels on a scale from 0 to 1, which `white` is; `is_augmented` says whether training sees random
    crops and mirror images.
    """

    image_shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    white: int = 255
    is_augmented = False

    @staticmethod
    @abc.abstractmethod
    def read(train: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels `[n, channels, height, width]`, uint8, and labels `[n]`, int64."""

    @classmethod
    def load(cls, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Standardised images `[n, channels, height, width]` and labels `[n]`, none of them transformed."""
        pixels, labels = cls.read(train)
        return standardise(pixels, *cls.moments(pixels.device)), labels

    @classmethod
    def moments(cls, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of the pixels as they are, `[channels, 1, 1]` each."""
        return channel_moments(cls.mean, cls.std, cls.white, device)

    @classmethod
    def create(cls, dataset_hparams: DatasetHparams, train: bool, seed: int) -> ImageDataset:
        pixels, labels = cls.read(train)
        kept, labels = transformations.choose(dataset_hparams, train, labels, cls.classes)
        device = get_platform().torch_device
        pixels, labels, moments = pixels[kept].to(device), labels.to(device), cls.moments(device)

        def finish(pixels: torch.Tensor, places: torch.Tensor | slice) -> torch.Tensor:
            return transformations.apply(dataset_hparams, train, standardise(pixels, *moments), labels[places])

        augmentation = None
        if train and cls.is_augmented and not dataset_hparams.do_not_augment:
            augmentation = transformations.CropAndFlip(pixels, finish, transformations.seed_of(dataset_hparams))
        return cls(finish(pixels, slice(None)), labels, augmentation)

    @classmethod
    def shape(cls, dataset_hparams: DatasetHparams | None = None) -> tuple[int, int]:
        classes = cls.classes if dataset_hparams is None else transformations.outputs(dataset_hparams, cls.classes)
        return math.prod(cls.image_shape), classes


def channel_moments(mean: Sequence[float], std: Sequence[float], white: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each channel, given on a scale from 0 to 1, on that of pixels: `[channels, 1, 1]` each."""
    return tuple((white * torch.tensor(values, dtype=torch.float64)).view(-1, 1, 1).to(device, torch.float32) for values in (mean, std))


def standardise(pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Pixels `[n, channels, height, width]` less the mean of their channel, over its standard deviation: float32."""
    return pixels.float().sub_(mean).div_(std)


def read_with_torchvision(name: str, train: bool) -> torch.utils.data.Dataset:
    """A dataset of torchvision's from the dataset folder, downloaded first when it is not there.

    Raises:
        ConfigError: torchvision does not fit the installed torch, or the files are neither there nor to be had.
    """
    if get_platform().world_size > 1:
        get_platform().on_primary(lambda: _has_been_read(name, train))  # the other processes find what it has downloaded
    return _read(name, train)


def _has_been_read(name: str, train: bool) -> bool:
    return len(_read(name, train)) > 0


def _read(name: str, train: bool) -> torch.utils.data.Dataset:
    root = get_platform().dataset_root
    try:
        return getattr(imports.torchvision().datasets, name)(root, train=train, download=True)
    except (AssertionError, ValueError) as error:
        raise ConfigError(f"{name} under {root} is damaged ({reason(error)}); delete its files there") from error
    except (RuntimeError, OSError) as error:
        raise ConfigError(f"{name} is not under {root} and cannot be downloaded ({reason(error)})") from error

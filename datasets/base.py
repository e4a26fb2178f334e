"""The base of every dataset and loader.

A small dataset is two tensors on the platform's device. A loader slices a permutation of them, and is a pure function of its seed and the
epoch, so that training can resume in the middle of an epoch.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator

import torch

from foundations.errors import ConfigError, reason
from foundations.hparams import DatasetHparams
from foundations.seeds import derive
from platforms.platform import get_platform


class Dataset(abc.ABC, torch.utils.data.Dataset):
    """Examples `[n, ...]` (float32) with labels `[n]` (classes) or targets `[n, outputs]` (float64)."""

    def __init__(self, examples: torch.Tensor, labels: torch.Tensor):
        if len(examples) != len(labels):
            raise ValueError(f"{len(examples)} examples but {len(labels)} labels")
        device = get_platform().torch_device
        self.examples, self.labels = examples.to(device), labels.to(device)

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
        seed: of the order of the examples.
        dtype: the number format of examples and real-valued targets.
    """

    def __init__(self, dataset: Dataset, batch_size: int, seed: int = 0, dtype: torch.dtype = torch.float32):
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.examples = dataset.examples.to(dtype)
        self.labels = dataset.labels.to(dtype) if dataset.labels.is_floating_point() else dataset.labels

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One pass in the order of the dataset, for evaluation."""
        return zip(self.examples.split(self.batch_size), self.labels.split(self.batch_size), strict=True)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The shuffled batches of an epoch, from batch `start` on; a batch of everything is the dataset as it stands."""
        if self.batch_size >= len(self.dataset):
            yield from [(self.examples, self.labels)][start:]
            return
        generator = torch.Generator().manual_seed(derive(self.seed, "data order", epoch))
        order = torch.randperm(len(self.dataset), generator=generator).to(self.examples.device)
        for indices in order.split(self.batch_size)[start:]:
            yield self.examples[indices], self.labels[indices]


class ImageDataset(Dataset):
    """Images with class labels. A subclass names the sizes and says how to read them."""

    image_shape: tuple[int, int, int]
    classes: int

    @staticmethod
    @abc.abstractmethod
    def load(train: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Standardised images `[n, channels, height, width]` and labels `[n]`."""

    @classmethod
    def create(cls, dataset_hparams: DatasetHparams, train: bool, seed: int) -> ImageDataset:
        return cls(*cls.load(train))

    @classmethod
    def shape(cls, dataset_hparams: DatasetHparams | None = None) -> tuple[int, int]:
        channels, height, width = cls.image_shape
        return channels * height * width, cls.classes


def read_with_torchvision(name: str, train: bool) -> torch.utils.data.Dataset:
    """A dataset of torchvision's from the dataset folder, downloaded first when it is not there.

    Raises:
        ConfigError: torchvision does not fit the installed torch, or the files are neither there nor to be had.
    """
    try:
        import torchvision
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"torchvision cannot be imported beside torch {torch.__version__} ({reason(error)}); "
            "`pip install -r requirements.txt` in a fresh environment installs a pair that fits"
        ) from error
    root = get_platform().dataset_root
    try:
        return getattr(torchvision.datasets, name)(root, train=train, download=True)
    except (AssertionError, ValueError) as error:
        raise ConfigError(f"{name} under {root} is damaged ({reason(error)}); delete its files there") from error
    except (RuntimeError, OSError) as error:
        raise ConfigError(f"{name} is not under {root} and cannot be downloaded ({reason(error)})") from error

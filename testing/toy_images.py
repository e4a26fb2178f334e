"""Random colour images of CIFAR-10's size and classes, to stand in for a dataset in tests of what is done with images."""

from __future__ import annotations

import torch

from datasets import base
from foundations.hparams import DatasetHparams
from foundations.seeds import derive


class Dataset(base.Dataset):
    """Twelve images `[3, 32, 32]` of ten classes for training, and twelve others for test."""

    image_shape, classes = (3, 32, 32), 10

    @classmethod
    def create(cls, dataset_hparams: DatasetHparams | None = None, train: bool = True, seed: int = 0) -> Dataset:
        generator = torch.Generator().manual_seed(derive(0, "toy images", train))
        return cls(torch.randn(12, *cls.image_shape, generator=generator), torch.randint(cls.classes, (12,), generator=generator))

    @classmethod
    def shape(cls, dataset_hparams: DatasetHparams | None = None) -> tuple[int, int]:
        return torch.Size(cls.image_shape).numel(), cls.classes


DataLoader = base.DataLoader

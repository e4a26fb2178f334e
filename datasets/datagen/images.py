"""Queries that are images of a dataset."""

from __future__ import annotations

import dataclasses

import torch

from datasets.base import ImageDataset
from datasets.datagen.base import FinitePolicy
from foundations.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Images(FinitePolicy):
    """The flattened, untransformed images: training queries are training images, test queries are test images."""

    dataset: type[ImageDataset]

    def check(self, name: str, inputs: int, dataset_name: str | None) -> None:
        """Raises a ConfigError unless the number of values of an image equals the number of inputs of the teacher."""
        size, _ = self.dataset.shape()
        if size != inputs:
            raise ConfigError(
                f"--datagen: {name} generates queries of {size} values; the teacher takes {inputs}; use others, such as random"
            )

    def size(self) -> int:
        """The number of training images."""
        return len(self.dataset.read_checked(train=True)[0])

    def generate(
        self, count: int | None, train: bool, inputs: int, generator: torch.Generator, dataset_name: str | None = None
    ) -> torch.Tensor:
        """All images, or `count` training images drawn without replacement: `[n, inputs]`. The test queries are always all test images."""
        images = self.dataset.load(train)[0].flatten(1)
        if count is None or not train:
            return images
        return images[torch.randperm(len(images), generator=generator)[:count]]

"""Queries that are the images of a dataset."""

from __future__ import annotations

import dataclasses

import torch

from datasets.base import ImageDataset
from datasets.datagen.base import Policy
from foundations.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Images(Policy):
    """The images as they are, flattened: those of the training set to learn from, those of the test set to be tested on."""

    dataset: type[ImageDataset]
    is_finite = True

    def check(self, name: str, inputs: int, source: str | None) -> None:
        """Raises a ConfigError unless the images have as many values as the teacher has inputs."""
        size, _ = self.dataset.shape()
        if size != inputs:
            raise ConfigError(f"--datagen: {name} makes queries of {size} values; the teacher takes {inputs}")

    def size(self) -> int:
        """How many training images there are."""
        return len(self.dataset.read(train=True)[0])

    def make(self, count: int | None, train: bool, inputs: int, generator: torch.Generator, source: str | None = None) -> torch.Tensor:
        """All images, or `count` drawn from the training set without replacement: `[n, inputs]`."""
        images = self.dataset.load(train)[0].flatten(1)
        if count is None or not train:
            return images
        return images[torch.randperm(len(images), generator=generator)[:count]]

"""Queries that are modified images of the dataset of the teacher. Training queries modify training images, test queries test images."""

from __future__ import annotations

import abc

import torch

from datasets.datagen.base import Policy, query_count
from datasets.datagen.images import Images
from datasets.image_registry import registered_images
from foundations.errors import ConfigError


class Variation(Policy):
    """A policy that modifies images of the dataset that the teacher was trained on."""

    def check(self, name: str, inputs: int, dataset_name: str | None) -> None:
        """Raises a ConfigError unless the teacher was trained on images, and an image has as many values as the teacher has inputs."""
        if dataset_name is None or dataset_name not in registered_images:
            trained_on = f"the dataset of this teacher is {dataset_name or 'unknown'}; valid: {', '.join(registered_images)}"
            raise ConfigError(f"--datagen: {name} needs a teacher that was trained on images; {trained_on}")
        Images(registered_images[dataset_name].Dataset).check(name, inputs, dataset_name)

    def generate(
        self, count: int | None, train: bool, inputs: int, generator: torch.Generator, dataset_name: str | None = None
    ) -> torch.Tensor:
        assert dataset_name is not None  # `check` has passed
        images, _ = registered_images[dataset_name].Dataset.load(train)
        return self.vary(images, query_count(count, train), generator).flatten(1)

    @abc.abstractmethod
    def vary(self, images: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
        """Modified images `[count, channels, height, width]` from the images `[m, channels, height, width]` of a dataset."""


class Biased(Variation):
    """An image, drawn with replacement, plus one N(0, 1) offset for all its values.

    Pixels that are constant in all images change only together. Combine this policy with `random` to vary them independently.
    """

    def vary(self, images: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
        offsets = torch.randn(count, 1, 1, 1, generator=generator)
        return draw(images, count, generator) + offsets


class Mosaic(Variation):
    """An image composed of the quadrants of four images drawn with replacement. The quadrants meet at a random point, and none is empty."""

    def vary(self, images: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
        height, width = images.shape[2:]
        below = torch.arange(height)[:, None] >= torch.randint(1, height, (count, 1, 1, 1), generator=generator)
        right = torch.arange(width) >= torch.randint(1, width, (count, 1, 1, 1), generator=generator)
        top, bottom = (torch.where(right, draw(images, count, generator), draw(images, count, generator)) for _ in range(2))
        return torch.where(below, bottom, top)


def draw(images: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """`count` images, drawn with replacement."""
    return images[torch.randint(len(images), (count,), generator=generator)]

"""Queries that vary the images that the teacher was trained on. Those for training vary training images, those for test test images."""

from __future__ import annotations

import abc

import torch

from datasets.datagen.base import Policy, generated
from datasets.datagen.images import Images
from datasets.image_registry import registered_images
from foundations.errors import ConfigError


class Variation(Policy):
    """A policy that makes new images from those of the teacher's own dataset."""

    def check(self, name: str, inputs: int, source: str | None) -> None:
        """Raises a ConfigError unless the teacher was trained on images, and these have as many values as it has inputs."""
        if source not in registered_images:
            trained_on = f"this one was trained on {source!r}; valid: {', '.join(registered_images)}"
            raise ConfigError(f"--datagen: {name} needs a teacher that was trained on images; {trained_on}")
        Images(registered_images[source].Dataset).check(name, inputs, source)

    def make(self, count: int, train: bool, inputs: int, generator: torch.Generator, source: str | None = None) -> torch.Tensor:
        images, _ = registered_images[source].Dataset.load(train)
        return self.vary(images, generated(count, train), generator).flatten(1)

    @abc.abstractmethod
    def vary(self, images: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
        """New images `[count, channels, height, width]` from a dataset's `[m, channels, height, width]`."""


class Biased(Variation):
    """An image, drawn with replacement, and one N(0, 1) offset that is added to all its values.

    Nothing else is added: pixels that are the same in all images move together only, and want `random` beside this policy.
    """

    def vary(self, images: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
        offsets = torch.randn(count, 1, 1, 1, generator=generator)
        return draw(images, count, generator) + offsets


class Mosaic(Variation):
    """Four images, drawn with replacement, give a quadrant each; the point where the quadrants meet is random, and none is empty."""

    def vary(self, images: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
        height, width = images.shape[2:]
        below = torch.arange(height)[:, None] >= torch.randint(1, height, (count, 1, 1, 1), generator=generator)
        right = torch.arange(width) >= torch.randint(1, width, (count, 1, 1, 1), generator=generator)
        top, bottom = (torch.where(right, draw(images, count, generator), draw(images, count, generator)) for _ in range(2))
        return torch.where(below, bottom, top)


def draw(images: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """`count` of some images, drawn with replacement."""
    return images[torch.randint(len(images), (count,), generator=generator)]

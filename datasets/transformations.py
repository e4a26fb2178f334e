"""The built-in transformations of image datasets. All but the order of the examples follows from `--transformation_seed`.

What a dataset *is* (which examples are kept, with which labels; blur and rotation) follows from that seed alone, so that runs with
different seeds share it. Crops and mirroring are drawn anew in every epoch, from the run's seed as well. Images are `[n, channels, height,
width]`, and every function acts on all of them at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import torch
import torch.nn.functional as F

from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError
from foundations.seeds import derive

NAMES = (
    "do_not_augment",
    "transformation_seed",
    "subsample_fraction",
    "random_labels_fraction",
    "unsupervised_labels",
    "blur_factor",
)  # of the hyperparameters
TURNS = 4  # classes of unsupervised rotation
MARGIN = 4  # black pixels on each side that a random crop may reach into


def check(hparams: DatasetHparams, height: int, width: int) -> None:
    """Raises a ConfigError unless images of this size can be transformed so."""
    if hparams.blur_factor is not None and hparams.blur_factor > min(height, width):
        size = f"the images of {hparams.dataset_name} have {height}x{width} pixels"
        raise ConfigError(f"--blur_factor: {hparams.blur_factor} is out of range; {size}; valid: 1 to {min(height, width)}")


def refuse(hparams: DatasetHparams) -> None:
    """Raises a ConfigError for any transformation, on behalf of a dataset that is not one of images."""
    for name in NAMES:
        if getattr(hparams, name) != getattr(DatasetHparams, name):
            raise ConfigError(f"--{name}: goes with datasets of images only, not with --dataset_name {hparams.dataset_name}")


def seed_of(hparams: DatasetHparams) -> int:
    """The seed that all transformations are drawn from."""
    return hparams.transformation_seed or 0


def outputs(hparams: DatasetHparams, classes: int) -> int:
    """Outputs that a model needs for images of so many classes."""
    return classes if hparams.unsupervised_labels is None else TURNS


def choose(hparams: DatasetHparams, train: bool, labels: torch.Tensor, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which examples there are, and what they are to be taken for.

    Args:
        hparams: the transformations. Random labels and subsampling are of the training set, rotation is of both.
        train: whether the training set is meant.
        labels: the true classes, `[n]`.
        classes: how many there are.

    Returns:
        The places `[m]` of the examples that are kept, in order, and their labels `[m]`. A share of n is rounded up.
    """
    seed, kept = seed_of(hparams), torch.arange(len(labels))
    if train and hparams.random_labels_fraction is not None:
        generator = torch.Generator().manual_seed(derive(seed, "random labels"))
        chosen = _draw(len(labels), hparams.random_labels_fraction, generator)
        labels = labels.index_copy(0, chosen, torch.randint(classes, chosen.shape, generator=generator))
    if train and hparams.subsample_fraction is not None:
        generator = torch.Generator().manual_seed(derive(seed, "subsample"))
        kept = _draw(len(labels), hparams.subsample_fraction, generator).sort().values
    if hparams.unsupervised_labels is not None:
        generator = torch.Generator().manual_seed(derive(seed, "rotation", train))
        labels = torch.randint(TURNS, labels.shape, generator=generator)
    return kept, labels[kept]


def _draw(count: int, fraction: float, generator: torch.Generator) -> torch.Tensor:
    """A share of the numbers below `count`, in random order."""
    exact = Fraction(repr(fraction))  # a tenth of ten is one, and not what follows from the binary fraction nearest to a tenth
    return torch.randperm(count, generator=generator)[: math.ceil(exact * count)]


def apply(hparams: DatasetHparams, train: bool, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The images of some examples, blurred and turned as their labels `[n]` say, in this order."""
    if train and hparams.blur_factor is not None:
        images = blur(images, hparams.blur_factor)
    return images if hparams.unsupervised_labels is None else rotate(images, labels)


def blur(images: torch.Tensor, factor: int) -> torch.Tensor:
    """Images without what is lost in shrinking them by a factor, with bilinear interpolation both ways."""
    height, width = images.shape[2:]
    small = F.interpolate(images, (height // factor, width // factor), mode="bilinear", antialias=True)
    return F.interpolate(small, (height, width), mode="bilinear")


def rotate(images: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Square images, each turned counterclockwise by its number of quarter turns `[n]`."""
    size = images.shape[-1]
    places = torch.arange(size**2, device=images.device).view(size, size)
    sources = torch.stack([places.rot90(turn).flatten() for turn in range(TURNS)])  # of each pixel, for each number of turns
    return images.flatten(2).gather(2, sources[turns, None].expand(-1, images.shape[1], -1)).view_as(images)


class CropAndFlip:
    """The standard augmentation of small images: mirrored or not, and shifted by up to MARGIN pixels each way, with black where they end.

    The pixels are kept as bytes, with their margin and beside their mirror images, so that a batch is one read from the view of all
    windows, whatever its shifts.

    Args:
        pixels: of the training set, uint8.
        finish: makes a network's input of the pixels `[b, ...]` of the examples at some places `[b]`.
        seed: that of the transformations.
    """

    def __init__(self, pixels: torch.Tensor, finish: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], seed: int):
        height, width = pixels.shape[2:]
        padded = F.pad(pixels, [MARGIN] * 4)
        both = torch.stack([padded, padded.flip(-1)])
        self._windows = both.unfold(3, height, 1).unfold(4, width, 1)  # [2, n, channels, shifts down, shifts right, height, width]
        self._finish, self._seed = finish, seed

    def epoch(self, seed: int, epoch: int) -> Callable[[torch.Tensor], torch.Tensor]:
        """Draws for every example of an epoch; what it returns maps the places of examples to their images in this epoch."""
        _, count, _, down, right, *_ = self._windows.shape
        generator = torch.Generator().manual_seed(derive(seed, "augmentation", self._seed, epoch))
        draws = [torch.randint(choices, (count,), generator=generator).to(self._windows.device) for choices in (2, down, right)]

        def images(places: torch.Tensor) -> torch.Tensor:
            mirrored, top, left = (draw[places] for draw in draws)
            return self._finish(self._windows[mirrored, places, :, top, left], places)

        return images

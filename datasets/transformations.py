"""The built-in transformations of image datasets.

Subsampling, random labels and rotations depend on `--transformation_seed` only, so that runs with different seeds train on the same
dataset, which is that of OpenLTH. Two things differ: OpenLTH rotates an image by a random angle of up to its number of quarter turns, and
its blur ends in an error; here the angle is exact. Random crops and mirroring change in every epoch and depend on the seed of the run as
well. Images are `[n, channels, height, width]`; every function transforms all of them together.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError
from foundations.seeds import derive

FIELDS = (
    "do_not_augment",
    "transformation_seed",
    "subsample_fraction",
    "random_labels_fraction",
    "unsupervised_labels",
    "blur_factor",
)  # the hyperparameters in DatasetHparams
ROTATIONS = 4  # classes of the rotation task
LARGEST_SEED = 2**32 - 2  # of numpy's older generator, less one
PADDING = 4  # black pixels that are added on each side before a random crop


def check(hparams: DatasetHparams, height: int, width: int) -> None:
    """Raises a ConfigError unless the transformations can be applied to images of this size."""
    if hparams.blur_factor is not None and hparams.blur_factor > min(height, width):
        size = f"the images of {hparams.dataset_name} have {height}x{width} pixels"
        raise ConfigError(f"--blur_factor: {hparams.blur_factor} is out of range; {size}; valid: 1 to {min(height, width)}")
    if not 0 <= seed_of(hparams) <= LARGEST_SEED:
        raise ConfigError(f"--transformation_seed: {hparams.transformation_seed} is out of range; valid: 0 to {LARGEST_SEED}")


def check_unused(hparams: DatasetHparams) -> None:
    """Raises a ConfigError if a transformation is set; used for datasets that do not consist of images."""
    for name in FIELDS:
        if getattr(hparams, name) != getattr(DatasetHparams, name):
            raise ConfigError(f"--{name}: applies to image datasets only, not to --dataset_name {hparams.dataset_name}")


def seed_of(hparams: DatasetHparams) -> int:
    """The seed of all transformations."""
    return hparams.transformation_seed or 0


def output_count(hparams: DatasetHparams, classes: int) -> int:
    """The number of outputs that a model needs if the images have so many classes."""
    return classes if hparams.unsupervised_labels is None else ROTATIONS


def select_examples(hparams: DatasetHparams, train: bool, labels: torch.Tensor, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Selects the examples of a dataset and assigns their labels.

    Args:
        hparams: the transformations. Random labels and subsampling apply to the training set, rotation to both sets.
        train: True for the training set, False for the test set.
        labels: the true classes, `[n]`.
        classes: the number of classes.

    Returns:
        The indices `[m]` of the selected examples in the order in which they are drawn, and their labels `[m]`.

    Examples and labels are those that OpenLTH draws for the same seed. So random labels and subsampling choose examples by the same
    permutation, and the labels of rotations begin alike in both sets.
    """
    seed, kept = seed_of(hparams), torch.arange(len(labels))
    if train and hparams.random_labels_fraction is not None:
        chosen = _draw(seed, len(labels), hparams.random_labels_fraction)
        labels = labels.index_copy(0, chosen, _draw_labels(seed, classes, len(chosen)))
    if train and hparams.subsample_fraction is not None:
        kept = _draw(seed, len(labels), hparams.subsample_fraction)
    if hparams.unsupervised_labels is not None:
        return kept, _draw_labels(seed, ROTATIONS, len(kept))
    return kept, labels[kept]


def _draw(seed: int, count: int, fraction: float) -> torch.Tensor:
    """A fraction of the numbers 0 to `count - 1`, in random order. Their number is rounded up from the product in floating point.

    This product can be too large: 0.07 * 3000 is 210.00000000000003, so that 211 numbers are drawn.
    """
    return torch.from_numpy(np.random.RandomState(seed + 1).permutation(count)[: math.ceil(count * fraction)])


def _draw_labels(seed: int, classes: int, count: int) -> torch.Tensor:
    """Random classes, `[count]`."""
    return torch.from_numpy(np.random.RandomState(seed).randint(classes, size=count))


def apply(hparams: DatasetHparams, train: bool, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Blurs images, then rotates them by their labels `[n]`, if the hyperparameters say so."""
    if train and hparams.blur_factor is not None:
        images = blur(images, hparams.blur_factor)
    return images if hparams.unsupervised_labels is None else rotate(images, labels)


def blur(images: torch.Tensor, factor: int) -> torch.Tensor:
    """Shrinks images by a factor and enlarges them again, with bilinear interpolation."""
    height, width = images.shape[2:]
    small = F.interpolate(images, (height // factor, width // factor), mode="bilinear", antialias=True)
    return F.interpolate(small, (height, width), mode="bilinear")


def rotate(images: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Rotates square images counterclockwise, each by its number of quarter turns `[n]`."""
    size = images.shape[-1]
    indices = torch.arange(size**2, device=images.device).view(size, size)
    sources = torch.stack([indices.rot90(turn).flatten() for turn in range(ROTATIONS)])  # [ROTATIONS, pixels]: where each pixel comes from
    return images.flatten(2).gather(2, sources[turns, None].expand(-1, images.shape[1], -1)).view_as(images)


class CropAndFlip:
    """The standard augmentation of small images: random mirroring, and random shifts by up to PADDING pixels with black beyond the edges.

    The padded images and their mirror images stay in memory as bytes. A batch is one indexing operation on the view of all windows.

    Args:
        pixels: the pixels of the training set, uint8.
        finish: a function that maps the pixels `[b, ...]` and the indices `[b]` of examples to the input of a network.
        seed: the seed of the transformations.
    """

    def __init__(self, pixels: torch.Tensor, finish: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], seed: int):
        height, width = pixels.shape[2:]
        padded = F.pad(pixels, [PADDING] * 4)
        both = torch.stack([padded, padded.flip(-1)])
        self._windows = both.unfold(3, height, 1).unfold(4, width, 1)  # [2, n, channels, shifts down, shifts right, height, width]
        self._finish, self._seed = finish, seed

    def epoch(self, seed: int, epoch: int) -> Callable[[torch.Tensor], torch.Tensor]:
        """Draws the crops of an epoch. Returns a function that maps the indices of examples to their augmented images."""
        _, count, _, down, right, *_ = self._windows.shape
        generator = torch.Generator().manual_seed(derive(seed, "augmentation", self._seed, epoch))
        draws = [torch.randint(choices, (count,), generator=generator).to(self._windows.device) for choices in (2, down, right)]

        def images(indices: torch.Tensor) -> torch.Tensor:
            mirrored, top, left = (draw[indices] for draw in draws)
            return self._finish(self._windows[mirrored, indices, :, top, left], indices)

        return images

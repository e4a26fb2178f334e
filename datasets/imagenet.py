"""ImageNet (Russakovsky et al. 2015), or other images in its layout: folders `train/` and `val/` with a folder of JPEGs for every class.

Worker processes (`--num_workers`) read and crop the images of a batch; all other transformations are applied to the batch on the device.
The batches of an epoch depend on the seed and the number of the epoch only, not on the number of workers or the batch where it is resumed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

import torch

from datasets import base, image_files, transformations
from foundations import imports
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError, reason
from foundations.seeds import derive
from platforms.platform import get_platform

if TYPE_CHECKING:
    from PIL.Image import Image

SIZE = 224  # height and width of the input of a network, in pixels
TEST_SIZE = 256  # the shorter side is resized to this before the centre crop
CROP_SCALE, CROP_RATIO = (0.1, 1.0), (0.8, 1.25)  # share of the area and aspect ratio of random crops, as in OpenLTH
SUFFIXES = (".jpg", ".jpeg")


class Dataset(base.Dataset):
    """The paths of the images, and their labels."""

    image_shape: tuple[int, int, int] = (3, SIZE, SIZE)

    def __init__(self, paths: list[str], labels: torch.Tensor, dataset_hparams: DatasetHparams, train: bool):
        self.paths, self.dataset_hparams, self.train = paths, dataset_hparams, train
        self.labels = labels.to(get_platform().torch_device)
        self.augmentation = None
        self._moments = base.channel_moments(base.IMAGENET_MEAN, base.IMAGENET_STD, 255, self.labels.device)

    @classmethod
    def create(cls, dataset_hparams: DatasetHparams, train: bool, seed: int) -> Dataset:
        """Lists the images, and checks that they can be read.

        Raises:
            ConfigError: a folder is missing, a class folder is empty, training and test sets have different classes, or an image cannot be
                read.
        """
        classes = class_names("train")
        paths, labels = list_images("train" if train else "val", classes)
        kept, labels = transformations.select_examples(dataset_hparams, train, torch.tensor(labels), len(classes))
        chosen = [paths[index] for index in kept.tolist()]
        image_files.check(sorted(chosen), "imagenet")
        return cls(chosen, labels, dataset_hparams, train)

    @classmethod
    def shape(cls, dataset_hparams: DatasetHparams) -> tuple[int, int]:
        return math.prod(cls.image_shape), transformations.output_count(dataset_hparams, len(class_names("train")))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return next(_stream(self, [torch.tensor([index])], None))

    def finish(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Maps the pixels of examples to the input of a network, `[b, 3, SIZE, SIZE]` in float32."""
        return transformations.apply(self.dataset_hparams, self.train, base.standardise(pixels, *self._moments), labels)


class DataLoader(base.DataLoader):
    """Batches that are read from files. Training uses random crops and mirror images, evaluation uses centre crops."""

    is_stream = True

    def __init__(self, dataset: Dataset, batch_size: int, seed: int = 0, dtype: torch.dtype = torch.float32):
        self.dataset, self.batch_size, self.seed, self.dtype = dataset, batch_size, seed, dtype

    def in_order(self, batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return self._batches(torch.arange(len(self.dataset)).split(batch_size), None)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The shuffled batches of an epoch, from batch `start` on."""
        hparams = self.dataset.dataset_hparams
        seed = None if hparams.do_not_augment else derive(self.seed, "augmentation", transformations.seed_of(hparams), epoch)
        return self._batches(self.order(epoch).split(self.batch_size)[start:], seed)

    def _batches(self, indices: Sequence[torch.Tensor], seed: int | None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for examples, labels in _stream(self.dataset, list(map(self._shard_of, indices)), seed):
            yield examples.to(self.dtype), labels


def _stream(dataset: Dataset, batches: Sequence[torch.Tensor], seed: int | None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of a dataset on the device of the platform. `batches` contains the indices of the examples of each batch.

    Raises:
        ConfigError: an image cannot be read.
    """
    loader = torch.utils.data.DataLoader(
        Decoder(dataset.paths, seed, get_platform().open),
        batch_sampler=[indices.tolist() for indices in batches],
        num_workers=get_platform().num_workers,
        collate_fn=_identity,
        pin_memory=get_platform().torch_device.type == "cuda",
        generator=torch.Generator(),  # otherwise torch would draw seeds of the workers from the global random state
    )
    for indices, pixels in zip(batches, loader, strict=True):
        if isinstance(pixels, ConfigError):
            raise pixels
        labels = dataset.labels[indices.to(dataset.labels.device)]
        yield dataset.finish(pixels.to(labels.device, non_blocking=True), labels), labels


def _identity(batch: Any) -> Any:
    """Returns a batch unchanged: `Decoder.__getitems__` has collated it already."""
    return batch


class Decoder(torch.utils.data.Dataset):
    """Reads and crops images in the worker processes: `[3, SIZE, SIZE]` bytes each.

    Args:
        paths: the paths of all images.
        seed: the seed of the random crops; None for centre crops.
        opener: a function that opens a file.
    """

    def __init__(self, paths: list[str], seed: int | None, opener: Callable[[str, str], IO]):
        transforms = imports.torchvision().transforms
        self.paths, self.seed, self.opener = paths, seed, opener
        centre_crop = [transforms.Resize(TEST_SIZE), transforms.CenterCrop(SIZE)]
        random_crop = [transforms.RandomResizedCrop(SIZE, CROP_SCALE, CROP_RATIO), transforms.RandomHorizontalFlip()]
        self.crop = transforms.Compose([*(centre_crop if seed is None else random_crop), transforms.PILToTensor()])

    def __getitems__(self, indices: list[int]) -> torch.Tensor | ConfigError:
        """A batch, or the error of one of its files. torch would add a traceback to the message of an error that a worker raises."""
        try:
            return torch.stack([self[index] for index in indices]) if indices else torch.empty(0, 3, SIZE, SIZE, dtype=torch.uint8)
        except ConfigError as error:
            return error

    def __getitem__(self, index: int) -> torch.Tensor:
        image = self.decode(self.paths[index])
        if self.seed is None:
            return self.crop(image)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive(self.seed, index))
            return self.crop(image)

    def decode(self, path: str) -> Image:
        """The image in a file; a ConfigError if the file is damaged."""
        from PIL import Image

        try:
            with self.opener(path, "rb") as file:
                return Image.open(file).convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ConfigError(f"{path} cannot be read as an image ({reason(error)}); replace it or delete it") from error


def class_names(part: str) -> list[str]:
    """The names of the class folders of `train` or `val`, sorted; a ConfigError if there are none."""
    folder = os.path.join(get_platform().imagenet_root, part)
    names = [name for name in get_platform().listdir(folder) if os.path.isdir(os.path.join(folder, name))]
    if not names:
        wrong = "contains no class folders" if get_platform().exists(folder) else "does not exist"
        valid = "the folder that contains train/ and val/, each with a folder of JPEGs for every class"
        raise ConfigError(f"ImageNet: {folder} {wrong}; set EC_IMAGENET_ROOT to {valid}")
    return names


def list_images(part: str, classes: list[str]) -> tuple[list[str], list[int]]:
    """The paths of all images of `train` or `val`, sorted by class, and their labels."""
    folder = os.path.join(get_platform().imagenet_root, part)
    for name in sorted(set(classes) ^ set(class_names(part))):
        where = "train but not in val" if name in classes else "val but not in train"
        raise ConfigError(f"ImageNet: {os.path.join(folder, name)}: this class is in {where}; valid: the same classes in both")
    paths, labels = [], []
    for label, name in enumerate(classes):
        images = [file for file in get_platform().listdir(os.path.join(folder, name)) if file.lower().endswith(SUFFIXES)]
        if not images:
            raise ConfigError(f"ImageNet: {os.path.join(folder, name)} contains no JPEGs ({', '.join(SUFFIXES)})")
        paths += [os.path.join(folder, name, image) for image in images]
        labels += [label] * len(images)
    return paths, labels

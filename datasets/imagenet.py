"""ImageNet (Russakovsky et al. 2015), or any images in its form: folders `train/` and `val/` with a folder of JPEGs for every class.

Images are read as they are needed, by worker processes (`--num_workers`) that hand over batches of bytes; all else happens to the batch,
on the device. What an epoch looks like follows from its seed and number, whatever the number of workers and wherever it is resumed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING

import torch

from datasets import base, transformations
from foundations import imports
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError, reason
from foundations.seeds import derive
from platforms.platform import get_platform

if TYPE_CHECKING:
    from PIL.Image import Image

SIZE = 224  # pixels of what a network sees, each way
TEST_SIZE = 256  # of the shorter side, before the middle is cut out
SUFFIXES = (".jpg", ".jpeg")


class Dataset(base.Dataset):
    """The paths of the images, and their labels."""

    image_shape = (3, SIZE, SIZE)

    def __init__(self, paths: list[str], labels: torch.Tensor, dataset_hparams: DatasetHparams, train: bool):
        self.paths, self.dataset_hparams, self.train = paths, dataset_hparams, train
        self.labels = labels.to(get_platform().torch_device)
        self.augmentation = None
        self._moments = base.channel_moments(base.IMAGENET_MEAN, base.IMAGENET_STD, 255, self.labels.device)

    @classmethod
    def create(cls, dataset_hparams: DatasetHparams, train: bool, seed: int) -> Dataset:
        """Lists the images.

        Raises:
            ConfigError: a folder is missing, a class folder is empty, or training and test have other classes.
        """
        classes = class_names("train")
        paths, labels = list_images("train" if train else "val", classes)
        kept, labels = transformations.choose(dataset_hparams, train, torch.tensor(labels), len(classes))
        return cls([paths[place] for place in kept.tolist()], labels, dataset_hparams, train)

    @classmethod
    def shape(cls, dataset_hparams: DatasetHparams) -> tuple[int, int]:
        return math.prod(cls.image_shape), transformations.outputs(dataset_hparams, len(class_names("train")))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return next(_stream(self, [torch.tensor([index])], None))

    def finish(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """A network's input, `[b, 3, SIZE, SIZE]` in float32, of the pixels of some examples."""
        return transformations.apply(self.dataset_hparams, self.train, base.standardise(pixels, *self._moments), labels)


class DataLoader(base.DataLoader):
    """Batches that are read from files. Training sees random parts of the images and mirror images; evaluation sees their middle."""

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

    def _batches(self, places: Sequence[torch.Tensor], seed: int | None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for examples, labels in _stream(self.dataset, list(map(self._shard_of, places)), seed):
            yield examples.to(self.dtype), labels


def _stream(dataset: Dataset, batches: Sequence[torch.Tensor], seed: int | None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Some batches of a dataset on the platform's device, given by the places of their examples.

    Raises:
        ConfigError: an image cannot be read.
    """
    loader = torch.utils.data.DataLoader(
        Decoder(dataset.paths, seed, get_platform().open),
        batch_sampler=[places.tolist() for places in batches],
        num_workers=get_platform().num_workers,
        collate_fn=_as_it_is,
        pin_memory=get_platform().torch_device.type == "cuda",
        generator=torch.Generator(),  # else the workers' own seeds would be drawn from the state that training draws from
    )
    for places, pixels in zip(batches, loader, strict=True):
        if isinstance(pixels, ConfigError):
            raise pixels
        labels = dataset.labels[places.to(dataset.labels.device)]
        yield dataset.finish(pixels.to(labels.device, non_blocking=True), labels), labels


def _as_it_is(batch: torch.Tensor | ConfigError) -> torch.Tensor | ConfigError:
    return batch


class Decoder(torch.utils.data.Dataset):
    """What a worker process does: reads images and cuts out what a network sees, `[3, SIZE, SIZE]` bytes each.

    Args:
        paths: of the images.
        seed: of the random parts; without one, the middle is cut out.
        opener: opens a file.
    """

    def __init__(self, paths: list[str], seed: int | None, opener: Callable[[str, str], IO]):
        transforms = imports.torchvision().transforms
        self.paths, self.seed, self.opener = paths, seed, opener
        middle = [transforms.Resize(TEST_SIZE), transforms.CenterCrop(SIZE)]
        part = [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip()]
        self.cut = transforms.Compose([*(middle if seed is None else part), transforms.PILToTensor()])

    def __getitems__(self, places: list[int]) -> torch.Tensor | ConfigError:
        """A batch, or what is wrong with one of its files: raised here, it would come out of the worker with a traceback in its text."""
        try:
            return torch.stack([self[place] for place in places]) if places else torch.empty(0, 3, SIZE, SIZE, dtype=torch.uint8)
        except ConfigError as error:
            return error

    def __getitem__(self, place: int) -> torch.Tensor:
        image = self.decode(self.paths[place])
        if self.seed is None:
            return self.cut(image)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive(self.seed, place))
            return self.cut(image)

    def decode(self, path: str) -> Image:
        """The image in a file; a ConfigError where it is damaged."""
        from PIL import Image

        try:
            with self.opener(path, "rb") as file:
                return Image.open(file).convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ConfigError(f"{path} cannot be read as an image ({reason(error)}); replace it or delete it") from error


def class_names(part: str) -> list[str]:
    """The class folders of `train` or `val`, sorted; a ConfigError where there are none."""
    folder = os.path.join(get_platform().imagenet_root, part)
    names = [name for name in get_platform().listdir(folder) if os.path.isdir(os.path.join(folder, name))]
    if not names:
        wrong = "holds no folders of classes" if get_platform().exists(folder) else "does not exist"
        need = "the folder that holds train/ and val/, each with a folder of JPEGs for every class"
        raise ConfigError(f"ImageNet: {folder} {wrong}; set EC_IMAGENET_ROOT to {need}")
    return names


def list_images(part: str, classes: list[str]) -> tuple[list[str], list[int]]:
    """The paths of all images of `train` or `val`, class by class, and the class of each."""
    folder = os.path.join(get_platform().imagenet_root, part)
    for name in sorted(set(classes) ^ set(class_names(part))):
        where = "train but not in val" if name in classes else "val but not in train"
        raise ConfigError(f"ImageNet: {os.path.join(folder, name)}: this class is in {where}; valid: the same classes in both")
    paths, labels = [], []
    for label, name in enumerate(classes):
        images = [file for file in get_platform().listdir(os.path.join(folder, name)) if file.lower().endswith(SUFFIXES)]
        if not images:
            raise ConfigError(f"ImageNet: {os.path.join(folder, name)} holds no JPEGs ({', '.join(SUFFIXES)})")
        paths += [os.path.join(folder, name, image) for image in images]
        labels += [label] * len(images)
    return paths, labels

"""MNIST and datasets in its format, IDX files (LeCun et al. 1998), read with torchvision.

torchvision does not check whether images and labels fit each other, so their headers and the labels are checked here. A header is a magic
number, whose last byte is the number of axes, and the length of each axis: big-endian integers of four bytes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch

from datasets import base
from foundations.errors import ConfigError
from platforms.platform import get_platform

UNSIGNED_BYTE = 0x08  # the third byte of the magic number


def read(name: str, train: bool, image_shape: tuple[int, int, int], classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The pixels `[n, 1, height, width]` and labels `[n]` of a dataset of torchvision; missing files are downloaded.

    Raises:
        ConfigError: the files cannot be downloaded, or do not fit the dataset.
    """
    for folder in base.folders_of(name):
        part = os.path.join(folder, name, "raw", "train" if train else "t10k")
        images, labels = f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"
        if get_platform().exists(images) and get_platform().exists(labels):
            check(images, labels, image_shape[1:], classes)
    pixels, targets = base.read_with_torchvision(name, train)
    return pixels.unsqueeze(1), targets


def check(images: str, labels: str, image_shape: Sequence[int], classes: int) -> None:
    """Checks a file of images and the file of their labels.

    Args:
        images: the path of the images, `[n, height, width]` bytes.
        labels: the path of the labels, `[n]` bytes.
        image_shape: the height and the width that images must have.
        classes: labels must be less than this number.

    Raises:
        ConfigError: a file has another format, another number of bytes than its header says, or content that does not fit.
    """
    count, *found_shape = _shape(images, 1 + len(image_shape))
    if found_shape != list(image_shape):
        raise base.does_not_fit(images, f"images of {base.times(image_shape)} pixels", base.times(found_shape))
    if not count:
        raise base.does_not_fit(images, "one image or more", "none")
    (label_count,) = _shape(labels, 1)
    if label_count != count:
        raise base.does_not_fit(labels, f"{count} labels, as many as {os.path.basename(images)} has images", str(label_count))
    with get_platform().open(labels, "rb") as file:
        values = np.frombuffer(file.read(), np.uint8, offset=8)
    if values.max() >= classes:
        place = int(np.argmax(values >= classes))
        raise base.does_not_fit(labels, f"labels from 0 to {classes - 1}", f"{values[place]} at index {place}")


def _shape(path: str, axes: int) -> list[int]:
    """The length of each axis in the header of a file; a ConfigError if the file is not such a file or has another number of bytes."""
    try:
        with get_platform().open(path, "rb") as file:
            header = file.read(4 * (1 + axes))
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror or error})") from None
    if header[:4] != bytes([0, 0, UNSIGNED_BYTE, axes]) or len(header) < 4 * (1 + axes):
        raise base.does_not_fit(path, f"an IDX file of bytes with {axes} axes", f"a file that begins with {header[:4].hex() or 'nothing'}")
    shape = [int.from_bytes(header[place : place + 4], "big") for place in range(4, len(header), 4)]
    expected = len(header) + int(np.prod(shape, dtype=object))
    if size != expected:
        raise base.does_not_fit(path, f"{expected} bytes for shape {base.times(shape)}", str(size))
    return shape

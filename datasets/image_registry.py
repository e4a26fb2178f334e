"""Every dataset of images. A new one is a module with the classes Dataset and DataLoader, and a line here.

Those held in memory serve as queries and masks as well.
"""

from __future__ import annotations

from datasets import cifar10, digits, fashion_mnist, imagenet, mnist

registered_images = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
}
streamed_images = {"imagenet": imagenet}


def image_shape(dataset_name: str | None) -> tuple[int, int, int] | None:
    """Channels, height and width of a dataset's images; None for what is no dataset of images."""
    module = (registered_images | streamed_images).get(dataset_name)
    return module and module.Dataset.image_shape

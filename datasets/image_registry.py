"""The tables of all image datasets. To add one, write a module with the classes Dataset and DataLoader, and add a row here.

Datasets in memory (`registered_images`) are also query policies and can be used by `--boruta`; datasets that are read for every batch
(`streamed_images`) cannot.
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
    """Channels, height and width of the images of a dataset; None if the name is not that of an image dataset."""
    modules = registered_images | streamed_images
    return None if dataset_name is None or dataset_name not in modules else modules[dataset_name].Dataset.image_shape

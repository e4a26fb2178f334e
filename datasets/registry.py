"""The table of all datasets, and functions that build loaders. Image datasets are added in `image_registry`, all others here."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from datasets import base, image_registry, teacher_dataset, transformations
from datasets.datagen import registry as datagen
from foundations.dataset_hparams import LINKS, UNSUPERVISED_LABELS, DatasetHparams
from foundations.errors import unknown
from foundations.training_hparams import TrainingHparams

registered_datasets = {
    **image_registry.registered_images,
    **image_registry.streamed_images,
    "teacher": teacher_dataset,
}


def choices() -> dict[str, Sequence[str]]:
    """The valid values of those fields of DatasetHparams that have a fixed list of values, for help texts."""
    return {
        "dataset_name": list(registered_datasets),
        "datagen": datagen.names(),
        "link": LINKS,
        "unsupervised_labels": UNSUPERVISED_LABELS,
    }


def check(dataset_hparams: DatasetHparams) -> None:
    """Raises a ConfigError if the dataset does not exist, or if the transformations do not apply to it."""
    if dataset_hparams.dataset_name not in registered_datasets:
        raise unknown("--dataset_name", dataset_hparams.dataset_name, registered_datasets)
    image = image_shape(dataset_hparams)
    if image is None:
        transformations.check_unused(dataset_hparams)
    else:
        transformations.check(dataset_hparams, *image[1:])


def get(dataset_hparams: DatasetHparams, train: bool = True, seed: int = 0, dtype: torch.dtype = torch.float32) -> base.DataLoader:
    """The loader of the training or the test set of a dataset.

    Args:
        dataset_hparams: the hyperparameters of the dataset.
        train: True for the training set, False for the test set.
        seed: the seed of the run; it determines the order of the examples and random queries.
        dtype: the number format of examples and real-valued targets.
    """
    module = registered_datasets[dataset_hparams.dataset_name]
    return module.DataLoader(module.Dataset.create(dataset_hparams, train, seed), dataset_hparams.batch_size, seed, dtype)


def get_both(dataset_hparams: DatasetHparams, training_hparams: TrainingHparams, seed: int) -> tuple[base.DataLoader, base.DataLoader]:
    """The loaders of the training and the test set, with the precision and the order of the examples of a training run."""
    dtype = getattr(torch, training_hparams.stored_precision)
    train, test = (get(dataset_hparams, is_train, seed, dtype) for is_train in (True, False))
    train.order_seed = training_hparams.data_order_seed
    return train, test


def shape(dataset_hparams: DatasetHparams) -> tuple[int, int]:
    """The number of values of an example, and the number of outputs that a model needs."""
    return registered_datasets[dataset_hparams.dataset_name].Dataset.shape(dataset_hparams)


def image_shape(dataset_hparams: DatasetHparams) -> tuple[int, int, int] | None:
    """Channels, height and width of an example; None if the examples are not images."""
    return image_registry.image_shape(dataset_hparams.dataset_name)


def num_classes(dataset_hparams: DatasetHparams) -> int:
    """The number of outputs that a model needs."""
    return shape(dataset_hparams)[1]


def iterations_per_epoch(dataset_hparams: DatasetHparams) -> int:
    """The number of batches of an epoch of the training set. The dataset is loaded to count its examples."""
    return len(get(dataset_hparams))

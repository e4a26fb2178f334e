"""Every dataset, and the way to a loader. A new one of images is a line in `image_registry`; any other is a line here."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from datasets import base, image_registry, teacher_dataset, transformations
from datasets.datagen import registry as datagen
from foundations.dataset_hparams import UNSUPERVISED_LABELS, DatasetHparams
from foundations.errors import unknown
from foundations.training_hparams import TrainingHparams

registered_datasets = {
    **image_registry.registered_images,
    **image_registry.streamed_images,
    "teacher": teacher_dataset,
}


def choices() -> dict[str, Sequence[str]]:
    """What the fields of DatasetHparams with a closed list accept, for help."""
    return {
        "dataset_name": list(registered_datasets),
        "datagen": list(datagen.registered_policies),
        "unsupervised_labels": UNSUPERVISED_LABELS,
    }


def check(dataset_hparams: DatasetHparams) -> None:
    """Raises a ConfigError for a dataset that does not exist, or that cannot be transformed as is asked for."""
    if dataset_hparams.dataset_name not in registered_datasets:
        raise unknown("--dataset_name", dataset_hparams.dataset_name, registered_datasets)
    image = image_shape(dataset_hparams)
    if image is None:
        transformations.refuse(dataset_hparams)
    else:
        transformations.check(dataset_hparams, *image[1:])


def get(dataset_hparams: DatasetHparams, train: bool = True, seed: int = 0, dtype: torch.dtype = torch.float32) -> base.DataLoader:
    """The loader of a dataset's training or test set.

    Args:
        dataset_hparams: which dataset, and the batch size.
        train: whether the training set is meant.
        seed: the run's; it decides the order of the examples, and the queries where they are random.
        dtype: the number format of examples and real-valued targets.
    """
    module = registered_datasets[dataset_hparams.dataset_name]
    return module.DataLoader(module.Dataset.create(dataset_hparams, train, seed), dataset_hparams.batch_size, seed, dtype)


def get_both(dataset_hparams: DatasetHparams, training_hparams: TrainingHparams, seed: int) -> tuple[base.DataLoader, base.DataLoader]:
    """The loaders of the training and the test set, in the precision and the data order of a training run."""
    dtype = getattr(torch, training_hparams.stored_precision)
    train, test = (get(dataset_hparams, part, seed, dtype) for part in (True, False))
    if training_hparams.data_order_seed is not None:
        train.seed = training_hparams.data_order_seed
    return train, test


def shape(dataset_hparams: DatasetHparams) -> tuple[int, int]:
    """Values an example, and outputs that a model needs."""
    return registered_datasets[dataset_hparams.dataset_name].Dataset.shape(dataset_hparams)


def image_shape(dataset_hparams: DatasetHparams) -> tuple[int, int, int] | None:
    """Channels, height and width of an example; None where the examples are rows of values."""
    return image_registry.image_shape(dataset_hparams.dataset_name)


def num_classes(dataset_hparams: DatasetHparams) -> int:
    """Outputs that a model of this dataset needs."""
    return shape(dataset_hparams)[1]

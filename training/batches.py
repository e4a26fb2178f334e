"""A check of the sizes of training batches: BatchNorm needs more than one value per channel."""

from __future__ import annotations

import torch

from datasets.base import DataLoader
from foundations.errors import ConfigError
from foundations.model_hparams import ModelHparams
from foundations.step import Step
from foundations.training_hparams import TrainingHparams
from models import registry as models
from platforms.platform import get_platform


def check(
    model_hparams: ModelHparams, outputs: int, training_hparams: TrainingHparams, loader: DataLoader, start: Step | None = None
) -> None:
    """Checks that no batch of a training run is too small for the batch statistics of its model, on any platform.

    Args:
        model_hparams: the hyperparameters of the model.
        outputs: units of its output layer.
        training_hparams: how long to train.
        loader: the examples.
        start: the first step of training; step 0 if None.

    Raises:
        ConfigError: a batch has a single example, and a layer of the model a single value for each channel of it.
    """
    texts = filter(None, (training_hparams.training_steps, training_hparams.further_training))
    end = sum(Step.from_str(text, len(loader)).iteration for text in texts)
    sizes = batch_sizes(len(loader.dataset), loader.batch_size, start.iteration if start else 0, end)
    if min(map(_smallest_part, sizes), default=2) > 1 or _can_train_on_one_example(model_hparams, outputs, loader.dataset.image_shape):
        return
    count, devices = len(loader.dataset), get_platform().devices
    where = "a batch has a single example" if devices == 1 else f"one of {devices} GPUs gets a single example of a batch"
    candidates = range(max(2, loader.batch_size), count + 1)
    valid = [size for size in candidates if min(map(_smallest_part, (size, count % size or size))) > 1]
    raise ConfigError(
        f"--batch_size: {loader.batch_size} is invalid for {count} training examples: {where}, too few for the BatchNorm of "
        f"{model_hparams.model_name} on images of this size; valid: {f'{valid[0]}, for example' if valid else 'more examples'}"
    )


def batch_sizes(count: int, batch_size: int, start: int, end: int) -> set[int]:
    """The numbers of examples in the batches of the steps `start` to `end - 1`, if an epoch has `count` examples."""
    last = (count - 1) // batch_size  # the index of the last batch of an epoch
    steps = range(start, min(end, start + last + 1))
    return {count - last * batch_size if step % (last + 1) == last else batch_size for step in steps}


def _smallest_part(size: int) -> int:
    """The number of examples in the smallest part of a batch, which the GPUs of a process divide."""
    return min(map(len, torch.arange(size).chunk(get_platform().devices)))


def _can_train_on_one_example(model_hparams: ModelHparams, outputs: int, image_shape: tuple[int, ...] | None) -> bool:
    """Whether each BatchNorm layer of a model has more than one value per channel of a single image."""
    model = models.meta_model(model_hparams, outputs)
    if model.channels is None or image_shape is None:
        return True
    try:
        model.train()(torch.empty(1, *image_shape, device="meta"))
    except ValueError:  # torch refuses such a batch
        return False
    return True

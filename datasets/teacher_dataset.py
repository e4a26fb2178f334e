"""The dataset of queries and the answers of a teacher (`teachers/registry.py` has the kinds of teachers).

Here `dataset_hparams.teacher_name` is a resolved name, such as `train_<md5>` or `answers_<md5 of the stored file>`.
"""

from __future__ import annotations

import torch

from datasets import base
from datasets.teachers import registry as teachers
from datasets.teachers.links import Errors
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError


def largest_magnitude(*values: torch.Tensor) -> float:
    """The largest magnitude of some numbers."""
    return max(value.abs().max().item() for value in values)


def check_magnitude(largest: float, dtype: torch.dtype) -> None:
    """Raises a ConfigError if the largest magnitude of queries and answers is infinite in the number format of training."""
    limit = torch.finfo(dtype).max
    if largest > limit:
        valid = f"magnitudes up to {limit:.2g}, or --precision float64"
        raise ConfigError(f"--teacher_name: a query or an answer has the magnitude {largest:.2g}, too large for {dtype}; valid: {valid}")


class Dataset(base.Dataset):
    """Queries `[n, inputs]` and answers `[n, outputs]`; `rows` `[n]` are the numbers of the pairs of a file, counted from 0.

    `errors` are those of logits that were converted from probabilities with few digits.
    """

    rows: torch.Tensor | None = None
    errors: Errors | None = None

    @classmethod
    def create(cls, dataset_hparams: DatasetHparams, train: bool, seed: int) -> Dataset:
        examples = teachers.read(dataset_hparams).pairs(dataset_hparams, train, seed)
        dataset = cls(examples.queries, examples.answers)
        dataset.rows, dataset.errors = examples.rows, examples.errors
        return dataset

    @classmethod
    def shape(cls, dataset_hparams: DatasetHparams) -> tuple[int, int]:
        teacher = teachers.read(dataset_hparams)
        return teacher.inputs, teacher.outputs


class DataLoader(base.DataLoader):
    """Batches of queries and answers, whose numbers may be too large for the number format of training."""

    def __init__(self, dataset: Dataset, batch_size: int, seed: int = 0, dtype: torch.dtype = torch.float32):
        super().__init__(dataset, batch_size, seed, dtype)
        check_magnitude(largest_magnitude(dataset.examples, dataset.labels), dtype)

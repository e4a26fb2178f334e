"""The base classes of all query policies."""

from __future__ import annotations

import abc
from typing import ClassVar

import torch

TRAIN_TO_TEST = 4  # generated training queries per test query


class Policy(abc.ABC):
    """A rule that generates any number of queries.

    `parameters` are the names of the numbers that follow its name in `--datagen`, such as `box:LOW:HIGH`.
    """

    parameters: ClassVar[tuple[str, ...]] = ()

    def with_parameters(self, *values: float) -> Policy:
        """The policy with values of its parameters.

        Raises:
            ValueError: the values are invalid. The message says what is valid.
        """
        return self

    @abc.abstractmethod
    def check(self, name: str, inputs: int, dataset_name: str | None) -> None:
        """Raises a ConfigError unless the policy can generate queries for a teacher.

        Args:
            name: the name of the policy in `--datagen`.
            inputs: the number of inputs of the teacher.
            dataset_name: the dataset that the teacher was trained on; None if unknown.
        """

    @abc.abstractmethod
    def generate(
        self, count: int | None, train: bool, inputs: int, generator: torch.Generator, dataset_name: str | None = None
    ) -> torch.Tensor:
        """The queries `[n, inputs]`, on the scale of standardised data.

        Args:
            count: the number of training queries; None, for finite policies only, means all queries.
            train: True for training queries, False for test queries.
            inputs: the number of inputs of the teacher.
            generator: the random number generator of all draws.
            dataset_name: the dataset that the teacher was trained on; None if unknown.
        """


class FinitePolicy(Policy):
    """A rule that selects queries from a finite set."""

    @abc.abstractmethod
    def size(self) -> int:
        """The number of training queries in the set."""


def query_count(count: int | None, train: bool) -> int:
    """The number of queries that a policy generates: `count` for training, a quarter of it, rounded up, for test."""
    assert count is not None  # only finite policies have no count
    return count if train else -(-count // TRAIN_TO_TEST)

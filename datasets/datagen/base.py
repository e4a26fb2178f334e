"""The base of every query policy."""

from __future__ import annotations

import abc

import torch

TEST_SHARE = 4  # the test set of what is generated has one query for four of training


class Policy(abc.ABC):
    """A way to make queries. One that `is_finite` has `size()` of them to choose from; any other generates as many as are asked for."""

    is_finite = False

    @abc.abstractmethod
    def check(self, name: str, inputs: int, source: str | None) -> None:
        """Raises a ConfigError unless the policy, called `name`, can serve this teacher.

        Args:
            name: what the user calls the policy.
            inputs: values a query must have.
            source: the dataset that the teacher was trained on, where that is known.
        """

    @abc.abstractmethod
    def make(self, count: int | None, train: bool, inputs: int, generator: torch.Generator, source: str | None = None) -> torch.Tensor:
        """The queries, `[n, inputs]`, on the scale of standardised data.

        Args:
            count: queries for training; without it a finite policy gives all that it has.
            train: whether queries to learn from are meant, or those to be tested on.
            inputs: values a query must have.
            generator: where all randomness comes from.
            source: the dataset that the teacher was trained on, where that is known.
        """


def generated(count: int, train: bool) -> int:
    """How many queries a policy that generates makes: `count` for training, a quarter as many, rounded up, for test."""
    return count if train else -(-count // TEST_SHARE)

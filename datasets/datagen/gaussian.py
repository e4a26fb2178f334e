"""Queries of Gaussian noise."""

from __future__ import annotations

import dataclasses

import torch

from datasets.datagen.base import Policy, query_count


@dataclasses.dataclass(frozen=True)
class Gaussian(Policy):
    """Independent normal values with mean 0. A standard deviation of 1 is the scale of standardised data.

    A larger standard deviation shows more of the activation functions away from 0. Of 20 students of small networks with the activation
    function g (4 inputs, 8 neurons), 9 reached the solution with a standard deviation of 3, and 2 with a standard deviation of 1.
    """

    std: float = 1.0

    def check(self, name: str, inputs: int, dataset_name: str | None) -> None:
        """Accepts every teacher."""

    def generate(
        self, count: int | None, train: bool, inputs: int, generator: torch.Generator, dataset_name: str | None = None
    ) -> torch.Tensor:
        return self.std * torch.randn(query_count(count, train), inputs, generator=generator)


@dataclasses.dataclass(frozen=True)
class Normal(Gaussian):
    """Independent normal values with mean 0 and a standard deviation that the user chooses."""

    parameters = ("SCALE",)

    def with_parameters(self, *values: float) -> Normal:
        if values[0] <= 0:
            raise ValueError("the standard deviation must be more than 0")
        return Normal(values[0])

"""Queries of uniform noise."""

from __future__ import annotations

import dataclasses

import torch

from datasets.datagen.base import Policy, query_count

BOUND = 3**0.5  # values uniform on [-BOUND, BOUND] have variance 1


class Uniform(Policy):
    """Independent values, uniform on [-sqrt(3), sqrt(3)]: mean 0 and variance 1, the scale of standardised data."""

    def check(self, name: str, inputs: int, dataset_name: str | None) -> None:
        """Accepts every teacher."""

    def generate(
        self, count: int | None, train: bool, inputs: int, generator: torch.Generator, dataset_name: str | None = None
    ) -> torch.Tensor:
        return BOUND * (2 * torch.rand(query_count(count, train), inputs, generator=generator) - 1)


@dataclasses.dataclass(frozen=True)
class Box(Policy):
    """Independent values, uniform between two bounds that the user chooses."""

    low: float = 0.0
    high: float = 1.0
    parameters = ("LOW", "HIGH")

    def with_parameters(self, *values: float) -> Box:
        if values[0] >= values[1]:
            raise ValueError("the first bound must be less than the second")
        return Box(*values)

    def check(self, name: str, inputs: int, dataset_name: str | None) -> None:
        """Accepts every teacher."""

    def generate(
        self, count: int | None, train: bool, inputs: int, generator: torch.Generator, dataset_name: str | None = None
    ) -> torch.Tensor:
        return self.low + (self.high - self.low) * torch.rand(query_count(count, train), inputs, generator=generator)

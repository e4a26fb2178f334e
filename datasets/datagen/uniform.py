"""Queries that are uniform noise."""

from __future__ import annotations

import torch

from datasets.datagen.base import Policy, generated

EDGE = 3**0.5  # values uniform on [-EDGE, EDGE] have variance 1


class Uniform(Policy):
    """Independent values, uniform on [-sqrt(3), sqrt(3)]: mean 0 and variance 1, the scale of standardised data."""

    def check(self, name: str, inputs: int, source: str | None) -> None:
        """Any number of inputs will do."""

    def make(self, count: int, train: bool, inputs: int, generator: torch.Generator, source: str | None = None) -> torch.Tensor:
        return EDGE * (2 * torch.rand(generated(count, train), inputs, generator=generator) - 1)

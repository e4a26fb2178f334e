"""Queries that are Gaussian noise."""

from __future__ import annotations

import torch

from datasets.datagen.base import Policy, generated


class Gaussian(Policy):
    """Independent N(0, 1) values, the scale of standardised data."""

    def check(self, name: str, inputs: int, source: str | None) -> None:
        """Any number of inputs will do."""

    def make(self, count: int, train: bool, inputs: int, generator: torch.Generator, source: str | None = None) -> torch.Tensor:
        return torch.randn(generated(count, train), inputs, generator=generator)

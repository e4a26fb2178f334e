"""Queries that are Gaussian noise."""

from __future__ import annotations

import torch

TEST_SHARE = 4  # the test set has one query for four of training


class Gaussian:
    """Independent N(0, 1) values, the scale of standardised data."""

    is_finite = False

    def check(self, name: str, inputs: int) -> None:
        """Any number of inputs will do."""

    def make(self, count: int, train: bool, inputs: int, generator: torch.Generator) -> torch.Tensor:
        """`count` queries for training, a quarter as many for test: `[n, inputs]`."""
        return torch.randn(count if train else -(-count // TEST_SHARE), inputs, generator=generator)

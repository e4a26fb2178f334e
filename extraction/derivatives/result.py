"""What derivatives have found of a network, and what they lack."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from extraction.network import Layers


class Lacking(Exception):
    """A stage did not find what the next one needs.

    Attributes:
        vectors: incoming vectors of the first layer that were found, `[K, d + 1]`, the bias last, up to scales; or None.
        act_fun: the activation function, where the scales of these vectors are known for it; else empty.
    """

    def __init__(self, message: str, vectors: torch.Tensor | None = None, act_fun: str = ""):
        super().__init__(message)
        self.vectors, self.act_fun = vectors, act_fun


@dataclass(frozen=True)
class Recovery:
    """A network found by derivatives.

    Attributes:
        layers: all layers, the output layer last; None if some of them were not found.
        error: the root mean square error on fresh queries, as a share of the spread of the outputs; infinite without a network.
        lacks: what was not found, one sentence each; empty for a network that gives the answers.
        vectors: without a network, the incoming vectors of the first layer that were found, `[K, d + 1]`, the bias last, up to scales and
            signs: seeds for other methods.
        queries: how many were asked.
        stages: the name of each stage, with the queries that it took.
        radius: the standard deviation of inputs at which the network is neither linear nor saturated, as far as it was measured.
        seconds: how long it took.
    """

    layers: Layers | None
    error: float
    lacks: tuple[str, ...]
    vectors: torch.Tensor | None
    queries: int
    stages: tuple[tuple[str, int], ...]
    radius: float = 1.0
    seconds: float = 0.0

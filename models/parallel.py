"""Layers of N networks that are computed together: their parameters have one more axis, and there is no loop over networks.

Axes: N networks, B batch, I inputs, O outputs of a layer. All networks receive the same input `[B, I]`; the activations of all layers are
`[N, B, O]`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn


class Linear(nn.Module):
    """N affine maps: weight `[N, I, O]`, bias `[N, 1, O]`."""

    def __init__(self, networks: int, in_features: int, out_features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(networks, in_features, out_features))
        self.bias = nn.Parameter(torch.empty(networks, 1, out_features))
        bound = 1 / math.sqrt(in_features)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps `[N, B, I]`, or `[B, I]` shared by all networks, to `[N, B, O]`."""
        return torch.baddbmm(self.bias, x.expand(len(self.weight), -1, -1), self.weight)


KERNEL_LAYERS = (Linear, nn.Linear, nn.Conv2d)


def kernels(module: nn.Module) -> Iterator[torch.Tensor]:
    """The kernels of a module, without those of its submodules, one network at a time: writable views `[fan_out, fan_in, ...]`."""
    if isinstance(module, Linear):
        yield from (weight.T for weight in module.weight.data)
    elif isinstance(module, (nn.Linear, nn.Conv2d)):
        yield module.weight.data

"""The parameters of fully connected networks as rows, and as one matrix for each layer.

Symbols: n networks, P parameters of one that are trained, K neurons and I inputs of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from models.mlp import Perceptron


class PerceptronLayers:
    """The way from rows of parameters `[n, P]` to the matrices `[n, K, I + 1]` of each layer, the bias last, and back.

    Args:
        network: a plain network, or a stack of one.
        stack: whether it is a stack.
        names: the parameters that a row holds, in this order. The others keep the values that they have in the network.
    """

    def __init__(self, network: Perceptron, stack: bool, names: Sequence[str]):
        self.stack, self.names = stack, names
        self.prefixes = [*(f"fc_layers.{number}." for number in range(len(network.fc_layers))), "fc."]
        self.constants = {name: parameter.detach() for name, parameter in network.named_parameters()}
        self.sizes = [self.constants[name].numel() for name in names]

    def matrices(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """The matrices of each layer, `[n, K, I + 1]`, for rows `[n, P]`."""
        return self._joined({name: constant.expand(len(rows), *constant.shape) for name, constant in self.constants.items()}, rows)

    def split(self, vector: torch.Tensor) -> list[torch.Tensor]:
        """A vector `[P]` as matrices `[K, I + 1]`, with zeros for parameters that no row holds."""
        zero = vector.new_zeros(())
        zeros = {name: zero.expand(1, *constant.shape) for name, constant in self.constants.items()}
        return [matrix[0] for matrix in self._joined(zeros, vector[None])]

    def join(self, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
        """The inverse of `split`: a vector `[P]`."""
        named = {}
        for prefix, matrix in zip(self.prefixes, matrices, strict=True):
            named[f"{prefix}weight"] = matrix[:, :-1].T if self.stack else matrix[:, :-1]
            named[f"{prefix}bias"] = matrix[:, -1]
        return torch.cat([named[name].reshape(-1) for name in self.names])

    @property
    def places(self) -> torch.Tensor:
        """The place of each parameter of a row among the elements of all matrices, one matrix after the other, `[P]`."""
        shapes, numbers, start = [layer.shape for layer in self.split(torch.zeros(sum(self.sizes)))], [], 0
        for shape in shapes:
            numbers.append(start + torch.arange(shape.numel()).view(shape))
            start += shape.numel()
        return self.join(numbers)

    def _joined(self, others: Mapping[str, torch.Tensor], rows: torch.Tensor) -> list[torch.Tensor]:
        parts = zip(self.names, rows.split(self.sizes, 1), strict=True)
        named = {**others, **{name: part.reshape(len(rows), *self.constants[name].shape) for name, part in parts}}
        matrices = []
        for prefix in self.prefixes:
            weight, bias = named[f"{prefix}weight"], named[f"{prefix}bias"]
            weight = weight[:, 0].mT if self.stack else weight
            matrices.append(torch.cat([weight, bias.reshape(*weight.shape[:2], 1)], 2))
        return matrices

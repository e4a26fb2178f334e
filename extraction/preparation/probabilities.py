"""A network followed by softmax or sigmoid, as a model.

Axes: Q queries, O outputs, C coordinates of the outputs.
"""

from __future__ import annotations

import copy

import torch

from extraction.preparation.coordinates import Coordinates
from models.mlp import FullyConnected


class Probabilities(torch.nn.Module):
    """A network followed by softmax or sigmoid.

    Attributes:
        network: gives logits, or coordinates of these.
        outputs: the map of logits to these coordinates; None where the network gives logits.
        is_softmax: softmax, or else sigmoid.
        factors: of the probabilities, `[O]`.
    """

    def __init__(self, network: FullyConnected, outputs: Coordinates | None, is_softmax: bool, factors: torch.Tensor | float = 1.0):
        super().__init__()
        self.network, self.outputs, self.is_softmax, self.factors = network, outputs, is_softmax, factors
        self.act_fun, self.sizes = network.act_fun, network.sizes

    def forward(self, queries: torch.Tensor) -> torch.Tensor:
        """Probabilities `[Q, O]` times `factors`."""
        return self.linked(self.network(queries))

    def linked(self, values: torch.Tensor) -> torch.Tensor:
        """The same for outputs of the network, `[Q, C]`."""
        return probabilities(values, self.outputs, self.is_softmax) * self.factors

    def layer_vectors(self) -> list[torch.Tensor]:
        """The incoming vectors of the network's layers."""
        return self.network.layer_vectors()

    def times(self, factors: torch.Tensor) -> Probabilities:
        """The same network with factors `[O]` for its probabilities."""
        return Probabilities(copy.deepcopy(self.network), self.outputs, self.is_softmax, factors)

    @property
    def open_shifts(self) -> int:
        """How many unknowns a common shift of all logits leaves open: one for each weight of an output."""
        return self.network.layer_vectors()[-1].shape[1] if self.is_softmax else 0

    def shift(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """How a number that is added to all logits moves the network's outputs, and how these show it, `[C]` each; None for sigmoid."""
        if not self.is_softmax:
            return None
        if self.outputs is None:
            ones = torch.ones_like(self.network.layer_vectors()[-1][:, 0])
            return ones, ones
        return self.outputs.inward.T @ (1 / self.outputs.spread), self.outputs.outward @ self.outputs.spread


def probabilities(values: torch.Tensor, outputs: Coordinates | None, is_softmax: bool) -> torch.Tensor:
    """The probabilities `[Q, O]` of logits, which are given by their coordinates `[Q, C]`; see `Probabilities`."""
    logits = values if outputs is None else outputs.undo(values)
    return torch.softmax(logits, -1) if is_softmax else torch.sigmoid(logits)

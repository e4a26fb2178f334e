"""A network of which only a part of the weights is left."""

from __future__ import annotations

import copy

import torch
from torch import nn

from models import base
from models.wrapper import Wrapper
from pruning.mask import Mask


class PrunedModel(Wrapper):
    """A model around another, whose pruned weights are zero and stay it.

    The weights are set to zero here and whenever others are loaded, and the gradient of a pruned one is zero wherever it goes. What an
    optimizer makes of a zero weight with zero gradients (momentum, Adam's moments, weight decay, directions of L-BFGS) is zero again,
    exactly; Levenberg-Marquardt, which differentiates on its own, reads `mask`.

    Args:
        model: what to prune; it is changed, and belongs to this model from now on.
        mask: what is left of it.

    Raises:
        ConfigError: the mask is not one of this model.
    """

    def __init__(self, model: base.Model, mask: Mask):
        super().__init__(model)
        mask.check_fits(model)
        self.mask = mask
        parameters = dict(model.named_parameters())
        for place, (name, left) in enumerate(mask.items()):
            self.register_buffer(f"pruned_{place}", ~left.to(parameters[name].device), persistent=False)
            _hook(parameters[name], lambda gradient, place=place: gradient.masked_fill(self.get_buffer(f"pruned_{place}"), 0))
        self._prune()

    @torch.no_grad()
    def _prune(self) -> None:
        parameters = dict(self.model.named_parameters())
        for place, name in enumerate(self.mask):
            parameters[name].masked_fill_(self.get_buffer(f"pruned_{place}"), 0)

    def __deepcopy__(self, memo: dict) -> PrunedModel:
        return PrunedModel(copy.deepcopy(self.model, memo), self.mask)

    def select(self, i: int) -> PrunedModel:
        """Student i of a stack alone, as a stack of one with its own copy of the weights."""
        return self.part(i, i + 1)

    def part(self, first: int, end: int) -> PrunedModel:
        """The students from one up to another as a stack with its own copy of the weights."""
        return PrunedModel(self.model.part(first, end), self.mask.part(first, end))

    def load_state_dict(self, *args, **options):
        keys = self.model.load_state_dict(*args, **options)
        self._prune()
        return keys


def _hook(parameter: nn.Parameter, hook) -> None:
    """Registers a hook on the gradient of a parameter, be it frozen at the moment or not."""
    trained = parameter.requires_grad
    parameter.requires_grad_(True).register_hook(hook)
    parameter.requires_grad_(trained)

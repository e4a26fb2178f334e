"""A network with pruned weights."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from models import base
from models.students import Model as Students
from models.wrapper import Wrapper
from pruning.mask import Mask


class PrunedModel(Wrapper):
    """A wrapper around a model that sets its pruned weights to zero and keeps them zero.

    Pruned weights are set to zero here and after every loading of weights, and hooks set their gradients to zero. An optimizer leaves a
    zero weight with zero gradients at exactly zero (momentum, Adam's moments, weight decay, directions of L-BFGS). Levenberg-Marquardt
    computes derivatives itself and reads `mask`.

    Args:
        model: the model to prune. It is changed in place, and must not be used elsewhere afterwards.
        mask: the remaining weights.

    Raises:
        ConfigError: the mask does not fit the model.
    """

    def __init__(self, model: base.Model, mask: Mask):
        super().__init__(model)
        mask.check_fits(model)
        self.mask = mask
        parameters = dict(model.named_parameters())
        for index, (name, kept) in enumerate(mask.items()):
            self.register_buffer(f"pruned_{index}", ~kept.to(parameters[name].device), persistent=False)
            _hook_gradient(parameters[name], lambda gradient, index=index: gradient.masked_fill(self.get_buffer(f"pruned_{index}"), 0))
        self._prune()

    @torch.no_grad()
    def _prune(self) -> None:
        """Sets the pruned weights to zero."""
        parameters = dict(self.model.named_parameters())
        for index, name in enumerate(self.mask):
            parameters[name].masked_fill_(self.get_buffer(f"pruned_{index}"), 0)

    def __deepcopy__(self, memo: dict) -> PrunedModel:
        return PrunedModel(copy.deepcopy(self.model, memo), self.mask)

    def select(self, i: int) -> PrunedModel:
        """Student i of a stack, as a stack of one with its own copy of the weights."""
        return self.part(i, i + 1)

    def part(self, first: int, end: int) -> PrunedModel:
        """The students `first` to `end - 1` of a stack, as a stack with its own copy of the weights."""
        assert isinstance(self.model, Students)
        return PrunedModel(self.model.part(first, end), self.mask.part(first, end))

    def load_state_dict(self, *args, **options):
        keys = self.model.load_state_dict(*args, **options)
        self._prune()
        return keys


def _hook_gradient(parameter: nn.Parameter, hook: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Registers a hook on the gradient of a parameter, also if the parameter is frozen now."""
    requires_grad = parameter.requires_grad
    parameter.requires_grad_(True).register_hook(hook)
    parameter.requires_grad_(requires_grad)

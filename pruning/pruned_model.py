"""A network of which only a part of the weights is left."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn

from models import base
from pruning.mask import Mask


class PrunedModel(base.Model):
    """A model around another, whose pruned weights are zero and stay it.

    The weights are set to zero here and whenever others are loaded, and the gradient of a pruned one is zero wherever it goes. What an
    optimizer makes of a zero weight with zero gradients (momentum, Adam's moments, weight decay, directions of L-BFGS) is zero again,
    exactly; Levenberg-Marquardt, which differentiates on its own, reads `mask`. Everything else is the inner model's: the names of
    parameters and state-dict keys, so that files of weights fit either, and all attributes and methods that are not defined here.

    Args:
        model: what to prune; it is changed, and belongs to this model from now on.
        mask: what is left of it.

    Raises:
        ConfigError: the mask is not one of this model.
    """

    def __init__(self, model: base.Model, mask: Mask):
        super().__init__()
        mask.check_fits(model)
        self.model, self.mask = model, mask
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

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "model":
                raise
            return getattr(self.model, name)

    def __deepcopy__(self, memo: dict) -> PrunedModel:
        return PrunedModel(copy.deepcopy(self.model, memo), self.mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)

    def select(self, i: int) -> PrunedModel:
        """Student i of a stack alone, as a stack of one with its own copy of the weights."""
        return PrunedModel(self.model.select(i), self.mask.select(i))

    def loss_criterion(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.model.loss_criterion(outputs, labels)

    def named_parameters(self, *args, **options) -> Iterator[tuple[str, nn.Parameter]]:
        return self.model.named_parameters(*args, **options)

    def named_buffers(self, *args, **options) -> Iterator[tuple[str, torch.Tensor]]:
        return self.model.named_buffers(*args, **options)

    def state_dict(self, *args, **options) -> dict[str, torch.Tensor]:
        return self.model.state_dict(*args, **options)

    def load_state_dict(self, *args, **options):
        keys = self.model.load_state_dict(*args, **options)
        self._prune()
        return keys

    @property
    def input_size(self) -> int | None:
        return self.model.input_size

    @property
    def channels(self) -> int | None:
        return self.model.channels

    @property
    def prunable_layer_names(self) -> list[str]:
        return self.model.prunable_layer_names

    @property
    def output_layer_names(self) -> list[str]:
        return self.model.output_layer_names

    def from_other_layouts(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return self.model.from_other_layouts(state)

    @staticmethod
    def is_valid_model_name(model_name: str) -> bool:
        return False

    @staticmethod
    def name_rules() -> list[str]:
        return []

    @staticmethod
    def default_members() -> dict[str, str]:
        return {}

    @staticmethod
    def get_model_from_name(model_name, initializer, outputs=None, act_fun="relu"):
        raise NotImplementedError("a pruned model is made from another")

    @staticmethod
    def default_hparams(model_name: str):
        raise NotImplementedError("a pruned model has the hyperparameters of the inner one")


def _hook(parameter: nn.Parameter, hook) -> None:
    """Registers a hook on the gradient of a parameter, be it frozen at the moment or not."""
    trained = parameter.requires_grad
    parameter.requires_grad_(True).register_hook(hook)
    parameter.requires_grad_(trained)

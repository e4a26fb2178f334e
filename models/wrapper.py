"""A base class for models that wrap another model and change a part of its behaviour."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from foundations.defaults import DefaultHparams
from models import base


class Wrapper(base.Model):
    """A model that computes the same as another one and has the same parameter names and state-dict keys, so both can load the same files.

    Attributes and methods that the wrapper does not define are those of the inner model.

    Args:
        model: the inner model.
    """

    def __init__(self, model: base.Model):
        super().__init__()
        self.model = model

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "model":
                raise
            return getattr(self.model, name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)

    def loss_criterion(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self.model.loss_criterion(outputs, labels)

    def named_parameters(self, *args, **options) -> Iterator[tuple[str, nn.Parameter]]:
        return self.model.named_parameters(*args, **options)

    def named_buffers(self, *args, **options) -> Iterator[tuple[str, torch.Tensor]]:
        return self.model.named_buffers(*args, **options)

    def state_dict(self, *args, **options) -> dict[str, torch.Tensor]:
        return self.model.state_dict(*args, **options)

    def load_state_dict(self, *args, **options):
        return self.model.load_state_dict(*args, **options)

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

    def convert_state_dict(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return self.model.convert_state_dict(state)

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
    def get_model_from_name(
        model_name: str, initializer: base.Initializer, outputs: int | None = None, act_fun: str = "relu"
    ) -> base.Model:
        raise NotImplementedError("a wrapper is built from another model, not from a name")

    @staticmethod
    def default_hparams(model_name: str) -> DefaultHparams:
        raise NotImplementedError("a wrapper has the hyperparameters of the inner model")

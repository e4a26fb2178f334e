"""A linear model that is small enough to be checked by hand."""

from __future__ import annotations

import torch
from torch import nn

from models import base


class ToyModel(base.Model):
    """Maps `[B, inputs]` to `[B, outputs]`; it is in no registry."""

    def __init__(self, inputs: int = 3, outputs: int = 2):
        super().__init__()
        self.fc = nn.Linear(inputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.flatten(1))

    @property
    def output_layer_names(self) -> list[str]:
        return ["fc.weight", "fc.bias"]

    @staticmethod
    def is_valid_model_name(model_name):
        return model_name == "toy"

    @staticmethod
    def name_rules():
        return ["toy"]

    @staticmethod
    def default_members():
        return {}

    @staticmethod
    def get_model_from_name(model_name, initializer, outputs=None, act_fun="relu"):
        return ToyModel()

    @staticmethod
    def default_hparams(model_name):
        raise NotImplementedError

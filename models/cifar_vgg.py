"""Convolutional networks with max pooling `cifar_vgg_D` for CIFAR-10, after VGG (Simonyan & Zisserman 2015)."""

from __future__ import annotations

import torch
from torch import nn

from models import activation_functions, base
from models.convolutional import CifarConvolutional

FILTERS = (64, 128, 256, 512, 512)  # of the five stages; pooling between the stages halves height and width
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # by depth: convolutions in each stage


class Layer(nn.Module):
    """A convolution, BatchNorm and the activation function: maps `[B, inputs, H, W]` to `[B, outputs, H, W]`."""

    def __init__(self, inputs: int, outputs: int, act_fun: str):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn = nn.BatchNorm2d(outputs)
        self.activation = activation_functions.get(act_fun)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.bn(self.conv(x)))


class Model(CifarConvolutional):
    """Convolutions in five stages, then global average pooling and one linear layer.

    D counts three linear layers, as in the paper.

    State-dict keys: `layers.<i>.conv.*` and `layers.<i>.bn.*`, where i counts convolutions and poolings, then `fc.*`, as in OpenLTH.
    """

    family, default_suffix = "cifar_vgg", "_16"
    depths, width = "11 | 13 | 16 | 19", None

    def __init__(self, depth: int, width: int | None, act_fun: str, initializer: base.Initializer, outputs: int):
        super().__init__(depth, width, act_fun, initializer, outputs)
        self.layers, channels = nn.Sequential(), self.channels
        for filters, convolutions in zip(FILTERS, CONVOLUTIONS[depth], strict=True):
            if len(self.layers):
                self.layers.append(nn.MaxPool2d(2))
            for _ in range(convolutions):
                self.layers.append(Layer(channels, filters, act_fun))
                channels = filters
        self.fc = nn.Linear(channels, outputs)
        self.apply(initializer)

    @staticmethod
    def has_depth(depth: int) -> bool:
        return depth in CONVOLUTIONS

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images `[B, 3, H, W]` of at least 16x16 pixels to `[B, outputs]`."""
        return self.fc(self.layers(x).mean((2, 3)))

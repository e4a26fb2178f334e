"""Residual networks `cifar_resnet_D` and `cifar_resnet_D_W` for CIFAR-10 (He et al. 2016, section 4.2)."""

from __future__ import annotations

import torch
from torch import nn

from models import activation_functions
from models.convolutional import CifarConvolutional

LAYERS_OUTSIDE = 2  # the first convolution and the output layer
LAYERS_PER_ROUND = 6  # three segments with a block more each, of two convolutions
DEEPEST = 1202  # in the paper; who names more layers, perhaps in a file from elsewhere, is not to keep us busy building them


class Block(nn.Module):
    """Two convolutions beside a shortcut: `[B, inputs, H, W]` to `[B, outputs, H, W]`, or to half the height and width with other filters.

    The shortcut is the identity where the filters stay the same, and a strided convolution of one pixel where they do not.
    """

    def __init__(self, inputs: int, outputs: int, act_fun: str):
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if inputs != outputs:
            self.shortcut.extend([nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)])
        self.activation = activation_functions.get(act_fun)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.activation(self.bn1(self.conv1(x)))
        return self.activation(self.bn2(self.conv2(inner)) + self.shortcut(x))


class Model(CifarConvolutional):
    """D = 6n + 2 layers: a convolution, three segments of n blocks with W, 2W and 4W filters, and a linear layer on the mean.

    State-dict keys: `conv.*`, `bn.*`, `blocks.<i>.conv1.*` and the like with i counted through the segments, `fc.*`, as in OpenLTH.
    """

    family, member = "cifar_resnet", "_20"
    depths, width = "6n + 2: 8 | 14 | 20 | ... | 1202", 16

    def __init__(self, depth, width, act_fun, initializer, outputs):
        super().__init__(depth, width, act_fun, initializer, outputs)
        self.conv = nn.Conv2d(self.channels, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.activation = activation_functions.get(act_fun)
        rounds = (depth - LAYERS_OUTSIDE) // LAYERS_PER_ROUND
        filters = [width, *(width * 2**segment for segment in range(3) for _ in range(rounds))]
        self.blocks = nn.Sequential(*(Block(*pair, act_fun) for pair in zip(filters[:-1], filters[1:], strict=True)))
        self.fc = nn.Linear(filters[-1], outputs)
        self.apply(initializer)

    @staticmethod
    def has_depth(depth: int) -> bool:
        return LAYERS_OUTSIDE < depth <= DEEPEST and (depth - LAYERS_OUTSIDE) % LAYERS_PER_ROUND == 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images `[B, 3, H, W]` to `[B, outputs]`."""
        x = self.activation(self.bn(self.conv(x)))
        return self.fc(self.blocks(x).mean((2, 3)))

"""Residual networks `cifar_resnet_D` and `cifar_resnet_D_W` for CIFAR-10 (He et al. 2016, section 4.2)."""

from __future__ import annotations

import torch
from torch import nn

from models import activation_functions, base
from models.convolutional import CifarConvolutional

LAYERS_OUTSIDE = 2  # the first convolution and the output layer
LAYERS_PER_BLOCK = 6  # one more block of two convolutions in each of the three segments
MAX_DEPTH = 1202  # the deepest network of the paper; the limit stops names in untrusted files from building huge models


class Block(nn.Module):
    """Two convolutions and a shortcut: maps `[B, inputs, H, W]` to `[B, outputs, H, W]`; halves H and W if the number of filters changes.

    The shortcut is the identity if the number of filters stays the same, otherwise a strided 1x1 convolution with BatchNorm.
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
    """D = 6n + 2 layers: a convolution, three segments of n blocks with W, 2W and 4W filters, global average pooling, a linear layer.

    State-dict keys: `conv.*`, `bn.*`, `blocks.<i>.conv1.*` etc., where i counts the blocks of all segments, and `fc.*`, as in OpenLTH.
    """

    family, default_suffix = "cifar_resnet", "_20"
    depths, width = "6n + 2: 8 | 14 | 20 | ... | 1202", 16

    def __init__(self, depth: int, width: int | None, act_fun: str, initializer: base.Initializer, outputs: int):
        super().__init__(depth, width, act_fun, initializer, outputs)
        assert width is not None  # this family has a default width
        self.conv = nn.Conv2d(self.channels, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.activation = activation_functions.get(act_fun)
        blocks = (depth - LAYERS_OUTSIDE) // LAYERS_PER_BLOCK
        filters = [width, *(width * 2**segment for segment in range(3) for _ in range(blocks))]
        self.blocks = nn.Sequential(*(Block(*pair, act_fun) for pair in zip(filters[:-1], filters[1:], strict=True)))
        self.fc = nn.Linear(filters[-1], outputs)
        self.apply(initializer)

    @staticmethod
    def has_depth(depth: int) -> bool:
        return LAYERS_OUTSIDE < depth <= MAX_DEPTH and (depth - LAYERS_OUTSIDE) % LAYERS_PER_BLOCK == 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images `[B, 3, H, W]` to `[B, outputs]`."""
        x = self.activation(self.bn(self.conv(x)))
        return self.fc(self.blocks(x).mean((2, 3)))

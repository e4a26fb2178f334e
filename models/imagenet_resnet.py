"""Residual networks `imagenet_resnet_D` and `imagenet_resnet_D_W` for ImageNet (He et al. 2016, section 4.1), built with torchvision."""

from __future__ import annotations

import torch
from torch import nn

from foundations import imports
from models import activation_functions, base
from models.convolutional import Convolutional

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
MIN_BOTTLENECK_DEPTH = 50  # networks of this depth or deeper have bottleneck blocks


class Activation(nn.Module):
    """An activation function as a module; it replaces the ReLU modules of torchvision."""

    def __init__(self, act_fun: str):
        super().__init__()
        self.function = activation_functions.get(act_fun)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def residual_network(depth: int, width: int, act_fun: str, outputs: int) -> nn.Module:
    """The ResNet of torchvision with another activation function, and with `width` instead of 64 filters in its first layers."""
    resnet = imports.torchvision().models.resnet
    block = resnet.BasicBlock if depth < MIN_BOTTLENECK_DEPTH else resnet.Bottleneck
    network = resnet.ResNet(block, BLOCKS[depth], outputs)
    if width != Model.width:
        network.inplanes = width  # `_make_layer` reads the number of input channels from here
        network.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        network.bn1 = nn.BatchNorm2d(width)
        for stage, blocks in enumerate(BLOCKS[depth]):
            setattr(network, f"layer{stage + 1}", network._make_layer(block, width * 2**stage, blocks, stride=min(stage + 1, 2)))
        network.fc = nn.Linear(network.inplanes, outputs)
    if act_fun != "relu":
        for module in list(network.modules()):
            if hasattr(module, "relu"):
                module.relu = Activation(act_fun)
    return network


class Model(Convolutional):
    """D layers: a convolution, pooling, four stages of blocks with W, 2W, 4W and 8W filters, global average pooling, a linear layer.

    ResNet-50 should reach 76.1% on ImageNet with the default hyperparameters. The default learning rate is 0.1 per 256 examples of a batch.
    State-dict keys are those of torchvision with the prefix `model.`, such as `model.conv1.weight` and `model.fc.bias`, as in OpenLTH.
    """

    family, default_suffix = "imagenet_resnet", "_50"
    depths, width = " | ".join(map(str, BLOCKS)), 64
    outputs = 1000
    dataset, batch_size = "imagenet", 1024
    lr, training_steps, milestone_steps, warmup_steps = 0.4, "90ep", "30ep,60ep,80ep", "5ep"

    def __init__(self, depth: int, width: int | None, act_fun: str, initializer: base.Initializer, outputs: int):
        super().__init__(depth, width, act_fun, initializer, outputs)
        assert width is not None  # this family has a default width
        self.model = residual_network(depth, width, act_fun, outputs)
        self.apply(initializer)

    @staticmethod
    def has_depth(depth: int) -> bool:
        return depth in BLOCKS

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images `[B, 3, H, W]` to `[B, outputs]`."""
        return self.model(x)

    @property
    def output_layer_names(self) -> list[str]:
        return ["model.fc.weight", "model.fc.bias"]

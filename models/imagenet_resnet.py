"""Residual networks `imagenet_resnet_D` and `imagenet_resnet_D_W` for ImageNet (He et al. 2016, section 4.1), which are torchvision's."""

from __future__ import annotations

import torch
from torch import nn

from foundations import imports
from models import activation_functions
from models.convolutional import Convolutional

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
BOTTLENECKS_FROM = 50  # the depth from which blocks are bottlenecks


class Activation(nn.Module):
    """An activation function as a module, to stand in for torchvision's ReLU."""

    def __init__(self, act_fun: str):
        super().__init__()
        self.function = activation_functions.get(act_fun)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def residual_network(depth: int, width: int, act_fun: str, outputs: int) -> nn.Module:
    """torchvision's ResNet with every activation function replaced by another, and `width` filters in its first layers instead of 64."""
    resnet = imports.torchvision().models.resnet
    block = resnet.BasicBlock if depth < BOTTLENECKS_FROM else resnet.Bottleneck
    network = resnet.ResNet(block, BLOCKS[depth], outputs)
    if width != Model.width:
        network.inplanes = width  # what the next layer that is made will take
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
    """D layers: a convolution and pooling, four stages of blocks with W, 2W, 4W and 8W filters, and a linear layer on the mean.

    With the default hyperparameters ResNet-50 is to reach 76.1% on ImageNet; the learning rate goes with the batch size (0.1 for 256).
    State-dict keys are torchvision's behind `model.`, such as `model.conv1.weight` and `model.fc.bias`, as in OpenLTH.
    """

    family, member = "imagenet_resnet", "_50"
    depths, width = " | ".join(map(str, BLOCKS)), 64
    outputs = 1000
    dataset, batch_size = "imagenet", 1024
    lr, training_steps, milestone_steps, warmup_steps = 0.4, "90ep", "30ep,60ep,80ep", "5ep"

    def __init__(self, depth, width, act_fun, initializer, outputs):
        super().__init__(depth, width, act_fun, initializer, outputs)
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

"""Weight initialisers. Each function is a value of `--model_init` and is applied to every module of a model.

`kernels` iterates over the kernels of a module, one network at a time, so that the same function initialises plain and stacked layers.
"""

import math

import torch
from torch import nn

from models.parallel import Linear, kernels


def kaiming_normal(module: nn.Module) -> None:
    """N(0, 2 / fan_in) (He et al. 2015)."""
    for kernel in kernels(module):
        nn.init.kaiming_normal_(kernel)


def kaiming_uniform(module: nn.Module) -> None:
    """U(-b, b) with b = sqrt(6 / fan_in) (He et al. 2015)."""
    for kernel in kernels(module):
        nn.init.kaiming_uniform_(kernel)


def orthogonal(module: nn.Module) -> None:
    """A (semi-)orthogonal matrix (Saxe et al. 2014)."""
    for kernel in kernels(module):
        nn.init.orthogonal_(kernel)


def binary(module: nn.Module) -> None:
    """The signs of a Kaiming normal kernel times its standard deviation (the signed constant of Zhou et al. 2019).

    As in OpenLTH, the standard deviation is that of a sample, with n - 1 in the denominator.
    """
    for kernel in kernels(module):
        nn.init.kaiming_normal_(kernel)
        kernel.copy_(torch.sign(kernel) * kernel.std(correction=min(1, kernel.numel() - 1)))


def published_students(module: nn.Module) -> None:
    """The `kaiming_normal` of the published Expand-and-Cluster code, which for students is N(0, 2 / (fan_out * N)), with biases 0.

    It fills the kernels `[fan_in, fan_out, N]` of all N students at once, and torch takes the last two axes for the fan-in. Single networks
    are initialised by `kaiming_normal`.
    """
    if isinstance(module, Linear):
        networks, _, fan_out = module.weight.shape
        nn.init.normal_(module.weight, std=math.sqrt(2 / (fan_out * networks)))
        nn.init.zeros_(module.bias)
    else:
        kaiming_normal(module)

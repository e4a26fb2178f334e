"""Weight initialisers. Each function is a value of `--model_init` and is applied to every module of a model.

`kernels` iterates over the kernels of a module, one network at a time, so that the same function initialises plain and stacked layers.
"""

import torch
from torch import nn

from models.parallel import kernels


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
    """The signs of a Kaiming normal kernel times its standard deviation (the signed constant of Zhou et al. 2019)."""
    for kernel in kernels(module):
        nn.init.kaiming_normal_(kernel)
        kernel.copy_(torch.sign(kernel) * kernel.std(correction=0))

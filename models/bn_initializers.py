"""Initialisers of BatchNorm layers. Each function is a value of `--batchnorm_init` and is applied to every module of a model."""

from torch import nn


def uniform(module: nn.Module) -> None:
    """Scales from U(0, 1), shifts 0."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        nn.init.uniform_(module.weight)
        nn.init.zeros_(module.bias)


def positivenegative(module: nn.Module) -> None:
    """Scales from U(-1, 1), shifts 0."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        nn.init.uniform_(module.weight, -1, 1)
        nn.init.zeros_(module.bias)


def oneone(module: nn.Module) -> None:
    """Scales 1, shifts 1."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        nn.init.ones_(module.weight)
        nn.init.ones_(module.bias)


def fixed(module: nn.Module) -> None:
    """Scales 1, shifts 0."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)

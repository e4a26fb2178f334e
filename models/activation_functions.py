"""The activation functions of the hidden layers. A new one is a row here and a row in `extraction/symmetry.py`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from foundations.errors import unknown

ActivationFunction = Callable[[torch.Tensor], torch.Tensor]

LEAKY_SLOPE = 0.01


def leaky_relu(x: torch.Tensor) -> torch.Tensor:
    """x where x > 0, LEAKY_SLOPE * x elsewhere."""
    return F.leaky_relu(x, LEAKY_SLOPE)


def g(x: torch.Tensor) -> torch.Tensor:
    """sigmoid(4x) + softplus(x): smooth, and without any symmetry (Simsek et al. 2021)."""
    return torch.sigmoid(4 * x) + F.softplus(x)


activation_functions: dict[str, ActivationFunction] = {
    "relu": torch.relu,
    "leaky_relu": leaky_relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "gelu": F.gelu,
    "silu": F.silu,
    "g": g,
    "identity": torch.clone,
}


def get(name: str) -> ActivationFunction:
    """The function of a name.

    Raises:
        ConfigError: there is none.
    """
    if name not in activation_functions:
        raise unknown("--act_fun", name, activation_functions)
    return activation_functions[name]

"""Activation functions of the hidden layers. To add one, add a row here and a row in `extraction/symmetry.py`.

`leaky_relu:SLOPE`, such as leaky_relu:0.2, is leaky_relu with another slope.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch.nn import functional as F

from foundations.errors import unknown
from models.slopes import LEAKY_SLOPE, slope_of

ActivationFunction = Callable[[torch.Tensor], torch.Tensor]

GRID_LIMIT, GRID_STEP = 8.0, 1 / 128  # the grid for the Gaussian mean, in standard deviations


def leaky_relu(x: torch.Tensor) -> torch.Tensor:
    """x where x > 0, LEAKY_SLOPE * x elsewhere."""
    return F.leaky_relu(x, LEAKY_SLOPE)


def g(x: torch.Tensor) -> torch.Tensor:
    """sigmoid(4x) + softplus(x): a smooth function without symmetry (Simsek et al. 2021)."""
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
    """The activation function with this name.

    Raises:
        ConfigError: no activation function has this name.
    """
    if name in activation_functions:
        return activation_functions[name]
    slope = slope_of(name)
    if slope is None:
        raise unknown("--act_fun", name, [*activation_functions, "leaky_relu:SLOPE (between 0 and 1)"])
    return functools.partial(F.leaky_relu, negative_slope=slope)


def value_and_slope(activation: ActivationFunction, sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """An activation function and its derivative at every element of a tensor of any shape."""
    with torch.enable_grad():
        at = sums.detach().requires_grad_()
        values = activation(at)
        (slopes,) = torch.autograd.grad(values.sum(), at)
    return values.detach(), slopes


@functools.cache
def gaussian_mean(name: str) -> float:
    """The mean of an activation function over standard normal inputs, to five digits; exactly 0 for odd functions."""
    z = torch.arange(-GRID_LIMIT, GRID_LIMIT + GRID_STEP, GRID_STEP, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return round(float((get(name)(z) * density).sum()) * GRID_STEP, 6)

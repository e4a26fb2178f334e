"""Activation functions of the hidden layers. To add one, add a row here and a row in `extraction/symmetry.py`.

`leaky_relu:SLOPE`, such as leaky_relu:0.2, is leaky_relu with another slope.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable

import torch
from torch.nn import functional as F

from foundations.errors import unknown

ActivationFunction = Callable[[torch.Tensor], torch.Tensor]

LEAKY_SLOPE = 0.01
KINKED = {"relu": 0.0, "leaky_relu": LEAKY_SLOPE}
GRID_LIMIT, GRID_STEP = 8.0, 1 / 128  # the grid for the Gaussian mean, in standard deviations


def leaky_relu(x: torch.Tensor) -> torch.Tensor:
    """x where x > 0, LEAKY_SLOPE * x elsewhere."""
    return F.leaky_relu(x, LEAKY_SLOPE)


def slope_of(name: str) -> float | None:
    """The slope below 0 of a function that is linear on both sides of 0: relu, leaky_relu, or leaky_relu:SLOPE; None for others.

    The slope that is stated is more than 0 and less than 1.
    """
    if name in KINKED:
        return KINKED[name]
    family, _, text = name.partition(":")
    with contextlib.suppress(ValueError):
        if family == "leaky_relu" and 0 < float(text) < 1:
            return float(text)
    return None


def with_slope(slope: float) -> str:
    """The name of the function that is x above 0 and `slope * x` below; `slope` is at least 0 and less than 1."""
    return next((name for name, known in KINKED.items() if known == slope), f"leaky_relu:{slope!r}")


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


@functools.cache
def gaussian_mean(name: str) -> float:
    """The mean of an activation function over standard normal inputs, to five digits; exactly 0 for odd functions."""
    z = torch.arange(-GRID_LIMIT, GRID_LIMIT + GRID_STEP, GRID_STEP, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return round(float((get(name)(z) * density).sum()) * GRID_STEP, 6)

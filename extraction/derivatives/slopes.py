"""Values and derivatives of activation functions, element by element."""

from __future__ import annotations

import torch

from models.activation_functions import ActivationFunction


def value_and_slope(activation: ActivationFunction, sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """An activation function and its derivative at every element of a tensor of any shape."""
    with torch.enable_grad():
        at = sums.detach().requires_grad_()
        values = activation(at)
        (slopes,) = torch.autograd.grad(values.sum(), at)
    return values.detach(), slopes

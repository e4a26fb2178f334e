"""Steps of an optimizer as if the neurons below a layer were centred.

Over activations whose mean is some c other than zero, a layer's gradients have that mean in common, and little else gets through (LeCun
et al. 1998, Efficient BackProp, section 4.3). Over x - c the same layer, with the bias b + c sum(W), is the same function and an easier
problem. A step in those coordinates is one in W and b, by the gradient dL/dW - c dL/db, after which the bias gives up c times what the
sum of the weights has gained. So networks, gradients and files stay as they are: only the way through the weights is another.

Measured on six students 64-30-30-30-10 of a network 64-10-10-10-10 (g, Adam at 0.02 along a cosine, 20,000 steps): median loss 2e-4 rather
than 1.3e-3, and the neurons of the first layer at 1 - |cos| of 2e-6 rather than 3e-5. The mean of each neuron over the batch in place of
the constant was worse (9e-4), whether or not the inputs were centred as well.
"""

from __future__ import annotations

import torch
from torch import nn

from models import activation_functions
from models.mlp import Perceptron


class Centring:
    """What makes an optimizer of a fully connected network, or of a stack of them, step like this; its closure gives the plain gradient.

    Args:
        optimizer: a first-order one.
        model: its network, on the device and in the number format that it is trained in. It may be pruned: what is pruned gets no gradient.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, model: Perceptron):
        self.centre = activation_functions.gaussian_mean(model.act_fun)
        mask, layers = getattr(model, "mask", {}), {f"fc_layers.{depth}": layer for depth, layer in enumerate(model.fc_layers)}
        self.layers = [(layer, mask.get(f"{name}.weight")) for name, layer in ({**layers, "fc": model.fc}).items()][1:]
        self.layers = [
            (layer, None if left is None else left.to(layer.weight))
            for layer, left in self.layers
            if layer.weight.requires_grad and layer.bias.requires_grad
        ]
        self.sums: list[torch.Tensor] = []
        if self.centre == 0:
            return
        optimizer.register_step_pre_hook(self._before)
        optimizer.register_step_post_hook(self._after)

    def _before(self, optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Wraps the closure; without one, as after the scaling of losses, the gradients are there already."""
        _, *rest = args
        if not rest:
            self._centre_gradients()
            return args, kwargs

        def centred() -> torch.Tensor:
            loss = rest[0]()
            self._centre_gradients()
            return loss

        return (optimizer, centred, *rest[1:]), kwargs

    @torch.no_grad()
    def _centre_gradients(self) -> None:
        self.sums = [_sum(layer) for layer, _ in self.layers]
        for (layer, left), total in zip(self.layers, self.sums, strict=True):
            shift = self.centre * layer.bias.grad.view_as(total)
            layer.weight.grad.sub_(shift if left is None else shift * left)

    @torch.no_grad()
    def _after(self, *_) -> None:
        for (layer, _), before in zip(self.layers, self.sums, strict=True):
            layer.bias.sub_((self.centre * (_sum(layer) - before)).view_as(layer.bias))


def _sum(layer: nn.Module) -> torch.Tensor:
    """The sum of each unit's weights: `[O, 1]`, or `[N, 1, O]` of a stack."""
    return layer.weight.sum(1, keepdim=True)

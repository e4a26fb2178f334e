"""Optimizer steps as if the activations of the hidden neurons were centred.

If the activations x below a layer have a mean c other than zero, this mean dominates the layer's gradients, and training is slow (LeCun
et al. 1998, Efficient BackProp, section 4.3). The layer over x - c with the bias b + c sum(W) is the same function, and trains faster. A
step in these coordinates is a step in W and b with the gradient dL/dW - c dL/db, after which c times the change of sum(W) is subtracted
from b. The network and its files are unchanged: only the optimisation path differs.

Measured on six students 64-30-30-30-10 of a network 64-10-10-10-10 (g, Adam, lr 0.02, cosine, 20,000 steps): median loss 2e-4 rather
than 1.3e-3, and 1 - |cos| of the neurons of the first layer 2e-6 rather than 3e-5. With the mean of each neuron over the batch instead of
a constant, the loss was higher (9e-4), whether or not the inputs were centred as well.
"""

from __future__ import annotations

import torch
from torch import nn

from models import activation_functions, parallel
from models.mlp import Perceptron
from models.wrapper import Wrapper

Affine = nn.Linear | parallel.Linear


class Centring:
    """Centres the steps of an optimizer of a fully connected network, or of a stack of them. The closure computes the plain gradient.

    Args:
        optimizer: a first-order optimizer.
        model: the network, on its device and in its number format. If it is pruned, pruned weights get no gradient.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, model: nn.Module):
        network = model
        while isinstance(network, Wrapper):
            network = network.model
        assert isinstance(network, Perceptron)
        self.centre = activation_functions.gaussian_mean(network.act_fun)
        mask = {name: values.to(network.fc.weight) for name, values in getattr(model, "mask", {}).items()}
        names = [f"fc_layers.{depth}.weight" for depth in range(len(network.fc_layers))] + ["fc.weight"]
        self.layers: list[tuple[Affine, torch.Tensor | None]] = []  # with their masks
        for name, layer in [*zip(names, [*network.fc_layers, network.fc], strict=True)][1:]:
            assert isinstance(layer, Affine)
            if layer.weight.requires_grad and layer.bias.requires_grad:
                self.layers.append((layer, mask.get(name)))
        self.sums: list[torch.Tensor] = []
        if self.centre == 0:
            return
        optimizer.register_step_pre_hook(self._before)
        optimizer.register_step_post_hook(self._after)

    def _before(self, optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Makes the closure centre its gradients; without a closure, as in fp16, centres the gradients that are already computed."""
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
        for (layer, mask), weight_sum in zip(self.layers, self.sums, strict=True):
            assert layer.weight.grad is not None and layer.bias.grad is not None
            shift = self.centre * layer.bias.grad.view_as(weight_sum)
            layer.weight.grad.sub_(shift if mask is None else shift * mask)

    @torch.no_grad()
    def _after(self, *_) -> None:
        for (layer, _), before in zip(self.layers, self.sums, strict=True):
            layer.bias.sub_((self.centre * (_sum(layer) - before)).view_as(layer.bias))


def _sum(layer: Affine) -> torch.Tensor:
    """The sum of each unit's weights: `[O, 1]`, or `[N, 1, O]` of a stack."""
    return layer.weight.sum(1, keepdim=True)

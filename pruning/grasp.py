"""Pruning that preserves gradient flow: *Picking Winning Tickets Before Training* (GraSP; Wang, Zhang & Grosse 2020, arXiv:2002.07376)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from pruning import base, snip


@dataclass
class PruningHparams(snip.PruningHparams):
    """How many examples judge, and how soft their outputs are."""

    pruning_temperature: float = 200.0

    _name = "Hyperparameters of GraSP"
    _description = "The weights go whose removal would lower the gradient's norm the least, before training."
    _pruning_temperature = "What outputs are divided by before the cross-entropy; targets that are no classes have none."

    def __post_init__(self):
        super().__post_init__()
        self.require("pruning_temperature", 0 < self.pruning_temperature < math.inf, "a finite number more than 0")


class Strategy(base.Strategy):
    """`w (H g)`, with g the gradient and H the Hessian of the loss by the weights that are left.

    To first order, removing w changes `|g|^2` by minus twice that. The lowest go: those without which the gradient is longest.
    """

    untrained = True

    @staticmethod
    def get_pruning_hparams() -> type[PruningHparams]:
        return PruningHparams

    @staticmethod
    def score(problem: base.Problem) -> base.Score:
        examples, labels = problem.batch(problem.hparams.pruning_examples)
        temperature = 1.0 if labels.is_floating_point() else problem.hparams.pruning_temperature
        kernels = problem.kernels()
        weights = list(kernels.values())
        loss = problem.model.loss_criterion(problem.outputs(kernels, examples) / temperature, labels)
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        left = [problem.mask[name].to(kernel.device) for name, kernel in kernels.items()]
        norm = sum((gradient.square() * kept).sum() for gradient, kept in zip(gradients, left, strict=True)) / 2
        products = torch.autograd.grad(norm, weights)
        return problem.rows({name: (kernels[name] * product) for name, product in zip(kernels, products, strict=True)})

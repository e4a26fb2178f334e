"""Pruning that preserves gradient flow: *Picking Winning Tickets Before Training* (GraSP; Wang, Zhang & Grosse 2020, arXiv:2002.07376)."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch

from pruning import base, snip


@dataclass
class PruningHparams(snip.PruningHparams):
    """Adds the number of examples and the temperature."""

    pruning_temperature: float = 200.0

    _name = "Hyperparameters of GraSP"
    _description = "Removes the weights whose removal reduces the norm of the gradient least, before training."
    _pruning_temperature = "The divisor of the outputs before the cross-entropy; not used for real-valued targets."

    def __post_init__(self):
        super().__post_init__()
        self.require("pruning_temperature", 0 < self.pruning_temperature < math.inf, "a finite number more than 0")


class Strategy(base.Strategy[PruningHparams]):
    """Scores a weight w by `w (H g)`, with g the gradient and H the Hessian of the loss with respect to the remaining weights.

    To first order, removing w changes `|g|^2` by `-2 w (H g)`. The weights with the lowest scores are removed: without them, the norm of
    the gradient is largest.
    """

    scores_initial_weights = True

    @staticmethod
    def get_pruning_hparams() -> type[PruningHparams]:
        return PruningHparams

    @staticmethod
    def score(problem: base.Problem[PruningHparams]) -> base.Score:
        examples, labels = problem.batch(problem.hparams.pruning_examples)
        temperature = 1.0 if labels.is_floating_point() else problem.hparams.pruning_temperature
        kernels = problem.masked_kernels()
        weights = list(kernels.values())
        loss = problem.model.loss_criterion(problem.outputs(kernels, examples) / temperature, labels)
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        masks = [problem.mask[name].to(kernel.device) for name, kernel in kernels.items()]
        squares = [(gradient.square() * mask).sum() for gradient, mask in zip(gradients, masks, strict=True)]
        products = torch.autograd.grad(functools.reduce(torch.add, squares) / 2, weights)
        return problem.score_by_tensor({name: kernels[name] * product for name, product in zip(kernels, products, strict=True)})

"""Pruning by connection sensitivity: *SNIP: Single-shot Network Pruning* (Lee, Ajanthan & Torr 2019, arXiv:1810.02340)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pruning import base


@dataclass
class PruningHparams(base.PruningHparams):
    """How many examples judge."""

    pruning_examples: int = 100

    _name = "Hyperparameters of SNIP"
    _description = "The weights go whose removal would change the loss the least, before training."
    _pruning_examples = "Examples of the training set whose loss is looked at; all where there are fewer."

    def __post_init__(self):
        super().__post_init__()
        self.require("pruning_examples", self.pruning_examples >= 1, "1 or more")


class Strategy(base.Strategy):
    """The magnitude of the derivative of the loss L by a factor on the weight w, at 1: `|w dL/dw|`."""

    untrained = True

    @staticmethod
    def get_pruning_hparams() -> type[PruningHparams]:
        return PruningHparams

    @staticmethod
    def score(problem: base.Problem) -> base.Score:
        examples, labels = problem.batch(problem.hparams.pruning_examples)
        kernels = problem.kernels()
        loss = problem.model.loss_criterion(problem.outputs(kernels, examples), labels)
        gradients = torch.autograd.grad(loss, list(kernels.values()))
        pairs = zip(kernels.items(), gradients, strict=True)
        return problem.rows({name: (kernel.detach() * gradient).abs() for (name, kernel), gradient in pairs})

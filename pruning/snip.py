"""Pruning by connection sensitivity: *SNIP: Single-shot Network Pruning* (Lee, Ajanthan & Torr 2019, arXiv:1810.02340)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from foundations import limits
from pruning import base, hparams


@dataclass
class PruningHparams(hparams.PruningHparams):
    """Adds the number of examples."""

    pruning_examples: int = 100

    _name = "Hyperparameters of SNIP"
    _description = "Removes the weights whose removal changes the loss least, before training."
    _pruning_examples = "The number of training examples whose loss is computed; all examples if there are fewer."

    def __post_init__(self):
        super().__post_init__()
        self.require("pruning_examples", 1 <= self.pruning_examples <= limits.EXAMPLES, f"1 to {limits.EXAMPLES:,}")


class Strategy(base.Strategy[PruningHparams]):
    """Scores a weight w by the magnitude of the derivative of the loss L with respect to a factor c on w, at c = 1: `|w dL/dw|`."""

    scores_initial_weights = True

    @staticmethod
    def get_pruning_hparams() -> type[PruningHparams]:
        return PruningHparams

    @staticmethod
    def score(problem: base.Problem[PruningHparams]) -> base.Score:
        examples, labels = problem.batch(problem.hparams.pruning_examples)
        kernels = problem.masked_kernels()
        loss = problem.model.loss_criterion(problem.outputs(kernels, examples), labels)
        gradients = torch.autograd.grad(loss, list(kernels.values()))
        pairs = zip(kernels.items(), gradients, strict=True)
        return problem.score_by_tensor({name: (kernel.detach() * gradient).abs() for (name, kernel), gradient in pairs})

"""Pruning by synaptic flow: *Pruning Neural Networks without any Data by Iteratively Conserving Synaptic Flow* (Tanaka, Kunin, Yamins &
Ganguli 2020, arXiv:2006.05467)."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call

from models.base import Model
from pruning import base
from pruning.mask import Mask


@dataclass
class PruningHparams(base.PruningHparams):
    """In how many rounds."""

    pruning_iterations: int = 100

    _name = "Hyperparameters of SynFlow"
    _description = "The weights go that carry least of what flows from all inputs to all outputs, in many rounds, before training."
    _pruning_iterations = "Rounds of scoring and removing in a pruning step; with few, whole layers can go."

    def __post_init__(self):
        super().__post_init__()
        self.require("pruning_iterations", self.pruning_iterations >= 1, "1 or more")


class Strategy(base.Strategy):
    """`|w| dR/d|w|`, where R is the sum of the outputs for an input of ones, all weights replaced by their magnitudes.

    Biases are left out and activation functions are the identity, so that R sums the products of weights along all paths. Scores are
    computed in float64, anew in each of K rounds, and after round k a share `(1 - fraction)^(k / K)` of the weights is left.
    """

    untrained = True

    @staticmethod
    def get_pruning_hparams() -> type[PruningHparams]:
        return PruningHparams

    @classmethod
    def step(cls, problem: base.Problem) -> Mask:
        hparams, goals, first = problem.hparams, problem.asked(problem.layers), problem.remaining(problem.layers)
        ones = torch.ones(1, *_example_shape(problem))
        problem = dataclasses.replace(problem, model=linearised(problem.model), data=[(ones, ones)])
        for iteration in range(1, hparams.pruning_iterations + 1):
            share = (1 - hparams.pruning_fraction) ** (iteration / hparams.pruning_iterations)
            last = iteration == hparams.pruning_iterations
            left = [count - goal if last else max(count - goal, int(count * share)) for count, goal in zip(first, goals, strict=True)]
            counts = [now - then for now, then in zip(problem.remaining(problem.layers), left, strict=True)]
            problem = dataclasses.replace(problem, mask=base.prune_lowest(problem.mask, problem.layers, cls.score(problem), counts))
        return problem.mask

    @staticmethod
    def score(problem: base.Problem) -> base.Score:
        """The flow through each weight of a linearised model whose only example is one of ones."""
        kernels = problem.kernels()
        flow = functional_call(problem.model, kernels, problem.batch(1)[:1]).sum()
        gradients = torch.autograd.grad(flow, list(kernels.values()))
        return problem.rows({name: kernels[name] * gradient for name, gradient in zip(kernels, gradients, strict=True)})


def linearised(model: Model) -> Model:
    """A copy in float64 whose output is the sum over all paths of the products of the magnitudes of their weights."""
    made = copy.deepcopy(model).double().eval()
    for name, values in [*made.named_parameters(), *made.named_buffers()]:
        if values.is_floating_point():
            values.data = torch.zeros_like(values) if name.endswith(("bias", "running_mean")) else values.data.abs()
    for module in made.modules():
        if hasattr(module, "activation"):
            module.activation = nn.Identity()
    return made


def _example_shape(problem: base.Problem) -> tuple[int, ...]:
    """The shape of an example: the first of the data, or the inputs that the model takes."""
    if problem.data is None and problem.model.input_size is not None:
        return (problem.model.input_size,)
    return tuple(problem.batch(1)[0].shape[1:])

"""Pruning by synaptic flow: *Pruning Neural Networks without any Data by Iteratively Conserving Synaptic Flow* (Tanaka, Kunin, Yamins &
Ganguli 2020, arXiv:2006.05467)."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call

from foundations import limits
from models.base import Model
from pruning import base, hparams
from pruning.mask import Mask


@dataclass
class PruningHparams(hparams.PruningHparams):
    """Adds the number of rounds."""

    pruning_iterations: int = 100

    _name = "Hyperparameters of SynFlow"
    _description = "Removes the weights with the least synaptic flow from all inputs to all outputs, in many rounds, before training."
    _pruning_iterations = "The number of rounds of scoring and removal in a pruning step; with few rounds, whole layers can be removed."

    def __post_init__(self):
        super().__post_init__()
        self.require("pruning_iterations", 1 <= self.pruning_iterations <= limits.ITERATIONS, f"1 to {limits.ITERATIONS:,}")


class Strategy(base.Strategy[PruningHparams]):
    """Scores a weight w by `|w| dR/d|w|`, where R is the sum of the outputs for an input of ones, with magnitudes as weights.

    Biases are 0 and activation functions are the identity, so that R is the sum over all paths of the products of their weights. Scores are
    recomputed in float64 in each of K rounds. After round k, a share `(1 - fraction)^(k / K)` of the weights remains.
    """

    scores_initial_weights = True

    @staticmethod
    def get_pruning_hparams() -> type[PruningHparams]:
        return PruningHparams

    @classmethod
    def step(cls, problem: base.Problem[PruningHparams]) -> Mask:
        """Prunes in many small steps, each by the scores of the network that the step before has left."""
        hparams, initial = problem.hparams, problem.remaining(problem.layers)
        removals = problem.removal_counts(problem.layers)
        ones = torch.ones(1, *_example_shape(problem))
        problem = dataclasses.replace(problem, model=linearised(problem.model), data=[(ones, ones)])
        for iteration in range(1, hparams.pruning_iterations + 1):
            share = (1 - hparams.pruning_fraction) ** (iteration / hparams.pruning_iterations)
            last = iteration == hparams.pruning_iterations
            ends = [(size - removal, int(size * share)) for size, removal in zip(initial, removals, strict=True)]
            targets = [end if last else max(end, target) for end, target in ends]
            counts = [now - target for now, target in zip(problem.remaining(problem.layers), targets, strict=True)]
            problem = dataclasses.replace(problem, mask=base.prune_lowest(problem.mask, problem.layers, cls.score(problem), counts))
        return problem.mask

    @staticmethod
    def score(problem: base.Problem[PruningHparams]) -> base.Score:
        """The synaptic flow through each weight of a linearised model, where the only example is all ones."""
        kernels = problem.masked_kernels()
        flow = functional_call(problem.model, kernels, problem.batch(1)[:1]).sum()
        gradients = torch.autograd.grad(flow, list(kernels.values()))
        return problem.score_by_tensor({name: kernels[name] * gradient for name, gradient in zip(kernels, gradients, strict=True)})


def linearised(model: Model) -> Model:
    """A copy in float64 whose output is the sum over all paths of the products of the magnitudes of their weights."""
    linear = copy.deepcopy(model).double().eval()
    for name, values in [*linear.named_parameters(), *linear.named_buffers()]:
        if values.is_floating_point():
            values.data = torch.zeros_like(values) if name.endswith(("bias", "running_mean")) else values.data.abs()
    for module in linear.modules():
        if hasattr(module, "activation"):
            module.activation = nn.Identity()
    return linear


def _example_shape(problem: base.Problem[PruningHparams]) -> tuple[int, ...]:
    """The shape of an example of the data or, without data, of an input of the model."""
    if problem.data is None and problem.model.input_size is not None:
        return (problem.model.input_size,)
    return tuple(problem.batch(1)[0].shape[1:])

"""Least-squares problems: the outputs of networks minus their labels, as functions of the parameters.

Symbols: N networks in a stack (1 for a plain model), n of them that still move, P parameters of one, B examples, O outputs, E = B O
equations, J the Jacobian of the outputs `[E, P]`, r the residuals `[E]`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch.func import functional_call, jacrev, jvp, vmap

from models.mlp import Perceptron
from models.wrapper import Wrapper
from training.normal_equations import normal_equations
from training.perceptron_layers import PerceptronLayers

CHUNK_VALUES = 2**23  # values of J in memory at a time
EVALUATION_VALUES = 2**27  # values of one layer of all networks, in an evaluation, that are in memory at a time


class LeastSquares:
    """The residuals of networks on a batch, as a function of their parameters: a row `[P]` for each of n networks of a stack.

    `free` `[N, P]` is 0 for pruned weights and 1 for the others. J has no columns for pruned weights. `weights` `[N, P]` is 0 for biases
    and 1 for weights.
    """

    def __init__(self, model: torch.nn.Module, examples: torch.Tensor, labels: torch.Tensor):
        self.examples, self.labels = examples, labels
        self.stack = hasattr(model, "networks")
        select = getattr(model, "select", None)
        self.network: torch.nn.Module = select(0) if self.stack and select is not None else model
        self.names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        shapes = dict(self.network.named_parameters())
        self.shapes = [shapes[name].shape for name in self.names]
        self.sizes = [shape.numel() for shape in self.shapes]
        mask, parameters = getattr(model, "mask", {}), [parameter for parameter in model.parameters() if parameter.requires_grad]
        left = [torch.as_tensor(mask.get(name, 1)).to(each).expand_as(each) for name, each in zip(self.names, parameters, strict=True)]
        self.free = self.gather(left)
        self.weights = self.gather(
            [torch.full_like(each, float(name.endswith("weight"))) for name, each in zip(self.names, parameters, strict=True)]
        )

    @property
    def unwrapped(self) -> torch.nn.Module:
        """One network, as a plain model or a stack of one, without the models that wrap it."""
        network = self.network
        while isinstance(network, Wrapper):
            network = network.model
        return network

    @functools.cached_property
    def layout(self) -> PerceptronLayers:
        """The parameters of fully connected networks as matrices."""
        network = self.unwrapped
        assert isinstance(network, Perceptron)
        return PerceptronLayers(network, self.stack, self.names)

    def gather(self, parameters: list[torch.Tensor]) -> torch.Tensor:
        """The parameters of all networks, `[N, P]`."""
        count = len(parameters[0]) if self.stack else 1
        return torch.cat([parameter.reshape(count, -1) for parameter in parameters], 1)

    def scatter(self, rows: torch.Tensor, parameters: list[torch.Tensor]) -> None:
        """Writes the parameters of all networks, `[N, P]`, to the tensors of `parameters`: the inverse of `gather`."""
        for parameter, part in zip(parameters, rows.split(self.sizes, 1), strict=True):
            parameter.copy_(part.reshape(parameter.shape))

    def named(self, row: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parameters `[P]` of one network by their names, in their shapes."""
        parts = (part.view(shape) for part, shape in zip(row.split(self.sizes), self.shapes, strict=True))
        return dict(zip(self.names, parts, strict=True))

    def outputs(self, row: torch.Tensor, examples: torch.Tensor) -> torch.Tensor:
        """The outputs `[B, O]` of the network with the parameters `[P]`."""
        outputs = functional_call(self.network, self.named(row), (examples,))
        return outputs[0] if self.stack else outputs

    def residuals(self, rows: torch.Tensor) -> torch.Tensor:
        """Outputs minus labels of n networks, `[n, E]`."""
        outputs = vmap(self.outputs, (0, None))
        widest = max(shape[-1] for shape in self.shapes if shape)
        chunk = max(1, EVALUATION_VALUES // (len(rows) * widest))
        if chunk >= len(self.examples):
            return (outputs(rows, self.examples) - self.labels).flatten(1)
        parts = zip(self.examples.split(chunk), self.labels.split(chunk), strict=True)
        return torch.cat([(outputs(rows, examples) - labels).flatten(1) for examples, labels in parts], 1)

    def normal_equations(self, rows: torch.Tensor, residuals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """J'J `[n, P, P]` and J'r `[n, P, 1]`, summed over parts of the batch."""
        network = self.unwrapped
        if isinstance(network, Perceptron):
            layout = self.layout
            errors = residuals.view(len(rows), len(self.examples), -1)
            places = layout.places.to(rows.device)
            return normal_equations(layout.matrices(rows), network.activation, self.examples.flatten(1), errors, places)
        networks, count = rows.shape
        jacobian = vmap(vmap(jacrev(lambda row, example: self.outputs(row, example[None])[0]), (None, 0)), (0, None))
        curvature, gradient = rows.new_zeros(networks, count, count), rows.new_zeros(networks, count, 1)
        outputs = self.labels.shape[1]
        chunk = max(1, CHUNK_VALUES // (networks * count * outputs))
        for examples, errors in zip(self.examples.split(chunk), residuals.split(chunk * outputs, 1), strict=True):
            slopes = jacobian(rows, examples).flatten(1, 2)
            curvature.baddbmm_(slopes.mT, slopes)
            gradient.baddbmm_(slopes.mT, errors[:, :, None])
        return curvature, gradient


@dataclass(frozen=True)
class Point:
    """Networks at some parameters, and the sum of loss and penalty that they minimise.

    Attributes:
        problem: the least-squares problem.
        rows: the parameters, `[n, P]`.
        residuals: there, `[n, E]`.
        penalty: on the square of each parameter, `[n, P]`.
        free: 0 for pruned weights and 1 for the others, `[n, P]`.
    """

    problem: LeastSquares
    rows: torch.Tensor
    residuals: torch.Tensor
    penalty: torch.Tensor
    free: torch.Tensor

    @property
    def objective(self) -> torch.Tensor:
        """The sum of loss and penalty of each network, `[n]`."""
        return self.residuals.square().mean(1) + (self.penalty * self.rows.square()).sum(1)

    def objective_at(self, rows: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """The sum of loss and penalty of the networks `which` `[m]` with other parameters `[m, P]`."""
        return self.problem.residuals(rows).square().mean(1) + (self.penalty[which] * rows.square()).sum(1)

    @property
    def summed_penalty(self) -> torch.Tensor:
        """The penalty beside the sum of squared residuals, rather than their mean, `[n, P]`."""
        return self.penalty * self.residuals.shape[1]

    def network(self, number: int) -> Point:
        """One of the networks, as a point of one."""
        one = slice(number, number + 1)
        return Point(self.problem, self.rows[one], self.residuals[one], self.penalty[one], self.free[one])


@torch.no_grad()
def curvature(model: torch.nn.Module, examples: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """J'J of a plain network, `[P, P]`, in the order of its parameters."""
    problem = LeastSquares(model, examples, labels)
    rows = problem.gather(list(model.parameters()))
    return problem.normal_equations(rows, problem.residuals(rows))[0][0]


def unit_curvature(model: torch.nn.Module, examples: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """J'J with the columns of J at unit length, `[P, P]`, and these lengths, `[P]`, which are 1 where a column is zero."""
    square = curvature(model, examples, labels)
    lengths = square.diagonal().sqrt()
    lengths = torch.where(lengths > 0, lengths, 1.0)
    return square / lengths[:, None] / lengths, lengths


@torch.no_grad()
def changes_of_outputs(model: torch.nn.Module, examples: torch.Tensor, combinations: torch.Tensor) -> torch.Tensor:
    """The derivatives of the outputs of a plain network along combinations of its parameters `[F, P]`: `[B, O, F]`."""
    problem = LeastSquares(model, examples, examples)
    (row,) = problem.gather(list(model.parameters()))

    def along(combination: torch.Tensor) -> torch.Tensor:
        return jvp(lambda parameters: problem.outputs(parameters, examples), (row,), (combination,))[1]

    chunk = max(1, CHUNK_VALUES // (len(examples) * max(shape[0] for shape in problem.shapes)))
    return vmap(along, out_dims=2, chunk_size=chunk)(combinations)

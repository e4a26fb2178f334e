"""The Jacobian J of a network by its parameters as products: v -> J v and e -> J'e, without its elements.

Symbols: P parameters, B examples, O outputs, E = B O equations, J `[E, P]`; K neurons of a layer, I inputs of a layer.
"""

from __future__ import annotations

import abc
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.func import jvp, vjp

from models.activation_functions import value_and_slope
from models.mlp import Perceptron
from training.least_squares import LeastSquares

KEPT_VALUES = 2**27  # of activations and derivatives that are kept between products; where there are more, each product computes them
PART_VALUES = 2**24  # of activations and derivatives of a part of the batch


class Jacobian(abc.ABC):
    """J of one network at some parameters. Its columns of pruned weights are zero."""

    @abc.abstractmethod
    def forward(self, vector: torch.Tensor) -> torch.Tensor:
        """J v `[E]` for v `[P]`, which is zero at pruned weights."""

    @abc.abstractmethod
    def transposed(self, errors: torch.Tensor) -> torch.Tensor:
        """J'e `[P]` for e `[E]`."""


def product(inputs: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """`inputs matrix'` `[B, K]` for many inputs `[B, I]` and few rows `[K, I]`.

    It is computed as its transpose: with 8,000 x 784 inputs and 20 rows that took 10 ms, and the product as it is written 32 ms.
    """
    return (matrix @ inputs.T).T.contiguous()


def jacobian_of(problem: LeastSquares, row: torch.Tensor, free: torch.Tensor) -> Jacobian:
    """J of one network with the parameters `[P]`; `free` `[P]` is 0 for pruned weights and 1 for the others."""
    kind = LayerJacobian if isinstance(problem.unwrapped, Perceptron) else AutogradJacobian
    return kind(problem, row, free)


class AutogradJacobian(Jacobian):
    """J of any network, by automatic differentiation of parts of the batch."""

    def __init__(self, problem: LeastSquares, row: torch.Tensor, free: torch.Tensor):
        self.problem, self.row, self.free = problem, row, free
        one = self._kept_values()
        self.parts = problem.examples.split(max(1, PART_VALUES // one))
        self.backward = [self._backward(part) for part in self.parts] if one * len(problem.examples) <= KEPT_VALUES else None

    def _outputs_of(self, examples: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda row: self.problem.outputs(row, examples).flatten()

    def _backward(self, examples: torch.Tensor) -> Callable:
        return vjp(self._outputs_of(examples), self.row)[1]

    def _kept_values(self) -> int:
        """The number of values that a forward pass keeps for the backward pass, for each example."""
        sizes = []
        some = self.problem.examples[:2]

        def keep(values: torch.Tensor) -> torch.Tensor:
            sizes.append(values.numel() if len(values.shape) and values.shape[0] == len(some) else 0)
            return values

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda values: values):
            self.problem.outputs(self.row.clone().requires_grad_(), some)
        return max(1, sum(sizes) // len(some))

    def forward(self, vector: torch.Tensor) -> torch.Tensor:
        with warnings.catch_warnings():  # the first call of jvp warns of a deprecation inside torch
            warnings.simplefilter("ignore", FutureWarning)
            return torch.cat([jvp(self._outputs_of(part), (self.row,), (vector,))[1] for part in self.parts])

    def transposed(self, errors: torch.Tensor) -> torch.Tensor:
        outputs, total = self.problem.labels.shape[1], torch.zeros_like(self.row)
        start = 0
        for number, part in enumerate(self.parts):
            backward = self.backward[number] if self.backward is not None else self._backward(part)
            end = start + len(part) * outputs
            total += backward(errors[start:end])[0]
            start = end
        return total * self.free


@dataclass(frozen=True)
class Pass:
    """A forward pass of a part of the batch.

    Attributes:
        inputs: of each affine layer, `[B, I]` each.
        slopes: the derivatives of the activation function in each hidden layer, `[B, K]` each.
    """

    inputs: list[torch.Tensor]
    slopes: list[torch.Tensor]


class LayerJacobian(Jacobian):
    """J of a fully connected network. A product costs one product of matrices for each layer and direction.

    A vector `[P]` is seen as one matrix `[K, I + 1]` for each layer, the bias last; a frozen tensor has zeros there.
    """

    def __init__(self, problem: LeastSquares, row: torch.Tensor, free: torch.Tensor):
        network = problem.unwrapped
        assert isinstance(network, Perceptron)
        self.problem, self.row, self.free = problem, row, free
        self.activation, self.depth = network.activation, len(network.fc_layers)
        self.layout = problem.layout
        self.layers = [matrices[0] for matrices in self.layout.matrices(row[None])]
        values = sum(len(layer) for layer in self.layers)
        rows = max(1, PART_VALUES // (2 * values))
        self.examples = [part.flatten(1) for part in problem.examples.split(rows)]
        self._passes = [self._pass(part) for part in self.examples] if 2 * values * len(problem.examples) <= KEPT_VALUES else None

    def split(self, vector: torch.Tensor) -> list[torch.Tensor]:
        """A vector `[P]` as matrices `[K, I + 1]`."""
        return self.layout.split(vector)

    def join(self, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
        """The inverse of `split`: a vector `[P]`."""
        return self.layout.join(matrices)

    def _pass(self, examples: torch.Tensor) -> Pass:
        inputs, slopes = [examples], []
        for layer in self.layers[:-1]:
            values, slope = value_and_slope(self.activation, product(inputs[-1], layer[:, :-1]) + layer[:, -1])
            inputs.append(values)
            slopes.append(slope)
        return Pass(inputs, slopes)

    def passes(self) -> Iterator[Pass]:
        """The forward passes of the parts of the batch."""
        yield from self._passes if self._passes is not None else map(self._pass, self.examples)

    def forward(self, vector: torch.Tensor) -> torch.Tensor:
        changes = self.split(vector)
        return torch.cat([self._change(one, changes) for one in self.passes()]).flatten()

    def _change(self, one: Pass, changes: list[torch.Tensor]) -> torch.Tensor:
        sums = product(one.inputs[0], changes[0][:, :-1]).add_(changes[0][:, -1])
        for depth in range(1, self.depth + 1):
            sums = product(sums.mul_(one.slopes[depth - 1]), self.layers[depth][:, :-1])
            sums += product(one.inputs[depth], changes[depth][:, :-1]).add_(changes[depth][:, -1])
        return sums

    def transposed(self, errors: torch.Tensor) -> torch.Tensor:
        totals = [torch.zeros_like(layer) for layer in self.layers]
        for one, back in zip(self.passes(), self.by_part(errors), strict=True):
            for depth, sums in self.backwards(one, back):
                totals[depth][:, :-1] += sums.T @ one.inputs[depth]
                totals[depth][:, -1] += sums.sum(0)
        return self.join(totals) * self.free

    def by_part(self, errors: torch.Tensor) -> Sequence[torch.Tensor]:
        """Errors `[E]` as `[B, O]` for each part of the batch."""
        return errors.view(-1, self.problem.labels.shape[1]).split([len(part) for part in self.examples])

    def backwards(self, one: Pass, back: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """The derivatives of `sum(back * outputs)` by the weighted sums of each layer, `[B, K]`, the output layer first."""
        for depth in range(self.depth, -1, -1):
            yield depth, back
            if depth:
                back = (back @ self.layers[depth][:, :-1]) * one.slopes[depth - 1]

    def output_derivatives(self, one: Pass) -> Iterator[tuple[int, torch.Tensor]]:
        """The derivatives of each output in turn by the weighted sums of each layer, with the numbers of the layers, as `backwards`."""
        for output in range(self.problem.labels.shape[1]):
            back = torch.zeros_like(self.row[:1]).expand(len(one.inputs[0]), self.problem.labels.shape[1]).clone()
            back[:, output] = 1
            yield from self.backwards(one, back)

    @functools.cached_property
    def squares(self) -> torch.Tensor:
        """The diagonal of J'J, `[P]`."""
        totals = [torch.zeros_like(layer) for layer in self.layers]
        for one in self.passes():
            sums = [torch.zeros_like(one.inputs[0][:, :1]).expand(-1, len(layer)).clone() for layer in self.layers]
            for depth, derivatives in self.output_derivatives(one):
                sums[depth] += derivatives.square()
            for total, inputs, squares in zip(totals, one.inputs, sums, strict=True):
                total[:, :-1] += squares.T @ inputs.square()
                total[:, -1] += squares.sum(0)
        return self.join(totals) * self.free

    def some_pass(self, rows: int) -> Pass:
        """The forward pass of at most so many examples, evenly spaced."""
        examples = self.problem.examples.flatten(1)
        return self._pass(examples[:: -(-len(examples) // rows)])

"""Gauss-Newton for networks of many unknowns: conjugate gradients with Kronecker preconditioners.

Each step minimises `|J d + r|` over the change d of all free weights by conjugate gradients on the least-squares problem (CGLS, Hestenes
and Stiefel 1952), which needs products with J and J' alone: a forward and a backward pass. The preconditioner of a layer is `(A x G)^-1`:
A is the second moment of the layer's inputs, G that of the outputs' derivatives by its weighted sums (Martens and Grosse 2015, here on
the Gauss-Newton matrix of squared errors). Where only some weights of a layer are free, its preconditioner is diagonal.

A step is solved as exactly as it can help: if the residuals are a share e of the answers, a full step leaves e^2, and so the linear problem
is solved to a tolerance of e. Steps that do not lower the loss are halved.

Axes: n queries, K neurons of a layer, D its inputs with the bias last, o outputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from extraction.derivatives.slopes import value_and_slope
from extraction.network import Layers, with_ones

STEPS, ITERATIONS, HALVINGS = 12, 300, 6
LOOSEST, TIGHTEST = 0.1, 1e-10  # tolerances of the linear problems
DAMPING = 1e-12  # of the preconditioner, as a share of its largest eigenvalue
FACTOR_QUERIES = 2000  # by which G is estimated
FLOOR = 2e-16  # residuals, as a share of the answers, that rounding alone leaves

Vectors = list[torch.Tensor]


@dataclass(frozen=True)
class Polished:
    """A fitted network.

    Attributes:
        layers: of the network.
        error: the root mean square residual as a share of the spread of each output.
        iterations: of conjugate gradients, in each step.
    """

    layers: Layers
    error: float
    iterations: tuple[int, ...]


@torch.no_grad()
def polish(layers: Layers, queries: torch.Tensor, answers: torch.Tensor, free: Sequence[torch.Tensor | None] = ()) -> Polished:
    """Fits a network that is nearly right to answers.

    Args:
        layers: the network, the output layer last.
        queries: `[n, inputs]`.
        answers: `[n, o]`.
        free: for each layer which weights are unknown, of the layer's shape; None, or a missing entry, for all of them.
    """
    masks = [*free, *[None] * (len(layers) - len(free))]
    spread = answers.std(0).clamp_min(1e-300)
    problem = _Linearised(layers, queries, answers, spread)
    iterations, error = [], problem.error
    for _ in range(STEPS):
        change, count = _solve(problem, masks, min(LOOSEST, max(error, TIGHTEST)))
        iterations.append(count)
        for halving in range(HALVINGS):
            vectors = [vector - change_ / 2**halving for vector, change_ in zip(problem.layers.vectors, change, strict=True)]
            trial = _Linearised(layers.replace(*vectors), queries, answers, spread)
            if trial.error < error:
                break
        else:
            break
        problem, error, gain = trial, trial.error, error / trial.error
        if error < FLOOR or (gain < 2 and error < 1e-13):
            break
    return Polished(problem.layers, error, tuple(iterations))


class _Linearised:
    """A network at some queries, and the products of its Jacobian by all weights; outputs are divided by their spread `[o]`."""

    def __init__(self, layers: Layers, queries: torch.Tensor, answers: torch.Tensor, spread: torch.Tensor):
        self.layers, self.scale = layers, 1 / spread
        self.inputs, self.slopes = [with_ones(queries)], []
        for vectors in layers.vectors[:-1]:
            values, slopes = value_and_slope(layers.activation, self.inputs[-1] @ vectors.T)
            self.inputs.append(with_ones(values))
            self.slopes.append(slopes)
        self.residuals = (self.inputs[-1] @ layers.vectors[-1].T - answers) * self.scale
        self.error = float(self.residuals.square().mean().sqrt())
        if not self.error < float("inf"):
            self.error = float("inf")

    def push(self, change: Vectors) -> torch.Tensor:
        """J times a change of the weights: the change of the outputs, `[n, o]`."""
        sums = self.inputs[0] @ change[0].T
        for depth, slopes in enumerate(self.slopes, 1):
            sums = (slopes * sums) @ self.layers.vectors[depth][:, :-1].T
            sums += self.inputs[depth] @ change[depth].T
        return sums * self.scale

    def pull(self, outputs: torch.Tensor) -> Vectors:
        """J' times something of the outputs, `[n, o]`."""
        back = outputs * self.scale
        result = [back.T @ self.inputs[-1]]
        for depth in range(len(self.slopes), 0, -1):
            back = (back @ self.layers.vectors[depth][:, :-1]) * self.slopes[depth - 1]
            result.append(back.T @ self.inputs[depth - 1])
        return result[::-1]

    def input_moments(self) -> Vectors:
        """A of every layer, `[D, D]`, summed over queries."""
        return [inputs.T @ inputs for inputs in self.inputs]

    def output_moments(self) -> Vectors:
        """G of every layer, `[K, K]`, averaged over some queries and summed over outputs."""
        some = slice(None, None, -(-len(self.residuals) // FACTOR_QUERIES))
        slopes = [each[some] for each in self.slopes]
        moments = [torch.zeros(len(vectors), len(vectors)).to(vectors) for vectors in self.layers.vectors]
        for output in range(len(self.scale)):
            back = torch.zeros_like(self.residuals[some])
            back[:, output] = self.scale[output]
            for depth in range(len(slopes), -1, -1):
                moments[depth] += back.T @ back / len(back)
                if depth:
                    back = (back @ self.layers.vectors[depth][:, :-1]) * slopes[depth - 1]
        return moments


def _solve(problem: _Linearised, masks: Sequence[torch.Tensor | None], tolerance: float) -> tuple[Vectors, int]:
    """The change d that minimises `|J d - r|`, to a relative tolerance, and the number of iterations."""
    precondition = _Preconditioner(problem, masks)
    change = [torch.zeros_like(vectors) for vectors in problem.layers.vectors]
    left = problem.residuals.clone()
    slope = _masked(problem.pull(left), masks)
    step = direction = precondition(slope)
    size = first = _dot(slope, step)
    count = 0
    for count in itertools.count(1):  # noqa: B007
        moved = problem.push(direction)
        length = size / float(moved.square().sum())
        change = [old + length * each for old, each in zip(change, direction, strict=True)]
        left -= length * moved
        slope = _masked(problem.pull(left), masks)
        step = precondition(slope)
        size, before = _dot(slope, step), size
        if not size > tolerance**2 * first or count >= ITERATIONS:
            return change, count
        direction = [each + size / before * old for each, old in zip(step, direction, strict=True)]
    raise AssertionError


class _Preconditioner:
    """An approximate inverse of `J'J`, layer by layer."""

    def __init__(self, problem: _Linearised, masks: Sequence[torch.Tensor | None]):
        self.masks, self.parts = masks, []
        for mask, inputs, outputs in zip(masks, problem.input_moments(), problem.output_moments(), strict=True):
            if mask is None:
                (a, left), (g, right) = torch.linalg.eigh(inputs), torch.linalg.eigh(outputs)
                curvature = torch.outer(g.clamp_min(0), a.clamp_min(0))
                self.parts.append((left, right, curvature + DAMPING * curvature.max()))
            else:
                curvature = torch.outer(outputs.diagonal(), inputs.diagonal())
                self.parts.append((None, None, curvature + DAMPING * curvature.max()))

    def __call__(self, slope: Vectors) -> Vectors:
        result = []
        for each, (left, right, curvature) in zip(slope, self.parts, strict=True):
            result.append(each / curvature if left is None else right @ ((right.T @ each @ left) / curvature) @ left.T)
        return _masked(result, self.masks)


def _masked(vectors: Vectors, masks: Sequence[torch.Tensor | None]) -> Vectors:
    return [each if mask is None else each * mask for each, mask in zip(vectors, masks, strict=True)]


def _dot(left: Vectors, right: Vectors) -> float:
    return float(sum((a * b).sum() for a, b in zip(left, right, strict=True)))

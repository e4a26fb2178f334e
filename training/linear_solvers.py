"""Solvers of the linear systems of a Gauss-Newton step, `(J'J + damping * diag(J'J) + penalty) d = J'r + penalty x`.

Symbols: n networks, P parameters of one, E equations, J the Jacobian `[E, P]`, r the residuals `[E]`, x the parameters `[P]`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch

from models.mlp import with_ones
from training.jacobian import LayerJacobian, jacobian_of
from training.least_squares import Point
from training.preconditioning import InputFactors, KroneckerFactors, OwnSubspace

CG_ITERATIONS = 300
SUBSPACE_TOLERANCE = 0.01  # looser systems take few iterations without the network's own subspace
OUTPUT_DAMPING = 1e-14  # at least, of the output layer where it is eliminated, as a share of the diagonal

Product = Callable[[torch.Tensor], torch.Tensor]


class DenseSolver:
    """J'J of n networks, formed and factored."""

    def __init__(self, point: Point):
        curvature, gradient = point.problem.normal_equations(point.rows, point.residuals)
        curvature.diagonal(dim1=1, dim2=2).add_(point.summed_penalty)
        gradient.add_((point.summed_penalty * point.rows)[:, :, None])
        if not bool(point.free.all()):
            curvature.mul_(point.free[:, :, None]).mul_(point.free[:, None, :])
            gradient.mul_(point.free[:, :, None])
        diagonal = curvature.diagonal(dim1=1, dim2=2)
        self.curvature, self.gradient = curvature, gradient
        self.scale = torch.maximum(diagonal, torch.finfo(diagonal.dtype).eps * diagonal.amax(1, keepdim=True))

    def steps(self, which: torch.Tensor, damping: torch.Tensor) -> torch.Tensor:
        """The steps `[m, P]` of m of the networks, by their numbers and dampings `[m]`; NaN where a system is singular."""
        return self.solver(which, damping)(self.gradient[which][:, :, 0])

    def solver(self, which: torch.Tensor, damping: torch.Tensor) -> Product:
        """The solutions `[m, P]` of the systems of m networks as a function of the right-hand sides; NaN where a system is singular."""
        damped = self.curvature[which]
        damped.diagonal(dim1=1, dim2=2).add_(damping[:, None] * self.scale[which])
        factor, failed = torch.linalg.cholesky_ex(damped)

        def solve(right: torch.Tensor) -> torch.Tensor:
            return torch.where(failed[:, None] > 0, torch.nan, torch.cholesky_solve(right[:, :, None], factor)[:, :, 0])

        return solve


@dataclass(frozen=True)
class Goal:
    """How exactly a system is solved by conjugate gradients: until one of two conditions holds, r its residual.

    Attributes:
        tolerance: the share of its first value that `sqrt(r' M r)` has fallen to, with the preconditioner M.
        length: the length of `scale r`; not examined where it is 0.
        scale: `[P]`.
    """

    tolerance: float = 0.0
    length: float = 0.0
    scale: torch.Tensor | None = None

    def is_reached(self, residual: torch.Tensor, share: float) -> bool:
        """Whether it is reached, for a residual `[P]` and what `sqrt(r' M r)` is as a share of its first value."""
        if share <= max(self.tolerance, torch.finfo(residual.dtype).eps):
            return True
        return self.scale is not None and float((self.scale * residual).norm()) <= self.length


@dataclass(frozen=True)
class Step:
    """A step d of one network, and what the linear model of the residuals says of it.

    Attributes:
        vector: d, `[P]`.
        slope: the derivative of the sum of squares and penalties along -d.
        curvature: half of its second derivative along d.
    """

    vector: torch.Tensor
    slope: float
    curvature: float

    def decrease(self, share: float) -> float:
        """The decrease of the sum after this share of the step, if the model were right."""
        return share * self.slope - share**2 * self.curvature


class IterativeSolver:
    """The systems of one network, solved by preconditioned conjugate gradients with products of J and J' alone.

    The output layer of a fully connected network is eliminated (variable projection, Golub & Pereyra 1973): its step follows from that of
    the others by a small dense system, at the cost of two small products an iteration. For 200-10-5 relu, 2,000 queries, started 30% off
    and fitted to rounding, products alone took 711 iterations, with Kronecker factors 180, and with the output layer eliminated 95. The
    network's own subspace (`OwnSubspace`) took it to 60, and tanh and gelu from 440 to 510 (with 20 neurons) to 80. Searching the same way,
    784-20-10 relu with 8,000 queries took 84 iterations, 0.07 s each, and 784-64-10 tanh with 12,000 queries 120.

    Args:
        point: one network.
        inputs: keeps the factor of the inputs from step to step.
    """

    def __init__(self, point: Point, inputs: InputFactors):
        self.row, self.penalty, free = point.rows[0], point.summed_penalty[0] * point.free[0], point.free[0]
        self.jacobian = jacobian_of(point.problem, self.row, free)
        self.gradient = self.jacobian.transposed(point.residuals[0]) + self.penalty * self.row
        self.inputs = inputs
        self.iterations = 0

    def step(self, damping: float, tolerance: float) -> Step:
        """The step for a damping, solved until the residual has fallen to this share."""
        vector = self.solve(self.gradient, damping, Goal(tolerance))
        image = self.jacobian.forward(vector)
        return Step(vector, 2 * float(self.gradient @ vector), float(image @ image + vector @ (self.penalty * vector)))

    def solve(self, right: torch.Tensor, damping: float, goal: Goal) -> torch.Tensor:
        """The solution `[P]` of the system with another right-hand side, `[P]`."""
        if isinstance(self.jacobian, LayerJacobian):
            return self._solve_layers(self.jacobian, right, damping, goal)
        shift = damping * self._probe + self.penalty
        return self._solved(lambda v: self.jacobian.transposed(self.jacobian.forward(v)) + shift * v, right, goal)

    def _solved(self, product: Product, right: torch.Tensor, goal: Goal, precondition: Product | None = None) -> torch.Tensor:
        solution = conjugate_gradients(product, right, CG_ITERATIONS, precondition, goal)
        self.iterations += solution.iterations
        return solution.vector

    @functools.cached_property
    def _probe(self) -> torch.Tensor:
        """J'J along the gradient: the scale of the damping where the diagonal of J'J is not at hand."""
        return self.jacobian.forward(self.gradient / self.gradient.norm()).square().sum()

    def _solve_layers(self, jacobian: LayerJacobian, right: torch.Tensor, damping: float, goal: Goal) -> torch.Tensor:
        """The solution for a fully connected network, with the output layer eliminated unless it is frozen."""
        shift = damping * self._scale(jacobian) + self.penalty
        if not {"fc.weight", "fc.bias"} <= set(jacobian.problem.names):
            precondition = functools.partial(self._kronecker.apply, damping=damping)
            return self._solved(lambda v: jacobian.transposed(jacobian.forward(v)) + shift * v, right, goal, precondition)
        last = OutputLayer(jacobian, shift)

        def product(vector: torch.Tensor) -> torch.Tensor:
            return jacobian.transposed(last.compensated(jacobian.forward(vector))) * last.others + shift * vector

        pays = goal.tolerance <= SUBSPACE_TOLERANCE and OwnSubspace.pays(jacobian) and not bool(self.penalty.any())
        own = OwnSubspace(jacobian, damping) if pays else None

        def precondition(vector: torch.Tensor) -> torch.Tensor:
            result = self._kronecker.apply(vector, damping) * last.others
            return result + own.apply(vector) if own is not None and own.is_valid else result

        reduced = (right - jacobian.transposed(last.forward(last.solve(right)))) * last.others
        vector = self._solved(product, reduced, goal, precondition)
        return vector + last.solve(right - last.transposed(jacobian.forward(vector)))

    def _scale(self, jacobian: LayerJacobian) -> torch.Tensor:
        """The diagonal of J'J as it scales the damping, `[P]`."""
        diagonal = jacobian.squares + self.penalty
        return torch.maximum(diagonal, torch.finfo(diagonal.dtype).eps * diagonal.max())

    @functools.cached_property
    def _kronecker(self) -> KroneckerFactors:
        assert isinstance(self.jacobian, LayerJacobian)
        eliminated = {"fc.weight", "fc.bias"} <= set(self.jacobian.problem.names)
        return KroneckerFactors(self.jacobian, self.inputs, len(self.jacobian.layers) - eliminated)


class OutputLayer:
    """The part of J that belongs to the output layer, and the inverse of its J'J.

    Vectors are those of all parameters, `[P]`. `others` is 1 for the parameters of the other layers and 0 for these.

    Args:
        jacobian: of the network.
        shift: what is added to the diagonal of J'J, `[P]`.
    """

    def __init__(self, jacobian: LayerJacobian, shift: torch.Tensor):
        self.jacobian = jacobian
        *hidden, last = jacobian.layers
        self.others = jacobian.join([*map(torch.ones_like, hidden), torch.zeros_like(last)])
        self.free = jacobian.split(jacobian.free)[-1]
        square = last.new_zeros(last.shape[1], last.shape[1])
        for one in jacobian.passes():
            inputs = with_ones(one.inputs[-1])
            square += inputs.T @ inputs
        self.factor = self._factored(square, jacobian.split(shift)[-1])

    def _factored(self, square: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """The Cholesky factors of the systems of all outputs, `[O, K + 1, K + 1]`; a single one where they are equal."""
        free, shift = self.free, shift * self.free
        if bool((free == free[:1]).all() & (shift == shift[:1]).all()):
            free, shift = free[:1], shift[:1]
        systems = square * free[:, :, None] * free[:, None, :] + torch.diag_embed(shift + (1 - free))
        diagonal, damping = systems.diagonal(dim1=1, dim2=2), OUTPUT_DAMPING
        floor = torch.finfo(square.dtype).tiny + torch.finfo(square.dtype).eps * diagonal.amax(1, keepdim=True)
        while True:
            factor, failed = torch.linalg.cholesky_ex(systems + torch.diag_embed(damping * diagonal + floor))
            if not bool(failed.any()) or damping > 1:
                return factor
            damping *= 10

    def transposed(self, errors: torch.Tensor) -> torch.Tensor:
        """J'e for this layer alone, zero elsewhere."""
        pairs = zip(self.jacobian.passes(), self.jacobian.by_part(errors), strict=True)
        total = sum((back.T @ with_ones(one.inputs[-1]) for one, back in pairs), torch.zeros_like(self.free))
        return self._joined(total * self.free)

    def forward(self, vector: torch.Tensor) -> torch.Tensor:
        """J v for the part of v that belongs to this layer."""
        last = self.jacobian.split(vector)[-1]
        return torch.cat([with_ones(one.inputs[-1]) @ last.T for one in self.jacobian.passes()]).flatten()

    def solve(self, vector: torch.Tensor) -> torch.Tensor:
        """The inverse of this layer's J'J, shift included, times the part of a vector that belongs to it; zero elsewhere."""
        right = (self.jacobian.split(vector)[-1] * self.free)[:, :, None]
        if len(self.factor) == 1:
            return self._joined(torch.cholesky_solve(right[:, :, 0].T, self.factor[0]).T)
        return self._joined(torch.cholesky_solve(right, self.factor)[:, :, 0])

    def compensated(self, errors: torch.Tensor) -> torch.Tensor:
        """What is left of a change of the outputs `[E]` after the best change of this layer."""
        return errors - self.forward(self.solve(self.transposed(errors)))

    def _joined(self, matrix: torch.Tensor) -> torch.Tensor:
        return self.jacobian.join([*map(torch.zeros_like, self.jacobian.layers[:-1]), matrix])


EXACTLY = Goal()


@dataclass(frozen=True)
class Solution:
    """What conjugate gradients found: the vector `[P]` and the number of products that it took."""

    vector: torch.Tensor
    iterations: int


def conjugate_gradients(
    product: Product, right: torch.Tensor, iterations: int, precondition: Product | None = None, goal: Goal = EXACTLY
) -> Solution:
    """Solves `A x = right` for a symmetric positive definite A, using only products with A (Hestenes & Stiefel 1952).

    Args:
        product: maps x `[P]` to A x.
        right: the right-hand side `[P]`.
        iterations: the most products; the solver stops earlier if the residual is at rounding level.
        precondition: maps x to M x, M a symmetric positive definite approximation of the inverse of A; the identity by default.
        goal: the solver stops once it is reached.
    """
    precondition = precondition or (lambda vector: vector)
    solution, residual = torch.zeros_like(right), right.clone()
    direction = preconditioned = precondition(residual)
    energy = first = residual @ preconditioned
    count = 0
    while count < iterations and energy > 0 and not goal.is_reached(residual, float((energy / first).sqrt())):
        image = product(direction)
        rate = energy / (direction @ image)
        solution = solution + rate * direction
        residual = residual - rate * image
        preconditioned = precondition(residual)
        energy, before = residual @ preconditioned, energy
        direction = preconditioned + (energy / before) * direction
        count += 1
    return Solution(solution, count)

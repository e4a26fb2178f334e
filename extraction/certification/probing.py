"""Whether the answers determine all weights of a network that is too large for a dense factorisation, with a stated confidence.

The Jacobian J has full rank where the smallest eigenvalue of `C = J'J`, every column of J at unit length, is well above zero. A random unit
vector x has a component along the eigenvector v of that eigenvalue that is rarely small: it is below `SHARE / sqrt(P)` with a probability
of `0.8 SHARE` (Dixon 1983). If z solves `C z = x` up to a residual e, then `|v'x| - |e| <= eigenvalue * |z|`. So the eigenvalue is at least
`(SHARE / sqrt(P) - |e|) / |z|` for the largest of PROBES solutions, unless all components are small. Preconditioned conjugate gradients
give z (`training/linear_solvers.py`), and one more product with C gives e, whatever the solver did.

Axes: Q queries, P parameters of the network, O outputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from datasets.base import DataLoader
from extraction.certification.determination import EQUATIONS_PER_UNKNOWN, TOUCH, shift_biases, some_queries, weight_error_bound
from extraction.certification.gauges import as_parameters
from extraction.network import unknowns_of
from extraction.symmetry import Symmetry
from foundations.seeds import derive
from models.mlp import FullyConnected
from training.jacobian import LayerJacobian
from training.least_squares import LeastSquares, Point
from training.linear_solvers import IterativeSolver
from training.preconditioning import InputFactors

PROBES, SHARE = 4, 0.1
CONFIDENCE = 1 - (0.8 * SHARE) ** PROBES
TOLERANCE = 1e-5  # of the solutions, in the norm of the preconditioner
REFINEMENTS, EXACT_ENOUGH = 5, 0.1  # of a solution; the error that ends them, as a share of the component
POWER_STEPS = 12  # of power iteration for the largest eigenvalue


def large_determination(network: FullyConnected, symmetry: Symmetry, loader: DataLoader, asked: int = 0) -> tuple[int | None, float | None]:
    """How well the answers determine the weights, to first order: as `determination.determination`, for networks of any size.

    Returns:
        The number of unknowns if the answers determine all of them, None where this could not be shown; and the largest deviation of a
        weight that the residual allows, as a share of the largest weight of its layer. Of a neuron that can be scaled, the largest incoming
        weight counts as known.
    """
    count = unknowns_of(network)
    chosen = some_queries(loader, -(-EQUATIONS_PER_UNKNOWN * count // loader.labels.shape[1]), asked)
    queries, answers = loader.examples[chosen], loader.labels[chosen]
    touched = [shift_biases(network, queries, share) for share in (-TOUCH, TOUCH)] if symmetry.positive_scaling else [network]
    found = min((smallest_curvature(each, symmetry, queries, loader.seed) for each in touched), key=lambda each: each.value)
    if not found.has_full_rank:
        return None, None
    free = found.lengths > 0
    return int(free.sum()), weight_error_bound(network, (queries, answers), torch.where(free, found.lengths, math.inf), found.value)


@dataclass(frozen=True)
class SmallestCurvature:
    """Bounds of the eigenvalues of J'J with columns of J at unit length.

    Attributes:
        value: no eigenvalue is smaller, with a probability of CONFIDENCE; 0 where this could not be shown.
        floor: an eigenvalue below this could be rounding.
        lengths: of the columns of J, `[P]`; 0 where a weight is fixed.
    """

    value: float
    floor: float
    lengths: torch.Tensor

    @property
    def has_full_rank(self) -> bool:
        """Whether no combination of weights is open."""
        return self.value > self.floor


@torch.no_grad()
def smallest_curvature(network: FullyConnected, symmetry: Symmetry, examples: torch.Tensor, seed: int) -> SmallestCurvature:
    """A lower bound of the smallest eigenvalue of a network's curvature.

    Where neurons can be scaled, the largest incoming weight of each is fixed, so that scalings do not count as open.

    Args:
        network: in float64.
        symmetry: of its activation function.
        examples: the queries, `[Q, inputs]`.
        seed: of the random vectors.
    """
    problem = LeastSquares(network, examples, examples.new_zeros(len(examples), network.sizes[-1]))
    row, free = problem.gather(list(network.parameters())), without_largest(network, symmetry)
    solver = IterativeSolver(Point(problem, row, problem.residuals(row), torch.zeros_like(row), free[None]), InputFactors())
    unit = _UnitCurvature(solver, free)
    generator, count = torch.Generator().manual_seed(derive(seed, "rank")), float(free.sum())
    probes = [(torch.randn(len(free), generator=generator, dtype=row.dtype).to(row) * free) for _ in range(PROBES)]
    floor = count * torch.finfo(row.dtype).eps * unit.largest(probes[0])
    component, least = SHARE / math.sqrt(count), math.inf if unit.is_visible else 0.0
    for probe in probes if unit.is_visible else []:
        length, error = unit.solved(probe / probe.norm(), EXACT_ENOUGH * component)
        least = min(least, (component - error) / length if error < component else 0.0)  # NaN where the solver broke down
    return SmallestCurvature(least, floor, unit.lengths)


def without_largest(network: FullyConnected, symmetry: Symmetry) -> torch.Tensor:
    """0 for the largest incoming weight of each neuron that can be scaled, 1 for all other weights and biases, `[P]`."""
    free = [torch.ones_like(vectors) for vectors in network.layer_vectors()]
    for vectors, ones in zip(network.layer_vectors()[:-1], free if symmetry.positive_scaling else [], strict=False):
        ones.scatter_(1, vectors[:, :-1].abs().argmax(1, keepdim=True), 0.0)
    return as_parameters(free)


class _UnitCurvature:
    """J'J of one network with columns of J at unit length, as products; without the columns where `free` `[P]` is 0."""

    def __init__(self, solver: IterativeSolver, free: torch.Tensor):
        assert isinstance(solver.jacobian, LayerJacobian)
        self.solver, self.lengths = solver, solver.jacobian.squares.sqrt()
        self.inverse = torch.where(self.lengths > 0, 1 / self.lengths, 0.0)
        self.is_visible = not bool(((self.lengths == 0) & (free > 0)).any())

    def product(self, vector: torch.Tensor) -> torch.Tensor:
        """The curvature times a vector `[P]`."""
        jacobian = self.solver.jacobian
        return self.inverse * jacobian.transposed(jacobian.forward(self.inverse * vector))

    def solved(self, right: torch.Tensor, enough: float) -> tuple[float, float]:
        """The length of a solution for a right-hand side `[P]`, and that of the error that it leaves, refined until it is enough."""
        solution, left = torch.zeros_like(right), right
        for _ in range(REFINEMENTS):
            solution = solution + self.lengths * self.solver.solve(self.lengths * left, 0.0, TOLERANCE)
            left = right - self.product(solution)
            if float(left.norm()) <= enough:
                break
        return float(solution.norm()), float(left.norm())

    def largest(self, vector: torch.Tensor) -> float:
        """The largest eigenvalue, as power iteration from a vector `[P]` gives it."""
        for _ in range(POWER_STEPS):
            vector = self.product(vector / vector.norm())
        return float(vector.norm())

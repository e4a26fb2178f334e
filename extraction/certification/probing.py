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
from extraction.certification.gauges import scaling_directions
from extraction.network import Layers, unknowns_of
from extraction.symmetry import Symmetry
from foundations.seeds import derive
from models.mlp import FullyConnected
from training.jacobian import LayerJacobian
from training.least_squares import LeastSquares, Point
from training.linear_solvers import Goal, IterativeSolver
from training.preconditioning import InputFactors

PROBES, SHARE = 4, 0.1
CONFIDENCE = 1 - (0.8 * SHARE) ** PROBES
TOLERANCE = 1e-9  # of the solutions at most, in the norm of the preconditioner
REFINEMENTS, EXACT_ENOUGH = 5, 0.1  # of a solution; the error that ends them, as a share of the component
AIM = 0.5  # of that error, as the solver sees it
POWER_STEPS = 12  # of power iteration for the largest eigenvalue


def large_determination(network: FullyConnected, symmetry: Symmetry, loader: DataLoader, asked: int = 0) -> tuple[int | None, float | None]:
    """How well the answers determine the weights, to first order: as `determination.determination`, for networks of any size.

    Returns:
        The number of unknowns, less the scales of neurons that can be scaled, if the answers determine all of them, None where this could
        not be shown; and the largest deviation of a weight that the residual allows, as a share of the largest weight of its layer.
    """
    count = unknowns_of(network)
    chosen = some_queries(loader, -(-EQUATIONS_PER_UNKNOWN * count // loader.labels.shape[1]), asked)
    queries, answers = loader.examples[chosen], loader.labels[chosen]
    if symmetry.positive_scaling:
        clear = away_from_kinks(network, queries)
        queries, answers = queries[clear], answers[clear]
    found = smallest_curvature(network, symmetry, queries, loader.seed)
    if not found.has_full_rank:
        return None, None
    return count - found.scales, weight_error_bound(network, (queries, answers), found.lengths, found.value)


def away_from_kinks(network: FullyConnected, queries: torch.Tensor) -> torch.Tensor:
    """Which queries are so far from the kink of every neuron that slightly lower or higher biases change no slope, `[Q]`.

    A query that touches a kink determines nothing, see `determination.determination`.
    """
    low, high = (Layers.of(shift_biases(network, queries, share)) for share in (-TOUCH, TOUCH))
    clear = torch.ones(len(queries), dtype=torch.bool, device=queries.device)
    for depth in range(1, len(low)):
        sums = (layers.replace(*layers.vectors[:depth]).pre_activations(queries) for layers in (low, high))
        below, above = (each > 0 for each in sums)
        clear &= (below == above).all(1)
    return clear


@dataclass(frozen=True)
class SmallestCurvature:
    """Bounds of the eigenvalues of J'J with columns of J at unit length.

    Attributes:
        value: no eigenvalue is smaller, with a probability of CONFIDENCE; 0 where this could not be shown. Those of scalings do not count.
        floor: an eigenvalue below this could be rounding.
        lengths: of the columns of J, `[P]`.
        scales: the number of neurons that can be scaled.
    """

    value: float
    floor: float
    lengths: torch.Tensor
    scales: int

    @property
    def has_full_rank(self) -> bool:
        """Whether no combination of weights is open."""
        return self.value > self.floor


@torch.no_grad()
def smallest_curvature(network: FullyConnected, symmetry: Symmetry, examples: torch.Tensor, seed: int) -> SmallestCurvature:
    """A lower bound of the smallest eigenvalue of a network's curvature.

    Where neurons can be scaled, J'J has an eigenvalue of zero for each, which does not count: random vectors and solutions are orthogonal
    to scalings. With the largest weight of each neuron fixed instead, 784-20-10 relu took six times as many iterations.

    Args:
        network: in float64.
        symmetry: of its activation function.
        examples: the queries, `[Q, inputs]`.
        seed: of the random vectors.
    """
    problem = LeastSquares(network, examples, examples.new_zeros(len(examples), network.sizes[-1]))
    row = problem.gather(list(network.parameters()))
    point = Point(problem, row, problem.residuals(row), torch.zeros_like(row), torch.ones_like(row))
    unit = _UnitCurvature(IterativeSolver(point, InputFactors()), scaling_directions(network, symmetry)[1])
    generator, count = torch.Generator().manual_seed(derive(seed, "rank")), row.numel()
    probes = [unit.without_scales(torch.randn(count, generator=generator, dtype=row.dtype).to(row)) for _ in range(PROBES)]
    floor = count * torch.finfo(row.dtype).eps * unit.largest(probes[0])
    component, least = SHARE / math.sqrt(count), math.inf if unit.is_visible else 0.0
    for probe in probes if unit.is_visible else []:
        length, error = unit.solved(probe / probe.norm(), EXACT_ENOUGH * component)
        least = min(least, (component - error) / length if error < component else 0.0)  # NaN where the solver broke down
        if not least > floor:
            break
    return SmallestCurvature(least, floor, unit.lengths, len(unit.scales))


class _UnitCurvature:
    """J'J of one network with columns of J at unit length, as products.

    Args:
        solver: of the network.
        scalings: how weights change when a neuron is scaled, `[neurons, P]`.
    """

    def __init__(self, solver: IterativeSolver, scalings: torch.Tensor):
        assert isinstance(solver.jacobian, LayerJacobian)
        self.solver, self.lengths = solver, solver.jacobian.squares.sqrt()
        self.inverse = torch.where(self.lengths > 0, 1 / self.lengths, 0.0)
        self.scales = torch.linalg.qr((scalings * self.lengths).T)[0].T
        self.is_visible = bool((self.lengths > 0).all())

    def without_scales(self, vector: torch.Tensor) -> torch.Tensor:
        """The part of a vector `[P]` that is orthogonal to scalings."""
        return vector - self.scales.T @ (self.scales @ vector)

    def product(self, vector: torch.Tensor) -> torch.Tensor:
        """The curvature times a vector `[P]`."""
        jacobian = self.solver.jacobian
        return self.inverse * jacobian.transposed(jacobian.forward(self.inverse * vector))

    def solved(self, right: torch.Tensor, enough: float) -> tuple[float, float]:
        """The length of a solution for a right-hand side `[P]`, and that of the error that it leaves, refined until it is enough."""
        solution, left, goal = torch.zeros_like(right), right, Goal(TOLERANCE, AIM * enough, self.inverse)
        for _ in range(REFINEMENTS):
            before = float(left.norm())
            solution = self.without_scales(solution + self.lengths * self.solver.solve(self.lengths * left, 0.0, goal))
            left = right - self.product(solution)
            if float(left.norm()) <= enough or not float(left.norm()) <= before / 2:
                break
        return float(solution.norm()), float(left.norm())

    def largest(self, vector: torch.Tensor) -> float:
        """The largest eigenvalue, as power iteration from a vector `[P]` gives it."""
        for _ in range(POWER_STEPS):
            vector = self.product(vector / vector.norm())
        return float(vector.norm())

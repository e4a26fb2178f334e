"""Whether answers determine all weights of a network that is too large for a dense factorisation, from queries of a certain design.

Let the first layer W `[H, d]` have full row rank, with `W n_k = 0` for orthonormal n_k, `d - H` of them. There are two kinds of queries:

- *inner* ones, `x_i = W^+ (u_i - b)`: answers there depend on the first layer only by what it does to u, so that these unknowns are those
  of a network of H inputs, a few tens of thousands where d is some hundreds;
- *outer* ones, `x_i + t n_k` for the first of the inner ones: the sums u are the same, and so the answers differ from those at x_i by
  `t A_i dW n_k`, with the derivatives A_i of the outputs by u, for a change dW of the first layer.

So the Jacobian is block triangular: all weights are determined if the Jacobian J of the inner network has full rank, and the stacked A_i
`[m o, H]`, one small matrix for all k. The smallest singular value of J follows from random vectors v. If `J'J y = v`, then |y| is at least
`|v_1| / s^2`, with the component v_1 along the singular vector of the smallest singular value s. A component of a random unit vector of P
elements is below `c / sqrt(P)` with a probability of at most `c sqrt(2 / pi)`. So s is bounded from below with a stated probability (as in
Dixon 1983). The equations are solved by preconditioned conjugate gradients; columns of J have unit length.

Axes: d inputs, H neurons of the first layer, P unknowns of the inner network, n inner queries, o outputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from extraction.derivatives.gauss_newton import Linearised, dot, preconditioner
from extraction.network import Layers
from foundations.seeds import derive

EQUATIONS, BASES = 2.0, 1.3  # inner queries for each unknown of the inner network, and outer ones for each neuron of the first layer
BREADTH = 1.5  # the standard deviation of u
PROBES, FAILURE = 2, 1e-3  # random vectors, and the probability that the bound does not hold
TOLERANCE = 0.2  # of a solution, as a share of the component that the bound rests on
ITERATIONS, CHECKED_EVERY = 600, 5
POWER_STEPS, POWER_MARGIN = 12, 1.2  # of the estimate of the largest singular value
EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Design:
    """The queries, inner ones first.

    Attributes:
        sums: u, `[n, H]`.
        inner: `[n, d]`.
        bases: how many of them, the first, have outer queries.
        normals: n_k, `[d - H, d]`.
        step: t.
    """

    sums: torch.Tensor
    inner: torch.Tensor
    bases: int
    normals: torch.Tensor
    step: float

    @classmethod
    def of(cls, layers: Layers, radius: float) -> Design | None:
        """The design for a network; None where its first layer has more neurons than inputs, or neurons can be scaled.

        Args:
            layers: of the network.
            radius: see `Scale`.
        """
        first = layers.vectors[0]
        weights, bias = first[:, :-1], first[:, -1]
        if len(weights) > weights.shape[1] or layers.symmetry.positive_scaling:
            return None
        outputs, width = layers.sizes[-1], len(weights)
        unknowns = inner_network(layers).unknowns
        generator = torch.Generator().manual_seed(derive(0, "inner queries"))
        sums = BREADTH * torch.randn(int(EQUATIONS * unknowns / outputs) + width, width, generator=generator, dtype=torch.float64)
        sums = sums.to(weights)
        normals = torch.linalg.svd(weights, full_matrices=True)[2][width:]
        inner = (sums - bias) @ torch.linalg.pinv(weights).T
        bases = -(-int(BASES * width + 1) // outputs)
        return cls(sums, inner, bases, normals, radius * math.sqrt(weights.shape[1]))

    @property
    def queries(self) -> torch.Tensor:
        """All queries, `[n + (d - H) bases, d]`."""
        outer = self.inner[: self.bases] + self.step * self.normals[:, None]
        return torch.cat([self.inner, outer.flatten(0, 1)])


@dataclass(frozen=True)
class Determination:
    """How well the answers determine the weights.

    Attributes:
        is_full: whether they determine all.
        smallest: what the smallest singular value of the Jacobian of the inner network is at least, with probability `1 - FAILURE`.
        bound: the largest deviation of a weight that the errors allow, as a share of the largest weight of its layer.
    """

    is_full: bool
    smallest: float
    bound: float


def inner_network(layers: Layers) -> Layers:
    """The network as a function of the sums u of its first layer."""
    first, *upper = layers.vectors
    return layers.replace(torch.eye(len(first), len(first) + 1).to(first), *upper)


def determination(layers: Layers, design: Design, answers: torch.Tensor) -> Determination | None:
    """Examines a network; None where an equation could not be solved.

    Args:
        layers: of the network.
        design: its queries.
        answers: to all of them, `[n + (d - H) bases, o]`.
    """
    count, spread = len(design.sums), answers.std(0)
    inner = inner_network(layers)
    problem = Linearised(inner, design.sums, answers[:count], spread)
    lengths = problem.column_lengths()
    if not all(float(each.min()) > EPS * float(each.max()) for each in lengths):
        return Determination(False, 0.0, math.inf)
    smallest, largest = _smallest(problem, lengths), _largest(problem, lengths)
    if smallest is None:
        return None
    jacobians = problem.derivatives_by_inputs(design.bases).flatten(0, 1)  # [bases o, H]
    sizes = torch.linalg.svdvals(jacobians)
    last = [] if problem.basis is None else [torch.linalg.svdvals(torch.nn.functional.normalize(problem.inputs[-1], dim=0))]
    unknowns = inner.unknowns
    is_full = smallest**2 > unknowns * EPS * largest**2 and len(jacobians) >= len(layers.vectors[0])
    is_full = is_full and all(float(each[-1]) > len(each) * EPS * float(each[0]) for each in [sizes, *last])
    errors = (layers.pre_activations(design.queries) - answers) / spread
    rounded = EPS * (answers / spread).abs()
    errors = (errors.abs() + rounded).square().sum(1)
    ours = float(errors[:count].sum().sqrt())
    deviation = ours / smallest
    first = layers.vectors[0][:, :-1]
    own = deviation / float(lengths[0].min()) * float(first.norm(dim=0).max())
    outer = errors[count:].unflatten(0, (-1, design.bases)).sum(1).sqrt() if len(design.normals) else errors[:1] * 0
    own += (float(outer.max()) + ours) / (design.step * float(sizes[-1]))
    shares = [own / float(first.abs().max())]
    for depth, vectors in enumerate(layers.vectors[1:], 1):
        is_eliminated = problem.basis is not None and depth == len(layers) - 1
        moved = (ours + largest * deviation) / float(last[0][-1]) if is_eliminated else deviation
        shares.append(moved / float(lengths[depth].min()) / float(vectors.abs().max()))
    return Determination(is_full, smallest, max(shares))


def _largest(problem: Linearised, lengths: list[torch.Tensor]) -> float:
    """About the largest singular value of the Jacobian with columns divided by their lengths."""
    generator = torch.Generator().manual_seed(derive(0, "largest singular value"))
    vector, size = _random(problem, lengths, generator), 0.0
    for _ in range(POWER_STEPS):
        vector = _product(problem, lengths, vector)
        size = _norm(vector)
        vector = [each / size for each in vector]
    return POWER_MARGIN * math.sqrt(size)


def _smallest(problem: Linearised, lengths: list[torch.Tensor]) -> float | None:
    """What the smallest singular value is at least, with probability `1 - FAILURE`; None where an equation could not be solved."""
    generator, unknowns = torch.Generator().manual_seed(derive(0, "smallest singular value")), sum(each.numel() for each in lengths)
    component = FAILURE ** (1 / PROBES) * math.sqrt(math.pi / 2) / math.sqrt(unknowns)
    precondition, longest = preconditioner(problem), 0.0
    for _ in range(PROBES):
        solved = _solved(problem, lengths, precondition, _random(problem, lengths, generator), TOLERANCE * component)
        if solved is None:
            return None
        longest = max(longest, solved)
    return math.sqrt((1 - TOLERANCE) * component / longest)


def _solved(problem: Linearised, lengths, precondition, right, tolerance: float) -> float | None:
    """The length of the solution y of `J'J y = right` with columns of unit length; None where it is not found to the tolerance."""
    left = [each * length for each, length in zip(right, lengths, strict=True)]  # in units of the weights themselves
    solution = [torch.zeros_like(each) for each in left]
    step = direction = precondition(left)
    size = dot(left, step)
    for count in range(ITERATIONS):
        image = problem.pull(problem.push(direction))
        rate = size / dot(direction, image)
        solution = [old + rate * each for old, each in zip(solution, direction, strict=True)]
        left = [old - rate * each for old, each in zip(left, image, strict=True)]
        if count % CHECKED_EVERY == 0 and _norm([each / length for each, length in zip(left, lengths, strict=True)]) <= tolerance:
            return _norm([each * length for each, length in zip(solution, lengths, strict=True)])
        step = precondition(left)
        size, before = dot(left, step), size
        if not size > 0:
            return None
        direction = [each + size / before * old for each, old in zip(step, direction, strict=True)]
    return None


def _product(problem: Linearised, lengths: list[torch.Tensor], vector: list[torch.Tensor]) -> list[torch.Tensor]:
    """J'J times a vector, with columns of unit length."""
    image = problem.pull(problem.push([each / length for each, length in zip(vector, lengths, strict=True)]))
    return [each / length for each, length in zip(image, lengths, strict=True)]


def _random(problem: Linearised, lengths: list[torch.Tensor], generator: torch.Generator) -> list[torch.Tensor]:
    """A random unit vector, which is zero for an output layer that is eliminated."""
    vector = [torch.randn(each.shape, generator=generator, dtype=torch.float64).to(each) for each in lengths]
    if problem.basis is not None:
        vector[-1].zero_()
    size = _norm(vector)
    return [each / size for each in vector]


def _norm(vector: list[torch.Tensor]) -> float:
    return math.sqrt(dot(vector, vector))

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

Neurons with a kink can be scaled, so that only what is orthogonal to these directions counts (`scalings.py`); there are queries on both
sides of each, and none within rounding of a kink, where one query would seem to tell what a small change of the weights hides.

Axes: d inputs, H neurons of the first layer, P unknowns of the inner network, n inner queries, o outputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from extraction.certification.determination import TOUCH
from extraction.certification.scalings import Scalings
from extraction.derivatives.gauss_newton import Linearised, dot, preconditioner
from extraction.derivatives.peeling import on_both_sides
from extraction.derivatives.questions import Questions
from extraction.network import Layers
from foundations.seeds import derive

EQUATIONS, BASES = 2.0, 1.3  # inner queries for each unknown of the inner network, and outer ones for each neuron of the first layer
KINKED_EQUATIONS = 3.0  # the same for neurons with a kink
WELL, MORE, MOST = 1e-4, 1.3, 16  # the quotient of singular values of outer queries from which they suffice; growth, and times, at most
BREADTH = 1.5  # the standard deviation of u
DEPENDENT = 1e-7  # a smaller quotient of the singular values of the first layer, with rows of unit length: sums cannot be moved alone
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
        """The design for a network; None where the rows of its first layer are dependent, as those of more neurons than inputs are.

        Args:
            layers: of the network.
            radius: see `Scale`.
        """
        step = radius * math.sqrt(layers.sizes[0])
        first = in_units(layers, step).vectors[0]
        weights, bias = first[:, :-1], first[:, -1]
        width = len(weights)
        if width > layers.sizes[0]:
            return None
        sizes = torch.linalg.svdvals(torch.nn.functional.normalize(weights, dim=1))
        if not float(sizes[-1]) > DEPENDENT * float(sizes[0]):
            return None
        sums = _inner_sums(in_units(layers, step)).to(weights)
        normals = torch.linalg.svd(weights, full_matrices=True)[2][width:]
        inner = (sums - bias) @ torch.linalg.pinv(weights).T
        return cls(sums, inner, _bases(in_units(layers, step), sums), normals, step)

    @property
    def queries(self) -> torch.Tensor:
        """All queries, `[n + (d - H) bases, d]`."""
        outer = self.inner[: self.bases] + self.step * self.normals[:, None]
        return torch.cat([self.inner, outer.flatten(0, 1)])


def in_units(layers: Layers, step: float) -> Layers:
    """The network with neurons of comparable scale where they can be scaled: a step moves weighted sums by order 1."""
    if not layers.symmetry.positive_scaling:
        return layers
    vectors = list(layers.vectors)
    for depth in range(len(vectors) - 1):
        target = math.sqrt(layers.sizes[0]) / step if depth == 0 else 1.0
        lengths = (vectors[depth][:, :-1].norm(dim=1) / target).clamp_min(torch.finfo(torch.float64).tiny)
        vectors[depth] = vectors[depth] / lengths[:, None]
        vectors[depth + 1] = torch.cat([vectors[depth + 1][:, :-1] * lengths, vectors[depth + 1][:, -1:]], 1)
    return layers.replace(*vectors)


def _inner_sums(layers: Layers) -> torch.Tensor:
    """The sums u of the inner queries, `[n, H]`."""
    inner, outputs, width = inner_network(layers), layers.sizes[-1], layers.sizes[1]
    generator = torch.Generator().manual_seed(derive(0, "inner queries"))
    if not layers.symmetry.positive_scaling:
        count = int(EQUATIONS * inner.unknowns / outputs) + width
        return BREADTH * torch.randn(count, width, generator=generator, dtype=torch.float64)
    hidden = layers.replace(*(vectors.cpu() for vectors in inner.vectors[:-1]))
    random = Questions(lambda points: points, width, seed=derive(0, "inner queries"))
    points = on_both_sides(random, hidden, int(KINKED_EQUATIONS * inner.unknowns / outputs) + 2 * width)
    is_clear = torch.ones(len(points), dtype=torch.bool)
    for depth in range(1, len(hidden) + 1):
        sums = hidden.replace(*hidden.vectors[:depth]).pre_activations(points)
        is_clear &= (sums.abs() > TOUCH * sums.std(0)).all(1)
    return points[is_clear]


def _bases(layers: Layers, sums: torch.Tensor) -> int:
    """How many of the inner queries have outer ones: so many that these determine the first layer well, if so many suffice."""
    inner, width, outputs = inner_network(layers), layers.sizes[1], layers.sizes[-1]
    values, least = inner.pre_activations(sums), -(-int(BASES * width + 1) // outputs)
    problem = Linearised(inner, sums, values, values.std(0).clamp_min(torch.finfo(values.dtype).tiny))
    jacobians = problem.derivatives_by_inputs(min(MOST * least, len(sums)))  # [most, o, H]
    count = min(least, len(jacobians))
    while count < len(jacobians):
        sizes = torch.linalg.svdvals(jacobians[:count].flatten(0, 1).nan_to_num())
        if len(sizes) == width and float(sizes[-1]) > WELL * float(sizes[0]):
            break
        count = min(int(MORE * count) + 1, len(jacobians))
    return count


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
    layers, count, spread = in_units(layers, design.step), len(design.sums), answers.std(0)
    inner = inner_network(layers)
    problem = Linearised(inner, design.sums, answers[:count], spread)
    lengths = problem.column_lengths()
    if not all(float(each.min()) > EPS * float(each.max()) for each in lengths):
        return Determination(False, 0.0, math.inf)
    open_, largest = scalings(problem, lengths), _largest(problem, lengths)
    smallest = _smallest(problem, lengths, open_)
    if smallest is None:
        return None
    jacobians = problem.derivatives_by_inputs(design.bases).flatten(0, 1)  # [bases o, H]
    sizes = torch.linalg.svdvals(jacobians)
    last = [] if problem.basis is None else [torch.linalg.svdvals(torch.nn.functional.normalize(problem.inputs[-1], dim=0))]
    unknowns = inner.unknowns
    is_full = smallest**2 > unknowns * EPS * largest**2 and len(jacobians) >= len(layers.vectors[0])
    is_full = is_full and all(float(each[-1]) > len(each) * EPS * float(each[0]) for each in [sizes, *last])
    if not is_full:
        return Determination(False, smallest, math.inf)
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


def scalings(problem: Linearised, lengths: list[torch.Tensor]) -> Scalings | None:
    """The directions that scale neurons; None where that changes the function."""
    layers = problem.layers
    if not layers.symmetry.positive_scaling:
        return None
    return Scalings(layers.vectors, lengths, len(layers) - (problem.basis is not None))


def _smallest(problem: Linearised, lengths: list[torch.Tensor], open_: Scalings | None) -> float | None:
    """What the smallest singular value is at least, with probability `1 - FAILURE`; None where an equation could not be solved.

    Those of the directions that scale neurons do not count.
    """
    generator, unknowns = torch.Generator().manual_seed(derive(0, "smallest singular value")), sum(each.numel() for each in lengths)
    unknowns -= len(open_) if open_ is not None else 0
    component = FAILURE ** (1 / PROBES) * math.sqrt(math.pi / 2) / math.sqrt(unknowns)
    precondition, longest = preconditioner(problem), 0.0
    for _ in range(PROBES):
        probe = _random(problem, lengths, generator)
        if open_ is not None:
            probe = open_.orthogonal(probe)
            probe = [each / _norm(probe) for each in probe]
        solved = _solved(problem, lengths, precondition, probe, TOLERANCE * component)
        if solved is None:
            return None
        longest = max(longest, _norm(solved if open_ is None else open_.orthogonal(solved)))
    return math.sqrt((1 - TOLERANCE) * component / longest)


def _solved(problem: Linearised, lengths, precondition, right, tolerance: float) -> list[torch.Tensor] | None:
    """The solution y of `J'J y = right` with columns of unit length; None where it is not found to the tolerance."""
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
            return [each * length for each, length in zip(solution, lengths, strict=True)]
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

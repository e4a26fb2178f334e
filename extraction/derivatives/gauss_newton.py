"""Gauss-Newton for networks of many unknowns: conjugate gradients with Kronecker preconditioners.

Each step minimises `|J d + r|` over the change d of all free weights by conjugate gradients on the least-squares problem (CGLS, Hestenes
and Stiefel 1952), which needs products with J and J' alone: a forward and a backward pass. Preconditioners decide how many:

| network | preconditioner | iterations of the first, the last step |
|---|---|---|
| 64-32-10 gelu | layer by layer, `(A x G)^-1` | 224, over 300 |
| | blocks of inputs (`_InputBlocks`) | 36, 16 |
| 200-64-32-10 tanh | layer by layer | over 300, 155 |
| | output layer eliminated, two Kronecker products for the last hidden layer | 59, 29 |
| 200-64-32-10 sigmoid | layer by layer | over 300 and no end: 2e-9 after twelve steps |
| | output layer eliminated | 215, 117: 6e-14 after three |

`(A x G)^-1` has the second moment A of the layer's inputs and G of the outputs' derivatives by its weighted sums (Martens and Grosse 2015,
here of the Gauss-Newton matrix of squared errors). It ignores that the layer behind can do nearly the same where a neuron is nearly linear.
Where only some weights of a layer are free, its preconditioner is diagonal.

A step is solved as exactly as it can help: if the residuals are a share e of the answers, a full step leaves e^2, and so the linear problem
is solved to a tolerance of e, or to one that leaves rounding errors alone. Steps that do not lower the loss are halved.

Axes: n queries, K neurons of a layer, D its inputs with the bias last, o outputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from extraction.network import Layers
from models.activation_functions import value_and_slope
from models.mlp import with_ones

STEPS, ITERATIONS, HALVINGS = 12, 300, 6
LOOSEST = 0.1  # tolerance of the linear problems
DAMPING = 1e-12  # of the preconditioner, as a share of its largest eigenvalue
BLOCK_DAMPING = 1e-3  # of blocks of inputs, as a share of each diagonal element
FACTOR_QUERIES = 2000  # by which G is estimated
ROUNDING = 1e-16  # no step gains more than this
FLOOR = 2e-15  # residuals, as a share of the spread of the answers, that end the fit

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
    problem = Linearised(layers, queries, answers, spread)
    iterations, error = [], problem.error
    for _ in range(STEPS):
        change, count = _solve(problem, masks, min(LOOSEST, max(error, ROUNDING / error)))
        iterations.append(count)
        for halving in range(HALVINGS):
            vectors = [vector - change_ / 2**halving for vector, change_ in zip(problem.layers.vectors, change, strict=True)]
            trial = Linearised(layers.replace(*vectors), queries, answers, spread)
            if trial.error < error:
                break
        else:
            break
        problem, error, gain = trial, trial.error, error / trial.error
        if error < FLOOR or (gain < 2 and error < 1e-13):
            break
    return Polished(problem.layers, error, tuple(iterations))


class Linearised:
    """A network at some queries, and the products of its Jacobian by all weights; outputs are divided by their spread `[o]`.

    The output layer of a deep network is eliminated (variable projection): it is that of least squares, and J is the Jacobian of what the
    output layer cannot compensate. `basis` spans what it can, `[n, K + 1]`; None for one hidden layer.
    """

    def __init__(self, layers: Layers, queries: torch.Tensor, answers: torch.Tensor, spread: torch.Tensor):
        self.scale, self.basis = 1 / spread, None
        self.inputs, self.slopes = [with_ones(queries)], []
        for vectors in layers.vectors[:-1]:
            values, slopes = value_and_slope(layers.activation, self.inputs[-1] @ vectors.T)
            self.inputs.append(with_ones(values))
            self.slopes.append(slopes)
        if len(layers) > 2:
            self.basis, triangular = torch.linalg.qr(self.inputs[-1])
            last = torch.linalg.solve_triangular(triangular, self.basis.T @ answers, upper=True).T
            layers = layers.replace(*layers.vectors[:-1], last)
        self.layers = layers
        self.residuals = (self.inputs[-1] @ layers.vectors[-1].T - answers) * self.scale
        if self.basis is not None:
            self.residuals -= self.basis @ (self.basis.T @ self.residuals)
        self.error = float(self.residuals.square().mean().sqrt())
        if not self.error < float("inf"):
            self.error = float("inf")

    def push(self, change: Vectors) -> torch.Tensor:
        """J times a change of the weights: the change of the outputs, `[n, o]`."""
        sums = self.inputs[0] @ change[0].T
        for depth, slopes in enumerate(self.slopes, 1):
            sums = (slopes * sums) @ self.layers.vectors[depth][:, :-1].T
            sums += self.inputs[depth] @ change[depth].T
        sums = sums * self.scale
        return sums if self.basis is None else sums - self.basis @ (self.basis.T @ sums)

    def pull(self, outputs: torch.Tensor) -> Vectors:
        """J' times something of the outputs, `[n, o]`."""
        back = outputs * self.scale
        result = [back.T @ self.inputs[-1] if self.basis is None else torch.zeros_like(self.layers.vectors[-1])]
        for depth in range(len(self.slopes), 0, -1):
            back = (back @ self.layers.vectors[depth][:, :-1]) * self.slopes[depth - 1]
            result.append(back.T @ self.inputs[depth - 1])
        return result[::-1]

    def column_lengths(self) -> Vectors:
        """The lengths of the columns of J, in the form of the weights; before the output layer is eliminated."""
        squares = [torch.zeros(len(self.residuals), len(vectors)).to(vectors) for vectors in self.layers.vectors]
        for output in range(len(self.scale)):
            for depth, back in enumerate(self._back(output)):
                squares[depth] += back.square()
        return [(outputs.T @ inputs.square()).sqrt() for outputs, inputs in zip(squares, self.inputs, strict=True)]

    def derivatives_by_inputs(self, count: int) -> torch.Tensor:
        """The derivatives of the outputs by the inputs at the first queries, `[count, o, d]`."""
        first = self.layers.vectors[0][:, :-1]
        return torch.stack([self._back(output)[0][:count] @ first for output in range(len(self.scale))], 1)

    def _back(self, output: int) -> Vectors:
        """The derivatives of an output by the weighted sums of every layer, `[n, K]` each."""
        back = torch.zeros_like(self.residuals)
        back[:, output] = self.scale[output]
        found = [back]
        for depth in range(len(self.slopes), 0, -1):
            found.append((found[-1] @ self.layers.vectors[depth][:, :-1]) * self.slopes[depth - 1])
        return found[::-1]

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


def _solve(problem: Linearised, masks: Sequence[torch.Tensor | None], tolerance: float) -> tuple[Vectors, int]:
    """The change d that minimises `|J d - r|`, to a relative tolerance, and the number of iterations."""
    precondition = preconditioner(problem, masks)
    change = [torch.zeros_like(vectors) for vectors in problem.layers.vectors]
    left = problem.residuals.clone()
    slope = _masked(problem.pull(left), masks)
    step = direction = precondition(slope)
    size = first = dot(slope, step)
    count = 0
    for count in itertools.count(1):  # noqa: B007
        moved = problem.push(direction)
        length = size / float(moved.square().sum())
        change = [old + length * each for old, each in zip(change, direction, strict=True)]
        left -= length * moved
        slope = _masked(problem.pull(left), masks)
        step = precondition(slope)
        size, before = dot(slope, step), size
        if not size > tolerance**2 * first or count >= ITERATIONS:
            return change, count
        direction = [each + size / before * old for each, old in zip(step, direction, strict=True)]
    raise AssertionError


def preconditioner(problem: Linearised, masks: Sequence[torch.Tensor | None] = ()) -> Callable[[Vectors], Vectors]:
    """An approximate inverse of `J'J`; for the masks see `polish`."""
    masks = [*masks, *[None] * (len(problem.layers) - len(masks))]
    is_shallow = (
        len(problem.slopes) == 1
        and not problem.layers.symmetry.positive_scaling
        and problem.inputs[0].shape[1] == problem.inputs[1].shape[1]
    )
    return _InputBlocks(problem) if is_shallow and masks == [None, None] else _LayerBlocks(problem, masks)


class _LayerBlocks:
    """An approximate inverse of `J'J`, layer by layer: `(A x G)^-1`."""

    def __init__(self, problem: Linearised, masks: Sequence[torch.Tensor | None]):
        self.masks, self.parts = masks, []
        for mask, inputs, outputs in zip(masks, problem.input_moments(), problem.output_moments(), strict=True):
            if len(self.parts) == len(masks) - 2 and problem.basis is not None and mask is None:
                self.parts.append(_last_hidden_part(problem, inputs))
            elif mask is None:
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


def _last_hidden_part(problem: Linearised, moment: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The part of the last hidden layer, when the output layer is eliminated.

    Derivatives s' of the neurons are nearly constant, so that the output layer compensates most of a change of the layer. With their mean m
    and covariance C, the products P of outgoing vectors, the inputs' moment A and that of what the basis leaves of the inputs, B, `J'J` is
    about `(m m' * P) x B + (C * P) x A`. Both terms are diagonal in one basis (of generalised eigenvectors).
    """
    slopes, inputs, basis = problem.slopes[-1], problem.inputs[-2], problem.basis
    assert basis is not None
    outgoing = problem.layers.vectors[-1][:, :-1] * problem.scale[:, None]
    products, mean = outgoing.T @ outgoing, slopes.mean(0)
    left = inputs - basis @ (basis.T @ inputs)
    vectors, b = _generalised(left.T @ left, moment)
    centred = slopes - mean
    outputs, m = _generalised(torch.outer(mean, mean) * products, (centred.T @ centred) / len(slopes) * products)
    return vectors, outputs, torch.outer(m.clamp_min(0), b.clamp_min(0)) + 1


def _generalised(one: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors X and values with `X' other X = 1` and `X' one X = diag(values)`."""
    eye = torch.eye(len(other), dtype=other.dtype, device=other.device)
    factor = torch.linalg.cholesky(other + 1e-10 * other.diagonal().mean() * eye)
    half = torch.linalg.solve_triangular(factor, one, upper=False)
    values, vectors = torch.linalg.eigh(torch.linalg.solve_triangular(factor, half.T, upper=False))
    return torch.linalg.solve_triangular(factor.T, vectors, upper=True), values


class _InputBlocks:
    """An approximate inverse of `J'J` for one hidden layer, whose weighted sums are independent inputs, nearly.

    The changes of f by the weights from input j to all neurons, by the bias of neuron j and by the weights from neuron j to all outputs are
    nearly linear in input j, and so nearly uncorrelated with those of other inputs. There is a block for each j, `[H + 1 + o, H + 1 + o]`.
    The biases of the outputs make all of them zero in the mean. Blocks of layers took 300 iterations where this takes 50.
    """

    def __init__(self, problem: Linearised):
        inputs, hidden, slopes = problem.inputs[0][:, :-1], problem.inputs[1][:, :-1], problem.slopes[0]
        self.scale, self.count, width = problem.scale, len(inputs), inputs.shape[1]
        stride = -(-len(inputs) // FACTOR_QUERIES)
        self.outgoing, self.hidden_mean = problem.layers.vectors[1][:, :-1], hidden.mean(0)
        self.slope_mean = slopes.T @ problem.inputs[0] / len(inputs)  # [H, H + 1], the bias last
        scaled, own = self.outgoing * self.scale[:, None], torch.diag(self.scale)
        blocks = []
        for neuron in range(width):
            features = torch.cat([slopes * inputs[:, neuron, None], slopes[:, neuron, None], hidden[:, neuron, None]], 1)[::stride]
            features = features - features.mean(0)
            moments = stride * features.T @ features  # [H + 2, H + 2]
            moments = torch.cat([moments, moments[-1:].expand(len(scaled) - 1, -1)])
            moments = torch.cat([moments, moments[:, -1:].expand(-1, len(scaled) - 1)], 1)
            effects = torch.cat([scaled, scaled[:, neuron, None], own], 1)  # of each weight on the outputs, [o, H + 1 + o]
            blocks.append(moments * (effects.T @ effects))
        blocks = torch.stack(blocks)
        self.factors = _factored(blocks)

    def __call__(self, slope: Vectors) -> Vectors:
        (first, last), width = slope, len(slope[0])
        constant = last[:, -1]
        first = first - self.slope_mean * (constant @ self.outgoing)[:, None]
        outputs = last[:, :-1] - constant[:, None] * self.hidden_mean
        right = torch.cat([first[:, :-1], first[None, :, -1], outputs])  # [H + 1 + o, H]
        solved = torch.cholesky_solve(right.T[:, :, None], self.factors)[:, :, 0].T
        weights, bias, outputs = solved.split([width, 1, len(last)])
        change = torch.cat([weights, bias.T], 1)
        shift = self.outgoing @ (self.slope_mean * change).sum(1) + outputs @ self.hidden_mean
        return [change, torch.cat([outputs, (constant / (self.count * self.scale.square()) - shift)[:, None]], 1)]


def _factored(blocks: torch.Tensor) -> torch.Tensor:
    """Cholesky factors of the lower triangles of blocks that are positive definite but for sampling errors, damped as much as they need."""
    damping = torch.full_like(blocks[:, 0, 0], BLOCK_DAMPING)
    while True:
        diagonal = torch.diag_embed(damping[:, None] * blocks.diagonal(dim1=1, dim2=2))
        factors, info = torch.linalg.cholesky_ex(blocks + diagonal)
        if not bool(info.any()):
            return factors
        damping = torch.where(info > 0, damping * 4, damping)


def _masked(vectors: Vectors, masks: Sequence[torch.Tensor | None]) -> Vectors:
    return [each if mask is None else each * mask for each, mask in zip(vectors, masks, strict=True)]


def dot(left: Vectors, right: Vectors) -> float:
    """The inner product of two changes of all weights."""
    return float(sum((a * b).sum() for a, b in zip(left, right, strict=True)))

"""Approximate inverses of J'J for fully connected networks, which decide how many iterations conjugate gradients take.

*Kronecker factors* (Martens & Grosse 2015): for the weights of one layer, J'J is the sum over examples of `(x x') (x) (g g')`, x the inputs
and g the derivatives of the outputs by the weighted sums. With A and G the second moments of x and g it is about `A (x) G`, which two
eigendecompositions invert, damping included.

*The network's own subspace*: Kronecker factors do not see that the output layer makes good for most of a change of the hidden layer where
neurons are nearly linear. With the output layer eliminated, J'J then has hundreds of eigenvalues below a hundredth of what they predict.
The changes that they belong to move each neuron within the span of all neurons: for Gaussian inputs the part of J that the output layer
compensates is exactly of that kind (Stein's lemma). In that span the network is one with as many inputs as neurons, whose J'J is formed and
factored (`OwnSubspace`). The two approximate inverses are added.

Measured as the ratio of the largest to the smallest eigenvalue after preconditioning, output layer eliminated (40-12-3, 1,000 queries):

| preconditioner | tanh | gelu | relu (50-15-4) |
|---|---|---|---|
| Kronecker factors | 830 | 960 | 33, and 15 zeros |
| and the span of the neurons, all of it | 10 | 9 | |
| and of it only changes along the 3 largest eigenvalues of G | 57 | 480 | |
| and the changes `A^-1 J1'J2` (what Gaussian elimination would need) | 830 | 530 | |
| search directions of earlier steps (Morales & Nocedal 2000) | 15% fewer iterations | 15% fewer | |

Axes: B examples, O outputs, K neurons of a layer, D its inputs with the bias last, S directions of a subspace.
"""

from __future__ import annotations

import torch

from training.jacobian import LayerJacobian

DERIVATIVE_ROWS = 8192  # of the batch that G is estimated from
SUBSPACE_EQUATIONS = 8  # in the estimate of J'J in the network's own subspace, for each unknown there
SUBSPACE_ROWS = 16  # at least, for each weight of an output
SUBSPACE_COST = 60.0  # iterations of conjugate gradients that forming and factoring it may cost
SUBSPACE_DAMPING = 1e-10  # at least, as a share of each diagonal element: what the subspace has twice is singular there
SAME = 1e-9  # relative difference of the mean squares of inputs of batches with the same examples in another order
TINY = 1e-150  # the scale of an input or a neuron that is zero everywhere


class Factor:
    """A symmetric positive matrix as `diag(scale) vectors diag(values) vectors' diag(scale)`, its diagonal scaled to one."""

    def __init__(self, moment: torch.Tensor):
        self.scale = moment.diagonal().clamp_min(0).sqrt().clamp_min(TINY)
        values, self.vectors = torch.linalg.eigh(moment / self.scale[:, None] / self.scale)
        self.values = values.clamp_min(0)


class InputFactors:
    """The factor A of the inputs of a network, kept while batches hold the same examples, in any order."""

    def __init__(self) -> None:
        self.last: tuple[torch.Tensor, Factor] | None = None  # the mean squares of the inputs, and the factor

    def of(self, examples: torch.Tensor) -> Factor:
        """The factor of the examples `[B, ...]`, a constant 1 last."""
        examples = examples.flatten(1)
        squares = examples.square().mean(0)
        if self.last is not None and self.last[0].shape == squares.shape and torch.allclose(self.last[0], squares, rtol=SAME, atol=0.0):
            return self.last[1]
        factor = Factor(input_moment([examples]))
        self.last = squares, factor
        return factor


def input_moment(parts: list[torch.Tensor]) -> torch.Tensor:
    """The mean of `x x'` over the rows x of some matrices `[B, D - 1]`, a constant 1 last: `[D, D]`."""
    count, size = sum(map(len, parts)), parts[0].shape[1] + 1
    moment = parts[0].new_zeros(size, size)
    for part in parts:
        moment[:-1, :-1] += part.T @ part
        moment[:-1, -1] += part.sum(0)
    moment[-1, :-1] = moment[:-1, -1]
    moment[-1, -1] = count
    return moment / count


class KroneckerFactors:
    """The approximate inverse of J'J with one block for each of some layers.

    Args:
        jacobian: of the network.
        inputs: the factor of the network's inputs.
        layers: the number of layers, from the first one, that have a block; the inverse is zero for the others.
    """

    def __init__(self, jacobian: LayerJacobian, inputs: InputFactors, layers: int):
        self.jacobian, self.layers = jacobian, layers
        passes = list(jacobian.passes()) if layers > 1 else []
        moments = [input_moment([one.inputs[depth] for one in passes]) for depth in range(1, layers)]
        self.inputs = [inputs.of(jacobian.problem.examples), *map(Factor, moments)]
        self.derivatives = [Factor(moment) for moment in self._derivative_moments()]

    def _derivative_moments(self) -> list[torch.Tensor]:
        """G of each layer, summed over examples."""
        one = self.jacobian.some_pass(DERIVATIVE_ROWS)
        moments = [layer.new_zeros(len(layer), len(layer)) for layer in self.jacobian.layers]
        for depth, derivatives in self.jacobian.output_derivatives(one):
            moments[depth] += derivatives.T @ derivatives
        share = len(self.jacobian.problem.examples) / len(one.inputs[0])
        return [moment * share for moment in moments[: self.layers]]

    def apply(self, vector: torch.Tensor, damping: float) -> torch.Tensor:
        """The approximate inverse of `J'J + damping * diag(J'J)` times a vector `[P]`."""
        matrices = self.jacobian.split(vector)
        results = [torch.zeros_like(matrix) for matrix in matrices]
        for depth, (a, g) in enumerate(zip(self.inputs, self.derivatives, strict=True)):
            scaled = matrices[depth] / g.scale[:, None] / a.scale
            turned = (g.vectors.T @ scaled @ a.vectors) / (torch.outer(g.values, a.values) + damping)
            results[depth] = (g.vectors @ turned @ a.vectors.T) / g.scale[:, None] / a.scale
        return self.jacobian.join(results) * self.jacobian.free


class OwnSubspace:
    """The inverse of J'J, output layer eliminated, within the changes of each neuron in the span of all neurons; for one hidden layer.

    With the derivatives s' of the activation function, outgoing weights `B` `[O, K]` and the components u of the inputs in the span, J'J is
    the elementwise product of `B'B` and the moments of `s' (x) u`, less what least squares over the hidden activations explain of these.

    Args:
        jacobian: of the network.
        damping: as a share of the diagonal of J'J.
    """

    def __init__(self, jacobian: LayerJacobian, damping: float):
        self.jacobian = jacobian
        self.directions = self._directions(jacobian)
        rows = self.rows_of(jacobian)
        one = jacobian.some_pass(rows)
        components = one.inputs[0] @ self.directions[:, :-1].T + self.directions[:, -1]
        features = (one.slopes[0][:, :, None] * components[:, None, :]).flatten(1)
        ones = torch.ones_like(components[:, :1])
        basis = torch.linalg.qr(torch.cat([one.inputs[1], ones], 1))[0]
        features -= basis @ (basis.T @ features)
        square = features.T @ features
        outgoing = jacobian.layers[1][:, :-1]
        neurons, directions = len(jacobian.layers[0]), len(self.directions)
        square.view(neurons, directions, neurons, directions).mul_((outgoing.T @ outgoing)[:, None, :, None])
        square *= len(jacobian.problem.examples) / len(one.inputs[0])
        diagonal = square.diagonal()
        diagonal += max(damping, SUBSPACE_DAMPING) * diagonal + torch.finfo(square.dtype).eps * diagonal.max()
        self.factor, failed = torch.linalg.cholesky_ex(square)
        self.is_valid = not bool(failed)

    @staticmethod
    def _directions(jacobian: LayerJacobian) -> torch.Tensor:
        """Vectors that span those of the neurons and the bias, `[S, D]`."""
        weights = jacobian.layers[0][:, :-1]
        basis = torch.linalg.svd(weights, full_matrices=False)[2]
        directions = torch.zeros(len(basis) + 1, weights.shape[1] + 1).to(weights)
        directions[:-1, :-1], directions[-1, -1] = basis, 1
        return directions

    @staticmethod
    def rows_of(jacobian: LayerJacobian) -> int:
        """How many rows of the batch J'J is estimated from."""
        (neurons, size), (outputs, width) = jacobian.layers[0].shape, jacobian.layers[1].shape
        unknowns = neurons * (min(neurons, size - 1) + 1)
        return max(SUBSPACE_EQUATIONS * unknowns // outputs, SUBSPACE_ROWS * width)

    @classmethod
    def pays(cls, jacobian: LayerJacobian) -> bool:
        """Whether the subspace is a part of the whole that is worth its cost."""
        if jacobian.depth != 1:
            return False
        (neurons, size), rows = jacobian.layers[0].shape, cls.rows_of(jacobian)
        unknowns, examples = neurons * (min(neurons, size - 1) + 1), len(jacobian.problem.examples)
        iteration = 4.0 * examples * neurons * size
        return rows <= examples and 2.0 * rows * unknowns**2 + unknowns**3 / 3 <= SUBSPACE_COST * iteration

    def apply(self, vector: torch.Tensor) -> torch.Tensor:
        """The inverse in the subspace times a vector `[P]`."""
        first, *others = self.jacobian.split(vector)
        components = torch.cholesky_solve((first @ self.directions.T).reshape(-1, 1), self.factor).view(len(first), -1)
        return self.jacobian.join([components @ self.directions, *map(torch.zeros_like, others)]) * self.jacobian.free

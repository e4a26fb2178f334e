"""One hidden layer of any smooth activation function, with no more neurons than inputs.

1. Gradients span the rows of the layer (`subspace`): everything else happens in that space, of as many dimensions as there are neurons.
2. Second derivatives have a common eigenbasis (`diagonalising`): coordinates y that move one neuron each.
3. Profiles along these coordinates name the activation function and give rates and biases (`profiles`).
4. Least squares gives the output layer, and Gauss-Newton everything, in coordinates y (`gauss_newton`).
5. The first layer in all inputs follows column by column (`columns`).
6. Fresh queries confirm the network.

Measured at 784-128-10 (gelu; 7.6 s of one core): 11,871 queries for gradients, 16,513 for second derivatives, 7,808 for profiles, 4,706
for the fit, 26,656 for columns; worst weight error 2e-14. Second derivatives at one point suffice where there are ten outputs.

Axes: d inputs, H neurons, o outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from extraction.derivatives import columns as by_columns
from extraction.derivatives.diagonalising import MIXTURES, common_basis
from extraction.derivatives.differences import Scale, curvatures
from extraction.derivatives.gauss_newton import polish
from extraction.derivatives.profiles import Axes, Fitted, ask_profiles, named
from extraction.derivatives.questions import Ask, Questions
from extraction.derivatives.result import Lacking
from extraction.derivatives.subspace import Span
from extraction.network import Layers, fit_outputs

MATRICES = 6  # second derivatives, at least: outputs times points
DIAGONAL = 1e-2  # a larger share off the diagonal: there is no common basis
FAR = 16.0  # the largest t of profiles, where weighted sums are about t
ALONE = 1e-2  # a larger second singular value of a profile: the neuron is not alone
INSIDE = 0.95  # of the limit of inputs
EQUATIONS = 2.5  # for each unknown
BREADTH, WIDE = 1.5, 2.5  # the standard deviation of weighted sums at the queries of fits, and at the base points of columns


@dataclass(frozen=True)
class Sums:
    """Coordinates u that are the weighted sums of a layer, or nearly: inputs are `directions (u - offsets)`, and u is `rows x + offsets`.

    Attributes:
        directions: `[d, H]`.
        rows: `[H, d]`.
        offsets: `[H]`.
    """

    directions: torch.Tensor
    rows: torch.Tensor
    offsets: torch.Tensor

    def inside(self, scale: Scale, coordinates: torch.Tensor, step: float = 0.0) -> torch.Tensor:
        """Coordinates `[n, H]` whose inputs, also after a step along an axis, are within the limit, see `Scale.inside`."""
        if not scale.is_bounded:
            return coordinates
        points = (coordinates - self.offsets) @ self.directions.T
        return scale.inside(points, step) @ self.rows.T + self.offsets

    def within(self, asked: Questions) -> Questions:
        """The teacher in these coordinates."""
        return asked.within(-self.directions @ self.offsets, self.directions)

    def rescaled(self, rates: torch.Tensor, offsets: torch.Tensor) -> Sums:
        """The coordinates `rates u + offsets`, for coordinates without offsets."""
        return Sums(self.directions / rates, self.rows * rates[:, None], offsets)


def recover(asked: Questions, scale: Scale, span: Span, candidates: Sequence[str]) -> Layers:
    """The network, the output layer last.

    Args:
        asked: the teacher.
        scale: of its inputs and answers.
        span: the space that its gradients span.
        candidates: the activation functions that it may have.

    Raises:
        Lacking: it has not one hidden layer with one of these activation functions and at most as many neurons as inputs.
    """
    alone = separate(asked, scale, span)
    far = (INSIDE * scale.limit / alone.directions.abs().amax(0)).clamp(max=FAR)
    fitted = name(alone.within(asked), candidates, far)
    sums = alone.rescaled(fitted.rates, fitted.places)
    return widen(asked, scale, sums, fit(sums.within(asked), fitted.act_fun, lambda points: sums.inside(scale, points)))


def separate(asked: Questions, scale: Scale, span: Span) -> Sums:
    """Coordinates that move one neuron each, in units in which weighted sums are of order 1."""
    inner = span.within(asked)
    points = -(-MATRICES // len(scale.spread))
    step = scale.second(span.rank)
    centres = (
        scale.inside(scale.radius * asked.normal(points, span.rank) @ span.basis.T, 2 * step if scale.is_bounded else 0.0) @ span.basis
    )
    matrices = [curvatures(inner, centre, step) for centre in centres]
    scaled = torch.cat(matrices) / scale.spread.repeat(points)[:, None, None]
    common = common_basis(scaled, asked.normal(MIXTURES, 2, len(scaled)))
    if not common.residual <= DIAGONAL:
        raise Lacking(
            f"the second derivatives have no common eigenbasis ({common.residual:.0e} off the diagonal): there is more than one hidden "
            "layer, or more neurons than inputs"
        )
    rows = torch.linalg.inv(common.directions)
    lengths = rows.norm(dim=1) * scale.radius
    return Sums(span.basis @ (common.directions * lengths), (rows / lengths[:, None]) @ span.basis.T, torch.zeros_like(lengths))


def name(inner: Questions, candidates: Sequence[str], far: torch.Tensor | None = None) -> Fitted:
    """The activation function, rates and biases of all neurons, for coordinates that move one each, up to `far` `[H]`."""
    base = torch.zeros(inner.inputs, dtype=torch.float64, device=inner.device)
    return name_along(inner, Axes.of_coordinates(base), torch.full_like(base, FAR) if far is None else far, candidates)


def name_along(asked: Questions, axes: Axes, far: torch.Tensor, candidates: Sequence[str], has_line: bool = False) -> Fitted:
    """The same for any axes."""
    profiles = ask_profiles(asked, axes, far, has_line)
    impure = int((profiles.impurity > ALONE).sum())
    if impure:
        raise Lacking(f"{impure} of {len(far)} neurons do not move alone along their directions")
    fitted, errors = named(profiles, candidates)
    if fitted is None:
        listed = ", ".join(f"{name} {error:.0e}" for name, error in sorted(errors.items(), key=lambda pair: pair[1]))
        raise Lacking(f"the activation function is unknown: the errors of the candidates are {listed}")
    return fitted


def fit(inner: Questions, act_fun: str, inside: Ask) -> Layers:
    """The network in coordinates that are the weighted sums of its layer, nearly, from queries that are moved `inside`."""
    width = inner.inputs
    first = Layers((torch.eye(width, width + 1, dtype=torch.float64, device=inner.device),), act_fun)
    outputs = len(inner(inside(torch.zeros(1, width, dtype=torch.float64, device=inner.device)))[0])
    unknowns = width * (width + 1) + outputs * (width + 1)
    queries = inside(BREADTH * inner.normal(int(EQUATIONS * unknowns / outputs) + 2 * width, width))
    answers = inner(queries)
    return polish(first.followed_by(fit_outputs(first.activations(queries), answers).T.contiguous()), queries, answers).layers


def widen(asked: Questions, scale: Scale, sums: Sums, network: Layers) -> Layers:
    """The network in all inputs, from that in coordinates that are the weighted sums of its first layer, nearly."""
    weights, bias = network.vectors[0][:, :-1], network.vectors[0][:, -1]
    upper = network.replace(*network.vectors[1:])
    count = -(-int(by_columns.EQUATIONS * len(weights) + by_columns.MORE) // upper.sizes[-1])
    step = min(by_columns.LENGTH * scale.unit(asked.inputs), INSIDE * scale.limit / 2)
    coordinates = sums.inside(scale, WIDE * asked.normal(count, len(weights)), step)
    points = (coordinates - sums.offsets) @ sums.directions.T
    start = weights @ sums.rows
    found = by_columns.columns(asked, by_columns.Base(points, coordinates @ weights.T + bias), upper, start, step)
    return network.replace(torch.cat([found, (weights @ sums.offsets + bias)[:, None]], 1), *upper.vectors)

"""One hidden layer of any smooth activation function, with no more neurons than inputs.

1. Gradients span the rows of the layer (`subspace`): everything else happens in that space, of as many dimensions as there are neurons.
2. Second derivatives have a common eigenbasis (`diagonalising`): coordinates y that move one neuron each.
3. Profiles along these coordinates name the activation function and give rates and biases (`profiles`).
4. Least squares gives the output layer, and Gauss-Newton everything, in coordinates y (`gauss_newton`).
5. The first layer in all inputs follows column by column (`columns`).
6. Fresh queries confirm the network.

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
from extraction.derivatives.profiles import Fitted, ask_profiles, named
from extraction.derivatives.questions import Questions
from extraction.derivatives.result import Lacking
from extraction.derivatives.subspace import Span
from extraction.network import Layers, fit_outputs

MATRICES = 6  # second derivatives, at least: outputs times points
DIAGONAL = 1e-2  # a larger share off the diagonal: there is no common basis
FAR = 16.0  # the largest t of profiles, where weighted sums are about t
ALONE = 1e-2  # a larger second singular value of a profile: the neuron is not alone
EQUATIONS = 2.5  # for each unknown
BREADTH = 1.5  # the standard deviation of weighted sums at the queries of fits


@dataclass(frozen=True)
class Alone:
    """Coordinates that move one neuron each: inputs are `directions y`, and y is `rows x`.

    Attributes:
        directions: `[d, H]`.
        rows: `[H, d]`.
    """

    directions: torch.Tensor
    rows: torch.Tensor


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
    inner = asked.within(torch.zeros_like(alone.directions[:, 0]), alone.directions)
    fitted = name(inner, candidates)
    network, _ = fit(inner, fitted)
    return widen(asked, scale, alone, network)


def separate(asked: Questions, scale: Scale, span: Span) -> Alone:
    """Coordinates that move one neuron each, in units in which weighted sums are of order 1."""
    inner = asked.within(torch.zeros_like(span.basis[:, 0]), span.basis)
    points = -(-MATRICES // len(scale.spread))
    centres = scale.inside(scale.radius * asked.normal(points, span.rank) @ span.basis.T) @ span.basis
    matrices = [curvatures(inner, centre, scale.second(span.rank)) for centre in centres]
    scaled = torch.cat(matrices) / scale.spread.repeat(points)[:, None, None]
    common = common_basis(scaled, asked.normal(MIXTURES, 2, len(scaled)))
    if not common.residual <= DIAGONAL:
        raise Lacking(
            f"the second derivatives have no common eigenbasis ({common.residual:.0e} off the diagonal): there is more than one hidden "
            "layer, or more neurons than inputs"
        )
    rows = torch.linalg.inv(common.directions)
    lengths = rows.norm(dim=1) * scale.radius
    return Alone(span.basis @ (common.directions * lengths), (rows / lengths[:, None]) @ span.basis.T)


def name(inner: Questions, candidates: Sequence[str], far: torch.Tensor | None = None) -> Fitted:
    """The activation function, rates and biases of all neurons, for coordinates that move one each, up to `far` `[H]`."""
    base = torch.zeros(inner.inputs, dtype=torch.float64, device=inner.device)
    profiles = ask_profiles(inner, base, torch.full_like(base, FAR) if far is None else far)
    impure = int((profiles.impurity > ALONE).sum())
    if impure:
        raise Lacking(f"{impure} of {inner.inputs} neurons do not move alone along their directions")
    fitted, errors = named(profiles, candidates)
    if fitted is None:
        listed = ", ".join(f"{name} {error:.0e}" for name, error in sorted(errors.items(), key=lambda pair: pair[1]))
        raise Lacking(f"the activation function is unknown: the errors of the candidates are {listed}")
    return fitted


def fit(inner: Questions, fitted: Fitted) -> tuple[Layers, float]:
    """The network in coordinates that move one neuron each, and its error."""
    width = inner.inputs
    hidden = torch.cat([torch.diag(fitted.rates), fitted.places[:, None]], 1)
    outputs = len(inner(torch.zeros(1, width, dtype=torch.float64, device=inner.device))[0])
    unknowns = width * (width + 1) + outputs * (width + 1)
    sums = BREADTH * inner.normal(int(EQUATIONS * unknowns / outputs) + 2 * width, width)
    queries = (sums - fitted.places) / fitted.rates
    answers = inner(queries)
    first = Layers((hidden,), fitted.act_fun)
    result = polish(first.followed_by(fit_outputs(first.activations(queries), answers).T.contiguous()), queries, answers)
    return result.layers, result.error


def widen(asked: Questions, scale: Scale, alone: Alone, network: Layers) -> Layers:
    """The network in all inputs, from that in coordinates that move one neuron each."""
    hidden, upper = network.vectors[0], network.replace(*network.vectors[1:])
    width, outputs = len(hidden), upper.sizes[-1]
    count = -(-int(by_columns.EQUATIONS * width) // outputs)
    coordinates = torch.linalg.solve(hidden[:, :-1], (BREADTH * asked.normal(count, width) - hidden[:, -1]).T).T
    sums = coordinates @ hidden[:, :-1].T + hidden[:, -1]
    start = hidden[:, :-1] @ alone.rows
    points, step = coordinates @ alone.directions.T, by_columns.LENGTH * scale.unit(asked.inputs)
    weights = by_columns.columns(asked, points, sums, upper, start, step)
    return network.replace(torch.cat([weights, hidden[:, -1:]], 1), *upper.vectors)

"""Networks of gelu, silu and softplus where second derivatives do not separate the neurons: two hidden layers, or more neurons than inputs.

From afar these functions look like relu: at a distance of a million radii, answers are piecewise linear but for a narrow zone around each
kink. There, kinks give the directions and the places of all neurons, as they do for relu (`hidden_layer`, `kinks`). Each neuron is then met
on its plane, where all others are far from theirs: along a line across the plane the answers are `c + e t + v s(k t + b)`, the activation
function itself, which names it and gives the rate k and the bias b (`profiles`). Gauss-Newton ends at the usual distance, where rounding
errors are those of any answer.

| network | way |
|---|---|
| one hidden layer with more neurons than inputs | kinks on lines, then a fit of all weights in all inputs |
| two hidden layers | layer by layer; the second is asked at h > 0, far out, where the first layer is linear |

Axes: d inputs, H neurons, o outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from extraction.derivatives import kinks, shallow
from extraction.derivatives.differences import Scale, measure
from extraction.derivatives.gauss_newton import polish
from extraction.derivatives.grounds import Ground, is_affine
from extraction.derivatives.hidden_layer import SLOPE, Layer, find_layer
from extraction.derivatives.lines import Precision
from extraction.derivatives.peeling import POINTS, REPEATS
from extraction.derivatives.pieces import Neurons
from extraction.derivatives.profiles import Axes, Fitted
from extraction.derivatives.questions import Questions
from extraction.derivatives.result import Lacking
from extraction.derivatives.shallow import Sums
from extraction.derivatives.subspace import Span, gradient_span
from extraction.network import Layers, fit_outputs
from models import activation_functions

AFAR = 2.0**20  # radii
INEXACT = 100.0  # times the error at the usual distance
ZONE = 200.0  # the distance from a kink, in units, at which answers are linear
ACROSS = 24.0  # the largest |t| of profiles, in radii
TRIED = 256  # points of a plane, of which that with the most room is used
BREADTH, EQUATIONS = 2.0, 2.5  # the standard deviation of weighted sums at the queries of fits, and equations for each unknown


def far_scale(asked: Questions, scale: Scale) -> Scale | None:
    """The scale of a teacher far out, or None where it is not piecewise linear there."""
    far = measure(asked, AFAR * scale.radius)
    is_exact = far.relative_error <= INEXACT * scale.relative_error  # else answers change between neighbouring points
    return far if is_exact and kinks.is_piecewise_linear(asked, far) else None


def recover(asked: Questions, scale: Scale, span: Span, candidates: Sequence[str]) -> Layers:
    """The network, the output layer last.

    Args:
        asked: the teacher.
        scale: of its inputs and answers.
        span: the space that its gradients span.
        candidates: the activation functions that it may have.

    Raises:
        Lacking: it is no such network.
    """
    far = far_scale(asked, scale)
    if far is None:
        raise Lacking("far out, the answers are not piecewise linear")
    if span.is_full:
        return _wide(asked, scale, far, candidates)
    return _deep(asked, (scale, far), span, candidates)


def _wide(asked: Questions, scale: Scale, far: Scale, candidates: Sequence[str]) -> Layers:
    """A network of one hidden layer with any number of neurons."""
    neurons = kinks.find_neurons(asked, far, _precision(scale, asked.inputs))
    _, slope, signs = kinks.named(asked, far, neurons)
    if slope:
        raise Lacking("far out, the network is one of leaky relu, but not near")
    rows, biases = neurons.incoming * signs[:, None], neurons.biases * signs
    axes = Axes(_on_planes(asked, far, Neurons(rows, biases, neurons.outgoing)), rows)
    fitted = shallow.name_along(asked, axes, torch.full_like(biases, ACROSS * scale.radius), candidates, has_line=True)
    hidden = Layers((_vectors(rows, biases, fitted),), fitted.act_fun)
    return _polished(asked, hidden)


def _on_planes(asked: Questions, far: Scale, neurons: Neurons) -> torch.Tensor:
    """A point on the plane of each neuron, far from the planes of others, `[H, d]`."""
    points = far.radius * asked.normal(TRIED, asked.inputs)
    sums = points @ neurons.incoming.T + neurons.biases  # [TRIED, H]
    found = []
    for number, row in enumerate(neurons.incoming):
        distances = (sums - sums[:, number, None] * (neurons.incoming @ row)).abs()
        distances[:, number] = torch.inf
        best = distances.amin(1).argmax()
        found.append(points[best] - sums[best, number] * row)
    return torch.stack(found)


def _deep(asked: Questions, scales: tuple[Scale, Scale], span: Span, candidates: Sequence[str]) -> Layers:
    """A network of at most two hidden layers that do not widen, from its scales near and far."""
    scale, far = scales
    inner = span.within(asked)
    first = find_layer(Ground(inner, far, precision=_precision(scale, span.rank)), span.rank)
    fitted = _named(inner, first, candidates, scale.radius)
    vectors = _vectors(first.rows, first.biases, fitted)
    weights = vectors[:, :-1]
    sums = Sums(span.basis @ torch.linalg.inv(weights), weights @ span.basis.T, vectors[:, -1])
    try:
        return shallow.widen(asked, scale, sums, _behind(sums.within(asked), fitted.act_fun))
    except Lacking as reason:
        raise Lacking(str(reason), torch.cat([sums.rows, sums.offsets[:, None]], 1), fitted.act_fun) from None


def _behind(within: Questions, act_fun: str) -> Layers:
    """The network by the weighted sums of its first layer."""
    width = within.inputs
    layers = [torch.eye(width, width + 1, dtype=torch.float64, device=within.device)]
    offset = float(activation_functions.get(act_fun)(layers[0].new_full((1,), AFAR)) - AFAR)  # of g, 1; of others, 0
    behind = within.through(lambda hidden: hidden - offset, width)
    near, far = measure(behind, radius=1.0), measure(behind, radius=AFAR)
    ground = Ground(behind, far, is_positive=True, precision=_precision(near, width))
    if not is_affine(ground):
        second = find_layer(ground, gradient_span(behind, far, ground.points, REPEATS, POINTS).rank)
        layers.append(_vectors(second.rows, second.biases, _named(behind, second, (act_fun,), near.radius)))
    return _polished(within, Layers(tuple(layers), act_fun))


def _precision(scale: Scale, inputs: int) -> Precision:
    return Precision(resolution=ZONE * scale.unit(inputs))


def _named(asked: Questions, layer: Layer, candidates: Sequence[str], radius: float) -> Fitted:
    """The activation function, the rates and the biases of neurons that are met alone, each on its plane."""
    if layer.slope > SLOPE:
        raise Lacking("far out, the network is one of leaky relu, but not near")
    axes = Axes(layer.points, torch.linalg.pinv(layer.rows).T)
    return shallow.name_along(asked, axes, torch.full_like(layer.biases, ACROSS * radius), candidates)


def _vectors(rows: torch.Tensor, biases: torch.Tensor, fitted: Fitted) -> torch.Tensor:
    """Incoming vectors `[H, d + 1]` of neurons with unit rows and places of kinks, whose rates are known."""
    signs = fitted.rates.sign()  # with a line, s(-u) = s(u) - u fits as well as s(u)
    rates, places = fitted.rates * signs, fitted.places * signs
    return torch.cat([rows * rates[:, None], (biases * rates + places)[:, None]], 1)


def _polished(asked: Questions, hidden: Layers) -> Layers:
    """The network after a fit at a distance where weighted sums are of order 1."""
    radius = 1 / float(hidden.vectors[0][:, :-1].norm(dim=1).median())
    outputs = asked(asked.normal(1, asked.inputs)).shape[1]
    unknowns = hidden.unknowns + outputs * (hidden.sizes[-1] + 1)
    queries = BREADTH * radius * asked.normal(int(EQUATIONS * unknowns / outputs) + 2 * hidden.sizes[-1] + 2 * asked.inputs, asked.inputs)
    answers = asked(queries)
    return polish(hidden.followed_by(fit_outputs(hidden.activations(queries), answers).T.contiguous()), queries, answers).layers

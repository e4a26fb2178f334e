"""Networks of relu or leaky relu, one hidden layer after the other.

The first layer (`hidden_layer`) is found in the space that gradients span. Behind it, the rest of the network is a smaller problem of the
same kind, asked at any h > 0: all weighted sums of the first layer are set to h, so that all its neurons are active. Behind a second layer
of leaky relu, which has an inverse, any h is set; a second layer of relu must be the last one, because no h > 0 of the second layer need
belong to an h > 0 of the first. Then Gauss-Newton takes all weights to the rounding floor, in the weighted sums of the first layer. The
rows of the first layer in all inputs follow column by column (`columns`).

What lost: to ask what is behind the first layer of a leaky relu at any h (the way back divides by the slope, 0.01, and increases errors as
much: one of 64 neurons of 784-128-64-10 was never confirmed); and queries of one breadth for the fit (neurons that are active at all or
none of them keep the errors of their seeds; with half of the queries near planes and breadth 1.5, 1,200 iterations gave errors of 1e-9 at
80-40-20-1, where queries of all breadths from 1.5 to 44 take 154 and give 9e-14).

Axes: d inputs, N neurons, o outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from extraction.derivatives.differences import Scale, measure
from extraction.derivatives.gauss_newton import polish
from extraction.derivatives.grounds import Ground, is_affine
from extraction.derivatives.hidden_layer import SLOPE, Layer, find_layer
from extraction.derivatives.kinks import named_slope
from extraction.derivatives.lines import ROUNDING, SLOPES, Precision
from extraction.derivatives.questions import Ask, Questions
from extraction.derivatives.result import Lacking
from extraction.derivatives.shallow import Sums, widen
from extraction.derivatives.subspace import Span, gradient_span
from extraction.network import Layers, fit_outputs
from models.slopes import slope_of

REPEATS, POINTS = 4.0, 20  # gradients for each dimension of the space that they span, and points where gradients are taken, at least
ERRORS = 30.0  # of a difference of two answers, in standard deviations of their error
AMPLIFIED = 1e-5  # relative differences of slopes below this are errors of the layers before, which the way back increases
BREADTH, WIDTHS = 8.0, 1.7  # the standard deviation of weighted sums at the queries of the fit, and the range of its logarithm
NEAR = 0.5  # the standard deviation of the distances from planes, in breadths
NEWTON = 8  # steps
EQUATIONS = 3.0  # for each unknown


def span_of(asked: Questions, scale: Scale) -> Span:
    """The space that the gradients of a piecewise-linear function span."""
    return gradient_span(asked, scale, Ground(asked, scale).points, REPEATS, POINTS)


def recover(asked: Questions, scale: Scale, span: Span) -> Layers:
    """The network, the output layer last.

    Args:
        asked: the teacher.
        scale: of its inputs and answers.
        span: the space that its gradients span.

    Raises:
        Lacking: it is no network of relu or leaky relu whose layers do not widen.
    """
    first = find_layer(Ground(span.within(asked), scale), span.rank)
    act_fun = named_slope(first.slope)
    rows, offsets = first.rows / scale.radius, first.biases / scale.radius
    sums = Sums(span.basis @ torch.linalg.inv(rows), rows @ span.basis.T, offsets)
    within = sums.within(asked)
    try:
        return widen(asked, scale, sums, fitted(within, _behind(within, act_fun)))
    except Lacking as reason:
        raise Lacking(str(reason), torch.cat([sums.rows, offsets[:, None]], 1)) from None


def _behind(within: Questions, act_fun: str) -> Layers:
    """The hidden layers by the weighted sums of the first."""
    width, slope = within.inputs, slope_of(act_fun) or 0.0
    layers = [torch.eye(width, width + 1, dtype=torch.float64, device=within.device)]
    while True:
        back = _backwards(layers, slope or 1.0)
        ground = _ground(within.through(back, len(layers[-1])), is_positive=len(layers) == 1)
        if is_affine(ground):
            break
        try:
            layer = _first_of(ground)
        except Lacking:
            if act_fun == "relu" or not ground.is_positive:
                raise
            layer = _first_of(_ground(ground.asked, is_positive=False))  # a plane that no h > 0 lies on
        if abs(layer.slope - slope) > SLOPE:
            raise Lacking("the hidden layers have different activation functions")
        layers.append(torch.cat([layer.rows, layer.biases[:, None]], 1))
        if act_fun == "relu":
            break
    return Layers(tuple(layers), act_fun)


def _backwards(layers: Sequence[torch.Tensor], slope: float) -> Ask:
    """From the outputs of the last of some layers of leaky relu to the weighted sums of the first of them."""
    inverses = [(torch.linalg.pinv(vectors[:, :-1]).T, vectors[:, -1]) for vectors in layers]

    def to_sums(outputs: torch.Tensor) -> torch.Tensor:
        for depth, (inverse, bias) in reversed(list(enumerate(inverses))):
            outputs = torch.where(outputs > 0, outputs, outputs / slope)
            outputs = (outputs - bias) @ inverse if depth else outputs
        return outputs

    return to_sums


def _ground(asked: Questions, is_positive: bool) -> Ground:
    """A function of a layer's outputs, which are of order 1, with errors that the way back to the inputs may have increased."""
    scale = measure(asked, radius=1.0)
    rounding = max(ROUNDING, ERRORS * scale.relative_error)
    return Ground(asked, scale, is_positive, Precision(rounding=rounding, slopes=SLOPES if is_positive else AMPLIFIED))


def _first_of(ground: Ground) -> Layer:
    """The first hidden layer of a function."""
    span = gradient_span(ground.asked, ground.scale, ground.points, REPEATS, POINTS)
    if ground.is_positive:
        return find_layer(ground, span.rank)
    layer = find_layer(dataclasses.replace(ground, asked=span.within(ground.asked)), span.rank)
    return dataclasses.replace(layer, rows=layer.rows @ span.basis.T, points=layer.points @ span.basis.T)


def fitted(within: Questions, hidden: Layers) -> Layers:
    """The network by the weighted sums of its first layer, after a fit."""
    width = within.inputs
    outputs = within(torch.zeros(1, width, dtype=torch.float64, device=within.device)).shape[1]
    unknowns = hidden.unknowns + outputs * (hidden.sizes[-1] + 1)
    count = int(EQUATIONS * unknowns / outputs) + 2 * width
    queries = on_both_sides(within, hidden, count)
    answers, features = within(queries), hidden.activations(queries)
    idle = int((features.std(0) == 0).sum())
    if idle:
        raise Lacking(f"{idle} neurons are active at none of {count} queries")
    return polish(hidden.followed_by(fit_outputs(features, answers).T.contiguous()), queries, answers).layers


def on_both_sides(random: Questions, hidden: Layers, count: int) -> torch.Tensor:
    """So many weighted sums of the first layer, `[count, D]`: half of them are random, half near the planes of neurons.

    So every neuron of hidden layers whose rows have unit length has queries on both sides.
    """
    breadth = BREADTH * torch.exp(WIDTHS * random.uniform(count, 1))
    points = breadth * random.normal(count, random.inputs)
    chosen = torch.arange(0, count, 2, device=points.device)
    points[chosen] = onto_planes(hidden, points[chosen]) + NEAR * breadth[chosen] * random.normal(len(chosen), random.inputs)
    return points


def onto_planes(hidden: Layers, points: torch.Tensor) -> torch.Tensor:
    """Points `[n, D]` moved to where the weighted sum of one neuron is 0, of all neurons in turn, by Newton's method."""
    neurons = torch.arange(len(points), device=points.device)
    for _ in range(NEWTON):
        with torch.enable_grad():
            at = points.detach().requires_grad_()
            sums = torch.cat([hidden.replace(*hidden.vectors[:depth]).pre_activations(at) for depth in range(1, len(hidden) + 1)], 1)
            own = sums.gather(1, (neurons % sums.shape[1])[:, None])[:, 0]
            (slopes,) = torch.autograd.grad(own.sum(), at)
        move = own.detach() / slopes.square().sum(1).clamp_min(1e-6)
        points = points - move[:, None] * slopes
    return points

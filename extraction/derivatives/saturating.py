"""Two hidden layers of saturating neurons (tanh, or sigmoid, which is the same function up to constants).

1. Gradients span the rows of the first layer; lines far out show its neurons one by one (`transitions`).
2. The rank of Jacobians settles its biases (`biases`).
3. The rest of the network is asked at any h = tanh(u) and has one hidden layer: its directions are the common eigenbasis of second
   derivatives, its rates and biases follow from profiles (`shallow`), inside of the cube -1 < h < 1.
4. Gauss-Newton takes everything to the rounding floor, in coordinates u of the first layer; its directions are exact already.
5. The first layer in all inputs follows column by column (`columns`).

Measured at 784-128-64-10 (33 s of one core, with making the teacher): 149,287 queries, worst weight errors 3e-14, 6e-15, 2e-14. What
lost: biases by Gauss-Newton on the rank, rates from polynomials in tanh across the jump (off by 3%, for biases are confounded with them;
tails give 1e-12), and central differences anywhere.

Axes: d inputs, H and K neurons of the two layers, o outputs.
"""

from __future__ import annotations

import torch

from extraction.derivatives import biases, shallow, transitions
from extraction.derivatives.differences import Scale
from extraction.derivatives.gauss_newton import polish
from extraction.derivatives.questions import Questions
from extraction.derivatives.result import Lacking
from extraction.derivatives.shallow import Sums
from extraction.derivatives.subspace import Span
from extraction.network import Layers, fit_outputs

RADIUS = 0.45  # of h where second derivatives are taken
CUBE = 0.9  # the largest h of profiles
BREADTH = 1.2  # the standard deviation of weighted sums at the queries of the fit
EQUATIONS = 3.0  # for each unknown


def recover(asked: Questions, scale: Scale, span: Span) -> Layers:
    """The network, as one of tanh.

    Raises:
        Lacking: it is no such network.
    """
    inner = span.within(asked)
    first = transitions.first_layer(inner, scale)
    sums = Sums(span.basis @ torch.linalg.inv(first[:, :-1]), first[:, :-1] @ span.basis.T, first[:, -1])
    within = sums.within(asked)
    try:
        return shallow.widen(asked, scale, sums, _behind(within, scale))
    except Lacking as reason:
        raise Lacking(str(reason), torch.cat([sums.rows, sums.offsets[:, None]], 1), "tanh") from None


def _behind(within: Questions, scale: Scale) -> Layers:
    """The network by the sums of the first layer, of which a constant is missing."""
    offsets, rows = biases.settle(within, len(scale.spread), scale.relative_error**0.5)
    rest = within.through(lambda hidden: torch.atanh(hidden) - offsets, within.inputs)
    second = _second_layer(rest, scale, Span(rows, float("inf"), False))
    return _fitted(within, offsets, second)


def _second_layer(rest: Questions, scale: Scale, span: Span) -> torch.Tensor:
    """The incoming vectors of the second layer, the bias last, `[K, H + 1]`."""
    inside = Scale(RADIUS, scale.spread, scale.error, CUBE)
    alone = shallow.separate(rest, inside, span)
    far = CUBE / alone.directions.abs().amax(0)
    fitted = shallow.name(alone.within(rest), ("tanh",), far)
    return torch.cat([alone.rows * fitted.rates[:, None], fitted.places[:, None]], 1)


def _fitted(sums: Questions, offsets: torch.Tensor, second: torch.Tensor) -> Layers:
    """The network by the sums of the first layer, after a fit.

    The first fit leaves out the directions of the first layer, which are right to 1e-13; the second takes a step of all weights.
    """
    width = sums.inputs
    eye = torch.eye(width, dtype=offsets.dtype, device=offsets.device)
    hidden = Layers((torch.cat([eye, offsets[:, None]], 1), second), "tanh")
    outputs = sums(torch.zeros(1, width, dtype=offsets.dtype, device=offsets.device)).shape[1]
    upper = second.numel() + outputs * (len(second) + 1)
    queries = BREADTH * sums.normal(int(EQUATIONS * (upper + width * (width + 1)) / outputs) + 2 * width, width)
    answers = sums(queries)
    some = int(EQUATIONS * (upper + 2 * width) / outputs) + 2 * width
    network = hidden.followed_by(fit_outputs(hidden.activations(queries[:some]), answers[:some]).T.contiguous())
    free = torch.cat([eye, torch.ones_like(offsets)[:, None]], 1)
    return polish(polish(network, queries[:some], answers[:some], (free,)).layers, queries, answers).layers

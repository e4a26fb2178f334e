"""The normal equations of fully connected networks, from the derivatives of their outputs by the weighted sums of each layer.

The derivatives by the weights are products: of the derivative `b_ok` of output o by the sum of neuron k, and of the input `x_i` of its
layer. So the elements of J'J are sums over the examples of `g_km x_i y_j`, with `g_km = sum_o b_ok c_om` for neurons k and m of two layers
with inputs x and y. Summed over outputs first, they cost as much for ten outputs as for one. For 64-16-10, 4,892 examples, this takes
a tenth of the time that forming J row by row takes.

Symbols: n networks, B examples, O outputs, K neurons and I inputs of a layer, P weights and biases of a network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from models.activation_functions import value_and_slope
from models.mlp import with_ones

CHUNK_VALUES = 2**23  # values in memory at a time
PRODUCT_COST = 50  # of an element-wise product, in multiply-adds of a product of matrices, which wait less for memory


@dataclass(frozen=True)
class Derivatives:
    """What the normal equations need of some examples.

    Attributes:
        inputs: of each affine layer, with a one for the bias, `[n, B, I + 1]`.
        slopes: the derivatives of the activation function in each hidden layer, `[n, B, K]`.
        backs: the derivatives of the outputs by the weighted sums of each hidden layer, `[n, B, O, K]`. Those of the output layer are one.
    """

    inputs: list[torch.Tensor]
    slopes: list[torch.Tensor]
    backs: list[torch.Tensor]


def derivatives(layers: Sequence[torch.Tensor], activation: Callable[[torch.Tensor], torch.Tensor], examples: torch.Tensor) -> Derivatives:
    """The derivatives of networks with the layers `[n, K, I + 1]`, the bias last, for examples `[B, I]`."""
    networks = len(layers[0])
    inputs, slopes = [with_ones(examples.expand(networks, *examples.shape))], []
    for layer in layers[:-1]:
        values, slope = value_and_slope(activation, inputs[-1] @ layer.mT)
        inputs.append(with_ones(values))
        slopes.append(slope)
    backs: list[torch.Tensor] = []
    for layer, slope in zip(layers[:0:-1], slopes[::-1], strict=True):
        weights = layer[:, None, :, :-1]
        backs.insert(0, (backs[0] @ weights if backs else weights) * slope[:, :, None, :])
    return Derivatives(inputs, slopes, backs)


def normal_equations(
    layers: Sequence[torch.Tensor],
    activation: Callable[[torch.Tensor], torch.Tensor],
    examples: torch.Tensor,
    residuals: torch.Tensor,
    places: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """J'J `[n, P, P]` and J'r `[n, P, 1]`.

    Args:
        layers: the incoming vectors of each layer, the bias last; the output layer is the last one.
        activation: of the hidden layers.
        examples: `[B, I]`.
        residuals: `[n, B, O]`.
        places: of the P weights and biases in the order of the layers, each one row by row.
    """
    networks, outputs = len(residuals), residuals.shape[2]
    sizes = [layer[0].numel() for layer in layers]
    count, hidden = sum(sizes), sum(layer.shape[1] for layer in layers[:-1])
    square, gradient = residuals.new_zeros(networks, count, count), residuals.new_zeros(networks, count, 1)
    sums_first = count + PRODUCT_COST * hidden < 2 * outputs * count
    chunk = max(1, CHUNK_VALUES // (networks * (count + outputs * hidden if sums_first else count * outputs)))
    for part, errors in zip(examples.split(chunk), residuals.split(chunk, 1), strict=True):
        local = derivatives(layers, activation, part)
        gradient += _gradient(local, errors)
        if sums_first:
            _add_blocks(square, local, sizes)
            _add_last_blocks(square, local, layers[-1], sizes)
        else:
            rows = _rows(local, outputs)
            square.baddbmm_(rows.mT, rows)
    rows, columns = (
        (torch.minimum(places[:, None], places), torch.maximum(places[:, None], places)) if sums_first else (places[:, None], places)
    )
    chosen = (rows * count + columns).flatten()
    return square.flatten(1).index_select(1, chosen).view(networks, len(places), len(places)), gradient[:, places]


def _gradient(local: Derivatives, errors: torch.Tensor) -> torch.Tensor:
    """J'r of some examples, `[n, P, 1]`."""
    backs = [*((errors[:, :, None] @ back)[:, :, 0] for back in local.backs), errors]
    return torch.cat([(back.mT @ inputs).flatten(1) for back, inputs in zip(backs, local.inputs, strict=True)], 1)[:, :, None]


def _rows(local: Derivatives, outputs: int) -> torch.Tensor:
    """J of some examples, `[n, B O, P]`."""
    networks, examples, _ = local.inputs[0].shape
    last = torch.eye(outputs).to(local.inputs[0]).expand(networks, examples, outputs, outputs)
    pairs = zip([*local.backs, last], local.inputs, strict=True)
    return torch.cat([(back[..., None] * inputs[:, :, None, None]).flatten(3) for back, inputs in pairs], 3).flatten(1, 2)


def _add_blocks(square: torch.Tensor, local: Derivatives, sizes: list[int]) -> None:
    """Adds the blocks of J'J on and above the diagonal, neuron by neuron, but for those of `_add_last_blocks`."""
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    for depth, (back, inputs) in enumerate(zip(local.backs[:-1], local.inputs[:-2], strict=True)):
        fan_in = inputs.shape[2]
        for other in range(depth, len(sizes)):
            weights = back.mT @ local.backs[other] if other < len(local.backs) else back.mT
            for neuron in range(back.shape[3]):
                first = neuron if other == depth else 0
                products = weights[:, :, neuron, first:, None] * local.inputs[other][:, :, None]
                row, column = starts[depth] + neuron * fan_in, starts[other] + first * local.inputs[other].shape[2]
                square[:, row : row + fan_in, column : starts[other] + sizes[other]] += inputs.mT @ products.flatten(2)


def _add_last_blocks(square: torch.Tensor, local: Derivatives, last: torch.Tensor, sizes: list[int]) -> None:
    """Adds the blocks of the last two layers on and above the diagonal.

    The derivatives of the outputs by the sums of the last hidden layer are its slopes times the weights of the output layer `last`
    `[n, O, K + 1]`, which are the same for all examples and come last.
    """
    above, end = local.inputs[-1], square.shape[1]
    start = end - sizes[-1]
    if local.slopes:
        fan_in, first = local.inputs[-2].shape[2], start - sizes[-2]
        weights = last[:, :, :-1]
        pairs = (weights.mT @ weights).repeat_interleave(fan_in, 2)
        rows = (local.slopes[-1][..., None] * local.inputs[-2][:, :, None]).flatten(2)
        for neuron in range(weights.shape[2]):
            left, place = rows[:, :, neuron * fan_in : (neuron + 1) * fan_in].mT, first + neuron * fan_in
            products = (left @ rows[:, :, neuron * fan_in :]) * pairs[:, neuron, None, neuron * fan_in :]
            square[:, place : place + fan_in, place:start] += products
            products = (left @ above)[:, :, None] * weights[:, None, :, neuron, None]
            square[:, place : place + fan_in, start:] += products.flatten(2)
    block = above.mT @ above
    for place in range(start, end, above.shape[2]):
        square[:, place : place + above.shape[2], place : place + above.shape[2]] += block

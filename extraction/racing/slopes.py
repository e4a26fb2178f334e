"""The slope of leaky_relu, from an exact network with another slope and more neurons.

A network of leaky_relu with a slope s is also a network of relu, or of leaky_relu with any other slope: the function is
`(1 - s)/2 |z| + (1 + s)/2 z`, so that every neuron has a kink, and all neurons together add a linear map, which pairs of opposite neurons
or units that no query switches give with any slope. Such a network gives every answer, and has more neurons than the one with the right
slope. It shows that slope.

Axes: K neurons of a layer, D inputs, L units of the next layer, M kinks, Q queries.
"""

from __future__ import annotations

import torch

from extraction.network import Layers
from extraction.signs import with_signs
from models.slopes import slope_of, with_slope

SAME = 1e-6  # the distance of unit vectors up to sign, up to which neurons have the same kink
NO_KINK = 1e-7  # a kink below this share of the largest is none
AGREE = 1e-6  # the relative difference of the estimates from different neurons, up to which they agree
MOST_SIGNS = 14  # kinks of a layer whose signs are all tried
DIGITS = 17  # of the estimate, at most


def better_act_fun(layers: Layers, queries: torch.Tensor) -> str | None:
    """The activation function with which the same network has fewer neurons: relu, or leaky_relu with a slope; None where there is none.

    Args:
        layers: of a network that gives all answers exactly, the output layer last.
        queries: `[Q, inputs]`.
    """
    slope = slope_of(layers.act_fun)
    if slope is None:
        return None
    estimates, excess = [], 0
    for depth in range(1, len(layers)):
        layer = layers.replace(*layers.vectors[:depth])
        incoming, active = layer.vectors[-1], layer.pre_activations(queries) > 0
        found = ratios(incoming, layers.vectors[depth][:, :-1], active, slope)
        if found is None:
            return None
        estimates.append(found)
        excess += len(incoming) - len(found)
    ratio = torch.cat(estimates).abs()
    spread = float(ratio.max() - ratio.min())
    if excess == 0 or spread > AGREE * float(ratio.mean()):
        return None
    mean = float(ratio.mean())
    estimate = (mean - 1) / (mean + 1)
    tolerance = max(spread, 1e-12)
    return None if estimate < -tolerance else with_slope(rounded(max(0.0, estimate), tolerance))


def ratios(incoming: torch.Tensor, outgoing: torch.Tensor, active: torch.Tensor, slope: float) -> torch.Tensor | None:
    """What each kink of a layer says of the slope s: `(1 + s) / (1 - s)`, up to a sign, `[M]`.

    The layer adds `sum_m D_m |z_m| + B x + constant` to the next one. With the slope s and signs o,
    `B = (1 + s) / (1 - s) sum_m o_m D_m w_m'`, so that least squares give the factor of every kink, if the next layer is wide enough.

    Args:
        incoming: `[K, D + 1]`, the bias last.
        outgoing: `[L, K]`.
        active: whether the neuron is above its kink, for each query, `[Q, K]`. Neurons that no query switches add a linear map alone.
        slope: of the activation function.

    Returns:
        None where the layer has no kink, or no slope gives the linear map.
    """
    lengths = incoming.norm(dim=1)
    if not bool((lengths > 0).all()):
        return None
    units, outgoing = incoming / lengths[:, None], outgoing * lengths
    always, never = active.all(0), ~active.any(0)
    slopes = torch.where(always, 1.0, torch.where(never, slope, (1 + slope) / 2))
    linear = (outgoing * slopes) @ units[:, :-1]
    units, outgoing = units[~(always | never)], outgoing[:, ~(always | never)]
    kinks: list[torch.Tensor] = []
    jumps: list[torch.Tensor] = []
    for unit, jump in zip(units, (1 - slope) / 2 * outgoing.T, strict=True):
        place = next((place for place, other in enumerate(kinks) if min((unit - other).norm(), (unit + other).norm()) <= SAME), None)
        if place is None:
            kinks.append(unit)
            jumps.append(jump)
        else:
            jumps[place] = jumps[place] + jump
    largest = max((float(jump.norm()) for jump in jumps), default=0.0)
    kept = [place for place, jump in enumerate(jumps) if float(jump.norm()) > NO_KINK * largest]
    if not kept:
        return None
    maps = torch.stack([torch.outer(jumps[place], kinks[place][:-1]).flatten() for place in kept], 1)
    determined = len(kept) <= len(maps) and int(torch.linalg.matrix_rank(maps)) == len(kept)
    if not determined and len(kept) > MOST_SIGNS:
        return None
    found = torch.linalg.lstsq(maps, linear.flatten()[:, None]).solution[:, 0] if determined else with_signs(maps, linear.flatten())
    missed = float((maps @ found - linear.flatten()).norm())
    return found if missed <= AGREE * float(linear.norm()) else None


def rounded(value: float, tolerance: float) -> float:
    """The number with the fewest digits within a tolerance."""
    candidates = (0.0, *(float(f"{value:.{digits}g}") for digits in range(1, DIGITS + 1)))
    return next(number for number in candidates if abs(number - value) <= tolerance)

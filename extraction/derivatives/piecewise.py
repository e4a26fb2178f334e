"""Networks of relu or leaky relu: which way suits them.

| network | way |
|---|---|
| one hidden layer, one or two outputs | `kinks`: 784-128-1 takes 224,880 queries; the space that gradients span would take half of them |
| one hidden layer with more neurons than inputs | `kinks`, which needs no space of gradients |
| one hidden layer, more outputs | `peeling`: one gradient has as many rows as there are outputs |
| more hidden layers | `peeling` |
"""

from __future__ import annotations

import torch

from extraction.derivatives import kinks, peeling
from extraction.derivatives.differences import Scale
from extraction.derivatives.grounds import Ground, is_deep
from extraction.derivatives.questions import Questions
from extraction.derivatives.result import Lacking
from extraction.network import Layers

FEW = 2  # outputs


def recover(asked: Questions, scale: Scale) -> Layers:
    """The network, the output layer last.

    Raises:
        Lacking: it is no network of relu or leaky relu, or has a layer that is wider than the one before, and more than one hidden layer.
    """
    if is_deep(Ground(asked, scale)):
        return peeling.recover(asked, scale, peeling.span_of(asked, scale))
    if len(scale.spread) > FEW:
        span = peeling.span_of(asked, scale)
        return _by_kinks(asked, scale) if span.is_full else peeling.recover(asked, scale, span)
    try:
        return _by_kinks(asked, scale)
    except Lacking as reason:
        span = peeling.span_of(asked, scale)
        if span.is_full:  # there may be more neurons than inputs
            raise reason
        return peeling.recover(asked, scale, span)


def _by_kinks(asked: Questions, scale: Scale) -> Layers:
    """A network of one hidden layer; after a fit where no neuron can be moved alone, so that `kinks` measures each only between others."""
    network = kinks.recover(asked, scale)
    if network.sizes[1] <= network.sizes[0]:
        return network
    scaled = asked.through(lambda points: scale.radius * points, asked.inputs)
    factors = torch.ones_like(network.vectors[0])
    factors[:, :-1] = scale.radius
    fitted = peeling.fitted(scaled, network.replace(network.vectors[0] * factors))
    return fitted.replace(fitted.vectors[0] / factors, fitted.vectors[1])

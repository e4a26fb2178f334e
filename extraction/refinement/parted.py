"""Neurons that were found in two parts: each shows for some queries, and is constant for those that show the other.

With inputs such as 0 and 1 a neuron may take part for all values of a category, and students hold it as two neurons: one of them saturates
for a part of the categories and the other for the rest. Both have the same weights to the next layer, and the same from all inputs that are
no categories. One neuron that has the weighted sums of both, each where it shows, takes their place.

Axes: Q queries, K neurons of a layer, D inputs with the bias last, L units of the next layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch

from extraction.fitting import fit_or_none, gives_answers, relative_loss
from extraction.network import Layers, fit_outputs
from extraction.refinement.selection import Candidate
from extraction.session import Session
from models.mlp import with_ones

NEARLY = 1e-6  # the relative loss of a network up to which its neurons may be parts
ALIKE = 1e-2  # the largest distance between the directions of the outgoing weights of two parts
SHOWS = 1e-4  # the share of the largest slope of a neuron from which it shows
BOTH = 0.02  # the share of the queries that may show both parts
MISSED = 0.1  # the largest error of the common weighted sum, as a share of its spread


def united(session: Session, best: Candidate, location: str) -> Candidate:
    """The network with one neuron for two parts, as long as it then gives the answers as well or exactly.

    Args:
        session: the extraction.
        best: the network.
        location: the path that the folders of the fits begin with.
    """
    recovered, fitted = best
    trials = 0
    while (loss := relative_loss(fitted.network, session.loaders.train)) <= NEARLY:
        for layers in unions(Layers.of(fitted.network), session.queries):
            trials += 1
            trial = fit_or_none(session, layers, f"{location}_united_{trials}")
            if trial is None:
                continue
            if gives_answers(session, trial.network) or relative_loss(trial.network, session.loaders.train) <= loss:
                fitted = dataclasses.replace(trial, before=fitted.before)
                break
        else:
            break
    return recovered, fitted


@torch.no_grad()
def unions(layers: Layers, queries: torch.Tensor) -> Iterator[Layers]:
    """The layers of a network with one neuron for each pair that may be two parts, the output layer last.

    Args:
        layers: of the network.
        queries: `[Q, inputs]`.
    """
    for depth in range(1, len(layers)):
        below = layers.replace(*layers.vectors[: depth - 1])
        inputs = below.activations(queries)
        layer, following = layers.vectors[depth - 1 : depth + 1]
        sums = with_ones(inputs) @ layer.T
        shown = _shown(layers, sums)
        wanted = with_ones(layers.activation(sums)) @ following.T
        for first in range(len(layer)):
            for second in range(first + 1, len(layer)):
                factor = _factor(layers, following[:, first], following[:, second])
                common = _common(inputs, sums[:, [first, second]], shown[:, [first, second]], factor) if factor else None
                if common is None:
                    continue
                kept = [place for place in range(len(layer)) if place not in (first, second)]
                together = torch.cat([layer[kept], common[None]])
                outgoing = fit_outputs(layers.activation(with_ones(inputs) @ together.T), wanted).T
                yield below.followed_by(together, outgoing, *layers.vectors[depth + 1 :])


def _shown(layers: Layers, sums: torch.Tensor) -> torch.Tensor:
    """Which queries show which neuron, for weighted sums `[Q, K]`: where it is not flat."""
    with torch.enable_grad():
        moved = sums.clone().requires_grad_()
        (slopes,) = torch.autograd.grad(layers.activation(moved).sum(), [moved])
    return slopes.abs() > SHOWS * slopes.abs().amax(0)


def _factor(layers: Layers, first: torch.Tensor, second: torch.Tensor) -> float:
    """The factor of the weighted sum of a second neuron that makes the outgoing weights `[L]` of both the same; 0 if none does."""
    sizes, product = (first.norm(), second.norm()), first @ second
    scale = float(sizes[1] / sizes[0]) if layers.symmetry.positive_scaling else 1.0
    sign = -1.0 if product < 0 and layers.symmetry.opposite_is_equal else 1.0
    return sign * scale if bool((first - sign * second / scale).norm() <= ALIKE * sizes[0]) else 0.0


def _common(inputs: torch.Tensor, sums: torch.Tensor, shown: torch.Tensor, factor: float) -> torch.Tensor | None:
    """The incoming vector `[D]` of a neuron with the sums `[Q, 2]` of two parts, each where it is shown `[Q, 2]`; None for others."""
    if shown.all(1).double().mean() > BOTH or not shown.any(0).all():
        return None
    wanted = torch.where(shown[:, 0], sums[:, 0], factor * sums[:, 1])[shown.any(1), None]
    features = inputs[shown.any(1)]
    common = fit_outputs(features, wanted)
    missed = (with_ones(features) @ common - wanted).square().mean().sqrt()
    return common[:, 0] if bool(missed <= MISSED * wanted.std(0)[0]) else None

"""The facts that a diagnosis rests on (`extraction/reporting/diagnosis.py`), from the students and the recovered network.

Axes: Q queries, K neurons of a layer.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch

from extraction.fitting import relative_loss
from extraction.network import Layers, unknowns_of
from extraction.preparation.scaling import USUAL_FACTOR
from extraction.refinement import linear_term
from extraction.reporting.diagnosis import Facts, Unit, hidden_widths
from extraction.session import Session
from models.mlp import FullyConnected
from models.students import Model as Students


def of_students(session: Session, losses: Sequence[float], held_out_losses: Sequence[float]) -> Facts:
    """What is known before a network is recovered.

    Args:
        session: the extraction.
        losses: of the students.
        held_out_losses: of the students, on the held-out queries.
    """
    name = session.desc.model_hparams.model_name
    best = min(range(len(losses)), key=lambda place: losses[place] if math.isfinite(losses[place]) else math.inf)
    variance = float(session.answers.var(0).mean()) or 1.0
    parsed = Students.parse(name)
    assert parsed is not None
    family, _, single = parsed
    inputs, *widths, outputs = family.layer_sizes(single)
    sizes = [inputs, *(-(-width // USUAL_FACTOR) for width in widths), outputs]
    return Facts(
        students=name,
        act_fun=session.act_fun,
        best_loss=losses[best] / variance,
        best_held_out_loss=held_out_losses[best] / variance,
        found=(),
        error=None,
        held_out_error=None,
        held_out=len(session.loaders.test.examples),
        queries=len(torch.unique(session.queries, dim=0)),
        outputs=session.answers.shape[1],
        unknowns=sum((before + 1) * after for before, after in zip(sizes[:-1], sizes[1:], strict=True)),
        datagen=session.desc.dataset_hparams.datagen,
        widths=hidden_widths(session.students_hparams.model_name),
        is_trained_to_the_end=session.is_scarce and session.desc.training_hparams.polish_optimizer is None,
    )


def of_network(facts: Facts, session: Session, network: FullyConnected) -> Facts:
    """The facts of the students, with those of the network that was recovered from them."""
    units = units_on_one_side(network, torch.unique(session.queries, dim=0))
    unknowns = unknowns_of(network)
    errors: list[float | None] = [None, None]
    if linear_term.is_possible(network.act_fun) and session.linear_term is None:
        errors = [loss**0.5 for loss in linear_term.gain(Layers.of(network), session.queries, session.answers)]
    return dataclasses.replace(
        facts,
        found=network.sizes[1:-1],
        error=relative_loss(network, session.loaders.train) ** 0.5,
        held_out_error=relative_loss(network, session.loaders.test) ** 0.5,
        unknowns=max(unknowns, facts.unknowns if facts.misses_held_out_answers else 0),
        units=units,
        weights=max((network.sizes[unit.layer - 1] + 1 for unit in units), default=0),
        without_map=errors[0],
        beside_map=errors[1],
    )


@torch.no_grad()
def units_on_one_side(network: FullyConnected, queries: torch.Tensor) -> list[Unit]:
    """The units of a network with a kink that fewer queries `[Q, inputs]` than they have weights leave on one side of it.

    Activation functions without a kink have none.
    """
    layers, units = Layers.of(network), []
    for depth in range(1, len(layers) if layers.symmetry.positive_scaling else 0):
        active = (layers.replace(*layers.vectors[:depth]).pre_activations(queries) > 0).sum(0).tolist()
        fewest = layers.sizes[depth - 1] + 1
        units += [Unit(depth, place, count) for place, count in enumerate(active) if min(count, len(queries) - count) < fewest]
    return units

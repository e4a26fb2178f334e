"""A live teacher's network from derivatives: the one entry of this package."""

from __future__ import annotations

from collections.abc import Sequence

from extraction.derivatives import shallow
from extraction.derivatives.differences import Scale, measure
from extraction.derivatives.profiles import SMOOTH
from extraction.derivatives.questions import BudgetSpent, Questions
from extraction.derivatives.result import Lacking, Recovery
from extraction.derivatives.subspace import gradient_span
from extraction.network import Layers

FRESH = 200  # queries that confirm a network
CONFIRMED = 1e-9  # its largest error on them, as a share of the spread of the outputs, where the answers are exact


def recover(asked: Questions, candidates: Sequence[str] = SMOOTH) -> Recovery:
    """The network of a live teacher, as far as derivatives find it.

    Args:
        asked: the teacher; any input may be asked.
        candidates: the activation functions that it may have.
    """
    stages: list[tuple[str, int]] = []
    layers = None

    def done(stage: str) -> None:
        stages.append((stage, asked.count.asked - sum(queries for _, queries in stages)))

    try:
        scale = measure(asked)
        done("scale")
        span = gradient_span(asked, scale, lambda count: scale.radius * asked.normal(count, asked.inputs))
        done("gradients")
        layers = shallow.recover(asked, scale, span, candidates)
        done("network")
        error = confirmed(asked, scale, layers)
        lacks: tuple[str, ...] = ()
        done("confirmation")
    except (Lacking, BudgetSpent) as reason:
        layers, error, lacks = None, float("inf"), (str(reason),)
    return Recovery(layers, error, lacks, None, asked.count.asked, tuple(stages))


def confirmed(asked: Questions, scale: Scale, layers: Layers) -> float:
    """The error of a network on fresh queries.

    Raises:
        Lacking: it is too large.
    """
    queries = scale.radius * asked.normal(FRESH, asked.inputs)
    errors = (layers.pre_activations(queries) - asked(queries)) / scale.spread
    error = float(errors.square().mean().sqrt())
    if not error <= max(CONFIRMED, 10 * scale.relative_error):
        raise Lacking(f"the network differs from the teacher by {error:.0e} of the spread of the outputs on fresh queries")
    return error

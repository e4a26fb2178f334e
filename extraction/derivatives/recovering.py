"""A live teacher's network from derivatives: the one entry of this package."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch

from extraction.derivatives import from_afar, kinks, piecewise, saturating, shallow, transitions, upper, widening
from extraction.derivatives.differences import Scale, measure
from extraction.derivatives.profiles import SMOOTH
from extraction.derivatives.questions import BudgetSpent, Questions
from extraction.derivatives.result import Lacking, Recovery
from extraction.derivatives.subspace import Span, gradient_span
from extraction.network import Layers

FRESH = 100  # queries that confirm a network, at each distance
NOISE = 30.0  # the same where they are not, as a multiple of their relative error and of the distance, with which errors of weights grow
DISTANCES = (1.0, 10.0, 1e3)  # in radii: a neuron whose plane is far from the origin shows far out
ATTEMPTS = 10  # to find the first layer from afar
SAME = 1e-9  # 1 - |cos| of vectors of the same neuron
CONFIRMED = 1e-9  # its largest error on them, as a share of the spread of the outputs, where the answers are exact


def recover_inside(asked: Questions, domain: tuple[float, float], candidates: Sequence[str] = SMOOTH) -> Recovery:
    """The network of a live teacher whose inputs must stay between two bounds; see `recover`.

    The teacher is asked in coordinates of a cube with centre 0.
    """
    (low, high), inputs = domain, asked.inputs
    centre, half = (low + high) / 2, (high - low) / 2
    cube = asked.through(lambda points: (centre + half * points).clamp(low, high), inputs).limited(1.0)
    found = recover(cube, candidates)
    vectors = found.vectors
    if vectors is not None:
        vectors = torch.cat([vectors[:, :-1] / half, vectors[:, -1:] - centre / half * vectors[:, :-1].sum(1, keepdim=True)], 1)
    layers = found.layers
    if layers is not None:
        first = layers.vectors[0]
        bias = first[:, -1:] - centre / half * first[:, :-1].sum(1, keepdim=True)
        layers = layers.replace(torch.cat([first[:, :-1] / half, bias], 1), *layers.vectors[1:])
    return dataclasses.replace(found, layers=layers, vectors=vectors, radius=half * found.radius)


def recover(asked: Questions, candidates: Sequence[str] = SMOOTH) -> Recovery:
    """The network of a live teacher, as far as derivatives find it.

    Args:
        asked: the teacher; any input within its limit may be asked.
        candidates: the activation functions that it may have.
    """
    stages, scale = _Stages(asked), None
    try:
        scale = measure(asked)
        stages.end("scale")
        layers = _found(asked, scale, candidates, stages)
        stages.end("network")
        error = confirmed(asked, scale, layers)
        stages.end("confirmation")
        return Recovery(layers, error, (), None, asked.count.asked, tuple(stages.ended), scale.radius)
    except (Lacking, BudgetSpent) as reason:
        stages.end("unfinished")
        vectors = reason.vectors if isinstance(reason, Lacking) else None
        radius = scale.radius if scale else 1.0
        return Recovery(None, float("inf"), (str(reason),), vectors, asked.count.asked, tuple(stages.ended), radius)


class _Stages:
    """The queries of each stage."""

    def __init__(self, asked: Questions):
        self.count, self.before, self.ended = asked.count, asked.count.asked, []

    def end(self, name: str) -> None:
        """Ends a stage that began where the last one ended."""
        self.ended.append((name, self.count.asked - self.before))
        self.before = self.count.asked


def _found(asked: Questions, scale: Scale, candidates: Sequence[str], stages: _Stages) -> Layers:
    """The network by whichever way suits it: by kinks, by jumps far out, or by second derivatives."""
    if kinks.is_piecewise_linear(asked, scale):
        if scale.is_bounded:
            raise Lacking("within a domain, networks of relu and leaky relu are not found yet")
        return _first_confirmed(asked, scale, (piecewise.recover, widening.recover))
    span = gradient_span(asked, scale, lambda count: scale.radius * asked.normal(count, asked.inputs))
    stages.end("gradients")
    if scale.is_bounded:
        return shallow.recover(asked, scale, span, candidates)
    try:
        network = _smooth(asked, scale, span, candidates)
        confirmed(asked, scale, network)
        return network
    except Lacking as reason:
        return _by_students(asked, scale, reason, candidates)


def _by_students(asked: Questions, scale: Scale, reason: Lacking, candidates: Sequence[str]) -> Layers:
    """The network by students of what is behind the first layer, where derivatives have found this layer alone."""
    if reason.vectors is None or not reason.act_fun:
        raise reason
    try:
        network = upper.recover(asked, scale, reason.vectors, reason.act_fun)
    except Lacking as other:
        raise Lacking(f"{reason}; {other}", reason.vectors) from None
    return as_candidate(network, candidates) if reason.act_fun == "tanh" else network


def _smooth(asked: Questions, scale: Scale, span: Span, candidates: Sequence[str]) -> Layers:
    """A network without kinks."""
    if transitions.saturates(asked, scale) and transitions.is_deep(span.within(asked), scale):
        return as_candidate(saturating.recover(asked, scale, span), candidates)
    try:
        return shallow.recover(asked, scale, span, candidates)
    except Lacking as reason:
        if from_afar.far_scale(asked, scale) is None:
            raise reason
        return _from_afar(asked, scale, span, candidates)


def _from_afar(asked: Questions, scale: Scale, span: Span, candidates: Sequence[str]) -> Layers:
    """A network of gelu, silu or softplus, or as much of it as other lines show where those before do not show a layer.

    Where only a first layer is found, it counts if other lines show the same: planes of deeper neurons may be taken for it.
    """
    claims: list[torch.Tensor] = []
    while True:
        try:
            return _confirmed_from_afar(asked, scale, span, candidates)
        except Lacking as reason:
            is_repeated = reason.act_fun and reason.vectors is not None and any(_is_same(reason.vectors, each) for each in claims)
            claims.append(asked.normal(0, asked.inputs + 1) if reason.vectors is None or not reason.act_fun else reason.vectors)
            if is_repeated or span.is_full or len(claims) == ATTEMPTS:
                raise


def _confirmed_from_afar(asked: Questions, scale: Scale, span: Span, candidates: Sequence[str]) -> Layers:
    """A network of gelu, silu or softplus that gives the answers."""
    network = from_afar.recover(asked, scale, span, candidates)
    try:
        confirmed(asked, scale, network)
    except Lacking as reason:
        raise Lacking(str(reason), network.vectors[0] if len(network) > 2 else None, network.act_fun) from None
    return network


def _is_same(layer: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two first layers `[K, d + 1]` have the same neurons, in any order and up to signs."""
    if len(layer) != len(other):
        return False
    rows, others = (torch.nn.functional.normalize(each[:, :-1], dim=1) for each in (layer, other))
    return bool((1 - (rows @ others.T).abs().amax(1) <= SAME).all())


def _first_confirmed(asked: Questions, scale: Scale, ways: Sequence[Callable[[Questions, Scale], Layers]]) -> Layers:
    """The network that one of some ways finds and that gives the answers; the reasons of all of them where there is none."""
    reasons = []
    for way in ways:
        try:
            layers = way(asked, scale)
            confirmed(asked, scale, layers)
            return layers
        except Lacking as reason:
            reasons.append(reason)
    vectors = next((reason.vectors for reason in reasons if reason.vectors is not None), None)
    raise Lacking("; ".join(map(str, reasons)), vectors)


def as_candidate(network: Layers, candidates: Sequence[str]) -> Layers:
    """A network of tanh, or the equal one of sigmoid where that is a candidate and tanh is not: `tanh(x) = 2 sigmoid(2 x) - 1`.

    Raises:
        Lacking: neither is a candidate.
    """
    if "tanh" in candidates:
        return network
    if "sigmoid" not in candidates:
        raise Lacking("the hidden layers are those of tanh or sigmoid, which are no candidates")
    vectors = [*(2 * each for each in network.vectors[:-1]), network.vectors[-1]]
    for depth in range(1, len(vectors)):
        weights, bias = vectors[depth][:, :-1], vectors[depth][:, -1:]
        vectors[depth] = torch.cat([2 * weights, bias - weights.sum(1, keepdim=True)], 1)
    return Layers(tuple(vectors), "sigmoid")


def confirmed(asked: Questions, scale: Scale, layers: Layers) -> float:
    """The error of a network on fresh queries.

    Raises:
        Lacking: it is too large.
    """
    worst = 0.0
    for distance in DISTANCES:
        queries = distance * scale.radius * asked.normal(FRESH, asked.inputs)
        if scale.is_bounded:
            queries = scale.limit * asked.uniform(FRESH, asked.inputs)
        answers = asked(queries)
        errors = (layers.pre_activations(queries) - answers) / answers.std(0).clamp_min(1e-300)
        error = float(errors.square().mean().sqrt())
        if not error <= max(CONFIRMED, NOISE * distance * scale.relative_error):  # true for nan
            raise Lacking(f"the network differs from the teacher by {error:.0e} of the spread of the outputs on fresh queries")
        worst = max(worst, error)
    return worst

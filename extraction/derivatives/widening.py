"""Networks of relu or leaky relu with layers of any widths, from the bent surfaces of their kinks (`surfaces`).

Layer by layer, kinks on random lines that no known layer explains are followed along their surfaces, until each shows a neuron of the next
layer, or that it belongs to a later one. The linear part of each neuron's weighted sum gives the signs of the layer before, and the slope
of the activation function. Where known layers explain all kinks, least squares give the output layer, and Gauss-Newton takes everything to
the rounding floor.

Axes: d inputs, m neurons, F features, o outputs.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from extraction.derivatives import peeling
from extraction.derivatives.differences import Scale
from extraction.derivatives.grounds import Ground
from extraction.derivatives.kinks import named_slope
from extraction.derivatives.lines import find_kinks
from extraction.derivatives.questions import Questions
from extraction.derivatives.result import Lacking
from extraction.derivatives.shallow import Sums, widen
from extraction.derivatives.surfaces import Features, follow, is_predicted, unexplained
from extraction.network import Layers
from extraction.signs import all_signs, with_signs
from models.mlp import with_ones

WIDEST = 24  # dimensions of the space that gradients span: with more, surfaces are followed for hours
DEPTH = 6  # hidden layers, at most
AGAIN = 3  # times the output layer is fitted, each after more lines
LINES, IDLE, LAST = 48, 4, 20  # at most for a layer, and so many in a row that show no new neuron, and no kink that is not explained
SAME = 1e-6  # 1 - |cos| of vectors of the same neuron
POINTS = 4  # for each feature, at which the output layer is fitted
MISSED = 1e-6  # its largest error, as a share of the spread of answers
MOST_SIGNS = 14  # of a layer, which are all tried where least squares do not give them
SHARES = (0.97, 0.75)  # of the predicted kinks of a neuron that are there: of relu, not all are
AGREE = 1e-6  # relative errors of a linear part
RATIO = 1e-4  # the largest error of (1 + a) / (1 - a)


def recover(asked: Questions, scale: Scale) -> Layers:
    """The network, the output layer last.

    Args:
        asked: the teacher.
        scale: of its inputs and answers.

    Raises:
        Lacking: it is no network of relu or leaky relu, not all of its neurons were found, or it is large.
    """
    span = peeling.span_of(asked, scale)
    if span.rank > WIDEST:
        raise Lacking(f"layers that widen are looked for up to {WIDEST} dimensions, and gradients have rank {span.rank}")
    inner = asked.within(torch.zeros_like(span.basis[:, 0]), scale.radius * span.basis)
    hidden = _nearly(Ground(inner, Scale(1.0, scale.spread, scale.error))).all_but_last
    first = hidden.vectors[0]
    if len(first) == span.rank:
        rows = first[:, :-1]
        sums = Sums(scale.radius * span.basis @ torch.linalg.inv(rows), rows @ span.basis.T / scale.radius, first[:, -1])
        eye = torch.eye(len(first), len(first) + 1, dtype=first.dtype, device=first.device)
        return widen(asked, scale, sums, peeling.fitted(sums.within(asked), hidden.replace(eye, *hidden.vectors[1:])))
    fitted = peeling.fitted(inner, hidden)
    weights, bias = fitted.vectors[0][:, :-1], fitted.vectors[0][:, -1:]
    return fitted.replace(torch.cat([weights @ span.basis.T / scale.radius, bias], 1), *fitted.vectors[1:])


def _nearly(ground: Ground) -> Layers:
    """The network of a function: if need be, as one of relu, whose kinks do not show everywhere."""
    for share in SHARES[:-1]:
        try:
            return layers_of(ground, share)
        except Lacking:
            pass
    return layers_of(ground, SHARES[-1])


def layers_of(ground: Ground, share: float = SHARES[0]) -> Layers:
    """The network of a function, nearly, the output layer last.

    Args:
        ground: the function.
        share: the least share of predicted kinks that are there.
    """
    features = Features()
    for _ in range(DEPTH):
        features, layer = _layer(ground, features, share)
        if not len(layer.vectors):
            break
        for _ in range(AGAIN if layer.is_last else 0):
            known = dataclasses.replace(features, unsigned=layer.vectors)
            try:
                complete, outputs = _signed(known, _outputs(ground, known))
                return Layers((*complete.signed, outputs), named_slope(complete.slope))
            except Lacking:  # there may be a surface that few lines cross
                layer = next_layer(ground, features, list(layer.vectors), share)
        features = dataclasses.replace(features, unsigned=layer.vectors)
    raise Lacking(f"{len(features.signed) + (features.unsigned is not None)} hidden layers were found, and kinks of others are left")


def _layer(ground: Ground, features: Features, share: float) -> tuple[Features, Layer]:
    """The known layers with all signs, as far as these show, and the next layer over their features."""
    layer = next_layer(ground, features, [], share)
    if features.unsigned is None or not (len(layer.vectors) or features.signed):
        return features, layer
    if not len(layer.vectors):
        features = _signed_by(features, layer.surfaces)
        return features, next_layer(ground, features, [], share)
    features, found = _signed(features, layer.vectors)
    if layer.is_last:
        return features, Layer(found, [], True)
    return features, next_layer(ground, features, list(found), share)  # neurons that do not cross all surfaces of the layer before show


@dataclass(frozen=True)
class Layer:
    """Neurons of a layer.

    Attributes:
        vectors: over the features, `[m, F + 1]`.
        surfaces: bases `[n, F + 1]` of vectors of which one is a neuron's, as far as its surface shows.
        is_last: whether they explain all kinks of some lines.
    """

    vectors: torch.Tensor
    surfaces: list[torch.Tensor]
    is_last: bool


def next_layer(ground: Ground, features: Features, found: list[torch.Tensor], share: float) -> Layer:
    """The neurons of the next layer, of which some may be known."""
    none = ground.asked.normal(0, features.at(ground.asked.normal(1, ground.asked.inputs))[0].shape[1] + 1)
    idle, is_last, surfaces = 0, True, []
    for _ in range(LINES):
        kinks = find_kinks(ground.asked, ground.line(), ground.scale, ground.precision)
        gained, left = False, 0
        for number in unexplained(kinks, features, torch.stack(found) if found else none).tolist():
            vectors = follow(ground, features, kinks, number)
            candidates = [] if vectors is None else [vectors[0]] if len(vectors) == 1 else _shared(vectors, surfaces)
            if vectors is not None and len(vectors) > 1:
                surfaces.append(vectors)
            for candidate in candidates:
                if _is_new(candidate, found) and is_predicted(ground, features, candidate, share):
                    found.append(candidate)
                    gained = True
                    break
            else:
                left += 1
        idle, is_last = (0, True) if gained else (idle + 1, is_last and not left)
        if idle == (LAST if is_last else IDLE):
            break
    return Layer(torch.stack(found) if found else none, surfaces, is_last)


def _shared(vectors: torch.Tensor, surfaces: list[torch.Tensor]) -> list[torch.Tensor]:
    """The vectors that one basis `[n, F + 1]` shares with one of some others, where it shares one alone, `[F + 1]` each.

    Two parts of a neuron's surface that cross those of different neurons of the layer before leave different weights open.
    """
    basis = torch.linalg.qr(vectors.T)[0]
    shared = []
    for other in surfaces:
        left, sizes, _ = torch.linalg.svd(basis.T @ torch.linalg.qr(other.T)[0], full_matrices=False)
        if int((1 - sizes <= SAME).sum()) == 1:
            shared.append(basis @ left[:, 0])
    return shared


def _is_new(vector: torch.Tensor, found: list[torch.Tensor]) -> bool:
    """Whether a neuron is none of those found."""
    return all(float(1 - (vector @ other).abs() / (vector.norm() * other.norm())) > SAME for other in found)


def _signed(features: Features, found: torch.Tensor) -> tuple[Features, torch.Tensor]:
    """The known layers with all signs, and neurons `[m, F + 1]` of the next one, which show them, over the outputs of the last of these."""
    before = features.unsigned
    assert before is not None
    count = len(before)
    bends, linear, bias = found[:, :count], found[:, count:-1], found[:, -1]
    ratios = _ratios(bends, linear, before[:, :-1])
    ratio = float(ratios.abs().mean())
    if float((ratios.abs() - ratio).abs().max()) > RATIO * ratio:
        raise Lacking("the slopes of the neurons of a layer are not the same")
    slope, signs = max((ratio - 1) / (ratio + 1), 0.0), ratios.sign()
    signed = before * signs[:, None]
    weights = 2 / (1 - slope) * bends
    bias = bias - (1 + slope) / 2 * weights @ signed[:, -1]
    return Features((*features.signed, signed), None, slope), torch.cat([weights, bias[:, None]], 1)


def _signed_by(features: Features, surfaces: list[torch.Tensor]) -> Features:
    """The known layers with all signs, from surfaces of the next layer which do not show its neurons.

    With the right signs o, some vector of each basis has the linear part `(1 + a) / (1 - a) sum_k o_k c_k w_k`.
    """
    before = features.unsigned
    assert before is not None
    count, depth = len(before), before.shape[1] - 1
    bases = [basis for basis in surfaces if len(basis) <= depth]
    if count > MOST_SIGNS or not bases:
        raise Lacking("the signs of a layer do not show")
    ratio = (1 + features.slope) / (1 - features.slope)
    signs = all_signs(count, before)
    votes = torch.zeros(len(signs), device=before.device)
    for basis in bases:
        bends = torch.einsum("sm,md,nm->sdn", signs, before[:, :-1], basis[:, :count])
        sizes = torch.linalg.svdvals(basis[:, count:-1].T - ratio * bends)
        votes += sizes[:, -1] <= AGREE * sizes[:, 0]
    best = votes.topk(2)
    if not best.values[0] > best.values[1]:
        raise Lacking("the signs of a layer do not show")
    return Features((*features.signed, before * signs[best.indices[0]][:, None]), None, features.slope)


def _ratios(bends: torch.Tensor, linear: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """`(1 + a) / (1 - a)` times the sign of each neuron, `[m]`.

    Args:
        bends: the weights of `|z|` in neurons of the next layer, `[n, m]`.
        linear: the weights of the outputs of the layer before, `[n, D]`.
        rows: the incoming weights of the layer, `[m, D]`.
    """
    maps = torch.einsum("nm,md->ndm", bends, rows).flatten(0, 1)
    right = linear.flatten()
    sizes = torch.linalg.svdvals(maps)
    if len(maps) >= len(rows) and float(sizes[-1]) > 1e-6 * float(sizes[0]):
        return torch.linalg.lstsq(maps, right[:, None]).solution[:, 0]
    if len(rows) > MOST_SIGNS:
        raise Lacking("the signs of a layer do not show")
    return with_signs(maps, right)


def _outputs(ground: Ground, features: Features) -> torch.Tensor:
    """The output layer over the features, `[o, F + 1]`."""
    points = ground.asked.normal(8, ground.asked.inputs)
    count = POINTS * features.at(points)[0].shape[1] + 2 * POINTS
    points = torch.exp(2 * ground.asked.normal(count, 1)) * ground.asked.normal(count, ground.asked.inputs)
    answers, values = ground.asked(points), features.at(points)[0]
    sizes = 1 / (1 + points.norm(dim=1, keepdim=True))
    weights = torch.linalg.lstsq(with_ones(values) * sizes, answers * sizes, driver="gelsd").solution.T
    missed = (with_ones(values) @ weights.T - answers).abs() / (ground.scale.spread * (1 + points.norm(dim=1, keepdim=True)))
    if float(missed.max()) > MISSED:
        raise Lacking(f"known kinks do not explain the answers ({float(missed.max()):.0e} of their spread)")
    return weights

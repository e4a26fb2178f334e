"""Examines a recovered network without the teacher's weights.

The figures rest on the answers alone (`extraction/certification/checks.py` says what each requires). A network is accepted as exact where
it gives every answer to the rounding floor, the held-out answers as well; where the answers determine its weights and signs; and where a
rival network, fitted to other answers from another start, is the same function even where the two differ most. The certificate may refuse a
right network, such as one from rounded answers. It says nothing of inputs far from the queries, and cannot tell activation functions apart
that are the same up to weights: sigmoid(x) = (1 + tanh(x / 2)) / 2.

Axes: Q queries, P parameters of the network, O outputs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import torch

from datasets.base import DataLoader
from extraction.answers import MOST_WEIGHT, spreads
from extraction.certification import large_rank
from extraction.certification.checks import FLOOR, PRECISE, RESOLVED, SEPARATION, Certificate, Value
from extraction.certification.determination import determination, in_units, with_layers
from extraction.certification.gauges import free_count, linear_directions
from extraction.certification.probing import large_determination
from extraction.certification.rival import largest_error, rivalry
from extraction.certification.uncertainty import (
    held_out_excess,
    largest_weight_error,
    noise_of,
    standard_errors,
    structure,
    uncertain_neurons,
)
from extraction.clustering import distances
from extraction.fitting import weight_outputs, weighted
from extraction.linear import has_open_signs, linear_slopes, moved_away
from extraction.network import Layers, unknowns_of
from extraction.refinement import linear_term
from extraction.refinement.linked import as_probabilities, is_linked
from extraction.search import Reconstruction
from extraction.session import Session
from extraction.signs import has_joint_sign_flip
from extraction.symmetry import Symmetry, symmetries
from models.mlp import FullyConnected
from training.second_order import DENSE_PARAMETERS


def certify(session: Session, result: Reconstruction) -> Certificate:
    """Examines a recovered network without the teacher's weights.

    Args:
        session: the extraction, with the queries and answers that the network was recovered from, and others.
        result: the reconstruction.
    """
    symmetry, units = symmetries[result.network.act_fun], spreads(session.answers)
    residual, held_out = (largest_error(result.network, loader, units) for loader in session.loaders)
    network, queries = in_units(result.network, session.loaders.train, units)
    slopes = linear_slopes(Layers.of(network), queries.examples)
    count = unknowns_of(network)
    unknowns = count - free_count(network, symmetry, slopes)
    rank = bound = disagreement = None
    has_term, large = session.linear_term is not None, None if count <= DENSE_PARAMETERS else of_large(session, result)
    if count <= DENSE_PARAMETERS:
        beside, known = linear_term.determination, result.determined
        rank, bound = beside(network, queries) if has_term else determination(network, symmetry, queries, session.asked, known)
    elif large is None and residual <= FLOOR and not has_term and not any(bool(slope.any()) for slope in slopes):
        rank, bound = large_determination(network, symmetry, queries, session.asked)
    if large is None and rank == unknowns and residual <= FLOOR:
        first = with_layers(network, moved_away(Layers.of(network), queries.examples).vectors)
        disagreement = rivalry(linear_term.beside(network) if has_term else first, queries, session.asked)
    figures: dict[str, Value] = {
        "residual": residual,
        "held_out_residual": held_out,
        "equations": session.distinct_queries * session.answers.shape[1],
        "unknowns": unknowns,
        "rank": rank if large is None else unknowns if large.is_full else None,
        "weight_error_bound": bound if large is None else large.bound,
        "agreement": agreement(result),
        "separation": separation(network, symmetry),
        "signs_settled": signs_settled(network, symmetry, slopes),
        "disagreement": disagreement,
    }
    if large is not None and result.derivatives is not None:
        unseen = -math.log(large_rank.FAILURE) / len(session.loaders.test.labels)
        figures |= {"smallest_singular_value": large.smallest, "unseen_share": unseen, "far_error": result.derivatives.error}
    mixtures = linear_term.ambiguous(session.linear_term, network.act_fun) or len(linear_directions(network, symmetry, slopes)[0])
    certificate = Certificate.of(figures, session.known.name)
    if not certificate.accepted and large is None and rank is not None and not has_term:
        more, uncertain = to_precision(session, result, figures)
        certificate = Certificate.of(figures | more, session.known.name, uncertain, sum(network.sizes[1:-1]))
    return certificate.with_open(mixtures) if mixtures else certificate


def of_large(session: Session, result: Reconstruction) -> large_rank.Determination | None:
    """How well the answers determine a large network that derivatives have found; None where that was not examined."""
    recovery = result.derivatives
    if recovery is None or recovery.layers is None or session.desc.extraction_hparams.domain is not None:
        return None
    design = large_rank.Design.of(recovery.layers, recovery.radius)
    if design is None or len(session.answers) < len(design.queries):
        return None
    return large_rank.determination(recovery.layers, design, session.answers[: len(design.queries)])


def to_precision(session: Session, result: Reconstruction, exact: Mapping[str, Value]) -> tuple[dict[str, Value], list[str]]:
    """How exact a network is that was fitted to answers with errors.

    Args:
        session: the extraction.
        result: the reconstruction, with a network of at most DENSE_PARAMETERS.
        exact: the figures of an exact network.

    Returns:
        The figures, and the names of the neurons and outputs that the answers leave uncertain.
    """
    symmetry, unknowns = symmetries[result.network.act_fun], int(exact["unknowns"] or 0)
    slopes = linear_slopes(Layers.of(result.network), session.queries)
    noise, errors = error_bars(session, result)
    network, model, validated = result.network, result.network, result.validated or result.network
    if is_linked(session):
        session, (model, validated) = as_probabilities(session, [network, validated])
        unknowns -= model.open_shifts
    units, train, test = spreads(session.answers), _fitted_to(session, result), session.loaders.test
    uncertain = uncertain_neurons(network, errors, PRECISE)
    worst = largest_weight_error(network, errors)
    precise = worst if worst < math.inf else None
    figures: dict[str, Value] = {
        "noise": float((noise / units).max()),
        "held_out_excess": held_out_excess(validated, test, noise, unknowns / session.answers.numel()),
        "structure": structure(model, train, unknowns, _number_format(session)),
        "error_95": precise,
        "resolution": float(exact["separation"] or 0.0) / precise if precise else None,
        "signs_resolved": signs_settled(network, symmetry, slopes, max(SEPARATION, RESOLVED * precise)) if precise else None,
    }
    if session.known.is_stated:
        shares = (noise / units).tolist()
        allowed = session.known.allowed(len(session.answers))
        figures["error_ratio"] = max(share / max(limit, FLOOR) for share, limit in zip(shares, allowed, strict=True))
    return figures, uncertain


def error_bars(session: Session, result: Reconstruction) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The standard deviation of the answers' errors, `[O]`, and the standard errors of the weights, see `uncertainty.standard_errors`."""
    network, model, symmetry = result.network, result.network, symmetries[result.network.act_fun]
    slopes = linear_slopes(Layers.of(network), _fitted_to(session, result).examples)
    unknowns = unknowns_of(network) - free_count(network, symmetry, slopes)
    is_weighted = session.output_weights is not None
    if is_linked(session):
        session, (model,) = as_probabilities(session, [network])
        unknowns -= model.open_shifts
    loader = _fitted_to(session, result)
    noise = noise_of(model, loader, unknowns).clamp_min(torch.finfo(torch.float64).eps * spreads(session.answers))
    if not is_weighted:
        return noise, standard_errors(model, symmetry, loader, noise, _number_format(session))
    factors, model = (noise.max() / noise).clamp_max(MOST_WEIGHT), copy.deepcopy(network)
    weight_outputs(model, factors)
    *hidden, last = standard_errors(model, symmetry, weighted(loader, factors), noise * factors, _number_format(session))
    return noise, [*hidden, last / factors[:, None]]


def _number_format(session: Session) -> torch.dtype | None:
    """The number format of the answers, that with the fewest digits where they differ; None for float64."""
    return next((getattr(torch, name) for name in ("float16", "float32") if name in session.known.precision), None)


def _fitted_to(session: Session, result: Reconstruction) -> DataLoader:
    """The queries and answers that the network was fitted to at last."""
    return (session.with_all_answers if result.validated else session).loaders.train


def agreement(result: Reconstruction) -> float | None:
    """The share of the voting students that contain the rarest of the recovered neurons; None for a network without students."""
    shares = []
    for layer in result.layers:
        clustering = layer.clustering
        students = len(set(clustering.student.tolist()))
        members = (clustering.student[clustering.labels == label] for label in range(clustering.count))
        shares += [len(set(student.tolist())) / students for student in members]
    return min(shares, default=None)


def separation(network: FullyConnected, symmetry: Symmetry) -> float:
    """The smallest angle between the incoming vectors of two neurons of a layer, up to sign where that is open, in radians."""
    least = math.pi
    for vectors in network.layer_vectors()[:-1]:
        if len(vectors) > 1:
            chords = distances(torch.nn.functional.normalize(vectors, dim=1), symmetry.opposite_looks_alike)
            chords.fill_diagonal_(2.0)
            least = min(least, 2 * math.asin(min(1.0, float(chords.min()) / 2)))
    return least


def signs_settled(network: FullyConnected, symmetry: Symmetry, slopes: Sequence[torch.Tensor], tolerance: float = SEPARATION) -> bool:
    """Whether no neurons of a layer can change sign together without a change of the function; false where in doubt.

    Args:
        network: the network.
        symmetry: of its activation function.
        slopes: of its units that never switch, see `linear.linear_slopes`.
        tolerance: see `signs.has_joint_sign_flip`.
    """
    vectors = network.layer_vectors()
    return symmetry.slope == 0 or not any(
        has_joint_sign_flip(incoming, following, tolerance) or has_open_signs(incoming, following, linear, symmetry, tolerance)
        for incoming, following, linear in zip(vectors[:-1], vectors[1:], slopes, strict=True)
    )

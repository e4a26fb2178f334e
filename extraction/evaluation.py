"""How close a recovered network is to its teacher. Only this module, and the pictures, look at the teacher's weights.

Axes: K recovered and R teacher's neurons of a layer, D inputs with the bias last.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import zip_longest

import torch
from scipy.optimize import linear_sum_assignment

from datasets import boruta
from datasets.base import DataLoader
from extraction import linear
from extraction.certification.checks import Certificate
from extraction.host import from_host, to_host
from extraction.network import Layers
from extraction.refinement import linear_term
from extraction.report import Comparison, FunctionError, LayerScore, Report, StudentsSummary
from extraction.reporting.diagnosis import DOUBTFUL_ROWS, LARGER_ERRORS, PROBABILITIES, Advice, advice
from extraction.reporting.facts import of_network, of_students, units_on_one_side
from extraction.search import Reconstruction
from extraction.session import Session
from extraction.symmetry import Symmetry, transform
from models import activation_functions
from models import registry as models
from models.mlp import FullyConnected

IDENTIFIED = 1e-6  # the largest error, relative to the largest weight of its layer, of a network that counts as identified
LINEAR_ALONE = "the answers tell only a linear map, which other such units may share"
WITHOUT_DERIVATIVES = Advice("Students may find what derivatives have not: --seeds_from students.", {"seeds_from": "students"})
MATCHED = 1e-2  # the largest cosine distance of a pair that counts as matched


@dataclass(frozen=True)
class Score:
    """All layers compared with the teacher's, the output layer last."""

    layers: list[LayerScore]
    max_relative_error: float | None
    identified: bool | None


@dataclass(frozen=True)
class Matching:
    """Recovered neurons paired with the teacher's, one to one.

    Attributes:
        ours: the place of each pair's recovered neuron, `[pairs]`.
        theirs: the place of its partner in the teacher, `[pairs]`.
        signs: 1 or -1, `[pairs]`; with `scales` (positive, `[pairs]`) what brings a recovered neuron nearest to its partner.
        scales: see `signs`.
    """

    ours: torch.Tensor
    theirs: torch.Tensor
    signs: torch.Tensor
    scales: torch.Tensor

    @property
    def factors(self) -> torch.Tensor:
        """Signs times scales, `[pairs, 1]`."""
        return (self.signs * self.scales)[:, None]


def score(network: Layers, teacher: Layers | None, informative: torch.Tensor | None = None) -> Score:
    """Compares a network with its teacher after undoing the order, signs and scales that do not affect the outputs.

    Args:
        network: as recovered, in float64.
        teacher: None where its weights are unknown.
        informative: the inputs by which the first layer is judged, `[inputs]`; all of them when left out.
    """
    if teacher is None:
        return Score([LayerScore(width) for width in network.sizes[1:]], None, None)
    if len(network) != len(teacher):
        widths = zip_longest(network.sizes[1:], teacher.sizes[1:])
        return Score([LayerScore(*pair) for pair in widths], None, False)
    ours, theirs = list(network.vectors), [vectors.to(network.vectors[0]) for vectors in teacher.vectors]
    if informative is not None:
        judged = torch.cat([informative, informative.new_ones(1)]).to(ours[0].device)
        ours[0], theirs[0] = ours[0][:, judged], theirs[0][:, judged]
    symmetry = network.symmetry
    ours = in_gauge_of(ours, theirs, symmetry)
    scores = []
    for mine, true in zip(ours[:-1], theirs, strict=False):
        pairs = match(mine, true, symmetry)
        scores.append(compare(mine[pairs.ours] * pairs.factors, true[pairs.theirs], len(mine), len(true)))
    scores.append(compare(ours[-1], theirs[-1], len(ours[-1]), len(theirs[-1])))
    worst = max(layer.max_weight_error or 0.0 for layer in scores)
    exact_widths = all(layer.recovered_width == layer.teacher_width for layer in scores)
    return Score(scores, worst, exact_widths and network.act_fun == teacher.act_fun and worst <= IDENTIFIED)


def in_gauge_of(ours: list[torch.Tensor], theirs: list[torch.Tensor], symmetry: Symmetry) -> list[torch.Tensor]:
    """Our layers with the inputs of each in the order, with the signs and in the scales of the teacher's layer before.

    Args:
        ours: every layer, the output layer last, `[K, D]` each.
        theirs: as many layers of the teacher, `[R, D]` each.
        symmetry: of the activation function.

    Returns:
        Layers whose columns correspond to the teacher's; a neuron of the teacher without a partner gives a column of zeros.
    """
    ours = list(ours)
    for depth in range(len(ours) - 1):
        pairs = match(ours[depth], theirs[depth], symmetry)
        following = ours[depth + 1]
        matched, outgoing = ours[depth][pairs.ours], following[:, pairs.ours].T
        _, outgoing, bias = transform(symmetry, matched, outgoing, following[:, -1], pairs.signs * pairs.scales)
        ours[depth + 1] = following.new_zeros(len(following), len(theirs[depth]) + 1)
        ours[depth + 1][:, pairs.theirs], ours[depth + 1][:, -1] = outgoing.T, bias
    return ours


def match(ours: torch.Tensor, theirs: torch.Tensor, symmetry: Symmetry) -> Matching:
    """Pairs recovered neurons with the teacher's, one to one, so that the sum of distances is least (the Hungarian method).

    Args:
        ours: `[K, D]`.
        theirs: `[R, D]`.
        symmetry: of the activation function.

    Returns:
        min(K, R) pairs.
    """
    left, right = (torch.nn.functional.normalize(v, dim=1) if symmetry.positive_scaling else v for v in (ours, theirs))
    cost = torch.cdist(left, right)
    if symmetry.opposite_is_equal:
        cost = torch.minimum(cost, torch.cdist(-left, right))
    rows, columns = (from_host(indices, ours) for indices in linear_sum_assignment(to_host(cost)))
    ones = torch.ones(len(rows), dtype=ours.dtype, device=ours.device)
    products = (ours[rows] * theirs[columns]).sum(1)
    signs = torch.where(products < 0, -ones, ones) if symmetry.opposite_is_equal else ones
    scales = theirs[columns].norm(dim=1) / ours[rows].norm(dim=1) if symmetry.positive_scaling else ones
    return Matching(rows, columns, signs, scales)


def compare(ours: torch.Tensor, theirs: torch.Tensor, recovered_width: int, teacher_width: int) -> LayerScore:
    """The score of a layer whose pairs stand in the same rows of both, `[pairs, D]`."""
    cosine_distance = (1 - torch.nn.functional.cosine_similarity(ours, theirs, dim=1)).clamp_min(0)
    matched = int((cosine_distance <= MATCHED).sum())
    return LayerScore(
        recovered_width,
        teacher_width,
        matched,
        teacher_width - matched,
        recovered_width - matched,
        cosine_distance.max().item(),
        cosine_distance.mean().item(),
        ((ours - theirs).abs().max() / theirs.abs().max()).item(),
    )


@torch.no_grad()
def function_error(network: FullyConnected, loader: DataLoader) -> FunctionError:
    """The error of a network's outputs on queries that were held out.

    Args:
        network: as recovered.
        loader: the held-out queries and answers, in float64.
    """
    errors = network(loader.examples) - loader.labels
    return FunctionError(len(errors), errors.square().mean().item(), errors.abs().max().item())


def report_on(session: Session, result: Reconstruction, teacher: FullyConnected | None, certificate: Certificate) -> Report:
    """The report of a reconstruction, whose times are still to be filled in.

    Args:
        session: the extraction.
        result: the reconstruction.
        teacher: None where its weights are unknown.
        certificate: of the network.
    """
    masked_by = session.desc.extraction_hparams.boruta
    informative = boruta.mask(masked_by) if masked_by else None
    true = Layers.of(teacher) if teacher else None
    before, after = (score(Layers.of(network), true, informative) for network in (result.fit.before, result.network))
    function_before, function = (
        function_error(network, session.loaders.test) for network in (result.fit.before, result.validated or result.network)
    )
    return Report(
        identified=after.identified,
        max_relative_error=after.max_relative_error,
        layers=after.layers,
        function=function,
        before_finetuning=Comparison(before.max_relative_error, before.layers, function_before),
        students=StudentsSummary(len(result.losses), result.losses, result.students_file),
        act_fun=result.model_hparams.act_fun,
        model_name=result.model_hparams.model_name,
        model_path=models.latest_weights_file(result.fit.location),
        certificate=certificate,
        seconds={},
    )


def advice_on(session: Session, result: Reconstruction, certificate: Certificate) -> list[Advice]:
    """What may be wrong with a network that is not identified, as far as numbers show it, and what to try next.

    Args:
        session: the extraction.
        result: the reconstruction.
        certificate: of the network.
    """
    if session.known.is_given and certificate.exceeds_stated_errors:
        return [LARGER_ERRORS]
    if result.judgement and result.judgement.doubtful and not certificate.fits:
        return [DOUBTFUL_ROWS]
    if not result.losses:
        return [] if certificate.fits else [WITHOUT_DERIVATIVES]
    found = advice(of_network(of_students(session, result.losses, result.held_out_losses), session, result.network), certificate.fits)
    return [PROBABILITIES, *found] if not certificate.fits and session.may_be_probabilities else found


def remarks_on(session: Session, result: Reconstruction, certificate: Certificate, teacher: FullyConnected | None = None) -> list[str]:
    """What the queries leave open or fix by themselves, a sentence each; also of a teacher with known weights."""
    settled = bool(certificate["signs_settled"]) or not certificate.lacks_only_rank
    remarks = session.scaling.remarks() if session.scaling else []
    remarks += linear_term.remarks(session.linear_term, result.network.act_fun)
    remarks += linear.remarks(Layers.of(result.network), session.queries, settled)
    return remarks + (hidden_from(session.unscaled.queries, teacher) if teacher else [])


def hidden_from(queries: torch.Tensor, teacher: FullyConnected) -> list[str]:
    """Which units of a teacher with kinks no query `[Q, inputs]` shows, a sentence each."""
    found, units = [], units_on_one_side(copy.deepcopy(teacher).to(queries), queries)
    is_flat = activation_functions.get(teacher.act_fun)(queries.new_tensor(-1.0)) == 0
    for active, effect in ((0, "no answer tells its weights" if is_flat else LINEAR_ALONE), (len(queries), LINEAR_ALONE)):
        found += [
            f"{unit} of the teacher is active for {'no query' if not active else 'all queries'}: {effect}"
            for unit in units
            if unit.active == active
        ]
    return found

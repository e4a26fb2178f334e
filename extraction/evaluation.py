"""How close a reconstructed network is to its teacher. The only place where the teacher's weights are looked at.

Axes: K recovered and R teacher's neurons of a layer, D inputs with the bias last.
"""

from __future__ import annotations

import dataclasses
from itertools import zip_longest

import torch
from scipy.optimize import linear_sum_assignment

from datasets import boruta
from datasets.base import DataLoader
from extraction.expand_and_cluster import Reconstruction
from extraction.finetuning import layer_vectors
from extraction.symmetry import Symmetry, symmetries, transform
from models import registry as models
from models.mlp import FullyConnected

IDENTIFIED = 1e-6  # the largest error, relative to the largest weight of its layer, of a network that counts as identified
MATCHED = 1e-2  # the largest cosine distance of a pair that counts as matched


@dataclasses.dataclass(frozen=True)
class LayerScore:
    """One layer against the teacher's; what needs the teacher's weights is None without them.

    Attributes:
        recovered_width: neurons found.
        teacher_width: neurons there are.
        matched: pairs, one to one, within MATCHED.
        missing: the teacher's neurons without a partner.
        excess: recovered neurons without a partner.
        max_cosine_distance: of the (w; b) vectors of the assigned pairs.
        mean_cosine_distance: likewise.
        max_weight_error: the largest deviation of a weight or bias in an assigned pair, over the teacher's largest in the layer.
    """

    recovered_width: int
    teacher_width: int | None = None
    matched: int | None = None
    missing: int | None = None
    excess: int | None = None
    max_cosine_distance: float | None = None
    mean_cosine_distance: float | None = None
    max_weight_error: float | None = None


@dataclasses.dataclass(frozen=True)
class Score:
    """All layers against the teacher's, the output layer last."""

    layers: list[LayerScore]
    max_relative_error: float | None
    identified: bool | None


def score(network: FullyConnected, teacher: FullyConnected | None, informative: torch.Tensor | None = None) -> Score:
    """Compares a network with its teacher after undoing the order, signs and scales that the outputs cannot tell.

    Args:
        network: as reconstructed.
        teacher: None where only its answers are known.
        informative: the inputs by which the first layer is judged, `[inputs]`; all of them when left out.
    """
    ours = [vectors.cpu() for vectors in layer_vectors(network)]
    if teacher is None:
        return Score([LayerScore(len(vectors)) for vectors in ours], None, None)
    theirs = [vectors.double().cpu() for vectors in layer_vectors(teacher)]
    if len(ours) != len(theirs):
        widths = zip_longest(map(len, ours), map(len, theirs))
        return Score([LayerScore(*pair) for pair in widths], None, False)
    if informative is not None:
        judged = torch.cat([informative, informative.new_ones(1)])
        ours[0], theirs[0] = ours[0][:, judged], theirs[0][:, judged]
    symmetry = symmetries[network.act_fun]
    ours = in_gauge_of(ours, theirs, symmetry)
    scores = []
    for mine, true in zip(ours[:-1], theirs, strict=False):
        rows, columns, signs, scales = match(mine, true, symmetry)
        scores.append(compare(mine[rows] * (signs * scales)[:, None], true[columns], len(mine), len(true)))
    scores.append(compare(ours[-1], theirs[-1], len(ours[-1]), len(theirs[-1])))
    worst = max(layer.max_weight_error for layer in scores)
    exact_widths = all(layer.recovered_width == layer.teacher_width for layer in scores)
    return Score(scores, worst, exact_widths and network.act_fun == teacher.act_fun and worst <= IDENTIFIED)


def in_gauge_of(ours: list[torch.Tensor], theirs: list[torch.Tensor], symmetry: Symmetry) -> list[torch.Tensor]:
    """Our layers with the inputs of each in the order, with the signs and in the scales of the teacher's layer before.

    Args:
        ours: every layer, the output layer last, `[K, D]` each.
        theirs: as many layers of the teacher, `[R, D]` each.

    Returns:
        Layers whose columns mean what the teacher's mean; a neuron of the teacher that has no partner gives a column of zeros.
    """
    ours = list(ours)
    for depth in range(len(ours) - 1):
        rows, columns, signs, scales = match(ours[depth], theirs[depth], symmetry)
        following = ours[depth + 1]
        _, outgoing, bias = transform(symmetry, ours[depth][rows], following[:, rows].T, following[:, -1], signs, scales)
        ours[depth + 1] = following.new_zeros(len(following), len(theirs[depth]) + 1)
        ours[depth + 1][:, columns], ours[depth + 1][:, -1] = outgoing.T, bias
    return ours


def match(ours: torch.Tensor, theirs: torch.Tensor, symmetry: Symmetry) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pairs recovered neurons with the teacher's, one to one, so that the sum of distances is least (the Hungarian method).

    Args:
        ours: `[K, D]`.
        theirs: `[R, D]`.

    Returns:
        For each of the min(K, R) pairs the index into ours and into theirs, and the sign and scale that bring ours nearest to theirs.
    """
    left, right = (torch.nn.functional.normalize(v, dim=1) if symmetry.positive_scaling else v for v in (ours, theirs))
    cost = torch.cdist(left, right)
    if symmetry.opposite_is_equal:
        cost = torch.minimum(cost, torch.cdist(-left, right))
    rows, columns = (torch.from_numpy(indices) for indices in linear_sum_assignment(cost.numpy()))
    ones = torch.ones(len(rows), dtype=ours.dtype)
    products = (ours[rows] * theirs[columns]).sum(1)
    signs = torch.where(products < 0, -ones, ones) if symmetry.opposite_is_equal else ones
    scales = theirs[columns].norm(dim=1) / ours[rows].norm(dim=1) if symmetry.positive_scaling else ones
    return rows, columns, signs, scales


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
def function_error(network: FullyConnected, loader: DataLoader) -> dict[str, float]:
    """How far the network's outputs are from the answers to queries that it was never trained on.

    Args:
        network: as reconstructed.
        loader: the test set, in float64.
    """
    outputs = network(loader.examples)
    errors = outputs - loader.labels
    return {"queries": len(errors), "mse": errors.square().mean().item(), "max_abs_error": errors.abs().max().item()}


def outcome(result: Reconstruction, teacher: FullyConnected | None, loader: DataLoader, masked_by: str | None = None) -> dict[str, object]:
    """What the report says of a reconstruction, in values that JSON can hold.

    Args:
        result: the reconstruction.
        teacher: None where only its answers are known.
        loader: the test set, in float64.
        masked_by: the dataset whose uninformative inputs are left out of the score.
    """
    informative = boruta.mask(masked_by) if masked_by else None
    before, after = (score(network, teacher, informative) for network in (result.before, result.network))
    return {
        "identified": after.identified,
        "max_relative_error": after.max_relative_error,
        "layers": [dataclasses.asdict(layer) for layer in after.layers],
        "function": function_error(result.network, loader),
        "before_finetuning": {
            "max_relative_error": before.max_relative_error,
            "layers": [dataclasses.asdict(layer) for layer in before.layers],
            "function": function_error(result.before, loader),
        },
        "students": {"count": len(result.losses), "losses": result.losses, "weights": result.students_file},
        "act_fun": result.model_hparams.act_fun,
        "model_name": result.model_hparams.model_name,
        "model_path": models.last_file(result.location),
    }

"""From the neurons of students to the weights of a layer. Pure functions over tensors.

Axes: N students with m neurons each in a layer, D inputs with the bias last, O outputs, Q queries, K recovered neurons,
L units of the next layer.
What the inputs of a layer are, queries or the activations of the layer before, makes no difference here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from extraction.clustering import Clustering, cluster, distances
from extraction.symmetry import Symmetry, canonical, transform
from models.activation_functions import ActivationFunction

NOISE = 10.0  # a contribution below this many times the student's residual is indistinguishable from noise
DOUBT = 1.0  # the same for what may yet be a neuron of the teacher's: one that is seldom active contributes little
NEGLIGIBLE = 0.03  # but no neuron is dropped that contributes more than this share of its student's largest
OUTVOTED = 100.0  # a student has no say whose residual is this many times that of the second best
TWIN_DISTANCE = 1e-2  # canonical distance below which two neurons of a fitted network are one
DEAD_CONTRIBUTION = 1e-6  # share of the largest contribution below which a neuron of a fitted network does nothing


@dataclass(frozen=True)
class Neurons:
    """One layer of all students.

    Attributes:
        incoming: weights with the bias last, `[N, m, D]`.
        contribution: how much the outputs move when the neuron is held at its mean (root mean square length), `[N, m]`.
        residual: how far each student's outputs are from the answers, likewise, `[N]`.
    """

    incoming: torch.Tensor
    contribution: torch.Tensor
    residual: torch.Tensor


@dataclass(frozen=True)
class RecoveredLayer:
    """The neurons that the students share.

    Attributes:
        incoming: `[K, D]`, in the scale of the best students; signs are open where the symmetry leaves them open.
        clustering: the clusters that they come from.
        vectors: the canonical vectors that were clustered, `[n, D]`.
    """

    incoming: torch.Tensor
    clustering: Clustering
    vectors: torch.Tensor


def with_ones(inputs: torch.Tensor) -> torch.Tensor:
    """Inputs with the constant 1 that meets the bias, `[Q, D]`."""
    return torch.cat([inputs, inputs.new_ones(len(inputs), 1)], 1)


def standardisation(inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and spread of each column of `[Q, D - 1]`; a spread of 1 where a column is constant."""
    spread = inputs.std(0)
    return inputs.mean(0), torch.where(spread > 0, spread, 1.0)


def unstandardised(incoming: torch.Tensor, mean: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """Incoming vectors `[..., D]` over standardised inputs as vectors over the inputs themselves."""
    weights = incoming[..., :-1] / spread
    return torch.cat([weights, (incoming[..., -1] - weights @ mean)[..., None]], -1)


def over_standardised(incoming: torch.Tensor, mean: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """Incoming vectors `[..., D]` over inputs as vectors over the standardised inputs: `unstandardised` undone."""
    weights = incoming[..., :-1]
    return torch.cat([weights * spread, (incoming[..., -1] + weights @ mean)[..., None]], -1)


def recover(
    neurons: Neurons,
    symmetry: Symmetry,
    gamma: float,
    beta: float,
    linkage: str = "average",
    informative: torch.Tensor | None = None,
    doubtful: float = 0.0,
) -> RecoveredLayer | None:
    """Clusters the neurons of all students and collapses each cluster to one; None where no cluster is found.

    Students that are much worse than the best two have no say: once two have found the solution, to rounding, it is no matter of votes.

    Args:
        neurons: of the students.
        symmetry: of their activation function.
        gamma: the share of students that must have a neuron; two at least.
        beta: the median angle within a cluster is at most pi / beta.
        linkage: how clusters merge.
        informative: the inputs, `[D - 1]`, by which neurons are told apart; all of them when left out.
        doubtful: how many clusters in doubt to take as well, see `clustering.cluster`; then neurons that contribute little count, too.
    """
    voters = neurons.residual <= OUTVOTED * neurons.residual.kthvalue(min(2, len(neurons.residual))).values
    students = int(voters.sum())
    kept = ~is_surplus(neurons, DOUBT if doubtful else NOISE) & voters[:, None]
    student = (torch.cumsum(voters, 0) - 1)[:, None].expand_as(kept)[kept].numpy()
    incoming = neurons.incoming[kept]
    seen = incoming if informative is None else incoming[:, torch.cat([informative, informative.new_ones(1)])]
    seen, factors = canonical(seen, symmetry)
    share = max(gamma, min(1.0, 2 / students))
    clustering = cluster(seen, student, students, share, beta, symmetry.opposite_looks_alike, linkage, doubtful)
    if clustering is None:
        return None
    collapsed = collapse(incoming, seen, clustering, neurons.contribution[kept], neurons.residual[voters], symmetry)
    return RecoveredLayer(collapsed, clustering, incoming / factors)


def is_surplus(neurons: Neurons, noise: float = NOISE) -> torch.Tensor:
    """Which neurons of a student do nothing that its residual error, times `noise`, would not hide, `[N, m]`.

    Surplus neurons whose outgoing weights have died contribute about as much as the residual, hundreds of times less than the teacher's.
    """
    largest = neurons.contribution.amax(1, keepdim=True)
    return neurons.contribution < torch.minimum(noise * neurons.residual[:, None], NEGLIGIBLE * largest)


def collapse(
    vectors: torch.Tensor,
    seen: torch.Tensor,
    clustering: Clustering,
    contribution: torch.Tensor,
    residual: torch.Tensor,
    symmetry: Symmetry,
) -> torch.Tensor:
    """One incoming vector for each cluster, `[K, D]`: the one of the best student in it.

    A student may hold several copies of a neuron. Each may be off by some angle, for to first order only their mean weighted by
    contribution matters to the output; that mean is what is taken.

    Args:
        vectors: of the clustered neurons, `[n, D]`.
        seen: what they were told apart by, `[n, ...]`.
        contribution: of each, `[n]`.
        residual: of each student, `[N]`.
    """
    rank = torch.argsort(torch.argsort(residual)).numpy()
    collapsed = []
    for label in range(clustering.clusters):
        members = np.flatnonzero(clustering.labels == label)
        best = members[np.argmin(rank[clustering.student[members]])]
        copies = members[clustering.student[members] == clustering.student[best]]
        weights = contribution[copies, None]
        aligned = vectors[copies]
        if symmetry.opposite_looks_alike:
            aligned = torch.where((seen[copies] @ seen[best])[:, None] < 0, -aligned, aligned)
        collapsed.append((weights * aligned).sum(0) / weights.sum())
    return torch.stack(collapsed)


def fit_outputs(features: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """The least-squares weights of the features and of a constant, `[F + 1, O]`; the shortest where they are not unique."""
    return torch.linalg.lstsq(with_ones(features), answers).solution


def resolve_signs(
    incoming: torch.Tensor, act_fun: ActivationFunction, symmetry: Symmetry, queries: torch.Tensor, answers: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turns the neurons that the students hold as the opposite of the teacher's.

    Where s(-x) = s(x) + slope x, a neuron taken with the wrong sign leaves the linear map `slope * w a'` behind. Fitting the answers by the
    neurons and a free linear map T of the inputs, T is the sum of those of the wrong neurons: a linear least-squares problem for one
    fraction f a neuron, near 1 for the wrong ones and near 0 for the others.

    Args:
        incoming: `[K, D]`.
        act_fun: s.
        queries: `[Q, D - 1]`.
        answers: `[Q, O]`.

    Returns:
        The incoming vectors with the right signs `[K, D]`, and the fractions `[K]` (0 where signs are free anyway).
    """
    if symmetry.slope == 0:
        return incoming, incoming.new_zeros(len(incoming))
    features = act_fun(with_ones(queries) @ incoming.T)
    weights = fit_outputs(torch.cat([features, queries], 1), answers)
    outgoing, linear = weights[: len(incoming)], weights[len(incoming) : -1]
    left_behind = symmetry.slope * torch.einsum("kd,ko->dok", incoming[:, :-1], outgoing).flatten(0, 1)
    fractions = torch.linalg.lstsq(left_behind, linear.flatten()[:, None]).solution[:, 0]
    return torch.where(fractions[:, None] > 0.5, -incoming, incoming), fractions


def signless(act_fun: ActivationFunction, symmetry: Symmetry, pre_activations: torch.Tensor) -> torch.Tensor:
    """What the next layer may be built on while the signs of this one are open: s(u), or where a sign matters what s(u) and s(-u) span.

    These are its even part s(u) + slope u / 2, and u: s(u) and s(-u) are the even part -+ slope u / 2. Where u stays so small that s is
    nearly linear, s(u) and s(-u) rise and fall as one another's mirror images, and what is left is hard to learn; the even part and u
    hardly vary together. Given s(u) and s(-u) instead, students of softplus and silu with two layers of twelve were lost at the rate of
    the others.

    Args:
        act_fun: s.
        pre_activations: u, `[Q, K]`.

    Returns:
        `[Q, K]`, or `[Q, 2 K]`.
    """
    if symmetry.slope == 0:
        return act_fun(pre_activations)
    return torch.cat([act_fun(pre_activations) + symmetry.slope / 2 * pre_activations, pre_activations], 1)


def settle_signs(
    incoming: torch.Tensor, following: torch.Tensor, spread: torch.Tensor, symmetry: Symmetry
) -> tuple[torch.Tensor, torch.Tensor]:
    """The signs of a layer, from what the next layer makes of its `signless` parts; nothing is open where that is its activations.

    Args:
        incoming: of the layer with open signs, `[K, D]`.
        following: of the next layer, over even parts, linear parts and the bias, `[L, 2 K + 1]`, or activations and the bias, `[L, K + 1]`.
        spread: of what it is built on, over the queries, `[2 K]` or `[K]`.

    Returns:
        The incoming vectors with the right signs `[K, D]`, and those of the next layer over these alone `[L, K + 1]`.
    """
    if following.shape[1] == len(incoming) + 1:
        return incoming, following
    even, linear, bias = following.split([len(incoming), len(incoming), 1], 1)
    linear = -2 / symmetry.slope * linear
    wrong = (even * linear).sum(0) < 0
    linear = torch.where(wrong, -linear, linear)
    share = spread[: len(incoming)].square(), (symmetry.slope / 2 * spread[len(incoming) :]).square()
    weights = (share[0] * even + share[1] * linear) / (share[0] + share[1])
    return torch.where(wrong[:, None], -incoming, incoming), torch.cat([weights, bias], 1)


def merge(
    incoming: torch.Tensor, following: torch.Tensor, contribution: torch.Tensor, symmetry: Symmetry
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """A layer of a fitted network without its dead neurons and twins; None where it has none.

    A torn cluster gives a neuron twice. That does no harm to the fit, and shows itself in it: the copies coincide up to the symmetry. The
    first of them takes over what the others give to the next layer.

    Args:
        incoming: `[K, D]`.
        following: the next layer's incoming vectors, `[L, K + 1]`.
        contribution: of each neuron, `[K]`.
    """
    alive = contribution > DEAD_CONTRIBUTION * contribution.max()
    vectors, _ = canonical(incoming, symmetry)
    twins = torch.triu(distances(vectors, symmetry.opposite_is_equal) < TWIN_DISTANCE, diagonal=1) & alive[:, None]
    kept = alive & ~twins.any(0)
    if bool(kept.all()):
        return None
    outgoing, bias = following[:, :-1].T.clone(), following[:, -1]
    for twin in torch.nonzero(twins.any(0) & alive)[:, 0].tolist():
        first = int(torch.nonzero(twins[:, twin])[0])
        sign = torch.sign(incoming[[twin]] @ incoming[first]) if symmetry.opposite_is_equal else outgoing.new_ones(1)
        scale = incoming[first].norm() / incoming[twin].norm() if symmetry.positive_scaling else outgoing.new_ones(1)
        _, taken, bias = transform(symmetry, incoming[[twin]], outgoing[[twin]], bias, sign, scale)
        outgoing[first] += taken[0]
    return incoming[kept], torch.cat([outgoing[kept].T, bias[:, None]], 1)


def without(activations: torch.Tensor, following: torch.Tensor, neuron: int) -> tuple[torch.Tensor, float]:
    """The next layer told from all neurons but one.

    Args:
        activations: of the layer, `[Q, K]`.
        following: the next layer's incoming vectors, `[L, K + 1]`.
        neuron: the one to do without.

    Returns:
        The next layer's vectors over the others, `[L, K]`, and how far that is from what it was, as a share of its spread.
    """
    wanted = with_ones(activations) @ following.T
    others = torch.cat([activations[:, :neuron], activations[:, neuron + 1 :]], 1)
    fitted = fit_outputs(others, wanted)
    lost = (with_ones(others) @ fitted - wanted).square().mean().sqrt() / (wanted - wanted.mean(0)).square().mean().sqrt()
    return fitted.T, float(lost)

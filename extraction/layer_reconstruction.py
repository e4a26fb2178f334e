"""From the neurons of students to the weights of a layer. Pure functions over tensors.

Axes: N students with m neurons each in a layer, D inputs with the bias last, O units of the next layer, Q queries, K recovered neurons.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from extraction.clustering import Clustering, cluster, distances
from extraction.symmetry import Symmetry, canonical
from models.activation_functions import ActivationFunction

NOISE = 10.0  # a contribution below this many times the student's residual is indistinguishable from noise
NEGLIGIBLE = 0.03  # but no neuron is dropped that contributes more than this share of its student's largest
TWIN_DISTANCE = 1e-2  # canonical distance below which two neurons of a fitted network are one
DEAD_CONTRIBUTION = 1e-6  # share of the largest contribution below which a neuron of a fitted network does nothing


@dataclass(frozen=True)
class Neurons:
    """One layer of all students.

    Attributes:
        incoming: weights with the bias last, `[N, m, D]`.
        outgoing: weights to the next layer, `[N, m, O]`.
        contribution: spread of the activation over the queries times the length of the outgoing vector, `[N, m]`.
        losses: mean squared error of each student, `[N]`.
    """

    incoming: torch.Tensor
    outgoing: torch.Tensor
    contribution: torch.Tensor
    losses: torch.Tensor


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


def recover(neurons: Neurons, symmetry: Symmetry, gamma: float, beta: float) -> RecoveredLayer | None:
    """Clusters the neurons of all students and collapses each cluster to one; None where no cluster is found."""
    students = len(neurons.losses)
    kept = ~is_surplus(neurons)
    student = torch.arange(students)[:, None].expand_as(kept)[kept].numpy()
    vectors, factors = canonical(neurons.incoming[kept], symmetry)
    clustering = cluster(vectors, student, students, gamma, beta, symmetry.opposite_looks_alike)
    if clustering is None:
        return None
    incoming = collapse(vectors * factors, clustering, neurons.contribution[kept], neurons.losses, symmetry)
    return RecoveredLayer(incoming, clustering, vectors)


def is_surplus(neurons: Neurons) -> torch.Tensor:
    """Which neurons of a student do nothing that its residual error would not hide, `[N, m]`.

    Surplus neurons whose outgoing weights have died contribute about as much as the residual, hundreds of times less than the teacher's.
    """
    residual = (neurons.losses * neurons.outgoing.shape[2]).sqrt()[:, None]
    largest = neurons.contribution.amax(1, keepdim=True)
    return neurons.contribution < torch.minimum(NOISE * residual, NEGLIGIBLE * largest)


def collapse(
    vectors: torch.Tensor, clustering: Clustering, contribution: torch.Tensor, losses: torch.Tensor, symmetry: Symmetry
) -> torch.Tensor:
    """One incoming vector for each cluster, `[K, D]`: the one of the best student in it.

    A student may hold several copies of a neuron. Each may be off by some angle, for to first order only their mean weighted by
    contribution matters to the output; that mean is what is taken.

    Args:
        vectors: of the clustered neurons, `[n, D]`.
        contribution: of each, `[n]`.
        losses: of each student, `[N]`.
    """
    rank = torch.argsort(torch.argsort(losses)).numpy()
    collapsed = []
    for label in range(clustering.clusters):
        members = np.flatnonzero(clustering.labels == label)
        best = members[np.argmin(rank[clustering.student[members]])]
        copies = members[clustering.student[members] == clustering.student[best]]
        weights = contribution[copies, None]
        aligned = vectors[copies]
        if symmetry.opposite_looks_alike:
            aligned = torch.where((aligned @ vectors[best])[:, None] < 0, -aligned, aligned)
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


def necessary(incoming: torch.Tensor, contribution: torch.Tensor, symmetry: Symmetry) -> torch.Tensor:
    """Which neurons of a fitted network it cannot do without, `[K]`: neither dead, nor the twin of an earlier one.

    A torn cluster gives a neuron twice. That does no harm to the fit, and shows itself in it: the copies coincide up to the symmetry.

    Args:
        incoming: `[K, D]`.
        contribution: spread of the activation times the length of the outgoing vector, `[K]`.
    """
    alive = contribution > DEAD_CONTRIBUTION * contribution.max()
    vectors, _ = canonical(incoming, symmetry)
    twins = (distances(vectors, symmetry.opposite_is_equal) < TWIN_DISTANCE) & alive[:, None]
    return alive & ~torch.triu(twins, diagonal=1).any(0)

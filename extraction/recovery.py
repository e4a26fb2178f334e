"""From the neurons of students to the neurons of a layer. Pure functions over tensors.

Axes: N students with m neurons each in a layer, n neurons that are clustered, D inputs with the bias last, K recovered neurons.
The inputs of a layer may be the queries or the activations of the layer below; that makes no difference here.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch

from extraction.clustering import Clustering, Criteria, cluster
from extraction.host import to_host
from extraction.symmetry import Symmetry, canonical

NOISE = 10.0  # a contribution below this many times the student's residual is indistinguishable from noise
DOUBT = 1.0  # the same for neurons in doubt: a neuron of the teacher that is seldom active contributes little
NEGLIGIBLE = 0.03  # but no neuron is dropped that contributes more than this share of its student's largest contribution
OUTVOTED = 100.0  # a student has no vote whose residual is this many times that of the second best


@dataclass(frozen=True)
class Neurons:
    """One layer of all students.

    Attributes:
        incoming: weights with the bias last, `[N, m, D]`.
        contribution: the change of the outputs when the neuron is held at its mean (root mean square length), `[N, m]`.
        residual: the distance of each student's outputs from the answers, likewise, `[N]`.
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


@dataclass(frozen=True)
class _Members:
    """The neurons that are clustered, of all students.

    `incoming` is `[n, D]`; `compared` `[n, ...]` is what tells them apart, in canonical form; `contribution` is `[n]`.
    """

    incoming: torch.Tensor
    compared: torch.Tensor
    contribution: torch.Tensor


def recover(neurons: Neurons, symmetry: Symmetry, criteria: Criteria, informative: torch.Tensor | None = None) -> RecoveredLayer | None:
    """Clusters the neurons of all students and collapses each cluster to one neuron; None where no cluster counts.

    Students that are much worse than the best two have no vote: two students at the solution, to rounding, are proof enough.

    Args:
        neurons: of the students.
        symmetry: of their activation function.
        criteria: which clusters count; at least two students must share one. With doubtful clusters, neurons that contribute little are
            clustered as well.
        informative: the inputs, `[D - 1]`, by which neurons are told apart; all of them when left out.
    """
    voters = neurons.residual <= OUTVOTED * neurons.residual.kthvalue(min(2, len(neurons.residual))).values
    students = int(voters.sum())
    kept = ~is_surplus(neurons, DOUBT if criteria.doubtful else NOISE) & voters[:, None]
    student = to_host((torch.cumsum(voters, 0) - 1)[:, None].expand_as(kept)[kept])
    incoming = neurons.incoming[kept]
    compared = incoming if informative is None else incoming[:, torch.cat([informative, informative.new_ones(1)])]
    compared, factors = canonical(compared, symmetry)
    criteria = dataclasses.replace(criteria, gamma=max(criteria.gamma, min(1.0, 2 / students)))
    clustering = cluster(compared, student, students, criteria, symmetry.opposite_looks_alike)
    if clustering is None:
        return None
    members = _Members(incoming, compared, neurons.contribution[kept])
    return RecoveredLayer(_collapse(members, clustering, neurons.residual[voters], symmetry), clustering, incoming / factors)


def is_surplus(neurons: Neurons, noise: float = NOISE) -> torch.Tensor:
    """Which neurons of a student contribute less than its residual error, times `noise`, would hide, `[N, m]`.

    Surplus neurons whose outgoing weights have died contribute about as much as the residual, hundreds of times less than the teacher's.
    """
    largest = neurons.contribution.amax(1, keepdim=True)
    return neurons.contribution < torch.minimum(noise * neurons.residual[:, None], NEGLIGIBLE * largest)


def _collapse(members: _Members, clustering: Clustering, residual: torch.Tensor, symmetry: Symmetry) -> torch.Tensor:
    """One incoming vector for each cluster, `[K, D]`: that of the best student in it.

    A student may hold several copies of a neuron. Each may be off by some angle, because to first order only their mean weighted by
    contribution matters to the output; that mean is the result.

    Args:
        members: the clustered neurons.
        clustering: their clusters.
        residual: of each student, `[N]`.
        symmetry: of the activation function.
    """
    rank = to_host(torch.argsort(torch.argsort(residual)))
    collapsed = []
    for label in range(clustering.count):
        places = np.flatnonzero(clustering.labels == label)
        best = places[np.argmin(rank[clustering.student[places]])]
        copies = places[clustering.student[places] == clustering.student[best]]
        weights = members.contribution[copies, None]
        aligned = members.incoming[copies]
        if symmetry.opposite_looks_alike:
            aligned = torch.where((members.compared[copies] @ members.compared[best])[:, None] < 0, -aligned, aligned)
        collapsed.append((weights * aligned).sum(0) / weights.sum())
    return torch.stack(collapsed)

"""The network that a student holds where answers are scarce: students without a penalty, then without the neurons they do not need.

With a penalty, students learn what answers share and stop short of the solution, so that clusters of them lack neurons. Without it, and
with steps that bend, the best ones come near it, and stall there: surplus neurons cancel each other, ever further out. Without such a
neuron the rest goes on, and the network of the smallest width that still gives the answers is at the solution.

Measured on 64-10-3 tanh, the images of scikit-learn's digits, and three seeds: ten students of 16 neurons, with losses of 1e-5 to 1e-4 of
the variance, came to 1e-4 to 4e-8 in ten steps, and the best one to 2e-8 to 6e-13 in 15 more. It became exact after it had lost three to
six neurons, one by one, with 10 to 30 steps after each, and minimal after six. Where no neurons are removed, two in five such students
become exact in 100 steps.

Axes: N students.
"""

from __future__ import annotations

import math

import torch

from extraction.descent import descend_in_bends, has_stalled
from extraction.fitting import gives_answers, relative_loss
from extraction.network import Layers, unknowns_of_one
from extraction.refinement.growing import with_resolved_signs
from extraction.refinement.selection import PROMISING
from extraction.session import Session
from extraction.simplify import removals
from extraction.students import Imitation, individual_losses

STAGES = ((10, 10), (4, 15))  # so many of the best students take so many steps without a penalty
MOST_UNKNOWNS = 2000  # of a student; a step of one with 931 takes 0.1 s, and time grows with the square to the cube
TAKEN = 3  # students, the best ones, that neurons are removed from
MOST_STEPS, STALL = 60, 8  # of a network without a neuron; it stops where the loss does not halve in so many steps
TRIALS = 4  # neurons whose removal is tried before all neurons count as needed


def suits(session: Session, start: Imitation) -> bool:
    """Whether students were trained with a penalty because answers are scarce, and are small, and the answers are exact."""
    return session.is_scarce and session.known.is_exact and unknowns_of_one(start.students) <= MOST_UNKNOWNS


def smallest_exact(session: Session, start: Imitation) -> Layers | None:
    """The smallest network found in one of the best students that gives the answers; None where none of them leads to one.

    Args:
        session: the extraction.
        start: the students of the whole network.
    """
    session.say("Taking the best students to their solutions, without a penalty on their weights")
    for layers in _finished(session, start)[:TAKEN]:
        exact = _reduced(session, layers)
        if exact is not None:
            return _minimal(session, exact)
    return None


def _finished(session: Session, start: Imitation) -> list[Layers]:
    """The best students after the steps without a penalty, the best one first, without those that are not promising."""
    layers, losses = start.layers, torch.tensor(start.losses)
    for count, steps in STAGES:
        best = losses.nan_to_num(math.inf).argsort(stable=True)[:count]
        chosen = layers.replace(*(vectors[best] for vectors in layers.vectors))
        students = chosen.to_students(session.students_hparams, len(best)).to(session.queries)
        descend_in_bends(students, session.queries, session.answers, steps)
        layers, losses = Layers.of(students), torch.tensor(individual_losses(students, session.loaders.train))
    promising = PROMISING * float(session.answers.var(0).mean())
    return [layers.student(place) for place in losses.argsort(stable=True).tolist() if losses[place] <= promising]


def _reduced(session: Session, layers: Layers) -> Layers | None:
    """A student without one neuron after the other until it gives the answers; None where it is not promising any more before that."""
    while True:
        network, _ = layers.to_network(session.students_hparams)
        if gives_answers(session, network):
            return layers
        removed = removals(network, session.queries)
        if not removed or relative_loss(network, session.loaders.train) > PROMISING:
            return None
        layers = _fitted(session, removed[0].layers)


def _minimal(session: Session, layers: Layers) -> Layers:
    """A network that gives the answers, without all neurons whose removal leaves it exact after a fit."""
    while True:
        network, _ = layers.to_network(session.students_hparams)
        for removal in removals(network, session.queries)[:TRIALS]:
            smaller = _fitted(session, removal.layers)
            if gives_answers(session, smaller.to_network(session.students_hparams)[0]):
                layers = smaller
                break
        else:
            return layers


def _fitted(session: Session, layers: Layers) -> Layers:
    """The layers of a network, from which a neuron was removed, after a fit to all answers for training.

    Where signs are open, surplus neurons may make good for wrong ones, as long as none of them is removed. So signs are settled first,
    unless that takes a further unit. Of 64-10-3 gelu, a student at 1e-9 became exact with the first neuron that was removed in this way.
    Without, it was at 1e-10 after three neurons, and had lost its way after five.
    """
    if session.symmetry.slope:
        resolved = with_resolved_signs(layers, session)
        layers = resolved if resolved.sizes == layers.sizes else layers
    network, _ = layers.to_network(session.students_hparams)
    descend_in_bends(network, session.queries, session.answers, MOST_STEPS, has_stalled(STALL))
    return Layers.of(network)

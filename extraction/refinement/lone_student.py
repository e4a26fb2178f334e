"""The network of a single student at the solution, where no other student is there to agree with it, or where students are deep.

A student that gives exact answers contains the network. Beside it there are surplus neurons, which no other student tells apart from the
network's. They are removed one by one, as long as the rest still gives all answers after a fit. What is left is minimal, and the
certificate examines it like any other network.

Of 8-3-3-2 gelu, one in 100 students with four neurons in each layer came to 1e-30 after 500 steps of Adam and 200 of Levenberg-Marquardt
(16 s on one core), and none of 48 with 12 neurons below 1e-6.
"""

from __future__ import annotations

import numpy as np
from scipy.cluster import hierarchy

from extraction.certification.determination import Determined
from extraction.clustering import Clustering, condensed_distances
from extraction.fitting import Fit, fit_or_none, gives_answers
from extraction.network import Layers, unknowns_of, unknowns_of_one
from extraction.recovery import RecoveredLayer
from extraction.refinement import deep_students, scarce
from extraction.refinement.selection import NEARLY_EXACT, TRIM_EQUATIONS, Candidate, trim
from extraction.session import Session
from extraction.simplify import removals
from extraction.students import Imitation, is_brief
from extraction.symmetry import canonical
from foundations.errors import ConfigError
from training.second_order import DENSE_PARAMETERS

TRIALS = 4  # neurons in each hidden layer whose removal is tried before all neurons count as needed


def of_lone_student(session: Session, start: Imitation, location: str) -> Candidate | None:
    """The network of the best student; None where it is not at the solution, or where another student is.

    Where answers are scarce, the best students are first taken there, see `scarce`, and one of them is enough. The same holds for deep
    students that were trained for a short time, see `deep_students`.

    Args:
        session: the extraction.
        start: the students of the whole network.
        location: the path that the folders of the fits begin with.
    """
    if scarce.suits(session, start):
        return of_best_students(session, start, location)
    if is_brief(session):
        session.say("Taking the best students to their solutions")
        found = deep_students.solved(session, start)
        fitted = None if found is None else _reduced(session, found, location)
        return None if fitted is None else (_alone(session, start), fitted)
    exact = NEARLY_EXACT * float(start.loaders.train.labels.var(0).mean())
    if sum(loss <= exact for loss in start.losses) != 1:
        return None
    session.say("One student is at the solution: removing the neurons that it does not need")
    fitted = minimal(session, start.layers.student(start.best), location)
    return None if fitted is None else (_alone(session, start), fitted)


def _reduced(session: Session, layers: Layers, location: str) -> Fit | None:
    """The fit of a network near the solution, which may be exact only once it has lost surplus neurons; None where it does not become so.

    Two neurons of 64-10-10-13-10, sigmoid, cancelled each other, and the fit stalled at 1e-16 of the variance.
    """
    try:
        fitted = trim(session, layers, location)[-1]
    except ConfigError:
        return None
    if not gives_answers(session, fitted.network):
        return None
    return minimal(session, Layers.of(fitted.network), f"{location}_minimal")


def of_best_students(session: Session, start: Imitation, location: str) -> Candidate | None:
    """The network of one of the best students, which are first taken to their solutions; None where none of them leads to one.

    Neurons that are hardly nonlinear on the queries are such a case, as those of small regressions are: with pre-activations that vary by
    0.3, students of 28 neurons imitate a network of 7 tanh neurons to 1e-5 of the variance and share none of them. The best one came to
    1e-9 in 25 bent steps, to 1e-14 without 8 neurons, and was exact without 21, in 14 s. Students 28-20 of 6-7-5-1 tanh (a regression of
    scikit-learn) took 65 s to 6-7-5-1 in the same way. Arguments are those of `of_lone_student`.
    """
    found = scarce.smallest_exact(session, start)
    fitted = None if found is None else _exact_fit(session, found, location)
    return None if fitted is None else (_alone(session, start), fitted)


def may_hold_the_network(session: Session, start: Imitation) -> bool:
    """Whether students are small enough to be taken to their solutions, and the answers exact, if `of_lone_student` has not done so.

    Deep students of units with kinks stay where they are: those of 6-7-5-1 relu at 5e-5 of the variance.
    """
    is_small = unknowns_of_one(start.students) <= scarce.MOST_UNKNOWNS
    stays = session.symmetry.positive_scaling and len(start.students.sizes) > 3
    return is_small and session.known.is_exact and not stays and not scarce.suits(session, start)


def minimal(session: Session, layers: Layers, location: str) -> Fit | None:
    """The fit of a network, without all neurons whose removal leaves it exact after a fit; None where it is not exact itself.

    A surplus neuron leaves combinations of weights open. Where the answers determine all weights, no removal is tried: of 64-10-10-10-10,
    twelve trials that failed took most of the time.

    Args:
        session: the extraction.
        layers: of the network, the output layer last.
        location: the path that the folders of the fits begin with.
    """
    fitted, trials = _exact_fit(session, layers, location), 0
    if fitted is None:
        return None
    while _may_have_surplus(session, fitted):
        for removal in removals(fitted.network, session.queries)[: TRIALS * (len(layers) - 1)]:
            trials += 1
            trial = _exact_fit(session, removal.layers, f"{location}_trial_{trials}")
            if trial is not None:
                fitted = trial
                break
        else:
            break
    return fitted


def _may_have_surplus(session: Session, fitted: Fit) -> bool:
    """Whether the answers leave combinations of weights open, or the network is too large to examine that."""
    if unknowns_of(fitted.network) > DENSE_PARAMETERS:
        return True
    return Determined.of(fitted.network, session.symmetry, session.loaders.train, session.asked).spectrum.has_open


def _exact_fit(session: Session, layers: Layers, location: str) -> Fit | None:
    """The fit of a network; None where it does not give all answers, or diverges."""
    fitted = fit_or_none(session, layers, location, TRIM_EQUATIONS)
    return fitted if fitted is not None and gives_answers(session, fitted.network) else None


def _alone(session: Session, start: Imitation) -> list[RecoveredLayer]:
    """The hidden layers of the best student as recovered layers, for the report: each neuron is a cluster of its own."""
    recovered = []
    for incoming in start.layers.student(start.best).vectors[:-1]:
        vectors, factors = canonical(incoming, session.symmetry)
        count, distances = len(vectors), condensed_distances(vectors, session.symmetry.opposite_looks_alike)
        tree = hierarchy.linkage(distances) if count > 1 else np.empty((0, 4))
        clustering = Clustering(distances, tree, 0.0, np.arange(count), np.zeros(count, dtype=int))
        recovered.append(RecoveredLayer(vectors * factors, clustering, vectors))
    return recovered

"""The network of a single student at the solution, where no other student is there to agree with it.

A student that gives exact answers contains the network. Beside it there are surplus neurons, which no other student tells apart from the
network's. They are removed one by one, as long as the rest still gives all answers after a fit. What is left is minimal, and the
certificate examines it like any other network.

Of 8-3-3-2 gelu, one in 100 students with four neurons in each layer came to 1e-30 after 500 steps of Adam and 200 of Levenberg-Marquardt
(16 s on one core), and none of 48 with 12 neurons below 1e-6.
"""

from __future__ import annotations

from extraction.fitting import Fit, fit, gives_answers
from extraction.network import Layers, contributions
from extraction.recovery import Neurons, RecoveredLayer, recover
from extraction.selection import NEARLY_EXACT, TRIM_EQUATIONS, Candidate
from extraction.session import Session
from extraction.simplify import removals
from extraction.students import Imitation

TRIALS = 4  # neurons in each hidden layer whose removal is tried before all neurons count as needed


def of_lone_student(session: Session, start: Imitation, location: str) -> Candidate | None:
    """The network of the best student; None where it is not at the solution, or where another student is.

    Args:
        session: the extraction.
        start: the students of the whole network.
        location: the path that the folders of the fits begin with.
    """
    exact = NEARLY_EXACT * float(start.loaders.train.labels.var(0).mean())
    if sum(loss <= exact for loss in start.losses) != 1:
        return None
    session.say("One student is at the solution: removing the neurons that it does not need")
    fitted = minimal(session, start.layers.student(start.best), location)
    layers = [_alone(session, start, depth) for depth in range(1, len(start.students.fc_layers) + 1)]
    if fitted is None or None in layers:
        return None
    return [layer for layer in layers if layer is not None], fitted


def minimal(session: Session, layers: Layers, location: str) -> Fit | None:
    """The fit of a network, without all neurons whose removal leaves it exact after a fit; None where it is not exact itself.

    Args:
        session: the extraction.
        layers: of the network, the output layer last.
        location: the path that the folders of the fits begin with.
    """
    fitted, trials = fit(session, layers, location, TRIM_EQUATIONS), 0
    if not gives_answers(session, fitted.network):
        return None
    while True:
        for removal in removals(fitted.network, session.queries)[: TRIALS * (len(layers) - 1)]:
            trials += 1
            trial = fit(session, removal.layers, f"{location}_trial_{trials}", TRIM_EQUATIONS)
            if gives_answers(session, trial.network):
                fitted = trial
                break
        else:
            return fitted


def _alone(session: Session, start: Imitation, depth: int) -> RecoveredLayer | None:
    """The neurons of a hidden layer of the best student as a recovered layer, for the report; None where there are none."""
    contribution = contributions(start.students, depth, start.loaders.train.examples)[[start.best]]
    residual = contribution.new_tensor([start.best_loss * start.loaders.train.labels.shape[1]]).sqrt()
    neurons = Neurons(start.layers.vectors[depth - 1][[start.best]], contribution, residual)
    return recover(neurons, session.symmetry, session.criteria(0.0))

"""Small deep students that were trained for a short time, and that Levenberg-Marquardt then takes to the solution.

Steps that bend (`training.second_order.AcceleratedSearch`) go on where Adam is slow. Four students 64-16-16-16-10 of a tanh network with
ten neurons in each layer, of which 2,000 steps of Adam left 1e-4 of the variance, came to 1e-12 to 1e-21 in ten steps. The best student
is taken first, alone, and the next one only where it stalls. A student at the solution contains the network; its surplus neurons are
removed (`lone_student.minimal`). So no students of the layers above the first have to be trained, which took two thirds of the time.
"""

from __future__ import annotations

import math

import torch

from extraction.descent import descend_in_bends, has_stalled
from extraction.fitting import relative_loss
from extraction.network import Layers, unknowns_of
from extraction.refinement.selection import NEARLY_EXACT, PROMISING
from extraction.session import Session
from extraction.students import Imitation
from foundations.seeds import derive
from models.mlp import FullyConnected

EQUATIONS = (5, 25)  # for each unknown of a student: at first, and once it is promising
TAKEN = 3  # students, the best ones
STEPS, STALL = 40, 6  # of a student; it stops where the loss does not halve in so many steps
SOLVED = 1e-20  # the loss, as a share of the variance, at which it stops


def solved(session: Session, start: Imitation) -> Layers | None:
    """The first of the best students that gives the answers, or nearly; None where none of them comes there.

    Few equations make steps cheap, and a student may fit them better than the others: then it goes on with more of them.

    Args:
        session: the extraction.
        start: the students of the whole network.
    """
    for place in torch.tensor(start.losses).nan_to_num(math.inf).argsort(stable=True)[:TAKEN].tolist():
        network, _ = start.layers.student(place).to_network(session.students_hparams)
        for equations in EQUATIONS:
            _descend(session, network, equations)
            loss = relative_loss(network, session.loaders.train)
            if loss <= NEARLY_EXACT:
                return Layers.of(network)
            if loss > PROMISING:
                break
    return None


def _descend(session: Session, network: FullyConnected, equations: int) -> None:
    """Takes a network towards the solution on so many equations for each unknown, in place."""
    queries, outputs = session.answers.shape
    generator = torch.Generator().manual_seed(derive(session.seed, "deep students"))
    chosen = torch.randperm(queries, generator=generator)[: -(-equations * unknowns_of(network) // outputs)]
    answers, has_stopped = session.answers[chosen], has_stalled(STALL)
    enough = SOLVED * float(answers.var(0).mean())
    descend_in_bends(network, session.queries[chosen], answers, STEPS, lambda losses: losses[-1] <= enough or has_stopped(losses))

"""The rungs of a race: how many students of what width, and how long they are trained.

What tells hypotheses apart is Levenberg-Marquardt. Four students of 12 neurons a layer, held-out losses as shares of the variance of the
answers (networks of `testing/benchmarks/black_boxes.py`, 3,000 to 6,000 answers; the number of steps of Levenberg-Marquardt is given):

    network         steps   right          others
    12-5-2 relu     10      4e-15          leaky_relu 2e-7, else 3e-3 and more
    6-4-2 tanh      10      5e-12          1e-3 and more with one layer
    9-3-5-1 tanh    10      3e-11          5e-4 and more with two layers
    9-4-6-5-2 tanh  60      2e-7           gelu 1e-3, two layers of tanh 2e-4
    8-3-3-2 gelu    60      7e-6           tanh 9e-5, silu 9e-5, softplus 2e-4, relu 1e-3
    5-4-4-3 relu    60      7e-4           leaky_relu 3e-3, gelu 3e-3

Adam alone does not: after 3,000 steps the students of 8-3-3-2 gelu were at 4e-4 with gelu, 3e-4 with tanh and 4e-4 with silu. Larger first
or least dampings changed nothing. Students with one layer more lose less before they are near the solution, so that the best of each depth
goes on: after 120 steps, 8-3-3-2 gelu was at 4e-5 with two layers of gelu, and at 2e-5 with three of silu.
"""

from __future__ import annotations

from typing import Any

from extraction.hypothesis import DEPTHS, Hypothesis
from extraction.racing.race import Rung

WIDTH = 12  # of the students of the first rungs
RUNGS = (
    Rung(students=4, factor=1, kept=3, steps=1000, polish_steps=10),
    Rung(students=4, factor=1, kept=2, steps=2000, polish_steps=40),
    Rung(students=150, factor=1 / 3, kept=2, steps=500, polish_steps=150, is_swarm=True),
    Rung(students=60, factor=1 / 2, kept=1, steps=1000, polish_steps=100, is_swarm=True),
    Rung(students=6, factor=1, kept=1, steps=2000, polish_steps=120),
    Rung(students=6, factor=2, kept=1),
)
POLISHED = 800  # weights and biases of a student up to which Levenberg-Marquardt ranks hypotheses
UNPOLISHED = 6  # times as long students are trained that are not polished


def short_training(rung: Rung, hypothesis: Hypothesis, unknowns: int) -> dict[str, Any]:
    """The hyperparameters of training in a rung before the last.

    Args:
        rung: with its number of steps.
        hypothesis: of the students.
        unknowns: weights and biases of a student.
    """
    assert rung.steps is not None
    if rung.polish_steps is None or unknowns > POLISHED:
        return {"training_steps": f"{UNPOLISHED * rung.steps}it"}
    polish_steps = rung.polish_steps * DEPTHS[-1] // hypothesis.depth
    steps = {"training_steps": f"{rung.steps}it", "polish_steps": f"{polish_steps}it"}
    return steps | {"polish_optimizer": "levenberg_marquardt"}


def suits(rung: Rung, unknowns: int) -> bool:
    """Whether a rung is of use for students with so many weights and biases: a swarm that is not polished finds nothing."""
    return not rung.is_swarm or unknowns <= POLISHED


def unknowns_of(students: str) -> int:
    """The weights and biases of one of the students with this name."""
    from models.students import Model as Students

    parsed = Students.parse(students)
    assert parsed is not None
    family, _, single = parsed
    sizes = family.layer_sizes(single)
    return sum((before + 1) * after for before, after in zip(sizes[:-1], sizes[1:], strict=True))

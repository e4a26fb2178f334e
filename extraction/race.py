"""A race of hypotheses: little is spent on the wrong ones, and the certificate decides.

A rung trains students of every hypothesis that is left, and ranks the hypotheses by the loss of their best student on held-out answers.
The better ones of each depth go on to more and longer training (successive halving; Jamieson & Talwalkar 2016). The network of a hypothesis
is recovered as soon as two of its students are near the solution, or after the last rung. Where no network is accepted and the students may
have been too narrow, all of it is repeated with students that are twice as wide.

This module is the logic alone: what it calls to train students and to recover networks is given.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from extraction.hypothesis import Hypothesis

AS_GOOD = 3.0  # hypotheses up to this many times the smallest loss are equally good, and the one with fewer layers is tried first
FINALISTS = 2  # hypotheses whose networks are recovered after the last rung
PROMISING = 1e-9  # the loss of a hypothesis in the first rung that makes it needless to look at more layers, as a rule
READY = 1e-8  # the loss of two students that show the neurons of a network well enough that it is recovered before the last rung
FAR = 1000.0  # a hypothesis with so many times the loss of the best one is left out, as a rule
PATIENCE = 2  # times as many hypotheses go on in a patient attempt
WIDENINGS = 2  # how often the students are made twice as wide


@dataclass(frozen=True)
class Rung:
    """A stage of the race.

    Attributes:
        students: of each hypothesis.
        factor: their width, as a multiple of the width of the race.
        kept: the largest number of hypotheses of each depth that go on.
        steps: of training; None for the defaults of these students.
        polish_steps: of Levenberg-Marquardt after that; None without polishing.
    """

    students: int
    factor: int
    kept: int
    steps: int | None = None
    polish_steps: int | None = None


@dataclass(frozen=True)
class Entry:
    """A hypothesis in a rung, with the width of its students."""

    hypothesis: Hypothesis
    rung: Rung
    width: int


@dataclass(frozen=True)
class Standing:
    """What became of an entry.

    Attributes:
        entry: the hypothesis and its students.
        loss: the held-out loss of the best student, as a share of the variance of the answers.
        second: that of the second best student.
    """

    entry: Entry
    loss: float
    second: float = math.inf

    @property
    def hypothesis(self) -> Hypothesis:
        """The hypothesis."""
        return self.entry.hypothesis

    @property
    def comparable(self) -> float:
        """The loss, which is infinite where students have diverged."""
        return self.loss if math.isfinite(self.loss) else math.inf


@dataclass(frozen=True)
class Outcome:
    """The network that was recovered under a hypothesis.

    Attributes:
        entry: the hypothesis and its students.
        accepted: whether its certificate accepts it, as exact or to the precision of the answers.
        loss: its error on held-out answers, as a share of the variance of the answers; infinite where no network was recovered.
        is_crowded: whether a layer has so many neurons that the students may have been too narrow.
        reason: why no network was recovered.
    """

    entry: Entry
    accepted: bool
    loss: float = math.inf
    is_crowded: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Track:
    """How a race is run.

    Attributes:
        rungs: the stages.
        width: of the students in the first of them.
        exact: the loss of students that give the answers as exactly as these are known.
        imitated: the loss up to which students imitate the network, so that they are not too narrow.
        train: trains the students of an entry, or finds them trained, and returns their standing.
        recover: recovers the network of an entry, or finds it recovered.
        say: prints a line.
        fits: whether the answers are enough for students of an entry.
    """

    rungs: Sequence[Rung]
    width: int
    exact: float
    imitated: float
    train: Callable[[Entry], Standing]
    recover: Callable[[Entry], Outcome]
    say: Callable[[str], None] = lambda line: None
    fits: Callable[[Entry], bool] = lambda entry: True


def race(track: Track, hypotheses: Sequence[Hypothesis]) -> Outcome | None:
    """The network of the first hypothesis whose network is accepted; otherwise the one that came nearest, None if there is none.

    Each width of the students is tried eagerly first, see `climb`, and then patiently, which finds the students of the eager attempt
    trained.
    """
    outcomes: list[Outcome] = []
    for widening in range(WIDENINGS + 1):
        wider = dataclasses.replace(track, width=track.width * 2**widening)
        if widening and not wider.fits(Entry(min(hypotheses), track.rungs[0], wider.width)):
            break
        best, crowded = math.inf, False
        for is_eager in (True, False):
            attempt = climb(wider, hypotheses, is_eager)
            outcomes += attempt.outcomes
            if outcomes and outcomes[-1].accepted:
                return outcomes[-1]
            best, crowded = min(best, attempt.best), crowded or any(outcome.is_crowded for outcome in attempt.outcomes)
            if attempt.is_complete:
                break
        if best <= track.imitated and not crowded:
            break
        if widening < WIDENINGS:
            track.say(f"No network is accepted, and the students may be too narrow: trying {2 * wider.width} neurons in each layer")
    return min(outcomes, key=lambda outcome: outcome.loss, default=None)


@dataclass(frozen=True)
class Attempt:
    """All rungs with students of one width.

    Attributes:
        best: the smallest loss of any student.
        outcomes: the networks that were recovered, an accepted one last.
        is_complete: whether no hypothesis was left out for the promise of another.
    """

    best: float
    outcomes: list[Outcome]
    is_complete: bool


def climb(track: Track, hypotheses: Sequence[Hypothesis], is_eager: bool) -> Attempt:
    """Takes hypotheses through all rungs with students of one width.

    Args:
        track: how the race is run.
        hypotheses: those with fewer layers first.
        is_eager: whether hypotheses with more layers are left out while one with fewer is promising, and those far behind the best one;
            otherwise more hypotheses go on as well.
    """
    left, best = list(hypotheses), math.inf
    outcomes: list[Outcome] = []
    is_complete = True
    for number, rung in enumerate(track.rungs, 1):
        size = f"{rung.students} students with {rung.factor * track.width} neurons in each layer"
        track.say(f"Rung {number} of {len(track.rungs)}: {size}, {rung.steps or 'all'} steps")
        standings = trained(track, left, rung, is_eager)
        is_complete = is_complete and len(standings) == len(left)
        ranked = ranking(standings, track.exact)
        best = min([best, *(standing.comparable for standing in ranked)])
        is_last = rung is track.rungs[-1]
        for standing in ranked[:FINALISTS] if is_last else [each for each in ranked if each.second <= max(READY, track.exact)]:
            track.say(f"Recovering the network: {standing.hypothesis}")
            outcomes.append(track.recover(standing.entry))
            if outcomes[-1].accepted:
                return Attempt(best, outcomes, is_complete)
        near = [standing for standing in ranked if not is_eager or standing.comparable <= max(FAR * best, track.exact)]
        is_complete = is_complete and (not is_eager or len(near) == len(ranked))
        left = best_of_each_depth(near, rung.kept if is_eager else PATIENCE * rung.kept)
    return Attempt(best, outcomes, is_complete)


def trained(track: Track, hypotheses: Sequence[Hypothesis], rung: Rung, is_eager: bool) -> list[Standing]:
    """The standings of hypotheses in a rung; arguments are those of `climb`."""
    standings: list[Standing] = []
    for hypothesis in hypotheses:
        shallower = (standing.loss for standing in standings if standing.hypothesis.depth < hypothesis.depth)
        if is_eager and min(shallower, default=math.inf) <= max(PROMISING, track.exact):
            break
        entry = Entry(hypothesis, rung, rung.factor * track.width)
        if track.fits(entry):
            standings.append(track.train(entry))
            track.say(f"  {hypothesis!s:32} held-out loss {standings[-1].loss:.1e}")
    return standings


def best_of_each_depth(standings: Sequence[Standing], count: int) -> list[Hypothesis]:
    """So many hypotheses of each depth with the smallest losses, those with fewer layers first.

    Before students are near the solution, those with more layers lose less, whatever the network is, so that depths are not compared.
    """
    ranked = sorted(standings, key=lambda standing: standing.comparable)
    chosen = [
        standing
        for depth in sorted({standing.hypothesis.depth for standing in standings})
        for standing in [each for each in ranked if each.hypothesis.depth == depth][:count]
    ]
    return [standing.hypothesis for standing in chosen]


def ranking(standings: Sequence[Standing], exact: float = 0.0) -> list[Standing]:
    """The hypotheses, best first. Of those about as good as the best, those with fewer layers come first.

    Students of more layers imitate a network of fewer layers as well: a pair of relu, softplus, gelu or silu neurons is the identity.

    Args:
        standings: of the hypotheses. A loss that is not finite comes last.
        exact: the loss up to which all are equally good.
    """
    ranked = sorted(standings, key=lambda standing: standing.comparable)
    limit = max(exact, AS_GOOD * ranked[0].comparable) if ranked else 0.0
    as_good = [standing for standing in ranked if standing.comparable <= limit]
    return sorted(as_good, key=lambda standing: standing.hypothesis.depth) + ranked[len(as_good) :]

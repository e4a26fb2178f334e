"""A race of hypotheses: little is spent on the wrong ones, and the certificate decides.

A rung trains students of every hypothesis that is left, and ranks the hypotheses by the loss of their best student on held-out answers.
The better ones of each depth go on to more and longer training (successive halving; Jamieson & Talwalkar 2016). The network of a hypothesis
is recovered as soon as two of its students are near the solution, or one is at the solution, or after the last rung. Where no network is
accepted and the students may have been too narrow, all of it is repeated with students that are twice as wide.

A swarm is a rung of many narrow students. Wide students of a network with a narrow layer of gelu, silu or softplus get stuck; most narrow
ones do as well, but they cost little, and one at the solution is enough. A swarm finds networks, and eliminates no hypothesis.

This module is the logic alone: what it calls to train students and to recover networks is given.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from extraction.hypothesis import Hypothesis, are_kindred

AS_GOOD = 3.0  # hypotheses up to this many times the smallest loss are equally good, and the one with fewer layers is tried first
FINALISTS = 2  # hypotheses whose networks are recovered after the last rung
PROMISING = 1e-9  # the loss of a hypothesis that makes it needless to look at more layers, as a rule
LEADING = 1e-6  # the same for a hypothesis that is far ahead of the others of its depth
READY, SECOND = 1e-8, 1e-5  # losses of the best two students with which the network is recovered before the last rung
SOLVED = 1e-13  # the loss of a student that is at the solution, so that the network is recovered from it alone
FAR = 1000.0  # a hypothesis with so many times the loss of the best one is far behind and left out, as a rule
CLEAR = 30.0  # a link whose best hypothesis has so many times the loss of the best of all is left out, as a rule
PATIENCE = 2  # times as many hypotheses go on in a patient attempt
RIVAL = 1.2  # hypotheses up to this many times the loss of the winner are its rivals, if the answers have errors
WIDENINGS = 2  # how often the students are made twice as wide
KIN = 10.0  # a hypothesis goes on beside a kindred one up to this many times its loss


@dataclass(frozen=True)
class Rung:
    """A stage of the race.

    Attributes:
        students: of each hypothesis.
        factor: their width, as a multiple of the width of the race.
        kept: the largest number of hypotheses of each depth and link that go on, beside their kin.
        steps: of training; None for the defaults of these students.
        polish_steps: of Levenberg-Marquardt after that, with three hidden layers; None without polishing. One layer gets three times as
            many, which cost little.
        is_swarm: whether these are many narrow students of deep networks, whose losses say nothing of a hypothesis unless one is zero.
    """

    students: int
    factor: float
    kept: int
    steps: int | None = None
    polish_steps: int | None = None
    is_swarm: bool = False

    def width(self, race_width: int) -> int:
        """The number of neurons in each layer of its students in a race of a width."""
        return math.ceil(self.factor * race_width)


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
    def is_ready(self) -> bool:
        """Whether the students are so near the solution that the network can be recovered from them."""
        return self.loss <= SOLVED or (self.loss <= READY and self.second <= SECOND)

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
        rivals: hypotheses that the answers, which have errors, do not distinguish from this one.
    """

    entry: Entry
    accepted: bool
    loss: float = math.inf
    is_crowded: bool = False
    reason: str = ""
    rivals: tuple[Hypothesis, ...] = ()


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

    @property
    def is_sharp(self) -> bool:
        """Whether the answers are precise enough that students of a wrong hypothesis do not give them as exactly as they are known."""
        return self.exact <= READY

    def has(self, rung: Rung, hypothesis: Hypothesis) -> bool:
        """Whether students of a hypothesis are trained in a rung: a swarm is for exact answers of deep networks."""
        is_suitable = not rung.is_swarm or (self.is_sharp and hypothesis.depth > 1)
        return is_suitable and self.fits(Entry(hypothesis, rung, rung.width(self.width)))


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
    left, best, is_complete = list(hypotheses), math.inf, True
    history: list[list[Standing]] = []
    outcomes: list[Outcome] = []
    for number, rung in enumerate(track.rungs, 1):
        takes_part = [hypothesis for hypothesis in left if track.has(rung, hypothesis)]
        if takes_part:
            size = f"{rung.students} students with {rung.width(track.width)} neurons in each layer"
            track.say(f"Rung {number} of {len(track.rungs)}: {size}, {rung.steps or 'all'} steps")
        standings: list[Standing] = []
        for hypothesis in takes_part:
            if is_eager and track.is_sharp and is_needless(hypothesis, standings):
                is_complete = False
                break
            standings.append(track.train(Entry(hypothesis, rung, rung.width(track.width))))
            track.say(f"  {hypothesis!s:32} held-out loss {standings[-1].loss:.1e}")
            if track.is_sharp and rung is not track.rungs[-1] and standings[-1].is_ready:
                outcomes.append(recovered(track, standings[-1]))
                if outcomes[-1].accepted:
                    return Attempt(best, outcomes, is_complete)
        if not rung.is_swarm:
            history.append(standings)
        last = [standing for standing in (history or [standings])[-1] if standing.hypothesis in left]
        here = min((standing.comparable for standing in last), default=math.inf)
        best = min(best, here)
        near = near_best(last, max(here, track.exact)) if is_eager else last
        is_complete = is_complete and (rung is track.rungs[-1] or len(near) == len(last))
        left = best_of_each_depth(near, rung.kept if is_eager else PATIENCE * rung.kept)
    ranked = ranking(history[-1], track.exact if track.is_sharp else 0.0)
    return Attempt(best, outcomes + finals(track, ranked[:FINALISTS], history), is_complete)


def is_needless(hypothesis: Hypothesis, standings: Sequence[Standing]) -> bool:
    """Whether a hypothesis of fewer layers is so promising that this one need not be looked at, as a rule."""
    for depth in {standing.hypothesis.depth for standing in standings if standing.hypothesis.depth < hypothesis.depth}:
        first, second, *_ = [*sorted(each.comparable for each in standings if each.hypothesis.depth == depth), math.inf]
        if first <= PROMISING or (first <= LEADING and FAR * first <= second < math.inf):
            return True
    return False


def recovered(track: Track, standing: Standing) -> Outcome:
    """The network of a hypothesis."""
    track.say(f"Recovering the network: {standing.hypothesis}")
    return track.recover(standing.entry)


def finals(track: Track, ranked: Sequence[Standing], history: Sequence[Sequence[Standing]]) -> list[Outcome]:
    """The networks of the hypotheses that are left, an accepted one last.

    A network that gives all answers exactly is conclusive, and ends the race. If the answers have errors, networks of several hypotheses
    may be accepted; the one that is nearest to the held-out answers counts, and the others, and hypotheses whose students were about as
    good, are its rivals.

    Args:
        track: how the race is run.
        ranked: the hypotheses, in the order in which they are tried.
        history: all standings, rung by rung.
    """
    outcomes: list[Outcome] = []
    for standing in ranked:
        outcomes.append(recovered(track, standing))
        if outcomes[-1].accepted and outcomes[-1].loss <= READY:
            return outcomes
    outcomes.sort(key=lambda outcome: (outcome.accepted, -outcome.loss))
    if outcomes and outcomes[-1].accepted:
        accepted = [outcome.entry.hypothesis for outcome in outcomes[:-1] if outcome.accepted]
        winner = outcomes[-1].entry.hypothesis
        rivals = dict.fromkeys([*accepted, *as_good(winner, history)])
        outcomes[-1] = dataclasses.replace(outcomes[-1], rivals=tuple(rivals))
    return outcomes


def as_good(winner: Hypothesis, history: Sequence[Sequence[Standing]]) -> list[Hypothesis]:
    """The hypotheses that were about as good as a winner in the last rung in which they took part."""
    last: dict[Hypothesis, tuple[float, float]] = {}
    for standings in history:
        losses = {standing.hypothesis: standing.comparable for standing in standings}
        last |= {hypothesis: (loss, losses.get(winner, 0.0)) for hypothesis, loss in losses.items()}
    return [hypothesis for hypothesis, (loss, own) in last.items() if hypothesis != winner and loss <= RIVAL * own]


def near_best(standings: Sequence[Standing], best: float) -> list[Standing]:
    """The hypotheses that are not far behind the best one, and whose link has one that is not clearly behind it.

    Args:
        standings: of the hypotheses.
        best: the smallest loss.
    """
    losses: dict[str, float] = {}
    for standing in standings:
        link = standing.hypothesis.link
        losses[link] = min(losses.get(link, math.inf), standing.comparable)
    return [each for each in standings if each.comparable <= FAR * best and losses[each.hypothesis.link] <= CLEAR * best]


def best_of_each_depth(standings: Sequence[Standing], count: int) -> list[Hypothesis]:
    """So many hypotheses of each depth and link with the smallest losses, those with fewer layers first.

    Before students are near the solution, those with more layers lose less, whatever the network is, so that depths are not compared. Nor
    do they tell kindred hypotheses apart: of 10-3-8-3 leaky_relu, students of relu were at 5e-4 and those of leaky_relu at 2e-3. Losses of
    logits and of probabilities are not compared either: a few probabilities near 0 and 1 are most of the variance of logits.
    """
    ranked = sorted(standings, key=lambda standing: standing.comparable)
    chosen = []
    for depth, link in sorted({(standing.hypothesis.depth, standing.hypothesis.link) for standing in standings}):
        here = [each for each in ranked if (each.hypothesis.depth, each.hypothesis.link) == (depth, link)]
        first = here[:count]
        chosen += first + [each for each in here[count:] if any(is_kin(each, other) for other in first)]
    return [standing.hypothesis for standing in chosen]


def is_kin(standing: Standing, other: Standing) -> bool:
    """Whether a hypothesis of the same depth and link differs from a better one by a slope alone, and is not far behind it."""
    return are_kindred(standing.hypothesis.act_fun, other.hypothesis.act_fun) and standing.comparable <= KIN * other.comparable


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

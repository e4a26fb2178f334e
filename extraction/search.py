"""The search for the network that students imitate: layer by layer, then as a whole; where one attempt fails, the next one begins.

Axes: K neurons of a layer, D inputs with the bias last, Q queries.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from dataclasses import dataclass

from extraction.answers import Answers
from extraction.certification.determination import Determined
from extraction.derivatives.result import Recovery
from extraction.fitting import Fit, fit, folded, gives_answers
from extraction.linear import with_linear_map
from extraction.live import asking
from extraction.network import Layers
from extraction.peeling import Attempt, Peeled, peel
from extraction.preparation.outliers import Judgement, judge, limits, trimmed
from extraction.preparation.seldom import restored
from extraction.recovery import RecoveredLayer
from extraction.refinement import scarce
from extraction.refinement.linear_term import with_linear_term
from extraction.refinement.linked import fit_probabilities, is_linked
from extraction.refinement.lone_student import may_hold_the_network, of_best_students, of_lone_student
from extraction.refinement.parted import united
from extraction.refinement.selection import Candidate, best_of, completed, fit_to_all_answers, misses_a_part, smallest_of_the_best, trim
from extraction.refinement.turned import with_turned_units
from extraction.reporting.diagnosis import CROWDED, IMITATED
from extraction.session import Session
from extraction.students import Imitation, Standardisation, individual_losses, train_longer
from foundations import paths
from foundations.errors import ConfigError
from foundations.model_hparams import ModelHparams
from models import registry as models
from models.mlp import FullyConnected
from models.students import Model as Students
from platforms.platform import get_platform
from training.plotting import draw_missing_curves

ATTEMPTS = (
    Attempt(grows=True),
    Attempt(
        "generous",
        "The network does not give the answers exactly: adding doubtful clusters, then removing neurons that are not needed",
        doubtful=(0.5, 1.0),
        settles_signs=True,
    ),
    Attempt(
        "sharpened",
        "The network does not give the answers exactly: recovering deeper layers from students that are trained more exactly",
        doubtful=(0.5, 1.0),
        settles_signs=True,
        sharpens=True,
    ),
)


@dataclass(frozen=True)
class Reconstruction:
    """The network that was recovered from the students.

    Attributes:
        layers: the recovered hidden layers.
        fit: the network, before and after fine-tuning, for the queries and answers of the session.
        losses: of the students, on the queries.
        students_file: the name of the file with the students' weights.
        held_out_losses: of the students, on the held-out queries.
        validated: the network before a last fit to all answers, the held-out ones included; None where there was no such fit.
        own: the reconstruction for the user's inputs and outputs, in its final folder; this one where left out.
        judgement: what became of rows of a file that the network does not give; None for the answers of a network.
        asked: how many further queries a teacher was asked, by phase.
        remarks: what these have left open, a sentence each.
        derivatives: what derivatives have found of the teacher; None where they were not tried. If they found the network, there are
            neither students nor recovered layers.
        determined: how well the answers determine the network, where this was examined during the search.
    """

    layers: list[RecoveredLayer]
    fit: Fit
    losses: list[float]
    students_file: str
    held_out_losses: list[float]
    validated: FullyConnected | None = None
    own: Reconstruction | None = None
    judgement: Judgement | None = None
    asked: dict[str, int] = dataclasses.field(default_factory=dict)
    remarks: list[str] = dataclasses.field(default_factory=list)
    derivatives: Recovery | None = None
    determined: Determined | None = None

    @property
    def unscaled(self) -> Reconstruction:
        """The reconstruction with the network of the user's inputs and outputs."""
        return self.own or self

    @property
    def network(self) -> FullyConnected:
        """The network after fine-tuning."""
        return self.fit.network

    @property
    def model_hparams(self) -> ModelHparams:
        """The hyperparameters of the network."""
        return self.fit.model_hparams


def reconstruct(session: Session, students: Students) -> Reconstruction:
    """Recovers the network that the students imitate.

    A network that lacks a neuron cannot give the answers exactly. A network with too many neurons can, and shows which neurons it does not
    need. So where the clusters that count do not lead to the rounding floor, the next attempt adds doubtful clusters and removes the
    neurons that are needed least. Where that fails too, the last attempt trains the students of deeper layers more exactly. After the first
    attempt, and where all attempts fail, the best network is completed: it grows the neurons that it lacks, or loses those in excess. Where
    that fails as well, as with noisy answers, the result is one of the networks that give the answers about as well as the best one.

    Args:
        session: the extraction.
        students: trained.

    Raises:
        ConfigError: the students share too little.
    """
    students_file = os.path.basename(models.latest_weights_file(session.students_location))
    losses = individual_losses(students.to(session.queries), session.loaders.train)
    work = session.work_folder(students_file)
    start = Imitation(students, losses, session.loaders, Standardisation.identity(session.queries), work)
    session, best = _found(session, start, work)
    best, scaling = with_turned_units(session, best, f"{work}_turned"), session.scaling
    session, best = restored(session, united(session, best, work), work)
    will_ask = asking.can_ask(session) and asking.suits(session, best[1].network)
    judgement, best = _judged(session, best, work, not will_ask)
    asked = asking.about_open(judgement.session, best, f"{work}_asked")
    if asked.session is not judgement.session or (will_ask and judgement.doubtful):
        judgement, best = _judged(asked.session, asked.best, f"{work}_asked")
    session, (recovered, fitted) = judgement.session, best
    last = None if judgement.doubtful else fit_to_all_answers(session, fitted, f"{work}_all_answers")
    if is_linked(session):
        fitted = fit_probabilities(session, fitted, f"{work}_probabilities")
        last = last and fit_probabilities(session.with_all_answers, last, f"{work}_all_probabilities")
    validated, fitted = (None, fitted) if last is None else (fitted.network, last)
    held_out = individual_losses(students, (session if session.scaling is scaling else start).loaders.test)
    found = Reconstruction(recovered, fitted, losses, students_file, held_out, validated, judgement=judgement)
    return _placed(session, dataclasses.replace(found, asked=asked.counts, remarks=asked.remarks, determined=asked.determined))


def _placed(session: Session, result: Reconstruction) -> Reconstruction:
    """A reconstruction whose network for the user's inputs and outputs is in its final folder, with the curves of its fit."""
    final, own = paths.reconstructed_model(session.location), folded(session, result.fit)
    get_platform().move(own.location, final)
    get_platform().on_primary(lambda: draw_missing_curves(final))
    unscaled = dataclasses.replace(result, fit=dataclasses.replace(own, location=final))
    if session.scaling is None:
        return unscaled
    if result.validated is not None:
        network, _ = session.scaling.fold(Layers.of(result.validated)).to_network(session.desc.model_hparams)
        unscaled = dataclasses.replace(unscaled, validated=network)
    return dataclasses.replace(result, own=unscaled)


def _judged(session: Session, best: Candidate, location: str, grows: bool = True) -> tuple[Judgement, Candidate]:
    """What becomes of the rows that the best network does not give, and the network.

    A neuron that few rows show may have looked like errors in them: the network grows it, if it can.

    Args:
        session: the extraction without rows that were set aside.
        best: the network, fitted to the others.
        location: the path that the folders of the fits begin with.
        grows: False where a teacher is asked around these rows first, which shows such a neuron in more rows.
    """
    judgement = judge(session, best[1].network)
    if judgement.doubtful:
        if not grows:
            return judgement, best
        grown = completed(judgement.session, best, f"{location}_doubtful")
        if grown and gives_answers(judgement.session, grown[-1][1].network):
            return Judgement(judgement.session), grown[-1]
    elif _comes_back(session, judgement, best[1].network):
        with contextlib.suppress(ConfigError):  # a divergence
            refitted = fit(judgement.session, Layers.of(best[1].network), f"{location}_all_rows", None)
            return judgement, (best[0], dataclasses.replace(refitted, before=best[1].before))
    return judgement, best


def _comes_back(session: Session, judgement: Judgement, network: FullyConnected) -> bool:
    """Whether rows that were set aside come back to a network which gives the others, but these not to rounding."""
    more = len(judgement.session.answers) > len(session.answers)
    return more and limits(session, network) is not None and not gives_answers(judgement.session, network)


def _found(session: Session, start: Imitation, work: str) -> tuple[Session, Candidate]:
    """The network that the attempts lead to, and the session without rows that seem to contradict all others.

    Where `--answers` states larger errors than the answers have, a network that lacks neurons seems to give them, and the search ends. But
    what it leaves depends on the query, which errors do not. The search is then repeated as if the answers were exact.

    Args:
        session: the extraction.
        start: the students of the whole network.
        work: the path that the folders of the runs begin with.
    """
    session, candidates = _attempted(session, start, work)
    if len(candidates) == 1 and _are_too_narrow(session, start, candidates[0]):
        return session, candidates[0]
    best = best_of(session, candidates, f"{work}_all_queries")
    if not (session.known.is_given and gives_answers(session, best[1].network) and misses_a_part(session, best[1].network)):
        return session, best
    session.say("The errors depend on the query, which those that --answers states do not: searching as for exact answers")
    exact = dataclasses.replace(session, precision=Answers.exact(session.answers.shape[1]))
    with contextlib.suppress(ConfigError):  # the students share too little
        exact, candidates = _attempted(exact, dataclasses.replace(start, loaders=session.loaders), f"{work}_exact")
        best = best_of(exact, candidates, f"{work}_exact_all_queries")
        session = dataclasses.replace(exact, precision=session.precision)
    return session, best


def _attempted(session: Session, start: Imitation, work: str) -> tuple[Session, list[Candidate]]:
    """The network that gives the answers exactly, or else all networks that the attempts led to.

    Args:
        session: the extraction.
        start: the students of the whole network.
        work: the path that the folders of the runs begin with.

    Returns:
        The session, without rows that seem to contradict all others, and the networks.

    Raises:
        ConfigError: the students share too little.
    """
    found = _found_at_once(session, start, work)
    if found is not None:
        return session, [found]
    start = train_longer(session, start, f"{work}_longer")
    candidates: list[Candidate] = []
    grown, failures = None, []
    for attempt in ATTEMPTS:
        if not attempt.suits(start.students, session):
            continue
        if attempt.message:
            session.say(attempt.message)
        try:
            peeled = peel(session, start, attempt)
            location = f"{work}_{attempt.name}" if attempt.name else work
            fits = _fitted(session, peeled, location)
        except ConfigError as error:
            failures.append(error)
            continue
        candidates += [(peeled.recovered, fitted) for fitted in fits]
        if gives_answers(session, fits[-1].network):
            return session, candidates[-1:]
        beside = with_linear_term(session, peeled.layers, f"{location}_beside")
        if beside is not None:
            session, fitted = beside
            return session, [(peeled.recovered, fitted)]
        without = trimmed(session.numbered, fits[-1], f"{location}_rows")
        if without is not None:
            session, fitted = without
            candidates, start = [(peeled.recovered, fitted)], dataclasses.replace(start, loaders=session.loaders)
        if attempt.grows and _are_too_narrow(session, start, candidates[-1]):
            more = completed(session, candidates[-1], f"{location}_grown", only_few=True)
            return session, more[-1:] or candidates[-1:]
        if attempt.grows and not gives_answers(session, candidates[-1][1].network):
            candidates += completed(session, candidates[-1], f"{location}_grown")
            grown = candidates[-1]
        if gives_answers(session, candidates[-1][1].network):
            return session, candidates[-1:]
        held = of_best_students(session, start, f"{work}_held") if attempt.grows and may_hold_the_network(session, start) else None
        if held is not None:
            return session, [held]
    if not candidates:
        raise failures[0]
    best = smallest_of_the_best(session, candidates)
    return session, candidates + (completed(session, best, f"{work}_completed") if best is not grown else [])


def _found_at_once(session: Session, start: Imitation, work: str) -> Candidate | None:
    """The network of a single student; where answers are scarce that of the clusters, if it gives the answers without further attempts.

    Arguments are those of `_attempted`.
    """
    if scarce.suits(session, start):
        with contextlib.suppress(ConfigError):  # the students share too little
            peeled = peel(session, start, ATTEMPTS[0])
            fitted = fit(session, peeled.layers, work)
            if gives_answers(session, fitted.network):
                return peeled.recovered, fitted
    return of_lone_student(session, start, f"{work}_alone")


def _are_too_narrow(session: Session, start: Imitation, best: Candidate) -> bool:
    """Whether students do not imitate the teacher, share about as many neurons as they have, and lead to a network that is not right.

    Then more neurons are lacking than can be grown, and doubtful clusters are parts of them. Students of 32 of a teacher with 40 neurons
    had a loss of 5e-3 of the variance and shared 31 neurons. With eight neurons grown, in four times the time, the loss was 1e-4.
    Students that are narrow because answers are scarce are wide enough for what these tell.
    """
    variance, network = float(session.answers.var(0).mean()) or 1.0, best[1].network
    counts = zip(network.sizes[1:-1], start.students.sizes[1:-1], strict=True)
    crowded = any(count >= CROWDED * width for count, width in counts)
    return crowded and start.best_loss > IMITATED * variance and not session.is_scarce and not gives_answers(session, network)


def _fitted(session: Session, peeled: Peeled, location: str) -> list[Fit]:
    """The fits of the layers that were recovered: without neurons in excess, and with a linear map where it pays."""
    fits = trim(session, peeled.layers, location) if peeled.may_have_excess else [fit(session, peeled.layers, location)]
    if not gives_answers(session, fits[-1].network):
        layers = with_linear_map(Layers.of(fits[-1].network), session.queries, session.answers, session.seed)
        with contextlib.suppress(ConfigError):  # more unknowns than answers, or a divergence
            fits += [fit(session, layers, f"{location}_linear")] if layers else []
    return fits

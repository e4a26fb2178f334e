"""The search for the network that students imitate: layer by layer, then as a whole; where one attempt fails, the next one begins.

Axes: K neurons of a layer, D inputs with the bias last, Q queries.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from datasets import boruta
from extraction import asking
from extraction.answers import Answers
from extraction.determination import Determined
from extraction.diagnosis import CROWDED, IMITATED, advice
from extraction.facts import of_students
from extraction.fitting import Fit, fit, folded, gives_answers
from extraction.linear import between, with_linear_map
from extraction.linear import settled as settled_last
from extraction.linear_term import with_linear_term
from extraction.linked import fit_probabilities, is_linked
from extraction.lone_student import of_lone_student
from extraction.network import Layers, contributions, fit_outputs, with_ones
from extraction.outliers import Judgement, judge, limits, trimmed
from extraction.parted import united
from extraction.recovery import Neurons, RecoveredLayer, recover
from extraction.seldom import restored
from extraction.selection import Candidate, best_of, completed, fit_to_all_answers, misses_a_part, smallest_of_the_best, trim
from extraction.session import Session
from extraction.signs import settle_signs, sign_invariant_features
from extraction.students import Imitation, Standardisation, imitate_above, individual_losses, polished, sharpen, train_together
from foundations import paths
from foundations.errors import ConfigError
from foundations.model_hparams import ModelHparams
from models import registry as models
from models.mlp import FullyConnected
from models.students import Model as Students
from platforms.platform import get_platform
from training.plotting import draw_missing_curves

LACKING = 100.0  # a layer lacks a neuron where students above it have more than this many times the loss of those before


@dataclass(frozen=True)
class Attempt:
    """One way to search.

    Attributes:
        name: a part of the names of its folders; empty for the first attempt.
        message: what is printed when it begins.
        doubtful: the numbers of doubtful clusters, for each cluster that counts, to try in turn while a layer lacks a neuron.
        settles_signs: whether signs that matter are settled, and the layer is trained further, before the next layer is recovered.
        sharpens: whether recovered layers are fitted to the answers before the next layer is recovered.
        grows: whether a network that is nearly complete grows the neurons that it lacks before the next attempt.
    """

    name: str = ""
    message: str = ""
    doubtful: tuple[float, ...] = (0.0, 0.5, 1.0)
    settles_signs: bool = False
    sharpens: bool = False
    grows: bool = False

    @property
    def is_generous(self) -> bool:
        """Whether doubtful clusters are added from the start."""
        return self.doubtful[0] > 0

    def shares(self, is_first: bool) -> Sequence[float]:
        """The numbers of doubtful clusters to try for a layer.

        The first of several layers is the easiest, and is always tried without doubtful clusters first.
        """
        return (0.0, *self.doubtful) if is_first and self.is_generous else self.doubtful

    def suits(self, students: Students, session: Session) -> bool:
        """Whether the attempt differs from the attempts before it for such students."""
        return not self.sharpens or (len(students.fc_layers) > 1 and session.symmetry.slope == 0)


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


@dataclass(frozen=True)
class Peeled:
    """The layers of a network before they are fitted to the answers as a whole.

    Attributes:
        recovered: what was recovered of each hidden layer.
        layers: the layers, the output layer last.
        may_have_excess: whether there may be neurons in excess.
    """

    recovered: list[RecoveredLayer]
    layers: Layers
    may_have_excess: bool


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
    scaling = session.scaling
    session, best = restored(session, united(session, best, work), work)
    judgement, best = _judged(session, best, work)
    asked = asking.about_open(judgement.session, best, f"{work}_asked")
    if asked.session is not judgement.session:
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


def _judged(session: Session, best: Candidate, location: str) -> tuple[Judgement, Candidate]:
    """What becomes of the rows that the best network does not give, and the network.

    A neuron that few rows show may have looked like errors in them: the network grows it, if it can.

    Args:
        session: the extraction without rows that were set aside.
        best: the network, fitted to the others.
        location: the path that the folders of the fits begin with.
    """
    judgement = judge(session, best[1].network)
    if judgement.doubtful:
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
    alone = of_lone_student(session, start, f"{work}_alone")
    if alone is not None:
        return session, [alone]
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
        if _are_too_narrow(session, start, candidates[-1]):
            more = completed(session, candidates[-1], f"{location}_grown", only_few=True)
            return session, more[-1:] or candidates[-1:]
        if attempt.grows and not gives_answers(session, candidates[-1][1].network):
            candidates += completed(session, candidates[-1], f"{location}_grown")
            grown = candidates[-1]
        if gives_answers(session, candidates[-1][1].network):
            return session, candidates[-1:]
    if not candidates:
        raise failures[0]
    best = smallest_of_the_best(session, candidates)
    return session, candidates + (completed(session, best, f"{work}_completed") if best is not grown else [])


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


def peel(session: Session, start: Imitation, attempt: Attempt) -> Peeled:
    """Recovers one hidden layer after the other, and fits the output layer.

    Once a layer is known, its standardised activations are the inputs of fresh, shallower students that imitate the rest of the network.
    Without standardisation they vary little around a mean that has nothing to do with the next layer, and the second layer of twelve
    sigmoid neurons was lost. Where a neuron's sign is open and matters, students get the sign-invariant features of its activation, and
    show by their weights over them which sign is right.

    Shallower students reach about the loss of the students before, unless the layer below them lacks a neuron. With three layers of ten
    neurons, one of them with nine recovered, their loss was thousands of times as large; with complete layers it was 80 times as large at
    most. Doubtful clusters are then added to that layer: half as many as count, and at last as many. This recovered the tenth neuron of g
    in the second of three layers, with six neurons in excess.

    Args:
        session: the extraction.
        start: the students of the whole network.
        attempt: the way to search.

    Raises:
        ConfigError: the students share too little.
    """
    here, below, recovered = start, Layers((), session.act_fun), []
    may_have_excess, settled = attempt.is_generous, session.symmetry.slope == 0
    for _ in range(1, len(start.students.fc_layers)):
        step = recover_until_imitated(session, here, below, attempt)
        layers, above = step.layers, step.above
        if not settled and attempt.settles_signs:
            layers, above = with_settled_signs(session, layers, here, above)
        if settled or attempt.settles_signs:
            layers, above = train_together(session, layers, above)
        above = polished(session, above, session.desc.training_hparams, paths.polish(above.location, "model"))
        if attempt.sharpens:
            layers, above = sharpen(session, layers, above)
        recovered.append(step.recovered)
        may_have_excess = may_have_excess or step.doubtful > 0
        here, below = above, layers
    recovered.append(recover_layer(session, here, len(below) == 0, attempt.doubtful[0]))
    layers = stacked(session, below, recovered[-1].incoming, here.scale)
    inputs = layers.all_but_last.activations(session.queries)
    last = settled_last(layers.vectors[-1], session.act_fun, inputs, session.answers, session.seed)
    layers = layers.all_but_last.followed_by(last)
    outputs = fit_outputs(layers.replace(last).activations(inputs), session.answers)
    return Peeled(recovered, layers.followed_by(outputs.T), may_have_excess)


@dataclass(frozen=True)
class NextLayer:
    """One hidden layer more.

    Attributes:
        recovered: the neurons that the students share.
        layers: the recovered layers up to this one.
        above: students of what is above them.
        doubtful: the number of doubtful clusters, for each that counts, that were added.
    """

    recovered: RecoveredLayer
    layers: Layers
    above: Imitation
    doubtful: float


def recover_until_imitated(session: Session, here: Imitation, below: Layers, attempt: Attempt) -> NextLayer:
    """The next hidden layer, with more and more doubtful clusters until students above it reach about the loss of those before.

    Args:
        session: the extraction.
        here: the students before.
        below: the recovered layers.
        attempt: the way to search.

    Raises:
        ConfigError: the students share too little.
    """
    step, shares = None, attempt.shares(is_first=len(below) == 0)
    for doubtful in shares:
        recovered = recover_layer(session, here, len(below) == 0, doubtful)
        if step is not None and len(recovered.incoming) == len(step.recovered.incoming):
            return dataclasses.replace(step, doubtful=doubtful)  # there are no more doubtful clusters
        layers = stacked(session, below, recovered.incoming, here.scale)
        location = f"{here.location}_layer_{len(layers) + 1}{f'_doubtful_{doubtful:g}' if doubtful else ''}"
        step = NextLayer(recovered, layers, imitate_above(session, layers, here.students, location), doubtful)
        if step.above.best_loss <= LACKING * here.best_loss:
            break
        if doubtful < shares[-1]:
            session.say(f"Hidden layer {len(layers)} may lack a neuron: adding doubtful clusters")
    assert step is not None
    return step


def with_settled_signs(session: Session, layers: Layers, here: Imitation, above: Imitation) -> tuple[Layers, Imitation]:
    """Recovered layers with the signs that the students above them indicate, and new students on the activations with these signs.

    The new students have half as many inputs, and the recovered layers can be trained together with them. With softplus and three layers of
    ten, one of which had nine of its neurons and two others, this made the first layer more exact, and the second layer had all ten
    neurons.

    Args:
        session: the extraction.
        layers: the recovered layers.
        here: the students before.
        above: students that were trained while the signs were open.

    Raises:
        ConfigError: the students share too little.
    """
    following = recover_layer(session, above, False, 0.0).incoming
    layers = stacked(session, layers, following, above.scale).all_but_last
    return layers, imitate_above(session, layers, here.students, f"{above.location}_settled", settled=True)


def stacked(session: Session, below: Layers, incoming: torch.Tensor, scale: Standardisation) -> Layers:
    """Recovered layers with one more layer on top, which also settles the signs of the layer below it, and its units that never switch.

    Args:
        session: the extraction.
        below: the recovered layers.
        incoming: of the next layer, over standardised inputs, `[K, D]`.
        scale: the standardisation of its inputs.
    """
    incoming = scale.undo(incoming)
    if not below.vectors:
        return below.followed_by(incoming)
    settled, following = settle_signs(below.vectors[-1], incoming, scale.spread, below.symmetry)
    if len(incoming[0]) > len(settled) + 1:
        features = sign_invariant_features(below.act_fun, below.pre_activations(session.queries))
        inputs, sums = below.all_but_last.activations(session.queries), with_ones(features) @ incoming.T
        changed = between(settled, below.act_fun, inputs, sums, session.seed)
        if changed is not None:
            settled, following = changed, fit_outputs(below.replace(changed).activations(inputs), sums).T
    return below.all_but_last.followed_by(settled, following)


def recover_layer(session: Session, imitation: Imitation, is_first: bool, doubtful: float) -> RecoveredLayer:
    """The neurons that the first hidden layers of the students share.

    Args:
        session: the extraction.
        imitation: the students.
        is_first: whether that layer is the first of the network as well.
        doubtful: the number of doubtful clusters that are added, for each cluster that counts.

    Raises:
        ConfigError: there are none, or the students have diverged or collapsed to constants.
    """
    h, students, loader = session.desc.extraction_hparams, imitation.students, imitation.loaders.train
    if sum(map(math.isfinite, imitation.losses)) < 2:
        raise ConfigError(f"fewer than two of the {students.networks} students have a finite loss; try a smaller --lr")
    contribution = contributions(students, 1, loader.examples)
    losses = torch.tensor(imitation.losses, dtype=torch.float64, device=contribution.device)
    residual = (losses * loader.labels.shape[1]).sqrt()
    neurons = Neurons(imitation.layers.vectors[0], contribution, residual)
    informative = boruta.mask(h.boruta).to(contribution.device) if h.boruta and is_first else None
    if informative is not None and session.scaling is not None:
        informative = session.scaling.inputs.selected(informative)
    recovered = recover(neurons, session.symmetry, session.criteria(doubtful), informative)
    if recovered is None:
        facts = of_students(session, imitation.losses, individual_losses(students, imitation.loaders.test))
        raise ConfigError(
            f"no cluster contains neurons of {h.gamma:.0%} of the {students.networks} students within an angle of pi/{h.beta:g}; "
            f"the students are in {session.students_location}. {' '.join(map(str, advice(facts)))}"
        )
    if not recovered.incoming.isfinite().all():
        raise ConfigError(f"neurons of the {students.networks} students contribute nothing to their outputs; try a smaller --lr")
    return recovered

"""The search for the network that students imitate: layer by layer, then as a whole; where one attempt fails, the next one begins.

Axes: K neurons of a layer, D inputs with the bias last, Q queries.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from datasets import boruta
from extraction.checks import SURPRISE
from extraction.diagnosis import advice
from extraction.facts import of_students
from extraction.fitting import Fit, fit, folded, gives_answers, information_loss, is_exact, relative_loss, unknowns_of
from extraction.growing import grow
from extraction.network import Layers, contributions, fit_outputs
from extraction.recovery import Neurons, RecoveredLayer, recover
from extraction.session import Session
from extraction.signs import resolve_signs, settle_signs
from extraction.simplify import merged_where_equally_active, removals
from extraction.students import Imitation, Standardisation, imitate_above, individual_losses, polished, sharpen, train_together
from extraction.uncertainty import held_out_excess, noise_of
from foundations import paths
from foundations.errors import ConfigError
from foundations.model_hparams import ModelHparams
from models import registry as models
from models.mlp import FullyConnected
from models.students import Model as Students
from platforms.platform import get_platform
from training.second_order import DENSE_PARAMETERS

LACKING = 100.0  # a layer lacks a neuron where students above it have more than this many times the loss of those before
TRIM_EQUATIONS = 6  # for each unknown in a step of fitting, while there are neurons in excess
PROMISING = 1e-4  # the relative loss below which it is worth the time to take neurons from a network
WORSE = 100.0  # a fit without a neuron counts as equally good up to this many times the loss with it
TRIALS = 3  # neurons whose removal is tried before all neurons count as needed
NEARLY_EXACT = 1e-12  # the relative loss below which a network lacks no neuron, and may have one in excess
AS_GOOD = 2.0  # networks up to this many times the smallest loss count as equally good
FINALISTS = 3  # networks that are fitted to all answers, where none gives the answers exactly


@dataclass(frozen=True)
class Attempt:
    """One way to search.

    Attributes:
        name: a part of the names of its folders; empty for the first attempt.
        message: what is printed when it begins.
        doubtful: the numbers of doubtful clusters, for each cluster that counts, to try in turn while a layer lacks a neuron.
        settles_signs: whether signs that matter are settled, and the layer is trained further, before the next layer is recovered.
        sharpens: whether recovered layers are fitted to the answers before the next layer is recovered.
    """

    name: str = ""
    message: str = ""
    doubtful: tuple[float, ...] = (0.0, 0.5, 1.0)
    settles_signs: bool = False
    sharpens: bool = False

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
    Attempt(),
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
    """

    layers: list[RecoveredLayer]
    fit: Fit
    losses: list[float]
    students_file: str
    held_out_losses: list[float]
    validated: FullyConnected | None = None
    own: Reconstruction | None = None

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


Candidate = tuple[list[RecoveredLayer], Fit]  # the recovered layers, and a network that was fitted from them


def reconstruct(session: Session, students: Students) -> Reconstruction:
    """Recovers the network that the students imitate.

    A network that lacks a neuron cannot give the answers exactly. A network with too many neurons can, and shows which neurons it does not
    need. So where the clusters that count do not lead to the rounding floor, the next attempt adds doubtful clusters and removes the
    neurons that are needed least. Where that fails too, the last attempt trains the students of deeper layers more exactly. Where all
    attempts fail, the best network is completed: it grows the neurons that it lacks, or loses those in excess. Where that fails as well, as
    with noisy answers, the result is one of the networks that give the answers about as well as the best one.

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
    candidates: list[Candidate] = []
    failures = []
    for attempt in ATTEMPTS:
        if not attempt.suits(students, session):
            continue
        if attempt.message:
            session.say(attempt.message)
        try:
            peeled = peel(session, start, attempt)
            location = f"{work}_{attempt.name}" if attempt.name else work
            fits = trim(session, peeled.layers, location) if peeled.may_have_excess else [fit(session, peeled.layers, location)]
        except ConfigError as error:
            failures.append(error)
            continue
        candidates += [(peeled.recovered, fitted) for fitted in fits]
        if gives_answers(session, fits[-1].network):
            candidates = candidates[-1:]
            break
    else:
        if not candidates:
            raise failures[0]
        candidates += completed(session, _smallest_of_the_best(session, candidates), f"{work}_completed")
    recovered, fitted = _best(session, candidates, f"{work}_all_queries")
    last = fit_to_all_answers(session, fitted, f"{work}_all_answers")
    validated, fitted = (None, fitted) if last is None else (fitted.network, last)
    final = paths.reconstructed_model(session.location)
    own = folded(session, fitted)
    get_platform().move(own.location, final)
    own = dataclasses.replace(own, location=final)
    held_out = individual_losses(students, session.loaders.test)
    unscaled = Reconstruction(recovered, own, losses, students_file, held_out, validated)
    if session.scaling is None:
        return unscaled
    if validated is not None:
        network, _ = session.scaling.fold(Layers.of(validated)).to_network(session.desc.model_hparams)
        unscaled = dataclasses.replace(unscaled, validated=network)
    return dataclasses.replace(unscaled, fit=fitted, validated=validated, own=unscaled)


def fit_to_all_answers(session: Session, fitted: Fit, location: str) -> Fit | None:
    """A last fit to all answers, the held-out ones included: where answers have errors, more of them make the weights more exact.

    Args:
        session: the extraction.
        fitted: the network, fitted to the answers for training.
        location: the path that the folder of the fit begins with.

    Returns:
        None where the network gives the answers exactly, gives the held-out answers less well than those it was fitted to, or has more
        than DENSE_PARAMETERS.
    """
    network, train = fitted.network, session.loaders.train
    unknowns = unknowns_of(network)
    if is_exact(network, train) or unknowns > DENSE_PARAMETERS:
        return None
    noise = noise_of(network, train, unknowns)
    if not held_out_excess(network, session.loaders.test, noise, unknowns / train.labels.numel()) <= SURPRISE:
        return None
    last = fit(session.with_all_answers, Layers.of(network), location, None)
    return dataclasses.replace(last, before=fitted.before) if last.neurons == fitted.neurons else None


def _smallest_of_the_best(session: Session, candidates: list[Candidate]) -> Candidate:
    """The smallest of the networks that give the answers about as well as the best."""
    return min((pair for _, pair in _as_good(session, candidates)), key=lambda pair: pair[1].neurons)


def _as_good(session: Session, candidates: list[Candidate]) -> list[tuple[float, Candidate]]:
    """The networks that give the answers about as well as the best, with their losses."""
    losses = [relative_loss(fitted.network, session.loaders.train) for _, fitted in candidates]
    losses = [loss if math.isfinite(loss) else math.inf for loss in losses]
    return [(loss, pair) for loss, pair in zip(losses, candidates, strict=True) if loss <= AS_GOOD * min(losses)]


def _best(session: Session, candidates: list[Candidate], location: str) -> Candidate:
    """The network that gives the answers exactly; where none does, the best one after fits to all answers in every step.

    A step of Levenberg-Marquardt that sees a few thousand of 20,000 noisy answers stops where these are fitted best: the weights were nine
    times as far off as after steps that see all answers. Of the smallest networks that give the answers about as well as the best one, the
    information criterion decides.

    Args:
        session: the extraction.
        candidates: the networks.
        location: the path that the folders of the fits begin with.
    """
    ranked = [pair for _, pair in sorted(_as_good(session, candidates), key=lambda pair: pair[0])]
    best = ranked[0][1].network
    if is_exact(best, session.loaders.train) or unknowns_of(best) > DENSE_PARAMETERS:
        return _smallest_of_the_best(session, candidates)
    by_name = {pair[1].model_hparams.model_name: pair for pair in reversed(ranked)}
    finalists = []
    for place, (recovered, fitted) in enumerate(sorted(by_name.values(), key=lambda pair: pair[1].neurons)[:FINALISTS]):
        layers = Layers.of(fitted.network)
        finalists.append((recovered, dataclasses.replace(fit(session, layers, f"{location}_{place}", None), before=fitted.before)))
    recovered, fitted = min(finalists, key=lambda pair: information_loss(pair[1].network, session.loaders.train))
    return recovered, without_uninformative_neurons(session, fitted, location)


def without_uninformative_neurons(session: Session, fitted: Fit, location: str) -> Fit:
    """A network without the neurons that fit errors of the answers, as the information criterion decides; the least needed is tried first.

    Args:
        session: the extraction.
        fitted: the network, fitted to all queries in every step.
        location: the path that the folders of the fits begin with.
    """
    loader, trials = session.loaders.train, 0
    while True:
        network = fitted.network
        removal = next(iter(removals(network, session.queries)), None)
        if removal is None or removal.loss > WORSE * math.sqrt(relative_loss(network, loader)):
            return fitted
        trials += 1
        trial = fit(session, removal.layers, f"{location}_trial_{trials}", None)
        if information_loss(trial.network, loader) >= information_loss(network, loader):
            return fitted
        fitted = dataclasses.replace(trial, before=fitted.before)


def completed(session: Session, best: Candidate, location: str) -> list[Candidate]:
    """The networks that the best network becomes when it grows neurons, or loses those in excess.

    A network a little above the rounding floor lacks no neuron: two of its neurons may stand for one, which makes the curvature nearly
    singular. A network far above it lacks neurons.

    Args:
        session: the extraction.
        best: the network.
        location: the path that the folders of the runs begin with.
    """
    recovered, fitted = best
    if relative_loss(fitted.network, session.loaders.train) <= NEARLY_EXACT:
        session.say("The network is nearly exact: removing neurons that are not needed")
        layers = Layers.of(fitted.network)
        fits = trim(session, merged_where_equally_active(layers, session.queries) or layers, location)
    else:
        session.say("The network does not give the answers exactly: fitting new neurons to what it leaves unexplained")
        fits = grow(session, fitted, location)[1:]
    return [(recovered, later) for later in fits]


def trim(session: Session, layers: Layers, location: str) -> list[Fit]:
    """Fits a network that may have neurons in excess, then without one neuron after the other.

    Surplus neurons cancel each other at the solution and make the curvature nearly singular, which slows convergence down. So the neuron
    that is needed least is removed first, as long as the fit is as good without it.

    Args:
        session: the extraction.
        layers: of the network, the output layer last.
        location: the path that the folders of the runs begin with.

    Returns:
        The fits, each with fewer neurons than the fit before.
    """
    fits, trials = [fit(session, layers, location, TRIM_EQUATIONS)], 0
    while not gives_answers(session, fits[-1].network):
        loss, count = relative_loss(fits[-1].network, session.loaders.train), len(fits)
        for removal in removals(fits[-1].network, session.queries)[: TRIALS if loss <= PROMISING else 0]:
            trials += 1
            trial = fit(session, removal.layers, f"{location}_trial_{trials}", TRIM_EQUATIONS)
            if relative_loss(trial.network, session.loaders.train) <= WORSE * loss:
                fits.append(trial)
                break
        if len(fits) == count:
            break
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
    layers = stacked(below, recovered[-1].incoming, here.scale)
    inputs = layers.all_but_last.activations(session.queries)
    last, _ = resolve_signs(layers.vectors[-1], session.act_fun, inputs, session.answers)
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
        layers = stacked(below, recovered.incoming, here.scale)
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
    layers = stacked(layers, following, above.scale).all_but_last
    return layers, imitate_above(session, layers, here.students, f"{above.location}_settled", settled=True)


def stacked(below: Layers, incoming: torch.Tensor, scale: Standardisation) -> Layers:
    """Recovered layers with one more layer on top, which also settles the signs of the layer below it.

    Args:
        below: the recovered layers.
        incoming: of the next layer, over standardised inputs, `[K, D]`.
        scale: the standardisation of its inputs.
    """
    incoming = scale.undo(incoming)
    if not below.vectors:
        return below.followed_by(incoming)
    settled, incoming = settle_signs(below.vectors[-1], incoming, scale.spread, below.symmetry)
    return below.all_but_last.followed_by(settled, incoming)


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

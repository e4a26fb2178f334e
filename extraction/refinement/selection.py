"""Which of the networks that were fitted counts, and with which neurons: fewer where some are in excess, more where some are lacking."""

from __future__ import annotations

import dataclasses
import math

from extraction.certification.checks import SURPRISE
from extraction.certification.uncertainty import held_out_excess, noise_of, structure
from extraction.fitting import Fit, fit, gives_answers, information_loss, is_exact, relative_loss
from extraction.network import Layers, unknowns_of
from extraction.recovery import RecoveredLayer
from extraction.refinement.growing import grow
from extraction.session import Session
from extraction.simplify import merged_where_equally_active, removals
from models.mlp import FullyConnected
from training.second_order import DENSE_PARAMETERS

TRIM_EQUATIONS = 6  # for each unknown in a step of fitting, while there are neurons in excess
PROMISING = 1e-4  # the relative loss below which it is worth the time to take neurons from a network
WORSE = 100.0  # a fit without a neuron counts as equally good up to this many times the loss with it
TRIALS = 3  # neurons whose removal is tried before all neurons count as needed
NEARLY_EXACT = 1e-12  # the relative loss below which a network lacks no neuron, and may have one in excess
AS_GOOD = 2.0  # networks up to this many times the smallest loss count as equally good
FINALISTS = 3  # networks that are fitted to all answers, where none gives the answers exactly

Candidate = tuple[list[RecoveredLayer], Fit]  # the recovered layers, and a network that was fitted from them


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


def misses_a_part(session: Session, network: FullyConnected) -> bool:
    """Whether the errors of a network on the answers for training depend on the query, as far as there are enough queries to tell."""
    unknowns, train = unknowns_of(network), session.loaders.train
    if is_exact(network, train) or unknowns > DENSE_PARAMETERS:
        return False
    found = structure(network, train, unknowns)
    return found is not None and found > SURPRISE


def smallest_of_the_best(session: Session, candidates: list[Candidate]) -> Candidate:
    """The smallest of the networks that give the answers about as well as the best."""
    return min((pair for _, pair in _as_good(session, candidates)), key=lambda pair: pair[1].neurons)


def _as_good(session: Session, candidates: list[Candidate]) -> list[tuple[float, Candidate]]:
    """The networks that give the answers about as well as the best, with their losses."""
    losses = [relative_loss(fitted.network, session.loaders.train) for _, fitted in candidates]
    losses = [loss if math.isfinite(loss) else math.inf for loss in losses]
    return [(loss, pair) for loss, pair in zip(losses, candidates, strict=True) if loss <= AS_GOOD * min(losses)]


def best_of(session: Session, candidates: list[Candidate], location: str) -> Candidate:
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
        return smallest_of_the_best(session, candidates)
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


def completed(session: Session, best: Candidate, location: str, only_few: bool = False) -> list[Candidate]:
    """The networks that the best network becomes when it grows neurons, or loses those in excess.

    A network a little above the rounding floor lacks no neuron: two of its neurons may stand for one, which makes the curvature nearly
    singular. A network far above it lacks neurons.

    Args:
        session: the extraction.
        best: the network.
        location: the path that the folders of the runs begin with.
        only_few: whether it is given up where it lacks many neurons, see `grow`.
    """
    recovered, fitted = best
    if relative_loss(fitted.network, session.loaders.train) <= NEARLY_EXACT:
        session.say("The network is nearly exact: removing neurons that are not needed")
        layers = Layers.of(fitted.network)
        fits = trim(session, merged_where_equally_active(layers, session.queries) or layers, location)
    else:
        session.say("The network does not give the answers exactly: fitting new neurons to what it leaves unexplained")
        fits = grow(session, fitted, location, only_few)[1:]
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

"""Rows of a file of answers that contradict all others: found by the network that the others show, left out, and named.

Least squares follow one gross error, and then no network gives the answers. So a fit is repeated without the rows whose errors are far
above the median. A network that lacks a neuron leaves large errors as well, which are no errors of the answers. A row is therefore left
out only where the network gives all others to their precision, where these others are nearly all rows, and where no further neuron could
explain the row: an error of a row amid others cannot be the work of a neuron that the others do not show, one at their margin can.

Axes: Q queries, O outputs, K neurons of a layer, D inputs of a layer.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import nnls

from datasets.base import DataLoader
from extraction.answers import spreads
from extraction.certification.checks import SURPRISE
from extraction.certification.uncertainty import held_out_excess, noise_of, structure
from extraction.fitting import EXACT, Fit, fit, gives_answers, is_exact
from extraction.host import to_host
from extraction.network import Layers, unknowns_of
from extraction.preparation.codes import Replaced, all_coded, codes_in, replaced
from extraction.preparation.coordinates import Coordinates
from extraction.preparation.rows import named
from extraction.preparation.suspects import far
from extraction.session import Session
from extraction.students import Standardisation
from foundations.errors import ConfigError
from models.mlp import FullyConnected
from training.second_order import DENSE_PARAMETERS

MOST = 0.05  # of the rows are left out, at most
MOST_HELD_OUT = 0.2  # of the held-out rows are left out, at most
ROUNDS = 6  # fits, each without the rows that are far above the median of the errors before
FAR = 10.0  # a row is left out of the next fit where its error is this many times the median
IMPROVED = 0.5  # fits without rows go on where the median of the errors falls to this share
SETTLING = 0.1  # or where the rows that are far change by this share or less
LARGEST = 8.0  # standard deviations that an error of an answer of known precision does not exceed
ROUNDING = 10.0  # the same for exact answers, as a multiple of EXACT
BEYOND = 5.0  # spreads from the mean, from which errors may grow in proportion to the answers, because those of weights do
DETERMINED = 2  # numbers in the answers, for each unknown, from which the rest of the rows is evidence against one
PLAUSIBLE = 5.0  # a neuron that no row shows but one is plausible with weights up to this many times the largest of the others
HIDDEN = 6.0  # the weighted sum from which a smooth activation function is flat, and a neuron does not show


@dataclass(frozen=True)
class Judgement:
    """What became of the rows that the network does not give.

    Attributes:
        session: the extraction without the rows that are left out.
        doubtful: the numbers of rows that count, and that the network does not give: errors, or the work of a neuron that shows nowhere
            else.
        codes: for missing values, in rows that are left out.
    """

    session: Session
    doubtful: tuple[int, ...] = ()
    codes: tuple[Replaced, ...] = ()

    @property
    def left_out(self) -> frozenset[int]:
        """The numbers of the rows that are left out."""
        return self.session.rows.left_out if self.session.rows else frozenset()

    @property
    def remarks(self) -> list[str]:
        """What is to be said of these rows, a sentence each."""
        found, rows = [*map(str, self.codes)], len(self.session.rows or ())
        others = self.left_out.difference(*(code.rows for code in self.codes))
        if others:
            verb, be = ("contradicts", "is") if len(others) == 1 else ("contradict", "are")
            found.append(f"{named([*others])} of {rows}, counted from 0, {verb} all others and {be} left out")
        if self.doubtful:
            verb, errors = ("is", "an error") if len(self.doubtful) == 1 else ("are", "errors")
            hint = codes_in(self.session.own_rows or self.session.rows, self.doubtful) if self.session.rows else ""
            found.append(
                f"{named(self.doubtful)} of {rows}, counted from 0, {verb} not what the network gives, which gives all others: {errors}, "
                f"or a neuron that shows nowhere else{hint}"
            )
        return found


def trimmed(session: Session, start: Fit, location: str) -> tuple[Session, Fit] | None:
    """A network fitted again without the rows that it misses by far, and the session without these rows.

    Args:
        session: the extraction.
        start: a network that was fitted to all answers for training.
        location: the path that the folders of the fits begin with.

    Returns:
        None where no such rows explain why the network does not give the answers.
    """
    if session.rows is None or unknowns_of(start.network) > DENSE_PARAMETERS:
        return None
    here, fitted, typical = session, start, math.inf
    for number in range(ROUNDS):
        errors = row_errors(fitted.network, session.loaders.train)
        before, typical = typical, float(errors.median())
        missed = errors > max(FAR * typical, ROUNDING * EXACT, LARGEST * max(session.known.shares))
        if not missed.any() or missed.sum() > MOST * len(missed):
            return None
        trial = _without(session, missed)
        moved = len(_left_out(trial) ^ _left_out(here))
        if number and not moved:
            return (here, fitted) if limits(here, fitted.network) is not None else None
        if number > 1 and typical > IMPROVED * before and moved > SETTLING * len(_left_out(here)) + 2:
            return None
        try:
            refitted = fit(trial, Layers.of(fitted.network), f"{location}_{number + 1}", None)
        except ConfigError:  # more unknowns than answers, or a divergence
            return None
        here, fitted = trial, dataclasses.replace(refitted, before=start.before)
    return None


def _left_out(session: Session) -> frozenset[int]:
    return session.rows.left_out if session.rows else frozenset()


def _without(session: Session, missed: torch.Tensor) -> Session:
    """The session without some rows for training, `[Q]`, beside those that are left out already."""
    assert session.rows is not None
    numbers = session.rows.numbers[0][~session.rows.out[0]][missed]
    return session.leaving_out(session.rows.left_out | set(numbers.tolist()))


@torch.no_grad()
def row_errors(network: FullyConnected, loader: DataLoader) -> torch.Tensor:
    """The largest error of an answer of each row, as a share of the spread of its output, `[Q]`."""
    return ((network(loader.examples) - loader.labels) / spreads(loader.labels)).abs().amax(1)


def limits(session: Session, network: FullyConnected) -> torch.Tensor | None:
    """The largest errors of answers that the network explains, `[O]`; None where it does not give the rows of the session.

    Args:
        session: the extraction, without rows that may contradict others.
        network: fitted to the answers for training.
    """
    train, unknowns = session.loaders.train, unknowns_of(network)
    if session.answers.numel() < DETERMINED * unknowns:
        return None
    units = spreads(train.labels)
    if is_exact(network, train):
        limit = ROUNDING * EXACT * units
    elif gives_answers(session, network):
        shares = torch.tensor(session.known.allowed(len(train.labels))).to(units)
        limit = LARGEST * (shares * units).clamp_min(EXACT * units)
    else:
        found = structure(network, train, unknowns) if unknowns <= DENSE_PARAMETERS else None
        if found is None or found > SURPRISE:
            return None
        limit = LARGEST * noise_of(network, train, unknowns)
    return limit if not _exceeds(network, train, limit, train.labels).any() else None


@torch.no_grad()
def _exceeds(network: FullyConnected, loader: DataLoader, limit: torch.Tensor, usual: torch.Tensor) -> torch.Tensor:
    """Which rows have an error beyond the limit of an output `[O]`, `[Q]`; the limit grows far from the usual answers `[n, O]`."""
    sizes = (loader.labels - usual.mean(0)).abs() / (BEYOND * spreads(usual))
    return ((network(loader.examples) - loader.labels).abs() > limit * sizes.clamp_min(1.0)).any(1)


def judge(session: Session, network: FullyConnected) -> Judgement:
    """Decides which rows are left out: those set aside before and the held-out rows are compared with what the network gives.

    Args:
        session: the extraction without the rows that were set aside.
        network: fitted to the answers for training.
    """
    if session.rows is None:
        return Judgement(session)
    everything = session.leaving_out(())
    limit = limits(session, network)
    if limit is None:
        return Judgement(everything)
    assert everything.rows is not None
    wrong: set[int] = set()
    for loader, numbers in zip(everything.loaders, everything.rows.numbers, strict=True):
        wrong |= set(numbers[_exceeds(network, loader, limit, session.answers)].tolist())
    if not wrong:
        return Judgement(everything)
    inputs = everything.scaling.inputs if everything.scaling else Coordinates.identity(everything.queries)
    own = everything.own_rows or everything.rows
    codes = tuple(replaced(Layers.of(network), inputs, (own, everything.rows), sorted(wrong), limit))
    wrong, without_value = wrong.difference(*(code.rows for code in codes)), frozenset().union(*(code.rows for code in codes))
    held_out = everything.rows.numbers[1].tolist()
    missed = len(wrong.intersection(held_out))
    if len(wrong) > max(1, MOST * len(everything.rows)) or missed > max(1, MOST_HELD_OUT * len(held_out)):
        return Judgement(everything, tuple(sorted(wrong)) if all_coded(own, sorted(wrong)) else ())
    without = everything.leaving_out(wrong | without_value)
    unknowns, test = unknowns_of(network), without.loaders.test
    if not is_exact(network, without.loaders.train) and len(test.examples):
        noise = noise_of(network, without.loaders.train, unknowns)
        if not held_out_excess(network, test, noise, unknowns / without.answers.numel()) <= SURPRISE:
            return Judgement(everything)
    doubtful = set(_explainable(without, network)) - _gross_queries(without) - without_value
    return Judgement(everything.leaving_out((wrong | without_value) - doubtful), tuple(sorted(doubtful)), codes)


def _gross_queries(session: Session) -> set[int]:
    """The numbers of rows that are left out and whose queries are far from all others: a number of the query is wrong.

    The set is empty where these rows have more answers than a neuron has weights, so that they could show one.
    """
    rows = session.own_rows or session.rows
    assert rows is not None
    queries = torch.cat([loader.examples for loader in rows.loaders])
    gross = torch.cat(rows.numbers)[far(queries)].tolist()
    outputs, weights = session.answers.shape[1], session.queries.shape[1] + 1 + session.answers.shape[1]
    found = rows.left_out.intersection(gross)
    return set(found) if len(found) * outputs <= weights else set()


def _explainable(session: Session, network: FullyConnected) -> Iterator[int]:
    """The numbers of rows that are left out, and whose errors a neuron could explain that no row of the session shows."""
    assert session.rows is not None
    kept, units = session.queries, spreads(session.answers)
    spaces = list(_spaces(network, session.queries, units))
    for loader, numbers, out in zip(session.rows.loaders, session.rows.numbers, session.rows.out, strict=True):
        queries, answers = loader.examples[out], loader.labels[out]
        with torch.no_grad():
            errors = ((network(queries) - answers) / units).norm(dim=1).tolist()
        for query, error, number in zip(queries, errors, numbers[out].tolist(), strict=True):
            if any(space.allows(query[None], error, kept) for space in spaces):
                yield number


@dataclass(frozen=True)
class _Space:
    """The inputs of a hidden layer, where a neuron shows on one side of a hyperplane.

    Attributes:
        layers: the layers below.
        scale: the standardisation of their activations.
        slope: the largest weights of a neuron of the layer, over standardised inputs: the length of its incoming vector.
        gain: the largest product of that length and the length of the change of the outputs.
        bound: the largest change of the outputs by one neuron that saturates; infinite for others.
        is_smooth: whether neurons are flat only far from the hyperplane.
    """

    layers: Layers
    scale: Standardisation
    slope: float
    gain: float
    bound: float
    is_smooth: bool

    def allows(self, query: torch.Tensor, error: float, kept: torch.Tensor) -> bool:
        """Whether a neuron could change the outputs by an error for a query `[1, inputs]`, and for none of the rows that are kept."""
        margin = distance_to_hull(*(to_host(self.scale.apply(self.layers.activations(inputs))) for inputs in (query, kept)))
        steep = self.is_smooth and PLAUSIBLE * self.slope * margin < HIDDEN
        return not steep and error <= PLAUSIBLE * min(self.gain * margin, 2 * self.bound)


@torch.no_grad()
def _spaces(network: FullyConnected, queries: torch.Tensor, units: torch.Tensor) -> Iterator[_Space]:
    """The inputs of every hidden layer of a network whose outputs have these units `[O]`."""
    layers = Layers.of(network)
    for depth in range(1, len(layers)):
        below = layers.replace(*layers.vectors[: depth - 1])
        scale = Standardisation.of(below.activations(queries))
        slopes = scale.redo(layers.vectors[depth - 1])[:, :-1].norm(dim=1)
        outgoing = layers.vectors[depth][:, :-1]
        if depth == len(layers) - 1:
            outgoing = outgoing / units[:, None]  # units of deeper layers change the outputs by about as much as they change
        outgoing = outgoing.norm(dim=0)
        saturates = layers.act_fun in ("tanh", "sigmoid")
        bound = float(outgoing.max()) if saturates else torch.inf
        yield _Space(below, scale, float(slopes.max()), float((slopes * outgoing).max()), bound, not layers.symmetry.positive_scaling)


def distance_to_hull(point: np.ndarray, points: np.ndarray) -> float:
    """The distance of a point `[1, D]` to the convex hull of others `[Q, D]`: the widest margin that a hyperplane leaves between them.

    Weights of the points, none negative and of sum 1, that come nearest to the point (Lawson & Hanson 1974).
    """
    offsets = (points - point).T
    heavy = 1e3 * max(1.0, float(np.abs(offsets).max()))  # the row that makes the weights sum to 1
    matrix = np.concatenate([offsets, np.full((1, len(points)), heavy)])
    weights, _ = nnls(matrix, np.append(np.zeros(len(offsets)), heavy), maxiter=30 * len(matrix) + 100)
    return float(np.linalg.norm(offsets @ (weights / weights.sum())))

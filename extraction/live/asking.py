"""Questions to a teacher that can be asked, about what the answers leave open of a network that gives them.

A combination of weights that no answer tells (a null direction of the Jacobian) becomes questions: inputs climb, by gradient ascent, the
change of the outputs that the combination makes. Two relu neurons that are never active together show their weight where both are. A
neuron that few queries show, or none, leaves errors at these and at the corners of the box of the queries: a sum of inputs is largest at a
corner. A neuron of a deeper layer shows where the layer below it has extreme activations: one neuron alone, or a mixture of few. Then the
neighbourhood of the errors is asked, the network grows a neuron, and all of it is fitted again.

Questions follow from the seed, the answers and the network alone, so that a resumed run asks the same ones.

Axes: N starts, D columns of the user's inputs, F open combinations, P parameters, Q queries, K neurons of a layer.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch

from extraction.answers import spreads
from extraction.certification.determination import Determined, in_units, open_combinations
from extraction.fitting import EXACT, fit, fit_or_none, gives_answers, is_exact
from extraction.live import ascent, unseen
from extraction.live.box import Box
from extraction.network import Layers, unknowns_of
from extraction.preparation.outliers import LARGEST, MOST, ROUNDING, row_errors
from extraction.refinement.growing import without_excess
from extraction.refinement.linked import is_linked
from extraction.refinement.selection import Candidate, completed
from extraction.session import Session
from foundations.errors import ConfigError
from foundations.seeds import derive
from models.mlp import FullyConnected
from training.second_order import DENSE_PARAMETERS

# The phases that questions are counted by.
OPEN_WEIGHTS, NEIGHBOURS, CORNERS, EXTREMES = "open weights", "neighbours of errors", "corners", "extremes of hidden layers"
ROUNDS = 6  # fits with further answers
WIDENINGS = 20  # of the box, at most; each doubles it
EXAMINATIONS = 4  # with more and more queries among those for training that tell what the others leave open
MOST_OPEN = 64  # combinations that are asked about in a round
TELLS = (
    1e-5  # as `ascent.SHOWS`, for queries that were asked before: kinks are moved a little during an examination (`determination.TOUCH`)
)
SEEDS = 16  # errors whose neighbourhood is asked
NEAR, NEAREST = 0.5, 0.005  # its largest and smallest reach, as shares of the way to other queries
AROUND = 8  # neighbours that are asked, for each weight of a neuron
TOLERANCE = 1e-8  # of exact answers, as a share of the spread or the size of an answer
NAMED = 5  # neurons that a remark names


@dataclass(frozen=True)
class Asked:
    """The extraction after the questions.

    Attributes:
        session: with the answers among those for training, and some of them held out.
        best: the network that was fitted to them.
        counts: how many questions were asked, by phase.
        remarks: what is still open, a sentence each.
        determined: how well answers determine the network that was examined last, with every output in its unit.
    """

    session: Session
    best: Candidate
    counts: dict[str, int] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    determined: Determined | None = None

    @property
    def network(self) -> FullyConnected:
        """The network."""
        return self.best[1].network

    def ask(self, queries: torch.Tensor, phase: str) -> tuple[Asked, torch.Tensor, torch.Tensor]:
        """Asks queries `[N, D]`: the same with their number counted, those that were asked, and the answers."""
        queries = _within_reach(self.session, queries)
        asked, answers = self.session.unscaled.ask(queries, phase)
        counts = self.counts | ({phase: self.counts.get(phase, 0) + len(asked)} if len(asked) else {})
        return dataclasses.replace(self, counts=counts), asked, answers


def about_open(session: Session, best: Candidate, location: str) -> Asked:
    """Asks until nothing is open within the domain, the budget is spent, or ROUNDS fits were made.

    Args:
        session: the extraction, without the rows that are left out.
        best: a network that gives the answers, but perhaps some.
        location: the path that the folders of the fits begin with.
    """
    state, network = Asked(session, best), best[1].network
    if not suits(session, network):
        return state
    box, rounds, widenings = Box.of(session), 0, 0
    looks_at_extremes = session.symmetry.slope != 0 or box.limits is not None
    generator = torch.Generator().manual_seed(derive(session.seed, "questions"))
    while rounds < ROUNDS:
        state, is_changed = _asked_in(state, box, f"{location}_{rounds + 1}", generator)
        rounds += is_changed
        if is_changed:
            continue
        if looks_at_extremes:
            state, is_changed = _asked_at_extremes(state, box, f"{location}_{rounds + 1}", generator)
            rounds += is_changed
        wider = box.wider
        if not is_changed and (wider is None or widenings == WIDENINGS or not can_ask(session)):
            break
        if not is_changed and wider is not None:
            box, widenings = wider, widenings + 1
    state, combinations = _left_open(state)
    return dataclasses.replace(state, remarks=_remarks(state, combinations, box))


def suits(session: Session, network: FullyConnected) -> bool:
    """Whether a teacher can be asked what the answers leave open of a network, which gives all answers but few."""
    is_plain = session.linear_term is None and not is_linked(session) and unknowns_of(network) <= DENSE_PARAMETERS
    return session.teacher is not None and is_plain and _missed(session, network) is not None


def can_ask(session: Session) -> bool:
    """Whether there is a teacher that answers further queries."""
    return session.teacher is not None and session.teacher.is_askable


def _left_open(state: Asked) -> tuple[Asked, torch.Tensor]:
    """The combinations of weights that the answers leave open, `[F, P]`; the spectrum that shows whether there are any is kept."""
    session, train = state.session, state.session.loaders.train
    network, loader = in_units(state.network, train, spreads(session.answers))
    determined = Determined.of(network, session.symmetry, loader, session.asked, state.determined)
    state = dataclasses.replace(state, determined=determined)
    if not (determined.spectrum.has_open or determined.with_others):
        return state, train.examples.new_zeros(0, unknowns_of(network))
    return state, open_combinations(state.network, session.symmetry, train, session.asked)


def _asked_in(state: Asked, box: Box, location: str, generator: torch.Generator) -> tuple[Asked, bool]:
    """Asks around the rows that the network does not give, and about open combinations; and whether the network was fitted again."""
    session = state.session
    missed = _missed(session, state.network)
    if missed is None:
        return state, False
    if len(missed):
        return _grown(state, missed, box, location, generator)
    state, combinations = _examined(state)
    session = state.session
    if not len(combinations):
        return state, False
    queries = ascent.climb(session, state.network, combinations[:MOST_OPEN], box, generator)
    if not len(queries):
        return state, False
    session.say(f"Combinations of weights that the answers leave open: {len(combinations)}; asking where they show")
    state, asked, answers = state.ask(queries, OPEN_WEIGHTS)
    if not len(asked):
        return state, False
    return _refitted(dataclasses.replace(state, session=session.with_rows(asked, answers)), location), True


def _examined(state: Asked) -> tuple[Asked, torch.Tensor]:
    """The combinations of weights that the answers leave open, `[F, P]`, and the state in which those queries come last that tell others.

    An examination has a part of the queries. A neuron that few queries activate may seem open because these are not among them.
    """
    for _ in range(EXAMINATIONS):
        state, combinations = _left_open(state)
        if not len(combinations):
            break
        session = state.session
        telling = torch.zeros(len(session.queries), dtype=torch.bool, device=session.queries.device)
        for combination in combinations[:MOST_OPEN]:
            shown = ascent.shown(Layers.of(state.network), combination, session.queries, 0.0).sqrt()
            shown[len(shown) - session.asked :] = 0.0
            largest = shown.topk(min(ascent.STARTS, len(shown))).indices
            telling[largest] |= shown[largest] > TELLS * combination.abs().max()
        if not telling.any():
            break
        state = dataclasses.replace(state, session=session.with_last(telling))
    return state, combinations


def _asked_at_extremes(state: Asked, box: Box, location: str, generator: torch.Generator) -> tuple[Asked, bool]:
    """Asks the corners of the box and inputs where hidden layers have extreme activations, then around those that the network misses.

    Returns:
        The state, and whether the network was fitted again.
    """
    layers = Layers.of(state.network)
    extremes = [ascent.extremes(state.session, layers, depth, box, generator) for depth in range(1, len(layers) - 1)]
    for queries, phase in [(box.corners(generator), CORNERS), *((each, EXTREMES) for each in extremes)]:
        state, asked, answers = state.ask(queries, phase)
        wrong = _is_missed(state, asked, answers)
        if wrong.any():
            more = dataclasses.replace(state, session=state.session.with_rows(asked, answers, held_out=False))
            return _grown(more, asked[wrong], box, location, generator)
    return state, False


def _grown(state: Asked, seeds: torch.Tensor, box: Box, location: str, generator: torch.Generator) -> tuple[Asked, bool]:
    """Asks around queries `[N, D]` that the network does not give, and fits neurons to the errors; and whether there were any.

    Where the network gives the neighbours, the errors are those of single answers.
    """
    session = state.session
    session.say(f"The network does not give the answers to {len(seeds)} queries: asking around them")
    state, asked, answers = state.ask(_around(session, seeds, box, generator), NEIGHBOURS)
    if not _is_missed(state, asked, answers).any():
        return state, False
    everything = session.leaving_out(()) if session.rows else session
    state = dataclasses.replace(state, session=everything.with_rows(asked, answers))
    explained = _explained(state, f"{location}_unseen")
    if explained is None and len(state.network.sizes) > 3:
        state, explained = _explained_nearby(state, box, location, generator)
    if explained is not None:
        return explained, True
    later = completed(state.session, state.best, f"{location}_grown", only_few=True)
    if later and gives_answers(state.session, later[-1][1].network):
        return dataclasses.replace(state, best=later[-1]), True
    return _refitted(dataclasses.replace(state, best=later[-1] if later else state.best), location), True


def _explained_nearby(state: Asked, box: Box, location: str, generator: torch.Generator) -> tuple[Asked, Asked | None]:
    """As `_explained`, after questions so close to some errors that their answers are of one linear piece; and the state with these."""
    session, train = state.session, state.session.loaders.train
    errors = row_errors(state.network, train)
    own, wrong = (session.own or session.loaders).train.examples, errors > _limit(session)
    state, asked, answers = state.ask(unseen.clouds(own[wrong], errors[wrong], box, generator), NEIGHBOURS)
    if not len(asked):
        return state, None
    state = dataclasses.replace(state, session=session.with_rows(asked, answers))
    return state, _explained(state, f"{location}_nearby")


def _explained(state: Asked, location: str) -> Asked | None:
    """The network with neurons that explain its errors in closed form, if it then gives all answers; None where there are none."""
    session, (recovered, fitted) = state.session, state.best
    train = session.loaders.train
    size = _limit(session) * float(spreads(train.labels).norm())
    layers = unseen.with_unseen(Layers.of(fitted.network), train.examples, train.labels, size)
    if layers is None:
        return None
    session.say(f"Neurons that only few queries activate: {sum(layers.sizes[1:-1]) - fitted.neurons}")
    again = fit_or_none(session, layers, location)
    if again is None or not is_exact(again.network, train):
        return None
    again = without_excess(session, dataclasses.replace(again, before=fitted.before), f"{location}_excess")
    return dataclasses.replace(state, best=(recovered, again))


def _refitted(state: Asked, location: str) -> Asked:
    """The network fitted to all answers, with neurons that it grows where that does not suffice."""
    session, (recovered, fitted) = state.session, state.best
    try:
        again = fit(session, Layers.of(fitted.network), location)
        best: Candidate = recovered, dataclasses.replace(again, before=fitted.before)
        if not gives_answers(session, again.network):
            best = [best, *completed(session, best, f"{location}_completed")][-1]
    except ConfigError:  # a divergence
        return state
    return dataclasses.replace(state, best=best)


@torch.no_grad()
def _missed(session: Session, network: FullyConnected) -> torch.Tensor | None:
    """The queries for training that the network does not give, `[N, D]`, those left out included; None where these are many."""
    everything = session.leaving_out(()) if session.rows else session
    wrong = row_errors(network, everything.loaders.train) > _limit(session)
    return (everything.own or everything.loaders).train.examples[wrong] if wrong.sum() <= MOST * len(wrong) else None


def _limit(session: Session) -> float:
    """The largest error of an answer that a network gives, as a share of the spread of the answers."""
    return max(ROUNDING * EXACT, LARGEST * max(session.known.shares))


@torch.no_grad()
def _is_missed(state: Asked, queries: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """Which of the answers `[N, outputs]` the network does not give, `[N]`, all as the user has them."""
    session, scaling = state.session, state.session.scaling
    if scaling:
        queries, answers = scaling.inputs.apply(queries), scaling.outputs.apply(answers)
    units, share = spreads(session.answers), max(TOLERANCE, LARGEST * max(session.known.shares))
    return ((state.network(queries) - answers).abs() > share * (units + answers.abs())).any(1)


def _within_reach(session: Session, queries: torch.Tensor) -> torch.Tensor:
    """Queries `[N, D]` without their parts along directions that the session leaves out."""
    scaling = session.scaling
    if scaling is None or scaling.inputs.outward.shape[0] == scaling.inputs.outward.shape[1]:
        return queries
    return scaling.inputs.undo(scaling.inputs.apply(queries))


def _around(session: Session, seeds: torch.Tensor, box: Box, generator: torch.Generator) -> torch.Tensor:
    """Queries on the way from some queries `[N, D]` to those for training and to corners, `[N, D]`."""
    own = (session.own or session.loaders).train
    count = AROUND * (own.examples.shape[1] + 1 + own.labels.shape[1])
    first = seeds[torch.randperm(len(seeds), generator=generator)[:SEEDS].to(seeds.device)]
    first = first[torch.arange(count) % len(first)]
    others = own.examples[torch.randint(len(own.examples), (count,), generator=generator).to(seeds.device)]
    corners = box.corners(generator)
    corners = corners[torch.randint(len(corners), (count,), generator=generator).to(seeds.device)]
    is_corner = (torch.arange(count) % 4 == 0).to(seeds.device)
    shares = NEAR * (NEAREST / NEAR) ** torch.rand(count, 1, generator=generator, dtype=torch.float64).to(seeds)
    return first + shares * (torch.where(is_corner[:, None], corners, others) - first)


def _remarks(state: Asked, combinations: torch.Tensor, box: Box) -> list[str]:
    """What no query in a box tells, a sentence each: combinations `[F, P]` that are open, and neurons beyond the box."""
    found, session = [], state.session
    hint = "" if box.limits else "; --domain LOW:HIGH allows queries beyond"
    if len(combinations):
        why = f"no query between {box.shown} shows more{hint}" if can_ask(session) else "the budget of queries is spent"
        names = _neurons(combinations, Layers.of(state.network))
        some = f"{len(combinations)} combinations of weights stay" if len(combinations) > 1 else "a combination of weights stays"
        found.append(f"{some} open, of {names}: {why}")
    if session.symmetry.slope and session.rows is not None and hint:
        found.append(f"neurons that do not switch between {box.shown}, the bounds of the queries, are not known{hint}")
    return found


def _neurons(combinations: torch.Tensor, layers: Layers) -> str:
    """The neurons with incoming weights in combinations `[F, P]`, as text."""
    names = []
    for depth, change in enumerate(ascent.as_vectors(combinations, layers), 1):
        place = "the outputs" if depth == len(layers) else f"hidden layer {depth}"
        names += [f"neuron {neuron} of {place}" for neuron in (change != 0).any(2).any(0).nonzero()[:, 0].tolist()]
    names = [name.replace("neuron ", "number ") if name.endswith("outputs") else name for name in names]
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")

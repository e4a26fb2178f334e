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
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from extraction.answers import spreads
from extraction.certification.determination import Determined, in_units, open_combinations
from extraction.fitting import EXACT, fit, gives_answers
from extraction.network import Layers, unknowns_of, with_ones
from extraction.preparation.outliers import LARGEST, MOST, ROUNDING, row_errors
from extraction.refinement.linked import is_linked
from extraction.refinement.selection import Candidate, completed
from extraction.session import Session
from foundations.errors import ConfigError
from foundations.extraction_hparams import parse_domain
from foundations.seeds import derive
from models.mlp import FullyConnected
from training.second_order import DENSE_PARAMETERS

# The phases that questions are counted by.
OPEN_WEIGHTS, NEIGHBOURS, CORNERS, EXTREMES = "open weights", "neighbours of errors", "corners", "extremes of hidden layers"
ROUNDS = 6  # fits with further answers
WIDENINGS = 20  # of the box, at most; each doubles it
EXAMINATIONS = 4  # with more and more queries among those for training that tell what the others leave open
MOST_OPEN = 64  # combinations that are asked about in a round
ASCENTS = 64  # for each combination; fewer where there are many
MOST_ASCENTS = 1024
STARTS = 8  # queries for each combination
NEAREST = 16  # queries at which a combination shows most, from which ascents start
CLIMB_STEPS, CLIMB_RATE = 100, 0.03  # of Adam, in units of the box
SMOOTH = (0.5, 0.01)  # the width of a kink during the ascent, as a share of the spread of the layer's pre-activations: first and last
SHOWS = 1e-8  # a combination shows where the outputs change by more than this share of the largest change of weights
TELLS = 1e-5  # the same for queries that were asked before: kinks are moved a little during an examination (`determination.TOUCH`)
TOP_CORNERS = 64  # corners that are asked
ALONE = 8  # ascents to inputs where a neuron is active and the others of its layer are not
MIXTURES = 128  # ascents to inputs where a hidden layer has extreme activations, for each layer
SEEDS, NEAR = 16, 0.5  # errors whose neighbourhood is asked, and its reach as a share of the way to another query
AROUND = 8  # neighbours that are asked, for each weight of a neuron
TOLERANCE = 1e-8  # of exact answers, as a share of the spread or the size of an answer
NAMED = 5  # neurons that a remark names


@dataclass(frozen=True)
class Box:
    """The inputs that may be asked: between bounds `[D]`, which can be widened up to others."""

    low: torch.Tensor
    high: torch.Tensor
    limits: tuple[float, float] | None = None

    @classmethod
    def of(cls, session: Session) -> Box:
        """The box of the queries for training, within the domain where the user has given one."""
        queries = (session.own or session.loaders).train.examples
        domain = session.desc.extraction_hparams.domain
        limits = parse_domain(domain) if domain else None
        low, high = queries.amin(0), queries.amax(0)
        return cls(low, high, limits) if limits is None else cls(low.clamp(*limits), high.clamp(*limits), limits)

    @property
    def wider(self) -> Box | None:
        """The box of twice the size within the limits; None where there is no wider one. Columns that no query varies stay constant."""
        if self.limits is None:
            return None
        half = (self.high - self.low) / 2
        low, high = (self.low - half).clamp(*self.limits), (self.high + half).clamp(*self.limits)
        same = torch.equal(low, self.low) and torch.equal(high, self.high)
        return None if same else dataclasses.replace(self, low=low, high=high)

    @property
    def shown(self) -> str:
        """The bounds as text."""
        low, high = float(self.low.min()), float(self.high.max())
        return f"{low:.3g} and {high:.3g}"

    def corners(self, generator: torch.Generator) -> torch.Tensor:
        """Its corners, at most TOP_CORNERS, `[N, D]`."""
        varied = (self.high > self.low).nonzero()[:, 0]
        if 2 ** len(varied) <= TOP_CORNERS:
            signs = torch.tensor(list(itertools.product((0.0, 1.0), repeat=len(varied))), dtype=self.low.dtype)
        else:
            signs = torch.randint(2, (TOP_CORNERS, len(varied)), generator=generator).to(self.low.dtype)
        shares = torch.zeros(len(signs), len(self.low), dtype=self.low.dtype, device=self.low.device)
        shares[:, varied] = signs.to(self.low)
        return self.low + (self.high - self.low) * shares


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
    if (
        session.linear_term is not None
        or session.teacher is None
        or unknowns_of(network) > DENSE_PARAMETERS
        or is_linked(session)
        or _missed(session, network) is None
    ):
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


def can_ask(session: Session) -> bool:
    """Whether there is a teacher that answers further queries."""
    return session.teacher is not None and session.teacher.is_askable


def _left_open(state: Asked) -> tuple[Asked, torch.Tensor]:
    """The combinations of weights that the answers leave open, `[F, P]`; the spectrum that shows whether there are any is kept."""
    session, train = state.session, state.session.loaders.train
    network, loader = in_units(state.network, train, spreads(session.answers))
    determined = Determined.of(network, session.symmetry, loader, session.asked, state.determined)
    state = dataclasses.replace(state, determined=determined)
    if not determined.spectrum.has_open:
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
    queries = _climb(session, state.network, combinations[:MOST_OPEN], box, generator)
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
            shown = _shown(Layers.of(state.network), combination, session.queries, 0.0).sqrt()
            shown[len(shown) - session.asked :] = 0.0
            largest = shown.topk(min(STARTS, len(shown))).indices
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
    extremes = [_extremes(state.session, layers, depth, box, generator) for depth in range(1, len(layers) - 1)]
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
    later = completed(state.session, state.best, f"{location}_grown")
    if later and gives_answers(state.session, later[-1][1].network):
        return dataclasses.replace(state, best=later[-1]), True
    return _refitted(dataclasses.replace(state, best=later[-1] if later else state.best), location), True


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
    wrong = row_errors(network, everything.loaders.train) > max(ROUNDING * EXACT, LARGEST * max(session.known.shares))
    return (everything.own or everything.loaders).train.examples[wrong] if wrong.sum() <= MOST * len(wrong) else None


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
    shares = NEAR * torch.rand(count, 1, generator=generator, dtype=torch.float64).to(seeds)
    return first + shares * (torch.where(is_corner[:, None], corners, others) - first)


def _extremes(session: Session, layers: Layers, depth: int, box: Box, generator: torch.Generator) -> torch.Tensor:
    """Queries in a box where hidden layer `depth` has extreme activations, `[N, D]`.

    A neuron of the next layer that no query activates may be active there: where one neuron of this layer is active and the others are
    not, or at a mixture of them, drawn so that few count. The activations, in units of their spread, climb along a direction of length 1
    that has the signs and shares of the mixture.
    """
    part, scaling = layers.replace(*layers.vectors[:depth]), session.scaling
    width, own = len(part.vectors[-1]), (session.own or session.loaders).train.examples
    alone = 2 * torch.eye(width, dtype=torch.float64).repeat(ALONE, 1) - 1
    mixtures = torch.randn(MIXTURES, width, generator=generator, dtype=torch.float64) ** 3
    directions = torch.cat([alone, mixtures]).to(own)
    scales = _pre_activation_scales(layers, session.queries)[:depth]

    def height(x: torch.Tensor, smooth: float) -> torch.Tensor:
        values = scaling.inputs.apply(x) if scaling else x
        for vectors, scale in zip(part.vectors, scales, strict=True):
            values = _smooth(layers, smooth * scale)(with_ones(values) @ vectors.T)
        return (directions * torch.nn.functional.normalize(values, dim=1)).sum(1)

    start = own[torch.randint(len(own), (len(directions),), generator=generator).to(own.device)]
    return _ascended(start, box, height)


def _ascended(start: torch.Tensor, box: Box, height: Callable[[torch.Tensor, float], torch.Tensor]) -> torch.Tensor:
    """Where ascents by Adam of some heights end, which start at queries `[N, D]` and stay in a box; all `[N, D]`.

    Args:
        start: `[N, D]`.
        box: the bounds.
        height: of queries `[N, D]`, each for itself, with kinks of a width that falls from the first of SMOOTH to the last: `[N]`.
    """
    size = torch.where(box.high > box.low, box.high - box.low, 0.0)
    places = ((start - box.low) / torch.where(size > 0, size, 1.0)).clamp(0.0, 1.0).requires_grad_()
    optimizer = torch.optim.Adam([places], CLIMB_RATE)
    for step in range(CLIMB_STEPS):
        done = step / (CLIMB_STEPS - 1)
        heights = height(box.low + size * places, SMOOTH[0] ** (1 - done) * SMOOTH[1] ** done)
        (places.grad,) = torch.autograd.grad(-heights.sum(), places)
        optimizer.step()
        places.data.clamp_(0.0, 1.0)
    return (box.low + size * places).detach()


def _climb(session: Session, network: FullyConnected, combinations: torch.Tensor, box: Box, generator: torch.Generator) -> torch.Tensor:
    """Queries in a box at which combinations of weights `[F, P]` show, at most STARTS for each, `[N, D]`; none where they do not.

    Every ascent starts at a query. Kinks are smooth during the ascent, and less and less so: the gradient of a neuron that is not active is
    zero. An ascent gives two queries: its end, and one at random on the way from its start, if the combination shows there.
    """
    layers, scaling = Layers.of(network), session.scaling
    count = max(STARTS // 2, min(ASCENTS, MOST_ASCENTS // len(combinations)))
    changes = _as_vectors(combinations.repeat_interleave(count, 0), layers)
    scales = _pre_activation_scales(layers, session.queries)

    def shown(x: torch.Tensor, smooth: float) -> torch.Tensor:
        return _sensitivity(layers, changes, scaling.inputs.apply(x) if scaling else x, [smooth * scale for scale in scales])

    start = torch.cat([_starts(session, layers, each, count, generator) for each in combinations]).clamp(box.low, box.high)
    end = _ascended(start, box, lambda x, smooth: shown(x, smooth).clamp_min(torch.finfo(x.dtype).tiny).log())
    between = start + torch.rand(len(end), 1, generator=generator, dtype=torch.float64).to(end) * (end - start)
    largest, found = combinations.abs().amax(1, keepdim=True), []
    for each in (end, between):
        shows = shown(each, 0.0).detach().sqrt().view(-1, count) > SHOWS * largest
        found.append(each[(shows & (shows.cumsum(1) <= STARTS // 2)).flatten()])
    return torch.cat(found)


def _starts(session: Session, layers: Layers, combination: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Queries for training at which ascents of a combination of weights `[P]` start, `[count, D]`.

    Every other one is drawn from the NEAREST queries at which the combination shows most where kinks are smooth, and the others from all.
    """
    own, inside = (session.own or session.loaders).train.examples, session.queries
    shown = _shown(layers, combination, inside, SMOOTH[0])
    nearest = shown.topk(min(NEAREST, len(shown))).indices
    chosen = torch.randint(len(own), (count,), generator=generator).to(own.device)
    chosen[::2] = nearest[torch.randint(len(nearest), chosen[::2].shape, generator=generator).to(own.device)]
    return own[chosen]


def _shown(layers: Layers, combination: torch.Tensor, queries: torch.Tensor, smooth: float) -> torch.Tensor:
    """How much a combination of weights `[P]` shows at queries `[Q, C]`, with kinks of a share of the spread: `[Q]`; see `_sensitivity`."""
    change = [each.expand(len(queries), -1, -1) for each in _as_vectors(combination[None], layers)]
    return _sensitivity(layers, change, queries, [smooth * scale for scale in _pre_activation_scales(layers, queries)]).detach()


def _as_vectors(combinations: torch.Tensor, layers: Layers) -> list[torch.Tensor]:
    """Combinations `[N, P]` as changes of incoming vectors, `[N, K, D]` for each layer."""
    found, place = [], 0
    for vectors in layers.vectors:
        outputs, inputs = vectors.shape[0], vectors.shape[1] - 1
        weights = combinations[:, place : place + outputs * inputs].unflatten(1, (outputs, inputs))
        place += outputs * (inputs + 1)
        found.append(torch.cat([weights, combinations[:, place - outputs : place, None]], 2))
    return found


@torch.no_grad()
def _pre_activation_scales(layers: Layers, queries: torch.Tensor) -> list[float]:
    """The spread of the pre-activations of each hidden layer."""
    depths = range(1, len(layers))
    return [float(layers.replace(*layers.vectors[:depth]).pre_activations(queries).std(0).mean()) for depth in depths]


def _sensitivity(layers: Layers, changes: list[torch.Tensor], x: torch.Tensor, widths: list[float]) -> torch.Tensor:
    """The squared change of the outputs for changes of weights, `[N]`, each at a query of its own `[N, C]`, with kinks of some widths."""
    values, moves = x, torch.zeros_like(x)
    for depth, (vectors, change) in enumerate(zip(layers.vectors, changes, strict=True)):
        moves = moves @ vectors[:, :-1].T + torch.einsum("nkd,nd->nk", change, with_ones(values))
        values = with_ones(values) @ vectors.T
        if depth < len(widths):
            sums = values if values.requires_grad else values.requires_grad_()
            values = _smooth(layers, widths[depth])(sums)
            moves = moves * torch.autograd.grad(values.sum(), sums, create_graph=True)[0]
    return moves.square().sum(1)


def _smooth(layers: Layers, width: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """The activation function, its kink of some width where it has one."""
    if not layers.symmetry.positive_scaling or width == 0:
        return layers.activation
    leak = -1 - layers.symmetry.slope  # s(x) = leak x far below 0
    return lambda sums: leak * sums + (1 - leak) * width * torch.nn.functional.softplus(sums / width)


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
    for depth, change in enumerate(_as_vectors(combinations, layers), 1):
        place = "the outputs" if depth == len(layers) else f"hidden layer {depth}"
        names += [f"neuron {neuron} of {place}" for neuron in (change != 0).any(2).any(0).nonzero()[:, 0].tolist()]
    names = [name.replace("neuron ", "number ") if name.endswith("outputs") else name for name in names]
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")

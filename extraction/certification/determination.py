"""Which combinations of weights the answers determine, to first order: the rank and the null space of the Jacobian.

Axes: Q queries, P parameters of the network, O outputs, F open combinations.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from datasets.base import DataLoader
from extraction.certification.gauges import free_directions
from extraction.certification.telling import Telling
from extraction.linear import linear_slopes
from extraction.network import Layers, unknowns_of
from extraction.symmetry import Symmetry
from foundations.seeds import derive
from models.mlp import FullyConnected
from training.least_squares import changes_of_outputs, unit_curvature

TOUCH = 1e-6  # share of the spread of a neuron's pre-activations: a query closer to the kink than this determines nothing
EQUATIONS_PER_UNKNOWN = 5
ECHELON = 1e-9  # smaller numbers in an echelon form are rounding
FOLLOWED = 4  # unknowns for each combination that is open, at least, for a search of queries that tell it: else the answers are too few


@torch.no_grad()
def in_units(network: FullyConnected, loader: DataLoader, units: torch.Tensor) -> tuple[FullyConnected, DataLoader]:
    """A network and its answers with every output in its unit, `[O]`, so that an output of small scale counts like the others."""
    *hidden, last = network.layer_vectors()
    scaled = with_layers(network, [*hidden, last / units[:, None]])
    dataset = type(loader.dataset)(loader.examples, loader.labels / units)
    return scaled, DataLoader(dataset, loader.batch_size, loader.seed, torch.float64)


def with_layers(network: FullyConnected, vectors: Sequence[torch.Tensor]) -> FullyConnected:
    """A copy of a network with other weights."""
    other = copy.deepcopy(network)
    other.load_layer_vectors(vectors)
    return other


def determination(
    network: FullyConnected, symmetry: Symmetry, loader: DataLoader, asked: int = 0, known: Determined | None = None
) -> tuple[int, float | None]:
    """How well the answers determine the weights, to first order, for a network of at most DENSE_PARAMETERS.

    The curvature `J'J` of the residuals, every column of J at unit length, has an eigenvalue of zero for each combination of weights that
    the answers leave open. The combinations that `gauges.free_directions` names are counted as determined.

    The fit can push a relu weight that no answer determines until the kink of its neuron just touches a query. Whether it does is a matter
    of rounding. So the rank is examined with biases a little lower and a little higher, and the smaller rank counts. Without this, a
    network of three layers of ten, with two neurons that were never active together, passed as determined through one such query.

    Args:
        network: in float64.
        symmetry: of its activation function.
        loader: the queries and answers.
        asked: see `some_queries`.
        known: the spectrum of an earlier step, which is taken if it is of the same network and queries.

    Returns:
        The rank, less the free directions; and the largest deviation of a weight that the residual allows, as a share of the largest
        weight of its layer, None where some combination is open.
    """
    determined = Determined.of(network, symmetry, loader, asked, known)
    spectrum, pairs = determined.spectrum, (loader.examples[determined.places], loader.labels[determined.places])
    if spectrum.has_open:
        return spectrum.rank, None
    return spectrum.rank, weight_error_bound(network, pairs, spectrum.lengths, float(spectrum.values.min()))


@torch.no_grad()
def weight_error_bound(network: FullyConnected, pairs: tuple[torch.Tensor, torch.Tensor], lengths: torch.Tensor, least: float) -> float:
    """The largest deviation of a weight that the residual allows, to first order, as a share of the largest weight of its layer.

    Args:
        network: in float64.
        pairs: queries and answers.
        lengths: of the columns of J, `[P]`.
        least: the smallest eigenvalue of J'J with columns of unit length.
    """
    queries, answers = pairs
    rounded = torch.finfo(answers.dtype).eps * float(answers.norm())  # the answers themselves are
    error = float((network(queries) - answers).norm()) + rounded
    deviations = error / (lengths * math.sqrt(least))
    largest = torch.cat([vectors.abs().max().expand(vectors.numel()) for vectors in network.layer_vectors()])
    return float((deviations / largest).max())


@dataclass(frozen=True)
class Spectrum:
    """The eigenvalues of the curvature `J'J` with columns of J of unit length, the free directions counted as determined.

    Attributes:
        values: the eigenvalues, `[P]`.
        vectors: the eigenvectors as columns, `[P, P]`; None where they are not wanted.
        lengths: of the columns of J, `[P]`; 1 where a column is zero.
        free: the number of free directions.
    """

    values: torch.Tensor
    vectors: torch.Tensor | None
    lengths: torch.Tensor
    free: int

    @property
    def is_open(self) -> torch.Tensor:
        """Which eigenvalues are zero but for rounding, `[P]`."""
        return self.values <= len(self.values) * torch.finfo(self.values.dtype).eps * self.values.max()

    @property
    def has_open(self) -> bool:
        """Whether an eigenvalue is zero."""
        return bool(self.is_open.any())

    @property
    def rank(self) -> int:
        """The rank of the Jacobian less the free directions."""
        return int((~self.is_open).sum()) - self.free

    @classmethod
    def of(
        cls, network: FullyConnected, symmetry: Symmetry, slopes: list[torch.Tensor], pairs: tuple[torch.Tensor, torch.Tensor], full: bool
    ) -> Spectrum:
        """The spectrum of a network at queries and answers, with eigenvectors if it is to be `full`."""
        unit, lengths = unit_curvature(network, *pairs)
        _, scalings = free_directions(network, symmetry, slopes)
        free = torch.nn.functional.normalize(scalings * lengths, dim=1)
        unit = unit + free.T @ free * len(unit)
        values, vectors = torch.linalg.eigh(unit) if full else (torch.linalg.eigvalsh(unit), None)
        return cls(values, vectors, lengths, len(free))


@dataclass(frozen=True)
class Determined:
    """A spectrum together with what it is of, so that the next step that needs the same one does not compute it again.

    Attributes:
        spectrum: without eigenvectors.
        vectors: of the layers of the network.
        queries: all that there are, `[Q, inputs]`.
        asked: see `some_queries`.
        places: of the queries that were examined.
        with_others: whether these are more than a part, because others tell what the part leaves open.
    """

    spectrum: Spectrum
    vectors: Sequence[torch.Tensor]
    queries: torch.Tensor
    asked: int
    places: torch.Tensor
    with_others: bool = False

    @classmethod
    def of(
        cls, network: FullyConnected, symmetry: Symmetry, loader: DataLoader, asked: int = 0, known: Determined | None = None
    ) -> Determined:
        """That of a network and queries, see `determination`; the one that is known, if it is of the same.

        Few queries may differ in a column, or activate a neuron, and hardly any of these may be among those that are examined. So what
        these leave open is examined with as many others, those that tell most of it, if these suffice to test it (`Telling.is_plenty`).
        """
        vectors = [layer.detach().clone() for layer in network.layer_vectors()]
        if known is not None and known._is_of(vectors, loader.examples, asked):
            return known
        places, with_others = _enough(network, loader, asked), False
        spectrum = _spectrum(network, symmetry, loader, places)
        if spectrum.has_open and len(places) < len(loader.examples):
            others = told_by_others(network, symmetry, loader, places)
            if others is not None and others.rare().is_plenty:
                places, with_others = torch.cat([places, others.most(len(places))]), True
                spectrum = _spectrum(network, symmetry, loader, places)
        return cls(spectrum, vectors, loader.examples, asked, places, with_others)

    def _is_of(self, vectors: Sequence[torch.Tensor], queries: torch.Tensor, asked: int) -> bool:
        """Whether the spectrum is that of a network with the given layers, for the given queries."""
        ours, theirs = [*self.vectors, self.queries], [*vectors, queries]
        return self.asked == asked and len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))


def told_by_others(network: FullyConnected, symmetry: Symmetry, loader: DataLoader, places: torch.Tensor) -> Telling | None:
    """What all other queries, each once, tell of the combinations of weights that those at some places leave open.

    Returns:
        None where this is nothing, or more than a FOLLOWED-th of the weights, so that the answers are too few.
    """
    moved, spectrum = _lowest(network, symmetry, loader, places, full=True)
    assert spectrum.vectors is not None
    combinations = (spectrum.vectors[:, spectrum.is_open] / spectrum.lengths[:, None]).T
    if not 0 < FOLLOWED * len(combinations) <= len(spectrum.values):
        return None
    is_other = torch.ones(len(loader.examples), dtype=torch.bool).index_fill(0, places.cpu(), False)
    others = is_other.nonzero()[:, 0]
    others = others[first_of_equal(loader.examples[others]).to(others.device)]
    return Telling(others, changes_of_outputs(moved, loader.examples[others], combinations))


def _spectrum(network: FullyConnected, symmetry: Symmetry, loader: DataLoader, places: torch.Tensor) -> Spectrum:
    """The spectrum for the queries at some places, see `_lowest`."""
    return _lowest(network, symmetry, loader, places)[1]


def _lowest(
    network: FullyConnected, symmetry: Symmetry, loader: DataLoader, places: torch.Tensor, full: bool = False
) -> tuple[FullyConnected, Spectrum]:
    """A network with biases a little lower or a little higher, whichever has the smaller rank, and its spectrum; see `determination`."""
    pairs = loader.examples[places], loader.labels[places]
    touched = [shift_biases(network, pairs[0], share) for share in (-TOUCH, TOUCH)] if symmetry.positive_scaling else [network]
    slopes = linear_slopes(Layers.of(network), loader.examples)
    spectra = [(each, Spectrum.of(each, symmetry, slopes, pairs, full)) for each in touched]
    return min(spectra, key=lambda one: (one[1].rank, float(one[1].values.min())))


def _enough(network: FullyConnected, loader: DataLoader, asked: int) -> torch.Tensor:
    """The places of queries with EQUATIONS_PER_UNKNOWN for a network, see `some_queries`."""
    return some_queries(loader, -(-EQUATIONS_PER_UNKNOWN * unknowns_of(network) // loader.labels.shape[1]), asked)


def open_combinations(network: FullyConnected, symmetry: Symmetry, loader: DataLoader, asked: int = 0) -> torch.Tensor:
    """Combinations of weights that the answers leave open, `[F, P]`, in the order of the parameters; without those in `gauges.py`.

    They are a basis in reduced echelon form: each has a weight of its own, and as few others as possible. Free directions are added so that
    a weight of each neuron that the answers tell well stays as it is.
    """
    _, spectrum = _lowest(network, symmetry, loader, _enough(network, loader, asked), full=True)
    assert spectrum.vectors is not None
    rows = (spectrum.vectors[:, spectrum.is_open] / spectrum.lengths[:, None]).T
    _, moves = free_directions(network, symmetry, linear_slopes(Layers.of(network), loader.examples))
    told = torch.where(spectrum.lengths == 1.0, 0.0, spectrum.lengths)
    for place in range(len(moves)):
        weighted = moves[place] * told  # zero for a neuron that no query activates
        column = int((weighted if bool(weighted.any()) else moves[place]).abs().argmax())
        moves = _eliminated(moves, moves[place], column, place)
        rows = _eliminated(rows, moves[place], column)
    for place in range(len(rows)):
        row, column = divmod(int(rows[place:].abs().argmax()), rows.shape[1])
        rows[[place, place + row]] = rows[[place + row, place]]
        rows = _eliminated(rows, rows[place], column, place)
    return torch.where(rows.abs() > ECHELON, rows, 0.0)


def _eliminated(rows: torch.Tensor, pivot: torch.Tensor, column: int, place: int | None = None) -> torch.Tensor:
    """Rows without a column, by multiples of a row with that column; at `place` is the row itself, which becomes 1 there."""
    unit = pivot / pivot[column]
    changed = rows - rows[:, column, None] * unit
    if place is not None:
        changed[place] = unit
    return changed


@torch.no_grad()
def shift_biases(network: FullyConnected, queries: torch.Tensor, share: float) -> FullyConnected:
    """A copy of a network with higher biases of the hidden neurons, by a share of the spread of their pre-activations."""
    moved = copy.deepcopy(network)
    for layer in moved.fc_layers:
        inputs = layer(queries)
        layer.bias += share * inputs.std(0)
        queries = network.activation(inputs)
    return moved


def first_of_equal(queries: torch.Tensor) -> torch.Tensor:
    """The places of the first of each of the distinct queries `[Q, D]`."""
    distinct, numbers = queries.unique(dim=0, return_inverse=True)
    places = torch.arange(len(queries), device=queries.device)
    return places.new_zeros(len(distinct)).scatter_reduce(0, numbers, places, "amin", include_self=False).sort().values


def some_queries(loader: DataLoader, count: int, asked: int = 0) -> torch.Tensor:
    """The places of `count` queries, drawn by the run's seed; all where there are no more. The last `asked` queries are always among them.

    These are few, and tell what the others leave open.
    """
    generator = torch.Generator().manual_seed(derive(loader.seed, "certificate"))
    first = len(loader.examples) - asked
    return torch.cat([torch.randperm(first, generator=generator)[:count], torch.arange(first, first + asked)])

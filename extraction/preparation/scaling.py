"""The space in which students imitate a file of answers, and the way from there back to the user's inputs and outputs.

Students learn from inputs and outputs of mean 0 and standard deviation 1, whose directions vary alike. Answers as people have them are not
like that: a column has the mean 100, another is a thousand times as large, two are almost copies, a third is constant. An affine map of the
inputs is a part of the first layer, and one of the outputs is a part of the last layer. So the network is recovered in a space where the
columns are standardised, and whitened where they are correlated, and the two maps are then folded into its first and last layer.

Axes: Q rows, D columns of the file, C coordinates inside, K neurons of a layer.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from datasets.base import DataLoader, Loaders
from extraction.answers import Answers
from extraction.network import Layers
from foundations import paths
from foundations.errors import ConfigError, reason
from models.base import read_state, to_bytes
from platforms.platform import get_platform
from platforms.system import files

CONSTANT = 16.0  # a column that varies by less than this many roundings of its largest value is constant
SCARCE = 4.0  # equations for each unknown of students, below which these overfit
USUAL_FACTOR = 4  # how many times wider than the teacher students are by default
NARROW, AMPLE = 1.5, 5.0  # neurons of narrower students, for each of the teacher that is expected; equations for each of their unknowns
LARGE, BARE = 4000, 1.7  # unknowns above which students are penalised, see `Session.is_penalised`; equations for each of these then
EVIDENT = 2  # equations for each weight from a column, below which the column and the rows that differ in it are left out
FLAT = 1e-3  # directions that vary less, as a share of the largest, are amplified up to this share, however scarce answers are
INVOLVED = 1e-6  # a column takes part in a direction from this squared share on
RARE = 0.5  # the largest share of the rows that is left out because columns vary in too few of them
SELDOM = 0.02  # columns that vary in a smaller share of the rows are left to `seldom.restored`, because students see them as outliers
SELDOM_ROWS = 0.2  # the largest share of the rows that is left out with these
UNDETERMINED = 1e-10  # a direction of the inputs that varies less, as a share of the largest, does not show in answers of float64
SHOWN = 20  # columns in a message


@dataclass(frozen=True)
class Usual:
    """What columns may be like that are left as they are.

    Attributes:
        mean: the largest distance of a mean from 0, in standard deviations.
        spread: the largest standard deviation of a column; the smallest is its inverse.
        ratio: the largest ratio between the standard deviations of two directions of the standardised columns.
    """

    mean: float
    spread: float
    ratio: float

    def describes(self, mean: torch.Tensor, spread: torch.Tensor) -> bool:
        """Whether columns with these means and standard deviations, `[D]` each, are usual."""
        return bool((mean.abs() <= self.mean * spread).all() and spread.max() <= self.spread and spread.min() >= 1 / self.spread)


INPUTS, OUTPUTS = Usual(0.5, 2.0, 5.0), Usual(3.0, 5.0, 30.0)
AMPLIFIED = 100.0  # the largest factor for a direction of the outputs, because the rounding of the answers is amplified as well
ERRORS = 1.1  # standard deviations of their errors by which outputs vary at most along a direction that is these errors alone
NOTHING = 1e-12  # standardised outputs along a direction that varies less are exact without it
ROUNDING = 1e-6  # a direction of the outputs that varies less, as a share of the largest, may be rounding alone, and is not amplified


@dataclass(frozen=True)
class Coordinates:
    """An affine map: `inside = ((values - mean) / spread) @ inward`, and back `values = mean + spread * (inside @ outward)`.

    Attributes:
        mean: of each column; of a constant column its value, `[D]`.
        spread: the standard deviation of each column; of a constant column its magnitude, or 1 for 0, `[D]`.
        inward: `[D, C]`.
        outward: the pseudo-inverse of `inward`, `[C, D]`.
        rare: for columns that are left out because few rows differ from `mean`, the number of these rows; 0 for others, `[D]`.
    """

    mean: torch.Tensor
    spread: torch.Tensor
    inward: torch.Tensor
    outward: torch.Tensor
    rare: torch.Tensor

    @classmethod
    def identity(cls, values: torch.Tensor) -> Coordinates:
        """The map that leaves values `[Q, D]` as they are."""
        eye, zero = torch.eye(values.shape[1]).to(values), torch.zeros_like(values[0])
        return cls(zero, torch.ones_like(zero), eye, eye, zero.long())

    @classmethod
    def of_inputs(cls, values: torch.Tensor, least: int = 1, scarce: bool = False, seldom: int = 0) -> Coordinates:
        """The map of inputs `[Q, D]`; correlated columns are whitened unless the answers are scarce.

        Directions that no query varies in are left out, and columns that differ from their usual value in fewer than `least` or `seldom`
        rows, see `rare_columns`. Weights that are folded back are zero along them, in units of `spread`.

        Where answers are scarce, students overfit along directions that vary little, if these are as large as the others. Then columns are
        divided by their ranges, which leaves columns small that vary in few rows, and directions as they are. On the images of
        scikit-learn's digits (1,617 queries, three outputs), students of 15 neurons that Adam trained came to a held-out loss of 1.2e-3 of
        the variance so, and to 3.2e-3 with whitened inputs; of 40 neurons to 6.2e-3 and 2.2e-2.
        """
        return cls._of_rows(values, *rare_columns(values, least, seldom), scarce)

    @classmethod
    def _of_rows(cls, values: torch.Tensor, rare: torch.Tensor, rows: torch.Tensor, scarce: bool = False) -> Coordinates:
        """The map of inputs `[Q, D]`, for the columns `[D]` and the rows `[Q]` of `rare_columns`."""
        standard, plain = _standardised(values[rows])
        plain = dataclasses.replace(plain, rare=rare)
        if scarce:
            ranges = (standard.amax(0) - standard.amin(0)) @ plain.inward
            shares = ranges.square().reciprocal().mean().sqrt() * ranges
            plain = plain._whitened(torch.eye(len(shares)).to(shares), shares)
        deviations, directions = _principal(standard @ plain.inward)
        kept = deviations > UNDETERMINED * deviations.max()
        if scarce:
            sizes = (deviations / (FLAT * deviations.max())).clamp_max(1.0)
            return plain if sizes.min() == 1 else plain._whitened(directions[:, kept], sizes[kept])
        if kept.all() and deviations.max() <= INPUTS.ratio * deviations.min():
            return plain._unless_usual(INPUTS)
        return plain._whitened(directions[:, kept], deviations[kept])

    @classmethod
    def of_outputs(cls, values: torch.Tensor) -> Coordinates:
        """The map of outputs `[Q, D]`; where columns are correlated, directions that vary little are amplified.

        Where columns are mixtures of others, the directions in which they vary by rounding alone are left out, unless columns are usual.
        Rounding is that to float64, or to the number format or the decimals that the numbers show.
        """
        standard, plain = _standardised(values)
        deviations, directions = _principal(standard @ plain.inward)
        known = deviations > _rounding(values.abs().amax(0) / plain.spread).max().clamp_min(NOTHING)
        errors = torch.tensor(Answers.of(values).shares).to(values) @ plain.inward
        known &= deviations > ERRORS * (directions * errors[:, None]).norm(dim=0)
        shares = deviations / deviations.max()
        shares = torch.where(shares > ROUNDING, shares.clamp_min(1 / AMPLIFIED), 1.0)
        if shares.min() * OUTPUTS.ratio >= 1:
            return plain._unless_usual(OUTPUTS)
        return plain._whitened(directions[:, known], (shares * deviations.max())[known])

    def _unless_usual(self, usual: Usual) -> Coordinates:
        """This map, or the one that changes nothing where the columns are usual."""
        if len(self.constant) + len(self.too_rare) or not usual.describes(self.mean, self.spread):
            return self
        return dataclasses.replace(self, mean=torch.zeros_like(self.mean), spread=torch.ones_like(self.spread))

    def _whitened(self, directions: torch.Tensor, sizes: torch.Tensor) -> Coordinates:
        """This map of standardised columns `[C']`, with orthonormal directions `[C', C]` of given sizes `[C]` for coordinates."""
        inward, outward = self.inward @ (directions / sizes), (directions * sizes).T @ self.outward
        return dataclasses.replace(self, inward=inward, outward=outward)

    def without(self, columns: Sequence[int], values: torch.Tensor) -> Coordinates | None:
        """The map of the same inputs `[Q, D]` without some columns, and without the rows that differ from the others in these.

        Returns:
            None where more than a share RARE of the rows does.
        """
        differs = _differs_from_most(values) & (self.rare > 0).index_fill(0, torch.tensor(columns).to(self.rare), True)
        rows = ~differs.any(1)
        rare = torch.where(self.rare > 0, self.rare, differs.sum(0))
        return self._of_rows(values, rare, rows) if int(rows.sum()) >= (1 - RARE) * len(values) else None

    def with_rare(self, columns: Sequence[int], values: torch.Tensor) -> Coordinates:
        """The map of inputs `[Q, D]` with some of the columns that are left out because few rows differ in them."""
        rare = self.rare.index_fill(0, torch.tensor(columns).to(self.rare), 0)
        return self._of_rows(values, rare, ~dataclasses.replace(self, rare=rare).is_rare(values))

    @property
    def is_identity(self) -> bool:
        """Whether the map changes nothing."""
        eye = torch.eye(len(self.mean)).to(self.inward)
        return bool((self.mean == 0).all() and (self.spread == 1).all()) and torch.equal(self.inward, eye)

    @property
    def constant(self) -> list[int]:
        """The numbers of the constant columns."""
        return ((self.outward == 0).all(0) & (self.rare == 0)).nonzero().flatten().tolist()

    @property
    def too_rare(self) -> list[int]:
        """The numbers of the columns that are left out because too few rows differ from their usual value."""
        return self.rare.nonzero().flatten().tolist()

    @property
    def dependent(self) -> list[int]:
        """The numbers of the columns that are mixtures of others wherever there are rows."""
        missing = torch.eye(len(self.mean)).to(self.inward) - self.inward @ self.outward
        used = ~(self.outward == 0).all(0)
        return (used & (missing.square().sum(0) > INVOLVED)).nonzero().flatten().tolist()

    def is_rare(self, values: torch.Tensor) -> torch.Tensor:
        """Which rows of values `[Q, D]` differ from the others in a column that varies in too few rows, `[Q]`."""
        return self.differs(values)[:, self.rare > 0].any(1)

    def differs(self, values: torch.Tensor) -> torch.Tensor:
        """Which values `[Q, D]` differ from `mean`, which is the usual value of a column that varies in few rows."""
        return (values - self.mean).abs() > _rounding(torch.maximum(values.abs(), self.mean.abs()))

    @property
    def open_columns(self) -> list[int]:
        """The numbers of the columns that lie, wholly or in part, along directions that are left out."""
        return (1 - (self.inward @ self.outward).diagonal() > UNDETERMINED).nonzero().flatten().tolist()

    def selected(self, columns: torch.Tensor) -> torch.Tensor:
        """A choice of columns, `[D]`, as one of the coordinates, `[C]`.

        Raises:
            ConfigError: coordinates are mixtures of columns.
        """
        if not ((self.inward != 0).sum(0) == 1).all():
            raise ConfigError("--boruta: the columns of X are correlated, so that students see mixtures of them; leave out --boruta")
        return columns[self.inward.argmax(0)]

    def apply(self, values: torch.Tensor) -> torch.Tensor:
        """Values `[Q, D]` of the file as coordinates `[Q, C]`."""
        return ((values - self.mean) / self.spread) @ self.inward

    def undo(self, inside: torch.Tensor) -> torch.Tensor:
        """Coordinates `[Q, C]` as values of the file, `[Q, D]`: the inverse of `apply`, but for directions that are left out."""
        return self.mean + self.spread * (inside @ self.outward)

    def leaves(self, values: torch.Tensor) -> torch.Tensor:
        """Which rows of values `[Q, D]` have a part along directions that are left out, `[Q]`."""
        standard = (values - self.mean) / self.spread
        beyond = (standard - standard @ self.inward @ self.outward).abs().amax(1)
        return beyond > UNDETERMINED * standard.abs().amax(1).clamp_min(1.0) * 10

    def fold_inputs(self, incoming: torch.Tensor) -> torch.Tensor:
        """Incoming vectors over coordinates, `[K, C + 1]` with the bias last, as vectors over columns, `[K, D + 1]`."""
        weights = (incoming[:, :-1] @ self.inward.T) / self.spread
        return torch.cat([weights, (incoming[:, -1] - weights @ self.mean)[:, None]], 1)

    def unfold_inputs(self, incoming: torch.Tensor) -> torch.Tensor:
        """Incoming vectors over columns, `[K, D + 1]`, as vectors over coordinates, `[K, C + 1]`: the inverse of `fold_inputs`."""
        weights = incoming[:, :-1]
        return torch.cat([(weights * self.spread) @ self.outward.T, (incoming[:, -1] + weights @ self.mean)[:, None]], 1)

    def fold_outputs(self, incoming: torch.Tensor) -> torch.Tensor:
        """Incoming vectors of outputs that are coordinates, `[C, K + 1]`, as vectors of the columns, `[D, K + 1]`."""
        folded = self.spread[:, None] * (self.outward.T @ incoming)
        folded[:, -1] += self.mean
        return folded


@dataclass(frozen=True)
class Scaling:
    """The maps of the inputs and of the outputs, and the width of students with one hidden layer that are narrower than asked for, or 0."""

    inputs: Coordinates
    outputs: Coordinates
    width: int = 0

    @classmethod
    def of(cls, loader: DataLoader, widths: Sequence[int] = ()) -> Scaling | None:
        """The scaling of queries and answers; None where they are usual, so that nothing is to be changed.

        Args:
            loader: the queries and answers for training.
            widths: of the students' hidden layers. The network may have a USUAL_FACTOR-th of their neurons. A query that alone differs in a
                column gives as many equations for the weights from that column as there are outputs. A column that varies in so few
                queries that there are fewer equations than weights is left out with these queries, which tell nothing of other weights.
        """
        queries, answers = loader.dataset.examples, loader.dataset.labels
        outputs = Coordinates.of_outputs(answers)
        equations, several = len(queries) * outputs.inward.shape[1], outputs.inward.shape[1]
        neurons = -(-widths[0] // USUAL_FACTOR) if widths else 0
        sizes = [queries.shape[1], *widths, several]
        unknowns = sum((before + 1) * after for before, after in itertools.pairwise(sizes))
        scarce = bool(widths) and equations < SCARCE * unknowns
        seldom = math.ceil(SELDOM * len(queries)) if widths and not scarce else 0
        inputs = Coordinates.of_inputs(queries, -(-EVIDENT * neurons // several), scarce, seldom)
        each = inputs.inward.shape[1] + 1 + several  # unknowns of a neuron
        narrow = max(math.ceil(NARROW * neurons), int(equations / AMPLE / each))
        if narrow * each > LARGE:
            narrow = max(narrow, int(equations / BARE / each))
        width = narrow if scarce and len(widths) == 1 and narrow < widths[0] else 0
        scaling = cls(inputs, outputs, width)
        if width:
            return scaling
        return None if scaling.inputs.is_identity and scaling.outputs.is_identity else scaling

    @classmethod
    def settled(cls, loader: DataLoader, location: str, widths: Sequence[int] = ()) -> Scaling | None:
        """The scaling of the students in a run folder: the one that is kept there, or else that of their queries, which is then kept.

        A run that was started before scalings were kept, or with usual queries and answers, has none.

        Args:
            loader: the queries and answers for training.
            location: the run folder of the students, before the run is recorded there.
            widths: of the students' hidden layers.
        """
        path = paths.scaling(location)
        if not get_platform().exists(path):
            scaling = None if get_platform().exists(paths.hparams_dict(location)) else cls.of(loader, widths)
            if scaling is None:
                return None
            get_platform().on_primary(lambda: get_platform().write(path, to_bytes(scaling.state())))
        try:
            return cls.from_state(read_state(path)).to(loader.dataset.examples)
        except (KeyError, TypeError, AttributeError) as error:
            raise files.damaged(
                path, f"it holds no scaling: {reason(error)}", "delete the run folder and run the same command again"
            ) from None

    def state(self) -> dict[str, torch.Tensor]:
        """All tensors by name."""
        maps = {"inputs": self.inputs, "outputs": self.outputs}
        width = {"students.width": torch.tensor(self.width)}
        return width | {f"{name}.{field}": value.cpu().contiguous() for name, one in maps.items() for field, value in vars(one).items()}

    @classmethod
    def from_state(cls, state: dict[str, torch.Tensor]) -> Scaling:
        """The inverse of `state`."""
        names = [field.name for field in dataclasses.fields(Coordinates) if field.name != "rare"]
        none = {f"{part}.rare": torch.zeros_like(state[f"{part}.mean"], dtype=torch.long) for part in ("inputs", "outputs")}
        state = none | state  # older scalings leave no rare columns out
        inputs, outputs = (Coordinates(*(state[f"{part}.{name}"] for name in [*names, "rare"])) for part in ("inputs", "outputs"))
        return cls(inputs, outputs, int(state.get("students.width", 0)))

    def to(self, like: torch.Tensor) -> Scaling:
        """The scaling on the device of a tensor."""
        return self.from_state({name: value.to(like.device) for name, value in self.state().items()})

    def without_rare_rows(self, loaders: Loaders) -> Loaders:
        """Loaders without the rows that differ from the others in a column that varies in too few rows."""
        return Loaders(*(loader.selected(~self.inputs.is_rare(loader.dataset.examples)) for loader in loaders))

    def apply(self, loaders: Loaders) -> Loaders:
        """Loaders of the same rows inside. Rows for test along directions that no row for training has are left out, unless all are."""
        scaled = []
        for loader in loaders:
            dataset, rows = loader.dataset, slice(None)
            known = ~self.inputs.leaves(dataset.examples)
            if loader is loaders.test and known.any():
                rows = known
            inside = type(dataset)(self.inputs.apply(dataset.examples[rows]), self.outputs.apply(dataset.labels[rows]))
            scaled.append(loader.over(inside))
        return Loaders(*scaled)

    def fold(self, layers: Layers) -> Layers:
        """A network inside, the output layer last, as a network of the user's inputs and outputs."""
        first, *rest = layers.vectors
        *hidden, last = [self.inputs.fold_inputs(first), *rest]
        return layers.replace(*hidden, self.outputs.fold_outputs(last))

    def fold_linear(self, linear: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A linear map inside, `[C_out, C_in]`, as one of the user's inputs and outputs, `[D_out, D_in]`, with a constant, `[C_out]`.

        The map of the user's inputs x is `linear (inputs.apply(x)) + constant` inside.
        """
        inputs, outputs = self.inputs, self.outputs
        weights = outputs.spread[:, None] * (outputs.outward.T @ linear @ inputs.inward.T) / inputs.spread
        return weights, ((weights @ inputs.mean) / outputs.spread) @ outputs.inward

    def open_weights(self, width: int) -> int:
        """How many weights of a first layer of this width lie along directions of the inputs that no query varies in."""
        columns, coordinates = self.inputs.inward.shape
        return width * (columns - coordinates)

    def remarks(self) -> list[str]:
        """What the queries and answers leave open or fix by themselves, a sentence each."""
        found = []
        if self.width:
            found.append(
                f"the answers are few for students as wide as asked for, which would overfit: students of {self.width} neurons are trained"
            )
        for name, one, weights in (("X", self.inputs, "the weights from"), ("y", self.outputs, "the weights to")):
            if one.constant:
                numbers = _listed(one.constant)
                verb, them = ("is", "it") if len(one.constant) == 1 else ("are", "them")
                found.append(f"{numbers} of {name} {verb} constant and left out: {weights} {them} are 0")
        if self.inputs.too_rare:
            rare = self.inputs.too_rare
            counts = sorted({int(self.inputs.rare[column]) for column in rare})
            several = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
            several += " query" if several == "1" else " queries"
            verb, them = ("varies", "it") if len(rare) == 1 else ("vary", "them")
            found.append(f"{_listed(rare)} of X {verb} in {several} only, which are left out with the weights from {them}")
        columns, varying = len(self.inputs.mean), self.inputs.inward.shape[1]
        flat = columns - varying - len(self.inputs.constant) - len(self.inputs.too_rare)
        if flat:
            found.append(
                f"the queries vary in {varying} of the {columns} directions of X, because of {_listed(self.inputs.dependent)}: no answer "
                "tells the weights along the others; the shortest weights are chosen"
            )
        return found


def rare_columns(values: torch.Tensor, least: int, seldom: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """The columns of values `[Q, D]` that differ from their most frequent value in few rows, and all other rows.

    The rarest columns are left out first: those that differ in fewer than `least` rows as long as at most a share RARE of the rows is left
    out, then those that differ in fewer than `seldom` as long as it is at most a share SELDOM_ROWS.

    Returns:
        The number of rows in which the columns differ that are left out, 0 for the others, `[D]`; and which rows are left, `[Q]`.
    """
    differs = _differs_from_most(values)
    counts, rows = differs.sum(0), differs.new_ones(len(values))
    left, number = counts, 0
    while bool((left > 0).any()):
        number = max(number + 1, int(left[left > 0].min()))
        remaining = rows & ~differs[:, (left > 0) & (left <= number)].any(1)
        most = RARE if number < least else SELDOM_ROWS
        if number >= max(least, seldom) or int(remaining.sum()) < (1 - most) * len(values):
            break
        rows, left = remaining, differs[remaining].sum(0)
    return torch.where(left == 0, counts, 0), rows


def _differs_from_most(values: torch.Tensor) -> torch.Tensor:
    """Which values `[Q, D]` differ from the most frequent value of their column."""
    return (values - values.mode(0).values).abs() > _rounding(values.abs().amax(0))


def _rounding(size: torch.Tensor) -> torch.Tensor:
    """The largest difference between equal values of a size that rounding explains."""
    return CONSTANT * torch.finfo(size.dtype).eps * size


def _listed(numbers: Sequence[int]) -> str:
    """Column numbers as text."""
    shown = [str(number) for number in numbers[:SHOWN]]
    if len(numbers) > SHOWN:
        return f"{len(numbers)} columns ({', '.join(shown)}, ...)"
    return f"column {shown[0]}" if len(shown) == 1 else f"columns {', '.join(shown[:-1])} and {shown[-1]}"


def _standardised(values: torch.Tensor) -> tuple[torch.Tensor, Coordinates]:
    """Standardised values `[Q, D]`, and the map that standardises columns and leaves constant ones out."""
    low, high = values.amin(0), values.amax(0)
    varies = high - low > _rounding(torch.maximum(low.abs(), high.abs()))
    mean = torch.where(varies, values.mean(0), values[0])
    constant = torch.where(mean == 0, 1.0, mean.abs())
    spread = torch.where(varies, (values - mean).square().mean(0).sqrt(), constant)
    selected = torch.eye(len(mean)).to(values)[:, varies]
    rare = torch.zeros_like(mean, dtype=torch.long)
    return (values - mean) / spread, Coordinates(mean, spread, selected, selected.T, rare)


def _principal(standard: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The standard deviations of the principal directions of values `[Q, C]`, and the directions in columns, `[C, C]`."""
    triangular = torch.linalg.qr(standard, mode="r").R
    _, values, directions = torch.linalg.svd(triangular, full_matrices=True)
    deviations = values.new_zeros(len(directions))
    deviations[: len(values)] = values / len(standard) ** 0.5
    return deviations, directions.T

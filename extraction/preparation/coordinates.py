"""Affine maps of the columns of inputs or of outputs to coordinates of mean 0 and standard deviation 1 that vary alike, and back.

Axes: Q rows, D columns of the file, C coordinates inside, K neurons of a layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from extraction.answers import Answers
from foundations.errors import ConfigError

CONSTANT = 16.0  # a column that varies by less than this many roundings of its largest value is constant
FLAT = 1e-3  # directions that vary less, as a share of the largest, are amplified up to this share, however scarce answers are
INVOLVED = 1e-6  # a column takes part in a direction from this squared share on
RARE = 0.5  # the largest share of the rows that is left out because columns vary in too few of them
SELDOM_ROWS = 0.2  # the largest share of the rows that is left out with these
UNDETERMINED = 1e-10  # a direction of the inputs that varies less, as a share of the largest, does not show in answers of float64


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

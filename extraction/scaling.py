"""The space in which students imitate a file of answers, and the way from there back to the user's inputs and outputs.

Students learn from inputs and outputs of mean 0 and standard deviation 1, whose directions vary alike. Answers as people have them are not
like that: a column has the mean 100, another is a thousand times as large, two are almost copies, a third is constant. An affine map of the
inputs is a part of the first layer, and one of the outputs is a part of the last layer. So the network is recovered in a space where the
columns are standardised, and whitened where they are correlated, and the two maps are then folded into its first and last layer.

Axes: Q rows, D columns of the file, C coordinates inside, K neurons of a layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from datasets.base import DataLoader, Loaders
from extraction.network import Layers
from foundations import paths
from foundations.errors import ConfigError, reason
from models.base import read_state, to_bytes
from platforms.platform import get_platform
from platforms.system import files

CONSTANT = 16.0  # a column that varies by less than this many roundings of its largest value is constant
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
ROUNDING = 1e-6  # a direction of the outputs that varies less, as a share of the largest, may be rounding alone, and is not amplified


@dataclass(frozen=True)
class Coordinates:
    """An affine map: `inside = ((values - mean) / spread) @ inward`, and back `values = mean + spread * (inside @ outward)`.

    Attributes:
        mean: of each column; of a constant column its value, `[D]`.
        spread: the standard deviation of each column; of a constant column its magnitude, or 1 for 0, `[D]`.
        inward: `[D, C]`.
        outward: the pseudo-inverse of `inward`, `[C, D]`.
    """

    mean: torch.Tensor
    spread: torch.Tensor
    inward: torch.Tensor
    outward: torch.Tensor

    @classmethod
    def of_inputs(cls, values: torch.Tensor) -> Coordinates:
        """The map of inputs `[Q, D]`, the first of which are all that vary; correlated columns are whitened.

        Directions that no query varies in are left out. Weights that are folded back are zero along them, in units of `spread`.
        """
        standard, plain = _standardised(values)
        deviations, directions = _principal(standard @ plain.inward)
        kept = deviations > UNDETERMINED * deviations.max()
        if kept.all() and deviations.max() <= INPUTS.ratio * deviations.min():
            return plain._unless_usual(INPUTS)
        return plain._whitened(directions[:, kept], deviations[kept])

    @classmethod
    def of_outputs(cls, values: torch.Tensor) -> Coordinates:
        """The map of outputs `[Q, D]`; where columns are correlated, directions that vary little are amplified. None is left out."""
        standard, plain = _standardised(values)
        deviations, directions = _principal(standard @ plain.inward)
        shares = deviations / deviations.max()
        shares = torch.where(shares > ROUNDING, shares.clamp_min(1 / AMPLIFIED), 1.0)
        if shares.min() * OUTPUTS.ratio >= 1:
            return plain._unless_usual(OUTPUTS)
        return plain._whitened(directions, shares * deviations.max())

    def _unless_usual(self, usual: Usual) -> Coordinates:
        """This map, or the one that changes nothing where the columns are usual."""
        if len(self.constant) or not usual.describes(self.mean, self.spread):
            return self
        return dataclasses.replace(self, mean=torch.zeros_like(self.mean), spread=torch.ones_like(self.spread))

    def _whitened(self, directions: torch.Tensor, sizes: torch.Tensor) -> Coordinates:
        """This map of standardised columns `[C']`, with orthonormal directions `[C', C]` of given sizes `[C]` for coordinates."""
        inward, outward = self.inward @ (directions / sizes), (directions * sizes).T @ self.outward
        return dataclasses.replace(self, inward=inward, outward=outward)

    @property
    def is_identity(self) -> bool:
        """Whether the map changes nothing."""
        eye = torch.eye(len(self.mean)).to(self.inward)
        return bool((self.mean == 0).all() and (self.spread == 1).all()) and torch.equal(self.inward, eye)

    @property
    def constant(self) -> list[int]:
        """The numbers of the constant columns."""
        return (self.outward == 0).all(0).nonzero().flatten().tolist()

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

    def leaves(self, values: torch.Tensor) -> torch.Tensor:
        """Which rows of values `[Q, D]` have a part along directions that are left out, `[Q]`."""
        standard = (values - self.mean) / self.spread
        beyond = (standard - standard @ self.inward @ self.outward).abs().amax(1)
        return beyond > UNDETERMINED * standard.abs().amax(1).clamp_min(1.0) * 10

    def fold_inputs(self, incoming: torch.Tensor) -> torch.Tensor:
        """Incoming vectors over coordinates, `[K, C + 1]` with the bias last, as vectors over columns, `[K, D + 1]`."""
        weights = (incoming[:, :-1] @ self.inward.T) / self.spread
        return torch.cat([weights, (incoming[:, -1] - weights @ self.mean)[:, None]], 1)

    def fold_outputs(self, incoming: torch.Tensor) -> torch.Tensor:
        """Incoming vectors of outputs that are coordinates, `[C, K + 1]`, as vectors of the columns, `[D, K + 1]`."""
        folded = self.spread[:, None] * (self.outward.T @ incoming)
        folded[:, -1] += self.mean
        return folded


@dataclass(frozen=True)
class Scaling:
    """The maps of the inputs and of the outputs."""

    inputs: Coordinates
    outputs: Coordinates

    @classmethod
    def of(cls, loader: DataLoader) -> Scaling | None:
        """The scaling of queries and answers; None where they are usual, so that nothing is to be changed."""
        scaling = cls(Coordinates.of_inputs(loader.dataset.examples), Coordinates.of_outputs(loader.dataset.labels))
        return None if scaling.inputs.is_identity and scaling.outputs.is_identity else scaling

    @classmethod
    def settled(cls, loader: DataLoader, location: str) -> Scaling | None:
        """The scaling of the students in a run folder: the one that is kept there, or else that of their queries, which is then kept.

        A run that was started before scalings were kept, or with usual queries and answers, has none.

        Args:
            loader: the queries and answers for training.
            location: the run folder of the students, before the run is recorded there.
        """
        path = paths.scaling(location)
        if not get_platform().exists(path):
            scaling = None if get_platform().exists(paths.hparams_dict(location)) else cls.of(loader)
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
        return {f"{name}.{field}": value.cpu().contiguous() for name, one in maps.items() for field, value in vars(one).items()}

    @classmethod
    def from_state(cls, state: dict[str, torch.Tensor]) -> Scaling:
        """The inverse of `state`."""
        names = [field.name for field in dataclasses.fields(Coordinates)]
        return cls(*(Coordinates(*(state[f"{part}.{name}"] for name in names)) for part in ("inputs", "outputs")))

    def to(self, like: torch.Tensor) -> Scaling:
        """The scaling on the device of a tensor."""
        return self.from_state({name: value.to(like.device) for name, value in self.state().items()})

    def apply(self, loaders: Loaders) -> Loaders:
        """Loaders of the same rows inside. Rows for test along directions that no row for training has are left out, unless all are."""
        scaled = []
        for loader in loaders:
            dataset, rows = loader.dataset, slice(None)
            known = ~self.inputs.leaves(dataset.examples)
            if loader is loaders.test and known.any():
                rows = known
            inside = type(dataset)(self.inputs.apply(dataset.examples[rows]), self.outputs.apply(dataset.labels[rows]))
            scaled.append(type(loader)(inside, loader.batch_size, loader.seed, loader.examples.dtype))
            scaled[-1].order_seed = loader.order_seed
        return Loaders(*scaled)

    def fold(self, layers: Layers) -> Layers:
        """A network inside, the output layer last, as a network of the user's inputs and outputs."""
        first, *rest = layers.vectors
        *hidden, last = [self.inputs.fold_inputs(first), *rest]
        return layers.replace(*hidden, self.outputs.fold_outputs(last))

    def open_weights(self, width: int) -> int:
        """How many weights of a first layer of this width lie along directions of the inputs that no query varies in."""
        columns, coordinates = self.inputs.inward.shape
        return width * (columns - coordinates)

    def remarks(self) -> list[str]:
        """What the queries and answers leave open or fix by themselves, a sentence each."""
        found = []
        for name, one, weights in (("X", self.inputs, "the weights from"), ("y", self.outputs, "the weights to")):
            if one.constant:
                numbers = _listed(one.constant)
                verb, them = ("is", "it") if len(one.constant) == 1 else ("are", "them")
                found.append(f"{numbers} of {name} {verb} constant and left out: {weights} {them} are 0")
        columns, varying = len(self.inputs.mean), self.inputs.inward.shape[1]
        flat = columns - varying - len(self.inputs.constant)
        if flat:
            found.append(
                f"the queries vary in {varying} of the {columns} directions of X: no answer tells the weights along the others; the "
                "shortest weights are chosen"
            )
        return found


def _listed(numbers: Sequence[int]) -> str:
    """Column numbers as text."""
    shown = [str(number) for number in numbers[:SHOWN]]
    if len(numbers) > SHOWN:
        return f"{len(numbers)} columns ({', '.join(shown)}, ...)"
    return f"column {shown[0]}" if len(shown) == 1 else f"columns {', '.join(shown[:-1])} and {shown[-1]}"


def _standardised(values: torch.Tensor) -> tuple[torch.Tensor, Coordinates]:
    """Standardised values `[Q, D]`, and the map that standardises columns and leaves constant ones out."""
    low, high = values.amin(0), values.amax(0)
    varies = high - low > CONSTANT * torch.finfo(values.dtype).eps * torch.maximum(low.abs(), high.abs())
    mean = torch.where(varies, values.mean(0), values[0])
    constant = torch.where(mean == 0, 1.0, mean.abs())
    spread = torch.where(varies, (values - mean).square().mean(0).sqrt(), constant)
    selected = torch.eye(len(mean)).to(values)[:, varies]
    return (values - mean) / spread, Coordinates(mean, spread, selected, selected.T)


def _principal(standard: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The standard deviations of the principal directions of values `[Q, C]`, and the directions in columns, `[C, C]`."""
    triangular = torch.linalg.qr(standard, mode="r").R
    _, values, directions = torch.linalg.svd(triangular, full_matrices=True)
    deviations = values.new_zeros(len(directions))
    deviations[: len(values)] = values / len(standard) ** 0.5
    return deviations, directions.T

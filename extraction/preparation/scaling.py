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
from extraction.network import Layers
from extraction.preparation.coordinates import Coordinates
from foundations import paths
from foundations.errors import reason
from models.base import read_state, to_bytes
from platforms.platform import get_platform
from platforms.system import files

SCARCE = 4.0  # equations for each unknown of students, below which these overfit
USUAL_FACTOR = 4  # how many times wider than the teacher students are by default
NARROW, AMPLE = 1.5, 5.0  # neurons of narrower students, for each of the teacher that is expected; equations for each of their unknowns
LARGE, BARE = 4000, 1.7  # unknowns above which students are penalised, see `Session.is_penalised`; equations for each of these then
EVIDENT = 2  # equations for each weight from a column, below which the column and the rows that differ in it are left out
SELDOM = 0.02  # columns that vary in a smaller share of the rows are left to `seldom.restored`, because students see them as outliers
SHOWN = 20  # columns in a message


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


def _listed(numbers: Sequence[int]) -> str:
    """Column numbers as text."""
    shown = [str(number) for number in numbers[:SHOWN]]
    if len(numbers) > SHOWN:
        return f"{len(numbers)} columns ({', '.join(shown)}, ...)"
    return f"column {shown[0]}" if len(shown) == 1 else f"columns {', '.join(shown[:-1])} and {shown[-1]}"

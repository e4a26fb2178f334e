"""The weights of a recovered network as tables of numbers for a page, read from the files of its run.

Axes: K neurons of a layer, D inputs with the bias last.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from extraction.certification import uncertainty
from extraction.host import to_host
from extraction.report import Report
from extraction.reporting.weight_plots import Names
from foundations import paths
from models.base import read_state
from platforms.platform import get_platform
from platforms.system import files

MOST_NUMBERS, MOST_COLUMNS = 400, 24  # of a layer; a larger layer is shown as a picture only
DIGITS, MOST_DIGITS = 6, 8  # significant digits of an exact weight, and the most of one with an error


@dataclass(frozen=True)
class Cell:
    """A weight.

    Attributes:
        value: as text, with as many digits as its error leaves.
        error: its standard error as text; empty where answers have no errors.
        share: of the largest magnitude in the layer, from -1 to 1.
        is_open: whether no answer tells the weight, or not in full.
    """

    value: str
    error: str
    share: float
    is_open: bool


@dataclass(frozen=True)
class WeightTable:
    """The weights of a layer: the names of the inputs, and the name and the cells of each neuron."""

    title: str
    inputs: list[str]
    rows: list[tuple[str, list[Cell]]]

    @property
    def has_errors(self) -> bool:
        """Whether a weight has a standard error."""
        return any(cell.error for _, cells in self.rows for cell in cells)

    @property
    def has_open(self) -> bool:
        """Whether no answer tells a weight."""
        return any(cell.is_open for _, cells in self.rows for cell in cells)


def of(location: str, report: Report) -> list[WeightTable]:
    """A table for every layer that is small enough; none where the weights are not there.

    Args:
        location: the clustering folder.
        report: of the network.
    """
    layers = layers_in(paths.reconstructed_model(location))
    errors = errors_in(paths.reconstructed_model(location)) if report.certificate.fits else []
    tables = []
    for place, vectors in enumerate(layers):
        count, width = vectors.shape
        if count * width > MOST_NUMBERS or width > MOST_COLUMNS:
            continue
        deviations = errors[place] if len(errors) == len(layers) and errors[place].shape == vectors.shape else None
        open_inputs = report.columns.open if place == 0 else []
        tables.append(_table(vectors, deviations, open_inputs, _names(place, len(layers), report)))
    return tables


def _names(place: int, count: int, report: Report) -> Names:
    is_last = place == count - 1
    title = "Output layer" if is_last else f"Hidden layer {place + 1}"
    return Names(title, report.columns.inputs if place == 0 else [], report.columns.outputs if is_last else [], is_input=place == 0)


def _table(vectors: np.ndarray, errors: np.ndarray | None, open_inputs: Sequence[int], names: Names) -> WeightTable:
    """The table of a layer with vectors `[K, D]`, and their standard errors."""
    count, width = vectors.shape
    largest = float(np.abs(vectors).max()) or 1.0
    texts = [shown(vectors[:, column], None if errors is None else errors[:, column]) for column in range(width)]
    rows = []
    for neuron in range(count):
        cells = []
        for column in range(width):
            value, error = float(vectors[neuron, column]), math.nan if errors is None else float(errors[neuron, column])
            is_open = math.isinf(error) or column in open_inputs
            cells.append(Cell(texts[column][neuron], f"± {error:.1g}" if math.isfinite(error) else "", value / largest, is_open))
        rows.append((names.neuron(neuron), cells))
    kind = "input" if names.is_input else "neuron"
    inputs = [*(names.inputs or [f"{kind} {place}" for place in range(width - 1)]), "bias"]
    return WeightTable(names.layer, inputs, rows)


def shown(values: np.ndarray, errors: np.ndarray | None = None) -> list[str]:
    """Numbers in a column, with the digits that their smallest error leaves, and one more; a few where there is no error."""
    largest = float(np.abs(values).max(initial=0)) or 1.0
    order, digits = math.floor(math.log10(largest)), DIGITS
    told = errors[np.isfinite(errors) & (errors > 0)] if errors is not None else np.zeros(0)
    if told.size:
        digits = min(max(order - math.floor(math.log10(told.min())) + 2, 2), MOST_DIGITS)
    decimals = digits - 1 - order
    return [f"{value:.{max(decimals, 0)}f}" if abs(order) <= MOST_DIGITS else f"{value:.{digits - 1}e}" for value in values]


def layers_in(folder: str) -> list[np.ndarray]:
    """The incoming vectors of every layer in the folder of a network, `[K, D]`; none where it holds no weights."""
    latest = paths.latest_model(get_platform().listdir(folder)) if get_platform().exists(folder) else None
    if latest is None:
        return []
    return [*_vectors([to_host(part.double()) for part in read_state(os.path.join(folder, latest)).values()])]


def errors_in(folder: str) -> list[np.ndarray]:
    """The standard errors of the weights in the form of `layers_in`; none where there is no file.

    Raises:
        ConfigError: the file is damaged.
    """
    path = os.path.join(folder, uncertainty.FILE)
    if not get_platform().exists(path):
        return []
    try:
        with get_platform().open(path, "rb") as file, np.load(io.BytesIO(file.read()), allow_pickle=False) as arrays:
            return [*_vectors([*arrays.values()])]
    except Exception as error:  # numpy raises exceptions of many types for bytes that it has not written
        raise files.damaged(path, str(error), "delete it") from None


def _vectors(parts: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Incoming vectors with the bias last, from the weights and biases of one layer after another."""
    for weights, bias in zip(parts[::2], parts[1::2], strict=False):
        yield np.concatenate([weights, bias[:, None]], 1)

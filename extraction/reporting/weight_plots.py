"""Pictures of a recovered network itself: its weights with their errors, on one common scale, and what it leaves of the answers.

Axes: K neurons of a layer, D inputs with the bias last, Q queries, O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from extraction.certification.residuals import SPREADS, Points
from extraction.host import to_host
from training.plotting import drawing, figure, fix_places, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN_NEURONS = 64  # images
MOST_PANELS = 16  # neurons with a panel of their own; more are a matrix
LARGEST_PANEL = 24  # inputs, the bias included, whose weights fit into a panel for each neuron; more are a matrix
LEAST_IMAGE = 36  # inputs that are drawn as an image if their number is a square
UNEVEN = 100.0  # the ratio between the largest weights of two columns from which the scale is logarithmic
SHOWN_POINTS, SHOWN_OUTPUTS = 3000, 6
COLOURS = "tab:blue", "tab:orange"
BAR, OPEN = "#7fa8d1", "#b8bec6"


@dataclass(frozen=True)
class Names:
    """The names of a layer, of its inputs and of its neurons; without names these have numbers.

    Attributes:
        layer: the title.
        inputs: the names of the inputs of the network, for the first layer.
        neurons: the names of the outputs, for the last.
        is_input: whether the inputs of the layer are those of the network.
    """

    layer: str
    inputs: Sequence[str] = ()
    neurons: Sequence[str] = ()
    is_input: bool = False

    @property
    def is_last(self) -> bool:
        """Whether the neurons are the outputs."""
        return self.layer.startswith("Output")

    def neuron(self, place: int) -> str:
        """The name of a neuron."""
        return self.neurons[place] if self.neurons else f"{'output' if self.is_last else 'neuron'} {place}"

    def ticks(self, count: int) -> list[str]:
        """The names of so many inputs, and of the bias behind them."""
        return [*(self.inputs or map(str, range(count))), "bias"]

    @property
    def axis(self) -> str:
        """What the inputs are."""
        return "input" if self.is_input else "neuron of the layer before"


@dataclass(frozen=True)
class Neurons:
    """The neurons of a layer.

    Attributes:
        names: of the layer.
        vectors: incoming weights, `[K, D]`.
        open: the weights that no answer tells, `[K, D]`.
        partners: the teacher's neurons, `[R, D]`, partners in the same rows; None where they are unknown.
        errors: the standard errors of the weights, `[K, D]`; None where answers have no errors.
    """

    names: Names
    vectors: np.ndarray
    open: np.ndarray
    partners: np.ndarray | None = None
    errors: np.ndarray | None = None

    @property
    def largest(self) -> float:
        """The largest magnitude that is drawn."""
        rest = 0.0 if self.partners is None else float(np.abs(self.partners).max(initial=0))
        return max(float(np.abs(self.vectors).max(initial=0)), rest) or 1.0

    @property
    def error_shown(self) -> str:
        """The largest error as text; empty without errors."""
        if self.errors is None:
            return ""
        told = self.errors[~self.open]
        return f"; error bars: two standard errors, at most {2 * told.max():.1e}" if told.size else "; no answer tells these weights"


@drawing()
def weights(neurons: Neurons, path: str) -> None:
    """The incoming weights of a layer: as images where the inputs of the network are one, as bars where they are few, or as a matrix."""
    inputs = neurons.vectors.shape[1] - 1
    side = math.isqrt(inputs)
    if neurons.names.is_input and not neurons.names.inputs and side * side == inputs >= LEAST_IMAGE:
        chart = _images(neurons, side)
    elif inputs < LARGEST_PANEL and len(neurons.vectors) <= MOST_PANELS:
        chart = _bars(neurons)
    else:
        chart = _matrices(neurons)
    save(chart, path)


def _bars(neurons: Neurons) -> Figure:
    """A panel for each neuron, with a bar for each weight."""
    count, inputs = len(neurons.vectors), neurons.vectors.shape[1] - 1
    columns = min(count, 4 if inputs < 12 else 2)
    lines = math.ceil(count / columns)
    ticks = neurons.names.ticks(inputs)
    long = max(map(len, ticks)) > 4 or inputs > 12
    has_legend = len(_entries(neurons)) > 1
    room = 0.45 + (0.065 * max(map(len, ticks)) if long else 0.1) + (0.25 if has_legend else 0)  # inches below the panels
    width, height = max(5.2, (2.6 if inputs < 12 else 5.2) * columns), 1.5 * lines + 0.5 + room
    chart, _ = figure(width=width, height=height)
    chart.clear()
    chart.set_layout_engine("none")  # places are known, and constrained layout would take longer than all else
    edges = {"left": 0.7 / width, "right": 1 - 0.12 / width, "top": 1 - 0.58 / height, "bottom": room / height}
    grid = chart.subplots(lines, columns, squeeze=False, sharex=True, sharey=True, gridspec_kw=edges | {"wspace": 0.06, "hspace": 0.28})
    for place, axis in enumerate(grid.flat):
        axis.set_visible(place < count)
        if place < count:
            _panel(axis, neurons, place)
            axis.label_outer()
            axis.tick_params(axis="x", labelbottom=place + columns >= count, labelsize=8, labelrotation=90 if long else 0)
    grid[0, 0].set_xticks(range(inputs + 1), ticks)
    _set_scale(grid[0, 0], neurons)
    below = 0.25 / height if has_legend else 0.0
    chart.text(0.5, below + 0.08 / height, neurons.names.axis, ha="center", fontsize=8)
    chart.text(0.1 / width, 0.5, "incoming weight", va="center", rotation=90, fontsize=9)
    chart.suptitle(f"{neurons.names.layer}{neurons.error_shown}", fontsize=10, y=1 - 0.08 / height, va="top")
    if has_legend:
        chart.legend(handles=_entries(neurons), loc="lower center", ncols=3, fontsize=8, frameon=False, borderpad=0.1)
    return chart


def _panel(axis: Axes, neurons: Neurons, place: int) -> None:
    """The weights of one neuron."""
    vector, is_open = neurons.vectors[place], neurons.open[place]
    places = np.arange(len(vector))
    axis.bar(places, vector, width=0.7, color=[OPEN if each else BAR for each in is_open])
    if neurons.errors is not None:
        told = ~is_open
        axis.errorbar(places[told], vector[told], 2 * neurons.errors[place][told], fmt="none", ecolor="black", capsize=3, linewidth=1)
    for each in places[is_open]:
        axis.axvspan(each - 0.5, each + 0.5, facecolor="none", edgecolor="0.7", hatch="///", linewidth=0)
    if neurons.partners is not None and place < len(neurons.partners):
        axis.plot(places, neurons.partners[place], linestyle="", marker="o", markersize=4, markerfacecolor="none", color="black")
    axis.axhline(0, color="0.4", linewidth=0.8)
    axis.set_title(neurons.names.neuron(place), fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(axis="y", linewidth=0.4, alpha=0.6)
    axis.set_axisbelow(True)


def _set_scale(axis: Axes, neurons: Neurons) -> None:
    """One scale for all neurons, logarithmic where the weights from some inputs are much larger than from others."""
    largest = np.abs(neurons.vectors).max(0)
    largest = largest[largest > 0]
    if largest.size and largest.max() > UNEVEN * largest.min():
        axis.set_yscale("symlog", linthresh=float(largest.min()) / 3)
    low, high = axis.get_ylim()
    bound = max(abs(low), abs(high))
    axis.set_ylim(-bound, bound)


def _entries(neurons: Neurons) -> list:
    """The legend: what bars, hatches and circles are."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: list = [Patch(color=BAR, label="recovered")]
    if neurons.open.any():
        entries.append(Patch(facecolor="none", edgecolor="0.7", hatch="///", label="no answer tells this weight, or not in full"))
    if neurons.partners is not None:
        entries.append(Line2D([], [], linestyle="", marker="o", markerfacecolor="none", color="black", label="teacher"))
    return entries


def _parts(neurons: Neurons) -> dict[str, np.ndarray]:
    """The matrices to draw of a layer of many weights: recovered, and the teacher's or the errors."""
    parts = {"recovered": np.where(neurons.open, np.nan, neurons.vectors)}
    if neurons.partners is not None:
        parts["teacher"] = neurons.partners
    if neurons.errors is not None:
        parts["two standard errors"] = np.where(neurons.open, np.nan, 2 * neurons.errors)
    return parts


def _look(label: str, part: np.ndarray, neurons: Neurons) -> dict:
    """The colours of a matrix: weights have one common scale, and errors one of their own."""
    if label == "two standard errors":
        return {"cmap": "viridis", "vmin": 0.0, "vmax": float(np.nanmax(part, initial=0.0)) or 1.0}
    return {"cmap": "RdBu_r", "vmin": -neurons.largest, "vmax": neurons.largest}


def _images(neurons: Neurons, side: int) -> Figure:
    """The weights of each neuron as an image of the network's inputs, with its number; images of one kind stand in one picture."""
    parts = {label: part[:SHOWN_NEURONS, :-1] for label, part in _parts(neurons).items()}
    columns = min(max(map(len, parts.values())), 10)
    lines = math.ceil(max(map(len, parts.values())) / columns)
    chart, _ = figure(width=max(0.9 * columns + 1.8, 5.2), height=len(parts) * (0.9 * lines + 0.5) + 0.5)
    chart.clear()
    for axis, (label, part) in zip(chart.subplots(len(parts), 1, squeeze=False).flat, parts.items(), strict=True):
        tile = side + 1
        mosaic = np.full((lines * tile - 1, columns * tile - 1), np.nan)
        for neuron, vector in enumerate(part):
            top, left = tile * (neuron // columns), tile * (neuron % columns)
            mosaic[top : top + side, left : left + side] = vector.reshape(side, side)
            axis.text(left, top, str(neuron), fontsize=7, va="top", ha="left")
        axis.set_facecolor("0.85")
        image = axis.imshow(mosaic, interpolation="nearest", **_look(label, part, neurons))
        chart.colorbar(image, ax=axis, label="weight" if label == "recovered" else label, fraction=0.03, pad=0.01)
        axis.set(xticks=[0, side - 1], yticks=[0, side - 1])
        axis.tick_params(labelsize=7, length=2)
        axis.set_title(label if len(parts) > 1 else "", fontsize=9)
    more = f", the first {SHOWN_NEURONS} of {len(neurons.vectors)}" if len(neurons.vectors) > SHOWN_NEURONS else ""
    chart.suptitle(f"{neurons.names.layer}: incoming weights of each neuron, {side} x {side} inputs{more}", fontsize=11)
    return chart


def _matrices(neurons: Neurons) -> Figure:
    """The weights of a layer as a matrix with a row for each neuron, grey where no answer tells a weight."""
    parts = _parts(neurons)
    if neurons.partners is not None and neurons.partners.shape == neurons.vectors.shape:
        parts["recovered less teacher"] = neurons.vectors - neurons.partners
    count, inputs = neurons.vectors.shape[0], neurons.vectors.shape[1] - 1
    ticks = neurons.names.ticks(inputs) if inputs < 2 * LARGEST_PANEL else []
    panel, below = min(max(0.16 * count, 1.6), 7.0), 0.6 + 0.065 * max(map(len, ticks), default=0)  # inches
    width, height = min(max(0.12 * inputs, 5.0) + 2.0, 11.0), len(parts) * (panel + below + 0.25) + 0.35
    chart, _ = figure(width=width, height=height)
    chart.clear()
    chart.set_layout_engine("none")  # places are known, and constrained layout would take longer than all else
    edges = {"left": 0.65 / width, "right": 1 - 0.95 / width, "top": 1 - 0.6 / height, "bottom": below / height}
    grid = chart.subplots(len(parts), 1, squeeze=False, gridspec_kw=edges | {"hspace": (below + 0.25) / panel})
    for axis, (label, part) in zip(grid.flat, parts.items(), strict=True):
        look = _look(label, part, neurons)
        if label.endswith("less teacher"):
            look["vmax"] = float(np.abs(part).max()) or 1.0
            look["vmin"] = -look["vmax"]
        axis.set_facecolor("0.85")
        image = axis.imshow(part, aspect="auto", interpolation="nearest", **look)
        beside = axis.get_position()
        bar = chart.add_axes((beside.x1 + 0.08 / width, beside.y0, 0.12 / width, beside.height))
        chart.colorbar(image, cax=bar, label="weight" if label == "recovered" else label)
        axis.axvline(inputs - 0.5, color="black", linewidth=0.8)
        axis.set(xlabel=f"{neurons.names.axis} (bias last)", ylabel="output" if neurons.names.is_last else "neuron")
        axis.set_title(label, fontsize=9)
        if ticks:
            axis.set_xticks(range(inputs + 1), ticks, rotation=90, fontsize=7)
    chart.suptitle(neurons.names.layer, fontsize=11, y=1 - 0.08 / height, va="top")
    return chart


@drawing()
def residuals(points: Points, names: Sequence[str], path: str) -> None:
    """The errors on the answers for training and on those that were held out, against the answers, a panel for each output."""
    outputs = min(len(points.units), SHOWN_OUTPUTS)
    columns = min(outputs, 3)
    lines = math.ceil(outputs / columns)
    chart, _ = figure(width=max(5.6, 3.5 * columns + 1.2), height=2.6 * lines + 0.9)
    chart.clear()
    grid = chart.subplots(lines, columns, squeeze=False, sharey=True)
    fix_places(chart, top=0.6, bottom=0.75, below=0.6, between=0.15)
    for output, axis in enumerate(grid.flat):
        axis.set_visible(output < outputs)
        if output >= outputs:
            continue
        rms = []
        for answers, errors, colour, size in zip(points.answers, points.errors, COLOURS, (3, 5), strict=True):
            step = max(1, len(answers) // SHOWN_POINTS)
            chosen = to_host(answers[::step, output]), to_host(errors[::step, output])
            axis.plot(*chosen, linestyle="", marker=".", markersize=size, alpha=0.55, color=colour)
            rms.append(float(errors[:, output].square().mean().sqrt()))
        axis.axhline(0, color="0.3", linewidth=0.8)
        if points.unit.startswith("standard") and points.unit != SPREADS:
            for bound in (-2, 2):
                axis.axhline(bound, color="0.3", linewidth=0.8, linestyle="--")
        title = names[output] if names else f"output {output}"
        axis.set_title(f"{title}: rms {rms[0]:.2g} training, {rms[1]:.2g} held out", fontsize=9)
        axis.tick_params(labelsize=8)
    more = f" (the first {outputs} of {len(points.units)} outputs)" if len(points.units) > outputs else ""
    for axis in grid[-1]:
        axis.set_xlabel("answer", fontsize=8)
    chart.text(0.1 / chart.get_figwidth(), 0.5, "error", va="center", rotation=90, fontsize=9)
    chart.suptitle(f"Errors in {points.unit}{more}", fontsize=10)
    _add_sets(chart)
    save(chart, path)


def _add_sets(chart: Figure) -> None:
    """The colours of the two sets of answers."""
    from matplotlib.lines import Line2D

    labels = ("answers for training", "held-out answers")
    handles = [Line2D([], [], linestyle="", marker=".", color=colour, label=label) for colour, label in zip(COLOURS, labels, strict=True)]
    chart.legend(handles=handles, loc="lower center", ncols=2, fontsize=8, frameon=False)

"""Plots of training."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foundations import paths
from foundations.averages import mean_and_deviation
from platforms.system import files
from training.metric_logger import MetricLogger

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LABELS = 24  # in a legend


def figure(columns: int = 1, width: float = 5.0, height: float = 3.6) -> tuple[Figure, Sequence[Axes]]:
    """A matplotlib figure that needs no screen, and its row of axes, `width` x `height` inches each. Only this imports matplotlib."""
    from matplotlib.figure import Figure

    chart = Figure(figsize=(width * columns, height), layout="constrained")
    return chart, chart.subplots(1, columns, squeeze=False)[0]


def legend_below(chart: Figure, axes: Sequence[Axes]) -> None:
    """Adds one legend for all axes below them, and enlarges the figure for it."""
    entries = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    shown = dict([*entries.items()][:MAX_LABELS])
    title = f"and {len(entries) - MAX_LABELS} more" if len(entries) > MAX_LABELS else None
    columns = max(1, int(chart.get_figwidth() / (0.07 * max(map(len, shown)) + 0.5)))  # inches
    chart.set_figheight(chart.get_figheight() + 0.19 * math.ceil(len(shown) / columns))
    chart.legend(shown.values(), shown.keys(), loc="outside lower center", fontsize=8, ncols=columns, title=title, title_fontsize=8)


def save(chart: Figure, path: str) -> None:
    """Writes a figure as PNG or PDF, by the extension of the path, if the file differs. The same figure gives the same bytes."""
    form, buffer = path.rpartition(".")[2], io.BytesIO()
    chart.savefig(buffer, format=form, dpi=110, metadata={"CreationDate": None} if form == "pdf" else None)
    files.write_if_changed(path, buffer.getvalue())


@dataclass(frozen=True)
class BandStyle:
    """The form of a band.

    Attributes:
        dots: whether to plot the values as dots.
        log: whether to compute mean and deviation of the logarithms, for a logarithmic axis.
        joined: whether to connect the places; if not, means are markers on vertical lines.
    """

    dots: bool = True
    log: bool = False
    joined: bool = True


DEFAULT_BAND = BandStyle()


def band(
    axis: Axes, places: Sequence[float], values: Sequence[Sequence[float]], label: str, style: BandStyle = DEFAULT_BAND, **look: Any
) -> None:
    """Plots the mean of the values at each place as a line with a band of one standard deviation, and every value as a dot.

    Args:
        axis: the axes.
        places: the positions on the x-axis.
        values: the values at each place.
        label: the label in the legend.
        style: the form of the band.
        look: properties of the line, for matplotlib.
    """
    transform, invert = (math.log, math.exp) if style.log else (float, float)
    means, deviations = zip(*(mean_and_deviation([transform(value) for value in several]) for several in values), strict=True)
    default_look: dict[str, Any] = {"linewidth": 1.6} if style.joined else {"linestyle": "", "marker": "o"}
    (line,) = axis.plot(places, [invert(mean) for mean in means], label=label, **default_look, **look)
    low, high = ([invert(mean + sign * deviation) for mean, deviation in zip(means, deviations, strict=True)] for sign in (-1, 1))
    if style.joined:
        axis.fill_between(places, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    else:
        axis.vlines(places, low, high, color=line.get_color(), alpha=0.5)
    if style.dots:
        points = [(place, value) for place, several in zip(places, values, strict=True) for value in several]
        axis.plot(*zip(*points, strict=True), color=line.get_color(), marker=".", markersize=3, linestyle="", alpha=0.6)


def curves(logger: MetricLogger, output_location: str) -> None:
    """Plots loss and, if logged, accuracy over the iterations, on training and test set, with a line for each student's loss."""
    kinds = [kind for kind in ("loss", "accuracy") if any(logger.get(f"{split}_{kind}") for split in ("train", "test"))]
    if not kinds:
        return
    chart, axes = figure(len(kinds))
    for axis, kind in zip(axes, kinds, strict=True):
        for split, colour in (("train", "tab:blue"), ("test", "tab:orange")):
            points = logger.get(f"{split}_{kind}")
            individual = logger.get(f"{split}_individual_losses") if kind == "loss" else []
            for student in zip(*(values for _, values in individual), strict=True):
                axis.plot([iteration for iteration, _ in individual], student, color=colour, alpha=0.25, linewidth=0.8)
            if points:
                axis.plot(*zip(*points, strict=True), color=colour, marker="." if len(points) < 3 else None, label=split)
        axis.set_xlabel("iteration")
        axis.set_ylabel(kind)
        drawn = (value for line in axis.lines for value in line.get_ydata())  # pyright: ignore[reportGeneralTypeIssues]
        if kind == "loss" and any(value > 0 for value in drawn):
            axis.set_yscale("log")
        axis.legend()
    save(chart, paths.curves(output_location))

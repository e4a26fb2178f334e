"""Pictures of training."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from foundations import paths
from foundations.averages import mean_and_deviation
from platforms.system import files
from training.metric_logger import MetricLogger

MOST_LABELS = 24  # in a legend


def figure(columns: int = 1, width: float = 5.0, height: float = 3.6):
    """A matplotlib figure with a row of axes, drawn without a screen; matplotlib is imported only here."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width * columns, height), layout="constrained")
    return made, made.subplots(1, columns, squeeze=False)[0]


def legend_below(made, axes) -> None:
    """One legend for all pictures, below them, for which the figure grows."""
    entries = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    shown = dict([*entries.items()][:MOST_LABELS])
    title = f"{len(entries) - MOST_LABELS} more are not named" if len(entries) > MOST_LABELS else None
    columns = max(1, int(made.get_figwidth() / (0.07 * max(map(len, shown)) + 0.5)))  # inches
    made.set_figheight(made.get_figheight() + 0.19 * math.ceil(len(shown) / columns))
    made.legend(shown.values(), shown.keys(), loc="outside lower center", fontsize=8, ncols=columns, title=title, title_fontsize=8)


def save(made, path: str) -> None:
    """Writes a figure as a PNG or a PDF, as its name says, unless it is there; the same figure gives the same bytes."""
    form, buffer = path.rpartition(".")[2], io.BytesIO()
    made.savefig(buffer, format=form, dpi=110, metadata={"CreationDate": None} if form == "pdf" else None)
    files.write_if_changed(path, buffer.getvalue())


def band(
    axis,
    places: Sequence[float],
    values: Sequence[Sequence[float]],
    label: str,
    dots: bool = True,
    log: bool = False,
    joined: bool = True,
    **look: object,
) -> None:
    """The mean of the values at each place as a line, in a band of a standard deviation to either side, and every value as a dot.

    Args:
        axis: where to draw.
        places: along the x-axis.
        values: those at each place.
        label: for the legend.
        dots: whether there are dots.
        log: whether mean and deviation are those of the logarithms, which are what a logarithmic axis shows.
        joined: whether there is anything between two places; if not, means are points on upright lines.
        look: of the line, as matplotlib takes it.
    """
    there, back = (math.log, math.exp) if log else (float, float)
    means, deviations = zip(*(mean_and_deviation([there(value) for value in several]) for several in values), strict=True)
    style = {"linewidth": 1.6} if joined else {"linestyle": "", "marker": "o"}
    (line,) = axis.plot(places, [back(mean) for mean in means], label=label, **style, **look)
    low, high = ([back(mean + sign * deviation) for mean, deviation in zip(means, deviations, strict=True)] for sign in (-1, 1))
    if joined:
        axis.fill_between(places, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    else:
        axis.vlines(places, low, high, color=line.get_color(), alpha=0.5)
    if dots:
        points = [(place, value) for place, several in zip(places, values, strict=True) for value in several]
        axis.plot(*zip(*points, strict=True), color=line.get_color(), marker=".", markersize=3, linestyle="", alpha=0.6)


def curves(logger: MetricLogger, output_location: str) -> None:
    """Loss and, where there is one, accuracy over the iterations, on training and test set; for students a line each."""
    kinds = [kind for kind in ("loss", "accuracy") if any(logger.get(f"{split}_{kind}") for split in ("train", "test"))]
    if not kinds:
        return
    made, axes = figure(len(kinds))
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
        if kind == "loss" and any(value > 0 for line in axis.lines for value in line.get_ydata()):
            axis.set_yscale("log")
        axis.legend()
    save(made, paths.curves(output_location))

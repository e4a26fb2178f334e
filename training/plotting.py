"""Plots: their common form, and the plots of training.

Only this module imports matplotlib, with a backend and settings of its own: those of the user may need a screen, LaTeX or a font. A plot
that fails costs no result: results are written first, and `attempt` turns the error into a warning.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foundations import paths
from foundations.averages import mean_and_deviation
from foundations.errors import Busy, one_line, reason
from platforms.platform import get_platform
from platforms.system import files
from training.metric_logger import MetricLogger

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LABELS = 24  # in a legend
MAX_INCHES = 250.0  # of the width or height of a figure; matplotlib draws at most 2^16 pixels
LARGEST = 1e100  # larger numbers are not plotted: squares of them, or a logarithmic axis with margins, would overflow
AGAIN = "run the same command again to draw it"
ENVIRONMENT = {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}  # the settings with which matplotlib is imported


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Surrounds code that draws: matplotlib has its default settings, and neither matplotlib nor numpy prints warnings."""
    matplotlib = _matplotlib()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matplotlib.rcdefaults()
        yield


def _matplotlib() -> Any:
    """The module matplotlib, imported without the backend and the settings of the user, of which an invalid one would be an error."""
    if "matplotlib" not in sys.modules:
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        previous = {name: os.environ.get(name) for name in ENVIRONMENT}
        os.environ.update(ENVIRONMENT)
        try:
            import matplotlib  # noqa: F401
        finally:
            for name, value in previous.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
    return sys.modules["matplotlib"]


def attempt(path: str, draw: Callable[[], object], remedy: str = AGAIN) -> bool:
    """Draws a plot, or prints a warning of one line if that fails. Only the primary process draws.

    Args:
        path: the file or folder of the plot.
        draw: the function that draws it.
        remedy: how the user gets the plot after a failure; part of the warning.

    Returns:
        Whether the plot is drawn.

    Raises:
        Busy: another process has taken over a lock of this process.
    """
    return get_platform().on_primary(lambda: _attempt(path, draw, remedy))


def _attempt(path: str, draw: Callable[[], object], remedy: str) -> bool:
    try:
        draw()
    except Busy:
        raise
    except Exception as error:
        warning = one_line(f"Warning: {path} is not drawn ({type(error).__name__}: {reason(error)}); {remedy}")
        with contextlib.suppress(OSError):  # of standard error
            print(warning, file=sys.stderr, flush=True)
        return False
    return True


def is_plottable(value: float) -> bool:
    """Whether a number is finite, and not too large for an axis."""
    return abs(value) <= LARGEST


def plottable(values: Sequence[float]) -> list[float]:
    """Values with NaN, which is a gap in a line, in place of those that cannot be plotted."""
    return [value if is_plottable(value) else math.nan for value in values]


def figure(columns: int = 1, width: float = 5.0, height: float = 3.6) -> tuple[Figure, Sequence[Axes]]:
    """A matplotlib figure that needs no screen, and its row of axes, `width` x `height` inches each. The caller is inside `drawing`."""
    from matplotlib.figure import Figure

    chart = Figure(figsize=(min(width * columns, MAX_INCHES), min(height, MAX_INCHES)), layout="constrained")
    return chart, chart.subplots(1, columns, squeeze=False)[0]


def fix_places(chart: Figure, top: float = 0.35, bottom: float = 0.6, below: float = 0.0, between: float = 0.8) -> None:
    """Puts the axes of a figure at places that leave room for labels, which takes half of the time of matplotlib's constrained layout.

    Args:
        chart: the figure; its axes form a grid.
        top: the height above the axes, in inches.
        bottom: the height below them, in inches.
        below: the height between two of them, in inches.
        between: the width between two of them, in inches.
    """
    from matplotlib.gridspec import GridSpec

    chart.set_layout_engine("none")
    width, height = chart.get_figwidth(), chart.get_figheight()
    grid = chart.axes[0].get_gridspec()
    assert isinstance(grid, GridSpec)
    panel = (width - 1 - between * (grid.ncols - 1)) / grid.ncols, (height - top - bottom - below * (grid.nrows - 1)) / grid.nrows
    edges = {"left": 0.85 / width, "right": 1 - 0.15 / width, "top": 1 - top / height, "bottom": bottom / height}
    grid.update(**edges, wspace=between / panel[0], hspace=below / panel[1])
    for axis, place in [(axis, axis.get_subplotspec()) for axis in chart.axes]:
        if place is not None:
            axis.set_subplotspec(place)


def legend_below(chart: Figure, axes: Sequence[Axes]) -> None:
    """Adds one legend for all axes below them, and enlarges the figure for it."""
    entries = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    shown = dict([*entries.items()][:MAX_LABELS])
    title = f"and {len(entries) - MAX_LABELS} more" if len(entries) > MAX_LABELS else None
    columns = max(1, int(chart.get_figwidth() / (0.07 * max(map(len, shown)) + 0.5)))  # inches
    chart.set_figheight(chart.get_figheight() + 0.19 * math.ceil(len(shown) / columns))
    chart.legend(shown.values(), shown.keys(), loc="outside lower center", fontsize=8, ncols=columns, title=title, title_fontsize=8)


@drawing()
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

    Values that cannot be plotted are left out.

    Args:
        axis: the axes.
        places: the positions on the x-axis.
        values: the values at each place.
        label: the label in the legend.
        style: the form of the band.
        look: properties of the line, for matplotlib.
    """
    transform, invert = (math.log, math.exp) if style.log else (float, float)
    values = [[*filter(is_plottable, several)] for several in values]
    transformed = ([transform(value) for value in several] or [math.nan] for several in values)
    means, deviations = zip(*map(mean_and_deviation, transformed), strict=True)
    default_look: dict[str, Any] = {"linewidth": 1.6} if style.joined else {"linestyle": "", "marker": "o"}
    (line,) = axis.plot(places, [invert(mean) for mean in means], label=label, **default_look, **look)
    low, high = ([invert(mean + sign * deviation) for mean, deviation in zip(means, deviations, strict=True)] for sign in (-1, 1))
    if style.joined:
        axis.fill_between(places, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    else:
        axis.vlines(places, low, high, color=line.get_color(), alpha=0.5)
    if style.dots:
        points = [(place, value) for place, several in zip(places, values, strict=True) for value in several]
        axis.plot([x for x, _ in points], [y for _, y in points], color=line.get_color(), marker=".", markersize=3, linestyle="", alpha=0.6)


def draw_missing_curves(location: str) -> None:
    """Draws the curves of a finished run if their plot is missing."""
    path = paths.curves(location)
    if get_platform().exists(paths.logger(location)) and not get_platform().exists(path):
        attempt(path, lambda: curves(MetricLogger.load(location), location))


@drawing()
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
                axis.plot([iteration for iteration, _ in individual], plottable(student), color=colour, alpha=0.25, linewidth=0.8)
            if points:
                iterations, values = zip(*points, strict=True)
                axis.plot(iterations, plottable(values), color=colour, marker="." if len(points) < 3 else None, label=split)
        axis.set_xlabel("iteration")
        axis.set_ylabel(kind)
        drawn = (value for line in axis.lines for value in line.get_ydata())  # pyright: ignore[reportGeneralTypeIssues]
        if kind == "loss" and any(value > 0 for value in drawn):
            axis.set_yscale("log")
        axis.legend()
    fix_places(chart)
    save(chart, paths.curves(output_location))

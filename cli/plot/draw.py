"""Figures of metrics: one panel for each metric, with one line for each group of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cli.plot.series import LOGGED, WEIGHTS, Group, Points
from cli.runs.table import SHARES
from foundations.errors import ConfigError
from training.plotting import BandStyle, band, drawing, figure, legend_below

MOST_COLOURS, MOST_TICKS = 10, 10
LOGARITHMIC = ("loss", "losses", "error", "seconds")  # the ends of the names of metrics that may have a logarithmic axis
WIDE = 10.0  # the least ratio of the largest to the smallest value for which an axis is logarithmic by default


@dataclass(frozen=True)
class Line:
    """A line of a panel: its label, its colour, and the values at each x value."""

    title: str
    colour: object
    points: Points


@drawing()
def panels(groups: Sequence[Group], metrics: Sequence[str], x: str, log: str | None):
    """A figure with one panel for each metric.

    Args:
        groups: the groups of runs.
        metrics: the names of the metrics.
        x: iteration, epoch, weights_left, or a hyperparameter.
        log: the logarithmic axes, a text with `x` and `y`; None chooses the axes by the data.

    Raises:
        ConfigError: no run has values to draw.
    """
    from lottery.plotting import colormap

    made, axes = figure(len(metrics), width=5.4, height=4.0)
    colours = [f"C{number}" for number in range(len(groups))] if len(groups) <= MOST_COLOURS else colormap(len(groups))
    for axis, metric in zip(axes, metrics, strict=True):
        points = [group.points(metric, x) for group in groups]
        if not any(points):
            raise ConfigError(f"--x: none of the runs has both {x} and a finite {metric}")
        scale = 100 if metric.endswith(SHARES) or metric in ("identified", "accepted") else 1
        points = [{_position(key, x): [scale * value for value in values] for key, values in each.items()} for each in points]
        lines = [Line(group.title, colour, each) for group, colour, each in zip(groups, colours, points, strict=True)]
        _draw(axis, lines, x, _log_axes(points, metric, x, log))
        axis.set_ylabel(f"{metric.replace('_', ' ')}{' (%)' if scale > 1 else ''}")
    legend_below(made, axes)
    return made


def tickets(groups: Sequence[Group], files: Sequence[str]) -> None:
    """Writes the figure of lottery tickets and their branches: accuracy, and the iterations to reach it, against the weights left.

    Raises:
        ConfigError: no run has levels of a pruning experiment.
    """
    from lottery import plotting, report

    experiments: dict[str, dict[int, list[report.Outcome]]] = {}
    for group in groups:
        levels: dict[int, list[report.Outcome]] = {}
        at_levels = [(source.level, source.folder) for source in group.sources if source.level is not None and source.weights_left]
        for level, folder in sorted(at_levels, key=lambda pair: pair[0]):
            levels.setdefault(level, []).append(report.read(level, folder))
        if levels:
            experiments[group.label] = levels
    if not experiments:
        raise ConfigError("--x: only levels of pruning experiments have weights_left; valid: iteration, epoch or a hyperparameter")
    for path in files:
        plotting.comparison(experiments, path)


def _position(key: object, x: str) -> object:
    """The x value in the units of the axis: shares of weights are in per cent."""
    return 100 * key if x == WEIGHTS and isinstance(key, (int, float)) else key


def _log_axes(points: Sequence[Points], metric: str, x: str, log: str | None) -> str:
    """The logarithmic axes: the requested axes, or those with a wide range of values. A logarithmic axis has positive values only."""
    positions = [position for each in points for position in each]
    values = [value for each in points for several in each.values() for value in several]
    wanted = ("" if x in LOGGED else "x") + ("y" if metric.endswith(LOGARITHMIC) else "") if log is None else log
    least_ratio = WIDE if log is None else 1.0
    return "".join(name for name, shown in (("x", positions), ("y", values)) if name in wanted and _spans(shown, least_ratio))


def _spans(values: Sequence[object], ratio: float) -> bool:
    """Whether all values are positive numbers, and the largest is at least `ratio` times the smallest."""
    numbers = _numbers(values)
    return bool(numbers) and all(number > 0 for number in numbers) and max(numbers) >= ratio * min(numbers)


def _numbers(values: Sequence[object]) -> list[float]:
    """The values, if all of them are numbers; otherwise an empty list."""
    numbers: list[float] = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    return numbers if len(numbers) == len(values) else []


def _draw(axis, lines: Sequence[Line], x: str, log: str) -> None:
    """Draws the panel of one metric."""
    from lottery.plotting import weights_axis

    keys = list(dict.fromkeys(key for line in lines for key in line.points))
    numbers = _numbers(keys)
    numeric = bool(numbers)
    positions = numbers or [*range(len(keys))]
    position_of = dict(zip(keys, positions, strict=True))
    few = x not in LOGGED or max(len(line.points) for line in lines) < 3
    for line in lines:
        if line.points:
            look = {"color": line.colour, "markersize": 4} | ({"marker": "o"} if few and numeric else {})
            places = [position_of[key] for key in line.points]
            band(axis, places, [*line.points.values()], line.title, BandStyle(few, "y" in log, numeric), **look)
    if "y" in log:
        axis.set_yscale("log")
    axis.set_xlabel(x.replace("_", " "))
    if x == WEIGHTS:
        weights_axis(axis, positions)
        return
    if "x" in log:
        axis.set_xscale("log")
    if x not in LOGGED and (not numeric or len(keys) <= MOST_TICKS):
        axis.set_xticks(positions, [f"{key:g}" if numeric else str(key) for key in keys])
        axis.set_xticks([], minor=True)
        axis.margins(x=0.05 if numeric else 0.2)

"""Pictures of metrics, one beside the other, in each a line for every group of runs."""

from __future__ import annotations

from collections.abc import Sequence

from cli.plot.series import LOGGED, WEIGHTS, Group, Points
from cli.runs.table import SHARES
from foundations.errors import ConfigError

MOST_COLOURS, MOST_TICKS = 10, 10
LOGARITHMIC = ("loss", "losses", "error", "seconds")  # what the names of metrics end in that may have a logarithmic axis
WIDE = 10.0  # the ratio of the largest to the smallest from which on they, and hyperparameters, have one


def panels(groups: Sequence[Group], metrics: Sequence[str], x: str, log: str | None):
    """A figure with a picture for each metric.

    Args:
        groups: of runs.
        metrics: by name.
        x: iteration, epoch, weights_left, or a hyperparameter.
        log: the axes that are logarithmic, some of `x` and `y`; chosen by what is drawn where it is None.

    Raises:
        ConfigError: there is nothing to draw.
    """
    from lottery.plotting import colormap
    from training.plotting import figure, legend_below

    made, axes = figure(len(metrics), width=5.4, height=4.0)
    colours = [f"C{number}" for number in range(len(groups))] if len(groups) <= MOST_COLOURS else colormap(len(groups))
    for axis, metric in zip(axes, metrics, strict=True):
        points = [group.points(metric, x) for group in groups]
        if not any(points):
            raise ConfigError(f"--x: none of the runs has both {x} and a finite {metric}")
        scale = 100 if metric.endswith(SHARES) or metric in ("identified", "accepted") else 1
        points = [{_place(place, x): [scale * value for value in values] for place, values in each.items()} for each in points]
        _panel(axis, points, groups, colours, x, _axes(points, metric, x, log))
        axis.set_ylabel(f"{metric.replace('_', ' ')}{' (%)' if scale > 1 else ''}")
    legend_below(made, axes)
    return made


def tickets(groups: Sequence[Group], files: Sequence[str]) -> None:
    """The picture of lottery tickets and their branches in some files: what is reached, and how fast, against the weights left.

    Raises:
        ConfigError: no level has what it takes.
    """
    from lottery import plotting, report

    found: dict[str, dict[int, list[report.Outcome]]] = {}
    for group in groups:
        levels: dict[int, list[report.Outcome]] = {}
        for source in sorted((source for source in group.sources if source.weights_left), key=lambda source: source.level):
            levels.setdefault(source.level, []).append(report.read(source.level, source.folder))
        if levels:
            found[group.label] = levels
    if not found:
        raise ConfigError(
            "--x: weights_left is known of the levels of pruning experiments only; valid: iteration, epoch or a hyperparameter"
        )
    for path in files:
        plotting.comparison(found, path)


def _place(place: object, x: str) -> object:
    return 100 * place if x == WEIGHTS else place


def _axes(points: Sequence[Points], metric: str, x: str, log: str | None) -> str:
    """The logarithmic axes: those asked for, or those on which it helps; only where all is positive."""
    places = [place for each in points for place in each]
    values = [value for each in points for several in each.values() for value in several]
    wanted = ("" if x in LOGGED else "x") + ("y" if metric.endswith(LOGARITHMIC) else "") if log is None else log
    least_ratio = WIDE if log is None else 1.0
    return "".join(name for name, shown in (("x", places), ("y", values)) if name in wanted and _spans(shown, least_ratio))


def _spans(values: Sequence[object], ratio: float) -> bool:
    """Whether some values are positive numbers of which the largest is so many times the smallest."""
    positive = bool(values) and all(_is_number(value) and value > 0 for value in values)
    return positive and max(values) >= ratio * min(values)


def _is_number(place: object) -> bool:
    return isinstance(place, (int, float)) and not isinstance(place, bool)


def _panel(axis, points: Sequence[Points], groups: Sequence[Group], colours: Sequence[object], x: str, log: str) -> None:
    """One metric of all groups."""
    from lottery.plotting import weights_axis
    from training.plotting import band

    places = list(dict.fromkeys(place for each in points for place in each))
    numeric = all(map(_is_number, places))
    where = {place: place if numeric else number for number, place in enumerate(places)}
    few = x not in LOGGED or max(map(len, points)) < 3
    for each, group, colour in zip(points, groups, colours, strict=True):
        if each:
            look = {"color": colour, "markersize": 4} | ({"marker": "o"} if few and numeric else {})
            band(axis, [where[place] for place in each], [*each.values()], group.title, few, "y" in log, numeric, **look)
    if "y" in log:
        axis.set_yscale("log")
    axis.set_xlabel(x.replace("_", " "))
    if x == WEIGHTS:
        weights_axis(axis, places)
        return
    if "x" in log:
        axis.set_xscale("log")
    if x not in LOGGED and (not numeric or len(places) <= MOST_TICKS):
        axis.set_xticks([*where.values()], [f"{place:g}" if numeric else str(place) for place in places])
        axis.set_xticks([], minor=True)
        axis.margins(x=0.05 if numeric else 0.2)

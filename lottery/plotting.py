"""Figures of lottery ticket experiments: final metric and speed of training against the share of remaining weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lottery.interpolation import Interpolation, barrier
from lottery.report import Experiment, Outcome
from training.plotting import band, drawing, figure, legend_below, plottable, save

TICK_RATIO = 1.15  # the smallest ratio of two shares of weights that both have a tick


@drawing()
def tickets(outcomes: Sequence[Outcome], path: str) -> None:
    """Draws the levels of one experiment."""
    chart, axes = figure(2)
    weights = [100 * outcome.density for outcome in outcomes]
    final, best = plottable([outcome.final for outcome in outcomes]), plottable([outcome.best for outcome in outcomes])
    axes[0].plot(weights, [_scaled(outcomes[0], value) for value in final], marker=".", label="after training")
    axes[0].plot(weights, [_scaled(outcomes[0], value) for value in best], marker=".", linestyle="--", label="best")
    axes[0].legend()
    axes[1].plot(weights, [outcome.steps for outcome in outcomes], marker=".")
    _label(axes, outcomes[0].metric, weights)
    save(chart, path)


@drawing()
def comparison(experiments: Mapping[str, Experiment], path: str) -> None:
    """Draws the tickets and their branches: means over the seeds, bands of one standard deviation, and a dot for each seed."""
    first = next(outcomes[0] for levels in experiments.values() for outcomes in levels.values())
    chart, axes = figure(2, width=5.8, height=4.0)
    for name, levels in experiments.items():
        if any(outcome.metric != first.metric for outcomes in levels.values() for outcome in outcomes):
            continue
        weights = [100 * outcomes[0].density for outcomes in levels.values()]
        seeds = max(len(outcomes) for outcomes in levels.values())
        for axis, value in ((axes[0], lambda outcome: _scaled(outcome, outcome.final)), (axes[1], lambda outcome: outcome.steps)):
            values = [[value(outcome) for outcome in outcomes] for outcomes in levels.values()]
            label = f"{name} ({seeds} seed{'s' if seeds > 1 else ''})"
            band(axis, weights, values, label)
    all_weights = [100 * outcomes[0].density for levels in experiments.values() for outcomes in levels.values()]
    _label(axes, first.metric, all_weights)
    legend_below(chart, axes)
    save(chart, path)


def _scaled(outcome: Outcome, value: float) -> float:
    """A value of the metric in the unit of the figure: accuracies in per cent."""
    return 100 * value if outcome.metric == "accuracy" else value


def _label(axes, metric: str, weights: Sequence[float]) -> None:
    """Labels and scales the axes of both panels."""
    axes[0].set_ylabel("test accuracy (%)" if metric == "accuracy" else "test loss")
    axes[1].set_ylabel(f"iterations to the best {metric}")
    if metric == "loss" and not any(value <= 0 for line in axes[0].lines for value in line.get_ydata()):
        axes[0].set_yscale("log")
    for axis in axes:
        weights_axis(axis, weights)


def weights_axis(axis, weights: Sequence[float]) -> None:
    """Formats an x-axis of remaining weights in per cent, from many to few."""
    axis.set(xscale="log", xlabel="weights left (%)", xlim=(1.1 * max(weights), min(weights) / 1.1))
    ticks = _ticks(weights)
    axis.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    axis.minorticks_off()


def _ticks(weights: Sequence[float]) -> list[float]:
    """Round numbers on an axis of remaining weights. If fewer than three fit, the weights themselves, at least `TICK_RATIO` apart."""
    ticks = [tick for tick in (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01) if min(weights) <= tick <= max(weights)]
    if len(ticks) > 2:
        return ticks
    ticks = []
    for weight in sorted(weights, reverse=True):
        if not ticks or weight < ticks[-1] / TICK_RATIO:
            ticks.append(weight)
    return ticks


@drawing()
def barriers(interpolations: Mapping[int, Interpolation], path: str) -> None:
    """Draws the test error on the line between two copies of each level, and the error barriers against the remaining weights."""
    chart, axes = figure(2)
    levels = [*interpolations.values()]
    weights = [100 * level.unpruned / level.total for level in levels]
    colours = colormap(len(interpolations))
    for (number, level), weight, colour in zip(interpolations.items(), weights, colours, strict=True):
        axes[0].plot(level.alpha, plottable(level.test), color=colour, linewidth=1.2, label=f"level {number}: {weight:.3g}%")
    axes[0].set(xlabel="position between the two copies", ylabel="test error")
    axes[0].legend(fontsize=6, ncols=1 + len(interpolations) // 12)
    train, test = ([barrier(errors) for errors in part] for part in zip(*((level.train, level.test) for level in levels), strict=True))
    axes[1].plot(weights, plottable(train), marker=".", label="on the training set")
    axes[1].plot(weights, plottable(test), marker=".", label="on the test set")
    axes[1].set_ylabel("error barrier")
    weights_axis(axes[1], weights)
    axes[1].legend()
    save(chart, path)


def colormap(count: int) -> list[tuple[float, ...]]:
    """`count` colours, from dark to light."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.9 * index / max(1, count - 1)) for index in range(count)]

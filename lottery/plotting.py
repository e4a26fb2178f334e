"""Pictures of lottery ticket experiments: what is reached, and how fast, against the weights that are left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lottery.report import Experiment, Outcome
from training.plotting import band, figure, legend_below, save

TICK_RATIO = 1.15  # of two weights at least, for both to have a tick


def tickets(outcomes: Sequence[Outcome], path: str) -> None:
    """The levels of one experiment."""
    made, axes = figure(2)
    weights = [100 * each.density for each in outcomes]
    axes[0].plot(weights, [_scaled(each, each.final) for each in outcomes], marker=".", label="after training")
    axes[0].plot(weights, [_scaled(each, each.best) for each in outcomes], marker=".", linestyle="--", label="best")
    axes[0].legend()
    axes[1].plot(weights, [each.steps for each in outcomes], marker=".")
    _label(axes, outcomes[0].metric, weights)
    save(made, path)


def comparison(found: Mapping[str, Experiment], path: str) -> None:
    """The tickets and their branches: means over the seeds, a standard deviation to either side, and every seed as a dot."""
    first = next(outcomes[0] for levels in found.values() for outcomes in levels.values())
    made, axes = figure(2, width=5.8, height=4.0)
    for name, levels in found.items():
        if any(each.metric != first.metric for outcomes in levels.values() for each in outcomes):
            continue
        weights = [100 * outcomes[0].density for outcomes in levels.values()]
        seeds = max(len(outcomes) for outcomes in levels.values())
        for axis, value in ((axes[0], lambda each: _scaled(each, each.final)), (axes[1], lambda each: each.steps)):
            values = [[value(each) for each in outcomes] for outcomes in levels.values()]
            label = f"{name} ({seeds} seed{'s' if seeds > 1 else ''})"
            band(axis, weights, values, label)
    everything = [100 * outcomes[0].density for levels in found.values() for outcomes in levels.values()]
    _label(axes, first.metric, everything)
    legend_below(made, axes)
    save(made, path)


def _scaled(outcome: Outcome, value: float) -> float:
    """A value as it is drawn: accuracies in per cent."""
    return 100 * value if outcome.metric == "accuracy" else value


def _label(axes, metric: str, weights: Sequence[float]) -> None:
    axes[0].set_ylabel("test accuracy (%)" if metric == "accuracy" else "test loss")
    axes[1].set_ylabel(f"iterations to the best {metric}")
    if metric == "loss" and all(value > 0 for line in axes[0].lines for value in line.get_ydata()):
        axes[0].set_yscale("log")
    for axis in axes:
        weights_axis(axis, weights)


def weights_axis(axis, weights: Sequence[float]) -> None:
    """Makes an x-axis of weights that are left, in per cent, from many to few."""
    axis.set(xscale="log", xlabel="weights left (%)", xlim=(1.1 * max(weights), min(weights) / 1.1))
    ticks = _ticks(weights)
    axis.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    axis.minorticks_off()


def _ticks(weights: Sequence[float]) -> list[float]:
    """Round numbers along an axis of weights that are left; where fewer than three fit, the weights themselves, some distance apart."""
    ticks = [tick for tick in (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01) if min(weights) <= tick <= max(weights)]
    if len(ticks) > 2:
        return ticks
    ticks = []
    for weight in sorted(weights, reverse=True):
        if not ticks or weight < ticks[-1] / TICK_RATIO:
            ticks.append(weight)
    return ticks


def barriers(found: Mapping[int, Mapping[str, list[float]]], barrier: Callable[[list[float]], float], path: str) -> None:
    """The test error along the line between two copies of each level, and the barriers against the weights that are left.

    Args:
        found: for each level `alpha`, the places on the line, the errors there on the sets `train` and `test`, and the numbers of weights.
        barrier: what is made of the errors along a line.
        path: where the picture goes.
    """
    made, axes = figure(2)
    weights = [100 * each["unpruned"] / each["total"] for each in found.values()]
    colours = colormap(len(found))
    for (level, each), weight, colour in zip(found.items(), weights, colours, strict=True):
        axes[0].plot(each["alpha"], each["test"], color=colour, linewidth=1.2, label=f"level {level}: {weight:.3g}%")
    axes[0].set(xlabel="from one copy to the other", ylabel="test error")
    axes[0].legend(fontsize=6, ncols=1 + len(found) // 12)
    for part in ("train", "test"):
        axes[1].plot(weights, [barrier(each[part]) for each in found.values()], marker=".", label=f"on the {part} set")
    axes[1].set_ylabel("error barrier")
    weights_axis(axes[1], weights)
    axes[1].legend()
    save(made, path)


def colormap(count: int) -> list[tuple[float, ...]]:
    """As many colours, from dark to light."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.9 * place / max(1, count - 1)) for place in range(count)]

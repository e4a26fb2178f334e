"""Pictures of training."""

from __future__ import annotations

import io

from foundations import paths
from platforms import files
from training.metric_logger import MetricLogger


def figure(columns: int = 1, width: float = 5.0, height: float = 3.6):
    """A matplotlib figure with a row of axes, drawn without a screen; matplotlib is imported only here."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width * columns, height), layout="constrained")
    return made, made.subplots(1, columns, squeeze=False)[0]


def save(made, path: str) -> None:
    """Writes a figure as a PNG, unless it is there."""
    buffer = io.BytesIO()
    made.savefig(buffer, format="png", dpi=110)
    files.refresh(path, buffer.getvalue())


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

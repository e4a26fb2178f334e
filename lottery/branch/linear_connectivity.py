"""Stability of tickets to SGD noise, as in *Linear Mode Connectivity and the Lottery Ticket Hypothesis* (Frankle, Dziugaite,
Roy & Carbin 2020, arXiv:1912.05671)."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch

from foundations import json_text, limits, paths, tables
from foundations.errors import reason
from lottery import plotting
from lottery.branch import base
from lottery.branch.arguments import BranchArguments
from lottery.interpolation import Interpolation, barrier
from platforms.platform import get_platform
from platforms.system import files
from pruning.mask import Mask
from training.evaluation import evaluate
from training.plotting import attempt

State = Mapping[str, torch.Tensor]


class Branch(base.Branch):
    """Measure the error barrier between two copies of the model that are trained on different data orders.

    Without a barrier, the network is stable to SGD noise: both copies are in the same basin of the loss.
    """

    def branch_function(self, seed: int | None = None, points: int = 11) -> None:
        """Trains two copies of the ticket and evaluates the networks on the line between them.

        With E(a) the error of the network `(1 - a) W1 + a W2`, the barrier is `max E(a) - (E(0) + E(1)) / 2`. Buffers, such as the running
        statistics of BatchNorm, are interpolated like weights.

        Args:
            seed: the seed of the two data orders (if left out, it is derived from --global_seed).
            points: the number of networks on the line that are evaluated, including both ends.
        """
        copies = []
        for number in (1, 2):
            loaders = self.loaders()
            loaders[0].seed, loaders[0].order_seed = self.derived_seed(seed, number), None
            location = os.path.join(self.branch_root, f"copy_{number}")
            copies.append(self.train(self.ticket(), self.mask, loaders, location=location))
        first, second = ({name: value.clone() for name, value in copy.state_dict().items()} for copy in copies)
        alphas = [index / (points - 1) for index in range(points)]
        errors: dict[str, list[float]] = {"train": [], "test": []}
        for alpha in alphas:
            copies[0].load_state_dict(interpolate(first, second, alpha))
            for values, loader in zip(errors.values(), self.trunk.loaders, strict=True):
                values.append(error(evaluate(copies[0], loader)))
        result = {"unpruned": self.mask.unpruned, "total": self.mask.total, "alpha": alphas, **errors}
        get_platform().write(paths.barrier(self.branch_root), json_text.dumps(result, indent=2) + "\n")

    @staticmethod
    def validate(arguments: BranchArguments) -> None:
        arguments.require("points", 2 <= arguments.points <= limits.POINTS, f"2 to {limits.POINTS:,}, because each point is evaluated")

    @staticmethod
    def is_complete(location: str) -> bool:
        return get_platform().exists(paths.barrier(location))

    def report(self) -> None:
        interpolations = {level: read(self.location(level)) for level in self.levels}
        path = self.desc.report_path(get_platform().root, self.job.global_seed)
        drawn = attempt(path, lambda: plotting.barriers(interpolations, path))
        if not self.job.quiet:
            print("\n".join([table(interpolations), *([f"Picture: {path}"] if drawn else [])]))


def read(location: str) -> Interpolation:
    """The result of the branch at a level.

    Raises:
        ConfigError: the file is missing or damaged.
    """
    path, remedy = paths.barrier(location), "delete it and run the same command again"
    content = files.read_json(path, remedy)
    unpruned, total = Mask.counts(os.path.join(location, "copy_1"))
    if not isinstance(content, dict):
        raise files.damaged(path, "it has no lists of errors", remedy)
    try:
        alpha, train, test = ([json_text.number(value) for value in content[name]] for name in ("alpha", "train", "test"))
    except (KeyError, TypeError, OverflowError) as error:
        raise files.damaged(path, f"its lists of errors are not valid: {reason(error)}", remedy) from None
    if not len(alpha) == len(train) == len(test) or len(alpha) < 2:
        raise files.damaged(path, "its lists of errors are not complete", remedy)
    return Interpolation(alpha, train, test, unpruned, total)


def interpolate(first: State, second: State, alpha: float) -> dict[str, torch.Tensor]:
    """The state `(1 - alpha) first + alpha second`; integers, such as numbers of batches, are those of the first state."""
    return {name: torch.lerp(value, second[name], alpha) if value.is_floating_point() else value for name, value in first.items()}


def error(results: Mapping[str, float | list[float]]) -> float:
    """The share of misclassified examples, or the loss if there are no classes."""
    value = results.get("accuracy", results["loss"])
    assert isinstance(value, float)
    return 1 - value if "accuracy" in results else value


def table(interpolations: Mapping[int, Interpolation]) -> str:
    """A table with a line for each level: the errors on the test set, and the barriers."""
    rows = [["level", "weights left", "", "errors of copies   ", "largest on line", "barrier", "on training set"]]
    for level, interpolation in interpolations.items():
        test = interpolation.test
        weights = f"{interpolation.unpruned:,}", f"{interpolation.density:.2%}"
        barriers = f"{barrier(test):.4f}", f"{barrier(interpolation.train):.4f}"
        rows.append([str(level), *weights, f"{test[0]:.4f}{test[-1]:>8.4f}", f"{max(test):.4f}", *barriers])
    return "\n".join(tables.aligned(rows, ">", (5, 15, 9, 19, 15, 10, 18), gap=""))

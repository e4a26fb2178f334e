"""Whether tickets are stable to the noise of SGD, as in *Linear Mode Connectivity and the Lottery Ticket Hypothesis* (Frankle, Dziugaite,
Roy & Carbin 2020, arXiv:1912.05671)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

import torch

from foundations import paths, tables
from foundations.errors import reason
from foundations.hparams import Hparams
from lottery import plotting
from lottery.branch import base
from platforms.platform import get_platform
from platforms.system import files
from pruning.mask import Mask
from training.evaluation import evaluate

State = Mapping[str, torch.Tensor]


class Branch(base.Branch):
    """Measure the error barrier between two copies of the model that are trained on different data orders.

    Where there is none, the network is stable to the noise of SGD: the copies end in one basin.
    """

    def branch_function(self, seed: int | None = None, points: int = 11) -> None:
        """Trains two copies from the level's start and evaluates the networks between them.

        With E(a) the error of the network `(1 - a) W1 + a W2`, the barrier is `max E(a) - (E(0) + E(1)) / 2`. Buffers, such as the running
        statistics of BatchNorm, are interpolated like weights.

        Args:
            seed: the seed of the two data orders (when left out, it follows from --global_seed).
            points: how many networks of the line are evaluated, its ends among them.
        """
        copies = []
        for number in (1, 2):
            loaders = self.loaders()
            loaders[0].seed = self.derived(seed, number)
            location = os.path.join(self.branch_root, f"copy_{number}")
            copies.append(self.train(self.ticket(), self.mask, loaders, location=location))
        ends = [{name: value.clone() for name, value in copy.state_dict().items()} for copy in copies]
        alphas = [place / (points - 1) for place in range(points)]
        errors = {"train": [], "test": []}
        for alpha in alphas:
            copies[0].load_state_dict(between(*ends, alpha))
            for found, loader in zip(errors.values(), self.trunk.loaders, strict=True):
                found.append(error(evaluate(copies[0], loader)))
        result = {"unpruned": self.mask.unpruned, "total": self.mask.total, "alpha": alphas, **errors}
        get_platform().write(paths.barrier(self.branch_root), json.dumps(result, indent=2) + "\n")

    @staticmethod
    def validate(arguments: Hparams) -> None:
        arguments.require("points", arguments.points >= 2, "2 or more")

    @staticmethod
    def is_complete(location: str) -> bool:
        return get_platform().exists(paths.barrier(location))

    def report(self) -> None:
        found = {level: read(self.location(level)) for level in self.levels}
        path = self.desc.report_path(get_platform().root, self.job.global_seed)
        plotting.barriers(found, barrier, path)
        if not self.job.quiet:
            print(table(found))
            print(f"Picture: {path}")


def read(location: str) -> dict:
    """What a branch has found at a level: `alpha`, the errors there on the sets `train` and `test`, and the numbers of weights.

    Raises:
        ConfigError: the file is missing or damaged.
    """
    path, remedy = paths.barrier(location), "delete it and run the same command again"
    content = files.read_json(path, remedy)
    counts = dict(zip(("unpruned", "total"), Mask.counts(os.path.join(location, "copy_1")), strict=True))
    try:
        lines = {name: [float(value) for value in content[name]] for name in ("alpha", "train", "test")}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise files.damaged(path, f"not whole lines of errors: {reason(error)}", remedy) from None
    if len({*map(len, lines.values())}) != 1 or len(lines["alpha"]) < 2:
        raise files.damaged(path, "not whole lines of errors", remedy)
    return lines | counts


def between(first: State, second: State, alpha: float) -> dict[str, torch.Tensor]:
    """The state at a share `alpha` of the way; whole numbers, such as counts of batches, are those of the first."""
    return {name: torch.lerp(value, second[name], alpha) if value.is_floating_point() else value for name, value in first.items()}


def error(results: Mapping[str, float]) -> float:
    """The share of examples that are misclassified, or the loss where there are no classes."""
    return 1 - results["accuracy"] if "accuracy" in results else results["loss"]


def barrier(errors: list[float]) -> float:
    """How much higher the error is at its highest along the line than at the ends on average."""
    return max(errors) - (errors[0] + errors[-1]) / 2


def table(found: Mapping[int, dict]) -> str:
    """A line for each level: the errors on the test set, and the barriers."""
    rows = [["level", "weights left", "", "error of either    ", "along the line", "barrier", "on training set"]]
    for level, each in found.items():
        test = each["test"]
        weights = f"{each['unpruned']:,}", f"{each['unpruned'] / each['total']:.2%}"
        barriers = f"{barrier(test):.4f}", f"{barrier(each['train']):.4f}"
        rows.append([str(level), *weights, f"{test[0]:.4f}{test[-1]:>8.4f}", f"{max(test):.4f}", *barriers])
    return "\n".join(tables.aligned(rows, ">", (5, 15, 9, 19, 15, 10, 18), gap=""))

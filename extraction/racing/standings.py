"""The losses of students in a race, and what they are compared with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from extraction.runner import ExtractionRunner
from foundations import json_text, paths
from foundations.errors import ConfigError
from platforms.platform import get_platform
from platforms.system import locks
from training import run_records

if TYPE_CHECKING:
    import torch

    from datasets.base import DataLoader

EXACT = 1e-16  # the relative loss of students that give exact answers
PRECISION = 3.0  # students whose errors are this many times those of the answers give them as exactly as they are known


@dataclass(frozen=True)
class Scale:
    """What the losses of a race are compared with.

    Attributes:
        inside: the variance of the held-out answers as students see them.
        own: their variance as the user has them.
        exact: the relative loss of students that give the answers as exactly as these are known.
        numbers: in the answers for training.
        queries: for training, as the user has them, `[Q, inputs]`.
    """

    inside: float
    own: float
    exact: float
    numbers: int
    queries: torch.Tensor

    @classmethod
    def of(cls, extraction: ExtractionRunner) -> Scale:
        """The scale of the queries and answers of an extraction, which is recorded as started.

        Raises:
            ConfigError: the answers are an affine map of the queries.
        """
        with locks.held(extraction.students_location):
            session, _ = extraction.start()
        exact = max(EXACT, (PRECISION * max(session.known.shares)) ** 2)
        if affine_loss(session.loaders.train) <= exact:
            raise ConfigError("--teacher_name: the answers are an affine map of the queries; no hidden layer shows in them")
        variance, own_variance = (float(one.loaders.test.labels.var(0).mean()) or 1.0 for one in (session, session.unscaled))
        return cls(variance, own_variance, exact, session.answers.numel(), session.unscaled.queries)


def affine_loss(loader: DataLoader) -> float:
    """The error of the best affine map of the queries, as a share of the variance of the answers."""
    from extraction.network import fit_outputs, with_ones

    errors = with_ones(loader.examples) @ fit_outputs(loader.examples, loader.labels) - loader.labels
    return float(errors.square().mean() / loader.labels.var(0).mean())


def is_trained(extraction: ExtractionRunner) -> bool:
    """Whether the students of an extraction are trained, and polished where that is asked for."""
    return run_records.is_finished(extraction.students_location) and get_platform().exists(paths.logger(_last_folder(extraction)))


def _last_folder(extraction: ExtractionRunner) -> str:
    """The folder of the last training of the students: that of the polishing where they are polished."""
    location = extraction.students_location
    if extraction.desc.training_hparams.polish_optimizer is None:
        return location
    weights = paths.latest_model(get_platform().listdir(location))
    assert weights is not None  # the training is finished
    return paths.polish(location, weights.removesuffix(".pth"))


def mark_dropped(dropped: Sequence[tuple[ExtractionRunner, str]]) -> None:
    """Marks students from which no network was recovered, so that they are listed as dropped rather than interrupted.

    Args:
        dropped: the extractions, each with its hypothesis in words.
    """
    platform = get_platform()

    def mark() -> None:
        for extraction, hypothesis in dropped:
            location = extraction.students_location
            if platform.exists(location) and not any(name.startswith("clustering_") for name in platform.listdir(location)):
                platform.write(paths.dropped(location), json_text.dumps({"hypothesis": hypothesis}) + "\n")

    platform.on_primary(mark)


def best_losses(extraction: ExtractionRunner) -> tuple[float, float]:
    """The losses of the best two students on the held-out answers, before or after polishing; infinite where students have diverged.

    Students of relu and leaky_relu may lose on held-out answers by polishing, which sees a part of the queries only.
    """
    from training.metric_logger import MetricLogger

    pairs = []
    for folder in (extraction.students_location, _last_folder(extraction)):
        losses = MetricLogger.load(folder).vectors("test_individual_losses")[-1][1]
        first, second, *_ = [*sorted(filter(math.isfinite, losses)), math.inf, math.inf]
        pairs.append((first, second))
    return min(pairs)

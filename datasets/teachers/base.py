"""The contract of all teachers: who answers the queries, and what is known of it beside its answers."""

from __future__ import annotations

import abc
from dataclasses import dataclass

import torch

from datasets.teachers.links import Errors
from foundations.dataset_hparams import DatasetHparams
from foundations.model_hparams import ModelHparams
from models.base import Model


@dataclass(frozen=True)
class Examples:
    """Queries `[n, inputs]` and answers `[n, outputs]`.

    Attributes:
        queries: `[n, inputs]`.
        answers: `[n, outputs]`.
        rows: the numbers of the pairs, counted from 0 over training and test, `[n]`; None for a network of a run folder.
        errors: of logits that were converted from probabilities with few digits.
    """

    queries: torch.Tensor
    answers: torch.Tensor
    rows: torch.Tensor | None = None
    errors: Errors | None = None


@dataclass(frozen=True)
class Teacher(abc.ABC):
    """Who answers queries. `name` is its resolved name: the kind of the teacher, an underscore, and a digest.

    Attributes:
        name: the resolved name.
        inputs: the number of values of a query.
        outputs: the number of values of an answer.
        model_hparams: of a network whose weights are known; None for all others.
        dataset_name: the dataset that it was trained on; None if unknown.
        columns: the names of the inputs and of the outputs; empty where they have none.
        other_link: the link that its answers may have, though they are taken as raw (`links.alternative`); None if they have no other.
        noise: the standard deviation of the errors of each output that questions which were asked twice have shown; empty if none have.
    """

    name: str
    inputs: int
    outputs: int
    model_hparams: ModelHparams | None = None
    dataset_name: str | None = None
    columns: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    other_link: str | None = None
    noise: tuple[float, ...] = ()

    @classmethod
    @abc.abstractmethod
    def recognises(cls, text: str) -> bool:
        """Whether the text of `--teacher_name` names a teacher of this kind. The teacher need not exist."""

    @classmethod
    @abc.abstractmethod
    def of(cls, dataset_hparams: DatasetHparams) -> Teacher:
        """The teacher with the resolved name in the hyperparameters of a dataset.

        Raises:
            ConfigError: it is missing or damaged.
        """

    @property
    @abc.abstractmethod
    def digest(self) -> str | None:
        """The digest of what determines the answers; None if that does not exist yet."""

    @property
    def largest(self) -> float:
        """The largest magnitude of the numbers that are known before the first query; 0 if there are none."""
        return 0.0

    def load(self) -> Model | None:
        """The network in float64, where its weights are known."""
        return None

    @property
    def is_askable(self) -> bool:
        """Whether it answers further queries."""
        return True

    @abc.abstractmethod
    def ask(self, queries: torch.Tensor) -> torch.Tensor:
        """The answers `[n, outputs]` to queries `[n, inputs]`, in float64.

        Raises:
            ConfigError: it gives no answers, or none that are finite.
        """

    def ask_for(self, phase: str, queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The queries that were asked, at most these, and the answers to them, both in float64.

        Args:
            phase: what the answers are for, such as 'certificate'; questions to a black box are counted by phase.
            queries: `[n, inputs]`.
        """
        return queries.double(), self.ask(queries)

    @abc.abstractmethod
    def pairs(self, dataset_hparams: DatasetHparams, train: bool, seed: int) -> Examples:
        """The queries and answers of a dataset.

        Args:
            dataset_hparams: the hyperparameters of the dataset in canonical form.
            train: True for the training set, False for the test set.
            seed: the seed of the run.

        Raises:
            ConfigError: there are no answers.
        """

    @abc.abstractmethod
    def training_pairs(self, datagen_text: str | None) -> int:
        """The number of training examples; `datagen_text` are the queries in canonical form, None for a file of answers."""

"""Known networks, queries, and sessions for the tests of extraction."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from unittest import mock

import torch

from datasets.base import DataLoader, Loaders
from datasets.teacher_dataset import Dataset
from datasets.teachers.base import Teacher
from extraction.desc import ExtractionDesc
from extraction.reporting import export
from extraction.session import Session
from foundations.model_hparams import ModelHparams
from models import registry
from models.mlp import Perceptron
from training import plotting


@dataclasses.dataclass(frozen=True)
class AskedTeacher(Teacher):
    """A teacher for tests, which is in no table and has no pairs; a subclass answers."""

    @classmethod
    def recognises(cls, text):
        return False

    @classmethod
    def of(cls, dataset_hparams):
        raise NotImplementedError

    @property
    def digest(self):
        return ""

    def pairs(self, dataset_hparams, train, seed):
        raise NotImplementedError

    def training_pairs(self, datagen_text):
        raise NotImplementedError


def network(name: str, act_fun: str = "tanh", seed: int = 0) -> Perceptron:
    """A plain network or a stack with random weights, in float64."""
    return registry.get(ModelHparams(name, "kaiming_normal", "uniform", act_fun), seed=seed).double()


def queries(count: int = 200, inputs: int = 4) -> torch.Tensor:
    """Gaussian queries, the same at every call."""
    return torch.randn(count, inputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def session_of(students: str, loaders: Loaders, location: str, act_fun: str = "tanh") -> Session:
    """A session that prints nothing, for students of a name, in a folder."""
    desc = ExtractionDesc.default_for(students)
    desc.model_hparams.act_fun = act_fun
    return Session(desc, loaders, location, verbose=False)


def answered(teacher: Perceptron, x: torch.Tensor, batch_size: int, seed: int = 1) -> Loaders:
    """Loaders of the queries with a teacher's answers, for training and for test."""
    loader = DataLoader(Dataset(x, teacher(x).detach()), batch_size, seed=seed, dtype=torch.float64)
    return Loaders(loader, loader)


@contextlib.contextmanager
def without_pictures() -> Iterator[None]:
    """A context, or a decorator, in which runs draw no pictures, write no page and export no program: most of the time of short runs."""
    with mock.patch.object(plotting, "_attempt", return_value=True), mock.patch.object(export, "program", return_value=b""):
        yield

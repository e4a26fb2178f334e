"""The table of the kinds of teachers. To add a kind, add a row: the first part of its resolved names, and its class."""

from __future__ import annotations

from datasets.teachers.base import Teacher
from datasets.teachers.onnx_network import OnnxNetwork
from datasets.teachers.python_function import PythonFunction
from datasets.teachers.run_folders import TrainedNetwork
from datasets.teachers.stored_answers import AnswerFile
from datasets.teachers.torch_programs import ExportedProgram, TorchScript
from foundations.dataset_hparams import DatasetHparams

registered_teachers: dict[str, type[Teacher]] = {
    "function": PythonFunction,
    "onnx": OnnxNetwork,
    "torchscript": TorchScript,
    "exported": ExportedProgram,
    "answers": AnswerFile,
    "train": TrainedNetwork,
}


def recognised(text: str) -> type[Teacher]:
    """The kind of teacher that the text of `--teacher_name` names: the first that recognises it."""
    return next(kind for kind in registered_teachers.values() if kind.recognises(text))


def name_of(kind: type[Teacher]) -> str:
    """The first part of the resolved names of a kind."""
    return next(name for name, row in registered_teachers.items() if row is kind)


def read(dataset_hparams: DatasetHparams) -> Teacher:
    """The teacher with the resolved name in the hyperparameters of a dataset; a ConfigError if it is missing or damaged."""
    assert dataset_hparams.teacher_name is not None  # required for this dataset
    return kind_of(dataset_hparams.teacher_name).of(dataset_hparams)


def kind_of(name: str) -> type[Teacher]:
    """The kind of a teacher with a resolved name."""
    return registered_teachers.get(name.partition("_")[0], TrainedNetwork)

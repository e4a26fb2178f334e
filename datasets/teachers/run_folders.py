"""Teachers that are networks in run folders: what `train` has trained, and run folders of OpenLTH and of the published Expand-and-Cluster.

The answers are computed in float64.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import operator
import os
import re
from dataclasses import dataclass

import torch

from datasets.datagen import registry as datagen
from datasets.image_registry import image_shape, registered_images, streamed_images
from datasets.teachers.base import Examples, Teacher
from foundations import ancestors, paths
from foundations.dataset_hparams import DatasetHparams
from foundations.desc import parse_display_text
from foundations.errors import ConfigError, did_you_mean, reason
from foundations.model_hparams import ModelHparams
from foundations.seeds import NOT_CHOSEN
from models import registry as models
from models.base import Model
from platforms.platform import get_platform
from platforms.system import files

CHUNK = 4096  # the number of queries in a forward pass of a fully connected teacher
CHUNK_PIXELS = 2**18  # the number of pixels in a forward pass of a convolutional teacher
SEED_FOLDER = re.compile(r"(seed|replicate)_(-?\d+)")  # the folder of a seed of a run; OpenLTH names it replicate
HASH = re.compile(r"train_[0-9a-f]+")
TORCH_FILE = (b"PK", b"\x80\x02")  # the first bytes of files in the formats of torch


@dataclass(frozen=True)
class TrainedNetwork(Teacher):
    """A network in a run folder; `location` is the folder of its seed."""

    location: str = ""

    @classmethod
    def recognises(cls, text: str) -> bool:
        """Always true: what names no other teacher is a hash."""
        return True

    @classmethod
    def of(cls, dataset_hparams: DatasetHparams) -> TrainedNetwork:
        return read(str(dataset_hparams.teacher_name), dataset_hparams.teacher_seed, dataset_hparams.teacher_folder)

    @property
    def hparams(self) -> ModelHparams:
        """The hyperparameters of the network."""
        assert self.model_hparams is not None  # every run folder has them
        return self.model_hparams

    @property
    def example_shape(self) -> tuple[int, ...]:
        """The shape of an example in training: an image, or a row of values if the dataset has no images of this size."""
        shape = image_shape(self.dataset_name)
        return shape if shape and math.prod(shape) == self.inputs else (self.inputs,)

    def load(self) -> Model:
        """The trained network, in float64 on the device of the platform.

        Raises:
            ConfigError: the training has not finished or has diverged, or the file of weights is damaged.
        """
        return self._network().double().to(get_platform().torch_device).eval()

    def _network(self) -> Model:
        """The trained network on the CPU, in the number format of its file; errors as in `load`."""
        if not get_platform().exists(paths.logger(self.location)):
            program = ancestors.program_of(self.location)
            remedy = f"`EC.py runs import {os.path.dirname(self.location)}` prints the command that finishes it"
            raise ConfigError(
                f"--teacher_name: the run in {self.location} has not finished; {remedy if program else 'run its train command again'}"
            )
        path = models.latest_weights_file(self.location)
        model = models.load(path, self.hparams, self.outputs)
        if not all(value.isfinite().all() for value in model.state_dict().values()):
            raise ConfigError(f"--teacher_name: {path} contains weights that are not finite; the training has diverged")
        return model

    @property
    def digest(self) -> str | None:
        """The digest of the weights, which does not depend on the format of their file; None if the training has not finished.

        Raises:
            ConfigError: the training has diverged, or the file of weights is damaged.
        """
        if not get_platform().exists(paths.logger(self.location)):
            return None
        path = models.latest_weights_file(self.location)
        status = os.stat(path)
        version = path, status.st_ino, status.st_mtime_ns, status.st_size
        if version not in _digests:
            _digests[version] = digest_of(self._network())
        return _digests[version]

    @torch.no_grad()
    def ask(self, queries: torch.Tensor) -> torch.Tensor:
        model = self.load()
        examples = queries.to(get_platform().torch_device).view(-1, *self.example_shape)
        chunk = CHUNK if model.channels is None else max(1, CHUNK_PIXELS // math.prod(examples.shape[2:]))
        answers = torch.cat([model(batch.double()) for batch in examples.split(chunk)])
        if not answers.isfinite().all():
            raise ConfigError(f"--teacher_name: the answers of the network in {self.location} are not finite; use another teacher")
        return answers

    def pairs(self, dataset_hparams: DatasetHparams, train: bool, seed: int) -> Examples:
        assert dataset_hparams.datagen is not None  # networks need queries
        queries = datagen.generate(dataset_hparams.datagen, train, self.inputs, seed, self.dataset_name)
        return Examples(queries, self.ask(queries))

    def training_pairs(self, datagen_text: str | None) -> int:
        assert datagen_text is not None  # networks need queries
        return datagen.training_queries(datagen_text)


_digests: dict[tuple[str, int, int, int], str] = {}  # by the path, the inode, the time and the size of the file of weights


def digest_of(model: Model) -> str:
    """The MD5 of the names, shapes and float64 values of the weights of a model on the CPU."""
    digest = hashlib.md5()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}{list(value.shape)}".encode())
        digest.update(value.double().contiguous().numpy().tobytes())
    return digest.hexdigest()


def location_of(name: str, seed: int, folder: str | None = None) -> str:
    """The run folder of a teacher. `folder` is the folder of its seed; by default the first that exists."""
    root = os.path.join(get_platform().root, name)
    folder = folder or next(iter(seed_folders(name, seed)), f"seed_{seed}")
    return os.path.join(root, folder, "main")


def located(teacher: Teacher, hparams: DatasetHparams) -> Teacher:
    """The teacher in the folder of its seed that the hyperparameters name."""
    if not isinstance(teacher, TrainedNetwork):
        return teacher
    return dataclasses.replace(teacher, location=location_of(teacher.name, hparams.teacher_seed, hparams.teacher_folder))


def seed_folders(name: str, seed: int) -> list[str]:
    """The existing folders of a seed of a run: `seed_1`, and `replicate_1` if OpenLTH has made the run."""
    return [folder for folder in (f"seed_{seed}", f"replicate_{seed}") if is_run(os.path.join(get_platform().root, name, folder, "main"))]


def is_run(location: str) -> bool:
    """Whether a folder has the record of a run."""
    return any(get_platform().exists(record(location)) for record in (paths.hparams_dict, paths.hparams_log))


def resolve(name: str) -> str:
    """The full name of the run whose hash is `name` or begins with it; a ConfigError if there is no such run, or if there are several."""
    root = get_platform().root
    prefix = f"train_{name.removeprefix('train_')}"
    runs = [run for run in get_platform().listdir(root) if run.startswith(prefix)]
    named = [run for run in runs if run == prefix] or [run for run in runs if HASH.fullmatch(run)]
    runs = named or runs  # a copy such as train_<md5>_old makes no hash ambiguous
    if len(runs) != 1 or prefix == "train_":
        matches = f"{len(runs)} runs under {root} begin with it: {', '.join(runs)}" if runs else f"no train run under {root} begins with it"
        hint = did_you_mean(name, [model for pair in models.default_members().items() for model in pair])
        valid = "a hash, the name of a model or a file of answers"
        raise ConfigError(f"--teacher_name: {name!r} is not a teacher ({matches}){hint}; valid: {valid}")
    return runs[0]


def find(name: str, seed: int, folder: str | None = None) -> TrainedNetwork:
    """The teacher whose hash is `name` or begins with it. `folder` is the folder of its seed; by default the first that exists.

    Raises:
        ConfigError: no run or several runs begin with the prefix, or the run has no such seed or folder.
    """
    run = resolve(name)
    matches = [match for match in map(SEED_FOLDER.fullmatch, get_platform().listdir(os.path.join(get_platform().root, run))) if match]
    if folder is not None:
        valid = [match[0] for match in matches if seed in (NOT_CHOSEN, int(match[2]))]
        if folder not in valid:
            raise ConfigError(f"--teacher_folder: seed {seed} of {run} has no folder {folder}; valid: {', '.join(valid) or 'none'}")
    elif not is_run(location_of(run, seed)):
        seeds = dict.fromkeys(match[2] for match in matches)
        raise ConfigError(f"--teacher_seed: {run} has no seed {seed}; valid: {', '.join(seeds) or 'none'}")
    return read(run, seed, folder)


def read(name: str, seed: int, folder: str | None = None) -> TrainedNetwork:
    """The teacher with a resolved name, from its run folder."""
    location = location_of(name, seed, folder)
    return _read_record(name, location) if _has_record(location) else _read_log(name, location)


def _has_record(location: str) -> bool:
    """Whether a run folder has JSON hyperparameters. OpenLTH writes none; Expand-and-Cluster writes them in the format of torch."""
    path = paths.hparams_dict(location)
    if not get_platform().exists(path):
        return False
    with get_platform().open(path, "rb") as file:
        return file.read(2) not in TORCH_FILE


def _read_record(name: str, location: str) -> TrainedNetwork:
    """The teacher in a run folder of this framework, from its JSON hyperparameters; a ConfigError if they are damaged."""
    path, remedy = paths.hparams_dict(location), "delete the folder and run the teacher's train command again"
    hparams = files.read_json(path, remedy)
    try:
        if not isinstance(hparams, dict):
            raise TypeError("it is not a JSON object")
        model_hparams = ModelHparams.from_dict(hparams["model_hparams"])
        inputs, outputs = (operator.index(size) for size in hparams["shape"])
        dataset_name = hparams["dataset_hparams"]["dataset_name"]
        models.check_fits(model_hparams, inputs, outputs, image_shape(dataset_name))
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise files.damaged(path, reason(error), remedy) from None
    return TrainedNetwork(name, inputs, outputs, model_hparams, dataset_name, location=location)


def _read_log(name: str, location: str) -> TrainedNetwork:
    """The teacher in a run folder of OpenLTH or Expand-and-Cluster, from `hparams.log` and the file of weights.

    Raises:
        ConfigError: one of the two files is missing or damaged, or the model does not exist.
    """
    path, valid = paths.hparams_log(location), "valid: a run folder that train has written"
    try:
        groups = parse_display_text(files.read_text(path, valid, files.LONGEST_JSON))
        model_hparams = ModelHparams.from_text(groups[ModelHparams._name])
        dataset_name = groups[DatasetHparams._name]["dataset_name"]
    except (ConfigError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{path} does not contain the names of the model and the dataset; {valid}") from None
    models.resolve(model_hparams.model_name, f"--teacher_name: {path}")
    model = models.meta_model(model_hparams)
    outputs = models.stored_outputs(models.latest_weights_file(location), model)
    shape = image_shape(dataset_name)
    inputs = model.input_size
    if inputs is None:
        if shape is None:
            valid = ", ".join(registered_images | streamed_images)
            raise ConfigError(f"--teacher_name: {path}: the size of the images of {dataset_name} is unknown; valid: {valid}")
        inputs = math.prod(shape)
    return TrainedNetwork(name, inputs, outputs, model_hparams, dataset_name, location=location)

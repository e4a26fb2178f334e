"""A dataset of questions and a teacher's answers.

The teacher is a network that `train` has trained, or a file of answers. A network is asked the queries of `--datagen` and answers in
float64; a file's pairs are what there is, and every tenth of them is kept for test. `dataset_hparams.teacher_name` is a resolved name here:
`train_<md5>` or `answers_<md5 of the file>`. Run folders of OpenLTH and of the published Expand-and-Cluster code serve as ours do.
"""

from __future__ import annotations

import hashlib
import io
import math
import operator
import os
import zipfile
from dataclasses import dataclass

import numpy as np
import torch

from datasets import base
from datasets.datagen import registry as datagen
from datasets.image_registry import image_shape, registered_images, streamed_images
from foundations import paths
from foundations.dataset_hparams import DatasetHparams
from foundations.desc import parse_shown
from foundations.errors import ConfigError, did_you_mean, reason
from foundations.model_hparams import ModelHparams
from models import registry as models
from platforms.platform import get_platform
from platforms.system import files

HELD_OUT = 10  # one pair in ten is for test
CHUNK = 4096  # queries that a fully connected teacher is asked at a time
CHUNK_PIXELS = 2**18  # of the images that a convolutional one is asked at a time
SEED_FOLDERS = ("seed", "replicate")  # what the folders of a run's seeds begin with; the second is OpenLTH's
TORCH_FILE = (b"PK", b"\x80\x02")  # what torch's files begin with, and our records do not


@dataclass(frozen=True)
class Teacher:
    """Who answers: a trained network, or a file of answers (then nothing is known of the network, nor of its dataset)."""

    name: str
    inputs: int
    outputs: int
    model_hparams: ModelHparams | None = None
    location: str | None = None
    dataset_name: str | None = None
    pairs: int | None = None

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Of an example as the network saw it in training: an image, or a row of values where its dataset says nothing else."""
        shape = image_shape(self.dataset_name)
        return shape if shape and math.prod(shape) == self.inputs else (self.inputs,)

    def load(self) -> torch.nn.Module:
        """The trained network, in float64 on the platform's device.

        Raises:
            ConfigError: its training has not finished, or its file is damaged.
        """
        if not get_platform().exists(paths.logger(self.location)):
            raise ConfigError(f"--teacher_name: the run in {self.location} has not finished; run its train command again")
        path = models.latest_weights_file(self.location)
        model = models.load(path, self.model_hparams, self.outputs)
        if not all(value.isfinite().all() for value in model.state_dict().values()):
            raise ConfigError(f"--teacher_name: {path} holds weights that are not finite numbers; its training has diverged")
        return model.double().to(get_platform().torch_device).eval()


def location_of(name: str, seed: int) -> str:
    """The run folder of a teacher."""
    folders = [os.path.join(get_platform().root, name, f"{kind}_{seed}", "main") for kind in SEED_FOLDERS]
    return next((folder for folder in folders if get_platform().exists(folder)), folders[0])


def find(name: str, seed: int) -> Teacher:
    """The teacher that a hash, or a unique prefix of one, stands for.

    Raises:
        ConfigError: no run or several begin like this, or the run lacks this seed.
    """
    root = get_platform().root
    prefix = f"train_{name.removeprefix('train_')}"
    runs = [run for run in get_platform().listdir(root) if run.startswith(prefix)]
    if len(runs) != 1 or prefix == "train_":
        found = f"{len(runs)} runs under {root} begin with it: {', '.join(runs)}" if runs else f"no train run under {root} begins with it"
        hint = did_you_mean(name, [model for pair in models.default_members().items() for model in pair])
        raise ConfigError(f"--teacher_name: {name!r} names no teacher ({found}){hint}; valid: a hash, a model's name or a .npz file")
    location = location_of(runs[0], seed)
    if not any(get_platform().exists(record(location)) for record in (paths.hparams_dict, paths.hparams_log)):
        folders = (folder.partition("_") for folder in get_platform().listdir(os.path.join(root, runs[0])))
        seeds = [seed for kind, _, seed in folders if kind in SEED_FOLDERS]
        raise ConfigError(f"--teacher_seed: {runs[0]} has no seed {seed}; valid: {', '.join(seeds) or 'none'}")
    return read(runs[0], seed)


def read(name: str, seed: int) -> Teacher:
    """The teacher of a resolved name: what its run folder, or the kept file of answers, says of it."""
    if name.startswith("answers_"):
        queries, answers = _kept_answers(name)
        return Teacher(name, queries.shape[1], answers.shape[1], pairs=len(queries))
    location = location_of(name, seed)
    return _read_record(name, location) if _has_record(location) else _read_log(name, location)


def _has_record(location: str) -> bool:
    """Whether a run folder has a record in our form. OpenLTH writes none, and Expand-and-Cluster a file of torch's that holds objects."""
    path = paths.hparams_dict(location)
    if not get_platform().exists(path):
        return False
    with get_platform().open(path, "rb") as file:
        return file.read(2) not in TORCH_FILE


def _read_record(name: str, location: str) -> Teacher:
    path, remedy = paths.hparams_dict(location), "delete the folder and run the teacher's train command again"
    hparams = files.read_json(path, remedy)
    try:
        model_hparams = ModelHparams.from_dict(hparams["model_hparams"])
        inputs, outputs = (operator.index(size) for size in hparams["shape"])
        dataset_name = hparams["dataset_hparams"]["dataset_name"]
        models.check_fits(model_hparams, inputs, outputs, image_shape(dataset_name))
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise files.damaged(path, reason(error), remedy) from None
    return Teacher(name, inputs, outputs, model_hparams, location, dataset_name)


def _read_log(name: str, location: str) -> Teacher:
    """The teacher of a run folder that OpenLTH or Expand-and-Cluster wrote, from what `hparams.log` shows and from its weights.

    Raises:
        ConfigError: the folder lacks one of them, or they are of a model that there is not.
    """
    path, valid = paths.hparams_log(location), "valid: a run folder as train leaves it"
    try:
        groups = parse_shown(files.read_text(path, valid, files.LONGEST_JSON))
        model_hparams = ModelHparams.from_text(groups[ModelHparams._name])
        dataset_name = groups[DatasetHparams._name]["dataset_name"]
    except (ConfigError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{path} does not say which model was trained on what; {valid}") from None
    models.resolve(model_hparams.model_name, f"--teacher_name: {path}")
    model = models.meta_model(model_hparams)
    outputs = models.stored_outputs(models.latest_weights_file(location), model)
    shape = image_shape(dataset_name)
    if model.input_size is None and shape is None:
        valid = ", ".join(registered_images | streamed_images)
        raise ConfigError(f"--teacher_name: {path} has images of unknown size, of {dataset_name}; valid: {valid}")
    inputs = model.input_size or math.prod(shape)
    return Teacher(name, inputs, outputs, model_hparams, location, dataset_name)


def answers_path(teacher_name: str) -> str:
    """Where the pairs of a file are kept, so that a run can resume without the file that it was started with."""
    return os.path.join(get_platform().root, f"{teacher_name}.npz")


def inspect_answers(path: str) -> tuple[Teacher, bytes]:
    """The teacher that a `.npz` file is, named by the digest of its content, and that content.

    Raises:
        ConfigError: the file is missing or damaged, or holds no `X` `[n, inputs]` and `y` `[n, outputs]` of finite numbers.
    """
    content, queries, answers = read_answers(path)
    return Teacher(_name_of(content), queries.shape[1], answers.shape[1], pairs=len(queries)), content


def _name_of(content: bytes) -> str:
    return f"answers_{hashlib.md5(content).hexdigest()}"


def _kept_answers(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The queries and answers of a resolved name; a ConfigError where they are not those that were kept."""
    content, queries, answers = read_answers(answers_path(name))
    if _name_of(content) != name:
        raise files.damaged(answers_path(name), "its content is not what it is named by", "give the original file again")
    return queries, answers


def read_answers(path: str) -> tuple[bytes, torch.Tensor, torch.Tensor]:
    """A file's bytes, its queries `[n, inputs]` and its answers `[n, outputs]`, both float64."""
    try:
        with get_platform().open(path, "rb") as file:
            if file.seek(0, os.SEEK_END) > _memory():
                raise ValueError("it does not fit into memory")
            file.seek(0)
            content = file.read()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            queries, answers = (_matrix(archive, name) for name in ("X", "y"))
    except FileNotFoundError:
        raise ConfigError(f"--teacher_name: {path} does not exist") from None
    except KeyError as error:
        raise ConfigError(f"--teacher_name: {path} must hold arrays X and y; {error}") from None
    except Exception as error:  # numpy's reader fails in any way when the bytes are not those that numpy has written
        raise ConfigError(f"--teacher_name: {path} is no .npz file of numbers, or is damaged ({reason(error)})") from None
    if len(queries) != len(answers) or len(queries) < HELD_OUT:
        counts = f"{len(queries)} queries X and {len(answers)} answers y"
        raise ConfigError(f"--teacher_name: {path} has {counts}; valid: as many of both, {HELD_OUT} or more")
    if not (np.isfinite(queries).all() and np.isfinite(answers).all()):
        raise ConfigError(f"--teacher_name: {path} holds values that are not finite numbers")
    for name, values, why in (
        ("X", queries, "its weights cannot be told from the biases"),
        ("y", answers, "it says nothing of the network"),
    ):
        constant = np.flatnonzero(np.ptp(values, axis=0) == 0)
        if len(constant):
            raise ConfigError(f"--teacher_name: column {constant[0]} of {name} in {path} is constant, and {why}; leave it out")
    return content, torch.from_numpy(queries), torch.from_numpy(answers)


def _memory() -> int:
    """Bytes that the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _matrix(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of real numbers of an `.npz` file, with one row a pair, `[n, values]`; its size is checked before it is unpacked.

    Raises:
        KeyError: there is none of this name.
        ValueError: it is of something else, or says that it is larger than its content, or than memory allows.
    """
    entry = archive.getinfo(f"{name}.npy")
    with archive.open(entry) as member:
        if np.lib.format.read_magic(member) != (1, 0):  # later ones are for records of many fields, and may say that they begin with 4 GB
            raise ValueError(f"{name} is no plain array")
        shape, _, kind = np.lib.format.read_array_header_1_0(member)
        count = math.prod(shape)
        if kind.kind not in "fiub" or not count or not shape or min(shape) < 0:
            raise ValueError(f"{name} has shape {shape} and type {kind}")
        if member.tell() + count * kind.itemsize != entry.file_size:
            raise ValueError(f"{name} of shape {shape} and type {kind} does not have {entry.file_size} bytes")
        if 2 * count * np.dtype(np.float64).itemsize > _memory():
            raise ValueError(f"{name} of shape {shape} does not fit into memory")
    with archive.open(entry) as member:
        return np.lib.format.read_array(member, allow_pickle=False).astype(np.float64).reshape(shape[0], -1)


class Dataset(base.Dataset):
    """Queries `[n, inputs]` and answers `[n, outputs]`."""

    @classmethod
    def create(cls, dataset_hparams: DatasetHparams, train: bool, seed: int) -> Dataset:
        if dataset_hparams.teacher_name.startswith("answers_"):
            queries, answers = _kept_answers(dataset_hparams.teacher_name)
            held_out = torch.arange(len(queries)) % HELD_OUT == HELD_OUT - 1
            chosen = ~held_out if train else held_out
            return cls(queries[chosen], answers[chosen])
        teacher = read(dataset_hparams.teacher_name, dataset_hparams.teacher_seed)
        model = teacher.load()
        queries = datagen.make(dataset_hparams.datagen, train, teacher.inputs, seed, teacher.dataset_name)
        with torch.no_grad():
            examples = queries.to(get_platform().torch_device).view(-1, *teacher.example_shape)
            chunk = CHUNK if model.channels is None else max(1, CHUNK_PIXELS // math.prod(examples.shape[2:]))
            answers = [model(batch.double()) for batch in examples.split(chunk)]
        return cls(queries, torch.cat(answers))

    @classmethod
    def shape(cls, dataset_hparams: DatasetHparams) -> tuple[int, int]:
        teacher = read(dataset_hparams.teacher_name, dataset_hparams.teacher_seed)
        return teacher.inputs, teacher.outputs


DataLoader = base.DataLoader

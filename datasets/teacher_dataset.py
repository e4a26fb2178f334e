"""The dataset of queries and the answers of a teacher.

The teacher is a network that `train` has trained, or a file of pairs of queries and answers (`answer_files.py`). The answers of a network
to the queries of `--datagen` are computed in float64. Every tenth distinct query of a file belongs to the test set. Here
`dataset_hparams.teacher_name` is a resolved name: `train_<md5>` or `answers_<md5 of the stored file>`. Run folders of OpenLTH and of the
published Expand-and-Cluster code are teachers, too.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import operator
import os
import re
from dataclasses import dataclass

import numpy as np
import torch

from datasets import answer_files, base, repeats
from datasets.answer_files import Layout, Pairs
from datasets.datagen import registry as datagen
from datasets.image_registry import image_shape, registered_images, streamed_images
from datasets.links import Errors
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

HELD_OUT = 10  # one distinct query in ten belongs to the test set
CHUNK = 4096  # the number of queries in a forward pass of a fully connected teacher
CHUNK_PIXELS = 2**18  # the number of pixels in a forward pass of a convolutional teacher
SEED_FOLDER = re.compile(r"(seed|replicate)_(-?\d+)")  # the folder of a seed of a run; OpenLTH names it replicate
HASH = re.compile(r"train_[0-9a-f]+")
TORCH_FILE = (b"PK", b"\x80\x02")  # the first bytes of files in the formats of torch


@dataclass(frozen=True)
class Teacher:
    """A trained network, or a file of answers. For a file, `model_hparams`, `location` and `dataset_name` are None.

    `pairs` is the number of pairs in a file, `largest` the largest magnitude of its numbers, `note` what the user should know about how the
    file was read, `link` what its answers are (`links.py`), and `columns` the names of the queries' and of the answers' columns.
    """

    name: str
    inputs: int
    outputs: int
    model_hparams: ModelHparams | None = None
    location: str | None = None
    dataset_name: str | None = None
    pairs: int | None = None
    largest: float = 0.0
    note: str = ""
    link: str | None = None
    columns: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())

    @property
    def example_shape(self) -> tuple[int, ...]:
        """The shape of an example in training: an image, or a row of values if the dataset has no images of this size."""
        shape = image_shape(self.dataset_name)
        return shape if shape and math.prod(shape) == self.inputs else (self.inputs,)

    def load(self) -> Model:
        """The trained network, in float64 on the device of the platform. A file of answers has none.

        Raises:
            ConfigError: the training has not finished or has diverged, or the file of weights is damaged.
        """
        return self._network().double().to(get_platform().torch_device).eval()

    def _network(self) -> Model:
        """The trained network on the CPU, in the number format of its file; errors as in `load`."""
        assert self.location is not None and self.model_hparams is not None  # not a file of answers
        if not get_platform().exists(paths.logger(self.location)):
            program = ancestors.program_of(self.location)
            remedy = f"`EC.py runs import {os.path.dirname(self.location)}` prints the command that finishes it"
            raise ConfigError(
                f"--teacher_name: the run in {self.location} has not finished; {remedy if program else 'run its train command again'}"
            )
        path = models.latest_weights_file(self.location)
        model = models.load(path, self.model_hparams, self.outputs)
        if not all(value.isfinite().all() for value in model.state_dict().values()):
            raise ConfigError(f"--teacher_name: {path} contains weights that are not finite; the training has diverged")
        return model

    @property
    def digest(self) -> str | None:
        """The digest of the weights, which does not depend on the format of their file; None if the training has not finished.

        Raises:
            ConfigError: the training has diverged, or the file of weights is damaged.
        """
        assert self.location is not None  # not a file of answers
        if not get_platform().exists(paths.logger(self.location)):
            return None
        path = models.latest_weights_file(self.location)
        status = os.stat(path)
        version = path, status.st_ino, status.st_mtime_ns, status.st_size
        if version not in _digests:
            _digests[version] = digest_of(self._network())
        return _digests[version]


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
    if teacher.location is None:
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


def find(name: str, seed: int, folder: str | None = None) -> Teacher:
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


def read(name: str, seed: int, folder: str | None = None) -> Teacher:
    """The teacher with a resolved name, from its run folder or from the stored file of answers."""
    if name.startswith("answers_"):
        queries, answers = _checked(_stored_answers(name), answers_path(name))
        return Teacher(name, queries.shape[1], answers.shape[1], pairs=len(queries))
    location = location_of(name, seed, folder)
    return _read_record(name, location) if _has_record(location) else _read_log(name, location)


def _has_record(location: str) -> bool:
    """Whether a run folder has JSON hyperparameters. OpenLTH writes none; Expand-and-Cluster writes them in the format of torch."""
    path = paths.hparams_dict(location)
    if not get_platform().exists(path):
        return False
    with get_platform().open(path, "rb") as file:
        return file.read(2) not in TORCH_FILE


def _read_record(name: str, location: str) -> Teacher:
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
    return Teacher(name, inputs, outputs, model_hparams, location, dataset_name)


def _read_log(name: str, location: str) -> Teacher:
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
    return Teacher(name, inputs, outputs, model_hparams, location, dataset_name)


def answers_path(teacher_name: str) -> str:
    """The path of the stored copy of a file of answers. A run resumes with this copy, even if the original file is gone."""
    return os.path.join(get_platform().root, f"{teacher_name}.npz")


def inspect_answers(name: str, layout: Layout | None = None) -> tuple[Teacher, bytes]:
    """The teacher in a file, named after the digest of its content, and the archive that a run stores.

    Args:
        name: the path of an archive or of a table, or the paths of two tables joined by `+`.
        layout: which part of the file are the queries and which the answers.

    Raises:
        ConfigError: the file is missing or damaged, does not contain queries `[n, inputs]` and answers `[n, outputs]` with finite numbers,
            or its answers are classes.
    """
    pairs = answer_files.read(name, layout or Layout())
    if not get_platform().exists(answers_path(_name_of(pairs.content))):  # an older version may have stored classes
        answer_files.check_outputs(pairs, name)
    _checked(pairs, name)
    pairs = answer_files.linked(pairs, (layout or Layout()).link, name)
    resolved = _name_of(pairs.content)
    queries, answers = _checked(pairs, name)
    size = queries.shape[1], answers.shape[1]
    facts = {"pairs": len(queries), "largest": largest_magnitude(queries, answers), "note": pairs.note, "link": pairs.link}
    return Teacher(resolved, *size, **facts, columns=pairs.columns), pairs.content


def largest_magnitude(*values: torch.Tensor) -> float:
    """The largest magnitude of some numbers."""
    return max(value.abs().max().item() for value in values)


def check_magnitude(largest: float, dtype: torch.dtype) -> None:
    """Raises a ConfigError if the largest magnitude of queries and answers is infinite in the number format of training."""
    limit = torch.finfo(dtype).max
    if largest > limit:
        valid = f"magnitudes up to {limit:.2g}, or --precision float64"
        raise ConfigError(f"--teacher_name: a query or an answer has the magnitude {largest:.2g}, too large for {dtype}; valid: {valid}")


def training_pairs(teacher: Teacher, datagen_text: str | None) -> int:
    """The number of training examples of a teacher; `datagen_text` are its queries in canonical form, None for a file of answers."""
    if teacher.pairs is not None:
        return teacher.pairs - teacher.pairs // HELD_OUT
    assert datagen_text is not None  # networks need queries
    return datagen.training_queries(datagen_text)


def _name_of(content: bytes) -> str:
    return f"answers_{hashlib.md5(content).hexdigest()}"


def _stored_answers(name: str) -> Pairs:
    """The queries and answers of a resolved name; a ConfigError if the stored file has changed."""
    pairs = answer_files.read_stored(answers_path(name))
    if _name_of(pairs.content) != name:
        raise files.damaged(answers_path(name), "its content does not match the digest in its name", "use the original file again")
    return pairs


def _checked(pairs: Pairs, path: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The queries `[n, inputs]` and answers `[n, outputs]` of a file; a ConfigError if nothing can be recovered from them."""
    queries, answers = pairs.queries, pairs.answers
    if len(queries) != len(answers) or len(queries) < HELD_OUT:
        counts = f"{len(queries)} queries {pairs.names[0]} and {len(answers)} answers {pairs.names[1]}"
        raise ConfigError(f"--teacher_name: {path} has {counts}; valid: equal numbers, {HELD_OUT} or more, one row for each pair")
    if not (np.isfinite(queries).all() and np.isfinite(answers).all()):
        raise ConfigError(f"--teacher_name: {path} contains values that are not finite numbers")
    for name, values, why in (
        (pairs.names[0], queries, "all queries are the same"),
        (pairs.names[1], answers, "they contain no information about the network"),
    ):
        if not np.ptp(values, axis=0).any():
            raise ConfigError(f"--teacher_name: all columns of {name} in {path} are constant, so {why}; valid: a column that varies")
    return torch.from_numpy(queries), torch.from_numpy(answers)


def _teacher_name(dataset_hparams: DatasetHparams) -> str:
    """The resolved name of the teacher."""
    assert dataset_hparams.teacher_name is not None  # required for this dataset
    return dataset_hparams.teacher_name


class Dataset(base.Dataset):
    """Queries `[n, inputs]` and answers `[n, outputs]`; `rows` `[n]` are the numbers of the pairs of a file, counted from 0.

    `errors` are those of logits that were converted from probabilities with few digits.
    """

    rows: torch.Tensor | None = None
    errors: Errors | None = None

    @classmethod
    def create(cls, dataset_hparams: DatasetHparams, train: bool, seed: int) -> Dataset:
        name, datagen_text = _teacher_name(dataset_hparams), dataset_hparams.datagen
        if name.startswith("answers_"):
            pairs = _stored_answers(name)
            queries, answers = _checked(pairs, answers_path(name))
            numbers = torch.arange(len(queries)) if pairs.rows is None else torch.from_numpy(pairs.rows)
            held_out = repeats.held_out(queries, HELD_OUT)
            chosen = torch.nonzero(~held_out if train else held_out)[:, 0]
            dataset = cls(queries[chosen], answers[chosen])
            dataset.rows, dataset.errors = numbers[chosen], pairs.errors
            return dataset
        assert datagen_text is not None  # networks need queries
        teacher = read(name, dataset_hparams.teacher_seed, dataset_hparams.teacher_folder)
        model = teacher.load()
        queries = datagen.generate(datagen_text, train, teacher.inputs, seed, teacher.dataset_name)
        with torch.no_grad():
            examples = queries.to(get_platform().torch_device).view(-1, *teacher.example_shape)
            chunk = CHUNK if model.channels is None else max(1, CHUNK_PIXELS // math.prod(examples.shape[2:]))
            answers = torch.cat([model(batch.double()) for batch in examples.split(chunk)])
        if not answers.isfinite().all():
            raise ConfigError(f"--teacher_name: the answers of the network in {teacher.location} are not finite; use another teacher")
        return cls(queries, answers)

    @classmethod
    def shape(cls, dataset_hparams: DatasetHparams) -> tuple[int, int]:
        teacher = read(_teacher_name(dataset_hparams), dataset_hparams.teacher_seed, dataset_hparams.teacher_folder)
        return teacher.inputs, teacher.outputs


class DataLoader(base.DataLoader):
    """Batches of queries and answers, whose numbers may be too large for the number format of training."""

    def __init__(self, dataset: Dataset, batch_size: int, seed: int = 0, dtype: torch.dtype = torch.float32):
        super().__init__(dataset, batch_size, seed, dtype)
        check_magnitude(largest_magnitude(dataset.examples, dataset.labels), dtype)

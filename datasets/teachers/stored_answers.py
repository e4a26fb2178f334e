"""Teachers that are files of pairs of queries and answers (`answer_files.py`). Every tenth distinct query belongs to the test set.

A run stores a copy of the file under the root, `answers_<md5 of its content>.npz`.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

import numpy as np
import torch

from datasets import repeats
from datasets.teachers import answer_files, links
from datasets.teachers.answer_files import Layout, Pairs
from datasets.teachers.base import Examples, Teacher
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError
from platforms.platform import get_platform
from platforms.system import files

HELD_OUT = 10  # one distinct query in ten belongs to the test set


@dataclass(frozen=True)
class AnswerFile(Teacher):
    """A file of answers, which cannot be asked more.

    Attributes:
        count: the number of pairs.
        magnitude: the largest magnitude of their numbers.
        note: what the user should know about how the file was read.
        link: what the answers are (`links.py`).
    """

    count: int = 0
    magnitude: float = 0.0
    note: str = ""
    link: str | None = None

    @classmethod
    def recognises(cls, text: str) -> bool:
        return answer_files.is_file(text)

    @classmethod
    def of(cls, dataset_hparams: DatasetHparams) -> AnswerFile:
        name = str(dataset_hparams.teacher_name)
        queries, answers = _checked(_stored_answers(name), answers_path(name))
        return cls(name, queries.shape[1], answers.shape[1], count=len(queries))

    @property
    def digest(self) -> str:
        return self.name.removeprefix("answers_")

    @property
    def largest(self) -> float:
        return self.magnitude

    @property
    def is_askable(self) -> bool:
        return False

    def ask(self, queries: torch.Tensor) -> torch.Tensor:
        raise ConfigError(f"--teacher_name: {self.name} is a file of answers, which cannot be asked more queries")

    def pairs(self, dataset_hparams: DatasetHparams, train: bool, seed: int) -> Examples:
        pairs = _stored_answers(self.name)
        queries, answers = _checked(pairs, answers_path(self.name))
        numbers = torch.arange(len(queries)) if pairs.rows is None else torch.from_numpy(pairs.rows)
        held_out = repeats.held_out(queries, HELD_OUT)
        chosen = torch.nonzero(~held_out if train else held_out)[:, 0]
        return Examples(queries[chosen], answers[chosen], numbers[chosen], pairs.errors)

    def training_pairs(self, datagen_text: str | None) -> int:
        return self.count - self.count // HELD_OUT


def answers_path(teacher_name: str) -> str:
    """The path of the stored copy of a file of answers. A run resumes with this copy, even if the original file is gone."""
    return os.path.join(get_platform().root, f"{teacher_name}.npz")


def inspect_answers(name: str, layout: Layout | None = None) -> tuple[AnswerFile, bytes]:
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
    largest = max(float(values.abs().max()) for values in (queries, answers))
    other = links.alternative(pairs.answers) if pairs.link is None else None
    facts = {"magnitude": largest, "note": pairs.note, "link": pairs.link, "other_link": other}
    return AnswerFile(resolved, *size, columns=pairs.columns, count=len(queries), **facts), pairs.content


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
    for name, values in zip(pairs.names, (queries, answers), strict=True):
        _check_finite(name, values, path)
    for name, values, why in (
        (pairs.names[0], queries, "all queries are the same"),
        (pairs.names[1], answers, "they contain no information about the network"),
    ):
        if not np.ptp(values, axis=0).any():
            raise ConfigError(f"--teacher_name: all columns of {name} in {path} are constant, so {why}; valid: a column that varies")
    return torch.from_numpy(queries), torch.from_numpy(answers)


def _check_finite(name: str, values: np.ndarray, path: str) -> None:
    """Raises a ConfigError that says where values `[n, D]` are not finite numbers."""
    missing = np.argwhere(~np.isfinite(values))
    if len(missing):
        (row, column), rows = missing[0], len(np.unique(missing[:, 0]))
        which = "a value that is not finite" if len(missing) == 1 else f"{len(missing):,} values that are not finite"
        place = f"{'in' if len(missing) == 1 else 'the first in'} row {row}, column {column} (counted from 0: {values[row, column]})"
        columns = np.unique(missing[:, 1])
        scope = f"; all of them are in column {columns[0]}" if len(missing) > 1 and len(columns) == 1 else ""
        remedy = f"leave out {'this row' if rows == 1 else f'these {rows:,} rows'}"
        raise ConfigError(f"--teacher_name: {name} in {path} contains {which}, {place}{scope}; {remedy}, or the column")

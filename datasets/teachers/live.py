"""Teachers that answer any query: what all their kinds share.

The first questions (START queries for training, each asked twice) tell how many outputs there are, what the answers are (`links.py`), and
whether the teacher answers the same query differently the second time. All questions go through the ledger (`ledger.py`).
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from datasets.datagen import registry as datagen
from datasets.teachers import answer_files, links
from datasets.teachers.answer_files import Pairs
from datasets.teachers.base import Examples, Teacher
from datasets.teachers.ledger import DERIVED, keys_of
from datasets.teachers.questions import BATCH_SIZE, Questions
from datasets.teachers.responding import Connection, Responding
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError, one_line, reason
from foundations.seeds import derive
from platforms.platform import get_platform

START = 8  # queries that are asked twice at the start
LEAST = 12  # different queries that a run needs: ten for training, two held out
PAUSE = 5.0  # seconds between lines of progress
QUERIES_SEED = 0  # of the queries of --datagen, which are the same for every seed of a run
ROUNDING = {8: 1e-13, 4: 1e-6, 2: 1e-2}  # differences that are not noise, as a share of the largest answer, by the bytes of the number type
LARGE_NOISE = 0.01  # as a share of the spread of the answers


@dataclass(frozen=True)
class LiveTeacher(Teacher):
    """A teacher that the user names by a file, and that answers any query.

    Attributes:
        connection: loads it, once.
        questions: of the run.
        label: its name without folders, for lists of runs and errors.
        link: what the answers are, if that was given or noticed.
        note: what the user should know about its answers.
    """

    connection: Callable[[], Connection] = dataclasses.field(kw_only=True)
    questions: Questions = dataclasses.field(kw_only=True)
    label: str = dataclasses.field(kw_only=True)
    link: str | None = None
    note: str = ""

    @classmethod
    def digest_of(cls, text: str) -> str:
        """The digest that names the teacher, without loading it: that of its file.

        Raises:
            ConfigError: it does not exist.
        """
        return hashlib.md5(file_digest(os.path.expanduser(text))).hexdigest()

    @classmethod
    @abc.abstractmethod
    def connect(cls, text: str) -> Connection:
        """Loads the teacher. A library that is not installed is imported here only.

        Raises:
            ConfigError: it cannot be loaded.
        """

    @classmethod
    def label_of(cls, text: str) -> str:
        """The name of a teacher without folders."""
        return one_line(os.path.basename(text))

    @classmethod
    def is_loaded_at_once(cls) -> bool:
        """Whether it is loaded when it is named, because it tells its number of inputs or its number type."""
        return True

    @classmethod
    def named(cls, kind: str, dataset_hparams: DatasetHparams, inputs: int | None) -> LiveTeacher:
        """The teacher that the user has named, whose outputs are still to be found out by `started`.

        Args:
            kind: its row in the table of kinds.
            dataset_hparams: the hyperparameters of the dataset, as the user has given them.
            inputs: the number of inputs if the teacher does not say.

        Raises:
            ConfigError: it does not exist, cannot be loaded, or takes another number of inputs.
        """
        text = str(dataset_hparams.teacher_name)
        connection = functools.cache(lambda: cls.connect(text))
        said = connection().inputs if cls.is_loaded_at_once() else None
        given = dataset_hparams.d_in
        label = cls.label_of(text)
        if given is not None and said not in (None, given):
            raise ConfigError(f"--d_in: {given} is wrong; {label} takes {said} inputs")
        size = given or said or inputs
        if size is None:
            raise ConfigError(f"--d_in is required with {label}, which does not say how many inputs it takes")
        name = f"{kind}_{cls.digest_of(text)}"
        respond = Responding(label, connection)
        path = os.path.join(get_platform().root, f"{name}.ledger")
        questions = Questions(path, respond, dataset_hparams.query_budget, dataset_hparams.oracle_batch_size or BATCH_SIZE)
        return cls(name, size, 0, connection=connection, questions=questions, label=label)

    def started(self, datagen_text: str, link: str | None) -> LiveTeacher:
        """The teacher after the first questions, which tell its outputs, its link and its noise.

        Args:
            datagen_text: the queries in canonical form.
            link: what the answers are; noticed if it is None.

        Raises:
            ConfigError: the teacher fails, or its answers are not what the link says.
        """
        budget = self.questions.budget
        if budget is not None and budget < START + LEAST:
            raise ConfigError(f"--query_budget: {budget} is too small; valid: {START + LEAST} or more")
        queries = self._rounded(datagen.generate(datagen_text, True, self.inputs, QUERIES_SEED))[:START]
        _, first = self.questions.ask(queries, "start")
        self.questions.respond.outputs = first.shape[1]
        again = np.concatenate([self.questions.ask(half, "start", occasion=1)[1] for half in np.array_split(queries, 2)])
        chosen = link or links.notice(first)
        noise, note = self._noise(queries, first, again, chosen)
        name = self.name if chosen in (None, links.RAW) else f"{self.name}_{chosen}"
        note = "; ".join(filter(None, [note, "" if chosen else links.hint(first)]))
        other = None if chosen else links.alternative(first)
        return dataclasses.replace(self, name=name, outputs=first.shape[1], link=chosen, other_link=other, noise=noise, note=note)

    def begin(self, quiet: bool = True) -> None:
        """Starts to count the questions of a run, to which this teacher belongs from now on; prints progress unless it is quiet."""
        if not quiet:
            self.questions.ledger.on_batch = Progress()
        self.questions.used = {"start": self.questions.used.get("start", set())}
        _current[self.name] = self

    @classmethod
    def of(cls, dataset_hparams: DatasetHparams) -> Teacher:
        name = str(dataset_hparams.teacher_name)
        if name not in _current:
            raise ConfigError(f"--teacher_name: {name} is not at hand; name its file, {dataset_hparams.teacher_file}, again")
        return _current[name]

    @property
    def digest(self) -> str:
        return self.name.split("_")[1]

    @property
    def is_askable(self) -> bool:
        return self.questions.left is None or self.questions.left > 0

    def ask(self, queries: torch.Tensor) -> torch.Tensor:
        return self.ask_for("other", queries)[1]

    def ask_for(self, phase: str, queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The queries that the budget allows, as they were asked, and the outputs of the network, both in float64.

        Queries are rounded to the number type of the teacher. Those whose outputs no answer tells (a probability of 0) are left out.

        Args:
            phase: what the answers are for.
            queries: `[n, inputs]`.

        Raises:
            ConfigError: the teacher fails, or its answers are not what the link says.
        """
        return self._asked(phase, queries)[:2]

    def _asked(self, phase: str, queries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, links.Errors | None]:
        """As `ask_for`, and the errors of logits that were converted from probabilities with few digits."""
        asked, answers = self.questions.ask(self._rounded(queries), phase)
        errors = None
        if not len(asked):
            answers = np.empty((0, self.outputs))
        elif self.link in links.MEANINGS:
            converted = self._converted(answers)
            asked, answers, errors = asked[converted.kept], converted.logits, converted.errors
        return torch.from_numpy(np.ascontiguousarray(asked)), torch.from_numpy(np.ascontiguousarray(answers)), errors

    def ask_all(self, phase: str, queries: torch.Tensor) -> torch.Tensor:
        """The outputs `[n, outputs]` of the network for queries `[n, inputs]`, in float64, of which the budget allows all.

        An output that no answer tells (a probability of 0) is not a number. Errors as in `ask_for`.
        """
        answers = self.questions.ask_all(self._rounded(queries), phase)
        if self.link in links.MEANINGS:
            converted = self._converted(answers)
            answers = np.full((len(queries), self.outputs), np.nan)
            answers[converted.kept] = converted.logits
        return torch.from_numpy(answers)

    def _converted(self, answers: np.ndarray) -> links.Converted:
        """Probabilities as logits; a ConfigError if they are none."""
        try:
            return links.convert(answers, str(self.link))
        except ValueError as error:
            raise ConfigError(f"--link: {self.label}: {reason(error)}") from None

    def pairs(self, dataset_hparams: DatasetHparams, train: bool, seed: int) -> Examples:
        assert dataset_hparams.datagen is not None  # a live teacher needs queries
        phase, (queries, held_out) = "training" if train else "held out", self._gathered(dataset_hparams.datagen)
        asked, answers, errors = self._asked(phase, queries if train else held_out)
        if train:
            answer_files.check_outputs(Pairs(b"", asked.numpy(), answers.numpy(), ("the queries", "the answers")), self.label)
            if not np.ptp(answers.numpy(), axis=0).any():
                raise ConfigError(f"--teacher_name: {self.label} gives the same answer to every query; valid: one whose answers vary")
        rows = torch.arange(len(asked)) + (0 if train else len(queries))
        return Examples(asked, answers, rows, errors)

    def _gathered(self, datagen_text: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The queries for training and the held-out ones, all of which have been asked.

        They are asked in the order in which a budget takes them, so that a budget can go on with the answers that a teacher has given
        before it failed.
        """
        queries = torch.cat(self._queries(datagen_text))
        places = self._planned(datagen_text)
        rounded = self._rounded(queries[places])
        try:
            self.questions.fetch(rounded)
        except ConfigError as error:
            known = self.questions.ledger.known
            hint = f"; --query_budget {known} goes on with them" if known >= START + LEAST else ""
            raise ConfigError(f"{error}{hint}") from error
        return self.planned(datagen_text)

    def training_pairs(self, datagen_text: str | None) -> int:
        assert datagen_text is not None  # a live teacher needs queries
        return len(self.planned(datagen_text)[0])

    def planned(self, datagen_text: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The queries for training and the held-out ones, `[n, inputs]` each; a part of both, drawn at random, if the budget is too small.

        A larger budget keeps the queries of a smaller one.
        """
        train, test = self._queries(datagen_text)
        places = self._planned(datagen_text).sort().values
        return train[places[places < len(train)]], test[places[places >= len(train)] - len(train)]

    def _planned(self, datagen_text: str) -> torch.Tensor:
        """The places of the queries that the budget allows, among those for training and then those held out, in the order of asking."""
        train, test = self._queries(datagen_text)
        order, budget = order_of_asking(len(train), len(test)), self.questions.budget
        if budget is None:
            return order
        budget -= sum(len(self.questions.used.get(phase, ())) for phase in DERIVED)  # asked before
        keys, planned = keys_of(self._rounded(torch.cat([train, test]))), order[: budget - START]
        self.questions.related.update(keys)
        lost = self.questions.lost
        if not lost or self.questions.ledger.knows([keys[place] for place in planned.tolist()]):
            return planned
        if budget - START - lost < LEAST:
            valid = f"{START + LEAST + lost} or more"
            raise ConfigError(
                f"--query_budget: {budget} is too small, because {lost} questions were asked whose answers are lost; valid: {valid}"
            )
        return order[: budget - START - lost]

    def _queries(self, datagen_text: str) -> tuple[torch.Tensor, torch.Tensor]:
        """All queries for training, and the held-out ones."""
        train, test = (datagen.generate(datagen_text, is_train, self.inputs, QUERIES_SEED) for is_train in (True, False))
        return train, test

    def shortage(self, datagen_text: str) -> str:
        """What the budget has left out, as a sentence; empty if nothing."""
        taken = sum(map(len, self.planned(datagen_text)))
        wanted = sum(map(len, self._queries(datagen_text)))
        return "" if taken == wanted else f"--query_budget {self.questions.budget} allows {taken:,} of the {wanted:,} queries"

    def _rounded(self, queries: torch.Tensor) -> np.ndarray:
        """Queries in the number type of the teacher, as float64."""
        values = queries.double().cpu().numpy()
        return values.astype(self.connection().dtype).astype(np.float64) if self.is_loaded_at_once() else values

    def _noise(self, queries: np.ndarray, first: np.ndarray, again: np.ndarray, link: str | None) -> tuple[tuple[float, ...], str]:
        """The noise of each output, from answers to the same queries, and a sentence about it."""
        with np.errstate(over="ignore"):  # too large for float16 or float32
            size = next(size for size in (2, 4, 8) if (first.astype(f"f{size}") == first).all())
        differences = np.abs(first - again)
        if (differences <= ROUNDING[size] * np.abs(first).max()).all():
            return (), ""
        if link in links.MEANINGS:
            try:
                first, again = (links.logits(answers, str(link)) for answers in (first, again))
            except ValueError:
                again = first  # `ask_for` says what is wrong
        scatter = np.sqrt(np.nanmean(np.square(first - again), axis=0) / 2)
        shown = f"{differences.max():.2g}"
        note = f"the same query is answered differently the second time by {self.label}, by up to {shown}, which is taken as noise"
        if (scatter > LARGE_NOISE * first.std(axis=0)).any():
            note += "; switch off dropout, or whatever is random in it"
        return tuple(scatter.tolist()), note


class Progress:
    """Prints how many questions were asked, every PAUSE seconds."""

    def __init__(self):
        self.last = time.monotonic()

    def __call__(self, asked: int, total: int) -> None:
        if time.monotonic() > self.last + PAUSE:
            print(f"Asked {asked:,} of {total:,} queries", flush=True)
            self.last = time.monotonic()


_current: dict[str, LiveTeacher] = {}  # by name: the teachers of the run that this process works on


def file_digest(path: str) -> bytes:
    """The bytes that identify a file.

    Raises:
        ConfigError: it does not exist, or cannot be read.
    """
    try:
        with get_platform().open(path, "rb") as file:
            digest = hashlib.md5()
            while block := file.read(2**20):
                digest.update(block)
            return digest.digest()
    except OSError as error:
        raise ConfigError(f"--teacher_name: {path} cannot be read ({error.strerror or error})") from None


def order_of_asking(train: int, test: int) -> torch.Tensor:
    """The order in which queries are asked: places among those for training and then those for test, `[train + test]`.

    Any part from the first place on, of LEAST or more, has both kinds in their proportion, drawn at random: ten for training and two for
    test at least. The first START are those for training.
    """
    generator = torch.Generator().manual_seed(derive(QUERIES_SEED, "order of asking"))
    first = torch.arange(min(START, train))
    training = torch.cat([first, len(first) + torch.randperm(train - len(first), generator=generator)])
    held_out = train + torch.randperm(test, generator=generator)
    count = torch.arange(train + test + 1)  # queries so far
    share = torch.minimum((count * test // (train + test)).clamp_min(2), (count - 10).clamp_min(0))
    share = torch.maximum(share, count - train).clamp_max(test)  # of them held out
    is_held_out = share.diff().bool()
    order = torch.empty(train + test, dtype=torch.long)
    order[is_held_out], order[~is_held_out] = held_out, training
    return order

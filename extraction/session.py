"""What all steps of one extraction share."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from datasets.base import DataLoader, Loaders
from datasets.teachers.base import Teacher
from extraction.answers import Answers, finer, spreads
from extraction.clustering import Criteria
from extraction.desc import ExtractionDesc
from extraction.network import stack_name
from extraction.preparation.rows import Rows, extended, joined, named
from extraction.preparation.scaling import LARGE, SCARCE, Scaling
from extraction.symmetry import Symmetry, symmetries
from foundations import paths
from foundations.model_hparams import ModelHparams
from foundations.training_hparams import TrainingHparams
from models import registry as models
from models.students import Model as Students
from training.optimizers import LEAST_SQUARES

HELD_OUT = 4  # of so many further queries one is held out
RIDGE = 0.1  # the penalty on the squares of the weights where answers are scarce, as a share of the loss


@dataclass(frozen=True)
class Session:
    """One extraction: the hyperparameters, the queries and answers, the folder of the results, and whether progress is printed.

    Attributes:
        desc: the hyperparameters.
        loaders: the queries and answers for training, and others for test, in float64 on the platform's device, after `scaling`.
        location: the clustering folder.
        verbose: whether progress is printed.
        precision: of the answers; exact when left out.
        scaling: how inputs and outputs were transformed; None where they are as the user has them.
        own: the loaders before `scaling`; None without one.
        rows: all rows of the file of answers, after `scaling`; None for the answers of a network.
        own_rows: all rows before `scaling`; None without one.
        every_row: the rows before `scaling` with those that differ in columns which vary in few rows; None where there are none.
        linear_term: a linear map of the user's inputs that was taken from the answers, `[outputs, inputs]`; None where none was.
        teacher: who answers; None if it cannot be asked more.
        asked: how many of the queries for training, the last ones, were asked because the others left something open, or alone differ in
            a column.
    """

    desc: ExtractionDesc
    loaders: Loaders
    location: str
    verbose: bool = True
    precision: Answers | None = None
    scaling: Scaling | None = None
    own: Loaders | None = None
    rows: Rows | None = None
    own_rows: Rows | None = None
    every_row: Rows | None = None
    linear_term: torch.Tensor | None = None
    teacher: Teacher | None = None
    asked: int = 0

    @property
    def act_fun(self) -> str:
        """The name of the students' activation function."""
        return self.desc.model_hparams.act_fun

    @property
    def symmetry(self) -> Symmetry:
        """What the outputs leave open in every hidden neuron."""
        return symmetries[self.act_fun]

    @property
    def students_location(self) -> str:
        """The run folder of the students."""
        return os.path.dirname(self.location)

    @property
    def queries(self) -> torch.Tensor:
        """The queries for training, `[Q, inputs]`."""
        return self.loaders.train.examples

    @property
    def answers(self) -> torch.Tensor:
        """The answers to them, `[Q, outputs]`."""
        return self.loaders.train.labels

    @property
    def distinct_queries(self) -> int:
        """The number of queries for training that differ; answers to the same query are no more equations."""
        return len(torch.unique(self.queries, dim=0))

    @property
    def probability_errors(self) -> float:
        """The standard deviation of the errors of probabilities that answers were converted from; 0 where fits see the logits alone."""
        return self.rows.errors.probabilities if self.rows and self.rows.errors else 0.0

    @property
    def known(self) -> Answers:
        """The precision of the answers."""
        return self.precision or Answers.exact(self.answers.shape[1])

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.loaders.train.seed

    @property
    def is_scarce(self) -> bool:
        """Whether the answers are few for students with one hidden layer as wide as asked for, and enough for narrower ones."""
        if self.scaling is None or not self.scaling.width:
            return False
        inputs, outputs, width = self.queries.shape[1], self.answers.shape[1], self.scaling.width
        return self.answers.numel() >= SCARCE * ((inputs + 1) * width + (width + 1) * outputs)

    @property
    def is_penalised(self) -> bool:
        """Whether answers are scarce for students that are large, so that they learn with a penalty on their weights.

        Only students with one hidden layer are; a penalty for deeper ones was not tried.
        """
        students = models.meta_model(self.students_hparams, self.answers.shape[1])
        assert isinstance(students, Students)
        inputs, *hidden, outputs = students.sizes
        unknowns = hidden[0] * (inputs + 1 + outputs)
        return len(hidden) == 1 and unknowns > LARGE and self.answers.numel() < SCARCE * unknowns

    def penalised(self, hparams: TrainingHparams) -> TrainingHparams:
        """The hyperparameters of a training by Levenberg-Marquardt with a penalty on the weights where answers are scarce."""
        wanted = self.is_scarce and hparams.optimizer_name in LEAST_SQUARES
        return dataclasses.replace(hparams, weight_decay=RIDGE) if wanted else hparams

    @property
    def students_hparams(self) -> ModelHparams:
        """The hyperparameters of the students, whose numbers of inputs and outputs are those after `scaling`."""
        model_hparams = self.desc.model_hparams
        if self.scaling is None:
            return model_hparams
        students = models.meta_model(model_hparams, len(self.scaling.outputs.mean))
        assert isinstance(students, Students)
        hidden = [self.scaling.width] if self.scaling.width else students.sizes[1:-1]
        sizes = [self.queries.shape[1], *hidden, self.answers.shape[1]]
        return dataclasses.replace(model_hparams, model_name=stack_name(students.networks, sizes))

    @property
    def unscaled(self) -> Session:
        """The session with the queries and answers as the user has them."""
        loaders, rows = self.own or self.loaders, self.own_rows or self.rows
        return dataclasses.replace(self, loaders=loaders, rows=rows, scaling=None, own=None, own_rows=None)

    def of_file(self, own: Rows, inside: Rows, every: Rows | None = None) -> Session:
        """The session with the rows of a file of answers, before and after `scaling`, and with `every` row."""

        def exactly(rows: Rows) -> Rows:
            return rows.changed(lambda loader: in_float64(loader, seed=self.seed))

        more = exactly(every) if every is not None and len(own) < len(every) else None
        own, inside = exactly(own), exactly(inside)
        return dataclasses.replace(self, loaders=inside.kept, own=own.kept, rows=inside, own_rows=own, every_row=more)

    def with_precision(self) -> Session:
        """The session with the precision of its answers: as `--answers` says, or for a file as its numbers show."""
        given, own = self.desc.extraction_hparams.answers, (self.own or self.loaders).train
        if given is None and self.rows is None:
            return self
        errors = self.rows.errors if self.rows else None
        if given is None and errors is not None:
            precision = Answers.of_logits(own.labels, errors.name, errors.logits)
        else:
            precision = Answers.of(own.labels, given, own.examples)
        if given is None and self.teacher and self.teacher.noise:
            precision = precision.with_noise(self.teacher.noise, own.labels)
        if self.scaling is not None:
            outputs = self.scaling.outputs
            units = (spreads(own.labels) / outputs.spread)[:, None] / spreads(outputs.apply(own.labels))
            precision = precision.mixed(outputs.inward * units, own.labels)
        return dataclasses.replace(self, precision=precision)

    @property
    def output_weights(self) -> torch.Tensor | None:
        """The factors of outputs in a fit, see `Answers.weights`; None for probabilities, which are fitted as such."""
        return None if self.probability_errors else self.known.weights

    @property
    def may_be_probabilities(self) -> bool:
        """Whether all answers are between zero and one, and a budget of queries allows one reading of them only, as raw ones.

        Otherwise the command tries both (`racing/readings.py`), unless the user says what they are.
        """
        hparams, answers = self.desc.dataset_hparams, (self.own or self.loaders).train.labels
        return hparams.link is None and hparams.query_budget is not None and bool(((answers > 0) & (answers < 1)).all())

    @property
    def notes(self) -> list[str]:
        """What is to be said of the precision of the answers and of rows, a sentence each."""
        given, answers = self.desc.extraction_hparams.answers, (self.own or self.loaders).train.labels
        is_contradicted = given is not None and finer(answers, given)
        return [f"the answers have more digits than --answers {given} states, which contradicts it"] if is_contradicted else []

    @property
    def remarks(self) -> list[str]:
        """What is to be said of the queries and answers before students are trained, a sentence each."""
        found = [*(self.scaling.remarks() if self.scaling else []), *self.notes]
        if self.rows and self.rows.left_out:
            found.append(f"{named([*self.rows.left_out])}, counted from 0, may have gross errors: students do not learn from such rows")
        return found

    @property
    def numbered(self) -> Session:
        """The session with numbers for its rows, if they have none and their teacher can be asked, so that rows can be left out.

        Few rows show a neuron that hardly any query activates. A network that gives all others shows where to ask.
        """
        if self.rows is not None or self.teacher is None:
            return self
        counts = [len(loader.examples) for loader in self.loaders]
        numbers = torch.arange(sum(counts)).split(counts)
        return self.of_file(*[Rows(loaders, (numbers[0], numbers[1])) for loaders in (self.own or self.loaders, self.loaders)])

    def leaving_out(self, numbers: Iterable[int]) -> Session:
        """The session without the rows of the file with these numbers, and with all others."""
        assert self.rows is not None  # a file of answers
        numbers = frozenset(numbers)
        rows, own_rows = self.rows.without(numbers), self.own_rows and self.own_rows.without(numbers)
        return dataclasses.replace(self, loaders=rows.kept, own=own_rows and own_rows.kept, rows=rows, own_rows=own_rows)

    def less_linear_map(self, linear: torch.Tensor) -> Session:
        """The session with a linear map taken from all answers, those before `scaling` included.

        Args:
            linear: over the inputs after `scaling`, to the outputs after it, `[outputs, inputs]`.
        """
        weights, (inward, constant) = linear, (linear, torch.zeros_like(linear[:, 0]))
        if self.scaling is not None:
            weights, constant = self.scaling.fold_linear(linear)
        changed = {"loaders": (inward, constant), "rows": (inward, constant), "own": (weights, 0.0), "own_rows": (weights, 0.0)}
        changed |= {"every_row": (weights, 0.0)}
        parts = {name: _less(getattr(self, name), *term) for name, term in changed.items()}
        return dataclasses.replace(self, linear_term=weights, **parts)

    @property
    def with_all_answers(self) -> Session:
        """The session whose queries and answers for training are all that there are, the held-out ones included."""
        train, test = self.loaders
        dataset = type(train.dataset)(torch.cat([train.examples, test.examples]), torch.cat([train.labels, test.labels]))
        return dataclasses.replace(self, loaders=Loaders(DataLoader(dataset, train.batch_size, train.seed, torch.float64), test))

    def ask(self, queries: torch.Tensor, phase: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Asks the teacher further queries, as many of them, from the first, as its budget allows.

        A step that is resumed asks the same queries again, which costs nothing: the answers of a black box are kept. So that a resumed run
        gives the same bits, queries must follow from the seed, the answers and the network alone.

        Args:
            queries: `[n, inputs]`, after `scaling`.
            phase: what the answers are for; questions are counted by phase.

        Returns:
            The queries that were asked, `[m, inputs]`, and the answers, `[m, outputs]`, both after `scaling` and in float64. A teacher may
            round queries to its number type. Where the teacher cannot be asked more, m is 0.

        Raises:
            ConfigError: the teacher fails; the answers before are kept.
        """
        if self.teacher is None or not self.teacher.is_askable or not len(queries):
            return queries[:0], self.answers[:0]
        own = self.scaling.inputs.undo(queries) if self.scaling else queries
        asked, answers = _like(self.queries, *self.teacher.ask_for(phase, own))
        return self._inside(asked, answers if self.linear_term is None else answers - asked @ self.linear_term.T)

    def _inside(self, queries: torch.Tensor, answers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and answers of the user after `scaling`."""
        return (self.scaling.inputs.apply(queries), self.scaling.outputs.apply(answers)) if self.scaling else (queries, answers)

    def with_held_out(self, queries: torch.Tensor, phase: str) -> Session:
        """The session with the answers to further queries among the held-out ones; queries and errors as in `ask`."""
        asked = self.unscaled.ask(self.scaling.inputs.undo(queries) if self.scaling else queries, phase)
        is_test = torch.ones(len(asked[0]), dtype=torch.bool, device=queries.device)
        own = self.own and joined(self.own, asked, is_test)
        return dataclasses.replace(self, loaders=joined(self.loaders, self._inside(*asked), is_test), own=own)

    def with_rows(self, queries: torch.Tensor, answers: torch.Tensor, held_out: bool = True) -> Session:
        """The session with further queries `[n, inputs]` and answers for training, all as the user has them.

        One of HELD_OUT of them is held out, so that fits show whether they give these answers too; none where answers have errors, which
        may be larger there than at the queries for training: those of float32 are a share of the answer.
        """
        is_test = (torch.arange(len(queries)) % HELD_OUT == HELD_OUT - 1).to(queries.device) & (held_out and self.known.is_exact)
        asked, inside = self.asked + int((~is_test).sum()), self._inside(queries, answers)
        if self.rows is not None:
            rows, own_rows = extended(self.rows, inside, is_test), self.own_rows and extended(self.own_rows, (queries, answers), is_test)
            own = own_rows.kept if own_rows and self.own else self.own
            return dataclasses.replace(self, loaders=rows.kept, own=own, rows=rows, own_rows=own_rows, asked=asked)
        own = self.own and joined(self.own, (queries, answers), is_test)
        return dataclasses.replace(self, loaders=joined(self.loaders, inside, is_test), own=own, asked=asked)

    def with_last(self, chosen: torch.Tensor) -> Session:
        """The session with some queries for training, `[Q]`, after all others: they count as `asked`, and examinations have them all."""
        chosen = chosen | (torch.arange(len(chosen)) >= len(chosen) - self.asked).to(chosen.device)
        order = torch.cat([(~chosen).nonzero()[:, 0], chosen.nonzero()[:, 0]])
        asked = int(chosen.sum())
        if self.rows is None:
            parts = [each and Loaders(each.train.at(order), each.test) for each in (self.loaders, self.own)]
            assert parts[0] is not None
            return dataclasses.replace(self, loaders=parts[0], own=parts[1], asked=asked)
        rows, own_rows = self.rows.with_order(order), self.own_rows and self.own_rows.with_order(order)
        own = own_rows.kept if own_rows and self.own else self.own
        return dataclasses.replace(self, loaders=rows.kept, own=own, rows=rows, own_rows=own_rows, asked=asked)

    def criteria(self, doubtful: float) -> Criteria:
        """Which clusters count, with so many doubtful clusters for each of them."""
        h = self.desc.extraction_hparams
        return Criteria(h.gamma, h.beta, h.linkage, doubtful)

    def work_folder(self, students_file: str) -> str:
        """Where networks are kept that are trained on the way, for students with these weights."""
        return os.path.join(paths.finetune_checkpoints(self.location), students_file.removesuffix(".pth"))

    def students_batches(self, loaders: Loaders) -> Loaders:
        """The same queries and answers in the batch size and number format that students are trained with."""
        batch_size = self.desc.dataset_hparams.batch_size
        dtype = getattr(torch, self.desc.training_hparams.stored_precision)
        return Loaders(*(DataLoader(loader.dataset, batch_size, loader.seed, dtype) for loader in loaders))

    def say(self, text: str) -> None:
        """Prints a line of progress, unless the run is quiet."""
        if self.verbose:
            print(text, flush=True)


def _less(part: Loaders | Rows | None, weights: torch.Tensor, constant: torch.Tensor | float) -> Loaders | Rows | None:
    """Loaders or rows whose answers are less `weights x + constant` for queries x."""

    def changed(loader: DataLoader) -> DataLoader:
        dataset = loader.dataset
        labels = dataset.labels - (dataset.examples.to(weights) @ weights.T + constant)
        return loader.over(type(dataset)(dataset.examples, labels))

    if part is None:
        return None
    return part.changed(changed) if isinstance(part, Rows) else Loaders(*map(changed, part))


def _like(values: torch.Tensor, *others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two tensors on the device and in the number format of another."""
    first, second = (other.to(values) for other in others)
    return first, second


def in_float64(loader: DataLoader, batch_size: int | None = None, seed: int | None = None) -> DataLoader:
    """The same examples and labels in float64, in batches of another size and in the order of another seed where these are given."""
    seed = loader.seed if seed is None else seed
    return DataLoader(loader.dataset, batch_size or loader.batch_size, seed, torch.float64)


def float64_training(optimizer_name: str, steps: str) -> TrainingHparams:
    """The hyperparameters of a training in float64 that takes full steps of a second-order optimizer."""
    return TrainingHparams(optimizer_name, 1.0, steps, precision="float64")

"""An extraction from answers between 0 and 1, which may be the outputs of a network or the probabilities of a sigmoid.

Their values do not tell which, but networks do: only under the right reading is there one that gives all answers. So either reading is an
ordinary extraction, and the certificate decides. The reading that `--link` does not state, raw, comes first, and students compare the two
before more is spent: those of a plain network come nearer to its outputs than to their logits, and those of a network before a sigmoid
come nearer to the logits.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from extraction import report
from extraction.racing.standings import mark_dropped
from extraction.runner import ExtractionRunner
from foundations import paths
from foundations.arguments import ArgumentParser
from foundations.errors import Busy, ConfigError
from foundations.runner import Runner
from platforms.platform import get_platform
from platforms.system import locks, provenance

READY = 1e-6  # the loss of raw students, as a share of the variance of held-out answers, up to which the other reading waits
CLEAR = 10.0  # a reading is wrong if its students lose so many times as much as those of the other, and networks in the same way


@dataclass
class ReadingsRunner(Runner):
    """An extraction under two readings of its answers: as they are (`raw`), and with the `link` that they may have (`other`)."""

    raw: ExtractionRunner
    other: ExtractionRunner
    link: str

    @classmethod
    def of(cls, raw: ExtractionRunner, args: argparse.Namespace) -> Runner:
        """The extraction under both readings, or the extraction itself where its answers have one reading.

        With a budget of queries there is one as well: both would need it.

        Args:
            raw: the extraction under the flags as they are.
            args: the parsed flags.
        """
        link = raw.teacher.other_link
        if link is None or raw.desc.dataset_hparams.query_budget is not None:
            return raw
        return cls(raw, ExtractionRunner.create_from_args(argparse.Namespace(**vars(args) | {"link": link})), link)

    @staticmethod
    def description() -> str:
        return ExtractionRunner.description()

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        ExtractionRunner.add_args(parser)

    @staticmethod
    def create_from_args(args: argparse.Namespace) -> Runner:
        return ReadingsRunner.of(ExtractionRunner.create_from_args(args), args)

    @property
    def readings(self) -> tuple[ExtractionRunner, ExtractionRunner]:
        """Both extractions, the raw one first."""
        return self.raw, self.other

    @property
    def output_location(self) -> str:
        """The folder of the result, or that of the next extraction as long as there is no result."""
        return self._current.output_location

    @property
    def is_finished(self) -> bool:
        return self._current.is_finished

    @property
    def _current(self) -> ExtractionRunner:
        """The extraction of the result, or the next one as long as there is no result."""
        finished = [reading for reading in self.readings if reading.is_finished]
        if any(map(is_identified, finished)):
            return next(filter(is_identified, finished))
        unfinished = [reading for reading in self.readings if not reading.is_finished and not _is_dropped(reading)]
        return self._nearer(finished) if finished and not unfinished else [*unfinished, *finished][0]

    def run(self) -> None:
        """Extracts the network under either reading until one leads to a network, and prints the result."""
        self.raw.announce()
        tried: list[ExtractionRunner] = []
        failures: list[ConfigError] = []
        for reading in self._order():
            try:
                with self._recorded(reading):
                    reading.work()
            except Busy:
                raise
            except ConfigError as error:
                failures.append(error)
                continue
            tried.append(reading)
            if is_identified(reading):
                break
        if not tried:
            raise failures[0]
        others = [reading for reading in self.readings if reading not in tried and not failures]
        mark_dropped([(reading, self._name(reading)) for reading in others])
        chosen = tried[-1] if is_identified(tried[-1]) else self._nearer(tried)
        chosen.present()
        if len(tried) > 1 and not is_identified(chosen):
            rest = next(reading for reading in tried if reading is not chosen)
            self._say(f"Note: the answers taken as {self._name(rest)} lead to no network either ({rest.output_location}).")

    def _order(self) -> Iterator[ExtractionRunner]:
        """The extractions in the order in which they are tried; one that is clearly wrong is left out."""
        if any(reading.is_finished and is_identified(reading) for reading in self.readings):
            yield self._current
            return
        derived = self._derived()
        if derived is not None:
            yield derived
            return
        raw = self._loss(self.raw)
        if raw <= READY:
            yield self.raw
        self._say(f"All answers are from 0 to 1: students of the other reading, {self.link}, begin")
        other = self._loss(self.other)
        self._say(f"Held-out losses of the best students, as shares of the variance: raw {raw:.1e}, {self.link} {other:.1e}")
        if raw > READY and other * CLEAR > raw:
            yield self.raw
        if raw * CLEAR > other:
            yield self.other

    def _derived(self) -> ExtractionRunner | None:
        """The extraction whose network derivatives find, if they are tried and find one."""
        from extraction.live import derived

        for reading in self.readings:
            if not derived.comes_first(reading.desc, reading.teacher):
                return None
            reading.prepare()
            with reading.watch("derivatives"):
                reading.recovery = derived.attempt(reading.desc, reading.teacher)
            if reading.recovery.layers is not None:
                return reading
        return None

    def _loss(self, reading: ExtractionRunner) -> float:
        """The loss of the best student on held-out answers, as a share of their variance; students that are missing are trained."""
        from extraction.students import individual_losses
        from training import arithmetic

        arithmetic.check(reading.desc.training_hparams)
        with self._recorded(reading), locks.held(reading.students_location):
            students, session = reading.train_students(reading.watch)
        losses = individual_losses(students.to(session.queries), session.loaders.test)
        finite = [loss for loss in losses if loss == loss]
        return min(finite, default=float("inf")) / (float(session.loaders.test.labels.var(0).mean()) or 1.0)

    @contextmanager
    def _recorded(self, reading: ExtractionRunner) -> Iterator[None]:
        """Adds the link to the command line of the extraction that has one."""
        with ExitStack() as stack:
            if reading is self.other:
                stack.enter_context(provenance.further_flags("--link", self.link))
            yield

    def _nearer(self, finished: list[ExtractionRunner]) -> ExtractionRunner:
        """The extraction whose network misses held-out answers by less; the raw one where there is not much between them."""

        def missed(reading: ExtractionRunner) -> float:
            value = report.read(reading.output_location).certificate["held_out_residual"]
            return (1.0 if reading is self.raw else CLEAR) * (value if isinstance(value, float) else float("inf"))

        return min(finished, key=missed)

    def _name(self, reading: ExtractionRunner) -> str:
        """What the answers are under a reading."""
        return "raw" if reading is self.raw else self.link

    def _say(self, line: str) -> None:
        """Prints a line, unless the run is quiet."""
        if not self.raw.job.quiet:
            print(line, flush=True)


def is_identified(reading: ExtractionRunner) -> bool:
    """Whether a finished extraction has identified its network, but for weights that no answer tells."""
    from extraction.reporting import verdict

    return not verdict.of(report.read(reading.output_location)).is_negative


def _is_dropped(reading: ExtractionRunner) -> bool:
    """Whether the students of an extraction were found to imitate the answers under the wrong reading."""
    return get_platform().exists(paths.dropped(reading.students_location))

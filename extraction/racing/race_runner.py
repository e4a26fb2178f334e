"""The command `extract`, also for a network of unknown depth or activation function, where it is a race of ordinary extractions.

A race keeps no record of its own. Every run of it is an ordinary extraction with an ordinary name, so that the same command finds what is
finished, and goes on from there.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from extraction import report
from extraction.desc import ExtractionDesc
from extraction.hypothesis import AUTO, Hypothesis, HypothesisArgs, hypotheses, remark
from extraction.racing import race, rungs
from extraction.racing.race import Entry, Outcome, Rung, Standing, Track
from extraction.racing.readings import ReadingsRunner
from extraction.racing.standings import Scale, best_losses, is_trained, mark_dropped
from extraction.racing.stated import BUNDLES, Known, flags_of, widths_of
from extraction.runner import ExtractionRunner, Stopwatch, check
from foundations.arguments import ArgumentParser
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import Busy, ConfigError
from foundations.extraction_hparams import SEEDS
from foundations.model_hparams import ModelHparams
from foundations.runner import Runner
from platforms.system import locks, provenance
from training import job as training_job
from training.job import JobArgs

if TYPE_CHECKING:
    import torch

    from extraction.derivatives.result import Recovery
    from extraction.racing.derived_race import Architecture

EQUATIONS = 1.0  # numbers in the answers for each weight and bias of a student, at least


class ExtractCommand(ExtractionRunner):
    """The command: an extraction, or a race where the flags leave the depth or the activation function open."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        ExtractionRunner.add_args(parser)
        HypothesisArgs.add_args(parser)
        if parser.peek("platform") != "slurm":  # which has another flag of this name
            parser.add_argument("--seeds", dest="seeds_from", default=argparse.SUPPRESS, metavar="STR", help="The same as --seeds_from.")
            parser.choices_of["seeds"] = SEEDS
        if parser.peek("default_hparams") is None and parser.peek("model_name") is None:
            parser.set_defaults(**{field.name: None for bundle in BUNDLES.values() for field, _ in bundle.hyperparameters()})

    @staticmethod
    def create_from_args(args: argparse.Namespace) -> Runner:
        if is_open(args) and not Known.of(args).is_certain:
            return RaceRunner.create_from_args(args)
        return ReadingsRunner.create_from_args(args)

    @staticmethod
    def examples() -> Sequence[str]:
        return ExtractionRunner.examples()


def is_open(args: argparse.Namespace) -> bool:
    """Whether parsed flags may leave the depth or the activation function open."""
    has_model = args.default_hparams is not None or args.model_name is not None
    return not has_model or args.depth is not None or any(mark in (args.act_fun or "") for mark in (AUTO, "+"))


class Unfinished(Exception):
    """A run of a race is not finished. The argument is its extraction."""


@dataclass
class RaceRunner(Runner):
    """A race of hypotheses about the network behind some answers.

    `shape` is its numbers of inputs and outputs, and `links` are those that its answers may have; an empty one is that which is noticed.
    `recovery` says why derivatives have found no network, if they were tried.
    """

    known: Known
    shape: tuple[int, int]
    links: Sequence[str] = ("",)
    recovery: Recovery | None = None

    @staticmethod
    def description() -> str:
        return ExtractionRunner.description()

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        ExtractCommand.add_args(parser)

    @staticmethod
    def create_from_args(args: argparse.Namespace) -> RaceRunner:
        from extraction.live import derived

        known = Known.of(args)
        hparams = DatasetHparams(**{"dataset_name": "teacher", "batch_size": 1} | dict(known.changes["dataset_hparams"]))
        name = hparams.teacher_name or ""
        if training_job.is_model(name):
            raise ConfigError(
                f"--teacher_name: {name} is a model, which would be trained with the activation function of the students; valid where that "
                "is not known: a hash or a file of answers"
            )
        chosen = known.changes["extraction_hparams"].get("seeds_from", SEEDS[0])
        if hparams.datagen is None and derived.may_come_first(name, chosen):
            queries = derived.usual_queries(known.changes["extraction_hparams"].get("domain"))
            hparams = dataclasses.replace(hparams, datagen=queries)
            known = known.changed("dataset_hparams", datagen=queries)
        dataset = training_job.check_teacher(hparams, None, known.job)
        other = dataset.teacher.other_link if dataset.teacher and hparams.query_budget is None else None
        runner = RaceRunner(known, dataset.shape, ("", other) if other else ("",))
        for hypothesis in (runner.hypotheses[0], runner.hypotheses[-1]):
            runner.extraction(runner.entry(hypothesis, rungs.RUNGS[-1]))  # a check
        return runner

    @property
    def hypotheses(self) -> list[Hypothesis]:
        """All hypotheses, those with fewer layers first."""
        return hypotheses(self.known.depths, self.known.act_funs, self.links)

    @property
    def output_location(self) -> str:
        """The folder of the result, or that of the next run as long as there is no result."""
        return self._current.output_location

    @property
    def desc(self) -> ExtractionDesc:
        """The hyperparameters of the run in `output_location`."""
        return self._current.desc

    @property
    def is_finished(self) -> bool:
        return self._current.is_finished

    @property
    def _current(self) -> ExtractionRunner:
        """The extraction of the result, or the next one as long as there is no result."""

        def refuse(extraction: ExtractionRunner) -> NoReturn:
            raise Unfinished(extraction)

        from extraction.live import derived
        from extraction.racing import derived_race

        first = self._first()
        if derived.comes_first(first.desc, first.teacher):
            found: list[Architecture] = []
            for link in self.links:
                first = self._first(link)
                architecture = derived_race.recorded(first)
                if architecture is None:
                    return first
                if architecture.sizes:
                    return self._derived(architecture, first, link)
                found.append(architecture)
            return self._after(found)._current
        if not is_trained(first):
            return first
        try:
            outcome = race.race(self.track(Ways(refuse, refuse), first, lambda line: None), self.hypotheses)
        except Unfinished as stop:
            return stop.args[0]
        return self.extraction(outcome.entry) if outcome else first

    def _first(self, link: str = "") -> ExtractionRunner:
        """The extraction of the first hypothesis with a link."""
        first = next(hypothesis for hypothesis in self.hypotheses if hypothesis.link == link)
        return self.extraction(self.entry(first, rungs.RUNGS[0]))

    def _changes(self, link: str) -> Mapping[str, Mapping[str, Any]]:
        """The hyperparameters that were given, by bundle and field, and the link of a hypothesis."""
        return (self.known.changed("dataset_hparams", link=link) if link else self.known).changes

    def _after(self, found: Sequence[Architecture]) -> RaceRunner:
        """The race of students, after derivatives have found no network under any link."""
        from extraction.live import derived

        known = dataclasses.replace(self.known, changes=found[0].without_derivatives(self.known.changes))
        return dataclasses.replace(self, known=known, recovery=derived.refused("; ".join(found[0].lacks), found[0].queries))

    def _derived(self, found: Architecture, first: ExtractionRunner, link: str, recovery: Recovery | None = None) -> ExtractionRunner:
        """The ordinary extraction of a network that derivatives have found.

        Args:
            found: its architecture.
            first: the extraction whose teacher was asked.
            link: of the hypothesis.
            recovery: the network, where it is at hand.
        """
        job = dataclasses.replace(self.known.job, quiet=True)
        desc, _, _ = check(found.as_given(self._changes(link)), job)
        return ExtractionRunner(desc, job, first.teacher, first.prepare, recovery)

    def run(self) -> None:
        from extraction.live import derived

        first = self._first()
        if derived.comes_first(first.desc, first.teacher):
            self._run_derivatives()
        else:
            self._run_race(first)

    def _run_derivatives(self) -> None:
        """Tries derivatives under every link, and runs the race of students where they find no network."""
        from extraction.live import derived
        from extraction.racing import derived_race

        refused: list[Architecture] = []
        for link in self.links:
            first = self._first(link)
            found, recovery = derived_race.recorded(first), None
            if found is None:
                under = f", if the answers are those of a {link}" if link else ""
                self.say(f"Derivatives of the teacher show its depth, widths and activation function, if they can{under}")
                recovery = derived_race.attempt(first)
                found = derived_race.Architecture.of(recovery)
            if found.sizes:
                command, extraction = self.flags(found.as_given(self._changes(link))), self._derived(found, first, link, recovery)
                with provenance.command_line(command):
                    extraction.run()
                self._present(extraction, found.act_fun, command)
                return
            refused.append(found)
        self.say(f"Note: {derived.refusal(self._first().desc, refused[0].lacks)}. Students begin.")
        self._after(refused).run()

    def _present(self, extraction: ExtractionRunner, act_fun: str, command: Sequence[str], lines: Sequence[str] = ()) -> None:
        """Prints the result, further lines, and the ordinary command that gives the same.

        Args:
            extraction: finished.
            act_fun: the activation function of the network.
            command: the arguments of `EC.py`.
            lines: what else is to be said.
        """
        from extraction.reporting import verdict

        self.say(f"Report, pictures and the recovered network: {extraction.output_location}")
        for line in extraction.meaning:
            self.say(line)
        self.say(verdict.table(report.read(extraction.output_location)))
        same = remark(act_fun)
        for line in [*lines, *([f"Note: {same}"] if same and len(self.known.act_funs) > 1 else [])]:
            self.say(line)
        self.say(f"The same result by an ordinary command: {shlex.join(['python', 'EC.py', *command])}")

    def _run_race(self, first: ExtractionRunner) -> None:
        """Runs the race, and prints its result."""
        known = self.known
        readings = f"; answers as they are, or of a {' or '.join(filter(None, self.links))}" if any(self.links) else ""
        self.say(f"Hypotheses: {' or '.join(map(str, known.depths))} hidden layers, {', '.join(known.act_funs)}{readings}")
        track, took_part = self.track(Ways(train, recover), first, self.say), []

        def trained(entry: Entry) -> Standing:
            took_part.append(entry)
            return track.train(entry)

        outcome = race.race(dataclasses.replace(track, train=trained), self.hypotheses)
        self.mark_dropped(took_part)
        if outcome is None or math.isinf(outcome.loss):
            raise ConfigError(
                f"under none of the {len(self.hypotheses)} hypotheses could a network be recovered: "
                f"{outcome.reason if outcome else 'the answers are too few for the smallest students; use more queries'}"
            )
        lines = []
        if not outcome.accepted:
            lines.append(
                f"No hypothesis is accepted. The nearest is {outcome.entry.hypothesis}, whose network misses held-out answers by "
                f"{math.sqrt(outcome.loss):.1e} of their standard deviation."
            )
        if outcome.rivals:
            lines.append(f"Note: the answers are too inexact to rule out {', '.join(map(str, outcome.rivals))}.")
        self._present(self.extraction(outcome.entry), outcome.entry.hypothesis.act_fun, self.command(outcome.entry), lines)

    def mark_dropped(self, entries: Sequence[Entry]) -> None:
        """Marks the students from which no network was recovered."""
        mark_dropped([(self.extraction(entry), str(entry.hypothesis)) for entry in entries])

    def say(self, line: str) -> None:
        """Prints a line, unless the run is quiet."""
        if not self.known.job.quiet:
            print(line, flush=True)

    def entry(self, hypothesis: Hypothesis, rung: Rung) -> Entry:
        """A hypothesis with the first students of a rung."""
        return Entry(hypothesis, rung, rung.width(self.known.width))

    def extraction(self, entry: Entry) -> ExtractionRunner:
        """The ordinary extraction of an entry, after its check."""
        job = dataclasses.replace(self.known.job, quiet=True)
        desc, teacher, prepare = check(self.as_given(entry), job)
        return ExtractionRunner(desc, job, teacher, prepare, self.recovery)

    def better_hypothesis(self, entry: Entry, queries: torch.Tensor) -> Hypothesis | None:
        """The hypothesis with another slope under which the exact network of an entry has fewer neurons; None where there is none.

        A slope is estimated where leaky_relu is a hypothesis; leaky_relu:SLOPE states it.
        """
        from extraction.network import Layers
        from extraction.racing.slopes import better_act_fun
        from models import registry as models
        from models.mlp import FullyConnected
        from models.slopes import slope_of

        if "leaky_relu" not in self.known.act_funs or slope_of(entry.hypothesis.act_fun) is None:
            return None
        found = report.read(self.extraction(entry).output_location)
        if not found.certificate.is_met_exactly:
            return None
        network = models.load(found.model_path, ModelHparams(found.model_name, "kaiming_normal", "uniform", found.act_fun))
        assert isinstance(network, FullyConnected)
        act_fun = better_act_fun(Layers.of(network.double()), queries)
        return dataclasses.replace(entry.hypothesis, act_fun=act_fun) if act_fun else None

    def as_given(self, entry: Entry) -> ExtractionDesc:
        """The hyperparameters of an entry, with the teacher as the user named it."""
        known, rung = self.known, entry.rung
        name = entry.hypothesis.students(rung.students, entry.width, self.shape)
        if rung.steps is None and known.students and len(widths_of(known.students)) == entry.hypothesis.depth:
            name = known.students if entry.width <= max(widths_of(known.students)) + 1 else name
        desc = ExtractionDesc.default_for(name)
        changes = dict(self._changes(entry.hypothesis.link))
        if rung.steps is not None:
            changes["training_hparams"] = rungs.short_training(rung, entry.hypothesis, rungs.unknowns_of(name))
        bundles = {bundle: dataclasses.replace(getattr(desc, bundle), **values) for bundle, values in changes.items()}
        bundles["model_hparams"].act_fun = entry.hypothesis.act_fun
        return ExtractionDesc(**bundles)

    def command(self, entry: Entry) -> list[str]:
        """The arguments of `EC.py` that run the extraction of an entry."""
        return self.flags(self.as_given(entry))

    def flags(self, desc: ExtractionDesc) -> list[str]:
        """The arguments of `EC.py` that run an extraction with these hyperparameters."""
        job = dataclasses.replace(self.known.job, default_hparams=None, display_output_location=False, quiet=False)
        defaults = ExtractionDesc.default_for(desc.model_hparams.model_name)
        pairs = [(getattr(desc, bundle), getattr(defaults, bundle)) for bundle in BUNDLES] + [(job, JobArgs())]
        flags = [flag for bundle, default in pairs for flag in flags_of(bundle, default)]
        return ["extract", f"--default_hparams={desc.model_hparams.model_name}", *flags]

    def track(self, ways: Ways, first: ExtractionRunner, say: Callable[[str], None]) -> Track:
        """What the logic of the race needs.

        Args:
            ways: what is done with an extraction that is not finished.
            first: an extraction of the race.
            say: prints a line.
        """
        from extraction.reporting.diagnosis import CROWDED, IMITATED

        scale_of = functools.cache(lambda link: Scale.of(self._first(link) if link else first))
        scale = scale_of("")

        def trained(entry: Entry) -> Standing:
            extraction = self.extraction(entry)
            if not is_trained(extraction):
                with provenance.command_line(self.command(entry)):
                    ways.train(extraction)
            return Standing(entry, *(loss / scale_of(entry.hypothesis.link).inside for loss in best_losses(extraction)))

        def recovered(entry: Entry) -> Outcome:
            extraction = self.extraction(entry)
            if not extraction.is_finished:
                with provenance.command_line(self.command(entry)):
                    try:
                        ways.recover(extraction)
                    except Busy:
                        raise
                    except ConfigError as error:
                        say(f"  {error}")
                        return Outcome(entry, False, reason=str(error))
            found = report.read(extraction.output_location)
            widths = zip(found.hidden, widths_of(extraction.desc.model_hparams.model_name), strict=True)
            crowded = any((layer.recovered_width or 0) >= CROWDED * width for layer, width in widths)
            accepted = found.certificate.accepted or found.certificate.accepted_to_precision
            return Outcome(entry, accepted, found.function.mse / scale_of(entry.hypothesis.link).own, crowded)

        def recovered_with_slope(entry: Entry) -> Outcome:
            outcome = recovered(entry)
            better = None if outcome.reason else self.better_hypothesis(entry, scale.queries)
            if better is None:
                return outcome
            say(f"The network has fewer neurons with {better.act_fun}")
            factor = rungs.RUNGS[-1].factor / entry.rung.factor
            last = Entry(better, rungs.RUNGS[-1], math.ceil(factor * entry.width))
            for other in dict.fromkeys((dataclasses.replace(entry, hypothesis=better), last)):
                if trained(other).is_ready or other.rung is last.rung:
                    smaller = recovered(other)
                    if smaller.accepted:
                        return smaller
            return outcome

        def fits(entry: Entry) -> bool:
            unknowns = rungs.unknowns_of(self.as_given(entry).model_hparams.model_name)
            return unknowns * EQUATIONS <= scale.numbers and rungs.suits(entry.rung, unknowns)

        return Track(rungs.RUNGS, self.known.width, scale.exact, IMITATED, trained, recovered_with_slope, say, fits)


@dataclass(frozen=True)
class Ways:
    """What is done with an extraction whose students are not trained, and with one whose network is not recovered."""

    train: Callable[[ExtractionRunner], None]
    recover: Callable[[ExtractionRunner], None]


def train(extraction: ExtractionRunner) -> None:
    """Trains the students of an extraction."""
    from training import arithmetic

    arithmetic.check(extraction.desc.training_hparams)
    with locks.held(extraction.students_location):
        extraction.train_students(Stopwatch())


def recover(extraction: ExtractionRunner) -> None:
    """Runs an extraction."""
    extraction.run()

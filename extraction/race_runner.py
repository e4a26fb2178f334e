"""The command `extract`, also for a network of unknown depth or activation function, where it is a race of ordinary extractions.

A race keeps no record of its own. Every run of it is an ordinary extraction with an ordinary name, so that the same command finds what is
finished, and goes on from there.

What tells hypotheses apart is Levenberg-Marquardt. Four students of 12 neurons a layer, held-out losses as shares of the variance of the
answers (networks of `testing/benchmarks/black_boxes.py`, 3,000 to 6,000 answers; the number of steps of Levenberg-Marquardt is given):

    network         steps   right          others
    12-5-2 relu     10      4e-15          leaky_relu 2e-7, else 3e-3 and more
    6-4-2 tanh      10      5e-12          1e-3 and more with one layer
    9-3-5-1 tanh    10      3e-11          5e-4 and more with two layers
    9-4-6-5-2 tanh  60      2e-7           gelu 1e-3, two layers of tanh 2e-4
    8-3-3-2 gelu    60      7e-6           tanh 9e-5, silu 9e-5, softplus 2e-4, relu 1e-3
    5-4-4-3 relu    60      7e-4           leaky_relu 3e-3, gelu 3e-3

Adam alone does not: after 3,000 steps the students of 8-3-3-2 gelu were at 4e-4 with gelu, 3e-4 with tanh and 4e-4 with silu. Larger first
or least dampings changed nothing. Students with one layer more lose less before they are near the solution, so that the best of each depth
goes on: after 120 steps, 8-3-3-2 gelu was at 4e-5 with two layers of gelu, and at 2e-5 with three of silu.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from extraction import race, report
from extraction.desc import ExtractionDesc
from extraction.hypothesis import AUTO, DEPTHS, Hypothesis, HypothesisArgs, hypotheses, parse_act_funs, parse_depths, remark
from extraction.race import Entry, Outcome, Rung, Standing, Track
from extraction.runner import ExtractionRunner, Stopwatch, check
from foundations import paths
from foundations.arguments import ArgumentParser
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import Busy, ConfigError
from foundations.extraction_hparams import SEEDS, ExtractionHparams
from foundations.hparams import Hparams
from foundations.model_hparams import ModelHparams
from foundations.runner import Runner
from foundations.training_hparams import TrainingHparams
from platforms.platform import get_platform
from platforms.system import locks, provenance
from training import job as training_job
from training.job import JobArgs

if TYPE_CHECKING:
    from datasets.base import DataLoader
    from extraction.derivatives.result import Recovery
    from extraction.derived_race import Architecture

BUNDLES: Mapping[str, type[Hparams]] = {
    "dataset_hparams": DatasetHparams,
    "model_hparams": ModelHparams,
    "training_hparams": TrainingHparams,
    "extraction_hparams": ExtractionHparams,
}
WIDTH = 12  # of the students of the first rungs
RUNGS = (
    Rung(students=4, factor=1, kept=3, steps=1000, polish_steps=10),
    Rung(students=4, factor=1, kept=1, steps=2000, polish_steps=40),
    Rung(students=6, factor=1, kept=1, steps=2000, polish_steps=120),
    Rung(students=6, factor=2, kept=1),
)
POLISHED = 800  # weights and biases of a student up to which Levenberg-Marquardt ranks hypotheses
UNPOLISHED = 6  # times as long students are trained that are not polished
EXACT = 1e-16  # the relative loss of students that give exact answers
PRECISION = 3.0  # students whose errors are this many times those of the answers give them as exactly as they are known
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
        return ExtractionRunner.create_from_args(args)

    @staticmethod
    def examples() -> Sequence[str]:
        return ExtractionRunner.examples()


def is_open(args: argparse.Namespace) -> bool:
    """Whether parsed flags may leave the depth or the activation function open."""
    has_model = args.default_hparams is not None or args.model_name is not None
    return not has_model or args.depth is not None or any(mark in (args.act_fun or "") for mark in (AUTO, "+"))


@dataclass(frozen=True)
class Known:
    """What the user has stated.

    Attributes:
        depths: the numbers of hidden layers to try.
        act_funs: the activation functions to try.
        width: of the students of the first rungs.
        students: the name of the students, if it was given.
        changes: the hyperparameters that were given, by bundle and field.
        job: the arguments of the run.
    """

    depths: Sequence[int]
    act_funs: Sequence[str]
    width: int
    students: str | None
    changes: Mapping[str, Mapping[str, Any]]
    job: JobArgs

    @property
    def is_certain(self) -> bool:
        """Whether the students are given, and nothing is open."""
        return self.students is not None and len(self.depths) == len(self.act_funs) == 1

    def changed(self, bundle: str, **values: object) -> Known:
        """The same with other hyperparameters."""
        return dataclasses.replace(self, changes={**self.changes, bundle: {**self.changes[bundle], **values}})

    @classmethod
    def of(cls, args: argparse.Namespace) -> Known:
        """What parsed flags state.

        Raises:
            ConfigError: they contradict each other, or name no teacher.
        """
        job, depths, act_funs = JobArgs.create_from_args(args), parse_depths(args.depth), parse_act_funs(args.act_fun)
        if args.teacher_name is None:
            raise ConfigError("--teacher_name is required without a model; give it, or start from --default_hparams=NAME")
        base = ExtractionDesc.default_for(job.default_hparams) if job.default_hparams else None
        name, width = args.model_name or (base and base.model_hparams.model_name), WIDTH
        if name is not None:
            widths = widths_of(name)
            width = -(-max(widths) // RUNGS[-1].factor)
            if args.depth is None:
                depths = (len(widths),)
            elif args.depth != AUTO and len(widths) not in depths:
                raise ConfigError(f"--depth: {args.depth} contradicts {name}, whose hidden layers are {len(widths)}; leave one of them out")
        return cls(depths, act_funs, width, name, given(args, base), job)


def given(args: argparse.Namespace, base: ExtractionDesc | None) -> dict[str, dict[str, Any]]:
    """The hyperparameters that parsed flags give, by bundle and field; those of the dataset also where they are defaults of a model.

    Args:
        args: the parsed flags.
        base: the defaults of the model, if one was given.
    """
    changes: dict[str, dict[str, Any]] = {}
    for bundle, kind in BUNDLES.items():
        defaults = getattr(base, bundle) if base and bundle != "dataset_hparams" else None
        values = {field.name: getattr(args, field.name) for field, _ in kind.hyperparameters()}
        for name in ("model_name", "act_fun"):
            values.pop(name, None)
        changes[bundle] = {
            name: value for name, value in values.items() if value is not None and (not defaults or value != getattr(defaults, name))
        }
    return changes


def widths_of(students: str) -> list[int]:
    """The hidden widths of a stack of students.

    Raises:
        ConfigError: the name is that of another model.
    """
    from models.students import Model as Students

    parsed = Students.parse(students)
    if parsed is None:
        raise ConfigError(f"--model_name: {students} is not a stack of students; valid: {', '.join(Students.name_rules())}")
    family, _, single = parsed
    return family.layer_sizes(single)[1:-1]


class Unfinished(Exception):
    """A run of a race is not finished. The argument is its extraction."""


@dataclass
class RaceRunner(Runner):
    """A race of hypotheses about the network behind some answers.

    `shape` is its numbers of inputs and outputs. `recovery` says why derivatives have found no network, if they were tried.
    """

    known: Known
    shape: tuple[int, int]
    recovery: Recovery | None = None

    @staticmethod
    def description() -> str:
        return ExtractionRunner.description()

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        ExtractCommand.add_args(parser)

    @staticmethod
    def create_from_args(args: argparse.Namespace) -> RaceRunner:
        from extraction import derived

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
            hparams = dataclasses.replace(hparams, datagen=derived.USUAL_QUERIES)
            known = known.changed("dataset_hparams", datagen=derived.USUAL_QUERIES)
        runner = RaceRunner(known, training_job.check_teacher(hparams, None, known.job).shape)
        for hypothesis in (runner.hypotheses[0], runner.hypotheses[-1]):
            runner.extraction(runner.entry(hypothesis, RUNGS[-1]))  # a check
        return runner

    @property
    def hypotheses(self) -> list[Hypothesis]:
        """All hypotheses, those with fewer layers first."""
        return hypotheses(self.known.depths, self.known.act_funs)

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

        from extraction import derived, derived_race

        first = self._first
        if derived.comes_first(first.desc, first.teacher):
            found = derived_race.recorded(first)
            if found is None:
                return first
            return self._derived(found, first) if found.sizes else self._after(found)._current
        if not is_trained(first):
            return first
        try:
            outcome = race.race(self.track(Ways(refuse, refuse), first, lambda line: None), self.hypotheses)
        except Unfinished as stop:
            return stop.args[0]
        return self.extraction(outcome.entry) if outcome else first

    @property
    def _first(self) -> ExtractionRunner:
        """The extraction of the first hypothesis."""
        return self.extraction(self.entry(self.hypotheses[0], RUNGS[0]))

    def _after(self, found: Architecture) -> RaceRunner:
        """The race of students, after derivatives have found no network."""
        from extraction import derived

        known = dataclasses.replace(self.known, changes=found.without_derivatives(self.known.changes))
        return RaceRunner(known, self.shape, derived.refused("; ".join(found.lacks), found.queries))

    def _derived(self, found: Architecture, first: ExtractionRunner, recovery: Recovery | None = None) -> ExtractionRunner:
        """The ordinary extraction of a network that derivatives have found.

        Args:
            found: its architecture.
            first: the extraction whose teacher was asked.
            recovery: the network, where it is at hand.
        """
        job = dataclasses.replace(self.known.job, quiet=True)
        desc, _, _ = check(found.as_given(self.known.changes), job)
        return ExtractionRunner(desc, job, first.teacher, first.prepare, recovery)

    def run(self) -> None:
        from extraction import derived

        first = self._first
        if derived.comes_first(first.desc, first.teacher):
            self._run_derivatives(first)
        else:
            self._run_race(first)

    def _run_derivatives(self, first: ExtractionRunner) -> None:
        """Tries derivatives, and runs the race of students where they find no network."""
        from extraction import derived, derived_race

        found, recovery = derived_race.recorded(first), None
        if found is None:
            self.say("Derivatives of the teacher show its depth, widths and activation function, if they can")
            recovery = derived_race.attempt(first)
            found = derived_race.Architecture.of(recovery)
        if not found.sizes:
            self.say(f"Note: {derived.refusal(first.desc, found.lacks)}. Students begin.")
            self._after(found).run()
            return
        command, extraction = self.flags(found.as_given(self.known.changes)), self._derived(found, first, recovery)
        with provenance.command_line(command):
            extraction.run()
        self._present(extraction, found.act_fun, command)

    def _present(self, extraction: ExtractionRunner, act_fun: str, command: Sequence[str], lines: Sequence[str] = ()) -> None:
        """Prints the result, further lines, and the ordinary command that gives the same.

        Args:
            extraction: finished.
            act_fun: the activation function of the network.
            command: the arguments of `EC.py`.
            lines: what else is to be said.
        """
        from extraction import verdict

        self.say(f"Report, pictures and the recovered network: {extraction.output_location}")
        self.say(verdict.table(report.read(extraction.output_location)))
        same = remark(act_fun)
        for line in [*lines, *([f"Note: {same}"] if same and len(self.known.act_funs) > 1 else [])]:
            self.say(line)
        self.say(f"The same result by an ordinary command: {shlex.join(['python', 'EC.py', *command])}")

    def _run_race(self, first: ExtractionRunner) -> None:
        """Runs the race, and prints its result."""
        known = self.known
        self.say(f"Hypotheses: {' or '.join(map(str, known.depths))} hidden layers, {', '.join(known.act_funs)}")
        outcome = race.race(self.track(Ways(train, recover), first, self.say), self.hypotheses)
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

    def say(self, line: str) -> None:
        """Prints a line, unless the run is quiet."""
        if not self.known.job.quiet:
            print(line, flush=True)

    def entry(self, hypothesis: Hypothesis, rung: Rung) -> Entry:
        """A hypothesis with the first students of a rung."""
        return Entry(hypothesis, rung, rung.factor * self.known.width)

    def extraction(self, entry: Entry) -> ExtractionRunner:
        """The ordinary extraction of an entry, after its check."""
        job = dataclasses.replace(self.known.job, quiet=True)
        desc, teacher, prepare = check(self.as_given(entry), job)
        return ExtractionRunner(desc, job, teacher, prepare, self.recovery)

    def as_given(self, entry: Entry) -> ExtractionDesc:
        """The hyperparameters of an entry, with the teacher as the user named it."""
        known, rung = self.known, entry.rung
        name = entry.hypothesis.students(rung.students, entry.width, self.shape)
        if rung.steps is None and known.students and len(widths_of(known.students)) == entry.hypothesis.depth:
            name = known.students if entry.width <= max(widths_of(known.students)) + 1 else name
        desc = ExtractionDesc.default_for(name)
        changes = dict(known.changes)
        if rung.steps is not None:
            changes["training_hparams"] = short_training(rung, entry.hypothesis, unknowns_of(name))
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
        from extraction.diagnosis import CROWDED, IMITATED

        scale = Scale.of(first)

        def trained(entry: Entry) -> Standing:
            extraction = self.extraction(entry)
            if not is_trained(extraction):
                with provenance.command_line(self.command(entry)):
                    ways.train(extraction)
            return Standing(entry, *(loss / scale.inside for loss in best_losses(extraction)))

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
            return Outcome(entry, accepted, found.function.mse / scale.own, crowded)

        def fits(entry: Entry) -> bool:
            return unknowns_of(self.as_given(entry).model_hparams.model_name) * EQUATIONS <= scale.numbers

        return Track(RUNGS, self.known.width, scale.exact, IMITATED, trained, recovered, say, fits)


def short_training(rung: Rung, hypothesis: Hypothesis, unknowns: int) -> dict[str, Any]:
    """The hyperparameters of training in a rung before the last.

    Args:
        rung: with its number of steps.
        hypothesis: of the students.
        unknowns: weights and biases of a student.
    """
    assert rung.steps is not None
    if rung.polish_steps is None or unknowns > POLISHED:
        return {"training_steps": f"{UNPOLISHED * rung.steps}it"}
    polish_steps = rung.polish_steps * DEPTHS[-1] // hypothesis.depth
    steps = {"training_steps": f"{rung.steps}it", "polish_steps": f"{polish_steps}it"}
    return steps | {"polish_optimizer": "levenberg_marquardt"}


@dataclass(frozen=True)
class Ways:
    """What is done with an extraction whose students are not trained, and with one whose network is not recovered."""

    train: Callable[[ExtractionRunner], None]
    recover: Callable[[ExtractionRunner], None]


@dataclass(frozen=True)
class Scale:
    """What the losses of a race are compared with.

    Attributes:
        inside: the variance of the held-out answers as students see them.
        own: their variance as the user has them.
        exact: the relative loss of students that give the answers as exactly as these are known.
        numbers: in the answers for training.
    """

    inside: float
    own: float
    exact: float
    numbers: int

    @classmethod
    def of(cls, extraction: ExtractionRunner) -> Scale:
        """The scale of the queries and answers of an extraction, which is recorded as started.

        Raises:
            ConfigError: the answers are an affine map of the queries.
        """
        with locks.held(extraction.students_location):
            session, _ = extraction.start()
        exact = max(EXACT, (PRECISION * max(session.known.shares)) ** 2)
        if affine_loss(session.loaders.train) <= exact:
            raise ConfigError("--teacher_name: the answers are an affine map of the queries; no hidden layer shows in them")
        variance, own_variance = (float(one.loaders.test.labels.var(0).mean()) or 1.0 for one in (session, session.unscaled))
        return cls(variance, own_variance, exact, session.answers.numel())


def affine_loss(loader: DataLoader) -> float:
    """The error of the best affine map of the queries, as a share of the variance of the answers."""
    from extraction.network import fit_outputs, with_ones

    errors = with_ones(loader.examples) @ fit_outputs(loader.examples, loader.labels) - loader.labels
    return float(errors.square().mean() / loader.labels.var(0).mean())


def flags_of(bundle: Hparams, defaults: Hparams) -> list[str]:
    """The flags of the hyperparameters that differ from their defaults."""
    flags = []
    for field in dataclasses.fields(bundle):
        value = getattr(bundle, field.name)
        if value == getattr(defaults, field.name):
            continue
        if isinstance(value, bool):
            flags.append(f"--{field.name}" if value else f"--no-{field.name}")
        else:
            flags.append(f"--{field.name}={value}")
    return flags


def unknowns_of(students: str) -> int:
    """The weights and biases of one of the students with this name."""
    from models.students import Model as Students

    parsed = Students.parse(students)
    assert parsed is not None
    family, _, single = parsed
    sizes = family.layer_sizes(single)
    return sum((before + 1) * after for before, after in zip(sizes[:-1], sizes[1:], strict=True))


def is_trained(extraction: ExtractionRunner) -> bool:
    """Whether the students of an extraction are trained, and polished where that is asked for."""
    return training_job.is_finished(extraction.students_location) and get_platform().exists(paths.logger(_last_folder(extraction)))


def _last_folder(extraction: ExtractionRunner) -> str:
    """The folder of the last training of the students: that of the polishing where they are polished."""
    location = extraction.students_location
    if extraction.desc.training_hparams.polish_optimizer is None:
        return location
    weights = paths.latest_model(get_platform().listdir(location))
    assert weights is not None  # the training is finished
    return paths.polish(location, weights.removesuffix(".pth"))


def best_losses(extraction: ExtractionRunner) -> tuple[float, float]:
    """The losses of the best two students on the held-out answers, before or after polishing; infinite where students have diverged.

    Students of relu and leaky_relu may lose on held-out answers by polishing, which sees a part of the queries only.
    """
    from training.metric_logger import MetricLogger

    pairs = []
    for folder in (extraction.students_location, _last_folder(extraction)):
        losses = MetricLogger.load(folder).vectors("test_individual_losses")[-1][1]
        first, second, *_ = [*sorted(filter(math.isfinite, losses)), math.inf, math.inf]
        pairs.append((first, second))
    return min(pairs)


def train(extraction: ExtractionRunner) -> None:
    """Trains the students of an extraction."""
    from training import arithmetic

    arithmetic.check(extraction.desc.training_hparams)
    with locks.held(extraction.students_location):
        extraction.train_students(Stopwatch())


def recover(extraction: ExtractionRunner) -> None:
    """Runs an extraction."""
    extraction.run()

"""The command `extract`: trains students, reconstructs the network that they imitate, and reports."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from extraction import report
from extraction.desc import ExtractionDesc
from foundations import json_text, paths
from foundations.arguments import ArgumentParser
from foundations.errors import ConfigError, unknown
from foundations.runner import Runner
from platforms.platform import get_platform
from platforms.system import locks, provenance
from training import job as training_job
from training import run_records, teachers
from training.job import JobArgs

if TYPE_CHECKING:
    from datasets.base import Loaders
    from datasets.teachers.base import Teacher
    from extraction.derivatives.result import Recovery
    from extraction.report import Report
    from extraction.search import Reconstruction
    from extraction.session import Session
    from models.students import Model as Students


PICTURES = "pictures"  # the last phase, whose time is in the report once all pictures have been drawn


@dataclass
class ExtractionRunner(Runner):
    """One extraction.

    `prepare` makes missing inputs of the dataset, such as the trained teacher. `recovery` is what derivatives find, where that is known.
    `watch` has the seconds of the phases so far.
    """

    desc: ExtractionDesc
    job: JobArgs
    teacher: Teacher
    prepare: Callable[[], None]
    recovery: Recovery | None = None
    watch: Stopwatch = dataclasses.field(default_factory=lambda: Stopwatch())

    @staticmethod
    def description() -> str:
        return "Run Expand-and-Cluster: recover the weights of a network from its answers."

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        training_job.add_job_args(parser)
        name = parser.peek("default_hparams")
        ExtractionDesc.add_args(parser, ExtractionDesc.default_for(name) if name else None)

    @staticmethod
    def create_from_args(args: argparse.Namespace) -> ExtractionRunner:
        desc, job = ExtractionDesc.create_from_args(args), JobArgs.create_from_args(args)
        desc, teacher, prepare = check(desc, job)
        return ExtractionRunner(desc, job, teacher, prepare)

    @staticmethod
    def examples() -> Sequence[str]:
        students = "extract --default_hparams=students_digits_lenet"
        return students, f"{students} --act_fun tanh --datagen digits+random:4000"

    @property
    def students_location(self) -> str:
        """The run folder of the students."""
        return self.desc.run_path(get_platform().root, self.job.global_seed)

    @property
    def output_location(self) -> str:
        """The folder of the results."""
        return self.desc.clustering_path(get_platform().root, self.job.global_seed)

    @property
    def is_finished(self) -> bool:
        return not self.desc.training_hparams.continues and report.is_current(self.output_location, self.students_location)

    @property
    def _is_complete(self) -> bool:
        """Whether there is a current report, and no start was killed between the report and its pictures."""
        current = report.is_current(self.output_location, self.students_location)
        return current and PICTURES in report.read(self.output_location).seconds

    def run(self) -> None:
        """Extracts the network unless a current report exists, and prints the verdict."""
        self.announce()
        self.work()
        self.present()

    def announce(self) -> None:
        """Prints the hyperparameters and the folder, unless the run is quiet."""
        if not self.job.quiet:
            print(self.desc.banner(f"Running Expand-and-Cluster (Seed {self.job.global_seed})", self.output_location), flush=True)
            self._remark()

    def work(self) -> None:
        """Extracts the network unless a current report exists. Pictures and a page that are missing are made."""
        from training import plotting

        if not (self.is_finished and self._is_complete):
            self._extract()
        else:
            plotting.draw_missing_curves(self.students_location)
            if not get_platform().exists(paths.page(self.output_location)):
                self._write_page(report.read(self.output_location))
        locks.remove_dead(self.output_location)

    def present(self) -> None:
        """Prints the verdict, unless the run is quiet."""
        from extraction.reporting import verdict

        if not self.job.quiet:
            print(f"Report, pictures and the recovered network: {self.output_location}")
            for line in self.meaning:
                print(line)
            print(verdict.table(report.read(self.output_location)))

    @property
    def meaning(self) -> list[str]:
        """What the recovered network gives, a line; empty if the answers are its outputs."""
        from datasets.teachers import links

        link = self.desc.dataset_hparams.link
        return [links.MEANINGS[link]] if link in links.MEANINGS else []

    def _remark(self) -> None:
        """Prints a note on settings that are allowed but probably a mistake."""
        teachers.print_remark(self.desc)
        theirs, ours = self.teacher.model_hparams, self.desc.model_hparams
        if theirs and theirs.act_fun != ours.act_fun:
            print(f"Note: the teacher's activation function is {theirs.act_fun}; that of the students is {ours.act_fun} (--act_fun).")

    def _extract(self) -> None:
        """Everything from the teacher to the report and its pictures; another process may have made them in the meantime."""
        from training import arithmetic

        arithmetic.check(self.desc.training_hparams)
        watch = self.watch
        with locks.held(self.students_location):
            recovery = self._derived(watch)
            if recovery is not None and recovery.layers is not None:
                students, session = None, self._start_derived(recovery, watch)
            else:
                students, session = self.train_students(watch)
        with locks.held(self.output_location):
            if not self._is_complete:
                provenance.record(self.output_location, session.seed)
                self._reconstruct(students, session, watch, recovery)

    def _derived(self, watch: Stopwatch) -> Recovery | None:
        """What derivatives find of the teacher; None where they are not tried.

        Raises:
            ConfigError: they alone are wanted, and find no network.
        """
        from extraction.live import derived

        if not derived.comes_first(self.desc, self.teacher):
            return self.recovery
        with watch("teacher"):
            self.prepare()
        recovery = self.recovery or derived.attempt(self.desc, self.teacher)
        watch.seconds["derivatives"] = recovery.seconds
        if recovery.layers is None:
            reason = derived.refusal(self.desc, recovery.lacks)
            if not self.job.quiet:
                print(f"Note: {reason}. Students begin.", flush=True)
        elif not self.job.quiet:
            sizes = "-".join(map(str, recovery.layers.sizes))
            print(f"Derivatives find the network: {sizes}, {recovery.layers.act_fun}, from {recovery.queries:,} queries", flush=True)
        return recovery

    def _start_derived(self, recovery: Recovery, watch: Stopwatch) -> Session:
        """The session in which a network of derivatives is examined. The run is recorded in its folder."""
        from extraction.live import derived

        seed = run_records.resolve_seed(self.students_location, self.job.global_seed)
        run_records.record(self.desc, self.students_location, seed, (self.teacher.inputs, self.teacher.outputs))
        with watch("fresh queries"):
            session = derived.session_of(self.desc, self.teacher, recovery, self.output_location, seed)
        return dataclasses.replace(session, verbose=not self.job.quiet)

    def train_students(self, watch: Stopwatch) -> tuple[Students, Session]:
        """The trained students, and the session of the steps after them."""
        from extraction import students
        from training.plan import StandardPlan

        with watch("teacher"):
            session, loaders = self.start()
        for remark in session.remarks:
            session.say(f"Note: {remark}.")
        with watch("students"):
            identity, evaluate_only_at_end = training_job.identity(self.desc, session.seed, self.job), self.job.evaluate_only_at_end
            plan = StandardPlan(verbose=session.verbose, evaluate_only_at_end=evaluate_only_at_end, identity=identity)
            return students.train_students(session, loaders, plan), session

    def start(self) -> tuple[Session, Loaders]:
        """The session before students are trained, and the queries and answers in the number format of their training.

        The run is recorded in its folder.
        """
        from datasets import registry as datasets
        from datasets.base import Loaders
        from extraction.preparation import suspects
        from extraction.preparation.rows import Rows
        from extraction.preparation.scaling import Scaling
        from extraction.reporting.diagnosis import hidden_widths
        from extraction.session import Session, in_float64

        self.prepare()
        shape = self.teacher.inputs, self.teacher.outputs
        seed = run_records.resolve_seed(self.students_location, self.job.global_seed)
        loaders = Loaders(*datasets.get_both(self.desc.dataset_hparams, self.desc.training_hparams, seed))
        own_rows = suspects.settled(Rows.of(loaders), self.students_location) if self.teacher.model_hparams is None else None
        widths = hidden_widths(self.desc.model_hparams.model_name)
        scaling = Scaling.settled(own_rows.kept.train, self.students_location, widths) if own_rows else None
        run_records.record(self.desc, self.students_location, seed, shape)
        every_row, own_rows = own_rows, own_rows.without_rare(scaling) if own_rows else None
        rows = own_rows.scaled(scaling) if own_rows else None
        loaders = rows.kept if rows else loaders
        exact = Loaders(*(in_float64(loader, seed=seed) for loader in loaders))
        asked = self.teacher if self.teacher.is_askable else None
        session = Session(self.desc, exact, self.output_location, not self.job.quiet, scaling=scaling, teacher=asked)
        if own_rows and rows:
            session = session.of_file(own_rows, rows, every_row)
        return session.with_precision(), loaders

    def _reconstruct(self, students: Students | None, session: Session, watch: Stopwatch, recovery: Recovery | None) -> None:
        """Everything from trained students, or from the network of derivatives, to the report."""
        from extraction import search
        from extraction.live import derived

        with watch("reconstruction"):
            self._record()
            try:
                if students is not None:
                    result = search.reconstruct(session, students)
                else:
                    assert recovery is not None
                    result = derived.reconstruction(session, recovery)
            except ConfigError as error:
                if students is None or not self._shortage:
                    raise
                raise ConfigError(f"{error} {self._shortage}.") from error
        get_platform().on_primary(lambda: self._report(session, dataclasses.replace(result, derivatives=recovery), watch))

    def _report(self, session: Session, result: Reconstruction, watch: Stopwatch) -> None:
        """Judges a reconstruction, writes its report, and then draws its pictures and its page."""
        from datasets.teachers.live import LiveTeacher
        from extraction import plotting
        from extraction.certification import examination
        from extraction.network import Layers
        from extraction.reporting import export, next_step
        from models.mlp import FullyConnected
        from training.plotting import attempt

        with watch("certificate"):
            examined = examination.examine(session, result)
        with watch("comparison"):
            teacher = self.teacher.load()
            assert teacher is None or isinstance(teacher, FullyConnected)  # `check` refuses all other teachers
            points, (inputs, outputs) = examined.points, self.teacher.columns
            content = dataclasses.replace(examined.report(teacher, ([*inputs], [*outputs])), residuals=points.summary)
            if isinstance(self.teacher, LiveTeacher):
                notes = [*content.notes, *([self.teacher.note] if self.teacher.noise else [])]
                shortage = self._shortage if result.losses else ""
                content = dataclasses.replace(content, queries=self.teacher.questions.counts, shortage=shortage, notes=notes)
            else:
                content = dataclasses.replace(content, queries=result.asked)
            content = next_step.added(content, examined.advice, provenance.last_command(self.output_location))
        report.write(self.output_location, dataclasses.replace(content, seconds=watch.seconds))
        recovered = examined.result.unscaled
        with watch("export"):
            program = export.program(recovered.network, examined.session.linear_term)
            get_platform().write(paths.exported_program(self.output_location), program)
        with watch(PICTURES):
            errors = examined.errors if examined.certificate.fits else None
            shown = plotting.Shown(recovered, Layers.of(teacher) if teacher else None, content.columns, points, errors)
            folder = paths.plots(self.output_location)
            remedy = f"delete {paths.report(self.output_location)} and run the same command again to draw it"
            attempt(folder, lambda: plotting.draw(shown, self.students_location, folder, remedy), remedy)
        content = dataclasses.replace(content, seconds=watch.seconds)
        report.write(self.output_location, content)
        self._write_page(content)

    @property
    def _shortage(self) -> str:
        """What the budget of queries has left out, as a sentence; empty if nothing."""
        from datasets.teachers.live import LiveTeacher

        return self.teacher.shortage(str(self.desc.dataset_hparams.datagen)) if isinstance(self.teacher, LiveTeacher) else ""

    def _write_page(self, content: Report) -> None:
        """Writes the page of a report, from files that exist already."""
        from training.plotting import attempt

        def write() -> None:
            from extraction.reporting import page

            with locks.held(self.output_location):
                page.write(self.output_location, self.students_location, content)

        attempt(paths.page(self.output_location), write, "run the same command again to write it")

    def _record(self) -> None:
        """Writes the extraction's hyperparameters beside its results."""
        h = self.desc.extraction_hparams
        get_platform().write(paths.hparams_log(self.output_location, "extraction_"), h.display + "\n")
        get_platform().write(paths.hparams_dict(self.output_location, "extraction_"), json_text.dumps(h.to_dict(), indent=2) + "\n")


class Stopwatch:
    """The seconds of each phase; `with watch(name)` surrounds a phase, or a part of it."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[phase] = round(self.seconds.get(phase, 0.0) + time.monotonic() - started, 3)


def check(desc: ExtractionDesc, job: JobArgs) -> tuple[ExtractionDesc, Teacher, Callable[[], None]]:
    """Checks that an extraction can be run, without writing anything.

    Returns:
        The descriptor in its canonical form, the teacher, and the function that makes the teacher where it is missing.

    Raises:
        ConfigError: something cannot be run.
    """
    from datasets import boruta
    from datasets import registry as datasets
    from datasets.teachers import run_folders
    from extraction.live import derived
    from models import registry as models
    from models.students import Model as Students
    from training import optimizers

    name, h = desc.model_hparams.model_name, desc.extraction_hparams
    parsed = Students.parse(name)
    if parsed is None:
        raise ConfigError(f"--model_name: {name} is not a stack of students; valid: {', '.join(Students.name_rules())}")
    datasets.check(desc.dataset_hparams)
    if desc.dataset_hparams.dataset_name != "teacher":
        raise ConfigError(f"--dataset_name: {desc.dataset_hparams.dataset_name} has no teacher to extract; valid: teacher")
    _, students, _ = parsed
    if h.gamma * students < 2:
        raise ConfigError(f"--gamma: {h.gamma} of {students} students is fewer than two; valid: 2/N or more, or more students")
    if h.finetune_optimizer not in optimizers.OPTIMIZERS:
        raise unknown("--finetune_optimizer", h.finetune_optimizer, optimizers.OPTIMIZERS)
    polish = desc.training_hparams.polish_optimizer
    if polish not in (None, *optimizers.SECOND_ORDER):
        raise unknown("--polish_optimizer", polish, optimizers.SECOND_ORDER)
    for frozen in ("batchnorm_frozen", "output_frozen", "others_frozen"):
        if getattr(desc.model_hparams, frozen):
            raise ConfigError(f"--{frozen}: students with frozen weights cannot imitate the teacher; leave out the flag")
    dataset = training_job.check(derived.with_usual_queries(desc), job)
    teacher = dataset.teacher
    assert teacher is not None
    derived.check(desc, teacher)
    if teacher.model_hparams and models.meta_model(teacher.model_hparams).channels is not None:
        raise ConfigError(f"--teacher_name: {teacher.model_hparams.model_name} is convolutional; extract recovers fully connected networks")
    if h.domain is not None and not teacher.is_askable:
        raise ConfigError("--domain: valid only with a teacher that can be asked, not with a file of answers")
    if h.boruta is not None:
        boruta.check(h.boruta, dataset.shape[0])
    desc = teachers.settle(dataclasses.replace(desc, dataset_hparams=dataset.dataset_hparams), job.global_seed)
    return desc, run_folders.located(teacher, desc.dataset_hparams), functools.cache(dataset.prepare)

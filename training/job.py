"""What all training commands share: common flags, checks before anything is written, the teacher, the seed, and a training run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from foundations.arguments import ArgumentParser
from foundations.dataset_hparams import DatasetHparams
from foundations.desc import Desc
from foundations.errors import ConfigError, unknown
from foundations.hparams import Hparams
from foundations.seeds import DRAWN, LARGEST, NOT_CHOSEN, derive
from foundations.training_hparams import TrainingHparams
from platforms.platform import get_platform
from platforms.system import files, locks
from training import adoption, run_records, teachers
from training.desc import TrainingDesc

if TYPE_CHECKING:
    from datasets.teachers.base import Teacher
    from datasets.teachers.live import LiveTeacher
    from foundations.model_hparams import ModelHparams
    from training.trackers.base import Identity

FILE_FLAGS = ("arrays", "outputs")  # of DatasetHparams: only for a file of answers
OWN_FLAGS = ("link", "teacher_file")  # only for a file of answers or a black box
LIVE_FLAGS = ("query_budget", "oracle_batch_size")  # only for a black box
NETWORK_FLAGS = ("teacher_folder", "teacher_digest")  # only for a network in a run folder
TRACKER_MODES = ("online", "offline")
Run = TypeVar("Run", bound="TrainingRun")


@dataclass
class JobArgs(Hparams):
    """Arguments of a single run, which are not part of its hash."""

    default_hparams: str | None = None
    global_seed: int = NOT_CHOSEN
    display_output_location: bool = False
    evaluate_only_at_end: bool = False
    quiet: bool = False
    tracker: str | None = None
    tracker_mode: str | None = None

    _name = "Job Arguments"
    _description = "The default hyperparameters, and settings of this run that do not change the name of the experiment."
    _default_hparams = (
        "The name of a model whose default hyperparameters are used. Other flags override them. With --help, the defaults are shown."
    )
    _global_seed = "The random seed of the run. -1: a seed is drawn, recorded, and reused when the run is resumed."
    _display_output_location = "Print the output folder of this run and exit."
    _evaluate_only_at_end = "Evaluate only before and after training."
    _quiet = "Print nothing during the run."
    _tracker = "Send telemetry to this tracker during the run. Join several trackers by +."
    _tracker_mode = "Whether wandb works online or offline (default: the environment variable WANDB_MODE)."

    def __post_init__(self):
        self.require("global_seed", NOT_CHOSEN <= self.global_seed <= LARGEST, f"-1 (not chosen) to {LARGEST}")
        if self.tracker_mode not in (None, *TRACKER_MODES):
            raise unknown("--tracker_mode", self.tracker_mode, TRACKER_MODES)


def add_job_args(parser: ArgumentParser) -> None:
    """Adds the flags that all training commands share."""
    from training.trackers import registry as trackers

    JobArgs.add_args(parser, choices={"tracker": list(trackers.registered_trackers), "tracker_mode": TRACKER_MODES})


@dataclass(frozen=True)
class CheckedDataset:
    """The dataset of a descriptor that has been checked.

    Attributes:
        dataset_hparams: its hyperparameters in canonical form.
        shape: the number of values of an example, and the number of outputs that the model needs.
        teacher: the teacher that answers the queries; None unless the dataset is `teacher`.
        prepare: creates what the dataset needs and lacks, such as a trained teacher.
    """

    dataset_hparams: DatasetHparams
    shape: tuple[int, int]
    teacher: Teacher | None
    prepare: Callable[[], None]


@dataclass
class TrainingRun:
    """A training run that has been checked.

    Attributes:
        desc: its hyperparameters in canonical form.
        job: the arguments of this run, such as its seed.
        shape: the number of values of an example, and the number of outputs that the model needs.
        prepare: creates what the dataset needs and lacks, such as a trained teacher.
        epoch_lines: whether every evaluation is printed.
    """

    desc: TrainingDesc
    job: JobArgs
    shape: tuple[int, int]
    prepare: Callable[[], None]
    epoch_lines: bool = True

    @classmethod
    def create(cls: type[Run], desc: TrainingDesc, job: JobArgs) -> Run:
        """Checks a descriptor and creates its run.

        Raises:
            ConfigError: a hyperparameter is invalid.
        """
        refuse_polishing(desc.training_hparams)
        dataset = check(desc, job)
        desc = teachers.settle(dataclasses.replace(desc, dataset_hparams=dataset.dataset_hparams), job.global_seed)
        return cls(desc, job, dataset.shape, dataset.prepare)

    @property
    def output_location(self) -> str:
        """The run folder."""
        return self.desc.run_path(get_platform().root, self.job.global_seed)

    @property
    def is_finished(self) -> bool:
        """Whether training is complete and no further training is requested."""
        return not self.desc.training_hparams.continues and run_records.is_finished(self.output_location)

    def run(self) -> None:
        """Trains the model unless that is done, and prints the result."""
        from training import plotting

        if not self.job.quiet:
            print(self.desc.banner(f"Training a Model (Seed {self.job.global_seed})", self.output_location), flush=True)
            teachers.print_remark(self.desc)
        if self.is_finished:
            plotting.draw_missing_curves(self.output_location)
        else:
            from training import arithmetic

            arithmetic.check(self.desc.training_hparams)
            with locks.held(self.output_location):
                adoption.adopt(self.desc, self.job.global_seed, self.shape, self.job.quiet)
                if not self.is_finished:
                    self._train()
        locks.remove_dead(self.output_location)
        if not self.job.quiet:
            print(run_records.summary(self.output_location))

    def _train(self) -> None:
        from datasets import registry as datasets
        from models import registry as models
        from training import batches
        from training.plan import StandardPlan
        from training.train import standard_train

        self.prepare()
        seed = run_records.resolve_seed(self.output_location, self.job.global_seed)
        model = models.get(self.desc.model_hparams, self.shape[1], seed)
        loaders = datasets.get_both(self.desc.dataset_hparams, self.desc.training_hparams, seed)
        batches.check(self.desc.model_hparams, self.shape[1], self.desc.training_hparams, loaders[0])
        run_records.record(self.desc, self.output_location, seed, self.shape)
        plan = StandardPlan(
            verbose=not self.job.quiet,
            epoch_lines=self.epoch_lines,
            evaluate_only_at_end=self.job.evaluate_only_at_end,
            identity=identity(self.desc, seed, self.job),
        )
        standard_train(self.desc.training_hparams, model, loaders, self.output_location, plan)


def check(desc: TrainingDesc, job: JobArgs) -> CheckedDataset:
    """Checks the dataset, the model and the training of a descriptor, and that they fit together. Writes nothing.

    Raises:
        ConfigError: a hyperparameter is invalid.
    """
    from datasets import registry as datasets
    from models import registry as models
    from training import optimizers
    from training.trackers import registry as trackers

    trackers.check(job.tracker, job.tracker_mode)
    hparams = desc.dataset_hparams
    datasets.check(hparams)
    models.check(desc.model_hparams)
    optimizers.check(desc.training_hparams, classes=hparams.dataset_name != "teacher")
    if hparams.dataset_name == "teacher":
        dataset = check_teacher(hparams, desc.model_hparams, job)
        check_magnitude(dataset, desc.training_hparams)
    else:
        for name in (
            "teacher_name",
            "datagen",
            "samples",
            "d_in",
            "teacher_folder",
            "teacher_digest",
            *FILE_FLAGS,
            *OWN_FLAGS,
            *LIVE_FLAGS,
        ):
            if getattr(hparams, name) is not None:
                raise ConfigError(f"--{name}: valid only with --dataset_name teacher, not with {hparams.dataset_name}")
        dataset = CheckedDataset(hparams, datasets.shape(hparams), None, lambda: None)
    models.check_fits(desc.model_hparams, *dataset.shape, datasets.image_shape(dataset.dataset_hparams))
    check_freezing(desc)
    check_centring(desc)
    refuse_ambiguity(dataclasses.replace(desc, dataset_hparams=dataset.dataset_hparams))
    return dataset


def refuse_ambiguity(desc: TrainingDesc) -> None:
    """Raises a ConfigError for hyperparameters with which OpenLTH, under the same name, trains in another way.

    The error also names the runs with these hyperparameters that an earlier version has trained.
    """
    from training import optimizers

    reason, folder = optimizers.ambiguity(desc.training_hparams), os.path.join(get_platform().root, desc.hashname)
    if reason and get_platform().exists(folder):
        reason += f" ({desc.hashname} was trained by an earlier version, which used these values in its own way; it stays as it is)"
    if reason:
        raise ConfigError(reason)


def check_magnitude(dataset: CheckedDataset, training_hparams: TrainingHparams) -> None:
    """Raises a ConfigError if the numbers in a file of answers are infinite in the number format of training."""
    import torch

    from datasets import teacher_dataset

    if dataset.teacher is not None:
        teacher_dataset.check_magnitude(dataset.teacher.largest, getattr(torch, training_hparams.stored_precision))


def refuse_polishing(training_hparams: TrainingHparams, prefix: str = "") -> None:
    """Raises a ConfigError if `--polish_optimizer` is set; for commands other than `extract`. `prefix` is the prefix of the flags."""
    if training_hparams.polish_optimizer is not None:
        raise ConfigError(f"--{prefix}polish_optimizer: only extract polishes students; leave it out, or choose --{prefix}optimizer_name")


def check_freezing(desc: TrainingDesc) -> None:
    """Raises a ConfigError for frozen layers of students with Levenberg-Marquardt, which would use those of the first student for all."""
    from models.students import Model as Students
    from training.optimizers import LEAST_SQUARES

    h, name = desc.model_hparams, desc.training_hparams.optimizer_name
    if name in LEAST_SQUARES and Students.is_valid_model_name(h.model_name) and (h.output_frozen or h.others_frozen):
        raise ConfigError(
            f"--optimizer_name: {name} cannot train frozen students; use lbfgs, or leave out --output_frozen and --others_frozen"
        )


def check_centring(desc: TrainingDesc) -> None:
    """Raises a ConfigError for `--centred` with a network that is not fully connected."""
    from models import registry as models
    from models.mlp import Perceptron

    name = desc.model_hparams.model_name
    if desc.training_hparams.centred and not issubclass(models.family_of(name), Perceptron):
        raise ConfigError(f"--centred: valid only for fully connected networks and their students, not for {name}")


def check_teacher(hparams: DatasetHparams, model_hparams: ModelHparams | None, job: JobArgs) -> CheckedDataset:
    """Checks the dataset `teacher`, and resolves `--teacher_name`: a hash or its prefix, a model's name, a file of answers, or a black box.

    A model's name stands for its default run with the activation function of the model that is trained. A black box that does not say how
    many inputs it takes has those of this model. It is asked its first questions here, which it keeps in its ledger.

    Returns:
        The dataset, with the teacher's full name and the canonical queries among its hyperparameters.

    Raises:
        ConfigError: the teacher does not exist, or its queries are invalid.
    """
    from datasets.teachers import registry as registered
    from datasets.teachers import run_folders
    from datasets.teachers.live import LiveTeacher
    from datasets.teachers.stored_answers import AnswerFile
    from models import registry as models

    name, folder, prepare = hparams.teacher_name, hparams.teacher_folder, lambda: None
    if name is None:
        raise ConfigError(
            "--teacher_name is required with --dataset_name teacher: a hash, a model's name, a file of answers or a black box"
        )
    kind = registered.recognised(name)
    if issubclass(kind, LiveTeacher):
        return _check_live(hparams, kind, model_hparams, job)
    _refuse(hparams, LIVE_FLAGS, f"valid only with a black box as teacher, not with {name}")
    if kind is AnswerFile:
        return _check_file(hparams, name, job)
    _refuse(hparams, (*FILE_FLAGS, *OWN_FLAGS), f"valid only with a file of answers as teacher, not with {name}")
    if is_model(name):
        assert model_hparams is not None  # without one, a race has refused the name of a model
        teacher, folder, prepare = _default_teacher(name, hparams, model_hparams.act_fun, job)
    else:
        name = run_folders.resolve(name)
        derived = _derived_seed(hparams, job)
        if derived is not None and run_records.is_finished(run_folders.location_of(name, derived)):
            folder = f"seed_{derived}"
        teacher = run_folders.find(name, hparams.teacher_seed, folder)
    if teacher.model_hparams and hasattr(models.family_of(teacher.model_hparams.model_name), "individual_losses"):
        raise ConfigError(f"--teacher_name: {name} is a stack of students, not a single network; valid: a single network")
    return _checked_teacher(hparams, teacher, prepare, teacher_seed=hparams.teacher_seed, teacher_folder=folder)


def _check_file(hparams: DatasetHparams, name: str, job: JobArgs) -> CheckedDataset:
    """The part of `check_teacher` for a file of answers."""
    from datasets.teachers import answer_files, stored_answers

    _refuse(hparams, NETWORK_FLAGS, "valid only with a network as teacher; the name of a file of answers contains its digest")
    teacher, content = stored_answers.inspect_answers(name, answer_files.Layout(hparams.arrays, hparams.outputs, hparams.link))

    def prepare() -> None:
        files.write_if_changed(stored_answers.answers_path(teacher.name), content)
        if teacher.note and not job.quiet:
            print(f"Note: {teacher.note}.")

    file = hparams.teacher_file or answer_files.label(name)
    resolved = {"teacher_seed": NOT_CHOSEN, "teacher_file": file, "arrays": None, "outputs": None, "link": teacher.link}
    return _checked_teacher(hparams, teacher, prepare, **resolved)


def _check_live(hparams: DatasetHparams, kind: type[LiveTeacher], model_hparams: ModelHparams | None, job: JobArgs) -> CheckedDataset:
    """The part of `check_teacher` for a black box, which is asked its first questions."""
    from datasets.teachers import registry as registered
    from models import registry as models

    _refuse(hparams, FILE_FLAGS, f"valid only with a file of answers as teacher, not with {hparams.teacher_name}")
    _refuse(hparams, NETWORK_FLAGS, "valid only with a network as teacher; the name of a black box contains its digest")
    named = kind.named(registered.name_of(kind), hparams, models.meta_model(model_hparams).input_size if model_hparams else None)
    queries = _queries(hparams, named)
    assert queries is not None  # only a file of answers has its own
    teacher = named.started(queries, hparams.link)

    def prepare() -> None:
        teacher.begin(job.quiet)
        for note in filter(None, [teacher.note, teacher.shortage(queries)]):
            if not job.quiet:
                print(f"Note: {note}.")

    resolved = {"teacher_seed": NOT_CHOSEN, "teacher_file": hparams.teacher_file or teacher.label, "link": teacher.link}
    return _checked_teacher(hparams, teacher, prepare, **resolved)


def _refuse(hparams: DatasetHparams, flags: Sequence[str], why: str) -> None:
    """Raises a ConfigError if one of some flags is set."""
    for flag in flags:
        if getattr(hparams, flag) is not None:
            raise ConfigError(f"--{flag}: {why}")


def _checked_teacher(hparams: DatasetHparams, teacher: Teacher, prepare: Callable[[], None], **resolved: object) -> CheckedDataset:
    """The dataset of a teacher; `resolved` are further hyperparameters in canonical form."""
    if hparams.d_in not in (None, teacher.inputs):
        raise ConfigError(f"--d_in: {hparams.d_in} is wrong; {teacher.name} takes {teacher.inputs} inputs")
    resolved |= {"teacher_name": teacher.name, "datagen": _queries(hparams, teacher), "samples": None, "d_in": None}
    return CheckedDataset(dataclasses.replace(hparams, **resolved), (teacher.inputs, teacher.outputs), teacher, prepare)


def _queries(hparams: DatasetHparams, teacher: Teacher) -> str | None:
    """The canonical form of the queries to a teacher; None for a file of answers, which contains its queries."""
    from datasets.datagen import registry as datagen
    from datasets.teachers.live import LiveTeacher
    from datasets.teachers.stored_answers import AnswerFile

    if isinstance(teacher, AnswerFile):
        if hparams.samples not in (None, teacher.count):
            raise ConfigError(f"--samples: {hparams.samples} is wrong; {hparams.teacher_name} contains {teacher.count} pairs")
        return None
    if hparams.datagen is None:
        who = "a black box" if isinstance(teacher, LiveTeacher) else "a network"
        raise ConfigError(f"--datagen is required with {who} as teacher; valid: {', '.join(datagen.names())}, joined by +")
    return datagen.resolve(hparams.datagen, teacher.inputs, hparams.samples, teacher.dataset_name)


def is_model(name: str) -> bool:
    """Whether a name is the name of a model."""
    from models import registry as models

    try:
        models.resolve(name)
    except ConfigError:
        return False
    return True


def _derived_seed(hparams: DatasetHparams, job: JobArgs) -> int | None:
    """The seed of a teacher that is trained for a run with a chosen seed; None if the teacher's own seed is chosen, or neither is."""
    if hparams.teacher_seed != NOT_CHOSEN or hparams.teacher_folder is not None or job.global_seed == NOT_CHOSEN:
        return None
    return derive(job.global_seed, "teacher") % DRAWN


def _default_teacher(name: str, hparams: DatasetHparams, act_fun: str, job: JobArgs) -> tuple[Teacher, str | None, Callable[[], None]]:
    """The default run of a model as a teacher, the folder of its seed, and a function that trains it if it has not been trained."""
    from datasets.teachers import run_folders

    desc = TrainingDesc.default_for(name)
    desc.model_hparams.act_fun = act_fun
    run = TrainingRun.create(desc, dataclasses.replace(job, global_seed=hparams.teacher_seed, display_output_location=False))
    run.epoch_lines = False
    hashname, folder = run.desc.hashname, hparams.teacher_folder
    derived = _derived_seed(hparams, job)
    if derived is not None and (
        run_records.is_finished(run_folders.location_of(hashname, derived)) or not run_records.is_finished(run.output_location)
    ):
        run.job.global_seed, folder = derived, f"seed_{derived}"
    elif folder is not None:
        return run_folders.find(hashname, hparams.teacher_seed, folder), folder, lambda: None
    location = run_folders.location_of(hashname, hparams.teacher_seed, folder)
    if location != run.output_location and not run_records.is_finished(location):  # an unfinished run of OpenLTH
        location, folder = run.output_location, f"seed_{hparams.teacher_seed}"
    dataset_name = run.desc.dataset_hparams.dataset_name
    teacher = run_folders.TrainedNetwork(hashname, *run.shape, run.desc.model_hparams, dataset_name, location=location)

    def prepare() -> None:
        if not run_records.is_finished(location):
            get_platform().on_primary(run.run)  # so that its bits do not depend on the number of processes

    return teacher, folder, prepare


def identity(desc: Desc, seed: int, job: JobArgs) -> Identity:
    """What the provenance and the trackers record of a run."""
    from training.trackers.base import Identity

    return Identity({name: bundle.to_dict() for name, bundle in desc.bundles().items()}, seed, job.tracker, job.tracker_mode)

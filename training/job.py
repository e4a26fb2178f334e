"""What commands that train share: their common flags, checks before anything is written, a teacher, a seed, and a training run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from foundations import paths
from foundations.arguments import ArgumentParser
from foundations.dataset_hparams import DatasetHparams
from foundations.desc import Desc
from foundations.errors import ConfigError, unknown
from foundations.hparams import Hparams
from foundations.seeds import NOT_CHOSEN, draw
from foundations.training_hparams import TrainingHparams
from platforms.platform import get_platform
from platforms.system import files, locks
from training.desc import TrainingDesc

if TYPE_CHECKING:
    from datasets.teacher_dataset import Teacher
    from training.trackers.base import Identity

TRACKER_MODES = ("online", "offline")
Run = TypeVar("Run", bound="TrainingRun")


@dataclass
class JobArgs(Hparams):
    """What belongs to one run of an experiment and not to the experiment."""

    default_hparams: str | None = None
    global_seed: int = NOT_CHOSEN
    display_output_location: bool = False
    evaluate_only_at_end: bool = False
    quiet: bool = False
    tracker: str | None = None
    tracker_mode: str | None = None

    _name = "Job Arguments"
    _description = "Where hyperparameters start from, and what belongs to this run rather than to the experiment."
    _default_hparams = (
        "Fill in the hyperparameters that this model trains well with; flags beside it still win, and --help beside it shows them."
    )
    _global_seed = "The seed of everything random in the run. -1: one is drawn, recorded, and used again on resuming."
    _display_output_location = "Print where the results of this run are, or would be, and leave."
    _evaluate_only_at_end = "Evaluate before and after training only."
    _quiet = "Print nothing while running."
    _tracker = "Show telemetry while the run is at work; several are joined by +."
    _tracker_mode = "Whether wandb is online or offline (what WANDB_MODE says when left out)."

    def __post_init__(self):
        self.require("global_seed", self.global_seed >= NOT_CHOSEN, "-1 (not chosen) or more")
        if self.tracker_mode not in (None, *TRACKER_MODES):
            raise unknown("--tracker_mode", self.tracker_mode, TRACKER_MODES)


def add_job_args(parser: ArgumentParser) -> None:
    """Adds the flags that every command has which trains."""
    from training.trackers import registry as trackers

    JobArgs.add_args(parser, choices={"tracker": list(trackers.registered_trackers), "tracker_mode": TRACKER_MODES})


@dataclass
class TrainingRun:
    """One training run, checked.

    Attributes:
        desc: its hyperparameters, in canonical form.
        job: which of its runs, and what it prints.
        shape: the values of an example, and the outputs that the model needs.
        prepare: makes what the dataset lacks, such as a trained teacher.
        epoch_lines: whether every evaluation is printed.
    """

    desc: TrainingDesc
    job: JobArgs
    shape: tuple[int, int]
    prepare: Callable[[], None]
    epoch_lines: bool = True

    @classmethod
    def create(cls: type[Run], desc: TrainingDesc, job: JobArgs) -> Run:
        """The run of a descriptor, checked.

        Raises:
            ConfigError: something in the descriptor cannot be run.
        """
        refuse_polishing(desc.training_hparams)
        dataset_hparams, shape, _, prepare = check(desc, job)
        return cls(dataclasses.replace(desc, dataset_hparams=dataset_hparams), job, shape, prepare)

    @property
    def output_location(self) -> str:
        """The run folder."""
        return self.desc.run_path(get_platform().root, self.job.global_seed)

    @property
    def is_finished(self) -> bool:
        """Whether it has been trained, and is not to be trained further."""
        return not self.desc.training_hparams.further_training and is_finished(self.output_location)

    def run(self) -> None:
        """Trains the model, unless it is trained, and prints the outcome."""
        if not self.job.quiet:
            print(self.desc.banner(f"Training a Model (Seed {self.job.global_seed})", self.output_location), flush=True)
        if not self.is_finished:
            from training import arithmetic

            arithmetic.check(self.desc.training_hparams)
            with locks.held(self.output_location):
                if not self.is_finished:
                    self._train()
        locks.remove_dead(self.output_location)
        if not self.job.quiet:
            print(summary(self.output_location))

    def _train(self) -> None:
        from datasets import registry as datasets
        from models import registry as models
        from training.plan import StandardPlan
        from training.train import standard_train

        self.prepare()
        seed = settle_seed(self.output_location, self.job.global_seed)
        model = models.get(self.desc.model_hparams, self.shape[1], seed)
        loaders = datasets.get_both(self.desc.dataset_hparams, self.desc.training_hparams, seed)
        record(self.desc, self.output_location, seed, self.shape)
        plan = StandardPlan(
            verbose=not self.job.quiet,
            epoch_lines=self.epoch_lines,
            evaluate_only_at_end=self.job.evaluate_only_at_end,
            identity=identity(self.desc, seed, self.job),
        )
        standard_train(self.desc.training_hparams, model, loaders, self.output_location, plan)


def is_finished(location: str) -> bool:
    """Whether a run has trained to its end: its log and its weights are then in place."""
    return get_platform().exists(paths.logger(location)) and paths.latest_model(get_platform().listdir(location)) is not None


def summary(location: str) -> str:
    """The outcome of a finished run, in a line."""
    from training import metric_logger

    logger = metric_logger.MetricLogger.load(location)
    shown = [f"loss {metric_logger.numbers(logger, 'test_loss', location)[-1][1]:.4g}"]
    if logger.get("test_accuracy"):
        shown.append(f"accuracy {metric_logger.numbers(logger, 'test_accuracy', location)[-1][1]:.2%}")
    return f"Finished: test {', '.join(shown)}"


def check(desc: TrainingDesc, job: JobArgs) -> tuple[DatasetHparams, tuple[int, int], Teacher | None, Callable[[], None]]:
    """Checks the dataset, the model and the training of a descriptor, and that they fit together, writing nothing.

    Returns:
        The dataset's hyperparameters in their canonical form; its shape; its teacher; what must run before it can be made.

    Raises:
        ConfigError: something cannot be run.
    """
    from datasets import registry as datasets
    from models import registry as models
    from training import optimizers
    from training.trackers import registry as trackers

    trackers.check(job.tracker, job.tracker_mode)
    hparams, teacher, prepare = desc.dataset_hparams, None, lambda: None
    datasets.check(hparams)
    models.check(desc.model_hparams)
    optimizers.check(desc.training_hparams, classes=hparams.dataset_name != "teacher")
    if hparams.dataset_name == "teacher":
        hparams, teacher, prepare = arrange_teacher(hparams, desc.model_hparams.act_fun, job)
        shape = teacher.inputs, teacher.outputs
    else:
        for name in ("teacher_name", "datagen", "samples", "d_in"):
            if getattr(hparams, name) is not None:
                raise ConfigError(f"--{name}: goes with --dataset_name teacher only, not with {hparams.dataset_name}")
        shape = datasets.shape(hparams)
    models.check_fits(desc.model_hparams, *shape, datasets.image_shape(hparams))
    check_freezing(desc)
    check_centring(desc)
    return hparams, shape, teacher, prepare


def refuse_polishing(training_hparams: TrainingHparams, prefix: str = "") -> None:
    """Raises a ConfigError where students are to be polished, on behalf of a command that does not; `prefix` is that of the flags."""
    if training_hparams.polish_optimizer is not None:
        raise ConfigError(
            f"--{prefix}polish_optimizer: students are polished by extract only; here --{prefix}optimizer_name takes any optimizer"
        )


def check_freezing(desc: TrainingDesc) -> None:
    """Raises a ConfigError for frozen layers of students that a second-order optimizer would take to be the same in all of them."""
    from models.students import Model as Students

    h, name = desc.model_hparams, "levenberg_marquardt"
    if desc.training_hparams.optimizer_name == name and Students.is_valid_model_name(h.model_name) and (h.output_frozen or h.others_frozen):
        raise ConfigError(f"--optimizer_name: {name} trains students whole; leave out --output_frozen and --others_frozen, or use lbfgs")


def check_centring(desc: TrainingDesc) -> None:
    """Raises a ConfigError for centred steps of a network that is not fully connected."""
    from models import registry as models
    from models.mlp import Perceptron

    name = desc.model_hparams.model_name
    if desc.training_hparams.centred and not issubclass(models.family_of(name), Perceptron):
        raise ConfigError(f"--centred: is for fully connected networks and their students, not for {name}")


def arrange_teacher(hparams: DatasetHparams, act_fun: str, job: JobArgs) -> tuple[DatasetHparams, Teacher, Callable[[], None]]:
    """Finds the teacher that `--teacher_name` means, whichever way it is spelled.

    A model's name stands for its default run with the given activation function.

    Returns:
        The hyperparameters with the teacher's resolved name and the canonical queries; the teacher; and what makes it where it is absent.
    """
    from datasets import teacher_dataset
    from datasets.datagen import registry as datagen
    from models import registry as models

    name, prepare = hparams.teacher_name, lambda: None
    if name is None:
        raise ConfigError("--teacher_name is required with --dataset_name teacher: a hash, a model's name or a .npz file")
    if name.endswith(".npz"):
        teacher, content = teacher_dataset.inspect_answers(name)
        prepare = lambda: files.write_if_changed(teacher_dataset.answers_path(teacher.name), content)  # noqa: E731
    elif _is_model(name):
        teacher, prepare = _default_teacher(name, hparams.teacher_seed, act_fun, job)
    else:
        teacher = teacher_dataset.find(name, hparams.teacher_seed)
    if teacher.model_hparams and hasattr(models.family_of(teacher.model_hparams.model_name), "individual_losses"):
        raise ConfigError(f"--teacher_name: {name} is a stack of students, which gives many answers; valid: a single network")
    if hparams.d_in not in (None, teacher.inputs):
        raise ConfigError(f"--d_in: {hparams.d_in} is wrong; {teacher.name} takes {teacher.inputs}")
    if teacher.model_hparams is None:
        queries, seed = None, NOT_CHOSEN
        if hparams.samples not in (None, teacher.pairs):
            raise ConfigError(f"--samples: {hparams.samples} is wrong; {name} holds {teacher.pairs} pairs")
    else:
        if hparams.datagen is None:
            raise ConfigError(f"--datagen is required to ask a network; valid: {', '.join(datagen.registered_policies)}, joined by +")
        queries = datagen.resolve(hparams.datagen, teacher.inputs, hparams.samples, teacher.dataset_name)
        seed = hparams.teacher_seed
    canonical = dataclasses.replace(hparams, teacher_name=teacher.name, teacher_seed=seed, datagen=queries, samples=None, d_in=None)
    return canonical, teacher, prepare


def _is_model(name: str) -> bool:
    from models import registry as models

    try:
        models.resolve(name)
    except ConfigError:
        return False
    return True


def _default_teacher(name: str, seed: int, act_fun: str, job: JobArgs) -> tuple[Teacher, Callable[[], None]]:
    from datasets.teacher_dataset import Teacher

    desc = TrainingDesc.default_for(name)
    desc.model_hparams.act_fun = act_fun
    run = TrainingRun.create(desc, dataclasses.replace(job, global_seed=seed, display_output_location=False))
    run.epoch_lines = False
    dataset_name = run.desc.dataset_hparams.dataset_name
    teacher = Teacher(run.desc.hashname, *run.shape, run.desc.model_hparams, run.output_location, dataset_name)

    def prepare() -> None:
        if not is_finished(run.output_location):
            get_platform().on_primary(run.run)  # so that its answers are the same bits whatever the number of processes

    return teacher, prepare


def settle_seed(location: str, global_seed: int) -> int:
    """The seed of a run: the chosen one, or where none was chosen, the one that was drawn when the run first started, or a fresh one.

    Raises:
        ConfigError: the record of an earlier start is damaged.
    """
    path = paths.hparams_dict(location)
    if not get_platform().exists(path):
        return get_platform().on_primary(draw) if global_seed == NOT_CHOSEN else global_seed
    remedy = f"move {os.path.dirname(path)} away to start anew"
    content = files.read_json(path, remedy)
    seed = content.get("seed") if isinstance(content, dict) else None
    if type(seed) is not int or seed < 0:
        raise files.damaged(path, "it names no seed", remedy)
    return seed


def record(desc: Desc, location: str, seed: int, shape: tuple[int, int]) -> None:
    """Writes what names a run, its seed and its dataset's shape to its folder, unless it is there."""
    if get_platform().exists(paths.hparams_dict(location)):
        return
    get_platform().write(paths.hparams_log(location), desc.log + "\n")
    get_platform().write(paths.hparams_dict(location), desc.to_json(seed=seed, shape=list(shape)))


def identity(desc: Desc, seed: int, job: JobArgs) -> Identity:
    """A run as its provenance and its trackers know it."""
    from training.trackers.base import Identity

    return Identity({name: bundle.to_dict() for name, bundle in desc.bundles().items()}, seed, job.tracker, job.tracker_mode)

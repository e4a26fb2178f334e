"""The action `runs import`: copies runs of OpenLTH and of the published Expand-and-Cluster code to folders of this framework."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cli.runs import index
from foundations import ancestors, paths
from foundations.ancestors import Groups
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError
from foundations.extraction_hparams import ExtractionHparams
from foundations.model_hparams import ModelHparams
from foundations.seeds import NOT_CHOSEN
from foundations.training_hparams import TrainingHparams
from platforms.platform import get_platform
from platforms.system import locks
from training import adoption
from training.desc import TrainingDesc
from training.job import JobArgs, TrainingRun

TEACHER = "teacher_dataset"  # the name of the dataset `teacher` in the published code


@dataclass(frozen=True)
class Import:
    """A run that can be imported: its hyperparameters in canonical form, and the shape of its data."""

    desc: TrainingDesc
    shape: tuple[int, int]


def lines(folder: str) -> Iterator[str]:
    """Imports every run in a folder: a results folder, a folder of an experiment or a folder of a seed. Yields a line about each run.

    Raises:
        ConfigError: the folder contains no run of the two programs.
    """
    seeds = list(_seeds(os.path.abspath(folder)))
    if not seeds:
        valid = "valid: folders that contain <kind>_<hash>/replicate_<n> (OpenLTH) or <kind>_<10 digits>/seed_<n> (the published code)"
        raise ConfigError(f"runs import: {folder} contains no run of OpenLTH or of the published Expand-and-Cluster code; {valid}")
    for location in seeds:
        try:
            yield _import(location)
        except ConfigError as error:
            yield f"{location} has not been imported: {error}"


def _seeds(folder: str) -> Iterator[str]:
    """The folders of seeds in a folder. Teachers come before the students that need them."""
    if _is_seed(folder):
        yield folder
        return
    inner = [os.path.join(folder, name) for name in get_platform().listdir(folder)]
    if index.EXPERIMENT.fullmatch(os.path.basename(folder)):
        yield from filter(_is_seed, inner)
        return
    experiments = [path for path in inner if index.EXPERIMENT.fullmatch(os.path.basename(path))]
    for path in sorted(experiments, key=lambda path: (not os.path.basename(path).startswith("train_"), path)):
        yield from filter(_is_seed, (os.path.join(path, name) for name in get_platform().listdir(path)))


def _is_seed(path: str) -> bool:
    """Whether a path is the folder of a seed of one of the two programs."""
    experiment, seed = os.path.split(path)
    name = os.path.basename(experiment)
    if not (index.EXPERIMENT.fullmatch(name) and index.SEED.fullmatch(seed) and os.path.isdir(path)):
        return False
    return ancestors.program_of(os.path.join(name, seed)) is not None


def _import(location: str) -> str:
    """Imports the folder of a seed; returns a line about it.

    Raises:
        ConfigError: the run has hyperparameters that this framework lacks, or its folder cannot be read.
    """
    kind, seed = os.path.basename(os.path.dirname(location)).partition("_")[0], int(location.rpartition("_")[2])
    groups = adoption.hyperparameters(location)
    if kind in ("ec", "extract"):
        groups = _with_known_teacher(groups, os.path.dirname(os.path.dirname(location)))
    found = _BUILDERS[kind](groups, JobArgs(global_seed=seed, quiet=True))
    target = os.path.join(get_platform().root, found.desc.hashname, f"seed_{seed}")
    if get_platform().exists(paths.hparams_dict(found.desc.run_path(get_platform().root, seed))):
        return f"{location} has not been imported: {target} exists"
    with locks.held(target):
        adoption.import_run(found.desc, seed, found.shape, location)
    levels = [int(name.removeprefix("level_")) for name in get_platform().listdir(target) if re.fullmatch(r"level_\d+", name)]
    command = shlex.join([*_command(found.desc, seed), *(f"--levels={level}" for level in levels and [max(levels)])])
    return f"{location} has been copied to {target}\n    {command}"


def _command(desc: TrainingDesc, seed: int) -> list[str]:
    """The command that continues a run, without the number of levels."""
    bundles = desc.bundles()
    flags = {} if seed == NOT_CHOSEN else {"global_seed": seed}
    rewinding = getattr(desc, "rewinds_to_training", False)
    for name, bundle in bundles.items():
        prefix = "pretrain_" if name.startswith("pretrain_") else ""
        if prefix and rewinding:
            flags["rewinding_steps"] = vars(bundle).get("training_steps", flags.get("rewinding_steps"))
            continue
        defaults = {field.name: field.default for field, _ in bundle.hyperparameters()}
        flags |= {f"{prefix}{field}": value for field, value in vars(bundle).items() if value != defaults[field]}
    texts = [f"--{name}" if value is True else f"--{name}={value}" for name, value in flags.items()]
    if any(name.startswith("pretrain_") for name in bundles) and not rewinding:
        texts.append("--pretrain")
    return ["EC.py", desc.name_prefix(), *texts]


def _with_known_teacher(groups: Groups, root: str) -> Groups:
    """The hyperparameters of students, with the name in this results folder of their teacher, which is beside them in `root`.

    Raises:
        ConfigError: the teacher is not in this results folder.
    """
    dataset = dict(groups.get("dataset_hparams", {}))
    theirs = f"train_{dataset.get('teacher_name')}"
    name, seed = theirs, f"seed_{dataset.get('teacher_seed')}"
    if not get_platform().exists(os.path.join(get_platform().root, name)) and get_platform().exists(os.path.join(root, name, seed)):
        name = _training(adoption.hyperparameters(os.path.join(root, name, seed))).hashname
    if not get_platform().exists(os.path.join(get_platform().root, name, seed)):
        raise ConfigError(f"its teacher, {theirs}/{seed}, is not in {get_platform().root}; import or copy it first")
    if dataset.get("dataset_name") == TEACHER:
        dataset["dataset_name"] = "teacher"
    return groups | {"dataset_hparams": dataset | {"teacher_name": name}}


def _training(groups: Groups) -> TrainingDesc:
    kinds = {"dataset_hparams": DatasetHparams, "model_hparams": ModelHparams, "training_hparams": TrainingHparams}
    for name in kinds:
        if name not in groups:
            raise ConfigError(f"its log lacks the {kinds[name]._name}")
    return TrainingDesc(*(adoption.bundle(kind, groups[name]) for name, kind in kinds.items()))


def _train(groups: Groups, job: JobArgs) -> Import:
    run = TrainingRun.create(_training(groups), job)
    return Import(run.desc, run.shape)


def _lottery(groups: Groups, job: JobArgs) -> Import:
    from lottery import runner
    from lottery.desc import LotteryDesc
    from pruning import registry as pruning

    if "pruning_hparams" not in groups:
        raise ConfigError("its log lacks the hyperparameters of pruning")
    values = groups["pruning_hparams"]
    own = adoption.bundle(pruning.get_pruning_hparams(values["pruning_strategy"]), values)
    if groups["model_hparams"]["model_name"].startswith("students_"):
        raise ConfigError("pruned stacks of students cannot be continued here, because their layers have other names; they can be drawn")
    training, dataset = groups.get("pretrain_training_hparams"), groups.get("pretrain_dataset_hparams")
    pretraining = (
        adoption.bundle(DatasetHparams, dataset) if dataset else None,
        adoption.bundle(TrainingHparams, training) if training else None,
    )
    trained = _training(groups)
    desc = LotteryDesc(trained.dataset_hparams, trained.model_hparams, trained.training_hparams, own, *pretraining)
    desc, shape, _, _ = runner.check(desc, job)
    return Import(desc, shape)


def _extract(groups: Groups, job: JobArgs) -> Import:
    """The students of an extraction. The clustering of the published code stays where it is."""
    from extraction import runner
    from extraction.desc import ExtractionDesc

    trained, own = _training(groups), ExtractionHparams(gamma=1.0)
    desc = ExtractionDesc(trained.dataset_hparams, trained.model_hparams, trained.training_hparams, own)
    desc, teacher, _ = runner.check(desc, job)
    return Import(desc, (teacher.inputs, teacher.outputs))


_BUILDERS: dict[str, Callable[[Groups, JobArgs], Import]] = {"train": _train, "lottery": _lottery, "ec": _extract, "extract": _extract}

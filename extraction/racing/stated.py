"""What the flags of `extract` state of a network of unknown depth or activation function, and the flags that state it again."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from extraction.desc import ExtractionDesc
from extraction.hypothesis import AUTO, parse_act_funs, parse_depths
from extraction.racing import rungs
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError
from foundations.extraction_hparams import ExtractionHparams
from foundations.hparams import Hparams
from foundations.model_hparams import ModelHparams
from foundations.training_hparams import TrainingHparams
from training.job import JobArgs

BUNDLES: Mapping[str, type[Hparams]] = {
    "dataset_hparams": DatasetHparams,
    "model_hparams": ModelHparams,
    "training_hparams": TrainingHparams,
    "extraction_hparams": ExtractionHparams,
}


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
        name, width = args.model_name or (base and base.model_hparams.model_name), rungs.WIDTH
        if name is not None:
            widths = widths_of(name)
            width = math.ceil(max(widths) / rungs.RUNGS[-1].factor)
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

"""`recover`: the command `extract` as a function, for notebooks and other programs."""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from extraction import report
from extraction.certification.checks import Certificate
from extraction.racing.race_runner import ExtractCommand
from extraction.refinement import linear_term
from extraction.report import Report
from extraction.reporting import export, verdict, weight_tables
from foundations import paths
from foundations.arguments import ArgumentParser
from foundations.errors import ConfigError
from platforms import base, local

Function = Callable[[np.ndarray], np.ndarray]

FUNCTIONS: dict[str, Function] = {}  # that are being asked, by the name that their files of one line hold
ORACLE = '''"""The function that `extraction.recover` was called with."""

from extraction.python_call import FUNCTIONS

predict = FUNCTIONS["{name}"]
'''


@dataclass(frozen=True)
class Recovered:
    """A network that was recovered from answers.

    Attributes:
        network: as layers of plain torch in float64, from `[n, inputs]` to `[n, outputs]`; with a linear map beside them if there is one.
        layers: the incoming weights of each layer with the bias last, `[width, fan_in + 1]`, the output layer last.
        linear: a linear map of the inputs that is added to the outputs, `[outputs, inputs]`; None if there is none.
        errors: their standard errors in the same form; empty where the answers are exact, or the network is not right.
        act_fun: the activation function of the hidden layers.
        report: all that the command reports.
        folder: the folder of the results; None if no folder was named.
    """

    network: nn.Module
    layers: list[np.ndarray]
    linear: np.ndarray | None
    errors: list[np.ndarray]
    act_fun: str
    report: Report
    folder: str | None

    @property
    def certificate(self) -> Certificate:
        """What the answers prove."""
        return self.report.certificate

    @property
    def verdict(self) -> str:
        """The verdict, with its reasons."""
        found = verdict.of(self.report)
        return " ".join([found.found, *found.reasons])

    @property
    def is_identified(self) -> bool:
        """Whether the network is exact, or as exact as the precision of the answers allows."""
        return self.certificate.accepted_to_precision

    def __str__(self) -> str:
        return self.verdict


def recover(
    answers: tuple[np.ndarray, np.ndarray] | Function, *, folder: str | None = None, seed: int = 0, quiet: bool = False, **flags: object
) -> Recovered:
    """Recovers a network from its answers. Without `default_hparams`, depth, activation function and widths are found, which takes longer.

        found = recover((X, y))
        found = recover((X, y), default_hparams="students_mlp(10)_5_32_2", act_fun="tanh")
        found = recover(predict, default_hparams="students_mlp(6)_4_16_2", act_fun="tanh", datagen="random:2000", query_budget=3000)

    Args:
        answers: queries `[n, inputs]` and answers `[n, outputs]`, or a function from queries in float64 to answers, which is then asked.
        folder: where to keep all results, as the command does; nothing is kept when left out.
        seed: of the students.
        quiet: whether no progress is printed.
        flags: of the command `extract`, by name; those with True for a value have no value on the command line.

    Raises:
        ConfigError: a flag or the answers are invalid, or the students share too little.
    """
    with _folder(folder) as root, base.installed(_Platform(folder=root)), _teacher(answers, root) as teacher:
        arguments = [f"--teacher_name={teacher}", f"--global_seed={seed}", *(["--quiet"] if quiet else [])]
        arguments += [f"--{name}" if value is True else f"--{name}={value}" for name, value in flags.items() if value not in (None, False)]
        parser = ArgumentParser("recover", arguments, ExtractCommand.description(), ())
        ExtractCommand.add_args(parser)
        runner = ExtractCommand.create_from_args(parser.parse())
        runner.run()
        content = report.read(runner.output_location)
        network_folder = paths.reconstructed_model(runner.output_location)
        layers = weight_tables.layers_in(network_folder)
        errors = weight_tables.errors_in(network_folder) if content.certificate.fits else []
        network: nn.Module = export.sequential([torch.from_numpy(layer) for layer in layers], content.act_fun)
        path = os.path.join(network_folder, linear_term.FILE)
        linear = np.load(path, allow_pickle=False) if os.path.exists(path) else None
        if linear is not None:
            network = export.WithLinearTerm(network, torch.from_numpy(linear))
        return Recovered(network, layers, linear, errors, content.act_fun, content, runner.output_location if folder else None)


@dataclass
class _Platform(local.Platform):
    """The local machine with another folder for results."""

    folder: str = ""

    @property
    def root(self) -> str:
        return self.folder


@contextlib.contextmanager
def _folder(folder: str | None) -> Iterator[str]:
    """The folder of all results, which is removed at the end if none is named."""
    if folder is not None:
        yield os.path.abspath(os.path.expanduser(folder))
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        yield temporary


@contextlib.contextmanager
def _teacher(answers: tuple[np.ndarray, np.ndarray] | Function, root: str) -> Iterator[str]:
    """The name of the teacher with these answers: of a file that is written in a folder."""
    os.makedirs(root, exist_ok=True)
    if callable(answers):
        name = uuid.uuid4().hex
        path = os.path.join(root, f"function_{name[:8]}.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write(ORACLE.format(name=name))
        FUNCTIONS[name] = answers
        try:
            yield f"{path}:predict"
        finally:
            del FUNCTIONS[name]
        return
    if not isinstance(answers, tuple) or len(answers) != 2:
        raise ConfigError("recover: the answers are neither arrays (X, y) nor a function")
    path = os.path.join(root, "answers.npz")
    np.savez(path, X=np.asarray(answers[0]), y=np.asarray(answers[1]))
    yield path

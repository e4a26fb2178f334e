"""What the README and the help show as commands, executed in their order in one folder of results.

Names of runs are those of the commands as they are written, but training is cut to a part of its steps (PART), so that all that surrounds
it is what takes place. What is changed beside that stands in CHANGES, with the reason.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import runpy
import shlex
import sys
import textwrap
from unittest import mock

import numpy as np

import EC
from cli.runs import runner as runs
from foundations.step import Step
from testing.ancestors import writers
from testing.test_case import TestCase
from training.trackers import registry as trackers

CHECKOUT = os.path.dirname(os.path.abspath(EC.__file__))
FROM_STR = Step.from_str
PART = 1 / 400  # of the iterations of a training

# Changes to commands, each with its reason.
CHANGES = {
    r"--levels=(0-)?\d+": r"--levels=\g<1>1",  # each level is like the first
    r"\((10|100)\)_": "(3)_",  # fewer students
    r"^(torchrun --\S+|srun .* python) EC\.py (.*) --platform distributed": r"python EC.py \2 --display_output_location",  # one process
    r"(.*--platform slurm.*)": r"\1 --dry_run",  # there may be no cluster
    r"--d_in 784": "--d_in 4 --display_output_location",  # the black box of the README has four inputs
    r"--x epoch": "--x iteration",  # no epoch comes to an end
    r"--parallel \d+": "",  # other processes would train in full
    r"--global_seed 0-\d+": "--global_seed 0-1",  # each seed is like the first
    r"(EC\.py extract --teacher_name answers\.npz).*": r"\1 --act_fun tanh --depth 1",  # one hypothesis is like the others
    r"(EC\.py completion \w+) > \S+": r"\1",  # no shell reads it
}
# Commands that are not executed, each with its reason.
ELSEWHERE = {
    r"python -m venv .*": "the fresh environment that continuous integration makes",
    r"python EC\.py extract --default_hparams=students_digits_lenet": "the quick start, which continuous integration runs as it is written",
    r"python EC\.py plot --where \"kind=extract\" .*": "no extraction comes to an end whose students have hardly been trained",
}
UNTRAINED = "no cluster contains"  # how an extraction rightly ends whose students have hardly been trained


def commands(text: str) -> list[str]:
    """The command lines in the indented blocks of a text."""
    lines = (line[4:] for line in re.findall(r"(?m)^    \S.*$", text))
    return [line for line in lines if re.search(r"(^|\s)(python|torchrun|srun) ", line)]


def readme() -> str:
    with open(os.path.join(CHECKOUT, "README.md"), encoding="utf-8") as file:
        return file.read()


def oracle() -> str:
    """The black box that the README shows, which its reader has in a file."""
    text = readme()
    shown = re.search(r"(?m)(?:^    .*\n|^\n)+(?=^This command asks)", text)
    assert shown and "def predict" in shown[0]
    return textwrap.dedent(shown[0])


def shorter(text: str, iterations_per_epoch: int) -> Step:
    """What stands in for `Step.from_str`: a part of the iterations, rounded up."""
    return Step(-int(-FROM_STR(text, iterations_per_epoch).iteration * PART // 1), iterations_per_epoch)


class Executing(TestCase):
    """Commands in a folder of results of their own."""

    def setUp(self):
        super().setUp()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.root)  # where pictures go
        with open("oracle.py", "w", encoding="utf-8") as file:
            file.write(oracle())
        writers.lottery("open_lth_data", writers.OPENLTH, 1, iterations=3, levels=1)  # what a user of OpenLTH has
        patches = contextlib.ExitStack()
        self.addCleanup(patches.close)
        patches.enter_context(mock.patch.object(Step, "from_str", staticmethod(shorter)))
        for tracker in trackers.registered_trackers.values():  # which may not be installed, and have tests of their own
            patches.enter_context(mock.patch.object(tracker, "check"))
        patches.enter_context(mock.patch.object(trackers, "following", lambda identity: contextlib.nullcontext([])))

    def words(self, line: str) -> list[str]:
        """The words of a command as it is executed here."""
        for pattern, change in CHANGES.items():
            line = re.sub(pattern, change, line)
        words = shlex.split(line, comments=True)
        shape = re.search(r"students_mlp\(\d+\)_(\d+)_\S*?_(\d+)(?=['\s])", line)
        answers = os.path.join(self.root, "answers.npz")
        if shape and "answers.npz" in words:
            self.write_answers(answers, int(shape[1]), int(shape[2]))
        return [answers if word == "answers.npz" else word for word in words]

    def write_answers(self, path: str, inputs: int, outputs: int) -> None:
        """A file of answers of a small network, such as the README tells its reader to have."""
        generator = np.random.default_rng(0)
        X = generator.normal(size=(200, inputs))
        np.savez(path, X=X, y=np.tanh(X @ generator.normal(size=(inputs, 3))) @ generator.normal(size=(3, outputs)))

    def assert_works(self, line: str) -> None:
        """Runs one command line, and fails if the command fails."""
        words = self.words(line)
        if words[:2] == ["python", "EC.py"]:
            status, _, err = self.command(*words[2:])
            if UNTRAINED not in err:
                self.assertEqual((status, err), (0, ""), line)
        else:
            self.assertEqual(words[:2], ["python", "-m"], f"{line} is a kind of command that is not known here")
            self.assertIn("usage: ", help_of(words[2]), line)


def help_of(module: str) -> str:
    """What `python -m MODULE --help` prints."""
    with open(importlib.util.find_spec(module).origin, encoding="utf-8") as file:
        assert "argparse" in file.read() or module == "unittest", f"{module} has no help"
    out = io.StringIO()
    with contextlib.redirect_stdout(out), mock.patch.object(sys, "argv", [module, "--help"]):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as leave:
            assert not leave.code, f"{module} --help: exit status {leave.code}"
    return out.getvalue()


class TestShownCommands(Executing):
    def test_every_command_of_the_readme_and_of_the_help_works(self):
        examples = [f"python EC.py {line}" for runner in EC.COMMANDS.runners.values() for line in runner.examples()]
        examples += [f"python EC.py {line}" for lines in runs.EXAMPLES.values() for line in lines]
        for line in dict.fromkeys([*commands(readme()), *examples]):
            if not any(re.fullmatch(pattern, line) for pattern in ELSEWHERE):
                with self.subTest(line=line):
                    self.assert_works(line)

    def test_a_command_that_fails_is_detected(self):
        for line in ("python EC.py trian", "python EC.py train --default_hparams=digits_lenet --lrr 1", "python -m json.decoder", "make"):
            with self.subTest(line=line), self.assertRaises(AssertionError):
                self.assert_works(line)

    def test_no_command_of_the_readme_is_overlooked(self):
        shown = commands("Text with `python x`:\n\n    python a\n    torchrun EC.py b\n    X=1 python EC.py c\n    train_<md5>/   d\n")
        self.assertEqual(shown, ["python a", "torchrun EC.py b", "X=1 python EC.py c"])
        self.assertGreater(len(commands(readme())), 20)

    def test_training_is_cut_and_names_are_not(self):
        self.assert_works("python EC.py train --default_hparams=digits_lenet_16")
        self.assertTrue(any(path.startswith("train_1f9aac2d81228685d9c62001e9758edb") for path in self.files()))
        self.assertEqual(shorter("40ep", 12).iteration, 2)

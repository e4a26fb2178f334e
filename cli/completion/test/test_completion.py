"""Completion, run by the shells themselves."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from unittest import mock

import EC
from cli.completion.runner import CompletionRunner
from cli.completion.script import script
from datasets.datagen import registry as datagen
from foundations.arguments import ArgumentParser
from foundations.errors import ConfigError
from lottery.branch import registry as branches
from models import activation_functions
from pruning import registry as pruning
from testing.test_case import TestCase, need

TRAINED, OTHER = "train_1f9aac2d81228685d9c62001e9758edb", "extract_0123456789abcdef0123456789abcdef"

# Shell code that calls the completion function as the shell does after TAB at the end of a line, and prints the candidates.
DRIVERS = {
    "bash": """source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _ec_bash "$1"; printf '%s\\n' "${COMPREPLY[@]}" """,
    "zsh": """compdef() { }; source "$0"; _default() { print other.py }; _ec_python=0; compset() { }; compadd() { shift; print -l -- "$@" }
        words=("$@"); CURRENT=$#; PREFIX=${words[-1]}; _ec_zsh""",
}
STARTS = {"bash": ["bash", "--norc", "--noprofile"], "zsh": ["zsh", "-f"]}


@functools.cache
def completion_script(shell: str) -> str:
    """The script for a shell."""
    return script(shell, EC.COMMANDS)


def as_bash_splits(words: list[str]) -> list[str]:
    """The words of a line as bash passes them to the function: `=` and `:` are separate words."""
    return [part for word in words for part in re.findall("[=:]|[^=:]+", word) or [""]]


class Completing:
    """Tests of both shells."""

    shell: str

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        need(None if shutil.which(cls.shell) else f"there is no {cls.shell}", f"EC_REQUIRE_{cls.shell.upper()}")

    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.root, "script")
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(completion_script(self.shell))

    def candidates(self, line: str, before: str = "") -> list[str]:
        """The candidates that TAB offers at the end of a line. The shell runs the code `before` first."""
        words = line.split(" ")
        words = as_bash_splits(words) if self.shell == "bash" else words
        code = f"cd {self.root}; {before}{DRIVERS[self.shell]}"
        done = subprocess.run([*STARTS[self.shell], "-c", code, self.path, *words], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.stderr, "")
        return [candidate for candidate in done.stdout.splitlines() if candidate]

    def test_commands_are_completed(self):
        self.assertEqual(self.candidates("python EC.py tr"), ["train"])
        self.assertLessEqual(set(EC.COMMANDS.runners), set(self.candidates("python3 /some/where/EC.py ")))
        self.assertEqual(self.candidates("python EC.py xyz"), [])

    def test_words_after_a_command_are_completed(self):
        self.assertEqual(self.candidates("python EC.py runs di"), ["diff"])
        self.assertLessEqual(set(branches.registered_branches), set(self.candidates("python EC.py lottery_branch ")))
        self.assertEqual(self.candidates("python EC.py completion z"), ["zsh"])

    def test_only_the_flags_of_the_command_are_completed(self):
        self.assertEqual(self.candidates("python EC.py extract --gam"), ["--gamma"])
        self.assertEqual(self.candidates("python EC.py train --gam"), [])
        self.assertEqual(self.candidates("python EC.py train --act_fun tanh --quiet --warm"), ["--warmup_steps"])
        self.assertEqual(self.candidates("python EC.py lottery_branch retrain --retrain_t_l"), ["--retrain_t_lr", "--retrain_t_lr_decay"])
        self.assertEqual(self.candidates("python EC.py lottery_branch randomly_prune --retrain"), [])
        self.assertEqual(self.candidates("python EC.py runs gc --ch"), ["--checkpoints"])
        self.assertEqual(self.candidates("python EC.py train --no-qu"), ["--no-quiet"])
        self.assertIn("--lr", self.candidates("python EC.py train "))

    def test_flags_that_other_flags_add_are_completed(self):
        for flag in ("--pruning_strategy=fc19", "--pruning_strategy fc19"):
            self.assertEqual(self.candidates(f"python EC.py lottery {flag} --pruning_conv"), ["--pruning_conv_fraction"])
        self.assertEqual(self.candidates("python EC.py lottery --pruning_conv"), [])
        self.assertEqual(self.candidates("python EC.py train --platform slurm --at"), ["--at_once"])
        self.assertEqual(self.candidates("python EC.py train --at"), [])
        self.assertEqual(self.candidates("python EC.py lottery --pretrain --pretrain_lr"), ["--pretrain_lr", "--pretrain_lr_decay"])

    def test_values_of_closed_lists_are_completed_after_a_space_and_after_an_equals_sign(self):
        for flag, valid in (("act_fun", activation_functions.activation_functions), ("pruning_strategy", pruning.registered_strategies)):
            for sign in " =":
                with self.subTest(flag=flag, sign=sign):
                    self.assertEqual(set(self.candidates(f"python EC.py lottery --{flag}{sign}")), set(valid))
        self.assertEqual(self.candidates("python EC.py train --act_fun=ta"), ["tanh"])
        self.assertEqual(self.candidates("python EC.py lottery_branch randomly_prune --strategy l"), ["layerwise"])
        self.assertEqual(self.candidates("python EC.py runs --format j"), ["json"])
        self.assertEqual(self.candidates("python EC.py train --platform s"), ["slurm"])
        self.assertIn("digits_lenet", self.candidates("python EC.py train --default_hparams=digits"))
        self.assertEqual(self.candidates("python EC.py lottery_branch retrain --retrain_d_dataset_name fa"), ["fashion_mnist"])
        self.assertEqual(self.candidates("python EC.py train --lr 0"), [])

    def test_the_last_of_several_values_is_completed(self):
        self.assertEqual(self.candidates("python EC.py extract --datagen digits+ra"), ["digits+random"])
        plain = [name for name, policy in datagen.registered_policies.items() if not policy.parameters]
        self.assertEqual(len(self.candidates("python EC.py extract --datagen=digits+")), len(plain))
        self.assertEqual(self.candidates("python EC.py runs --columns hash,test_acc"), ["hash,test_accuracy"])

    def test_hashes_and_files_of_answers_are_completed(self):
        for name in (TRAINED, OTHER, "slurm"):
            os.mkdir(os.path.join(self.root, name))
        open(os.path.join(self.root, "answers.npz"), "w").close()
        self.assertEqual(self.candidates("python EC.py runs show tr"), [TRAINED])
        self.assertEqual(self.candidates(f"python EC.py runs diff {TRAINED} 01"), [OTHER.partition("_")[2]])
        self.assertEqual(self.candidates("python EC.py runs rm --yes 1f"), [TRAINED.partition("_")[2]])
        self.assertEqual(self.candidates("python EC.py extract --teacher_name 1f"), [TRAINED.partition("_")[2]])
        self.assertEqual(self.candidates("python EC.py extract --teacher_name=ans"), ["answers.npz"])
        for name in ("table.csv", "table.tsv", "table.npy", "table.txt"):
            open(os.path.join(self.root, name), "w").close()
        self.assertEqual(sorted(self.candidates("python EC.py extract --teacher_name tab")), ["table.csv", "table.npy", "table.tsv"])
        self.assertEqual(self.candidates("python EC.py extract --teacher_name 01"), [])
        os.makedirs(os.path.join(self.root, "trash", "2026-01-02_03-04-05"))
        self.assertEqual(self.candidates("python EC.py runs restore 20"), ["2026-01-02_03-04-05"])

    def test_a_nested_command_has_its_flags(self):
        self.assertEqual(self.candidates("python EC.py runs why train --warm"), ["--warmup_steps"])
        self.assertEqual(self.candidates("python EC.py runs why ext"), ["extract"])

    def test_other_programs_are_completed_as_before(self):
        self.assertEqual(self.candidates("python o", "_python() { COMPREPLY=(other.py); }; complete -F _python python;"), ["other.py"])

    def test_many_runs_are_looked_up(self):
        for number in range(200):
            os.mkdir(os.path.join(self.root, f"train_{number:032x}"))
        self.assertEqual(len(self.candidates("python EC.py runs show train_")), 200)


class Again(CompletionRunner):
    """A command whose flags are those of its nested command."""

    @staticmethod
    def subcommands() -> Sequence[str]:
        return ()

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        raise ConfigError("again: a command is required")


class TestBash(Completing, TestCase):
    shell = "bash"

    def test_a_sweep_takes_its_own_flags_and_those_of_its_command(self):
        self.assertEqual(self.candidates("python EC.py sweep tr"), ["train"])
        self.assertEqual(self.candidates("python EC.py sweep --par"), ["--parallel"])
        self.assertEqual(self.candidates("python EC.py sweep train --par"), ["--parallel"])
        self.assertEqual(self.candidates("python EC.py sweep train --warm"), ["--warmup_steps"])

    def test_the_completion_that_bash_loads_for_python_stays_in_use(self):
        loader = "_completion_loader() { _python() { COMPREPLY=(late.py); }; complete -F _python python; };"
        self.assertEqual(self.candidates("python o", loader), ["late.py"])
        self.assertEqual(self.candidates("python o"), [])

    def test_a_nested_command_is_completed_where_the_outer_command_has_no_flags(self):
        with mock.patch.dict(EC.COMMANDS.runners, {"again": Again}):
            text = script("bash", EC.COMMANDS)
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(text)
        self.assertEqual(self.candidates("python EC.py ag"), ["again"])
        self.assertEqual(self.candidates("python EC.py again train --act_fun tanh,re"), ["tanh,relu"])
        self.assertEqual(self.candidates("python EC.py again lottery --warm"), ["--warmup_steps"])

    def test_the_script_can_be_sourced_twice(self):
        before = "_python() { COMPREPLY=(other.py); }; complete -F _python python; source $0;"
        self.assertEqual(self.candidates("python o", before), ["other.py"])
        self.assertEqual(self.candidates("python EC.py tr", before), ["train"])


class TestZsh(Completing, TestCase):
    shell = "zsh"

    def test_other_programs_are_completed_as_before(self):
        self.assertEqual(self.candidates("python o"), ["other.py"])


class TestCommand(TestCase):
    def test_the_command_prints_the_script(self):
        self.assertEqual(self.command("completion", "bash"), (0, completion_script("bash") + "\n", ""))

    def test_the_error_for_an_unknown_shell_suggests_the_nearest(self):
        status, out, err = self.command("completion", "bsh")
        self.assertEqual((status, out, err.count("\n")), (2, "", 1))
        self.assertIn("did you mean 'bash'", err)

"""Flags with several values, expanded to single commands."""

from __future__ import annotations

import itertools
import subprocess

from cli.sweep import grid
from foundations.errors import ConfigError
from testing.test_case import TestCase


def expand(*arguments: str, single: tuple[str, ...] = ()) -> list[list[str]]:
    """The arguments of every combination."""
    return [combination.arguments for combination in grid.combinations(grid.read(arguments), single)]


class TestGrid(TestCase):
    def test_the_value_of_the_last_flag_changes_fastest_in_the_product_of_all_values(self):
        commands = expand("--default_hparams", "digits_lenet", "--lr", "0.1,0.2", "--quiet", "--global_seed=0-2")
        expected = [
            ["--default_hparams", "digits_lenet", f"--lr={lr}", "--quiet", f"--global_seed={seed}"]
            for lr, seed in itertools.product(("0.1", "0.2"), range(3))
        ]
        self.assertEqual(commands, expected)

    def test_a_repeated_flag_has_all_its_values_such_as_those_of_a_brace_expansion(self):
        shell = ["bash", "-c", "printf '%s\n' --lr={0.1,0.2} --milestone_steps={1ep,'1ep,2ep'} --model_name=mlp_{3,4}_1"]
        words = subprocess.run(shell, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
        expected = [
            [f"--lr={lr}", f"--milestone_steps={steps}", f"--model_name=mlp_{width}_1"]
            for lr, steps, width in itertools.product(("0.1", "0.2"), ("1ep", "1ep,2ep"), (3, 4))
        ]
        self.assertEqual(expand(*words), expected)

    def test_the_text_of_a_flag_whose_single_value_may_be_a_list_is_one_value(self):
        for flag in (
            "--milestone_steps=80ep,120ep",
            "--pretrain_milestone_steps=1ep,2ep",
            "--levels=0-2,5",
            "--arrays=inputs,targets",
            "--others_frozen_exceptions=a,b",
        ):
            with self.subTest(flag):
                self.assertEqual(expand(flag), [[flag]])
        self.assertEqual(expand("--partition", "a,b", "--partition", "c,d", single=("partition",)), [["--partition", "c,d"]])

    def test_ranges_of_whole_numbers_may_have_steps_and_repeated_numbers_count_once(self):
        self.assertEqual(expand("--n=0-8:4,3,2-4"), [[f"--n={number}"] for number in (0, 4, 8, 3, 2)])
        self.assertEqual(expand("--n", "-1"), [["--n", "-1"]])
        self.assertEqual(expand("--lr=1e-3,2e-3"), [["--lr=1e-3"], ["--lr=2e-3"]])

    def test_both_values_of_a_switch_are_combined(self):
        both = grid.combinations(grid.read(["--centred", "--no-centred"]))
        self.assertEqual([combination.arguments for combination in both], [["--centred"], ["--no-centred"]])
        self.assertEqual([combination.show() for combination in both], ["centred=yes", "centred=no"])

    def test_a_sweep_may_have_several_branches(self):
        commands = expand("retrain,randomly_prune", "--levels=0-1")
        self.assertEqual(commands, [["retrain", "--levels=0-1"], ["randomly_prune", "--levels=0-1"]])

    def test_a_combination_shows_the_flags_with_several_values(self):
        last = grid.combinations(grid.read(["--lr=0.1,0.2", "--momentum=0.9", "--global_seed=0-1"]))[-1]
        self.assertEqual((last.show(), last.show("global_seed")), ("lr=0.2, global_seed=1", "lr=0.2"))
        self.assertEqual(last.arguments_without("global_seed"), ["--lr=0.2", "--momentum=0.9"])

    def test_an_invalid_list_is_an_error_in_one_line(self):
        for arguments, pattern in (
            (["--lr=0.1,,0.2"], "--lr: .*missing.*'0.1,,0.2'"),
            (["--lr", "0.1", "0.2"], "'0.2' is not the value of a flag.* --lr 0.1,0.2"),
            (["--global_seed=4-0"], "--global_seed: .*4-0 is empty"),
            (["--global_seed=0-4:0"], "--global_seed: .*0-4:0 is empty"),
            (["--global_seed=0-999999999"], "--global_seed: .*at most 10,000"),
            (["--a=0-999", "--b=0-999"], "1,000,000 runs or more; valid: at most 10,000"),
        ):
            with self.subTest(arguments), self.assertRaisesRegex(ConfigError, pattern):
                expand(*arguments)

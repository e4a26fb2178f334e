"""From flags with several values to single commands."""

from __future__ import annotations

import itertools
import subprocess

from cli.sweep import grid
from foundations.errors import ConfigError
from testing.test_case import TestCase


def expand(*arguments: str, single: tuple[str, ...] = ()) -> list[list[str]]:
    """The arguments of every combination."""
    return [each.arguments for each in grid.combinations(grid.read(arguments), single)]


class TestGrid(TestCase):
    def test_the_product_has_every_combination_the_last_flag_changing_fastest(self):
        found = expand("--default_hparams", "digits_lenet", "--lr", "0.1,0.2", "--quiet", "--global_seed=0-2")
        expected = [
            ["--default_hparams", "digits_lenet", f"--lr={lr}", "--quiet", f"--global_seed={seed}"]
            for lr, seed in itertools.product(("0.1", "0.2"), range(3))
        ]
        self.assertEqual(found, expected)

    def test_a_flag_that_is_given_again_has_both_values_as_a_shell_writes_them(self):
        shell = ["bash", "-c", "printf '%s\n' --lr={0.1,0.2} --milestone_steps={1ep,'1ep,2ep'} --model_name=mlp_{3,4}_1"]
        words = subprocess.run(shell, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
        expected = [
            [f"--lr={lr}", f"--milestone_steps={steps}", f"--model_name=mlp_{width}_1"]
            for lr, steps, width in itertools.product(("0.1", "0.2"), ("1ep", "1ep,2ep"), (3, 4))
        ]
        self.assertEqual(expand(*words), expected)

    def test_what_may_be_a_single_value_is_one(self):
        for flag in (
            "--milestone_steps=80ep,120ep",
            "--pretrain_milestone_steps=1ep,2ep",
            "--levels=0-2,5",
            "--others_frozen_exceptions=a,b",
        ):
            with self.subTest(flag):
                self.assertEqual(expand(flag), [[flag]])
        self.assertEqual(expand("--partition", "a,b", "--partition", "c,d", single=("partition",)), [["--partition", "c,d"]])

    def test_whole_numbers_take_ranges_and_steps_and_come_once(self):
        self.assertEqual(expand("--n=0-8:4,3,2-4"), [[f"--n={number}"] for number in (0, 4, 8, 3, 2)])
        self.assertEqual(expand("--n", "-1"), [["--n", "-1"]])
        self.assertEqual(expand("--lr=1e-3,2e-3"), [["--lr=1e-3"], ["--lr=2e-3"]])

    def test_a_switch_is_tried_both_ways(self):
        both = grid.combinations(grid.read(["--centred", "--no-centred"]))
        self.assertEqual([each.arguments for each in both], [["--centred"], ["--no-centred"]])
        self.assertEqual([each.show() for each in both], ["centred=yes", "centred=no"])

    def test_branches_may_be_several_too(self):
        found = expand("retrain,randomly_prune", "--levels=0-1")
        self.assertEqual(found, [["retrain", "--levels=0-1"], ["randomly_prune", "--levels=0-1"]])

    def test_a_combination_shows_what_has_several_values(self):
        last = grid.combinations(grid.read(["--lr=0.1,0.2", "--momentum=0.9", "--global_seed=0-1"]))[-1]
        self.assertEqual((last.show(), last.show("global_seed")), ("lr=0.2, global_seed=1", "lr=0.2"))
        self.assertEqual(last.without("global_seed"), ["--lr=0.2", "--momentum=0.9"])

    def test_what_is_no_list_is_refused_in_one_line(self):
        for arguments, pattern in (
            (["--lr=0.1,,0.2"], "--lr: .*missing.*'0.1,,0.2'"),
            (["--lr", "0.1", "0.2"], "'0.2' belongs to no flag.* --lr 0.1,0.2"),
            (["--global_seed=4-0"], "--global_seed: .*4-0 goes nowhere"),
            (["--global_seed=0-4:0"], "--global_seed: .*0-4:0 goes nowhere"),
            (["--global_seed=0-999999999"], "--global_seed: .*at most 10,000"),
            (["--a=0-999", "--b=0-999"], "1,000,000 runs or more; valid: at most 10,000"),
        ):
            with self.subTest(arguments), self.assertRaisesRegex(ConfigError, pattern):
                expand(*arguments)

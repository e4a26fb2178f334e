"""The parser: flags that are read early, help, and errors of one line."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from unittest import mock

from foundations.arguments import ArgumentParser
from foundations.errors import ConfigError
from foundations.hparams import Hparams
from testing.test_case import TestCase


@dataclass
class Knobs(Hparams):
    learning_rate: float = 0.1
    rounds: int = 3
    loud: bool = False
    title: str | None = None


def parse(*arguments: str) -> argparse.Namespace:
    parser = ArgumentParser("EC.py test", arguments)
    Knobs.add_args(parser)
    return parser.parse()


class TestPeek(TestCase):
    def test_peek_reads_a_value_after_a_space_and_after_an_equals_sign(self):
        for arguments in (["--x", "1"], ["--x=1"], ["a", "--y", "--x=1", "b"]):
            with self.subTest(arguments=arguments):
                self.assertEqual(ArgumentParser("test", arguments).peek("x"), "1")

    def test_peek_and_parse_return_the_last_of_several_values(self):
        for arguments in (["--title", "1", "--title=2"], ["--title=1", "--title", "2"]):
            with self.subTest(arguments=arguments):
                self.assertEqual(ArgumentParser("test", arguments).peek("title"), "2")
                self.assertEqual(parse(*arguments).title, "2")

    def test_peek_returns_the_default_of_an_absent_flag(self):
        self.assertIsNone(ArgumentParser("test", []).peek("x"))
        self.assertEqual(ArgumentParser("test", ["--xy=2", "--y", "3", "x"]).peek("x", "1"), "1")

    def test_everything_after_the_first_equals_sign_is_the_value(self):
        self.assertEqual(ArgumentParser("test", ["--x=a=b"]).peek("x"), "a=b")

    def test_a_flag_at_the_end_has_no_value(self):
        self.assertEqual(ArgumentParser("test", ["--x"]).peek("x", "1"), "1")

    def test_peek_does_not_remove_the_flag(self):
        parser = ArgumentParser("test", ["--title", "1"])
        Knobs.add_args(parser)
        parser.peek("title")
        self.assertEqual(parser.parse().title, "1")


class TestArgumentsWithout(TestCase):
    def arguments_without(self, arguments: list[str], *names: str) -> list[str]:
        parser = ArgumentParser("test", arguments)
        Knobs.add_args(parser)
        parser.parse()
        return parser.arguments_without(names)

    def test_flags_are_removed_with_their_values_in_every_spelling(self):
        arguments = ["--rounds", "3", "--title=a", "--loud", "--rounds=4"]
        self.assertEqual(self.arguments_without(arguments, "rounds"), ["--title=a", "--loud"])
        self.assertEqual(self.arguments_without(arguments, "title", "loud"), ["--rounds", "3", "--rounds=4"])
        self.assertEqual(self.arguments_without(["--no-loud", "--title", "x"], "loud"), ["--title", "x"])

    def test_other_arguments_are_unchanged(self):
        values = ["students(6)_36", "it's", 'a "b" c', "-1e-3", "-5", "--title=no", "$HOME", "a=b", "", "*"]
        for value in values:
            with self.subTest(value=value):
                kept = [f"--title={value}", "--learning_rate", "-1e-3", "--loud"]
                self.assertEqual(self.arguments_without(["--rounds", "3", *kept], "rounds"), kept)
                self.assertEqual(self.arguments_without([*kept, "--rounds=3"], "rounds"), kept)


class TestParse(TestCase):
    def assertFails(self, pattern: str, *arguments: str):
        with self.assertRaisesRegex(ConfigError, pattern) as caught:
            parse(*arguments)
        self.assertNotIn("\n", str(caught.exception))

    def test_the_error_for_an_unknown_flag_suggests_the_nearest_flag(self):
        for arguments in (["--lerning_rate", "1"], ["--lerning_rate=3.14159265358979323846"], ["--rounds=1", "--lerning_rate", "1"]):
            with self.subTest(arguments=arguments):
                self.assertFails("^--lerning_rate.* is not an argument of EC.py test, did you mean '--learning_rate'", *arguments)

    def test_the_error_for_an_unknown_flag_refers_to_help(self):
        self.assertFails("--zzz .*EC.py test --help", "--zzz")

    def test_an_unexpected_word_is_an_error(self):
        self.assertFails("^stray is not an argument", "--rounds=1", "stray")

    def test_abbreviations_are_not_accepted(self):
        for arguments in (["--learning=1"], ["--round", "1"], ["--lou"], ["--no-lou"]):
            with self.subTest(arguments=arguments):
                self.assertFails(f"^{arguments[0]} is not an argument", *arguments)

    def test_the_error_for_a_value_of_the_wrong_type_names_flag_value_and_type(self):
        self.assertFails("^--learning_rate: 'abc' is not a number$", "--learning_rate", "abc")
        self.assertFails("^--rounds: '1.5' is not a whole number$", "--rounds=1.5")
        self.assertFails("^--rounds: '' is not a whole number$", "--rounds=")

    def test_the_error_for_a_missing_value_names_the_flag(self):
        self.assertFails("^--rounds: ", "--rounds")
        self.assertFails("^--rounds: ", "--rounds", "--loud")

    def test_a_switch_takes_no_value(self):
        self.assertFails("--loud.*'yes'", "--loud=yes")

    def test_negative_numbers_are_values(self):
        made = Knobs.create_from_args(parse("--rounds", "-3", "--learning_rate", "-0.5"))
        self.assertEqual((made.rounds, made.learning_rate), (-3, -0.5))

    def test_values_that_begin_with_a_negative_number_are_no_flags(self):
        for value in ("-4:4", "-.5:1e3", "-1,0,1", "-1e-3"):
            with self.subTest(value=value):
                parser = ArgumentParser("test", ["--bounds", value, "--size", "2"])
                parser.add_argument("--bounds")
                parser.add_argument("--size", type=int)
                self.assertEqual(parser.parse(), argparse.Namespace(bounds=value, size=2))
                self.assertEqual(parser.arguments_without(["bounds"]), ["--size", "2"])
                self.assertEqual(parser.arguments_without(["size"]), ["--bounds", value])


class TestHelp(TestCase):
    def help(self) -> str:
        parser = ArgumentParser("EC.py test", [], "What it does.", ["test --title a", "test --rounds 2"])
        parser.add_argument("place", metavar="PLACE")
        Knobs.add_args(parser)
        parser.epilog = "words:\n  one       " + "what it means " * 12
        with mock.patch.dict(os.environ, COLUMNS="80"):
            return parser.format_help()

    def test_help_shows_examples_between_the_description_and_the_flags(self):
        head = "usage: EC.py test PLACE [--FLAG VALUE ...]\n\nWhat it does.\n\nexamples:\n"
        examples = "  python EC.py test --title a\n  python EC.py test --rounds 2\n\npositional arguments:\n  PLACE\n"
        self.assertTrue(self.help().startswith(head + examples), self.help())

    def test_long_lines_continue_below_their_second_column(self):
        lines = self.help().splitlines()
        first = next(number for number, line in enumerate(lines) if line.startswith("  one       what it"))
        self.assertRegex(lines[first + 1], r"^ {12}\S")
        self.assertLessEqual(max(map(len, lines)), 80)

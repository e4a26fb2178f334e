"""The list of commands."""

import EC
from extraction.racing.race_runner import ExtractCommand
from foundations.errors import ConfigError
from lottery.branch.runner import LotteryBranchRunner
from lottery.runner import LotteryRunner
from testing.test_case import TestCase
from training.runner import TrainingRunner


class TestCommands(TestCase):
    def test_a_command_finds_its_runner(self):
        self.assertIs(EC.COMMANDS.get("train"), TrainingRunner)
        self.assertIs(EC.COMMANDS.get("extract"), ExtractCommand)
        self.assertIs(EC.COMMANDS.get("lottery"), LotteryRunner)
        self.assertIs(EC.COMMANDS.get("lottery_branch"), LotteryBranchRunner)

    def test_the_computing_commands_are_those_that_take_a_platform(self):
        self.assertEqual(EC.COMMANDS.computing, ["train", "extract", "lottery", "lottery_branch"])
        for command in EC.COMMANDS.computing:
            with self.subTest(command=command):
                branch = ["retrain"] if command == "lottery_branch" else []
                self.assertIn("platform", EC.COMMANDS.parser(command, [*branch, "--default_hparams=digits_lenet_16"]).choices_of)

    def test_an_unknown_command_is_an_error_with_the_nearest_name_and_all_names(self):
        with self.assertRaisesRegex(ConfigError, "'trian' .*did you mean 'train'.*valid: .*extract.*train"):
            EC.COMMANDS.get("trian")

    def test_the_welcome_has_one_line_for_each_command_with_its_description(self):
        lines = EC.COMMANDS.welcome().splitlines()
        for name, runner in EC.COMMANDS.runners.items():
            with self.subTest(command=name):
                self.assertEqual(len([line for line in lines if f"EC.py {name} " in line and line.endswith(runner.description())]), 1)

    def test_the_welcome_ends_with_a_first_command_and_with_how_to_get_help(self):
        last = EC.COMMANDS.welcome().splitlines()[-2:]
        self.assertTrue(last[0].endswith("python EC.py extract --default_hparams=students_digits_lenet"))
        self.assertTrue(last[1].endswith("python EC.py extract --help"))

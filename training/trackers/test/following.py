"""The base of the tests of trackers: small runs of a network and of students, undisturbed or resumed, and their telemetry as a table."""

from __future__ import annotations

import importlib.util
from unittest import mock

from testing import toy_teacher
from testing.test_case import TestCase, need
from training import standard_callbacks
from training import train as train_module
from training.metric_logger import MetricLogger

Table = dict[tuple[str, int], float]  # values by name and iteration


class FollowingTestCase(TestCase):
    """A test of a tracker, whose `package` it needs."""

    package: str
    flags: tuple[str, ...] = ()
    digits = ("--default_hparams=digits_lenet_4", "--training_steps=3ep", "--batch_size=500", "--global_seed=3", "--quiet")

    @classmethod
    def setUpClass(cls):
        missing = importlib.util.find_spec(cls.package) is None
        need(f"{cls.package} is not installed" if missing else None, "EC_REQUIRE_TRACKERS")

    def run_folders(self, command: str, *arguments: str) -> list[str]:
        """Runs a command that succeeds, without a word, and returns its folders."""
        self.assertEqual(self.command(command, *arguments, *self.flags), (0, "", ""))
        return self.command(command, *arguments, "--display_output_location")[1].splitlines()

    def interrupted(self, *arguments: str, after: int) -> None:
        """Runs a command that dies after so many evaluations on the test set, of which checkpoints know all but the last."""
        create, count = standard_callbacks.create_eval_callback, 0

        def dying(name, *options):
            evaluate = create(name, *options)

            def run(*call):
                nonlocal count
                evaluate(*call)
                count += name == "test"
                if count == after:
                    count += 1
                    raise KeyboardInterrupt

            return run

        with mock.patch.object(standard_callbacks, "create_eval_callback", dying), mock.patch.object(train_module, "CHECKPOINT_SECONDS", 0):
            self.assertEqual(self.command(*arguments, *self.flags)[0], 130)

    def students(self) -> tuple[str, ...]:
        """The arguments of a training of twelve students."""
        teacher, _ = toy_teacher.make("mlp_3_4_2", "tanh", seed=5)
        asked = (f"--teacher_name={teacher}", "--teacher_seed=5", "--datagen=random:40", "--batch_size=10")
        return ("--default_hparams=students_mlp(12)_3_5_2", "--training_steps=2ep", "--global_seed=3", "--quiet", *asked)

    def logged(self, folder: str) -> Table:
        """The log of a run, with a name for each place of a vector."""
        table = {}
        for name, iteration, value in MetricLogger.load(folder).records():
            if isinstance(value, list):
                table |= {(f"{name}/{place:02}", iteration): each for place, each in enumerate(value)}
            else:
                table[name, iteration] = value
        return table

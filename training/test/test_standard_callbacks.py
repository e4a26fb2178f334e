"""Standard callbacks: their frequency, the logged metrics, and the printed progress."""

import contextlib
import io
import re
from unittest import mock

from foundations.step import Step
from models import base, registry
from testing.test_case import TestCase
from training import standard_callbacks
from training.metric_logger import MetricLogger
from training.plan import StandardPlan
from training.standard_callbacks import STUDENT_EVALUATIONS
from training.test.test_train import BATCHES, TrainTestCase, class_loader, hparams, network, regression_loader, weights
from training.train import standard_train


class Terminal(io.StringIO):
    """A standard error that is a terminal."""

    def isatty(self):
        return True


def steps(end: int, per_epoch: int = BATCHES) -> list[Step]:
    """All steps at which a run of `end` iterations calls its callbacks."""
    return [Step(i, per_epoch, last=i == end) for i in range(end + 1)]


class FrequencyTest(TestCase):
    def acts_at(self, wrapper, end: int = 8) -> list[int]:
        """The iterations at which a wrapped callback runs, in a run of `end` iterations with epochs of 3."""
        seen = []
        callback = wrapper(lambda location, step, model, optimizer, logger: seen.append(step.iteration))
        for step in steps(end):
            callback("", step, None, None, None)
        return seen

    def test_every_epoch_means_epoch_starts_and_the_last_step(self):
        self.assertEqual(self.acts_at(standard_callbacks.run_every_epoch), [0, 3, 6, 8])

    def test_the_last_step_at_the_end_of_an_epoch_counts_once(self):
        self.assertEqual(self.acts_at(standard_callbacks.run_every_epoch, end=6), [0, 3, 6])

    def test_every_n_epochs(self):
        self.assertEqual(self.acts_at(lambda callback: standard_callbacks.run_every(2, callback), end=16), [0, 6, 12, 16])

    def test_at_one_step(self):
        self.assertEqual(self.acts_at(lambda callback: standard_callbacks.run_at_step(Step(4, BATCHES), callback)), [4])

    def test_at_the_last_step(self):
        self.assertEqual(self.acts_at(standard_callbacks.run_at_last_step), [8])

    def test_all_arguments_are_passed_to_the_callback(self):
        seen, step = [], Step(0, 1, last=True)
        wrappers = [standard_callbacks.run_every_epoch, standard_callbacks.run_at_last_step]
        wrappers.append(lambda callback: standard_callbacks.run_at_step(step, callback))
        for wrapper in wrappers:
            wrapper(lambda *arguments: seen.append(arguments))("location", step, "model", "optimizer", "logger")
        self.assertEqual(seen, [("location", step, "model", "optimizer", "logger")] * 3)


class StandardRunTest(TrainTestCase):
    def standard(
        self, model: base.Model | None = None, steps: str = "2ep", loaders=None, stderr=None, **options
    ) -> tuple[MetricLogger, str, str]:
        """The log of a standard run, and its standard output and error."""
        self.model = model or network()
        self.location = self.folder()
        out, err = io.StringIO(), stderr or io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            loaders = loaders or (class_loader(), class_loader(count=9))
            standard_train(hparams(steps), self.model, loaders, self.location, StandardPlan(**options))
        return MetricLogger.load(self.location), out.getvalue(), err.getvalue()

    def iterations(self, logger: MetricLogger, name: str) -> list[int]:
        return [iteration for iteration, _ in logger.get(name)]

    def test_loss_and_accuracy_are_logged_for_both_sets(self):
        logger, *_ = self.standard()
        self.assertEqual(logger.names(), ["test_accuracy", "test_loss", "train_accuracy", "train_loss"])

    def test_only_the_loss_is_logged_for_real_valued_targets(self):
        logger, *_ = self.standard(loaders=(regression_loader(), regression_loader(9)))
        self.assertEqual(logger.names(), ["test_loss", "train_loss"])

    def test_individual_student_losses_are_logged(self):
        logger, *_ = self.standard(network("students_mlp(3)_4_5_2"), loaders=(regression_loader(), regression_loader(9)))
        self.assertEqual(logger.names(), ["test_individual_losses", "test_loss", "train_individual_losses", "train_loss"])
        self.assertEqual(len(logger.latest("test_individual_losses")), 3)

    def test_both_sets_are_evaluated_every_epoch_and_at_the_end(self):
        logger, *_ = self.standard(steps="7it")
        for name in logger.names():
            self.assertEqual(self.iterations(logger, name), [0, 3, 6, 7])

    def test_logged_values_belong_to_the_named_set(self):
        logger, *_ = self.standard()
        for name, loader in (("train", class_loader()), ("test", class_loader(count=9))):
            for metric, value in standard_callbacks.evaluate(self.model, loader).items():
                self.assertEqual(logger.latest(f"{name}_{metric}"), value)

    def test_the_initial_and_final_weights_are_saved(self):
        start = weights(network())
        self.standard()
        for step, expected in (("ep0_it0", start), ("ep2_it0", weights(self.model))):
            saved = network()
            registry.load_weights(f"{self.location}/model_{step}.pth", saved)
            self.assertEqual(weights(saved).tolist(), expected.tolist())

    def test_evaluate_only_at_end_evaluates_the_first_and_last_step(self):
        logger, *_ = self.standard(steps="4ep", evaluate_only_at_end=True)
        for name in logger.names():
            self.assertEqual(self.iterations(logger, name), [0, 4 * BATCHES])

    def test_the_frequency_of_evaluation_does_not_change_the_weights(self):
        self.standard()
        often = weights(self.model)
        self.standard(evaluate_only_at_end=True)
        self.assertEqual(weights(self.model).tolist(), often.tolist())

    def test_a_streamed_training_set_is_evaluated_only_at_the_end(self):
        for options in ({}, {"evaluate_only_at_end": True}):
            loader = class_loader()
            loader.is_stream = True
            logger, *_ = self.standard(steps="4ep", loaders=(loader, class_loader(count=9)), **options)
            self.assertEqual(self.iterations(logger, "train_loss"), [4 * BATCHES])
            self.assertEqual(self.iterations(logger, "test_loss"), [0, 12] if options else [0, 3, 6, 9, 12])

    def test_students_are_evaluated_on_the_training_set_at_the_first_and_last_step(self):
        logger, *_ = self.standard(network("students_mlp(3)_4_5_2"), "4ep")
        self.assertEqual(self.iterations(logger, "train_loss"), [0, 4 * BATCHES])
        self.assertEqual(self.iterations(logger, "test_loss"), [0, 3, 6, 9, 12])

    def test_students_are_evaluated_on_the_test_set_about_fifty_times(self):
        students, evaluate = network("students_mlp(3)_4_5_2"), mock.Mock(return_value={"loss": 1.0})
        with mock.patch.object(standard_callbacks, "evaluate", evaluate), mock.patch.object(standard_callbacks, "save_curves"):
            for epochs in (50, 99, 100, 149, 1000, 12345):
                end, logger = Step(epochs, 1), MetricLogger()
                loaders, plan = (class_loader(), class_loader()), StandardPlan(verbose=False)
                callbacks = standard_callbacks.standard_callbacks(plan, end, students, loaders)
                for step in steps(epochs, per_epoch=1):
                    for callback in callbacks:
                        callback(self.root, step, students, None, logger)
                count = len(logger.get("test_loss"))
                self.assertTrue(STUDENT_EVALUATIONS / 2 <= count <= 2 * STUDENT_EVALUATIONS, f"{count} times in {epochs} epochs")

    def test_a_line_is_printed_for_every_evaluation(self):
        logger, out, err = self.standard()
        lines = out.splitlines()
        self.assertEqual([line.split()[0] for line in lines], ["train", "test"] * 3)
        self.assertRegex(lines[-1], r"^test +ep 002\tit 000\tloss \S+ *\tacc +\d+\.\d\d%\tex 9\ttime \d+\.\d\ds$")
        self.assertIn(f"acc {100 * logger.latest('test_accuracy'):6.2f}%", lines[-1])
        self.assertEqual(err, "")

    def test_without_a_terminal_students_print_plain_progress_lines(self):
        logger, out, err = self.standard(network("students_mlp(3)_4_5_2"))
        self.assertEqual(len(out.splitlines()), 1)
        self.assertIn("ep 002\tit 000\tof ep2_it0\ttest loss", out)
        self.assertNotIn("\r", out)
        self.assertEqual(err, "")

    def test_runs_without_epoch_lines_print_plain_progress_lines(self):
        _, out, _ = self.standard(epoch_lines=False)
        self.assertEqual(len(out.splitlines()), 1)
        self.assertIn("ep 002", out)

    def test_on_a_terminal_progress_is_a_bar(self):
        _, out, err = self.standard(network("students_mlp(3)_4_5_2"), stderr=Terminal())
        self.assertEqual(out, "")
        self.assertIn("%|", err)

    def test_quiet_runs_print_nothing(self):
        for model in (network(), network("students_mlp(3)_4_5_2")):
            for stderr in (io.StringIO(), Terminal()):
                _, out, err = self.standard(model, stderr=stderr, verbose=False)
                self.assertEqual((out, err), ("", ""))


class ProgressTest(TestCase):
    def lines(self, seconds_an_iteration: float, end: int = 20) -> list[str]:
        """The progress lines of a run of `end` iterations that take `seconds_an_iteration` each."""
        clock = iter(seconds_an_iteration * i for i in range(10 * end))
        now = [next(clock)]
        logger, out = MetricLogger(), io.StringIO()
        with (
            mock.patch.object(standard_callbacks.time, "monotonic", lambda: now[0]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            callback = standard_callbacks.create_progress_callback(Step(end, 5), "test_loss", plain_lines=True)
            for step in steps(end, per_epoch=5):
                logger.add("test_loss", step, 100.0 - step.iteration)
                callback("", step, None, None, logger)
                now[0] = next(clock)
        return out.getvalue().splitlines()

    def test_a_progress_line_is_printed_every_few_seconds_and_at_the_end(self):
        self.assertEqual([line.split("\tof")[0] for line in self.lines(1)], [f"ep 00{epoch}\tit 000" for epoch in (1, 2, 3, 4)])
        self.assertEqual(len(self.lines(0.001)), 1)
        self.assertEqual(len(self.lines(100)), 20)

    def test_a_progress_line_has_the_newest_value_and_the_elapsed_and_remaining_time(self):
        self.assertEqual(self.lines(1)[0], "ep 001\tit 000\tof ep4_it0\ttest loss 95\ttime 5s\tleft 15s")
        self.assertTrue(re.search(r"time 20s\tleft 0s$", self.lines(1)[-1]))

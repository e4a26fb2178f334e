"""Runs whose losses cease to be finite say so: while they train, at their end, and in listings."""

import math

from foundations.step import Step
from testing.test_case import TestCase
from training import divergence
from training.metric_logger import MetricLogger

NAN, INF = math.nan, math.inf


def log(losses: dict[int, float], name: str = "test_loss") -> MetricLogger:
    logger = MetricLogger()
    for iteration, loss in losses.items():
        logger.add(name, Step(iteration, 12), loss)
    return logger


class RemarkTest(TestCase):
    def test_it_names_the_loss_and_the_steps_between_which_the_run_has_diverged(self):
        cases = [
            ({0: 1.0, 12: 0.5}, ""),
            ({0: 1.0, 12: INF, 24: 0.5}, ""),
            ({}, ""),
            ({0: 1.0, 12: INF, 24: NAN}, "the test loss is not finite from step 12it on (it is finite at step 0it)"),
            ({0: NAN, 12: 3.0, 24: NAN}, "the test loss is not finite from step 24it on (it is finite at step 12it)"),
            ({0: NAN}, "the test loss is not finite from step 0it on"),
        ]
        for losses, expected in cases:
            self.assertEqual(divergence.remark(log(losses)), expected)
        self.assertEqual(divergence.remark(log({12: -INF}, "train_loss")), "the train loss is not finite from step 12it on")
        self.assertEqual(divergence.remark(log({12: NAN}, "test_margin")), "")

    def test_it_names_the_loss_that_was_the_first_not_to_be_finite(self):
        logger = log({0: 1.0, 12: INF, 24: NAN})
        for iteration, loss in ((0, 1.0), (24, NAN)):
            logger.add("train_loss", Step(iteration, 12), loss)
        self.assertEqual(divergence.remark(logger), "the test loss is not finite from step 12it on (it is finite at step 0it)")

    def test_it_names_the_students(self):
        logger = log({0: 1.0, 12: NAN})
        logger.add("test_individual_losses", Step(12, 12), [NAN, 0.5, INF])
        self.assertIn("the test loss of students 0, 2 (of 0 to 2) is not finite from step 12it on", divergence.remark(logger))


class CommandTest(TestCase):
    flags = ("--default_hparams=digits_lenet_4", "--training_steps=2ep", "--batch_size=500", "--global_seed=0", "--optimizer_name=adam")

    def test_a_run_that_diverges_warns_once_and_is_not_called_finished(self):
        for repeated in (False, True):
            status, out, err = self.command("train", *self.flags, "--lr=1e38")
            last = out.splitlines()[-1]
            self.assertRegex(
                last, r"^Diverged: test loss (nan|inf), accuracy .*; the \w+ loss is not finite from step 3it on \(.* step 0it\)$"
            )
            self.assertEqual(status, 0)
            if repeated:
                self.assertEqual(err, "")
            else:
                self.assertRegex(err, r"^Warning: .*/main has diverged: the train loss is not finite from step 3it on [^\n]*\n$")
        self.assertIn("finished (diverged)", self.command("runs")[1])

    def test_a_run_that_converges_does_not_warn(self):
        status, out, err = self.command("train", *self.flags)
        self.assertEqual((status, err), (0, ""))
        self.assertRegex(out.splitlines()[-1], "^Finished: test loss ")

    def test_a_lottery_that_diverges_says_so_and_does_not_prune_the_diverged_network(self):
        lottery = ("lottery", *self.flags, "--lr=1e38", "--levels=1", "--quiet")
        status, _, err = self.command(*lottery)
        self.assertEqual(status, 2)
        self.assertRegex(err, "level_0/main has diverged")
        self.assertRegex(err, "the network cannot be pruned: some of its weights have no finite score")
        status, out, err = self.command("lottery", *self.flags, "--lr=1e38", "--levels=0")
        self.assertIn("Level 0 has diverged: the train loss is not finite from step 3it on", out)
        status, _, err = self.command(*lottery, "--rewinding_steps=1ep")
        self.assertEqual(status, 2)
        self.assertIn("the weights at the end of pretraining are not finite", err)

    def test_a_network_that_has_diverged_is_no_teacher(self):
        self.command("train", *self.flags, "--lr=1e38", "--quiet")
        (name,) = {path.partition("/")[0] for path in self.files()}
        before = self.files()
        student = (
            "train",
            "--default_hparams=mlp_64_4_10",
            "--training_steps=1it",
            "--dataset_name=teacher",
            "--datagen=random:10",
            "--quiet",
        )
        status, _, err = self.command(*student, f"--teacher_name={name}", "--teacher_seed=0", "--optimizer_name=sgd")
        self.assertEqual(status, 2)
        self.assertRegex(err, r"^EC.py train: --teacher_name: .*not finite; the training has diverged\n$")
        self.assertEqual(self.files(), before)

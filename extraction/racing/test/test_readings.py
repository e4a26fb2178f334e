"""Answers between 0 and 1 as outputs of a network and as probabilities of a sigmoid."""

import contextlib
import glob
import json
import os
import unittest
from unittest import mock

import numpy as np
from scipy.special import expit

import EC
from extraction import plotting
from extraction.racing import readings
from extraction.racing.readings import ReadingsRunner
from extraction.reporting import export
from extraction.runner import ExtractionRunner
from foundations.errors import ConfigError
from testing.test_case import TestCase
from training import plotting as curves

STUDENTS = ("--default_hparams=students_mlp(4)_2_6_1", "--act_fun=tanh", "--training_steps=100it")
POLISH = ("--polish_optimizer=levenberg_marquardt", "--polish_steps=60it")


class ReadingsTestCase(TestCase):
    def setUp(self):
        super().setUp()
        generator = np.random.default_rng(0)
        self.X = generator.normal(size=(300, 2))
        hidden = np.tanh(self.X @ np.array([[1.5, -0.7], [0.4, 1.8]]) + np.array([0.5, -0.3]))
        self.outputs = hidden @ np.array([[1.0], [-0.8]]) + 0.4

    def job(self, answers, *flags):
        """The call of the command for some answers."""
        path = os.path.join(self.root, "answers.npz")
        np.savez(path, X=self.X, y=answers)
        _, job = EC.COMMANDS.parse("extract", [f"--teacher_name={path}", *STUDENTS, *flags])
        return job


class TestFlags(ReadingsTestCase):
    def test_answers_between_zero_and_one_have_two_readings_unless_a_link_is_given(self):
        probabilities = expit(self.outputs)
        runner = self.job(probabilities).create()
        self.assertIsInstance(runner, ReadingsRunner)
        self.assertEqual([reading.desc.dataset_hparams.link for reading in runner.readings], [None, "sigmoid"])
        plain = self.job(probabilities, "--link=raw").create()
        self.assertIs(type(plain), ExtractionRunner)
        self.assertEqual(runner.output_location, plain.output_location)
        stated = self.job(probabilities, "--link=sigmoid").create()
        self.assertEqual(runner.other.output_location, stated.output_location)
        for answers in (self.outputs, probabilities + 0.5, 1.5 * probabilities - 0.5):
            self.assertIs(type(self.job(answers).create()), ExtractionRunner)


class TestOrder(ReadingsTestCase):
    """Which reading is tried first, and when the other one is."""

    def tried(self, losses, identified, fails=()):
        """The links that are tried, for losses of the students by link and those whose network is identified; and the one that is shown."""
        runner = self.job(expit(self.outputs), "--quiet").create()
        links = {id(runner.raw): "raw", id(runner.other): "sigmoid"}
        tried, shown, trained = [], [], []

        def work(reading):
            tried.append(links[id(reading)])
            if links[id(reading)] in fails:
                raise ConfigError("the students share too little")

        def loss(reading):
            trained.append(links[id(reading)])
            return losses[links[id(reading)]]

        with (
            mock.patch.object(ExtractionRunner, "work", work),
            mock.patch.object(ExtractionRunner, "present", lambda reading: shown.append(links[id(reading)])),
            mock.patch.object(ExtractionRunner, "is_finished", False),
            mock.patch.object(ReadingsRunner, "_loss", lambda self, reading: loss(reading)),
            mock.patch.object(ReadingsRunner, "_nearer", lambda self, finished: finished[0]),
            mock.patch.object(readings, "is_identified", lambda reading: links[id(reading)] in identified),
        ):
            runner.run()
        return tried, shown, trained

    def test_raw_answers_cost_nothing_more_if_students_give_them(self):
        self.assertEqual(self.tried({"raw": 1e-9}, ["raw"]), (["raw"], ["raw"], ["raw"]))

    def test_the_reading_whose_students_are_far_nearer_is_tried_alone(self):
        for losses, right in (({"raw": 1e-3, "sigmoid": 1e-5}, "sigmoid"), ({"raw": 1e-5, "sigmoid": 1e-3}, "raw")):
            self.assertEqual(self.tried(losses, []), ([right], [right], ["raw", "sigmoid"]))

    def test_readings_that_are_about_as_near_are_tried_one_after_the_other(self):
        losses = {"raw": 1e-5, "sigmoid": 3e-5}
        self.assertEqual(self.tried(losses, ["raw"])[:2], (["raw"], ["raw"]))
        self.assertEqual(self.tried(losses, ["sigmoid"])[:2], (["raw", "sigmoid"], ["sigmoid"]))
        self.assertEqual(self.tried(losses, [])[:2], (["raw", "sigmoid"], ["raw"]))
        self.assertEqual(self.tried(losses, ["sigmoid"], fails=["raw"])[:2], (["raw", "sigmoid"], ["sigmoid"]))

    def test_the_error_is_that_of_the_raw_reading_if_neither_leads_to_a_network(self):
        with self.assertRaisesRegex(ConfigError, "share too little"):
            self.tried({"raw": 1e-5, "sigmoid": 3e-5}, [], fails=["raw", "sigmoid"])


class TestRun(ReadingsTestCase):
    def test_probabilities_that_do_not_come_near_zero_and_one_are_noticed_by_the_networks(self):
        job = self.job(expit(self.outputs), *POLISH, "--quiet")
        with contextlib.ExitStack() as stack:
            for change in (
                (plotting, "draw", mock.Mock()),
                (export, "program", mock.Mock(return_value=b"")),
                (curves, "attempt", mock.Mock()),
            ):
                stack.enter_context(mock.patch.object(*change))
            job()
        runner = job.create()
        self.assertEqual((runner.output_location, runner.is_finished), (runner.other.output_location, True))
        with open(os.path.join(runner.output_location, "report.json")) as file:
            self.assertTrue(json.load(file)["certificate"]["accepted"])
        with open(os.path.join(runner.output_location, "provenance.json")) as file:
            self.assertTrue(json.load(file)["command"].endswith(" --link sigmoid"))
        self.assertEqual(len(glob.glob(os.path.join(runner.raw.students_location, "dropped.json"))), 1)


if __name__ == "__main__":
    unittest.main()

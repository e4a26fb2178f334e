"""The command `extract` for a network of unknown depth or activation function."""

import json
import os
import shlex
import unittest
from unittest import mock

import numpy as np

import EC
from extraction import plotting
from extraction.hypothesis import Hypothesis
from extraction.racing import race_runner, rungs, standings
from extraction.racing.race import Rung
from extraction.reporting import export
from extraction.runner import ExtractionRunner
from foundations import paths
from platforms.platform import get_platform
from testing import toy_teacher
from testing.test_case import TestCase
from training import plotting as curves

SMALL = (Rung(4, 1, 1, 100, 40), Rung(4, 2, 1))


class RaceTestCase(TestCase):
    def setUp(self):
        super().setUp()
        generator = np.random.default_rng(0)
        X = generator.normal(size=(300, 2))
        hidden = np.tanh(X @ np.array([[1.5, -0.7], [0.4, 1.8]]) + np.array([0.5, -0.3]))
        self.file = os.path.join(self.root, "answers.npz")
        np.savez(self.file, X=X, y=hidden @ np.array([[1.0, 0.6], [-0.8, 1.1]]) + 0.1)

    def runner(self, *arguments):
        """The runner of a command with the file as teacher."""
        _, job = EC.COMMANDS.parse("extract", [f"--teacher_name={self.file}", *arguments])
        return job.create()


class TestFlags(RaceTestCase):
    def test_without_a_model_all_hypotheses_are_tried(self):
        found = self.runner().hypotheses
        self.assertEqual((len(found), found[0], found[-1]), (21, Hypothesis(1, "relu"), Hypothesis(3, "g")))

    def test_answers_between_zero_and_one_are_raw_or_those_of_a_sigmoid(self):
        with np.load(self.file) as arrays:
            X, y = arrays["X"], arrays["y"]
        np.savez(self.file, X=X, y=1 / (1 + np.exp(-y)))
        runner = self.runner("--depth=1", "--act_fun=tanh")
        self.assertEqual(runner.hypotheses, [Hypothesis(1, "tanh"), Hypothesis(1, "tanh", "sigmoid")])
        links = [runner.as_given(runner.entry(each, rungs.RUNGS[0])).dataset_hparams.link for each in runner.hypotheses]
        self.assertEqual(links, [None, "sigmoid"])
        for link in ("raw", "sigmoid"):
            self.assertEqual(self.runner("--depth=1", "--act_fun=tanh", f"--link={link}").hypotheses, [Hypothesis(1, "tanh")])

    def test_a_partly_known_architecture_leaves_fewer(self):
        cases = {
            ("--act_fun=tanh",): [Hypothesis(depth, "tanh") for depth in (1, 2, 3)],
            ("--depth=2", "--act_fun=g+relu"): [Hypothesis(2, "relu"), Hypothesis(2, "g")],
            ("--default_hparams=students_mlp(10)_2_9_9_2", "--act_fun=gelu+silu"): [Hypothesis(2, "gelu"), Hypothesis(2, "silu")],
            ("--default_hparams=students_mlp(10)_2_9_2", "--depth=auto"): [Hypothesis(depth, "relu") for depth in (1, 2, 3)],
        }
        for arguments, expected in cases.items():
            with self.subTest(arguments):
                self.assertEqual(self.runner(*arguments).hypotheses, expected)

    def test_a_known_architecture_is_an_ordinary_extraction(self):
        students = "--default_hparams=students_mlp(10)_2_9_2"
        plain, stated = self.runner(students, "--act_fun=tanh"), self.runner(students, "--act_fun=tanh", "--depth=1")
        self.assertIs(type(stated), ExtractionRunner)
        self.assertEqual(stated.output_location, plain.output_location)

    def test_students_that_are_given_are_those_of_the_last_rung(self):
        runner = self.runner("--default_hparams=students_mlp(8)_2_9_2", "--act_fun=auto")
        entry = runner.entry(Hypothesis(1, "gelu"), rungs.RUNGS[-1])
        ordinary = self.runner("--default_hparams=students_mlp(8)_2_9_2", "--act_fun=gelu")
        self.assertEqual(runner.extraction(entry).output_location, ordinary.output_location)

    def test_every_run_is_an_ordinary_extraction_with_the_command_that_is_shown(self):
        runner = self.runner("--gamma=0.6", "--answers=float32", "--batch_size=64", "--global_seed=3")
        for rung in rungs.RUNGS:
            entry = runner.entry(Hypothesis(2, "silu"), rung)
            with self.subTest(rung):
                command, *arguments = runner.command(entry)
                _, job = EC.COMMANDS.parse(command, arguments)
                ordinary = job.create()
                self.assertIs(type(ordinary), ExtractionRunner)
                self.assertEqual(ordinary.output_location, runner.extraction(entry).output_location)

    def test_polishing_is_left_out_where_students_have_many_weights(self):
        runner, rung = self.runner(), rungs.RUNGS[0]
        small, large = (
            runner.as_given(entry) for entry in (runner.entry(Hypothesis(1, "relu"), rung), runner.entry(Hypothesis(3, "relu"), rung))
        )
        self.assertEqual(small.training_hparams.polish_optimizer, "levenberg_marquardt")
        self.assertLess(rungs.unknowns_of(large.model_hparams.model_name), rungs.POLISHED)
        with mock.patch.object(rungs, "POLISHED", 300):
            large = runner.as_given(runner.entry(Hypothesis(3, "relu"), rung)).training_hparams
        self.assertEqual((large.polish_optimizer, large.training_steps), (None, f"{rung.steps * rungs.UNPOLISHED}it"))

    def test_a_swarm_needs_polishing(self):
        ordinary, swarm = (next(rung for rung in rungs.RUNGS if rung.is_swarm is is_swarm) for is_swarm in (False, True))
        for rung, unknowns, expected in ((swarm, 800, True), (swarm, 801, False), (ordinary, 801, True)):
            self.assertIs(rungs.suits(rung, unknowns), expected, (rung, unknowns))

    def test_unknowns_are_counted(self):
        self.assertEqual(rungs.unknowns_of("students_mlp(4)_5_12_12_2"), 6 * 12 + 13 * 12 + 13 * 2)

    def test_what_cannot_be_run_is_refused_in_a_line_and_writes_nothing(self):
        teacher, _ = toy_teacher.make("mlp_6_4_3", "tanh", seed=1)
        before, file = self.files(), f"--teacher_name={self.file}"
        cases = {
            "--teacher_name is required without a model": (),
            "--teacher_name: nothing.npz does not exist": ("--teacher_name=nothing.npz",),
            "--depth: '5' is not a number of hidden layers": (file, "--depth=5"),
            "--act_fun: 'tahn' is not known, did you mean 'tanh'": (file, "--act_fun=auto+tahn"),
            "--depth: 2 contradicts students_mlp(10)_2_9_2": (file, "--default_hparams=students_mlp(10)_2_9_2", "--depth=2"),
            "students_mlp(10)_3_9_2 takes 3 inputs": (file, "--default_hparams=students_mlp(10)_3_9_2", "--act_fun=auto"),
            "digits_lenet_16 is not a stack of students": (file, "--default_hparams=digits_lenet", "--act_fun=auto"),
            "--teacher_name: digits_lenet_12 is a model": ("--teacher_name=digits_lenet_12",),
            "--datagen is required": (f"--teacher_name={teacher}", "--teacher_seed=1"),
            "--gamma: 2.0 is out of range": (file, "--gamma=2"),
        }
        for expected, arguments in cases.items():
            with self.subTest(expected):
                status, out, err = self.command("extract", *arguments)
                self.assertEqual((status, out, err.count("\n")), (2, "", 1))
                self.assertIn(expected, err)
        self.assertEqual(self.files(), before)


class TestAnswers(RaceTestCase):
    def test_an_affine_map_has_no_hidden_layer(self):
        X = np.random.default_rng(1).normal(size=(100, 2))
        np.savez(self.file, X=X, y=X @ np.array([[3.0], [-1.0]]) + 100)
        status, _, err = self.command("extract", f"--teacher_name={self.file}")
        self.assertEqual((status, err.count("\n")), (2, 1))
        self.assertIn("the answers are an affine map of the queries", err)

    def test_the_precision_of_the_answers_says_when_students_are_exact(self):
        def scale(*arguments):
            runner = self.runner(*arguments)
            first = runner.extraction(runner.entry(runner.hypotheses[0], rungs.RUNGS[0]))
            first.prepare()
            return standings.Scale.of(first)

        exact, noisy = scale(), scale("--answers=noise:0.001")
        self.assertEqual((exact.exact, exact.numbers), (standings.EXACT, 270 * 2))
        self.assertAlmostEqual(noisy.exact / (3 * 0.001) ** 2 * exact.own, 1, delta=0.5)


class TestRaces(RaceTestCase):
    def setUp(self):
        super().setUp()
        changes = [
            (rungs, "RUNGS", SMALL),
            (rungs, "WIDTH", 4),
            (plotting, "draw", mock.Mock()),
            (export, "program", mock.Mock(return_value=b"")),
            (curves, "curves", mock.Mock()),
        ]
        for module, name, value in changes:
            patch = mock.patch.object(module, name, value)
            patch.start()
            self.addCleanup(patch.stop)

    def test_a_race_finds_the_network_and_the_command_that_gives_it_again(self):
        arguments = f"--teacher_name={self.file}", "--act_fun=tanh+relu", "--depth=1", "--global_seed=1"
        status, out, err = self.command("extract", *arguments)
        self.assertEqual((status, err), (0, ""))
        self.assertIn("IDENTIFIED exactly. mlp_2_2_2", out)
        self.assertNotIn("Rung 2", out)
        dropped = [name for name in self.files() if name.endswith(os.path.basename(paths.dropped("")))]
        with open(os.path.join(self.root, *dropped)) as file:  # the only one
            self.assertEqual(json.load(file), {"hypothesis": "1 hidden layer of relu"})
        line = out.splitlines()[-1].partition("The same result by an ordinary command: python EC.py ")[2]
        with (
            self.subTest("the ordinary command finds the result, and so does the race"),
            mock.patch.object(race_runner, "train", side_effect=AssertionError),
            mock.patch.object(ExtractionRunner, "train_students", side_effect=AssertionError),
        ):
            _, shown, _ = self.command(*shlex.split(line))
            self.assertIn("IDENTIFIED exactly. mlp_2_2_2", shown)
            self.assertEqual(self.command("extract", *arguments)[1], out)
        with self.subTest("all that is kept are runs"):
            self.assertEqual({name.split("_")[0] for name in os.listdir(get_platform().root)}, {"answers", "answers.npz", "extract"})
            runner = self.runner(*arguments[1:])
            self.assertTrue(runner.is_finished)
            self.assertIn(os.path.basename(runner.output_location), shlex.join(os.listdir(os.path.dirname(runner.output_location))))

    def test_the_link_of_answers_between_zero_and_one_is_found(self):
        with np.load(self.file) as arrays:
            X, y = arrays["X"], arrays["y"]
        np.savez(self.file, X=X, y=1 / (1 + np.exp(-y)))
        status, out, err = self.command("extract", f"--teacher_name={self.file}", "--act_fun=tanh", "--depth=1", "--global_seed=1")
        self.assertEqual((status, err), (0, ""))
        self.assertIn("answers as they are, or of a sigmoid", out)
        self.assertIn("The answers are probabilities of a sigmoid, and the recovered network gives their logits.", out)
        self.assertIn("Recovering the network: 1 hidden layer of tanh before sigmoid", out)
        self.assertIn("IDENTIFIED exactly. mlp_2_2_2", out)
        self.assertIn(" --link=sigmoid", out.splitlines()[-1])

    def test_the_slope_of_leaky_relu_is_estimated(self):
        generator = np.random.default_rng(1)
        X = generator.normal(size=(400, 3))
        z = X @ np.array([[1.5, -0.7], [0.4, 1.8], [0.3, 0.9]]) + np.array([0.5, -0.3])
        np.savez(self.file, X=X, y=np.maximum(z, 0.2 * z) @ np.array([[1.0, 0.6], [-0.8, 1.1]]) + 0.1)
        status, out, err = self.command(
            "extract", f"--teacher_name={self.file}", "--act_fun=relu+leaky_relu", "--depth=1", "--global_seed=1"
        )
        self.assertEqual((status, err), (0, ""))
        self.assertIn("The network has fewer neurons with leaky_relu:0.2", out)
        self.assertIn("IDENTIFIED exactly. mlp_3_2_2", out)
        self.assertIn("--act_fun=leaky_relu:0.2", out.splitlines()[-1])


if __name__ == "__main__":
    unittest.main()

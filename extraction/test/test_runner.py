"""The command `extract`: its verdict, files and errors, with and without a teacher."""

import json
import os
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from extraction import search
from extraction.test.known_networks import without_pictures
from foundations.model_hparams import ModelHparams
from models import registry
from platforms.platform import get_platform
from testing import browser, toy_teacher
from testing.test_case import TestCase, need
from training import checkpointing, train
from training.metric_logger import MetricLogger

STUDENTS = ("--default_hparams=students_mlp(6)_6_12_3", "--global_seed=3", "--training_steps=800it")


class ExtractionTestCase(TestCase):
    def setUp(self):
        super().setUp()
        self.teacher_hash, self.teacher = toy_teacher.make("mlp_6_4_3", "tanh", seed=1)

    def run_toy(self, *arguments):
        """Runs the command for the toy students of the toy teacher."""
        asked = f"--teacher_name={self.teacher_hash}", "--teacher_seed=1", "--datagen=random:1000"
        return self.command("extract", *STUDENTS, "--act_fun=tanh", *asked, *arguments)

    def extract(self, *arguments):
        """Extracts from the toy teacher and returns the output."""
        status, out, err = self.run_toy(*arguments)
        self.assertEqual((status, err), (0, ""))
        return out

    def report(self, *arguments):
        """The report of the only extraction, or of the extraction with these arguments."""
        _, out, _ = self.run_toy(*arguments, "--display_output_location")
        location = out.strip()
        with open(os.path.join(location, "report.json")) as file:
            return location, json.load(file)

    def assert_opens(self, path, verdict, pictures):
        """Opens a page in a browser, in narrow and wide windows, light and dark, and checks that it is complete and without errors."""
        with browser.running() as page:
            page.open(path)
            for width, dark in ((360, True), (1280, False)):
                page.show(width, dark=dark)
                self.assertLessEqual(page.evaluate("document.documentElement.scrollWidth"), width)
                shown = page.evaluate("[verdict.innerText, verdict.checkVisibility(), verdict.getBoundingClientRect().top < innerHeight]")
                self.assertEqual(shown, [verdict, True, True])
            widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
            self.assertEqual((len(widths), min(widths) > 0), (pictures, True))
            self.assertEqual(page.complaints, [])

    def contents(self):
        """The bytes of every file under the root, except files with times or pictures."""
        kept = [name for name in self.files() if not name.endswith((".png", "report.json", "report.html", "provenance.json"))]
        return {name: Path(self.root, name).read_bytes() for name in kept}


class TestExtraction(ExtractionTestCase):
    def test_the_teacher_is_identified_and_the_report_is_written(self):
        out = self.extract()
        location, report = self.report()

        with self.subTest("the verdict is printed"):
            self.assertIn("Verdict: IDENTIFIED. 4 of 4 neurons, none in excess", out)
        with self.subTest("the report says so"):
            self.assertIs(report["identified"], True)
            self.assertLessEqual(report["max_relative_error"], 1e-9)
            self.assertEqual([layer["recovered_width"] for layer in report["layers"]], [4, 3])
            self.assertEqual(report["students"]["count"], len(report["students"]["losses"]), 6)
            self.assertLess(report["function"]["max_abs_error"], 1e-9)
            self.assertGreater(report["before_finetuning"]["max_relative_error"], report["max_relative_error"])
        with self.subTest("the network is a plain model that opens like any other and answers like the teacher"):
            model = registry.load(report["model_path"], ModelHparams(report["model_name"], "kaiming_normal", "uniform", "tanh"))
            self.assertEqual(report["model_name"], "mlp_6_4_3")
            self.assertEqual(list(model.state_dict()), ["fc_layers.0.weight", "fc_layers.0.bias", "fc.weight", "fc.bias"])
            queries = torch.randn(100, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
            torch.testing.assert_close(model(queries), self.teacher(queries), rtol=0, atol=1e-9)
        with self.subTest("the folder is that of the specification"):
            main = os.path.dirname(location)
            self.assertEqual(
                sorted(os.listdir(main)),
                sorted(
                    [os.path.basename(location), "checkpoint.pth", "curves.png", "hparams.log", "hparams_dict", "logger"]
                    + ["model_ep0_it0.pth", "provenance.json", report["students"]["weights"]]
                ),
            )
            pictures = ["cluster_alignment_1", "dendrogram_1", "distance_matrix_1", "residuals", "student_losses"]
            pictures += ["teacher_alignment_1", "weights_1", "weights_2"]
            self.assertEqual(sorted(os.listdir(os.path.join(location, "ECplots"))), [f"{name}.png" for name in pictures])
            for name in ("extraction_hparams_dict", "extraction_hparams.log", "finetune_checkpoints", "provenance.json", "report.html"):
                self.assertIn(name, os.listdir(location))
            for name in ("checkpoint.pth", "curves.png", "logger", "model_ep0_it0.pth"):
                self.assertIn(name, os.listdir(os.path.join(location, "reconstructed_model")))
        with self.subTest("the page opens in a browser, with its pictures and without complaints"):
            need(browser.missing(), "EC_REQUIRE_CHROMIUM")
            self.assert_opens(os.path.join(location, "report.html"), "IDENTIFIED", len(pictures))
        with (
            self.subTest("again: nothing is computed, the answer is the same, and a page that is missing comes back"),
            mock.patch.object(train, "train", side_effect=AssertionError),
            mock.patch.object(search, "reconstruct", side_effect=AssertionError),
        ):
            page, before = Path(location, "report.html"), self.contents()
            made = page.read_bytes()
            page.unlink()
            self.assertEqual(self.extract(), self.extract())
            self.assertEqual((page.read_bytes(), self.contents()), (made, before))
        with (
            self.subTest("a start that was killed before the pictures is completed"),
            mock.patch.object(search, "reconstruct", side_effect=ArithmeticError("reached")),
        ):
            del report["seconds"]["pictures"]
            written = Path(location, "report.json").read_bytes()
            Path(location, "report.json").write_text(json.dumps(report))
            with self.assertRaisesRegex(ArithmeticError, "reached"):
                self.run_toy()
            Path(location, "report.json").write_bytes(written)
            Path(location, ".failure.json").unlink()
        with self.subTest("other extraction hyperparameters go to another folder, and train no student"):
            before = self.contents()
            self.extract("--gamma=0.5", "--beta=4")
            self.assertEqual({name: self.contents()[name] for name in before}, before)
            self.assertIs(self.report("--gamma=0.5", "--beta=4")[1]["identified"], True)
            self.assertNotEqual(self.report("--gamma=0.5", "--beta=4")[0], location)

    @without_pictures()
    def test_an_interrupted_extraction_ends_with_the_same_bits(self):
        short = "--training_steps=60it", "--gamma=0.4", "--beta=1", "--finetune_training_steps=3it"
        self.extract(*short)
        undisturbed = self.contents()
        for name in undisturbed:
            if name.startswith("extract_"):
                os.remove(os.path.join(self.root, name))
        for png in [name for name in self.files() if name.startswith("extract_")]:
            os.remove(os.path.join(self.root, png))

        save, kills = checkpointing.save, [2, 5, 16, 18]
        calls = 0

        def save_and_die(*arguments):
            nonlocal calls
            save(*arguments)
            calls += 1
            if calls in kills:
                raise KeyboardInterrupt

        with mock.patch.object(checkpointing, "save", save_and_die), mock.patch.object(train, "CHECKPOINT_SECONDS", 0):
            for _ in range(len(kills) + 1):
                self.run_toy(*short)
        self.assertGreater(calls, max(kills))
        final = {name: content for name, content in undisturbed.items() if not name.endswith("checkpoint.pth")}
        self.assertEqual({name: self.contents().get(name) for name in final}, final)

    @without_pictures()
    def test_answers_in_a_file_suffice(self):
        queries = torch.randn(1100, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        path = os.path.join(self.root, "pairs.npz")
        np.savez(path, X=queries.numpy(), y=self.teacher(queries).detach().numpy())
        out = self.extract(f"--teacher_name={path}")
        self.assertIn("Verdict: IDENTIFIED exactly. mlp_6_4_3 gives every answer to rounding", out)
        (name,) = [name for name in self.files() if name.endswith("report.json")]
        with open(os.path.join(self.root, name)) as file:
            report = json.load(file)
        self.assertIs(report["certificate"]["accepted"], True)
        self.assertIsNone(report["identified"])
        self.assertIsNone(report["layers"][0]["matched"])
        self.assertEqual(report["layers"][0]["recovered_width"], 4)
        self.assertLess(report["function"]["max_abs_error"], 1e-9)

    @without_pictures()
    def test_answers_of_any_scale_give_a_network_of_the_users_inputs_and_outputs(self):
        queries = torch.randn(1100, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        answers = 1000 + 1e4 * self.teacher(queries).detach()
        columns = 100 + 1e3 * torch.cat([queries, torch.zeros(1100, 1)], 1)
        path = os.path.join(self.root, "pairs.npz")
        np.savez(path, X=columns.numpy(), y=answers.numpy())
        out = self.extract(f"--teacher_name={path}", "--default_hparams=students_mlp(4)_7_9_3")
        self.assertEqual(out.count("Note: column 6 of X is constant and left out"), 1)
        self.assertRegex(
            out,
            "Verdict: IDENTIFIED but for the weights from column 6 of X, which no query tells in full. .* Column 6 of X is constant",
        )
        (name,) = [name for name in self.files() if "reconstructed" in name and name.endswith(".pth") and "ep0_it0" not in name]
        state = {key: value.numpy() for key, value in torch.load(os.path.join(self.root, name), weights_only=True).items()}
        hidden = np.tanh(columns.numpy() @ state["fc_layers.0.weight"].T + state["fc_layers.0.bias"])
        np.testing.assert_allclose(hidden @ state["fc.weight"].T + state["fc.bias"], answers.numpy(), atol=1e-7)
        self.assertFalse(state["fc_layers.0.weight"][:, 6].any())
        again = self.extract(f"--teacher_name={path}", "--default_hparams=students_mlp(4)_7_9_3")
        self.assertEqual(again.splitlines()[-1], out.splitlines()[-1])

    @without_pictures()
    def test_rounded_answers_are_identified_to_their_precision(self):
        queries = torch.randn(1100, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        path = os.path.join(self.root, "pairs.npz")
        np.savez(path, X=queries.numpy(), y=self.teacher(queries).detach().numpy().round(4))
        out = self.extract(f"--teacher_name={path}")
        self.assertIn("Verdict: IDENTIFIED to the precision of the answers (error of a weight at most ", out)
        self.assertIn("(precision: decimals:4)", out)
        self.assertIn("certificate accepted to the precision of the answers", out)
        (name,) = [name for name in self.files() if name.endswith("standard_errors.npz")]
        with np.load(os.path.join(self.root, name)) as errors:
            shapes = {weight: values.shape for weight, values in errors.items()}
            self.assertTrue(all((values > 0).all() and (values < 1e-2).all() for values in errors.values()))
        self.assertEqual(shapes, {name: tuple(value.shape) for name, value in self.teacher.state_dict().items()})

    @without_pictures()
    def test_polishing_makes_students_exact_and_then_stops(self):
        self.extract("--polish_optimizer=levenberg_marquardt")
        (log,) = [name for name in self.files() if os.path.join("main", "polish") in name and name.endswith("logger")]
        logger = MetricLogger.load(os.path.dirname(os.path.join(self.root, log)))
        self.assertLess(logger.last_iteration, 200)
        _, report = self.report("--polish_optimizer=levenberg_marquardt")
        losses = sorted(report["students"]["losses"])
        self.assertLess(losses[1], 1e-18)
        self.assertIs(report["identified"], True)

    @without_pictures()
    def test_uninformative_inputs_are_left_out_of_clustering_and_score(self):
        name, _ = toy_teacher.make("mlp_64_3_2", "tanh", seed=1)
        arguments = (
            "extract", "--default_hparams=students_mlp(4)_64_6_2", "--act_fun=tanh", f"--teacher_name={name}", "--teacher_seed=1",
            "--datagen=random:1500", "--global_seed=3", "--training_steps=600it", "--boruta=digits",
        )  # fmt: skip
        mask = [place % 8 not in (0, 7) for place in range(64)]
        get_platform().write(os.path.join(get_platform().boruta_root, "digits.json"), json.dumps(mask))
        status, out, err = self.command(*arguments)
        self.assertEqual((status, err), (0, ""))
        self.assertIn("Verdict: IDENTIFIED. 3 of 3 neurons", out)

    def test_too_few_answers_are_refused_after_students_are_saved(self):
        queries = torch.randn(12, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        path = os.path.join(self.root, "pairs.npz")
        np.savez(path, X=queries.numpy(), y=self.teacher(queries).detach().numpy())
        status, _, err = self.run_toy(f"--teacher_name={path}", "--training_steps=100it", "--gamma=0.4", "--beta=1")
        self.assertEqual((status, err.count("\n")), (2, 1), err)
        self.assertRegex(err, "33 numbers in the answers are too few for the .* unknowns of mlp_6_.*; use more queries")
        self.assertTrue(any(name.endswith("main/logger") and name.startswith("extract_") for name in self.files()))

    def test_students_without_shared_neurons_are_saved(self):
        status, _, err = self.run_toy("--training_steps=1it", "--gamma=1.0", "--beta=60")
        self.assertEqual((status, err.count("\n")), (2, 1))
        self.assertIn("no cluster", err)
        self.assertTrue(any(name.endswith("main/logger") and name.startswith("extract_") for name in self.files()))


class TestErrors(ExtractionTestCase):
    def assert_refused(self, expected, *arguments):
        before = self.files()
        status, _, err = self.run_toy(*arguments)
        self.assertEqual((status, err.count("\n")), (2, 1), err)
        self.assertIn(expected, err)
        self.assertEqual(self.files(), before)

    def test_invalid_commands_are_refused_in_one_line_and_write_nothing(self):
        cases = {
            "--gamma": ["--gamma=0.2"],
            "--beta": ["--beta=0.5"],
            "--finetune_optimizer": ["--finetune_optimizer=lm"],
            "--polish_optimizer: 'adam' is not known": ["--polish_optimizer=adam"],
            "--polish_steps": ["--polish_steps=0it"],
            "--linkage: 'ward' is not known": ["--linkage=ward"],
            "--boruta: 'digit' is not known, did you mean 'digits'": ["--boruta=digit"],
            "the images of digits have 64 values; the network takes 6": ["--boruta=digits"],
            "is not a stack of students": ["--model_name=mlp_6_12_3"],
            "takes 7 inputs": ["--model_name=students_mlp(6)_7_12_3"],
            "has 2 outputs": ["--model_name=students_mlp(6)_6_12_2"],
            "has no teacher to extract": ["--dataset_name=digits"],
            "--d_in: 5 is wrong": ["--d_in=5"],
            "--samples: 7 does not fit": ["--samples=7"],
            "64 values": ["--datagen=digits"],
            "valid: 1": ["--teacher_seed=9"],
            "is not a teacher": ["--teacher_name=123abc"],
        }
        for expected, arguments in cases.items():
            with self.subTest(expected):
                self.assert_refused(expected, *arguments)

    def test_the_error_says_that_students_have_diverged(self):
        status, _, err = self.run_toy("--optimizer_name=sgd", "--lr=1e30", "--training_steps=5it", "--quiet")
        self.assertEqual((status, err.count("\n")), (2, 2), err)
        self.assertRegex(err, "^Warning: .* has diverged: the test loss of students 0, 1, ")
        self.assertIn("students have a finite loss; try a smaller --lr", err)

    def test_the_error_says_that_students_have_collapsed_to_constants(self):
        status, _, err = self.run_toy("--lr=1e5", "--act_fun=relu", "--training_steps=50it", "--quiet")
        self.assertEqual((status, err.count("\n")), (2, 1), err)
        self.assertIn("contribute nothing to their outputs; try a smaller --lr", err)

    def test_the_error_names_a_damaged_teacher_model(self):
        path = os.path.join(self.root, self.teacher_hash, "seed_1", "main", "model_ep1_it0.pth")
        with open(path, "r+b") as file:
            file.truncate(500)
        status, _, err = self.run_toy()
        self.assertEqual((status, err.count("\n")), (2, 1))
        self.assertIn(path, err)
        self.assertEqual(os.path.getsize(path), 500)


if __name__ == "__main__":
    unittest.main()

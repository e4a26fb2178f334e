"""The command `train`: its files, seeds, teachers and errors."""

import json
import os
import shlex
import shutil
from unittest import mock

import numpy as np
import torch

from foundations import paths
from foundations.dataset_hparams import DatasetHparams
from foundations.defaults import DefaultHparams
from foundations.model_hparams import ModelHparams
from foundations.training_hparams import TrainingHparams
from models import base
from platforms.platform import get_platform
from platforms.system import provenance
from testing import toy_teacher
from testing.test_case import TestCase
from training import train as train_module
from training.metric_logger import MetricLogger

RUN_FILES = ["checkpoint.pth", "curves.png", "hparams.log", "hparams_dict", "logger", "model_ep0_it0.pth", "model_ep2_it0.pth"]
RUN_FILES += ["provenance.json"]


class RunnerTestCase(TestCase):
    """A test that runs `train` on a small network for the digits, or on a small student of a small teacher."""

    digits = ("--default_hparams=digits_lenet_4", "--training_steps=2ep", "--batch_size=500")

    def train(self, *arguments: str, seed: int = 3) -> str:
        """Runs a command, checks that it succeeds and prints nothing, and returns its folder."""
        arguments = (*arguments, f"--global_seed={seed}")
        self.assertEqual(self.command("train", *arguments, "--quiet"), (0, "", ""))
        return self.location(*arguments)

    def location(self, *arguments: str) -> str:
        """The output location that a command prints."""
        status, out, err = self.command("train", *arguments, "--display_output_location")
        self.assertEqual((status, err), (0, ""))
        return out.removesuffix("\n")

    def states(self, folder: str) -> dict[str, tuple[int, bytes]]:
        """The modification time and the content of every file in a folder."""
        states = {}
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                states[name] = os.stat(path).st_mtime_ns, file.read()
        return states

    def weights(self, folder: str, step: str = "ep2_it0") -> dict[str, list]:
        state = base.read_state(os.path.join(folder, f"model_{step}.pth"))
        return {name: value.tolist() for name, value in state.items()}

    def record(self, folder: str) -> dict:
        with open(paths.hparams_dict(folder)) as file:
            return json.load(file)


class TrainTest(RunnerTestCase):
    def test_a_three_layer_sigmoid_network_learns_the_digits_with_default_hyperparameters(self):
        folder = self.train("--default_hparams=digits_lenet_10_10_10", "--act_fun=sigmoid")
        self.assertGreater(MetricLogger.load(folder).latest("test_accuracy"), 0.8)

    def test_deleted_final_weights_are_restored_from_the_checkpoint(self):
        folder = self.train(*self.digits)
        before = self.weights(folder)
        os.remove(os.path.join(folder, "model_ep2_it0.pth"))
        self.train(*self.digits)
        self.assertEqual(self.weights(folder), before)

    def test_a_run_writes_exactly_its_files_to_a_folder_named_by_hash_and_seed(self):
        folder = self.train(*self.digits)
        self.assertRegex(os.path.relpath(folder, self.root), r"^train_[0-9a-f]{32}/seed_3/main$")
        self.assertEqual(self.files(), [os.path.join(os.path.relpath(folder, self.root), name) for name in RUN_FILES])

    def test_repeating_a_finished_run_changes_no_file(self):
        before = self.states(self.train(*self.digits))
        with mock.patch.object(train_module, "train") as loop:
            self.assertEqual(self.states(self.train(*self.digits)), before)
        loop.assert_not_called()

    def test_the_record_contains_hyperparameters_seed_and_sizes(self):
        record = self.record(self.train(*self.digits))
        self.assertEqual((record["seed"], record["shape"]), (3, [64, 10]))
        self.assertEqual(record["model_hparams"]["model_name"], "digits_lenet_4")
        self.assertEqual(record["dataset_hparams"]["batch_size"], 500)
        self.assertEqual((record["training_hparams"]["training_steps"], record["training_hparams"]["momentum"]), ("2ep", 0.0))

    def test_the_record_is_also_written_as_readable_text(self):
        with open(paths.hparams_log(self.train(*self.digits))) as file:
            text = file.read()
        for line in ("* model_name => digits_lenet_4", "* training_steps => 2ep", "* batch_size => 500"):
            self.assertIn(line, text)
        self.assertNotIn("momentum", text)

    def test_hyperparameters_and_output_location_are_printed_unless_quiet(self):
        _, out, err = self.command("train", *self.digits, "--global_seed=3")
        self.assertIn(f"Output Location: {self.location(*self.digits, '--global_seed=3')}", out)
        self.assertIn("digits_lenet_4", out)
        self.assertIn("test    ep 002", out)
        self.assertEqual(err, "")

    def test_repeating_a_finished_run_prints_its_result(self):
        _, first, _ = self.command("train", *self.digits, "--global_seed=3")
        _, again, _ = self.command("train", *self.digits, "--global_seed=3")
        self.assertRegex(first.splitlines()[-1], r"^Finished: test loss \S+, accuracy \d+\.\d\d%$")
        self.assertEqual(again.splitlines()[-1], first.splitlines()[-1])

    def test_printing_the_location_writes_nothing(self):
        self.location(*self.digits)
        self.assertEqual(self.files(), [])

    def test_a_family_name_without_size_names_the_default_member(self):
        names = ("digits_lenet", "digits_lenet_16")
        self.assertEqual(*(self.location(f"--default_hparams={name}") for name in names))
        self.assertEqual(*(self.location(f"--default_hparams={names[0]}", f"--model_name={name}") for name in names))

    def test_changed_hyperparameters_give_other_folders(self):
        changes = [(), ("--lr=0.2",), ("--batch_size=100",), ("--act_fun=tanh",), ("--training_steps=3ep",), ("--data_order_seed=1",)]
        self.assertEqual(len({self.location(*self.digits, *change) for change in changes}), len(changes))

    def test_training_improves_the_test_accuracy(self):
        folder = self.train("--default_hparams=digits_lenet_16", "--training_steps=5ep", "--evaluate_only_at_end")
        with open(paths.logger(folder)) as file:
            accuracies = [float(line.split("$")[2]) for line in file if line.startswith("test_accuracy")]
        self.assertEqual(len(accuracies), 2)
        self.assertGreater(accuracies[1], 0.75)

    def test_an_interrupted_run_is_resumed(self):
        whole = self.states(self.train(*self.digits))
        shutil.rmtree(self.root)
        stop = mock.patch.object(train_module.standard_callbacks, "save_logger", side_effect=KeyboardInterrupt)
        with mock.patch.object(train_module, "CHECKPOINT_SECONDS", 0), stop:
            status, _, err = self.command("train", *self.digits, "--global_seed=3", "--quiet")
        self.assertEqual(status, 130)
        self.assertEqual(len(err.splitlines()), 2)
        folder = self.train(*self.digits)
        self.assertEqual(self.states(folder)["logger"][1], whole["logger"][1])
        self.assertEqual(sorted(os.listdir(folder)), RUN_FILES)

    def test_provenance_lists_every_start_that_trained(self):
        command = ("train", *self.digits, "--quiet")
        stop = mock.patch.object(train_module.standard_callbacks, "save_logger", side_effect=KeyboardInterrupt)
        with stop:
            self.command(*command)
        for _ in range(2):
            self.assertEqual(self.command(*command), (0, "", ""))
        folder = self.location(*self.digits)
        kept = provenance.read(folder)
        self.assertEqual((kept["command"], kept["seed"]), (shlex.join(["python", "EC.py", *command]), self.record(folder)["seed"]))
        self.assertEqual([list(start) for start in kept["starts"]], [["time"]] * 2)

    def test_further_training_uses_the_same_folder(self):
        folder = self.train(*self.digits)
        self.assertEqual(self.train(*self.digits, "--extra_training=1ep"), folder)
        self.assertEqual(self.weights(folder, "ep3_it0"), self.weights(self.train(*self.digits, "--training_steps=3ep"), "ep3_it0"))

    def test_weights_are_saved_in_double_precision_with_float64(self):
        state = base.read_state(os.path.join(self.train(*self.digits, "--precision=float64"), "model_ep2_it0.pth"))
        self.assertEqual({value.dtype for value in state.values()}, {torch.float64})


class SeedTest(RunnerTestCase):
    def test_the_same_seed_gives_the_same_bits(self):
        first = self.states(self.train(*self.digits))
        shutil.rmtree(self.root)
        again = self.states(self.train(*self.digits))
        for name in ("model_ep0_it0.pth", "model_ep2_it0.pth", "logger"):
            self.assertEqual(again[name][1], first[name][1], name)

    def test_another_seed_gives_other_initial_weights(self):
        first, second = (self.train(*self.digits, seed=seed) for seed in (3, 4))
        self.assertEqual(os.path.dirname(os.path.dirname(first)), os.path.dirname(os.path.dirname(second)))
        for step in ("ep0_it0", "ep2_it0"):
            self.assertNotEqual(self.weights(first, step), self.weights(second, step))

    def test_the_data_order_seed_changes_only_the_order(self):
        own, chosen = self.train(*self.digits), self.train(*self.digits, "--data_order_seed=9")
        self.assertEqual(self.weights(own, "ep0_it0"), self.weights(chosen, "ep0_it0"))
        self.assertNotEqual(self.weights(own), self.weights(chosen))

    def test_without_a_chosen_seed_one_is_drawn_and_recorded(self):
        folder = self.train(*self.digits, seed=-1)
        seed = self.record(folder)["seed"]
        self.assertEqual(os.path.basename(os.path.dirname(folder)), "seed_-1")
        self.assertGreaterEqual(seed, 0)
        self.assertEqual(self.weights(self.train(*self.digits, seed=seed)), self.weights(folder))

    def test_a_resumed_run_uses_its_drawn_seed(self):
        folder = self.train(*self.digits, seed=-1)
        first, seed = self.weights(folder), self.record(folder)["seed"]
        for name in set(RUN_FILES) - {"hparams_dict"}:
            os.remove(os.path.join(folder, name))
        self.assertEqual(self.weights(self.train(*self.digits, seed=-1)), first)
        self.assertEqual(self.record(folder)["seed"], seed)

    def test_runs_without_a_chosen_seed_differ(self):
        folder = self.train(*self.digits, seed=-1)
        first = self.weights(folder)
        shutil.rmtree(folder)
        self.assertNotEqual(self.weights(self.train(*self.digits, seed=-1)), first)

    def test_the_error_names_a_damaged_seed_record(self):
        folder = self.train(*self.digits)
        os.remove(paths.logger(folder))
        path = paths.hparams_dict(folder)
        for content in ('{"seed": ', "[]", "{}", '{"seed": "3"}', '{"seed": -3}', '{"seed": 1e999}', '{"seed": true}', "[" * 100_000):
            with open(path, "w") as file:
                file.write(content)
            status, out, err = self.command("train", *self.digits, "--global_seed=3", "--quiet")
            self.assertEqual((status, out, len(err.splitlines())), (2, "", 1))
            self.assertIn(path, err)

    def test_the_error_names_a_damaged_log_and_deleting_it_restores_it(self):
        folder = self.train(*self.digits)
        with open(paths.logger(folder), "rb") as file:
            whole = file.read()
        for content in (b"", whole[: len(whole) // 2], b"test_loss$3$__import__('os')\n", b"test_loss$3$[0.5]\n"):
            get_platform().write(paths.logger(folder), content)
            status, _, err = self.command("train", *self.digits, "--global_seed=3")
            self.assertEqual((status, len(err.splitlines())), (2, 1))
            self.assertIn(f"{paths.logger(folder)} is damaged", err)
        os.remove(paths.logger(folder))
        self.train(*self.digits)
        with open(paths.logger(folder), "rb") as file:
            self.assertEqual(file.read(), whole)


class TeacherTest(RunnerTestCase):
    student = ("--default_hparams=mlp_3_5_2", "--dataset_name=teacher", "--training_steps=2ep", "--batch_size=10")
    queries = "--datagen=random:40"

    def setUp(self):
        super().setUp()
        self.name, self.network = toy_teacher.make("mlp_3_4_2", "tanh", seed=5)

    def of(self, name: str, queries: str = queries) -> tuple[str, ...]:
        return (*self.student, f"--teacher_name={name}", "--teacher_seed=5", queries)

    def test_training_reduces_the_distance_to_the_teachers_answers(self):
        folder = self.train(*self.of(self.name))
        self.assertEqual(self.record(folder)["shape"], [3, 2])
        with open(paths.logger(folder)) as file:
            losses = [float(line.split("$")[2]) for line in file if line.startswith("test_loss")]
        self.assertLess(losses[-1], losses[0])

    def test_all_spellings_of_a_teacher_give_the_same_folder(self):
        spellings = (self.name, self.name.removeprefix("train_"), self.name.removeprefix("train_")[:6], self.name[:12])
        self.assertEqual(len({self.location(*self.of(spelling)) for spelling in spellings}), 1)

    def test_the_record_names_the_resolved_teacher_and_the_canonical_queries(self):
        short = self.name.removeprefix("train_")[:6]
        record = self.record(self.train(*self.of(short, "--datagen=random"), "--samples=40"))["dataset_hparams"]
        self.assertEqual((record["teacher_name"], record["teacher_seed"], record["datagen"]), (self.name, 5, "random:40"))

    def test_a_number_of_samples_equals_the_count_in_datagen(self):
        inferred = self.location(*self.of(self.name), "--d_in=3", "--samples=40")
        self.assertEqual(self.location(*self.of(self.name)), inferred)
        self.assertEqual(self.location(*self.of(self.name, "--datagen=random"), "--samples=40"), inferred)

    def test_a_teacher_given_by_model_name_is_trained_once_before_the_student(self):
        student = ("--default_hparams=mlp_64_5_10", "--dataset_name=teacher", "--training_steps=2ep", "--batch_size=20", self.queries)
        with mock.patch("models.mlp.FullyConnected.default_hparams", short_defaults):
            folder = self.train(*student, "--teacher_name=digits_lenet_4", "--teacher_seed=7")
            teacher = self.location("--default_hparams=digits_lenet_4", "--global_seed=7")
            before = self.states(teacher)
            self.assertEqual(sorted(before), [name.replace("ep2", "ep1") for name in RUN_FILES])
            shutil.rmtree(folder)
            self.train(*student, "--teacher_name=digits_lenet_4", "--teacher_seed=7")
            self.assertEqual(self.states(teacher), before)
            by_hash = self.location(*student, f"--teacher_name={teacher.split(os.sep)[-3]}", "--teacher_seed=7", "--global_seed=3")
        self.assertEqual(by_hash, folder)

    def test_variations_of_images_work_for_teachers_given_by_name_or_hash(self):
        student = ("--default_hparams=mlp_64_5_10", "--dataset_name=teacher", "--training_steps=2ep", "--batch_size=20", "--teacher_seed=7")
        queries = "--datagen=mosaic:30+biased:20"
        with mock.patch("models.mlp.FullyConnected.default_hparams", short_defaults):
            folder = self.train(*student, "--teacher_name=digits_lenet_4", queries)
            teacher = self.location("--default_hparams=digits_lenet_4", "--global_seed=7").split(os.sep)[-3]
            self.assertEqual(self.location(*student, f"--teacher_name={teacher}", queries, "--global_seed=3"), folder)

    def test_variations_require_a_teacher_trained_on_images(self):
        student = self.train(*self.of(self.name)).split(os.sep)[-3]
        asked = (
            "--default_hparams=mlp_3_5_2",
            "--dataset_name=teacher",
            f"--teacher_name={student}",
            "--teacher_seed=3",
            "--datagen=biased",
        )
        status, out, err = self.command("train", *asked)
        self.assertEqual((status, out, len(err.splitlines())), (2, "", 1))
        self.assertRegex(err, "--datagen: biased needs a teacher that was trained on images; .* is teacher; valid: digits, mnist")

    def test_printing_the_location_of_a_student_trains_no_teacher(self):
        before = self.files()
        self.location("--default_hparams=students_digits_lenet", "--teacher_name=digits_lenet_4")
        self.assertEqual(self.files(), before)

    def test_an_answer_file_is_identified_by_its_content(self):
        random = np.random.RandomState(0)
        first, second = (os.path.join(self.root, name) for name in ("first.npz", "second.npz"))
        np.savez(first, X=random.randn(30, 3), y=random.randn(30, 2))
        shutil.copy(first, second)
        folder = self.train(*self.student, f"--teacher_name={first}")
        self.assertEqual(self.location(*self.student, f"--teacher_name={second}", "--global_seed=3"), folder)
        self.assertRegex(self.record(folder)["dataset_hparams"]["teacher_name"], r"^answers_[0-9a-f]{32}$")

    def test_queries_and_teacher_seed_do_not_change_the_run_of_an_answer_file(self):
        path = os.path.join(self.root, "answers.npz")
        np.savez(path, X=np.random.RandomState(0).randn(30, 3), y=np.random.RandomState(1).randn(30, 2))
        answers = (*self.student, f"--teacher_name={path}")
        self.assertEqual(self.location(*answers), self.location(*answers, self.queries, "--teacher_seed=4"))
        self.assertEqual(self.location(*answers), self.location(*answers, "--samples=30"))
        with mock.patch.dict(os.environ, {"HOME": self.root}):
            self.assertEqual(self.location(*answers), self.location(*self.student, "--teacher_name=~/answers.npz"))


def short_defaults(model_name: str):
    """The default hyperparameters of a small network for the digits, with one short epoch."""
    model_hparams = ModelHparams(model_name, "kaiming_normal", "uniform")
    return DefaultHparams(DatasetHparams("digits", 500), model_hparams, TrainingHparams("sgd", 0.1, "1ep"))


class RefusalTest(RunnerTestCase):
    """Invalid commands are refused in one line before anything is written."""

    def assert_refused(self, *arguments: str, says: str):
        before = self.files()
        status, out, err = self.command("train", *arguments)
        self.assertEqual((status, out, len(err.splitlines())), (2, "", 1), err)
        self.assertRegex(err, says)
        self.assertEqual(self.files(), before)

    def test_unknown_names_are_refused(self):
        wrong = {
            "dataset_name": ("digit", "digits"),
            "model_name": ("digit_lenet", "digits_lenet"),
            "optimizer_name": ("sdg", "sgd"),
            "act_fun": ("rel", "relu"),
            "model_init": ("ortogonal", "orthogonal"),
            "lr_decay": ("cosin", "cosine"),
            "precision": ("float46", "float64"),
        }
        for flag, (value, nearest) in wrong.items():
            self.assert_refused(*self.digits, f"--{flag}={value}", says=f"--{flag}: .*{value}.*did you mean '{nearest}'")

    def test_missing_required_flags_are_refused(self):
        self.assert_refused("--model_name=mlp", says=r"--\w+ is required; give it, or start from --default_hparams=NAME")

    def test_a_model_that_does_not_fit_the_dataset_is_refused(self):
        self.assert_refused(*self.digits, "--model_name=mnist_lenet_20", says="mnist_lenet_20 takes 784 inputs; the examples have 64")
        self.assert_refused(*self.digits, "--model_name=mlp_64_8_3", says="mlp_64_8_3 has 3 outputs; this dataset needs 10")

    def test_teacher_flags_without_a_teacher_are_refused(self):
        for flag, value in (("teacher_name", "abc"), ("datagen", "random"), ("samples", "10"), ("d_in", "64")):
            self.assert_refused(*self.digits, f"--{flag}={value}", says=f"--{flag}: valid only with --dataset_name teacher")

    def test_a_stack_as_teacher_is_refused(self):
        student = (*TeacherTest.student, "--datagen=random")
        self.assert_refused(*student, "--teacher_name=students_mlp(2)_64_4_10", says="is a stack of students")

    def test_a_teacher_that_cannot_answer_is_refused(self):
        name, _ = toy_teacher.make("mlp_3_4_2", seed=5)
        student = TeacherTest.student
        self.assert_refused(*student, says="--teacher_name is required")
        self.assert_refused(*student, "--teacher_name=abcdef", says="--teacher_name: 'abcdef' is not a teacher")
        self.assert_refused(*student, "--teacher_name=nowhere.npz", says="--teacher_name: nowhere.npz does not exist")
        teacher = (*student, f"--teacher_name={name}")
        self.assert_refused(*teacher, "--teacher_seed=6", "--datagen=random", says="--teacher_seed: .* has no seed 6; valid: 5")
        self.assert_refused(*teacher, "--teacher_seed=5", says="--datagen is required .*digits, mnist, .*random")
        self.assert_refused(*teacher, "--teacher_seed=5", "--datagen=digits", says="digits generates queries of 64 values; .* takes 3")
        self.assert_refused(*teacher, "--teacher_seed=5", "--datagen=biased", says="biased generates queries of 64 values; .* takes 3")
        self.assert_refused(*teacher, "--teacher_seed=5", "--datagen=random", "--d_in=4", says="--d_in: 4 is wrong; .* takes 3")
        self.assert_refused(*teacher, "--teacher_seed=5", "--datagen=random:9", "--samples=8", says="--samples: 8 does not fit")

    def test_a_missing_dataset_that_cannot_be_downloaded_is_refused(self):
        with mock.patch("torchvision.datasets.mnist.download_and_extract_archive", side_effect=OSError("no network")):
            self.assert_refused("--default_hparams=mnist_lenet_4", "--quiet", says="MNIST is not under .* and cannot be downloaded")

    def test_polishing_requires_the_students_of_an_extraction(self):
        self.assert_refused(*self.digits, "--polish_optimizer=lbfgs", says="--polish_optimizer: only extract polishes students")

    def test_a_number_of_samples_other_than_that_of_the_file_is_refused(self):
        path = os.path.join(self.root, "answers.npz")
        np.savez(path, X=np.random.RandomState(0).randn(30, 3), y=np.random.RandomState(1).randn(30, 2))
        self.assert_refused(
            *TeacherTest.student, f"--teacher_name={path}", "--samples=10", says="--samples: 10 is wrong; .* contains 30 pairs"
        )

    def test_a_truncated_checkpoint_is_refused(self):
        folder = self.train(*self.digits)
        os.remove(paths.logger(folder))
        os.truncate(paths.checkpoint(folder), 1000)
        before = self.states(folder)
        status, _, err = self.command("train", *self.digits, "--global_seed=3", "--quiet")
        self.assertEqual((status, len(err.splitlines())), (2, 1))
        self.assertIn(paths.checkpoint(folder), err)
        self.assertEqual(self.states(folder), before)

"""Resumption of interrupted runs, and further training of finished runs."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Sequence
from unittest import mock

import torch

from datasets import teacher_dataset
from datasets.base import DataLoader
from foundations.errors import ConfigError
from foundations.training_hparams import TrainingHparams
from models import base, registry
from platforms.system import signals
from platforms.system.signals import Stopped
from training import train as train_module
from training.metric_logger import MetricLogger
from training.plan import Plan, StandardPlan, StopRule
from training.standard_callbacks import create_eval_callback, run_at_last_step, run_every_epoch, save_logger, save_model
from training.test.test_train import BATCHES, TrainTestCase, hparams, network, regression_loader, weights
from training.train import standard_train, train


class Killed(Exception):
    """Ends a run without a chance to save, like a power cut."""


class ResumeTest(TrainTestCase):
    """A run that is stopped and resumed ends with the same bits as an uninterrupted run."""

    stop_when: Sequence[StopRule] = ()

    def setUp(self):
        super().setUp()
        patch = mock.patch.object(train_module, "CHECKPOINT_SECONDS", 0)
        patch.start()
        self.addCleanup(patch.stop)
        self.loader = regression_loader()

    def start(
        self, training_hparams: TrainingHparams, model_name: str, folder: str, stop: int | None = None, first: bool = False
    ) -> list[int]:
        """Starts a run like a new process, and stops it at an iteration, before or after the other callbacks.

        Returns:
            The iterations of the run.
        """
        seen = []

        def stopper(location, step, model, optimizer, logger):
            seen.append(step.iteration)
            if step.iteration == stop:
                raise Killed

        evaluation = run_every_epoch(create_eval_callback("train", self.loader))
        callbacks = [evaluation, run_at_last_step(save_model), run_at_last_step(save_logger)]
        plan = Plan([stopper, *callbacks] if first else [*callbacks, stopper], self.stop_when)
        try:
            train(training_hparams, network(model_name), self.loader, folder, plan)
        except Killed:
            self.assertEqual(seen[-1], stop)
        else:
            self.assertIsNone(stop, "it ended before it was stopped")
        return seen

    def result(self, folder: str) -> tuple[dict[str, list], str]:
        """The exact final weights and the text of the log."""
        state = base.read_state(registry.latest_weights_file(folder))
        with open(os.path.join(folder, "logger")) as file:
            return {name: value.tolist() for name, value in state.items()}, file.read()

    def assert_resumes(self, training_hparams: TrainingHparams, model_name: str = "mlp_4_5_2", stops=(1, 3, 7, 11), within: bool = False):
        whole, parts = self.folder(), self.folder()
        self.start(training_hparams, model_name, whole)
        for stop in stops:
            self.start(training_hparams, model_name, parts, stop)
        seen = self.start(training_hparams, model_name, parts)
        last = stops[-1] if within else stops[-1] // len(self.loader) * len(self.loader)
        self.assertEqual(seen[0], last, "it did not go on from the last checkpoint")
        self.assertEqual(self.result(parts), self.result(whole))

    def test_sgd_with_momentum(self):
        self.assert_resumes(hparams("5ep", momentum=0.9, weight_decay=1e-3))

    def test_a_schedule_with_warmup_milestones_and_cosine(self):
        self.assert_resumes(hparams("5ep", nesterov_momentum=0.9, warmup_steps="4it", milestone_steps="2ep,4ep", lr_decay="cosine"))

    def test_adam_with_students(self):
        self.assert_resumes(hparams("5ep", "adam", 0.02, lr_decay="cosine"), "students_mlp(3)_4_5_2")

    def test_a_plateau_schedule(self):
        plateau = hparams("40ep", lr=1.0, momentum=0.9, plateau_opt=True, patience=1, cooldown=1, delta=0.3)
        self.assert_resumes(plateau, stops=(4, 30, 64, 100))

    def test_in_the_middle_of_an_epoch(self):
        with mock.patch.object(train_module, "CHECKPOINT_SECONDS_WITHIN", 0):
            self.assert_resumes(hparams("5ep", momentum=0.9, plateau_opt=True, patience=1), stops=(1, 4, 10, 11), within=True)
            self.assert_resumes(hparams("5ep", "adam", 0.02, lr_decay="cosine"), "students_mlp(3)_4_5_2", stops=(2, 7), within=True)
            self.assert_resumes(hparams("5ep", "lbfgs", 1.0), stops=(2, 8), within=True)

    def test_a_rule_that_ends_training(self):
        self.stop_when = [lambda step, model, logger: step.iteration == 7]
        for within in (False, True):
            with mock.patch.object(train_module, "CHECKPOINT_SECONDS_WITHIN", 0 if within else math.inf):
                self.assert_resumes(hparams("5ep", "adam", 0.02), stops=(1, 4, 7), within=within)
                self.assert_resumes(hparams("5ep", "adam", 0.02), stops=(3, 8), within=True)

    def test_levenberg_marquardt(self):
        self.assert_resumes(hparams("5ep", "levenberg_marquardt", 1.0), "mlp_4_1_2")

    def test_lbfgs(self):
        self.assert_resumes(hparams("5ep", "lbfgs", 1.0))

    def test_lbfgs_with_full_batches(self):
        self.loader = DataLoader(self.loader.dataset, 22, dtype=torch.float64)
        self.assert_resumes(hparams("9it", "lbfgs", 1.0), stops=(2, 3, 7))

    def test_lbfgs_with_students(self):
        self.assert_resumes(hparams("5ep", "lbfgs", 1.0), "students_mlp(3)_4_5_2")

    def test_nesterov_adam(self):
        self.assert_resumes(hparams("5ep", "nadam", 0.02))

    def test_single_precision(self):
        self.loader = DataLoader(self.loader.dataset, 8)
        self.assert_resumes(hparams("5ep", "adam", 0.02, precision="float32"))

    def test_sixteen_bits_with_scaled_losses(self):
        values = regression_loader()
        self.loader = DataLoader(
            teacher_dataset.Dataset(values.examples, values.labels * 1000), 8
        )  # the loss scale falls from its initial value
        for changes in ({"precision": "fp16"}, {"apex_fp16": True, "precision": "float32", "momentum": 0.9}, {"precision": "bf16"}):
            self.assert_resumes(hparams("5ep", "sgd", 1e-5, **changes))
        self.assert_resumes(hparams("5ep", "adam", 0.02, precision="fp16"), "students_mlp(3)_4_5_2")

    def test_a_run_stopped_before_its_first_checkpoint_starts_again(self):
        self.assert_resumes(hparams("3ep", momentum=0.9), stops=(0, 2))

    def test_a_run_stopped_at_any_iteration(self):
        training_hparams = hparams("2ep", "adam", 0.02)
        self.start(training_hparams, "mlp_4_5_2", whole := self.folder())
        for stop in range(2 * BATCHES + 1):
            for first in (True, False):
                self.start(training_hparams, "mlp_4_5_2", parts := self.folder(), stop, first)
                self.start(training_hparams, "mlp_4_5_2", parts)
                self.assertEqual(self.result(parts), self.result(whole))

    def test_a_run_stopped_repeatedly_at_the_same_iteration(self):
        self.assert_resumes(hparams("4ep", momentum=0.9), stops=(8, 8, 8, 10, 10))

    def test_random_draws_of_callbacks_are_repeated(self):
        drawn = {True: {}, False: {}}
        for stopped in drawn:

            def draw(location, step, *_, stopped=stopped):
                drawn[stopped][step.iteration] = torch.rand(()).item()
                if stopped and step.iteration == 7 and 8 not in drawn[stopped]:
                    drawn[stopped][8] = None
                    raise Killed

            folder = self.folder()
            for _ in range(2):
                try:
                    train(hparams("4ep"), network(), regression_loader(), folder, Plan([draw]))
                except Killed:
                    continue
                break
        self.assertEqual(drawn[True], drawn[False])


class StopTest(TrainTestCase):
    """A run that receives a stop signal ends before its next update."""

    def stopped(self, folder: str, at: int, *callbacks) -> list[int]:
        """Starts a run, sends it a stop signal at an iteration, and returns the iterations of the run."""
        seen = []

        def ask(location, step, model, optimizer, logger):
            seen.append(step.iteration)
            if step.iteration == at:
                os.kill(os.getpid(), signal.SIGUSR1)

        with signals.watching():
            train(hparams("3ep", momentum=0.9), network(), regression_loader(), folder, Plan([ask, *callbacks]))
        return seen

    def test_a_stopped_run_writes_a_checkpoint_before_the_next_update(self):
        for at in range(3 * BATCHES - 1):
            folder, seen = self.folder(), []
            with self.assertRaisesRegex(Stopped, f"^{folder} .*ep{(at + 1) // BATCHES}_it{(at + 1) % BATCHES}$"):
                self.stopped(folder, at)
            model, note = network(), Plan([lambda *call, seen=seen: seen.append(call[1].iteration)])
            train(hparams("3ep", momentum=0.9), model, regression_loader(), folder, note)
            self.assertEqual(seen, list(range(at + 1, 3 * BATCHES + 1)))
            self.assertTrue(torch.equal(weights(model), self.trained(hparams("3ep", momentum=0.9))))

    def test_a_stop_at_the_last_step_finishes_the_run(self):
        self.assertEqual(self.stopped(self.folder(), 3 * BATCHES - 1)[-1], 3 * BATCHES)

    def test_a_stop_before_the_start_takes_no_step(self):
        folder = self.folder()
        with signals.watching():
            os.kill(os.getpid(), signal.SIGTERM)
            with self.assertRaises(Stopped):
                train(hparams(), network(), regression_loader(), folder)
        self.assertEqual(sorted(os.listdir(folder)), ["checkpoint.pth", "progress.json"])


class CheckpointTest(TrainTestCase):
    def test_epochs_shorter_than_a_second_share_a_checkpoint(self):
        folder, seen = self.folder(), []
        look = Plan([lambda location, *_: seen.append(sorted(os.listdir(location)))])
        train(hparams("3ep"), network(), regression_loader(), folder, look)
        self.assertEqual(seen, [[]] * (3 * BATCHES) + [["checkpoint.pth", "progress.json"]])

    def test_a_finished_run_keeps_one_checkpoint(self):
        folder = self.folder()
        with mock.patch.object(train_module, "CHECKPOINT_SECONDS", 0):
            train(hparams("3ep"), network(), regression_loader(), folder)
        self.assertEqual(os.listdir(folder), ["checkpoint.pth"])

    def test_the_error_names_a_truncated_checkpoint_and_keeps_it(self):
        folder = self.folder()
        train(hparams("2ep"), network(), regression_loader(), folder)
        path = os.path.join(folder, "checkpoint.pth")
        os.truncate(path, 1000)
        with open(path, "rb") as file:
            content = file.read()
        with self.assertRaisesRegex(ConfigError, path):
            train(hparams("2ep"), network(), regression_loader(), folder)
        self.assertEqual(os.listdir(folder), ["checkpoint.pth"])
        with open(path, "rb") as file:
            self.assertEqual(file.read(), content)


class FurtherTrainingTest(TrainTestCase):
    def standard(self, folder: str, training_hparams: TrainingHparams) -> torch.Tensor:
        model, loader = network(), regression_loader()
        standard_train(training_hparams, model, (loader, loader), folder, StandardPlan(verbose=False))
        return weights(model)

    def test_further_training_equals_a_longer_run(self):
        folder = self.folder()
        self.standard(folder, hparams("3ep", momentum=0.9))
        prolonged = self.standard(folder, hparams("3ep", momentum=0.9, extra_training="2ep"))
        self.assertTrue(torch.equal(prolonged, self.trained(hparams("5ep", momentum=0.9))))
        self.assertEqual([iteration for iteration, _ in MetricLogger.load(folder).get("test_loss")], [0, 3, 6, 9, 12, 15])
        self.assertIn("model_ep5_it0.pth", os.listdir(folder))

    def test_repeating_further_training_trains_no_more(self):
        folder = self.folder()
        self.standard(folder, hparams("3ep"))
        once = self.standard(folder, hparams("3ep", extra_training="2ep"))
        again = self.standard(folder, hparams("3ep", extra_training="2ep"))
        self.assertTrue(torch.equal(once, again))

    def test_without_the_flag_a_prolonged_run_loads_its_latest_weights(self):
        folder = self.folder()
        self.standard(folder, hparams("3ep"))
        prolonged = self.standard(folder, hparams("3ep", extra_training="2ep"))
        self.assertTrue(torch.equal(self.standard(folder, hparams("3ep")), prolonged))

    def test_further_training_works_for_a_new_run(self):
        prolonged = self.trained(hparams("3ep", extra_training="2it"))
        self.assertTrue(torch.equal(prolonged, self.trained(hparams("11it"))))

    def test_further_training_restarts_the_cosine_at_the_full_rate(self):
        rates = []
        self.trained(hparams("6it", lr_decay="cosine", extra_training="4it"), lambda *call: rates.append(call[3].param_groups[0]["lr"]))
        expected = [0.1 * (1 + torch.tensor(torch.pi * k / 4, dtype=torch.float64).cos().item()) / 2 for k in range(5)]
        self.assert_close(torch.tensor(rates[6:]), torch.tensor(expected))

    def test_a_finished_run_only_loads_its_weights(self):
        folder = self.folder()
        first = self.standard(folder, hparams("3ep"))
        before = {name: os.stat(os.path.join(folder, name)).st_mtime_ns for name in os.listdir(folder)}
        with mock.patch.object(train_module, "train") as loop:
            self.assertTrue(torch.equal(self.standard(folder, hparams("3ep")), first))
        loop.assert_not_called()
        self.assertEqual({name: os.stat(os.path.join(folder, name)).st_mtime_ns for name in os.listdir(folder)}, before)

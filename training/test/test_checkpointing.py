"""Checkpoints hold all that a run needs, as data, and are refused when they are not whole."""

import os
from unittest import mock

import torch

from foundations import paths
from foundations.errors import ConfigError
from foundations.step import Step
from models import base
from testing.test_case import TestCase
from training import checkpointing
from training.metric_logger import MetricLogger
from training.optimizers import Schedule, get_optimizer
from training.test.test_train import BATCHES, hparams, network, regression_loader, weights
from training.train import Objective


class Intruder:
    """An object that a checkpoint has no business to hold."""


class Parts:
    """A model with its optimizer, schedule and log."""

    def __init__(self, model_name: str = "mlp_4_5_2", **changes):
        training_hparams = hparams("9ep", "adam", 0.02, plateau_opt=True, patience=0, **changes)
        self.model = network(model_name)
        self.optimizer = get_optimizer(training_hparams, self.model)
        self.schedule = Schedule(training_hparams, self.optimizer, BATCHES, Step(9 * BATCHES, BATCHES))
        self.logger = MetricLogger()
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)

    def train(self, updates: int):
        for examples, labels in [*regression_loader().epoch(0), *regression_loader().epoch(1)][:updates]:
            self.schedule.step(self.optimizer.step(Objective(self.model, examples, labels)))
        self.logger.add("loss", Step(self.schedule.iteration, BATCHES), 1 / 3)

    def save(self, location: str):
        checkpointing.save(location, self.model, self.optimizer, self.scaler, self.schedule, self.logger)

    def restore(self, location: str) -> MetricLogger | None:
        return checkpointing.restore(location, self.model, self.optimizer, self.scaler, self.schedule)


class CheckpointingTest(TestCase):
    def setUp(self):
        super().setUp()
        self.path = paths.checkpoint(self.root)
        self.before, self.after = Parts(), Parts()
        self.before.train(4)

    def assert_refused(self, parts: Parts | None = None):
        with open(self.path, "rb") as file:
            content = file.read()
        with self.assertRaises(ConfigError) as caught:
            (parts or self.after).restore(self.root)
        self.assertIn(self.path, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), content)

    def test_where_there_is_none_nothing_is_restored(self):
        start = weights(self.after.model)
        self.assertIsNone(self.after.restore(self.root))
        self.assertTrue(torch.equal(weights(self.after.model), start))

    def test_model_optimizer_schedule_and_log_are_restored(self):
        self.before.save(self.root)
        logger = self.after.restore(self.root)
        self.assertTrue(torch.equal(weights(self.after.model), weights(self.before.model)))
        self.assertEqual(self.after.schedule.state_dict(), self.before.schedule.state_dict())
        self.assertEqual(str(logger), str(self.before.logger))
        for ours, theirs in zip(self.before.optimizer.state.values(), self.after.optimizer.state.values(), strict=True):
            self.assertEqual(set(ours), {"step", "exp_avg", "exp_avg_sq"})
            for name, value in ours.items():
                self.assertTrue(torch.equal(value, theirs[name]))

    def test_the_random_generator_goes_on_where_it_was(self):
        torch.manual_seed(5)
        self.before.save(self.root)
        expected = torch.rand(3)
        torch.manual_seed(6)
        self.after.restore(self.root)
        self.assertTrue(torch.equal(torch.rand(3), expected))

    def test_saving_leaves_one_file_and_the_newest_state_in_it(self):
        self.before.save(self.root)
        self.before.train(2)
        self.before.save(self.root)
        self.assertEqual(self.files(), ["checkpoint.pth"])
        self.after.restore(self.root)
        self.assertTrue(torch.equal(weights(self.after.model), weights(self.before.model)))

    def test_a_crash_while_writing_leaves_the_old_one_whole(self):
        self.before.save(self.root)
        saved = weights(self.before.model)
        self.before.train(2)
        with mock.patch("os.replace", side_effect=KeyboardInterrupt), self.assertRaises(KeyboardInterrupt):
            self.before.save(self.root)
        self.after.restore(self.root)
        self.assertTrue(torch.equal(weights(self.after.model), saved))

    def test_one_that_is_cut_short_is_refused_and_left_as_it_is(self):
        self.before.save(self.root)
        size = os.path.getsize(self.path)
        for tenths in range(9, -1, -1):
            os.truncate(self.path, size * tenths // 10)
            self.assert_refused()

    def test_that_of_another_model_is_refused(self):
        self.before.save(self.root)
        for other in ("mlp_4_6_2", "mlp_4_5_5_2", "students_mlp(2)_4_5_2"):
            self.assert_refused(Parts(other))

    def test_one_that_lacks_a_part_is_refused(self):
        self.before.save(self.root)
        state = base.read_state(self.path)
        for part in ("model", "optimizer", "schedule", "logger", "random"):
            torch.save({name: value for name, value in state.items() if name != part}, self.path)
            self.assert_refused()

    def test_one_with_a_damaged_log_is_refused(self):
        self.before.save(self.root)
        state = base.read_state(self.path)
        torch.save(state | {"logger": "loss$4"}, self.path)
        self.assert_refused()

    def test_one_with_an_object_of_any_class_is_refused(self):
        self.before.save(self.root)
        state = base.read_state(self.path)
        torch.save(state | {"schedule": Intruder()}, self.path)
        self.assert_refused()

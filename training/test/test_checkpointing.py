"""Checkpoints contain the complete state of a run, as data. Damaged checkpoints are refused."""

import contextlib
import io
import itertools
import json
import os
from unittest import mock

import torch

from foundations import paths
from foundations.errors import ConfigError
from foundations.step import Step
from models import base
from platforms.platform import get_platform
from testing.test_case import TestCase
from training import checkpointing
from training.optimizers import Schedule, get_optimizer
from training.test.test_train import BATCHES, hparams, network, regression_loader, weights
from training.train import Objective


class ForeignObject:
    """An object of a class that checkpoints must not contain."""


class Parts:
    """A model with its optimizer, schedule and log."""

    def __init__(self, model_name: str = "mlp_4_5_2", optimizer: str = "adam"):
        training_hparams = hparams("9ep", optimizer, 0.02, plateau_opt=True, patience=0)
        self.model = network(model_name)
        self.optimizer = get_optimizer(training_hparams, self.model)
        self.schedule = Schedule(training_hparams, self.optimizer, BATCHES, Step(9 * BATCHES, BATCHES))
        self.state = checkpointing.State(self.model, self.optimizer, torch.amp.GradScaler("cpu", enabled=False), self.schedule)

    def train(self, updates: int):
        for examples, labels in [*regression_loader().epoch(0), *regression_loader().epoch(1)][:updates]:
            self.schedule.step(self.optimizer.step(Objective(self.model, examples, labels)))
        self.state.logger.add("loss", Step(self.schedule.iteration, BATCHES), 1 / 3)

    def save(self, location: str):
        checkpointing.save(location, self.state)

    def restore(self, location: str) -> bool:
        return checkpointing.restore(location, self.state)


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

    def test_without_a_checkpoint_nothing_is_restored(self):
        start = weights(self.after.model)
        self.assertFalse(self.after.restore(self.root))
        self.assertTrue(torch.equal(weights(self.after.model), start))

    def test_model_optimizer_schedule_and_log_are_restored(self):
        self.before.save(self.root)
        self.assertTrue(self.after.restore(self.root))
        self.assertTrue(torch.equal(weights(self.after.model), weights(self.before.model)))
        self.assertEqual(self.after.schedule.state_dict(), self.before.schedule.state_dict())
        self.assertEqual(str(self.after.state.logger), str(self.before.state.logger))
        for ours, theirs in zip(self.before.optimizer.state.values(), self.after.optimizer.state.values(), strict=True):
            self.assertEqual(set(ours), {"step", "exp_avg", "exp_avg_sq"})
            for name, value in ours.items():
                self.assertTrue(torch.equal(value, theirs[name]))

    def test_the_state_of_the_random_generator_is_restored(self):
        torch.manual_seed(5)
        self.before.save(self.root)
        expected = torch.rand(3)
        torch.manual_seed(6)
        self.after.restore(self.root)
        self.assertTrue(torch.equal(torch.rand(3), expected))

    def test_saving_keeps_the_newest_and_the_previous_checkpoint(self):
        for _ in range(3):
            self.before.train(2)
            self.before.save(self.root)
        self.assertEqual(self.files(), ["checkpoint.pth", "checkpoint_previous.pth", "progress.json"])
        self.after.restore(self.root)
        self.assertTrue(torch.equal(weights(self.after.model), weights(self.before.model)))

    def test_a_crash_while_writing_keeps_the_old_checkpoint(self):
        self.before.save(self.root)
        saved = weights(self.before.model)
        self.before.train(2)
        with mock.patch("os.replace", side_effect=KeyboardInterrupt), self.assertRaises(KeyboardInterrupt):
            self.before.save(self.root)
        self.after.restore(self.root)
        self.assertTrue(torch.equal(weights(self.after.model), saved))

    def progress(self) -> dict[str, int]:
        """The content of the progress file."""
        with open(paths.progress(self.root)) as file:
            return json.load(file)

    def test_progress_is_written_as_json(self):
        self.before.train(BATCHES)
        self.before.save(self.root)
        done = 4 + BATCHES
        self.assertEqual(self.progress(), {"iteration": done, "epoch": done // BATCHES, "planned_iterations": 9 * BATCHES})

    def test_a_run_killed_before_writing_progress_resumes_from_the_later_checkpoint(self):
        self.before.save(self.root)
        self.before.train(2)
        write = get_platform().write

        def killed_before_progress(path: str, *content, **options):
            if path == paths.progress(self.root):
                raise KeyboardInterrupt
            write(path, *content, **options)

        with mock.patch.object(type(get_platform()), "write", staticmethod(killed_before_progress)), self.assertRaises(KeyboardInterrupt):
            self.before.save(self.root)
        self.assertEqual(self.progress()["iteration"], 4)
        self.after.restore(self.root)
        self.assertEqual(self.after.schedule.iteration, 6)

    def save_two(self) -> torch.Tensor:
        """Saves two checkpoints and returns the weights of the first."""
        self.before.save(self.root)
        saved = weights(self.before.model)
        self.before.train(2)
        self.before.save(self.root)
        return saved

    def assert_previous(self, saved: torch.Tensor, complaints: int = 1):
        with contextlib.redirect_stderr(io.StringIO()) as err:
            self.after.restore(self.root)
        self.assertTrue(torch.equal(weights(self.after.model), saved))
        self.assertEqual(err.getvalue().count("\n"), complaints)
        if complaints:
            self.assertRegex(err.getvalue(), f"^{self.path} is .*; resuming from the previous checkpoint\n$")

    def test_a_damaged_newest_checkpoint_is_replaced_by_the_previous_one(self):
        for tenths in range(9, -1, -1):
            saved = self.save_two()
            os.truncate(self.path, os.path.getsize(self.path) * tenths // 10)
            self.assert_previous(saved)
            self.assert_previous(saved, complaints=0)
            self.assertEqual(self.files(), ["checkpoint.pth", "progress.json"])
            self.assertEqual(self.progress()["iteration"], self.after.schedule.iteration)

    def test_a_single_wrong_bit_in_the_newest_checkpoint_is_detected(self):
        for eighth in range(1, 8):
            saved = self.save_two()
            with open(self.path, "r+b") as file:
                file.seek(os.path.getsize(self.path) * eighth // 8)
                byte = file.read(1)[0]
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte ^ 1]))
            with contextlib.redirect_stderr(io.StringIO()) as err:
                self.after.restore(self.root)
            newest = weights(self.before.model)  # a wrong bit in padding changes nothing, and any other is detected
            self.assertTrue(torch.equal(weights(self.after.model), saved if err.getvalue() else newest))

    def test_a_crash_between_the_two_renamings_keeps_the_previous_checkpoint(self):
        saved = self.save_two()
        os.remove(self.path)
        self.assert_previous(saved, complaints=0)

    def test_if_both_checkpoints_are_damaged_the_error_names_the_newest(self):
        self.save_two()
        for name in ("checkpoint.pth", "checkpoint_previous.pth"):
            os.truncate(os.path.join(self.root, name), 100)
        self.assert_refused()

    def test_drop_previous_keeps_only_the_newest_checkpoint(self):
        self.save_two()
        for _ in range(2):
            checkpointing.drop_previous(self.root)
            self.assertEqual(self.files(), ["checkpoint.pth"])

    def test_a_truncated_checkpoint_is_refused_and_not_changed(self):
        self.before.save(self.root)
        size = os.path.getsize(self.path)
        for tenths in range(9, -1, -1):
            os.truncate(self.path, size * tenths // 10)
            self.assert_refused()

    def test_a_checkpoint_of_another_model_is_refused(self):
        self.before.save(self.root)
        for other in ("mlp_4_6_2", "mlp_4_5_5_2", "students_mlp(2)_4_5_2"):
            self.assert_refused(Parts(other))

    def test_restored_moments_have_the_memory_layout_of_the_weights(self):
        for optimizer in ("sgd", "adam"):
            for saved, restored in itertools.product((torch.contiguous_format, torch.channels_last), repeat=2):
                states = [self.convolutional(optimizer, layout) for layout in (saved, restored)]
                checkpointing.save(self.root, states[0])
                checkpointing.restore(self.root, states[1])
                for ours, theirs in zip(states[1].model.parameters(), states[0].model.parameters(), strict=True):
                    self.assertTrue(torch.equal(ours, theirs))
                    moments = states[1].optimizer.state[ours], states[0].optimizer.state[theirs]
                    for name in moments[0].keys() - {"step"}:
                        self.assertEqual(moments[0][name].stride(), ours.stride())
                        self.assertTrue(torch.equal(moments[0][name], moments[1][name]))

    def convolutional(self, optimizer: str, layout: torch.memory_format) -> checkpointing.State:
        """The state of a convolutional network with a memory layout, after an update."""
        training_hparams = hparams("9ep", optimizer, 0.02, momentum=0.9, precision="float32")
        model = network("cifar_resnet_8_4", outputs=10).float().to(memory_format=layout)
        made, generator = get_optimizer(training_hparams, model), torch.Generator().manual_seed(0)
        made.step(Objective(model, torch.randn(4, 3, 8, 8, generator=generator), torch.arange(4)))
        schedule = Schedule(training_hparams, made, BATCHES, Step(9 * BATCHES, BATCHES))
        return checkpointing.State(model, made, torch.amp.GradScaler("cpu", enabled=False), schedule)

    def test_networks_are_saved_as_contiguous_tensors(self):
        model = network("cifar_resnet_8_4", outputs=10).to(memory_format=torch.channels_last)
        model.save(self.root, Step(1, 1))
        for name, values in base.read_state(paths.model(self.root, Step(1, 1))).items():
            self.assertTrue(values.is_contiguous())
            self.assertTrue(torch.equal(values, model.state_dict()[name]))

    def test_a_checkpoint_without_a_required_part_is_refused(self):
        self.before.save(self.root)
        state = base.read_state(self.path)
        for part in ("model", "optimizer", "schedule", "logger", "random"):
            torch.save({name: value for name, value in state.items() if name != part}, self.path)
            self.assert_refused()

    def test_an_optimizer_state_with_other_shapes_or_hyperparameters_is_refused(self):
        self.before.save(self.root)
        state = base.read_state(self.path)
        moments = state["optimizer"]["state"][0]
        for wrong in (torch.zeros(1), torch.zeros(5), torch.zeros(4, 5), torch.zeros(10**3, 10**3)):
            optimizer = state["optimizer"] | {"state": state["optimizer"]["state"] | {0: moments | {"exp_avg": wrong}}}
            torch.save(state | {"optimizer": optimizer}, self.path)
            self.assert_refused()
        (group,) = state["optimizer"]["param_groups"]
        for wrong in ({"betas": (0.5, 0.999)}, {"weight_decay": 1.0}, {"weight_decay": "1"}):
            torch.save(state | {"optimizer": state["optimizer"] | {"param_groups": [group | wrong]}}, self.path)
            self.assert_refused()

    def test_an_lbfgs_state_with_other_shapes_is_refused(self):
        for optimizer in ("lbfgs", "levenberg_marquardt"):
            parts = Parts(optimizer=optimizer)
            parts.train(3)
            parts.save(self.root)
            Parts(optimizer=optimizer).restore(self.root)
            self.assert_refused(Parts("students_mlp(2)_4_5_2", optimizer=optimizer))
            state = base.read_state(self.path)
            if optimizer == "lbfgs":
                state["optimizer"]["state"][0]["steps"][0] = torch.zeros(1, 3)
            else:
                state["optimizer"]["param_groups"][0]["damping"] = [1.0, 1.0]
            torch.save(state, self.path)
            self.assert_refused(Parts(optimizer=optimizer))

    def test_an_invalid_schedule_state_is_refused(self):
        self.before.save(self.root)
        state = base.read_state(self.path)
        plateau = state["schedule"]["plateau"]
        nonsense = [{"iteration": -1}, {"iteration": "4"}, {"iteration": 1.5}, {"finished_at": "never"}, {"epoch_loss": [1.0]}]
        nonsense += [{"plateau": None}, {"plateau": plateau | {"step": 1}}, {"plateau": plateau | {"best": "worst"}}]
        for wrong in nonsense:
            torch.save(state | {"schedule": state["schedule"] | wrong}, self.path)
            self.assert_refused()

    def test_a_checkpoint_with_a_damaged_log_is_refused(self):
        self.before.save(self.root)
        state = base.read_state(self.path)
        torch.save(state | {"logger": "loss$4"}, self.path)
        self.assert_refused()

    def test_a_checkpoint_with_an_object_of_another_class_is_refused(self):
        self.before.save(self.root)
        state = base.read_state(self.path)
        torch.save(state | {"schedule": ForeignObject()}, self.path)
        self.assert_refused()


class CheckpointTimerTest(TestCase):
    def setUp(self):
        super().setUp()
        self.now = 1000.0
        patch = mock.patch("time.monotonic", lambda: self.now)
        patch.start()
        self.addCleanup(patch.stop)

    def due(self, between: float, within: float, cost: float, iterations: int = 1000, seconds: float = 0.5) -> list[int]:
        """The iterations that save a checkpoint, if an iteration takes `seconds` and a checkpoint `cost`. An epoch has ten iterations."""
        pace, taken = checkpointing.CheckpointTimer(between, within), []
        for iteration in range(iterations):
            if pace.is_due(Step(iteration, 10)):
                self.now += cost
                pace.done()
                taken.append(iteration)
            self.now += seconds
        return taken

    def test_long_epochs_have_one_checkpoint_each(self):
        self.assertEqual(self.due(1.0, 180.0, 0.01), list(range(10, 1000, 10)))

    def test_several_short_epochs_share_a_checkpoint(self):
        self.assertEqual(self.due(1.0, 180.0, 0.0, seconds=0.04)[:3], [30, 60, 90])

    def test_epochs_of_hours_have_several_checkpoints(self):
        self.assertEqual(self.due(1.0, 180.0, 0.1, iterations=20, seconds=100.0), [2, 4, 6, 8, 10, 12, 14, 16, 18])

    def test_slow_checkpoints_are_rare(self):
        taken = self.due(1.0, 180.0, cost=2.0)
        self.assertGreaterEqual(len(taken), 4)
        self.assertLessEqual(2.0 * (len(taken) - 1), checkpointing.TIME_SHARE * 500)

    def test_an_interval_of_zero_seconds_adds_no_delay(self):
        self.assertEqual(self.due(0, 0, cost=2.0, iterations=15), list(range(15)))
        self.assertEqual(self.due(0, 180.0, cost=2.0, iterations=25), [0, 10, 20])

    def test_the_last_step_always_has_a_checkpoint(self):
        self.assertTrue(checkpointing.CheckpointTimer(1.0, 180.0).is_due(Step(3, 10, last=True)))

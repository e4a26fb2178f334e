"""The loop: against a plain one, stopped and resumed, and prolonged. Its builders serve the other tests of training."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from unittest import mock

import torch
from torch import nn

from datasets import digits, teacher_dataset
from datasets.base import DataLoader
from foundations.errors import ConfigError
from foundations.hparams import ModelHparams, TrainingHparams
from foundations.step import Step
from models import base, registry
from platforms import stopping
from platforms.stopping import Stopped
from testing.test_case import TestCase
from training import train as train_module
from training.metric_logger import MetricLogger
from training.standard_callbacks import create_eval_callback, run_at_last_step, run_every_epoch, save_logger, save_model
from training.train import standard_train, train

BATCHES = 3  # in an epoch of the loaders here; the last is smaller


def hparams(training_steps: str = "3ep", optimizer_name: str = "sgd", lr: float = 0.1, **changes) -> TrainingHparams:
    return TrainingHparams(optimizer_name, lr, training_steps, **{"precision": "float64"} | changes)


def network(model_name: str = "mlp_4_5_2", act_fun: str = "tanh", outputs: int | None = None) -> base.Model:
    return registry.get(ModelHparams(model_name, "kaiming_normal", "uniform", act_fun), outputs, seed=2).double()


def regression_loader(count: int = 22, seed: int = 1) -> DataLoader:
    """Random inputs `[count, 4]` with random targets `[count, 2]`, in batches of 8, in float64."""
    values = torch.randn(count, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return DataLoader(teacher_dataset.Dataset(values[:, :4], values[:, 4:]), 8, seed, torch.float64)


def class_loader(count: int = 22, seed: int = 1) -> DataLoader:
    """The same inputs with classes 0 and 1."""
    return DataLoader(digits.Dataset(regression_loader(count).examples, torch.arange(count) % 2), 8, seed, torch.float64)


def weights(model: nn.Module) -> torch.Tensor:
    """All weights of a model as one vector, a copy."""
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone().cpu()


def plain_network(like: base.Model) -> nn.Sequential:
    """A tanh network of torch's own layers with the weights of one of ours."""
    layers = [nn.Linear(*pair, dtype=torch.float64) for pair in itertools.pairwise(like.sizes)]
    made = nn.Sequential(*itertools.chain.from_iterable((layer, nn.Tanh()) for layer in layers))[:-1]
    nn.utils.vector_to_parameters(weights(like), made.parameters())
    return made


def batches(loader: DataLoader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of all epochs, without end."""
    return itertools.chain.from_iterable(loader.epoch(epoch) for epoch in itertools.count())


def plain_training(
    model: nn.Module,
    loader: DataLoader,
    optimizer: Callable[..., torch.optim.Optimizer],
    iterations: range,
    rate: Callable[[int], float] = lambda iteration: 0.1,
    loss: Callable = nn.functional.mse_loss,
) -> torch.Tensor:
    """A loop as textbooks have it, on the same batches; returns the weights."""
    model.to(loader.examples.device)
    optimizer = optimizer(model.parameters(), lr=0.1)
    for iteration, (examples, labels) in zip(iterations, itertools.islice(batches(loader), iterations.start, None), strict=False):
        optimizer.param_groups[0]["lr"] = rate(iteration)
        optimizer.zero_grad()
        loss(model(examples), labels).backward()
        optimizer.step()
    return weights(model)


class TrainTestCase(TestCase):
    """A test that trains in fresh folders."""

    def folder(self) -> str:
        return tempfile.mkdtemp(dir=self.root)

    def trained(self, training_hparams: TrainingHparams, *callbacks, loader: DataLoader | None = None, **options) -> torch.Tensor:
        """The weights that the small network has after training in a new folder."""
        model = network()
        train(training_hparams, model, loader or regression_loader(), self.folder(), callbacks, **options)
        return weights(model)

    def assert_close(self, actual: torch.Tensor, expected: torch.Tensor):
        torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-13)


class LoopTest(TrainTestCase):
    def test_it_is_a_plain_loop_over_the_loaders_batches(self):
        expected = plain_training(plain_network(network()), regression_loader(), torch.optim.SGD, range(3 * BATCHES))
        self.assert_close(self.trained(hparams("3ep")), expected)

    def test_class_labels_are_learnt_by_cross_entropy(self):
        cross_entropy = nn.functional.cross_entropy
        expected = plain_training(plain_network(network()), class_loader(), torch.optim.SGD, range(6), loss=cross_entropy)
        self.assert_close(self.trained(hparams("2ep"), loader=class_loader()), expected)

    def test_it_may_end_within_an_epoch(self):
        expected = plain_training(plain_network(network()), regression_loader(), torch.optim.SGD, range(5))
        for steps in ("5it", "1ep2it"):
            self.assert_close(self.trained(hparams(steps)), expected)

    def test_a_part_of_training_sees_the_batches_of_that_part(self):
        expected = plain_training(plain_network(network()), regression_loader(), torch.optim.SGD, range(4, 8))
        ours = self.trained(hparams("3ep"), start_step=Step(4, BATCHES), end_step=Step(8, BATCHES))
        self.assert_close(ours, expected)

    def test_parts_add_up_to_the_whole(self):
        model, middle = network(), Step(4, BATCHES)
        train(hparams("3ep"), model, regression_loader(), self.folder(), end_step=middle)
        train(hparams("3ep"), model, regression_loader(), self.folder(), start_step=middle)
        self.assertTrue(torch.equal(weights(model), self.trained(hparams("3ep"))))

    def test_the_end_is_returned(self):
        self.assertEqual(train(hparams("7it"), network(), regression_loader(), self.folder()), Step(7, BATCHES))

    def test_the_model_takes_the_precision_asked_for(self):
        model = network()
        loader = regression_loader()
        train(hparams("1it", precision="float32"), model, DataLoader(loader.dataset, 8), self.folder())
        self.assertEqual(model.fc.weight.dtype, torch.float32)

    def test_another_order_of_the_data_gives_other_weights(self):
        self.assertFalse(torch.equal(self.trained(hparams()), self.trained(hparams(), loader=regression_loader(seed=5))))

    def test_the_same_run_gives_the_same_bits_whatever_the_global_random_state(self):
        first = self.trained(hparams())
        torch.manual_seed(12345)
        self.assertTrue(torch.equal(self.trained(hparams()), first))

    def test_the_model_is_in_training_mode_for_every_update(self):
        model = network()
        modes = []
        model.register_forward_hook(lambda module, inputs, outputs: modes.append(module.training))
        train(hparams("1ep"), model, regression_loader(), self.folder(), [lambda location, step, model, *_: model.eval()])
        self.assertEqual(modes, [True] * BATCHES)

    def test_no_epoch_is_begun_when_training_is_over(self):
        begun = []

        class Loader(DataLoader):
            def epoch(self, epoch: int, start: int = 0):
                begun.append((epoch, start))
                return super().epoch(epoch, start)

        for steps, epochs in (("2ep", [(0, 0), (1, 0)]), ("1ep2it", [(0, 0), (1, 0)]), ("3it", [(0, 0)])):
            begun.clear()
            self.trained(hparams(steps), loader=Loader(regression_loader().dataset, 8, dtype=torch.float64))
            self.assertEqual(begun, epochs)

    def test_no_step_waits_for_a_value(self):
        """As many values are read from tensors in a long epoch as in a short one; on a GPU each would wait for all work before it."""
        readers = ("item", "tolist", "cpu", "numpy", "__float__", "__int__", "__bool__")
        reads = []
        for count in (22, 220):
            loader, seen = class_loader(count), []
            with contextlib.ExitStack() as stack:
                for name in readers:
                    read = getattr(torch.Tensor, name)
                    patched = functools.wraps(read)(lambda *a, read=read, seen=seen, **k: seen.append(read) or read(*a, **k))
                    stack.enter_context(mock.patch.object(torch.Tensor, name, patched))
                standard_train(hparams("1ep", plateau_opt=True), network(), loader, loader, self.folder(), verbose=False)
            reads.append(len(seen))
        self.assertGreater(reads[0], 0)
        self.assertEqual(reads[0], reads[1])


class CallbackTest(TrainTestCase):
    def setUp(self):
        super().setUp()
        self.calls = []

    def note(self, location, step, model, optimizer, logger):
        self.calls.append((step, weights(model)))

    def test_they_are_called_before_every_update_and_once_after_the_last(self):
        self.trained(hparams("2ep"), self.note)
        self.assertEqual([step.iteration for step, _ in self.calls], list(range(2 * BATCHES + 1)))
        for step, seen in self.calls:
            expected = plain_training(plain_network(network()), regression_loader(), torch.optim.SGD, range(step.iteration))
            self.assert_close(seen, expected)

    def test_only_the_last_call_is_marked_as_last(self):
        for steps in ("2ep", "4it"):
            self.calls.clear()
            self.trained(hparams(steps), self.note)
            self.assertEqual([step.last for step, _ in self.calls], [False] * (len(self.calls) - 1) + [True])

    def test_a_part_of_training_calls_them_from_its_start_to_its_end(self):
        self.trained(hparams("9ep"), self.note, start_step=Step(2, BATCHES), end_step=Step(5, BATCHES))
        self.assertEqual([(step.iteration, step.last) for step, _ in self.calls], [(2, False), (3, False), (4, False), (5, True)])

    def test_steps_count_epochs_by_the_loader(self):
        self.trained(hparams("4it"), self.note)
        self.assertEqual([str(step) for step, _ in self.calls], ["ep0_it0", "ep0_it1", "ep0_it2", "ep1_it0", "ep1_it1"])

    def test_they_are_called_in_order_with_the_folder_and_one_log(self):
        seen = []
        folder = self.folder()
        callbacks = [lambda location, step, model, optimizer, logger, name=name: seen.append((name, location, logger)) for name in "ab"]
        train(hparams("1it"), network(), regression_loader(), folder, callbacks)
        self.assertEqual([(name, location) for name, location, _ in seen], [("a", folder), ("b", folder)] * 2)
        self.assertEqual(len({id(logger) for *_, logger in seen}), 1)


class Killed(Exception):
    """What stops a run here, as a power cut would."""


class ResumeTest(TrainTestCase):
    """A run that is stopped and started again ends bit for bit like the run that was not."""

    def setUp(self):
        super().setUp()
        patch = mock.patch.object(train_module, "CHECKPOINT_SECONDS", 0)
        patch.start()
        self.addCleanup(patch.stop)
        self.loader = regression_loader()

    def start(
        self, training_hparams: TrainingHparams, model_name: str, folder: str, stop: int | None = None, first: bool = False
    ) -> list[int]:
        """Starts a run as a new process would, and stops it at an iteration, before or after what else happens there.

        Returns:
            The iterations that it came by.
        """
        seen = []

        def stopper(location, step, model, optimizer, logger):
            seen.append(step.iteration)
            if step.iteration == stop:
                raise Killed

        evaluation = run_every_epoch(create_eval_callback("train", self.loader))
        callbacks = [evaluation, run_at_last_step(save_model), run_at_last_step(save_logger)]
        try:
            train(training_hparams, network(model_name), self.loader, folder, [stopper, *callbacks] if first else [*callbacks, stopper])
        except Killed:
            self.assertEqual(seen[-1], stop)
        else:
            self.assertIsNone(stop, "it ended before it was stopped")
        return seen

    def result(self, folder: str) -> tuple[dict[str, list], str]:
        """The final weights, digit for digit, and the text of the log."""
        state = base.read_state(registry.last_file(folder))
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

    def test_levenberg_marquardt(self):
        self.assert_resumes(hparams("5ep", "levenberg_marquardt", 1.0), "mlp_4_1_2")

    def test_lbfgs(self):
        self.assert_resumes(hparams("5ep", "lbfgs", 1.0))

    def test_lbfgs_on_all_examples_at_once(self):
        self.loader = DataLoader(self.loader.dataset, 22, dtype=torch.float64)
        self.assert_resumes(hparams("9it", "lbfgs", 1.0), stops=(2, 3, 7))

    def test_lbfgs_with_students(self):
        self.assert_resumes(hparams("5ep", "lbfgs", 1.0), "students_mlp(3)_4_5_2")

    def test_nesterov_adam(self):
        self.assert_resumes(hparams("5ep", "adam", 0.02, nesterov_momentum=0.9))

    def test_single_precision(self):
        self.loader = DataLoader(self.loader.dataset, 8)
        self.assert_resumes(hparams("5ep", "adam", 0.02, precision="float32"))

    def test_sixteen_bits_with_scaled_losses(self):
        values = regression_loader()
        self.loader = DataLoader(teacher_dataset.Dataset(values.examples, values.labels * 1000), 8)  # the scale falls from where it begins
        for changes in ({"precision": "fp16"}, {"apex_fp16": True, "precision": "float32", "momentum": 0.9}, {"precision": "bf16"}):
            self.assert_resumes(hparams("5ep", "sgd", 1e-5, **changes))
        self.assert_resumes(hparams("5ep", "adam", 0.02, precision="fp16"), "students_mlp(3)_4_5_2")

    def test_a_run_stopped_before_its_first_checkpoint_begins_anew(self):
        self.assert_resumes(hparams("3ep", momentum=0.9), stops=(0, 2))

    def test_a_run_stopped_at_any_iteration(self):
        training_hparams = hparams("2ep", "adam", 0.02)
        self.start(training_hparams, "mlp_4_5_2", whole := self.folder())
        for stop in range(2 * BATCHES + 1):
            for first in (True, False):
                self.start(training_hparams, "mlp_4_5_2", parts := self.folder(), stop, first)
                self.start(training_hparams, "mlp_4_5_2", parts)
                self.assertEqual(self.result(parts), self.result(whole))

    def test_a_run_stopped_again_and_again_at_the_same_place(self):
        self.assert_resumes(hparams("4ep", momentum=0.9), stops=(8, 8, 8, 10, 10))

    def test_what_callbacks_draw_at_random_is_drawn_again(self):
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
                    train(hparams("4ep"), network(), regression_loader(), folder, [draw])
                except Killed:
                    continue
                break
        self.assertEqual(drawn[True], drawn[False])


class StopTest(TrainTestCase):
    """A run that a signal asks to stop does so before its next update."""

    def stopped(self, folder: str, at: int, *callbacks) -> list[int]:
        """Starts a run, asks it to stop at an iteration, and returns the iterations that it came by."""
        seen = []

        def ask(location, step, model, optimizer, logger):
            seen.append(step.iteration)
            if step.iteration == at:
                os.kill(os.getpid(), signal.SIGUSR1)

        with stopping.watching():
            train(hparams("3ep", momentum=0.9), network(), regression_loader(), folder, [ask, *callbacks])
        return seen

    def test_it_leaves_before_the_next_update_with_a_checkpoint_of_there(self):
        for at in range(3 * BATCHES - 1):
            folder, seen = self.folder(), []
            with self.assertRaisesRegex(Stopped, f"^{folder} .*ep{(at + 1) // BATCHES}_it{(at + 1) % BATCHES}$"):
                self.stopped(folder, at)
            model = network()
            train(
                hparams("3ep", momentum=0.9), model, regression_loader(), folder, [lambda *call, seen=seen: seen.append(call[1].iteration)]
            )
            self.assertEqual(seen, list(range(at + 1, 3 * BATCHES + 1)))
            self.assertTrue(torch.equal(weights(model), self.trained(hparams("3ep", momentum=0.9))))

    def test_a_run_that_is_at_its_end_anyway_ends(self):
        self.assertEqual(self.stopped(self.folder(), 3 * BATCHES - 1)[-1], 3 * BATCHES)

    def test_a_run_that_is_asked_before_it_starts_takes_no_step(self):
        folder = self.folder()
        with stopping.watching():
            os.kill(os.getpid(), signal.SIGTERM)
            with self.assertRaises(Stopped):
                train(hparams(), network(), regression_loader(), folder)
        self.assertEqual(os.listdir(folder), ["checkpoint.pth"])


class CheckpointTest(TrainTestCase):
    def test_epochs_shorter_than_a_second_share_a_checkpoint(self):
        folder, seen = self.folder(), []
        train(hparams("3ep"), network(), regression_loader(), folder, [lambda location, *_: seen.append(os.listdir(location))])
        self.assertEqual(seen, [[]] * (3 * BATCHES) + [["checkpoint.pth"]])

    def test_a_finished_run_keeps_one_checkpoint(self):
        folder = self.folder()
        with mock.patch.object(train_module, "CHECKPOINT_SECONDS", 0):
            train(hparams("3ep"), network(), regression_loader(), folder)
        self.assertEqual(os.listdir(folder), ["checkpoint.pth"])

    def test_a_checkpoint_cut_short_is_named_and_left_as_it_is(self):
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
        standard_train(training_hparams, model, loader, loader, folder, verbose=False)
        return weights(model)

    def test_a_finished_run_is_prolonged_as_if_it_had_been_longer_from_the_start(self):
        folder = self.folder()
        self.standard(folder, hparams("3ep", momentum=0.9))
        prolonged = self.standard(folder, hparams("3ep", momentum=0.9, further_training="2ep"))
        self.assertTrue(torch.equal(prolonged, self.trained(hparams("5ep", momentum=0.9))))
        self.assertEqual([iteration for iteration, _ in MetricLogger.load(folder).get("test_loss")], [0, 3, 6, 9, 12, 15])
        self.assertIn("model_ep5_it0.pth", os.listdir(folder))

    def test_asking_again_trains_no_more(self):
        folder = self.folder()
        self.standard(folder, hparams("3ep"))
        once = self.standard(folder, hparams("3ep", further_training="2ep"))
        again = self.standard(folder, hparams("3ep", further_training="2ep"))
        self.assertTrue(torch.equal(once, again))

    def test_a_prolonged_run_gives_its_latest_weights_without_the_flag(self):
        folder = self.folder()
        self.standard(folder, hparams("3ep"))
        prolonged = self.standard(folder, hparams("3ep", further_training="2ep"))
        self.assertTrue(torch.equal(self.standard(folder, hparams("3ep")), prolonged))

    def test_a_new_run_may_be_prolonged_at_once(self):
        prolonged = self.trained(hparams("3ep", further_training="2it"))
        self.assertTrue(torch.equal(prolonged, self.trained(hparams("11it"))))

    def test_a_cosine_begins_again_at_the_full_rate_and_falls_to_nothing(self):
        rates = []
        self.trained(hparams("6it", lr_decay="cosine", further_training="4it"), lambda *call: rates.append(call[3].param_groups[0]["lr"]))
        expected = [0.1 * (1 + torch.tensor(torch.pi * k / 4, dtype=torch.float64).cos().item()) / 2 for k in range(5)]
        self.assert_close(torch.tensor(rates[6:]), torch.tensor(expected))

    def test_a_finished_run_only_gives_its_weights(self):
        folder = self.folder()
        first = self.standard(folder, hparams("3ep"))
        before = {name: os.stat(os.path.join(folder, name)).st_mtime_ns for name in os.listdir(folder)}
        with mock.patch.object(train_module, "train") as loop:
            self.assertTrue(torch.equal(self.standard(folder, hparams("3ep")), first))
        loop.assert_not_called()
        self.assertEqual({name: os.stat(os.path.join(folder, name)).st_mtime_ns for name in os.listdir(folder)}, before)

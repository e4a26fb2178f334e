"""Captured updates against plain updates.

On the CPU a stand-in repeats the captured computation by calling it again, and must give the same bits as plain updates. On a GPU, CUDA
graphs must give the same bits as the stand-in.
"""

import contextlib
import io
import unittest
from collections.abc import Callable
from unittest import mock

import torch

from datasets.base import DataLoader
from foundations.step import Step
from models import base
from platforms import local
from platforms.base import installed
from pruning.mask import Mask
from pruning.pruned_model import PrunedModel
from training import captured
from training import train as train_module
from training.plan import Plan
from training.test.test_train import TrainTestCase, class_loader, hparams, network, regression_loader, weights
from training.train import train

SCHEDULE = {"warmup_steps": "4it", "milestone_steps": "9it", "lr_decay": "cosine"}
EPOCHS, WHOLE_BATCHES = 5, 2  # whole batches in an epoch, before a smaller batch


class StandIn:
    """Captures a computation like a CUDA graph, but repeats it by calling it again."""

    def __init__(self):
        self.captures = self.replays = 0

    def __call__(self, computation: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        self.captures += 1

        def replay() -> torch.Tensor:
            self.replays += 1
            return computation()

        return replay


def refuse(computation: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """A capture that fails."""
    raise RuntimeError("operation not permitted when stream is capturing\nand more lines")


def pruned(model: base.Model) -> PrunedModel:
    """A network with every third weight pruned."""
    shapes = {name: dict(model.named_parameters())[name].shape for name in model.prunable_layer_names}
    return PrunedModel(model, Mask({name: torch.arange(shape.numel()).view(shape) % 3 > 0 for name, shape in shapes.items()}))


def single(loader: DataLoader) -> DataLoader:
    """A loader in float32."""
    return DataLoader(loader.dataset, loader.batch_size, loader.seed)


class CapturedTestCase(TrainTestCase):
    def run_with(self, capture: captured.Capture | None, model: base.Model, loader: DataLoader, optimizer: str, **changes) -> torch.Tensor:
        """The weights after training with updates captured by `capture`; None captures none."""
        with mock.patch.object(captured, "capture_on", lambda device: capture):
            train(hparams(f"{EPOCHS}ep", optimizer, 0.02, **{"precision": "float32"} | changes), model, loader, self.folder())
        return weights(model)

    def assert_same_bits(self, make: Callable[[], base.Model], optimizer: str, loader: DataLoader | None = None, **changes):
        stand_in, loader = StandIn(), loader or single(regression_loader())
        plain = self.run_with(None, make(), loader, optimizer, **SCHEDULE | changes)
        ours = self.run_with(stand_in, make(), loader, optimizer, **SCHEDULE | changes)
        self.assertEqual((stand_in.captures, stand_in.replays), (1, EPOCHS * WHOLE_BATCHES - captured.WARM_UP))
        self.assertTrue(torch.equal(ours, plain))
        self.assertTrue(ours.isfinite().all())


class SameBitsTest(CapturedTestCase):
    def test_sgd(self):
        self.assert_same_bits(network, "sgd")
        self.assert_same_bits(network, "sgd", momentum=0.9, weight_decay=1e-3)
        self.assert_same_bits(network, "sgd", nesterov_momentum=0.9)

    def test_adam(self):
        self.assert_same_bits(network, "adam", weight_decay=1e-3)

    def test_a_plateau_schedule(self):
        self.assert_same_bits(network, "adam", plateau_opt=True, patience=0, cooldown=0)

    def test_class_labels(self):
        self.assert_same_bits(network, "adam", loader=single(class_loader()))

    def test_students(self):
        self.assert_same_bits(lambda: network("students_mlp(3)_4_5_2"), "adam")

    def test_pruned_students(self):
        self.assert_same_bits(lambda: pruned(network("students_mlp(3)_4_5_2")), "adam")

    def test_centred_steps_of_pruned_networks(self):
        self.assert_same_bits(lambda: pruned(network("mlp_4_5_5_2", "sigmoid")), "adam", centred=True)

    def test_sixteen_bits(self):
        self.assert_same_bits(network, "adam", precision="bf16")

    def test_part_of_a_training_run(self):
        stand_in = StandIn()
        seen = []
        for capture in (None, stand_in):
            model = network()
            with mock.patch.object(captured, "capture_on", lambda device, capture=capture: capture):
                part = Plan(start=Step(4, 3), end=Step(11, 3))
                train(
                    hparams("5ep", "adam", 0.02, precision="float32", **SCHEDULE), model, single(regression_loader()), self.folder(), part
                )
            seen.append(weights(model))
        self.assertEqual(stand_in.replays, 2)
        self.assertTrue(torch.equal(*seen))

    def test_a_run_resumed_at_any_iteration(self):
        def stop_at(iteration: int) -> Plan:
            def stop(location, step, *_):
                if step.iteration == iteration:
                    raise KeyboardInterrupt

            return Plan([stop])

        training_hparams, loader = hparams(f"{EPOCHS}ep", "adam", 0.02, precision="float32", **SCHEDULE), single(regression_loader())
        plain = self.run_with(None, network("students_mlp(2)_4_5_2"), loader, "adam", **SCHEDULE)
        patches = {"CHECKPOINT_SECONDS": 0, "CHECKPOINT_SECONDS_WITHIN": 0}
        for stop in range(1, 12):
            folder, stand_in = self.folder(), StandIn()
            with mock.patch.multiple(train_module, **patches), mock.patch.object(captured, "capture_on", lambda device, s=stand_in: s):
                with self.assertRaises(KeyboardInterrupt):
                    train(training_hparams, network("students_mlp(2)_4_5_2"), loader, folder, stop_at(stop))
                model = network("students_mlp(2)_4_5_2")
                train(training_hparams, model, loader, folder)
            self.assertGreater(stand_in.replays, 0)
            self.assertTrue(torch.equal(weights(model), plain), f"stopped at {stop}")

    def test_plain_updates_resume_a_checkpoint_of_captured_updates(self):
        states = []
        for capture in (None, StandIn()):
            folder = self.folder()
            with mock.patch.object(captured, "capture_on", lambda device, capture=capture: capture):
                loader = single(regression_loader())
                train(hparams("5ep", "adam", 0.02, precision="float32"), network(), loader, folder)
            states.append(base.read_state(f"{folder}/checkpoint.pth")["optimizer"])
        plain, ours = states
        self.assertEqual(ours["param_groups"], plain["param_groups"])
        torch.testing.assert_close(ours["state"], plain["state"], rtol=0, atol=0)


class FallBackTest(CapturedTestCase):
    def test_a_failed_capture_prints_one_note_and_updates_are_plain(self):
        plain = self.run_with(None, network(), single(regression_loader()), "adam", **SCHEDULE)
        with contextlib.redirect_stderr(io.StringIO()) as err:
            ours = self.run_with(refuse, network(), single(regression_loader()), "adam", **SCHEDULE)
        self.assertEqual(err.getvalue().count("\n"), 1)
        self.assertIn("operation not permitted when stream is capturing)", err.getvalue())
        self.assertTrue(torch.equal(ours, plain))

    def test_unsupported_updates_are_not_captured(self):
        others = {"float64": {"precision": "float64"}, "fp16": {"precision": "fp16"}}
        for name, changes in others.items():
            stand_in = StandIn()
            loader = regression_loader() if name == "float64" else single(regression_loader())
            self.run_with(stand_in, network(), loader, "adam", **changes)
            self.assertEqual(stand_in.captures, 0, name)
        for name in ("nadam", "lbfgs", "levenberg_marquardt"):
            self.run_with(stand_in, network(), single(regression_loader()), name)
            self.assertEqual(stand_in.captures, 0, name)

    def test_nothing_is_captured_on_the_cpu(self):
        self.assertIsNone(captured.capture_on(torch.device("cpu")))


@unittest.skipUnless(torch.cuda.is_available(), "no GPU is here")
class CudaGraphTest(CapturedTestCase):
    def setUp(self):
        super().setUp()
        platform = contextlib.ExitStack()
        platform.enter_context(installed(local.Platform()))
        self.addCleanup(platform.close)

    def assert_same_on_gpu(self, make: Callable[[], base.Model], optimizer: str, loader: DataLoader, **changes):
        expected = self.run_with(StandIn(), make(), loader, optimizer, **SCHEDULE | changes)
        with contextlib.redirect_stderr(io.StringIO()) as err:
            ours = self.run_with(captured.cuda_graph, make(), loader, optimizer, **SCHEDULE | changes)
        self.assertEqual(err.getvalue(), "")
        self.assertTrue(torch.equal(ours, expected))

    def test_students(self):
        for make in (lambda: network("students_mlp(3)_4_5_2"), lambda: pruned(network("students_mlp(3)_4_5_2"))):
            for optimizer, changes in (
                ("adam", {}),
                ("adam", {"centred": True}),
                ("sgd", {"momentum": 0.9}),
                ("adam", {"precision": "bf16"}),
            ):
                self.assert_same_on_gpu(make, optimizer, single(regression_loader()), **changes)

    def test_class_labels_on_a_gpu(self):
        self.assert_same_on_gpu(network, "adam", single(class_loader()))

    def test_the_learning_rate_equals_that_of_plain_updates_in_single_precision(self):
        plain = self.run_with(None, network(), single(regression_loader()), "adam", **SCHEDULE)
        ours = self.run_with(captured.cuda_graph, network(), single(regression_loader()), "adam", **SCHEDULE)
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)

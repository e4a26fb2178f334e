"""The logged curves of runs on the digits against a plain loop with torch's layers, optimizers, schedules and mixed precision.

The loop shares only the initial weights and the batches with the run.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

from datasets import registry as datasets
from datasets.base import DataLoader
from foundations.dataset_hparams import DatasetHparams
from models import base
from testing.test_case import TestCase
from training.metric_logger import MetricLogger

BATCH_SIZE, SEED = 128, 3
ITERATIONS = 12  # an epoch of the 1,437 digits
NAME = "digits_lenet_300_100"


def sgd(lr: float = 0.1, **options) -> Callable[..., torch.optim.Optimizer]:
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, **options)


def constant(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    return lr_scheduler.ConstantLR(optimizer, 1.0)


def milestones_with_warmup(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    """A linear warmup of one epoch, and a factor of 0.3 after two and after three epochs."""
    warmup = lr_scheduler.LinearLR(optimizer, 1e-12, total_iters=ITERATIONS)
    milestones = lr_scheduler.MultiStepLR(optimizer, [2 * ITERATIONS, 3 * ITERATIONS], 0.3)
    return lr_scheduler.ChainedScheduler([warmup, milestones])


@dataclasses.dataclass
class Reference:
    """A plain training loop.

    Attributes:
        schedule: makes a scheduler that steps after every iteration or, with `by_epoch`, after every epoch with the sum of its losses.
        mixed: the number format of the arithmetic, if it differs from that of the weights.
        tolerance: the tolerance of losses.
        rate: the learning rate at the end.
    """

    optimizer: Callable[..., torch.optim.Optimizer] = dataclasses.field(default_factory=sgd)
    schedule: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler] = constant
    by_epoch: bool = False
    epochs: int = 4
    dtype: torch.dtype = torch.float32
    mixed: torch.dtype | None = None
    tolerance: float = 1e-4

    def curves(self, weights: dict[str, torch.Tensor], loaders: list[DataLoader]) -> dict[str, list[float]]:
        """Loss and accuracy on both sets before every epoch and after the last."""
        layers = [nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)]
        self.model = nn.Sequential(nn.Flatten(), *layers)
        self.model.load_state_dict(dict(zip(self.model.state_dict(), weights.values(), strict=True)))
        self.model.to(self.dtype)
        optimizer = self.optimizer(self.model.parameters())
        schedule, scaler = self.schedule(optimizer), torch.amp.GradScaler("cpu", enabled=self.mixed == torch.float16)
        curves = {f"{part}_{metric}": [] for part in ("train", "test") for metric in ("loss", "accuracy")}
        for epoch in range(self.epochs + 1):
            for part, loader in zip(("train", "test"), loaders, strict=True):
                loss, accuracy = self.evaluate(loader)
                curves[f"{part}_loss"].append(loss)
                curves[f"{part}_accuracy"].append(accuracy)
            total = sum(self.update(*batch, optimizer, scaler, schedule) for batch in loaders[0].epoch(epoch)) if epoch < self.epochs else 0
            if self.by_epoch:
                schedule.step(total)
        self.rate = optimizer.param_groups[0]["lr"]
        return curves

    def update(self, examples, labels, optimizer, scaler, schedule) -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=self.mixed or torch.bfloat16, enabled=self.mixed is not None):
            outputs = self.model(examples)
        loss = F.cross_entropy(outputs.to(self.dtype), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if not self.by_epoch:
            schedule.step()
        return loss.item()

    @torch.no_grad()
    def evaluate(self, loader: DataLoader) -> tuple[float, float]:
        outputs = self.model(loader.examples)
        return F.cross_entropy(outputs, loader.labels).item(), (outputs.argmax(1) == loader.labels).double().mean().item()


class CurvesTest(TestCase):
    def run_of(self, epochs: int, *flags: str) -> str:
        """Trains by the command line and returns the run folder."""
        command = ("train", f"--default_hparams={NAME}", f"--training_steps={epochs}ep", f"--global_seed={SEED}", *flags)
        self.assertEqual(self.command(*command, "--quiet"), (0, "", ""))
        return self.command(*command, "--display_output_location")[1].strip()

    def assert_curves(self, reference: Reference, *flags: str) -> dict[str, list[float]]:
        """Checks that a run has the curves of a plain loop and learns; returns the curves."""
        folder = self.run_of(reference.epochs, *flags)
        weights = base.read_state(os.path.join(folder, "model_ep0_it0.pth"))
        loaders = [datasets.get(DatasetHparams("digits", BATCH_SIZE), part, SEED, reference.dtype) for part in (True, False)]
        expected = reference.curves(weights, loaders)
        logger, curves = MetricLogger.load(folder), {}
        for name, values in expected.items():
            iterations, curves[name] = zip(*logger.get(name), strict=True)
            self.assertEqual(list(iterations), [epoch * ITERATIONS for epoch in range(reference.epochs + 1)])
            tolerance = max(reference.tolerance, 1.5 / 360 if name.endswith("accuracy") else 0)  # an image may be at the decision boundary
            torch.testing.assert_close(list(curves[name]), values, rtol=reference.tolerance, atol=tolerance)
        self.assertLess(curves["test_loss"][-1], curves["test_loss"][0] / 2)
        return curves

    def test_curves_with_default_hyperparameters(self):
        curves = self.assert_curves(Reference())
        self.assertGreater(curves["test_accuracy"][-1], 0.85)

    def test_float64(self):
        self.assert_curves(Reference(dtype=torch.float64, tolerance=1e-11), "--precision=float64")

    def test_16_bits(self):
        exact = self.assert_curves(Reference(epochs=2))
        for flag, dtype in (("--precision=bf16", torch.bfloat16), ("--apex_fp16", torch.float16)):
            rounded = self.assert_curves(Reference(mixed=dtype, epochs=2, tolerance=3e-3), flag)
            torch.testing.assert_close(list(rounded["test_loss"]), list(exact["test_loss"]), rtol=0.05, atol=0.02)
            self.assertNotEqual(rounded["test_loss"][-1], exact["test_loss"][-1])

    def test_weight_decay_and_momentum(self):
        reference = Reference(sgd(momentum=0.5, weight_decay=0.01))
        self.assert_curves(reference, "--momentum=0.5", "--weight_decay=0.01")

    def test_nesterov_momentum(self):
        self.assert_curves(Reference(sgd(momentum=0.5, nesterov=True)), "--nesterov_momentum=0.5")

    def test_adam(self):
        reference = Reference(lambda parameters: torch.optim.Adam(parameters, lr=0.001))
        self.assert_curves(reference, "--optimizer_name=adam", "--lr=0.001")

    def test_milestones_with_warmup(self):
        reference = Reference(schedule=milestones_with_warmup)
        self.assert_curves(reference, "--warmup_steps=1ep", "--milestone_steps=2ep,3ep", "--delta=0.3")

    def test_a_plateau_schedule(self):
        def plateau(optimizer: torch.optim.Optimizer) -> lr_scheduler.ReduceLROnPlateau:
            return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=0, cooldown=1)

        reference = Reference(sgd(lr=1.0), plateau, by_epoch=True, epochs=12, dtype=torch.float64, tolerance=1e-7)
        flags = ("--lr=1.0", "--plateau_opt", "--patience=0", "--cooldown=1", "--delta=0.3", "--precision=float64")
        self.assert_curves(reference, *flags)
        self.assertLess(reference.rate, 0.5, "no plateau was met")

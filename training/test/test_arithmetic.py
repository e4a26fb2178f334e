"""Number formats against plain loops with torch's mixed precision, and networks on several devices."""

import contextlib
import copy
import functools
from unittest import mock

import torch
from torch import nn

from datasets import cifar10, teacher_dataset
from datasets.base import DataLoader
from foundations.errors import ConfigError
from models import base
from platforms.base import installed
from platforms.local import Platform
from testing import toy_teacher
from testing.test_case import CpuPlatform, TestCase
from training import arithmetic
from training.evaluation import evaluate
from training.plan import Plan
from training.test.test_train import TrainTestCase, batches, hparams, network, plain_network, regression_loader, weights
from training.train import Objective, train

FORMATS = {"bf16": (torch.bfloat16, 2**-8), "fp16": (torch.float16, 2**-11)}  # and the rounding error


def single(scale: float = 1.0) -> DataLoader:
    """The small regression in float32, with its targets multiplied by `scale`."""
    loader = regression_loader()
    return DataLoader(teacher_dataset.Dataset(loader.examples, loader.labels * scale), 8, seed=1)


def plain_mixed_training(model: nn.Module, loader: DataLoader, dtype: torch.dtype, optimizer: torch.optim.Optimizer, iterations: int):
    """The mixed-precision loop of torch's manual on the same batches; returns the weights."""
    scaler = torch.amp.GradScaler("cpu", enabled=dtype == torch.float16)
    for (examples, labels), _ in zip(batches(loader), range(iterations), strict=False):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=dtype):
            outputs = model(examples)
        scaler.scale(nn.functional.mse_loss(outputs.float(), labels)).backward()
        scaler.step(optimizer)
        scaler.update()
    return weights(model)


def small_scale(test: TestCase) -> None:
    """Sets an initial loss scale without overflow, for the rest of a test."""
    patch = mock.patch("torch.amp.GradScaler", functools.partial(torch.amp.GradScaler, init_scale=256.0))
    patch.start()
    test.addCleanup(patch.stop)


class SixteenBitsTest(TrainTestCase):
    def run_small(self, scale: float = 1.0, model_name: str = "mlp_4_5_2", **changes) -> base.Model:
        model = network(model_name).float()
        train(hparams(**{"precision": "float32"} | changes), model, single(scale), self.folder())
        return model

    def test_16_bit_training_equals_the_loop_of_torchs_manual(self):
        for name, (dtype, _) in FORMATS.items():
            for scale, lr in ((1.0, 0.1), (1000.0, 1e-5)):  # the second overflows at first in fp16
                plain = plain_network(network()).float()
                optimizer = torch.optim.SGD(plain.parameters(), lr=lr, momentum=0.9, weight_decay=0.01)
                expected = plain_mixed_training(plain, single(scale), dtype, optimizer, 30)
                ours = self.run_small(scale, training_steps="30it", lr=lr, precision=name, momentum=0.9, weight_decay=0.01)
                torch.testing.assert_close(weights(ours), expected, rtol=1e-5, atol=1e-6)

    def test_weights_are_float32_and_differ_from_float32_training_by_16_bit_rounding(self):
        small_scale(self)
        exact = self.run_small()
        for name, (_, rounding) in FORMATS.items():
            rounded = self.run_small(precision=name)
            self.assertEqual({parameter.dtype for parameter in rounded.parameters()}, {torch.float32})
            difference = (weights(rounded) - weights(exact)).abs().max().item()
            self.assertGreater(difference, rounding / 1000)
            self.assertLess(difference, 10 * rounding)

    def test_apex_fp16_trains_like_precision_fp16(self):
        ours = self.run_small(apex_fp16=True)
        self.assertTrue(torch.equal(weights(ours), weights(self.run_small(precision="fp16"))))

    def test_loss_scaling_preserves_gradients_below_the_range_of_fp16(self):
        model, examples = network().float(), single().examples
        computed = arithmetic.Arithmetic(hparams(precision="fp16"), model)
        outputs = computed.forward(examples).detach()
        labels = outputs + 2e-6
        slopes = 2 * (outputs - labels) / labels.numel()
        self.assertLess(slopes.abs().max(), 4 * 2**-24)  # four times the smallest number of fp16
        exact = torch.autograd.grad(model(examples), list(model.parameters()), slopes)
        Objective(model, examples, labels, computed)()
        for parameter, expected in zip(model.parameters(), exact, strict=True):
            scaled = parameter.grad / computed.scaler.get_scale()
            torch.testing.assert_close(scaled, expected, rtol=0.01, atol=0.01 * expected.abs().max().item())

    def test_an_update_with_overflowing_gradients_is_skipped(self):
        start = weights(network().float())
        self.assertTrue(torch.equal(weights(self.run_small(1e5, training_steps="1it", precision="fp16", momentum=0.9)), start))
        later = weights(self.run_small(1e5, training_steps="20it", precision="fp16", lr=1e-9, momentum=0.9))
        self.assertTrue(later.isfinite().all())
        self.assertFalse(torch.equal(later, start))

    def test_a_stack_in_16_bits_equals_a_single_student_in_16_bits(self):
        small_scale(self)
        for name, (_, rounding) in FORMATS.items():
            stack = self.run_small(model_name="students_mlp(3)_4_5_2", precision=name)
            for student in range(3):
                alone = network("students_mlp(3)_4_5_2").float().select(student)
                train(hparams(precision=name), alone, single(), self.folder())
                difference = (weights(stack.select(student)) - weights(alone)).abs().max().item()
                self.assertLess(difference, rounding)

    def test_convolutional_networks_train_in_16_bits(self):
        images = DataLoader(cifar10.Dataset(torch.randn(12, 3, 32, 32), torch.arange(12) % 10), 6)
        for name in FORMATS:
            model = network("cifar_resnet_8_4", "relu").float()
            train(hparams("2it", precision=name), model, images, self.folder())
            self.assertTrue(weights(model).isfinite().all())
            self.assertEqual(evaluate(model, images)["loss"], evaluate(copy.deepcopy(model), images)["loss"])


class Tf32Test(TrainTestCase):
    def test_tf32_requires_a_gpu_that_supports_it(self):
        arithmetic.check(hparams(precision="float32"))
        with self.assertRaisesRegex(ConfigError, "^--precision: tf32 .*; valid here: float32, bf16, fp16, float64$"):
            arithmetic.check(hparams(precision="tf32"))
        gpu = mock.PropertyMock(return_value=torch.device("cuda"))
        with mock.patch.object(CpuPlatform, "torch_device", gpu), mock.patch("torch.cuda.get_device_capability") as capability:
            for capability.return_value, words in (((9, 0), None), ((8, 0), None), ((7, 5), "tf32 needs an NVIDIA GPU")):
                with contextlib.nullcontext() if words is None else self.assertRaisesRegex(ConfigError, words):
                    arithmetic.check(hparams(precision="tf32"))

    def test_commands_refuse_tf32_before_writing_but_print_the_output_location(self):
        for command in (
            ("train", "--default_hparams=digits_lenet"),
            ("extract", "--default_hparams=students_digits_lenet"),
            ("lottery", "--default_hparams=digits_lenet", "--levels=1"),
        ):
            status, out, err = self.command(*command, "--precision=tf32", "--quiet")
            self.assertEqual((status, out, self.files()), (2, "", []))
            self.assertIn("--precision: tf32 needs an NVIDIA GPU", err)
            self.assertEqual(self.command(*command, "--precision=tf32", "--display_output_location")[0], 0)

    def test_tf32_is_enabled_only_if_the_arithmetic_is_tf32(self):
        def state() -> tuple[bool, bool]:
            return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

        before = state()
        for name, allowed in (("float32", False), ("bf16", False), ("tf32", True)):
            seen = set()
            with mock.patch.object(arithmetic, "_has_tf32", return_value=True):
                train(hparams("1it", precision=name), network(), single(), self.folder(), Plan([lambda *_, seen=seen: seen.add(state())]))
            self.assertEqual(seen, {(allowed, allowed)})
            self.assertEqual(state(), before)


class Halves(nn.Module):
    """Two devices, each of which computes half of a batch, as in `torch.nn.DataParallel`."""

    def __init__(self, forward: nn.Module):
        super().__init__()
        self.forward_one = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.forward_one(half) for half in x.chunk(2)])


class TwoDevices(CpuPlatform):
    def data_parallel(self, forward):
        return Halves(forward)


class DataParallelTest(TrainTestCase):
    def loader(self) -> DataLoader:
        random = torch.Generator().manual_seed(4)
        images = torch.randn(22, 3, 32, 32, generator=random)
        return DataLoader(cifar10.Dataset(images, torch.arange(22) % 10), 8, seed=1)

    def test_batches_are_split_among_devices_and_weights_keep_their_names(self):
        plain, ours = (network("cifar_resnet_8_4", "relu").float() for _ in range(2))
        optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
        for examples, labels in self.loader().epoch(0):
            optimizer.zero_grad()
            nn.functional.cross_entropy(torch.cat([plain(half) for half in examples.chunk(2)]), labels).backward()
            optimizer.step()
        with installed(TwoDevices()):
            train(hparams("1ep", precision="float32"), ours, self.loader(), self.folder())
            self.assertAlmostEqual(evaluate(ours, self.loader())["loss"], evaluate(plain, self.loader())["loss"], places=5)
        self.assertEqual(list(ours.state_dict()), list(plain.state_dict()))
        torch.testing.assert_close(weights(ours), weights(plain), rtol=1e-4, atol=1e-6)

    def test_every_device_computes_in_16_bits(self):
        """The threads of `torch.nn.DataParallel` start with the default format of autocast, so every device must set its own."""
        seen = set()
        model = network("cifar_resnet_8_4", "relu").float()
        model.fc.register_forward_hook(lambda module, inputs, outputs: seen.add((len(outputs), outputs.dtype)))
        with installed(TwoDevices()):
            forward = arithmetic.Arithmetic(hparams(precision="bf16"), model).forward
        self.assertIsInstance(forward, Halves)
        self.assertEqual(forward(torch.randn(6, 3, 32, 32)).dtype, torch.float32)
        self.assertEqual(seen, {(3, torch.bfloat16)})

    def test_small_networks_use_one_device(self):
        with installed(TwoDevices()):
            for name in ("mlp_4_5_2", "students_mlp(3)_4_5_2"):
                model = network(name)
                self.assertIs(arithmetic.data_parallel(model), model)

    def test_the_local_platform_uses_all_visible_gpus(self):
        model = nn.Linear(2, 2)
        gpu = mock.PropertyMock(return_value=torch.device("cuda"))
        with mock.patch.object(Platform, "torch_device", gpu), mock.patch("torch.cuda.device_count") as count:
            for count.return_value, divided in ((1, False), (2, True), (8, True)):
                forward = Platform().data_parallel(model)
                self.assertEqual(isinstance(forward, nn.DataParallel), divided)
                self.assertIs(forward.module if divided else forward, model)
        self.assertIs(CpuPlatform().data_parallel(model), model)


class CommandTest(TestCase):
    def test_the_command_trains_networks_and_students_in_16_bits(self):
        name, _ = toy_teacher.make("mlp_3_4_2", seed=5)
        teacher = (f"--teacher_name={name}", "--teacher_seed=5", "--datagen=random:40")
        for name, options in (("digits_lenet_16", ()), ("students_mlp(2)_3_8_2", teacher)):
            for flag in ("--precision=bf16", "--apex_fp16"):
                run = ("train", f"--default_hparams={name}", "--training_steps=2it", "--global_seed=1", "--quiet", flag, *options)
                self.assertEqual(self.command(*run), (0, "", ""))

"""The pretended device behaves as a GPU does: on a machine with one, the same facts are checked on it."""

import contextlib
import copy
import tempfile
import unittest

import numpy as np
import torch

from models import base
from testing import pretended_device

ON_GPU = torch.cuda.is_available()


class DeviceTestCase(unittest.TestCase):
    def setUp(self):
        if ON_GPU:
            self.device = torch.device("cuda")
            return
        if pretended_device.missing():
            self.skipTest(pretended_device.missing())
        self.device = torch.device(pretended_device.NAME)
        installed = contextlib.ExitStack()
        installed.enter_context(pretended_device.installed())
        self.addCleanup(installed.close)

    def rows(self, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The same numbers on the CPU and on the device."""
        here = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        return here, here.to(self.device)

    def assert_equal(self, there: torch.Tensor, expected: torch.Tensor):
        """That a tensor is on the device and has these values."""
        self.assertEqual(there.device.type, self.device.type)
        torch.testing.assert_close(there.cpu(), expected)


class TestMixing(DeviceTestCase):
    def test_tensors_of_the_cpu_are_refused(self):
        here, there = self.rows(3, 3)
        mixtures = {
            "a sum": lambda: here + there,
            "a product": lambda: there @ here,
            "a sum in place": lambda: there.add_(here),
            "a sum in place on the CPU": lambda: here.add_(there),
            "a number in place on the CPU": lambda: torch.tensor(1.0).add_(there.sum()),
            "concatenation": lambda: torch.cat([here, there]),
            "a condition": lambda: torch.where(here > 0, there, there),
            "a mask": lambda: there.masked_fill(here > 0, 0.0),
            "selection": lambda: there.index_select(0, torch.tensor([0])),
            "numbers that are stacked": lambda: torch.stack([torch.tensor(1.0), there.sum()]),
            "comparison": lambda: torch.equal(here, there),
            "a layer": lambda: torch.nn.Linear(3, 3)(there),
            "a loss": lambda: torch.nn.functional.cross_entropy(there, torch.tensor([0, 1, 2])),
            "a solution": lambda: torch.linalg.solve(there, here),
            "the indices of a tensor on the CPU": lambda: here[torch.tensor([0], device=self.device)],
            "the mask of a tensor on the CPU": lambda: here[there > 0],
            "values at indices": lambda: there.__setitem__(torch.tensor([0]), torch.ones(1, 3)),
        }
        for name, mixture in mixtures.items():
            with self.subTest(name), self.assertRaisesRegex(RuntimeError, "device"):
                mixture()

    def test_numbers_and_indices_of_the_cpu_are_taken(self):
        here, there = self.rows(3, 3)
        self.assert_equal(there * torch.tensor(2.0), 2 * here)
        self.assert_equal(torch.where(there > 0, there, torch.tensor(0.0)), here.relu())
        self.assert_equal(there[torch.tensor([2, 0])], here[[2, 0]])
        self.assert_equal(there[here > 0], here[here > 0])
        there[torch.tensor([0])] = 1.0
        self.assert_equal(there[0], torch.ones(3))

    def test_tensors_are_copied_either_way(self):
        here, there = self.rows(3, 3)
        self.assertEqual(there.cpu().device.type, "cpu")
        self.assertIs(there.to(self.device), there)
        self.assertTrue(torch.equal(here, there.to("cpu")))
        self.assertTrue(torch.equal(here, torch.zeros(3, 3).copy_(there)))
        self.assert_equal(torch.zeros_like(there).copy_(here), here)

    def test_numpy_refuses_it(self):
        _, there = self.rows(3, 3)
        for convert in (lambda: there.numpy(), lambda: np.asarray(there), lambda: np.sqrt(there)):
            with self.assertRaisesRegex(TypeError, r"can't convert .* Use Tensor.cpu\(\) to copy the tensor to host memory first"):
                convert()
        with self.assertRaises(TypeError):
            torch.from_numpy(there)

    def test_values_are_read(self):
        here, there = self.rows(2, 2)
        self.assertEqual(there.tolist(), here.tolist())
        self.assertEqual((there[0, 0].item(), float(there[0, 0])), (here[0, 0].item(), here[0, 0].item()))
        self.assertEqual((bool(there.isfinite().all()), int(there.argmax())), (True, int(here.argmax())))

    def test_waits_are_recorded(self):
        if ON_GPU:
            self.skipTest("a GPU does not count")
        here, there = self.rows(2, 2)
        flags = there > 0
        waits = (lambda: there.cpu(), lambda: there.copy_(here), lambda: float(there.sum()), lambda: there[flags], lambda: there[[0, 1]])
        for wait in (*waits, lambda: here.to(self.device), lambda: flags.nonzero()):
            with pretended_device.recorded_waits() as record:
                wait()
            self.assertEqual(len(record), 1)
        with pretended_device.recorded_waits() as record:
            torch.where(flags, there @ there, there[1:]).sum()
        self.assertEqual(record, [])

    def test_generators_of_the_cpu_draw_nothing_on_it(self):
        for draw in (lambda **where: torch.randperm(5, **where), lambda **where: torch.rand(5, **where)):
            with self.assertRaisesRegex(RuntimeError, "device type for generator but found 'cpu'"):
                draw(generator=torch.Generator(), device=self.device)
        with self.assertRaisesRegex(RuntimeError, "device type for generator but found 'cpu'"):
            torch.empty(5, device=self.device).normal_(generator=torch.Generator())


class TestMaking(DeviceTestCase):
    def test_factories_make_tensors_on_it(self):
        self.assert_equal(torch.zeros(2, device=self.device), torch.zeros(2))
        self.assert_equal(torch.full((2,), 3.0, device=self.device), torch.full((2,), 3.0))
        self.assert_equal(torch.arange(3, device=self.device), torch.arange(3))
        self.assert_equal(torch.arange(1, 7, 2, device=self.device), torch.tensor([1, 3, 5]))
        self.assert_equal(torch.eye(2, device=self.device), torch.eye(2))
        self.assert_equal(torch.linspace(0, 1, 3, device=self.device), torch.tensor([0, 0.5, 1]))
        self.assert_equal(torch.tensor([1.0], device=self.device), torch.ones(1))
        self.assert_equal(torch.randperm(4, device=self.device).sort().values, torch.arange(4))
        self.assertEqual(torch.zeros_like(torch.zeros(2), device=self.device).device.type, self.device.type)
        self.assertEqual(torch.zeros_like(torch.zeros(2, device=self.device), device="cpu").device.type, "cpu")

    def test_a_file_has_the_values_and_gives_them_to_the_cpu(self):
        here, there = self.rows(3, 3)
        with tempfile.NamedTemporaryFile(suffix=".pth") as file:
            file.write(base.to_bytes({"rows": there}))
            file.flush()
            self.assertTrue(torch.equal(base.read_state(file.name)["rows"], here))


class TestTraining(DeviceTestCase):
    def network(self) -> torch.nn.Module:
        torch.manual_seed(2)
        return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))

    def test_a_module_keeps_its_parameters_and_their_hooks_when_it_moves(self):
        network = self.network()
        before = list(network.parameters())
        before[0].register_hook(torch.zeros_like)
        network.to(self.device).double()
        for parameter, moved in zip(before, network.parameters(), strict=True):
            self.assertIs(moved, parameter)
            self.assertIsInstance(moved, torch.nn.Parameter)
            self.assertEqual((moved.device.type, moved.dtype), (self.device.type, torch.float64))
        network(torch.ones(1, 3, dtype=torch.float64, device=self.device)).sum().backward()
        self.assert_equal(before[0].grad, torch.zeros(4, 3, dtype=torch.float64))
        self.assertEqual(before[0].grad.dtype, before[0].dtype)

    def test_optimizers_take_the_same_steps(self):
        makers = {
            "adam": lambda parameters: torch.optim.Adam(parameters, fused=True),
            "sgd": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, fused=True),
            "nadam": torch.optim.NAdam,
        }
        inputs, inputs_there = self.rows(8, 3)
        for name, maker in makers.items():
            with self.subTest(name):
                here, there = self.network(), self.network().to(self.device)
                for network, examples in ((here, inputs), (there, inputs_there)):
                    optimizer = maker(network.parameters())
                    for _ in range(3):
                        optimizer.zero_grad()
                        network(examples).square().sum().backward()
                        optimizer.step()
                for ours, theirs in zip(there.parameters(), here.parameters(), strict=True):
                    self.assert_equal(ours.detach(), theirs.detach())

    def test_it_computes_in_16_bits_and_scales_losses(self):
        network = self.network().to(self.device)
        _, inputs = self.rows(8, 3)
        with torch.autocast(self.device.type, torch.bfloat16):
            outputs = network(inputs)
        self.assertEqual(outputs.dtype, torch.bfloat16)
        scaler, optimizer = torch.amp.GradScaler(self.device.type), torch.optim.SGD(network.parameters(), 0.1, fused=True)
        before = network[0].weight.detach().clone()
        scaler.scale(network(inputs).square().sum() * torch.inf).backward()
        scaler.step(optimizer)
        scaler.update()
        self.assert_equal(network[0].weight.detach(), before.cpu())
        self.assertLess(scaler.get_scale(), torch.amp.GradScaler("cpu").get_scale())

    def test_derivatives_of_functions(self):
        rows, rows_there = self.rows(3, 2)
        cube = lambda row: row**3  # noqa: E731
        for derive in (torch.func.vmap(torch.func.jacrev(cube)), lambda x: torch.func.jvp(cube, (x,), (x,))[1]):
            self.assert_equal(derive(rows_there), derive(rows))

    def test_least_squares_need_full_rank(self):
        rows, rows_there = self.rows(6, 3)
        right = torch.ones(6, 1)
        self.assert_equal(torch.linalg.lstsq(rows_there, right.to(self.device)).solution, torch.linalg.lstsq(rows, right).solution)
        if not ON_GPU:  # where the solution is wrong, without an error
            rows_there[:, 2] = rows_there[:, 1]
            with self.assertRaisesRegex(RuntimeError, "full rank"):
                torch.linalg.lstsq(rows_there, right.to(self.device))

    def test_copies_are_apart_and_parameters_stay_parameters(self):
        network = self.network().to(self.device)
        network[0].weight.requires_grad_(False)
        copied = copy.deepcopy(network)
        with torch.no_grad():
            copied[0].weight.zero_()
        self.assertGreater(float(network[0].weight.detach().abs().sum()), 0)
        self.assertEqual([type(p) for p in copied.parameters()], [type(p) for p in network.parameters()])
        self.assertEqual([p.requires_grad for p in copied.parameters()], [False, True, True, True])

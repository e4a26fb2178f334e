"""The training loop against a plain loop. Other tests of training use the helper functions of this module."""

from __future__ import annotations

import contextlib
import functools
import itertools
import tempfile
from collections.abc import Callable, Iterator
from unittest import mock

import torch
from torch import nn

from datasets import digits, teacher_dataset
from datasets.base import DataLoader
from foundations.model_hparams import ModelHparams
from foundations.step import Step
from foundations.training_hparams import TrainingHparams
from models import base, registry
from testing.test_case import TestCase
from training.plan import Plan, StandardPlan
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
    """A copy of all weights of a model, as one vector."""
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone().cpu()


def plain_network(like: base.Model) -> nn.Sequential:
    """A tanh network of torch layers, with the weights of a model."""
    layers = [nn.Linear(*pair, dtype=torch.float64) for pair in itertools.pairwise(like.sizes)]
    made = nn.Sequential(*itertools.chain.from_iterable((layer, nn.Tanh()) for layer in layers))[:-1]
    nn.utils.vector_to_parameters(weights(like), made.parameters())
    return made


def batches(loader: DataLoader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of an unlimited number of epochs."""
    return itertools.chain.from_iterable(loader.epoch(epoch) for epoch in itertools.count())


def plain_training(
    model: nn.Module,
    loader: DataLoader,
    optimizer: Callable[..., torch.optim.Optimizer],
    iterations: range,
    rate: Callable[[int], float] = lambda iteration: 0.1,
    loss: Callable = nn.functional.mse_loss,
) -> torch.Tensor:
    """A plain training loop on the same batches; returns the weights."""
    model.to(loader.examples.device)
    optimizer = optimizer(model.parameters(), lr=0.1)
    for iteration, (examples, labels) in zip(iterations, itertools.islice(batches(loader), iterations.start, None), strict=False):
        optimizer.param_groups[0]["lr"] = rate(iteration)
        optimizer.zero_grad()
        loss(model(examples), labels).backward()
        optimizer.step()
    return weights(model)


class TrainTestCase(TestCase):
    """A test that trains in new folders."""

    def folder(self) -> str:
        return tempfile.mkdtemp(dir=self.root)

    def trained(self, training_hparams: TrainingHparams, *callbacks, loader: DataLoader | None = None, **options) -> torch.Tensor:
        """The weights of the small network after training in a new folder."""
        model = network()
        train(training_hparams, model, loader or regression_loader(), self.folder(), Plan(callbacks, **options))
        return weights(model)

    def assert_close(self, actual: torch.Tensor, expected: torch.Tensor):
        torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-13)


class LoopTest(TrainTestCase):
    def test_training_equals_a_plain_loop_over_the_loaders_batches(self):
        expected = plain_training(plain_network(network()), regression_loader(), torch.optim.SGD, range(3 * BATCHES))
        self.assert_close(self.trained(hparams("3ep")), expected)

    def test_class_labels_are_trained_with_cross_entropy(self):
        cross_entropy = nn.functional.cross_entropy
        expected = plain_training(plain_network(network()), class_loader(), torch.optim.SGD, range(6), loss=cross_entropy)
        self.assert_close(self.trained(hparams("2ep"), loader=class_loader()), expected)

    def test_training_can_end_within_an_epoch(self):
        expected = plain_training(plain_network(network()), regression_loader(), torch.optim.SGD, range(5))
        for steps in ("5it", "1ep2it"):
            self.assert_close(self.trained(hparams(steps)), expected)

    def test_part_of_a_run_uses_the_batches_of_those_iterations(self):
        expected = plain_training(plain_network(network()), regression_loader(), torch.optim.SGD, range(4, 8))
        ours = self.trained(hparams("3ep"), start=Step(4, BATCHES), end=Step(8, BATCHES))
        self.assert_close(ours, expected)

    def test_consecutive_parts_equal_the_whole_run(self):
        model, middle = network(), Step(4, BATCHES)
        train(hparams("3ep"), model, regression_loader(), self.folder(), Plan(end=middle))
        train(hparams("3ep"), model, regression_loader(), self.folder(), Plan(start=middle))
        self.assertTrue(torch.equal(weights(model), self.trained(hparams("3ep"))))

    def test_the_last_step_is_returned(self):
        self.assertEqual(train(hparams("7it"), network(), regression_loader(), self.folder()), Step(7, BATCHES))

    def test_the_model_has_the_precision_of_the_hyperparameters(self):
        model = network()
        loader = regression_loader()
        train(hparams("1it", precision="float32"), model, DataLoader(loader.dataset, 8), self.folder())
        self.assertEqual(model.fc.weight.dtype, torch.float32)

    def test_another_data_order_gives_other_weights(self):
        self.assertFalse(torch.equal(self.trained(hparams()), self.trained(hparams(), loader=regression_loader(seed=5))))

    def test_the_result_does_not_depend_on_the_global_random_state(self):
        first = self.trained(hparams())
        torch.manual_seed(12345)
        self.assertTrue(torch.equal(self.trained(hparams()), first))

    def test_the_model_is_in_training_mode_for_every_update(self):
        model = network()
        modes = []
        model.register_forward_hook(lambda module, inputs, outputs: modes.append(module.training))
        train(hparams("1ep"), model, regression_loader(), self.folder(), Plan([lambda location, step, model, *_: model.eval()]))
        self.assertEqual(modes, [True] * BATCHES)

    def test_no_epoch_starts_after_the_last_step(self):
        begun = []

        class Loader(DataLoader):
            def epoch(self, epoch: int, start: int = 0):
                begun.append((epoch, start))
                return super().epoch(epoch, start)

        for steps, epochs in (("2ep", [(0, 0), (1, 0)]), ("1ep2it", [(0, 0), (1, 0)]), ("3it", [(0, 0)])):
            begun.clear()
            self.trained(hparams(steps), loader=Loader(regression_loader().dataset, 8, dtype=torch.float64))
            self.assertEqual(begun, epochs)

    def test_no_step_reads_a_value_from_the_device(self):
        """A long epoch reads as many values from tensors as a short one. On a GPU every read waits for all earlier work."""
        readers = ("item", "tolist", "cpu", "numpy", "__float__", "__int__", "__bool__")
        reads = []
        for count in (22, 220):
            loader, seen = class_loader(count), []
            with contextlib.ExitStack() as stack:
                for name in readers:
                    read = getattr(torch.Tensor, name)
                    patched = functools.wraps(read)(lambda *a, read=read, seen=seen, **k: seen.append(read) or read(*a, **k))
                    stack.enter_context(mock.patch.object(torch.Tensor, name, patched))
                standard_train(hparams("1ep", plateau_opt=True), network(), (loader, loader), self.folder(), StandardPlan(verbose=False))
            reads.append(len(seen))
        self.assertGreater(reads[0], 0)
        self.assertEqual(reads[0], reads[1])


class StopRuleTest(TrainTestCase):
    def test_training_ends_with_the_update_after_a_rule_is_met(self):
        for met in range(2 * BATCHES):
            rules = [lambda *_: False, lambda step, model, logger, met=met: step.iteration == met]
            model = network()
            end = train(hparams("3ep"), model, regression_loader(), self.folder(), Plan(stop_when=rules))
            self.assertEqual((end.iteration, end.last), (met + 1, True))
            self.assertTrue(torch.equal(weights(model), self.trained(hparams(f"{met + 1}it"))))

    def test_a_rule_gets_the_model_before_the_update_and_the_log(self):
        seen = []

        def note(location, step, model, optimizer, logger):
            logger.add("noted", step, step.iteration)

        def see(step, model, logger):
            seen.append((logger.latest("noted"), weights(model)))
            return False

        self.trained(hparams("4it"), note, stop_when=[see])
        self.assertEqual([noted for noted, _ in seen], [0, 1, 2, 3])
        for iteration, before in seen:
            expected = plain_training(plain_network(network()), regression_loader(), torch.optim.SGD, range(iteration))
            self.assert_close(before, expected)

    def test_further_training_continues_from_the_end_by_a_rule(self):
        plan = Plan(stop_when=[lambda step, model, logger: step.iteration == 4])
        end = train(hparams("3ep", extra_training="2it"), network(), regression_loader(), self.folder(), plan)
        self.assertEqual(end.iteration, 7)


class CallbackTest(TrainTestCase):
    def setUp(self):
        super().setUp()
        self.calls = []

    def note(self, location, step, model, optimizer, logger):
        self.calls.append((step, weights(model)))

    def test_callbacks_run_before_every_update_and_after_the_last(self):
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

    def test_part_of_a_run_calls_callbacks_from_its_start_to_its_end(self):
        self.trained(hparams("9ep"), self.note, start=Step(2, BATCHES), end=Step(5, BATCHES))
        self.assertEqual([(step.iteration, step.last) for step, _ in self.calls], [(2, False), (3, False), (4, False), (5, True)])

    def test_steps_count_epochs_of_the_loader(self):
        self.trained(hparams("4it"), self.note)
        self.assertEqual([str(step) for step, _ in self.calls], ["ep0_it0", "ep0_it1", "ep0_it2", "ep1_it0", "ep1_it1"])

    def test_callbacks_run_in_order_with_the_folder_and_one_log(self):
        seen = []
        folder = self.folder()
        callbacks = [lambda location, step, model, optimizer, logger, name=name: seen.append((name, location, logger)) for name in "ab"]
        train(hparams("1it"), network(), regression_loader(), folder, Plan(callbacks))
        self.assertEqual([(name, location) for name, location, _ in seen], [("a", folder), ("b", folder)] * 2)
        self.assertEqual(len({id(logger) for *_, logger in seen}), 1)

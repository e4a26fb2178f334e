"""Evaluation in batches against evaluation of the whole set at once."""

from unittest import mock

import torch
from torch import nn

from datasets import cifar10
from datasets.base import DataLoader
from testing.test_case import TestCase
from testing.toy_model import ToyModel
from training import evaluation
from training.evaluation import evaluate
from training.test.test_train import class_loader, network, regression_loader


class EvaluationTest(TestCase):
    def test_the_loss_over_unequal_batches_equals_that_of_the_whole_set(self):
        for loader, loss in ((regression_loader(), nn.functional.mse_loss), (class_loader(), nn.functional.cross_entropy)):
            model = network().to(loader.examples.device)
            whole = loss(model(loader.examples), loader.labels).item()
            self.assertAlmostEqual(evaluate(model, loader)["loss"], whole, places=13)

    def test_the_accuracy_is_the_fraction_of_the_whole_set(self):
        loader = class_loader()
        model = network().to(loader.examples.device)
        right = sum(int(outputs.argmax()) == label for outputs, label in zip(model(loader.examples), loader.labels.tolist(), strict=True))
        self.assertNotIn(right, (0, 22))
        self.assertAlmostEqual(evaluate(model, loader)["accuracy"], right / 22, places=14)

    def test_the_result_does_not_depend_on_the_batch_size(self):
        for loader in (regression_loader(), class_loader()):
            model = network().to(loader.examples.device)
            results = [evaluate(model, DataLoader(loader.dataset, size, dtype=torch.float64)) for size in (1, 5, 22, 100)]
            for result in results[1:]:
                for name, value in result.items():
                    self.assertAlmostEqual(value, results[0][name], places=13)

    def test_batches_are_larger_than_in_training_except_for_convolutions_on_a_cpu(self):
        images = DataLoader(cifar10.Dataset(torch.randn(22, 3, 32, 32), torch.arange(22) % 10), 8)
        for loader, model, sizes in (
            (class_loader(), network(), [22]),
            (DataLoader(class_loader().dataset, 8), network("students_mlp(3)_4_5_2").float(), [22]),
            (images, network("cifar_resnet_8_4").float(), [8, 8, 6]),
        ):
            seen = []
            model.register_forward_hook(lambda module, inputs, outputs, seen=seen: seen.append(len(inputs[0])))
            evaluate(model, loader)
            self.assertEqual(seen, sizes)

    def test_real_valued_targets_have_no_accuracy(self):
        loader = regression_loader()
        self.assertEqual(set(evaluate(network().to(loader.examples.device), loader)), {"loss"})

    def test_students_have_individual_losses_and_their_means(self):
        for loader, loss in ((regression_loader(), nn.functional.mse_loss), (class_loader(), nn.functional.cross_entropy)):
            stack = network("students_mlp(3)_4_5_2").to(loader.examples.device)
            results = evaluate(stack, loader)
            alone = [loss(outputs, loader.labels).item() for outputs in stack(loader.examples)]
            torch.testing.assert_close(results["individual_losses"], alone, rtol=1e-12, atol=0)
            self.assertAlmostEqual(results["loss"], sum(alone) / 3, places=13)

    def test_the_accuracy_of_a_stack_is_the_mean_over_students(self):
        loader = class_loader()
        stack = network("students_mlp(3)_4_5_2").to(loader.examples.device)
        alone = [evaluate(stack.select(i), loader)["accuracy"] for i in range(3)]
        self.assertAlmostEqual(evaluate(stack, loader)["accuracy"], sum(alone) / 3, places=13)

    def test_the_model_is_in_evaluation_mode_without_gradients(self):
        loader = regression_loader()
        model = ToyModel(4, 2).double().to(loader.examples.device)
        seen = []
        model.register_forward_hook(lambda module, inputs, outputs: seen.append((module.training, outputs.requires_grad)))
        evaluate(model.train(), loader)
        self.assertEqual(set(seen), {(False, False)})

    def test_values_are_python_numbers_in_double_precision(self):
        loader = DataLoader(regression_loader().dataset, 8)
        model = network().float().to(loader.examples.device)
        with mock.patch.object(evaluation, "MIN_BATCH", 1):
            result = evaluate(model, loader)["loss"]
        batches = [(nn.functional.mse_loss(model(examples), labels).double().item(), len(labels)) for examples, labels in loader]
        self.assertIsInstance(result, float)
        self.assertAlmostEqual(result, sum(value * count for value, count in batches) / 22, places=15)

"""Pruned models: pruned weights stay zero in every optimizer, and everything else is as in the inner model."""

from __future__ import annotations

import copy
import os
from unittest import mock

import numpy as np
import torch
from torch import nn

from datasets.base import DataLoader
from foundations import paths
from foundations.errors import ConfigError
from foundations.step import Step
from models import base, registry
from pruning.mask import Mask
from pruning.pruned_model import PrunedModel
from testing.test_case import TestCase
from testing.toy_model import ToyModel
from training import second_order
from training.evaluation import evaluate
from training.plan import Plan, StandardPlan
from training.test.test_train import class_loader, hparams, network, regression_loader
from training.train import Objective, standard_train, train

STUDENTS = "students_mlp(3)_4_6_5_2"
OPTIMIZERS = {
    "sgd": ("sgd", 0.1, {"weight_decay": 0.1}),
    "momentum": ("sgd", 0.1, {"momentum": 0.9, "weight_decay": 0.1}),
    "nesterov": ("sgd", 0.1, {"nesterov_momentum": 0.9, "weight_decay": 0.1}),
    "adam": ("adam", 0.05, {"weight_decay": 0.1}),
    "nadam": ("nadam", 0.05, {"weight_decay": 0.1}),
    "lbfgs": ("lbfgs", 1.0, {}),
    "levenberg_marquardt": ("levenberg_marquardt", 1.0, {}),
}


def half(model: base.Model, seed: int = 0) -> Mask:
    """A random half of the weights, other ones in each student of a stack."""
    generator = torch.Generator().manual_seed(seed)
    return Mask({name: torch.rand(left.shape, generator=generator) < 0.5 for name, left in Mask.ones_like(model).items()})


def pruned(model_name: str = "mlp_4_6_5_2", **options) -> PrunedModel:
    model = network(model_name, **options)
    return PrunedModel(model, half(model))


def gone(model: PrunedModel) -> torch.Tensor:
    """The pruned weights, as one vector."""
    state = model.state_dict()
    return torch.cat([state[name].cpu()[~left] for name, left in model.mask.items()])


class TestZeros(TestCase):
    def assert_zero_and_the_rest_moved(self, model: PrunedModel, before: dict[str, torch.Tensor]):
        self.assertTrue((gone(model) == 0).all())
        for name, left in model.mask.items():
            self.assertTrue((model.state_dict()[name] != before[name])[left].any(), name)

    def test_pruned_weights_are_zero_and_others_unchanged(self):
        model = network()
        before = copy.deepcopy(model.state_dict())
        for name, values in PrunedModel(model, half(model)).state_dict().items():
            left = half(model).get(name, torch.ones_like(values))
            self.assertTrue(torch.equal(values, before[name] * left))

    def test_pruned_weights_stay_zero_in_every_optimizer(self):
        for label, (optimizer, lr, options) in OPTIMIZERS.items():
            for model_name in ("mlp_4_6_5_2", STUDENTS):
                with self.subTest(optimizer=label, model=model_name):
                    model = pruned(model_name)
                    before = copy.deepcopy(model.state_dict())
                    train(hparams("7it", optimizer, lr, **options), model, regression_loader(), f"{self.root}/{label}/{model_name}")
                    self.assert_zero_and_the_rest_moved(model, before)

    def test_pruned_weights_stay_zero_with_jacobian_products(self):
        with mock.patch.object(second_order, "DENSE_PARAMETERS", 0):
            model = pruned(STUDENTS)
            before = copy.deepcopy(model.state_dict())
            train(hparams("3it", "levenberg_marquardt", 1.0), model, regression_loader(), self.root)
        self.assert_zero_and_the_rest_moved(model, before)

    def test_pruned_weights_stay_zero_with_classes_in_float32(self):
        model = PrunedModel(network().float(), half(network()))
        train(hparams("5it", "adam", 0.05, precision="float32"), model, DataLoader(class_loader().dataset, 8), self.root)
        self.assertTrue((gone(model) == 0).all())

    def test_pruned_weights_stay_zero_after_a_change_of_dtype(self):
        model = PrunedModel(network().float(), half(network())).double()
        train(hparams("2it"), model, regression_loader(), self.root)
        self.assertEqual((gone(model).dtype, gone(model).abs().max().item()), (torch.float64, 0.0))

    def test_pruned_weights_of_a_copy_stay_zero(self):
        original = pruned()
        model = copy.deepcopy(original)
        train(hparams("2it"), model, regression_loader(), self.root)
        self.assertTrue((gone(model) == 0).all())
        self.assertTrue(torch.equal(original.fc.weight, pruned().fc.weight))
        self.assertFalse(torch.equal(original.fc.weight, model.fc.weight))

    def test_pruned_weights_of_frozen_layers_stay_zero(self):
        inner = network()
        inner.fc.requires_grad_(False)
        model = PrunedModel(inner, half(inner))
        self.assertFalse(inner.fc.weight.requires_grad)
        model.requires_grad_(True)
        train(hparams("2it"), model, regression_loader(), self.root)
        self.assertTrue((gone(model) == 0).all())

    def test_pruned_weights_stay_zero_if_gradients_are_nan(self):
        model = pruned()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        (model(torch.full((1, 4), torch.inf, dtype=torch.float64)).sum() * torch.nan).backward()
        optimizer.step()
        self.assertTrue((gone(model) == 0).all())
        self.assertTrue(model.fc.weight.isnan().any())


class TestTraining(TestCase):
    def test_training_equals_resetting_pruned_weights_after_every_step(self):
        for label in ("momentum", "nadam"):
            optimizer, lr, options = OPTIMIZERS[label]
            model, plain = pruned(), network("mlp_4_6_5_2")
            plain.load_state_dict(model.state_dict())

            def set_back(location, step, plain, optimizer, logger, mask=model.mask):
                for name, left in mask.items():
                    plain.state_dict()[name].mul_(left)

            train(hparams("9it", optimizer, lr, **options), model, regression_loader(), f"{self.root}/{label}")
            train(hparams("9it", optimizer, lr, **options), plain, regression_loader(), f"{self.root}/{label}_plain", Plan([set_back]))
            for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)

    def test_levenberg_marquardt_solves_for_the_remaining_weights(self):
        """A linear network makes linear least squares: of the inputs that are left, for each output."""
        loader = regression_loader()
        examples, labels = loader.examples, loader.labels
        for dense_parameters in (second_order.DENSE_PARAMETERS, 0):
            inner = ToyModel(4, 2).double()
            model = PrunedModel(inner, Mask({"fc.weight": torch.tensor([[1, 0, 1, 1], [0, 1, 0, 1]])}))
            optimizer = second_order.LevenbergMarquardt(model)
            with mock.patch.object(second_order, "DENSE_PARAMETERS", dense_parameters):
                for _ in range(20):
                    optimizer.step(Objective(model, examples, labels))
            for output, left in enumerate(model.mask["fc.weight"]):
                design = np.column_stack([examples[:, left].numpy(), np.ones(len(examples))])
                solution = torch.from_numpy(np.linalg.lstsq(design, labels[:, output].numpy(), rcond=None)[0])
                torch.testing.assert_close(inner.fc.weight[output, left].detach(), solution[:-1], rtol=0, atol=1e-7)
                self.assertAlmostEqual(inner.fc.bias[output].item(), solution[-1].item(), places=7)

    def test_a_student_trains_as_it_does_alone(self):
        for label in ("adam", "lbfgs", "levenberg_marquardt"):
            optimizer, lr, options = OPTIMIZERS[label]
            stack = pruned(STUDENTS)
            alone = [stack.select(i) for i in range(3)]
            train(hparams("4it", optimizer, lr, **options), stack, regression_loader(), f"{self.root}/{label}")
            for i, student in enumerate(alone):
                train(hparams("4it", optimizer, lr, **options), student, regression_loader(), f"{self.root}/{label}_{i}")
                for ours, whole in zip(student.parameters(), stack.parameters(), strict=True):
                    torch.testing.assert_close(ours[0], whole[i], rtol=1e-6, atol=1e-8)


class TestInnerModel(TestCase):
    def test_outputs_are_those_of_the_inner_model_without_pruned_weights(self):
        inner = network()
        x = regression_loader().examples
        model, plain = PrunedModel(inner, half(inner)), network()  # two with the same weights
        for name, left in half(inner).items():
            plain.state_dict()[name].mul_(left)
        self.assertTrue(torch.equal(model(x), plain(x)))

    def test_names_are_the_inner_models(self):
        model, inner = pruned(), network("mlp_4_6_5_2")
        self.assertEqual(list(model.state_dict()), list(inner.state_dict()))
        self.assertEqual([name for name, _ in model.named_parameters()], [name for name, _ in inner.named_parameters()])
        self.assertEqual(model.prunable_layer_names, inner.prunable_layer_names)
        self.assertEqual(model.output_layer_names, inner.output_layer_names)
        self.assertEqual((model.input_size, model.channels, model.sizes), (4, None, [4, 6, 5, 2]))

    def test_a_pruned_convolutional_network_takes_images(self):
        inner = registry.get(registry.get_default_hparams("cifar_resnet_8").model_hparams)
        self.assertEqual(PrunedModel(inner, half(inner)).channels, 3)

    def test_only_a_pruned_stack_has_the_attributes_of_a_stack(self):
        self.assertFalse(hasattr(pruned(), "individual_losses") or hasattr(pruned(), "networks"))
        stack, loader = pruned(STUDENTS), regression_loader()
        self.assertEqual(stack.networks, 3)
        results = evaluate(stack, loader)
        for i in range(3):
            self.assertAlmostEqual(evaluate(stack.select(i), loader)["loss"], results["individual_losses"][i], places=12)

    def test_a_mask_of_another_model_is_refused(self):
        with self.assertRaisesRegex(ConfigError, r"fc\.weight"):
            PrunedModel(ToyModel(3, 2), Mask.ones_like(ToyModel(2, 2)))


class TestFiles(TestCase):
    def test_saved_weights_fit_the_inner_model(self):
        model, plain = pruned(), network("mlp_4_6_5_2")
        model.save(self.root, Step(1, 1))
        registry.load_weights(paths.model(self.root, Step(1, 1)), plain)
        for name, values in model.state_dict().items():
            self.assertTrue(torch.equal(plain.state_dict()[name], values))

    def test_loaded_weights_are_pruned(self):
        dense, model = network("mlp_4_6_5_2"), pruned()
        nn.init.constant_(dense.fc.weight, 3.0)
        dense.save(self.root, Step(1, 1))
        registry.load_weights(paths.model(self.root, Step(1, 1)), model)
        self.assertTrue(torch.equal(model.fc.weight, 3.0 * model.mask["fc.weight"]))

    def test_a_killed_run_resumes_bit_for_bit_and_a_finished_run_does_not_train(self):
        def kill(location, step, *rest):
            if step.iteration == 4:
                raise KeyboardInterrupt

        setting = hparams("7it", "adam", 0.05, weight_decay=0.1)
        loader = regression_loader()
        with mock.patch("training.train.CHECKPOINT_SECONDS", 0):
            expected, model = pruned(), pruned()
            standard_train(setting, expected, (loader, loader), f"{self.root}/whole", StandardPlan(verbose=False))
            with self.assertRaises(KeyboardInterrupt):
                standard_train(setting, model, (loader, loader), f"{self.root}/killed", StandardPlan([kill], verbose=False))
            self.assertTrue(os.path.exists(paths.checkpoint(f"{self.root}/killed")))
            for _ in range(2):
                resumed = pruned()
                standard_train(setting, resumed, (loader, loader), f"{self.root}/killed", StandardPlan(verbose=False))
                for ours, theirs in zip(resumed.parameters(), expected.parameters(), strict=True):
                    self.assertTrue(torch.equal(ours, theirs))

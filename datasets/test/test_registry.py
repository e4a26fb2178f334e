"""The table of datasets, and building loaders."""

import torch

from datasets import registry
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError
from foundations.training_hparams import TrainingHparams
from testing import toy_teacher
from testing.test_case import TestCase


def training(**changes) -> TrainingHparams:
    return TrainingHparams("sgd", 0.1, "1ep", **changes)


def labels_of_epoch(loader) -> list[int]:
    return torch.cat([labels for _, labels in loader.epoch(0)]).tolist()


class RegistryTest(TestCase):
    hparams = DatasetHparams("digits", batch_size=200)

    def test_the_error_for_an_unknown_dataset_suggests_the_nearest_name(self):
        with self.assertRaisesRegex(ConfigError, "--dataset_name: 'digit' is not known, did you mean 'digits'.*mnist"):
            registry.check(DatasetHparams("digit", 10))

    def test_every_registered_dataset_passes_and_is_listed_in_help(self):
        for name in ("digits", "mnist", "fashion_mnist", "cifar10", "imagenet", "teacher"):
            registry.check(DatasetHparams(name, 10))
            self.assertIn(name, registry.choices()["dataset_name"])

    def test_help_lists_image_datasets_and_generators_as_query_policies(self):
        self.assertEqual({"teacher", "imagenet"}, set(registry.registered_datasets) - set(registry.choices()["datagen"]))
        self.assertLess({"random", "uniform", "grid", "biased", "mosaic"}, set(registry.choices()["datagen"]))

    def test_the_shape_is_the_values_of_an_example_and_the_outputs(self):
        self.assertEqual(registry.shape(self.hparams), (64, 10))
        self.assertEqual(registry.shape(DatasetHparams("mnist", 10)), (784, 10))
        self.assertEqual(registry.num_classes(self.hparams), 10)

    def test_the_shape_of_the_dataset_teacher_is_that_of_the_teacher(self):
        name, _ = toy_teacher.make("mlp_3_4_2")
        self.assertEqual(registry.shape(DatasetHparams("teacher", 8, name, 0, "random:20")), (3, 2))

    def test_a_loader_has_the_batch_size_and_the_split(self):
        self.assertEqual(len(registry.get(self.hparams, train=True)), 8)
        self.assertEqual(len(registry.get(self.hparams, train=False)), 2)

    def test_the_seed_determines_the_order(self):
        orders = [labels_of_epoch(registry.get(self.hparams, seed=seed)) for seed in (1, 1, 2)]
        self.assertEqual(orders[0], orders[1])
        self.assertNotEqual(orders[0], orders[2])

    def test_both_loaders_have_the_precision_of_training(self):
        for precision, dtype in (("float32", torch.float32), ("float64", torch.float64)):
            for loader in registry.get_both(self.hparams, training(precision=precision), seed=0):
                self.assertEqual(loader.examples.dtype, dtype)

    def test_both_loaders_are_the_training_and_the_test_set(self):
        train, test = registry.get_both(self.hparams, training(), seed=0)
        self.assertEqual((len(train.dataset), len(test.dataset)), (1437, 360))

    def test_a_data_order_seed_replaces_the_seed_of_the_run_for_the_order(self):
        for data_order_seed in (0, 7):
            loaders = [registry.get_both(self.hparams, training(data_order_seed=data_order_seed), seed=seed)[0] for seed in (1, 2)]
            for epoch in (0, 3):
                expected = torch.randperm(1437, generator=torch.Generator().manual_seed(data_order_seed + epoch))
                for loader in loaders:
                    self.assertTrue(torch.equal(loader.order(epoch), expected))

    def test_a_data_order_seed_does_not_change_the_queries(self):
        name, _ = toy_teacher.make("mlp_3_4_2")
        hparams = DatasetHparams("teacher", 8, name, 0, "random:20")
        own, chosen = (registry.get_both(hparams, training(data_order_seed=seed), seed=1) for seed in (None, 7))
        for ours, theirs in zip(own, chosen, strict=True):
            self.assertTrue(torch.equal(ours.examples, theirs.examples))

"""Loaders: batches depend on the seed and the epoch only."""

import torch

from datasets import base, digits
from testing.test_case import TestCase

EXAMPLES, BATCH_SIZE = 11, 4


class LoaderTest(TestCase):
    def setUp(self):
        super().setUp()
        self.dataset = digits.Dataset(10 * torch.arange(float(EXAMPLES))[:, None], torch.arange(EXAMPLES))
        self.loader = base.DataLoader(self.dataset, BATCH_SIZE, seed=3)

    def order(self, epoch: int = 0, start: int = 0, seed: int = 3) -> list[int]:
        loader = base.DataLoader(self.dataset, BATCH_SIZE, seed)
        return [label for _, labels in loader.epoch(epoch, start) for label in labels.tolist()]

    def test_an_epoch_contains_every_example_exactly_once(self):
        for epoch in range(5):
            self.assertEqual(sorted(self.order(epoch)), list(range(EXAMPLES)))

    def test_an_epoch_is_shuffled(self):
        self.assertNotEqual(self.order(), list(range(EXAMPLES)))

    def test_examples_stay_with_their_labels(self):
        for examples, labels in self.loader.epoch(2):
            self.assertEqual(examples[:, 0].tolist(), (10 * labels).tolist())

    def test_the_order_depends_on_seed_and_epoch_only(self):
        first = self.order(epoch=4)
        torch.rand(7)
        list(self.loader.epoch(1))
        self.assertEqual(self.order(epoch=4), first)

    def test_another_epoch_has_another_order(self):
        self.assertEqual(len({tuple(self.order(epoch)) for epoch in range(6)}), 6)

    def test_another_seed_has_another_order(self):
        self.assertEqual(len({tuple(self.order(seed=seed)) for seed in range(6)}), 6)

    def test_epochs_of_neighbouring_seeds_do_not_repeat_each_other(self):
        self.assertEqual(len({tuple(self.order(epoch, seed=seed)) for epoch in range(4) for seed in range(4)}), 16)

    def test_an_epoch_resumed_in_the_middle_is_the_rest_of_the_epoch(self):
        for start in range(len(self.loader) + 1):
            self.assertEqual(self.order(epoch=1, start=start), self.order(epoch=1)[start * BATCH_SIZE :])

    def test_the_last_batch_can_be_smaller_and_is_counted(self):
        self.assertEqual([len(labels) for _, labels in self.loader.epoch(0)], [4, 4, 3])
        self.assertEqual(len(self.loader), 3)

    def test_an_even_division_leaves_no_empty_batch(self):
        loader = base.DataLoader(digits.Dataset(torch.zeros(8, 1), torch.zeros(8)), 4)
        self.assertEqual([len(labels) for _, labels in loader.epoch(0)], [4, 4])
        self.assertEqual(len(loader), 2)

    def test_shards_add_up_to_the_batches_and_return_their_fractions(self):
        passes = (lambda loader: loader.epoch(1)), (lambda loader: loader.in_order(BATCH_SIZE))
        for count in (1, 2, 5):
            loaders = [self.loader.sharded(index, count) for index in range(count)]
            for batches in passes:
                whole, *shards = [[labels.tolist() for _, labels in batches(loader)] for loader in (self.loader, *loaders)]
                self.assertEqual([sum(batch, []) for batch in zip(*shards, strict=True)], whole)
                for it, batch in enumerate(zip(*shards, strict=True)):
                    self.assertEqual([loader.shard_fraction(it) for loader in loaders], [len(labels) / len(whole[it]) for labels in batch])
        everything = base.DataLoader(self.dataset, EXAMPLES).sharded(1, 2)
        self.assertEqual([labels.tolist() for _, labels in everything.epoch(0)], [[6, 7, 8, 9, 10]])

    def test_a_batch_of_the_complete_dataset_is_not_shuffled(self):
        for batch_size in (EXAMPLES, EXAMPLES + 1):
            loader = base.DataLoader(self.dataset, batch_size)
            (examples, labels), *more = loader.epoch(3)
            self.assertEqual((labels.tolist(), more), (list(range(EXAMPLES)), []))
            self.assertIs(examples, loader.examples)
            self.assertEqual(list(loader.epoch(3, start=1)), [])

    def test_evaluation_follows_the_order_of_the_dataset(self):
        self.assertEqual(torch.cat([labels for _, labels in self.loader]).tolist(), list(range(EXAMPLES)))
        self.assertEqual([len(labels) for _, labels in self.loader], [4, 4, 3])

    def test_loading_does_not_change_the_global_random_state(self):
        before = torch.get_rng_state()
        self.order()
        self.assertTrue(torch.equal(torch.get_rng_state(), before))

    def test_examples_are_converted_to_the_precision_and_classes_stay_integers(self):
        examples, labels = next(base.DataLoader(self.dataset, BATCH_SIZE, dtype=torch.float64).epoch(0))
        self.assertEqual((examples.dtype, labels.dtype), (torch.float64, torch.int64))

    def test_real_valued_targets_are_converted_to_the_precision(self):
        dataset = digits.Dataset(torch.zeros(2, 1), torch.zeros(2, 3, dtype=torch.float64))
        for dtype in (torch.float32, torch.float64):
            _, targets = next(iter(base.DataLoader(dataset, 2, dtype=dtype)))
            self.assertEqual(targets.dtype, dtype)


class DatasetTest(TestCase):
    def test_an_item_is_an_example_with_its_label(self):
        dataset = digits.Dataset(torch.tensor([[1.0], [2.0]]), torch.tensor([7, 8]))
        self.assertEqual([(example.item(), label.item()) for example, label in (dataset[0], dataset[1])], [(1.0, 7), (2.0, 8)])
        self.assertEqual(len(dataset), 2)

    def test_different_numbers_of_examples_and_labels_are_refused(self):
        with self.assertRaisesRegex(ValueError, "3 examples but 2 labels"):
            digits.Dataset(torch.zeros(3, 1), torch.zeros(2))

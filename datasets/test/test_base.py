"""The loader: a pure function of its seed and the epoch."""

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

    def test_an_epoch_shows_every_example_exactly_once(self):
        for epoch in range(5):
            self.assertEqual(sorted(self.order(epoch)), list(range(EXAMPLES)))

    def test_an_epoch_is_shuffled(self):
        self.assertNotEqual(self.order(), list(range(EXAMPLES)))

    def test_examples_stay_with_their_labels(self):
        for examples, labels in self.loader.epoch(2):
            self.assertEqual(examples[:, 0].tolist(), (10 * labels).tolist())

    def test_the_order_follows_from_seed_and_epoch_alone(self):
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

    def test_an_epoch_resumed_in_the_middle_is_the_tail_of_the_whole(self):
        for start in range(len(self.loader) + 1):
            self.assertEqual(self.order(epoch=1, start=start), self.order(epoch=1)[start * BATCH_SIZE :])

    def test_the_last_batch_may_be_smaller_and_counts(self):
        self.assertEqual([len(labels) for _, labels in self.loader.epoch(0)], [4, 4, 3])
        self.assertEqual(len(self.loader), 3)

    def test_an_even_division_leaves_no_empty_batch(self):
        loader = base.DataLoader(digits.Dataset(torch.zeros(8, 1), torch.zeros(8)), 4)
        self.assertEqual([len(labels) for _, labels in loader.epoch(0)], [4, 4])
        self.assertEqual(len(loader), 2)

    def test_the_parts_of_divided_batches_are_the_batches_and_say_how_much_of_them_they_are(self):
        passes = (lambda loader: loader.epoch(1)), (lambda loader: loader.in_order(BATCH_SIZE))
        for count in (1, 2, 5):
            parts = [self.loader.sharded(number, count) for number in range(count)]
            for batches in passes:
                whole, *found = [[labels.tolist() for _, labels in batches(loader)] for loader in (self.loader, *parts)]
                self.assertEqual([sum(batch, []) for batch in zip(*found, strict=True)], whole)
                for it, batch in enumerate(zip(*found, strict=True)):
                    self.assertEqual([loader.shard_fraction(it) for loader in parts], [len(labels) / len(whole[it]) for labels in batch])
        everything = base.DataLoader(self.dataset, EXAMPLES).sharded(1, 2)
        self.assertEqual([labels.tolist() for _, labels in everything.epoch(0)], [[6, 7, 8, 9, 10]])

    def test_a_batch_of_everything_is_the_dataset_as_it_stands(self):
        for batch_size in (EXAMPLES, EXAMPLES + 1):
            loader = base.DataLoader(self.dataset, batch_size)
            (examples, labels), *more = loader.epoch(3)
            self.assertEqual((labels.tolist(), more), (list(range(EXAMPLES)), []))
            self.assertIs(examples, loader.examples)
            self.assertEqual(list(loader.epoch(3, start=1)), [])

    def test_evaluation_goes_in_the_order_of_the_dataset(self):
        self.assertEqual(torch.cat([labels for _, labels in self.loader]).tolist(), list(range(EXAMPLES)))
        self.assertEqual([len(labels) for _, labels in self.loader], [4, 4, 3])

    def test_loading_leaves_the_global_random_state_alone(self):
        before = torch.get_rng_state()
        self.order()
        self.assertTrue(torch.equal(torch.get_rng_state(), before))

    def test_examples_take_the_precision_asked_for_and_classes_stay_whole_numbers(self):
        examples, labels = next(base.DataLoader(self.dataset, BATCH_SIZE, dtype=torch.float64).epoch(0))
        self.assertEqual((examples.dtype, labels.dtype), (torch.float64, torch.int64))

    def test_real_valued_targets_take_the_precision_asked_for(self):
        dataset = digits.Dataset(torch.zeros(2, 1), torch.zeros(2, 3, dtype=torch.float64))
        for dtype in (torch.float32, torch.float64):
            _, targets = next(iter(base.DataLoader(dataset, 2, dtype=dtype)))
            self.assertEqual(targets.dtype, dtype)


class DatasetTest(TestCase):
    def test_an_item_is_an_example_with_its_label(self):
        dataset = digits.Dataset(torch.tensor([[1.0], [2.0]]), torch.tensor([7, 8]))
        self.assertEqual([(example.item(), label.item()) for example, label in (dataset[0], dataset[1])], [(1.0, 7), (2.0, 8)])
        self.assertEqual(len(dataset), 2)

    def test_there_must_be_as_many_labels_as_examples(self):
        with self.assertRaisesRegex(ValueError, "3 examples but 2 labels"):
            digits.Dataset(torch.zeros(3, 1), torch.zeros(2))

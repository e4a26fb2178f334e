"""Queries that are images."""

import torch

from datasets import digits
from datasets.datagen.images import Images
from testing.test_case import TestCase


def make(count: int | None, train: bool = True, seed: int = 0) -> torch.Tensor:
    return Images(digits.Dataset).generate(count, train, 64, torch.Generator().manual_seed(seed))


class ImagesTest(TestCase):
    def test_without_a_count_the_queries_are_the_training_set_in_its_order(self):
        images, _ = digits.Dataset.load(train=True)
        self.assertTrue(torch.equal(make(None), images.view(-1, 64)))

    def test_test_queries_are_the_test_set_for_every_count(self):
        images, _ = digits.Dataset.load(train=False)
        for count in (None, 10):
            self.assertTrue(torch.equal(make(count, train=False), images.view(-1, 64)))

    def test_a_count_draws_from_the_training_set_without_replacement(self):
        known = {tuple(image) for image in make(None).tolist()}
        drawn = [tuple(image) for image in make(300).tolist()]
        self.assertEqual(len(set(drawn)), 300)
        self.assertLess(set(drawn), known)

    def test_another_seed_draws_other_images(self):
        self.assertFalse(torch.equal(make(20), make(20, seed=1)))

    def test_the_size_is_the_number_of_training_images(self):
        self.assertEqual(Images(digits.Dataset).size(), 1437)

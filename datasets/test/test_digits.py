"""The digits: their images, split and scale."""

import sklearn.datasets
import torch

from datasets import registry
from foundations.dataset_hparams import DatasetHparams
from testing.test_case import TestCase


class DigitsTest(TestCase):
    @classmethod
    def setUpClass(cls):
        hparams = DatasetHparams("digits", batch_size=100)
        cls.train, cls.test = (registry.get(hparams, train).dataset for train in (True, False))

    def pixels(self, dataset) -> torch.Tensor:
        """The images on the scale of scikit-learn, integers from 0 to 16, for any standardisation."""
        images = dataset.examples.flatten(1).double().cpu()
        low, high = (getattr(torch.cat([self.train.examples, self.test.examples]), end)().item() for end in ("min", "max"))
        return (16 * (images - low) / (high - low)).round().long()

    def test_1437_images_are_for_training_and_360_for_test(self):
        self.assertEqual((len(self.train), len(self.test)), (1437, 360))

    def test_both_sets_together_are_all_images_of_scikit_learn_once(self):
        images, labels = sklearn.datasets.load_digits(return_X_y=True)
        theirs = [(*image.astype(int).tolist(), label) for image, label in zip(images, labels.tolist(), strict=True)]
        ours = []
        for part in (self.train, self.test):
            ours += [(*image, label) for image, label in zip(self.pixels(part).tolist(), part.labels.tolist(), strict=True)]
        self.assertEqual(sorted(ours), sorted(theirs))

    def test_images_are_one_channel_of_8_by_8_with_a_class_each(self):
        self.assertEqual(self.train.examples.shape, (1437, 1, 8, 8))
        self.assertEqual(sorted(set(self.train.labels.tolist())), list(range(10)))
        self.assertEqual(sorted(set(self.test.labels.tolist())), list(range(10)))

    def test_training_pixels_are_standardised(self):
        self.assertAlmostEqual(self.train.examples.mean().item(), 0, delta=1e-3)
        self.assertAlmostEqual(self.train.examples.std().item(), 1, delta=1e-3)

    def test_test_pixels_are_on_the_scale_of_the_training_pixels(self):
        self.assertEqual(self.test.examples.min().item(), self.train.examples.min().item())
        self.assertEqual(self.test.examples.max().item(), self.train.examples.max().item())

    def test_the_split_does_not_depend_on_the_seed(self):
        again = registry.get(DatasetHparams("digits", batch_size=100), seed=99).dataset
        self.assertTrue(torch.equal(again.examples, self.train.examples))

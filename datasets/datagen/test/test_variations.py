"""Queries that are modified images."""

import torch

from datasets import digits
from datasets.datagen.variations import Biased, Mosaic
from foundations.errors import ConfigError
from testing.test_case import TestCase


def make(policy: Biased | Mosaic, count: int, train: bool = True, seed: int = 0) -> torch.Tensor:
    return policy.generate(count, train, 64, torch.Generator().manual_seed(seed), "digits")


def vary(policy: Biased | Mosaic, images: torch.Tensor, count: int) -> torch.Tensor:
    return policy.vary(images, count, torch.Generator().manual_seed(0))


def numbered(count: int, channels: int = 1, height: int = 6, width: int = 5) -> torch.Tensor:
    """Images whose pixels all differ: pixel p of image i is i * 1000 + p."""
    pixels = torch.arange(channels * height * width).view(channels, height, width)
    return (1000 * torch.arange(count).view(-1, 1, 1, 1) + pixels).float()


class VariationTest(TestCase):
    policies = Biased(), Mosaic()

    def test_the_count_is_the_number_of_training_queries_and_test_has_a_quarter(self):
        for policy in self.policies:
            self.assertEqual(make(policy, 2001).shape, (2001, 64))
            self.assertEqual(make(policy, 2001, train=False).shape, (501, 64))

    def test_training_and_test_have_no_common_queries(self):
        for policy in self.policies:
            train, test = ({tuple(query) for query in make(policy, 2000, part).tolist()} for part in (True, False))
            self.assertTrue(train.isdisjoint(test))

    def test_all_randomness_comes_from_the_generator(self):
        before = torch.get_rng_state()
        for policy in self.policies:
            self.assertTrue(torch.equal(make(policy, 20), make(policy, 20)))
            self.assertFalse(torch.equal(make(policy, 20), make(policy, 20, seed=1)))
        self.assertTrue(torch.equal(torch.get_rng_state(), before))

    def test_a_teacher_trained_on_images_passes(self):
        for policy in self.policies:
            policy.check("x", 64, "digits")
            policy.check("x", 784, "mnist")

    def test_a_teacher_not_trained_on_images_is_refused(self):
        for policy in self.policies:
            for source in ("teacher", None):
                trained_on = f"the dataset of this teacher is {source or 'unknown'}; valid: .*digits, mnist"
                says = f"--datagen: x needs a teacher that was trained on images; {trained_on}"
                with self.assertRaisesRegex(ConfigError, says):
                    policy.check("x", 64, source)

    def test_a_teacher_with_other_inputs_than_its_images_is_refused(self):
        for policy in self.policies:
            with self.assertRaisesRegex(ConfigError, "--datagen: x generates queries of 64 values; the teacher takes 3"):
                policy.check("x", 3, "digits")


class BiasedTest(TestCase):
    def differences(self, train: bool) -> torch.Tensor:
        """The difference of each query and the image of the same set that is nearest up to a constant: `[n, 64]`."""
        images, queries = digits.Dataset.load(train)[0].flatten(1), make(Biased(), 400, train)
        centred = [values - values.mean(1, keepdim=True) for values in (images, queries)]
        return queries - images[torch.cdist(centred[1], centred[0]).argmin(1)]

    def test_a_query_is_an_image_of_the_same_split_plus_a_constant(self):
        for train in (True, False):
            differences = self.differences(train)
            self.assertLess((differences - differences.mean(1, keepdim=True)).abs().max().item(), 1e-5)

    def test_the_constants_are_standard_normal(self):
        offsets = self.differences(train=True).mean(1)
        self.assertAlmostEqual(offsets.mean().item(), 0, delta=0.2)
        self.assertAlmostEqual(offsets.std().item(), 1, delta=0.15)
        self.assertEqual(len(offsets.unique()), 400)

    def test_all_channels_get_the_same_offset_and_all_images_are_drawn(self):
        queries = vary(Biased(), numbered(3, channels=2), 90)
        differences = queries - numbered(1, channels=2)
        self.assertLess((differences - differences.mean((1, 2, 3), keepdim=True)).abs().max().item(), 1e-3)
        drawn = (differences.mean((1, 2, 3)) / 1000).round()
        self.assertEqual(drawn.unique().tolist(), [0, 1, 2])


class MosaicTest(TestCase):
    def test_every_pixel_equals_a_pixel_of_the_same_split_at_the_same_position(self):
        for train in (True, False):
            images = digits.Dataset.load(train)[0].flatten(1)
            for place, values in enumerate(make(Mosaic(), 400, train).T):
                self.assertTrue(torch.isin(values, images[:, place]).all())

    def sources(self, count: int = 500, channels: int = 1) -> torch.Tensor:
        """The index of the image that each pixel comes from, `[count, channels, 6, 5]`. Asserts that pixels keep their position."""
        mosaics = vary(Mosaic(), numbered(1000, channels).double(), count)
        self.assertTrue(torch.equal(mosaics % 1000, numbered(1, channels).double().expand_as(mosaics)))
        return (mosaics / 1000).floor().long()

    def test_a_mosaic_is_four_rectangles_that_meet_in_a_point(self):
        for (source,) in self.sources():
            down, across = ((source.diff(dim=axis) != 0).any(1 - axis).nonzero().flatten().tolist() for axis in (0, 1))
            self.assertEqual((len(down), len(across)), (1, 1))
            top, left = down[0] + 1, across[0] + 1
            quadrants = source[:top, :left], source[:top, left:], source[top:, :left], source[top:, left:]
            self.assertEqual([len(quadrant.unique()) for quadrant in quadrants], [1] * 4)

    def test_the_quadrants_come_from_different_images(self):
        different = [len(source.unique()) for source in self.sources()]
        self.assertGreater(sum(number == 4 for number in different), 480)

    def test_the_quadrants_meet_at_every_point_within_the_image(self):
        places = {
            tuple(int((source.diff(dim=axis) != 0).any(1 - axis).nonzero().item()) for axis in (0, 1)) for (source,) in self.sources()
        }
        self.assertEqual(places, {(row, column) for row in range(5) for column in range(4)})

    def test_all_channels_of_a_pixel_come_from_one_image(self):
        source = self.sources(channels=3)
        self.assertTrue((source == source[:, :1]).all())

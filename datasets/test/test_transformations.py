"""What transformations do to images and labels, against torchvision, numpy and counts."""

import math

import numpy as np
import torch
import torchvision.transforms.functional as reference
from PIL import Image

from datasets import base, registry, transformations
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError
from testing.test_case import TestCase


def hparams(**changes) -> DatasetHparams:
    return DatasetHparams(**{"dataset_name": "digits", "batch_size": 100} | changes)


def dataset(train: bool = True, seed: int = 0, **changes) -> base.Dataset:
    return registry.get(hparams(**changes), train, seed).dataset


class TaggedImages(base.ImageDataset):
    """Images whose red is the number of the image plus one, and whose green and blue are the row and the column."""

    image_shape, classes = (3, 12, 12), 2
    mean, std, white, is_augmented = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1, True
    count = 250

    @classmethod
    def read(cls, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = torch.empty(cls.count, 3, 12, 12, dtype=torch.uint8)
        pixels[:, 0] = torch.arange(1, cls.count + 1)[:, None, None]
        pixels[:, 1], pixels[:, 2] = torch.arange(12)[:, None], torch.arange(12)
        return pixels, torch.zeros(cls.count, dtype=torch.int64)


def tagged(batch_size: int = 60, seed: int = 0, **changes) -> base.DataLoader:
    created = TaggedImages.create(DatasetHparams("tagged", batch_size, **changes), True, seed)
    return base.DataLoader(created, batch_size, seed)


def epoch(loader: base.DataLoader, number: int = 0, start: int = 0) -> torch.Tensor:
    return torch.cat([images for images, _ in loader.epoch(number, start)])


def draws(images: torch.Tensor) -> list[tuple[int, int, int, bool]]:
    """The number of each tagged image, how far up and left its crop was taken, and whether it is mirrored, by what its middle shows."""
    rows, columns = images[:, 1, 6, 6], images[:, 2, 6, 6]
    mirrored = images[:, 2, 6, 7] < columns
    numbers = images[:, 0, 6, 6] - 1
    shifts = torch.where(mirrored, 5 - columns, columns - 6)
    return list(zip(numbers.int().tolist(), (rows - 6).int().tolist(), shifts.int().tolist(), mirrored.tolist(), strict=True))


class AugmentationTest(TestCase):
    def test_every_image_of_a_batch_has_its_own_draw_and_all_draws_are_equally_likely(self):
        drawn = [draw for number in range(40) for draw in draws(epoch(tagged(), number))]
        counts = np.zeros((9, 9, 2))
        for _, top, left, mirrored in drawn:
            counts[top + 4, left + 4, int(mirrored)] += 1
        expected = len(drawn) / counts.size
        chi_square = ((counts - expected) ** 2 / expected).sum()
        self.assertLess(abs(chi_square - 161), 5 * math.sqrt(2 * 161))
        self.assertGreater(len({draw[1:] for draw in draws(epoch(tagged())[:60])}), 30)

    def test_a_crop_beyond_the_edge_is_black_and_all_else_is_the_image(self):
        for image, (number, top, left, mirrored) in zip(epoch(tagged()), draws(epoch(tagged())), strict=True):
            original = TaggedImages.read(True)[0][number].float()
            padded = torch.nn.functional.pad(original.flip(-1) if mirrored else original, [4] * 4)
            self.assertTrue(torch.equal(image, padded[:, top + 4 : top + 16, left + 4 : left + 16]))

    def test_an_epoch_follows_from_the_seeds_and_its_number(self):
        first = epoch(tagged(), 2)
        torch.rand(3)
        self.assertTrue(torch.equal(epoch(tagged(), 2), first))
        for other in (epoch(tagged(), 3), epoch(tagged(seed=1), 2), epoch(tagged(transformation_seed=1), 2)):
            self.assertNotEqual({*draws(other)}, {*draws(first)})
        self.assertTrue(torch.equal(epoch(tagged(transformation_seed=0), 2), first))

    def test_an_epoch_resumed_in_the_middle_is_the_tail_of_the_whole(self):
        whole = epoch(tagged(), 1)
        for start in range(1, 5):
            self.assertTrue(torch.equal(epoch(tagged(), 1, start), whole[60 * start :]))
        self.assertEqual(list(tagged().epoch(1, 5)), [])

    def test_a_batch_of_everything_is_augmented_too(self):
        ((images, _),) = tagged(batch_size=1000).epoch(0)
        self.assertEqual({*draws(images)}, {*draws(epoch(tagged()))})

    def test_augmentation_leaves_the_global_random_state_alone(self):
        before = torch.get_rng_state()
        epoch(tagged())
        self.assertTrue(torch.equal(torch.get_rng_state(), before))

    def test_without_it_images_are_as_they_are(self):
        self.assertEqual({draw[1:] for draw in draws(epoch(tagged(do_not_augment=True)))}, {(0, 0, False)})

    def test_augmented_images_are_turned_last_so_that_a_label_says_by_how_much(self):
        plain = {number: image for image, (number, *_) in zip(epoch(tagged()), draws(epoch(tagged())), strict=True)}
        for images, labels in tagged(unsupervised_labels="rotation").epoch(0):
            for image, turn in zip(images, labels.tolist(), strict=True):
                upright = image.rot90(-turn, (1, 2))
                self.assertTrue(torch.equal(upright, plain[draws(upright[None])[0][0]]))

    def test_blur_is_of_augmented_images_too(self):
        for sharp, blurred in zip(epoch(tagged()), epoch(tagged(blur_factor=3)), strict=True):
            torch.testing.assert_close(blurred, transformations.blur(sharp[None], 3)[0])


class BlurTest(TestCase):
    def test_it_is_what_pillow_gives_by_shrinking_and_enlarging(self):
        pixels = np.random.RandomState(0).randint(0, 256, (5, 28, 28), dtype=np.uint8)
        for factor in (1, 2, 3, 7, 28):
            ours = transformations.blur(torch.from_numpy(pixels).float()[:, None], factor)[:, 0]
            for image, blurred in zip(pixels, ours, strict=True):
                small = Image.fromarray(image).resize((28 // factor, 28 // factor), Image.Resampling.BILINEAR)
                theirs = torch.from_numpy(np.array(small.resize((28, 28), Image.Resampling.BILINEAR))).float()
                self.assertLess((blurred - theirs).abs().max().item(), 1.6)  # Pillow rounds to whole grey values, twice in each direction

    def test_it_is_of_the_training_set_alone(self):
        sharp, blurred = dataset(), dataset(blur_factor=4)
        torch.testing.assert_close(blurred.examples, transformations.blur(sharp.examples, 4))
        self.assertTrue(torch.equal(dataset(False, blur_factor=4).examples, dataset(False).examples))

    def test_more_than_the_pixels_there_are_is_refused(self):
        registry.check(hparams(blur_factor=8))
        with self.assertRaisesRegex(ConfigError, "^--blur_factor: 9 is out of range; the images of digits have 8x8 pixels; valid: 1 to 8$"):
            registry.check(hparams(blur_factor=9))


class RotationTest(TestCase):
    def test_turns_are_counterclockwise_by_the_label(self):
        images = torch.rand(40, 3, 6, 6)
        turns = torch.arange(40) % 4
        for image, turn, turned in zip(images, turns.tolist(), transformations.rotate(images, turns), strict=True):
            self.assertTrue(torch.equal(turned, torch.from_numpy(np.rot90(image.numpy(), turn, (1, 2)).copy())))
            self.assertTrue(torch.equal(turned, reference.rotate(image, 90 * turn)))

    def test_both_parts_are_turned_at_random_and_labelled_so(self):
        for train in (True, False):
            upright, turned = dataset(train), dataset(train, unsupervised_labels="rotation")
            self.assertTrue(torch.equal(turned.examples, transformations.rotate(upright.examples, turned.labels)))
            counts = turned.labels.bincount(minlength=4)
            self.assertEqual(len(counts), 4)
            self.assertLess((counts - len(turned) / 4).abs().max().item(), 5 * math.sqrt(len(turned) * 3 / 16))

    def test_a_model_needs_four_outputs(self):
        self.assertEqual(registry.shape(hparams(unsupervised_labels="rotation")), (64, 4))
        self.assertEqual(registry.num_classes(hparams(unsupervised_labels="rotation")), 4)

    def test_another_kind_of_labels_is_refused(self):
        with self.assertRaisesRegex(
            ConfigError, "--unsupervised_labels: 'rotations' is not known, did you mean 'rotation'.*; valid: rotation$"
        ):
            hparams(unsupervised_labels="rotations")

    def test_random_labels_beside_it_are_refused(self):
        with self.assertRaisesRegex(ConfigError, "--random_labels_fraction: cannot be combined with --unsupervised_labels"):
            hparams(unsupervised_labels="rotation", random_labels_fraction=0.5)


class RandomLabelsTest(TestCase):
    def test_a_share_of_the_training_labels_is_drawn_from_all_classes(self):
        true = dataset().labels
        for fraction in (0.3, 1.0):
            labels = dataset(random_labels_fraction=fraction).labels
            drawn = math.ceil(fraction * len(true))
            wrong = (labels != true).sum().item()  # one drawn label in ten is right by chance
            self.assertLess(abs(wrong - 0.9 * drawn), 5 * math.sqrt(0.09 * drawn))
            self.assertLess((labels[labels != true].bincount() - wrong / 10).abs().max().item(), 5 * math.sqrt(wrong / 10))

    def test_images_and_the_test_set_stay_as_they_are(self):
        self.assertTrue(torch.equal(dataset(random_labels_fraction=1.0).examples, dataset().examples))
        self.assertTrue(torch.equal(dataset(False, random_labels_fraction=1.0).labels, dataset(False).labels))


class SubsampleTest(TestCase):
    def test_a_share_of_the_training_set_is_kept_with_its_labels(self):
        pairs = [(*image, label) for image, label in zip(dataset().examples.flatten(1).tolist(), dataset().labels.tolist(), strict=True)]
        few = dataset(subsample_fraction=0.25)
        kept = [(*image, label) for image, label in zip(few.examples.flatten(1).tolist(), few.labels.tolist(), strict=True)]
        self.assertEqual(len(kept), math.ceil(1437 / 4))
        self.assertLessEqual(set(kept), set(pairs))
        self.assertEqual(len(set(kept)), len(kept))

    def test_a_share_is_rounded_up_from_its_decimal_fraction(self):
        for fraction, count, expected in ((0.07, 100, 7), (0.1, 10, 1), (0.07, 101, 8), (1e-9, 5, 1), (1.0, 5, 5)):
            kept, _ = transformations.choose(hparams(subsample_fraction=fraction), True, torch.zeros(count, dtype=torch.int64), 10)
            self.assertEqual(len(kept), expected)

    def test_every_example_is_kept_as_often(self):
        kept = torch.zeros(20)
        for seed in range(400):
            chosen, _ = transformations.choose(hparams(subsample_fraction=0.5, transformation_seed=seed), True, torch.arange(20), 10)
            kept[chosen] += 1
        self.assertLess((kept - 200).abs().max().item(), 50)

    def test_the_test_set_stays_whole(self):
        self.assertEqual(len(dataset(False, subsample_fraction=0.25)), 360)

    def test_an_epoch_has_fewer_batches(self):
        self.assertEqual(len(registry.get(hparams(subsample_fraction=0.25))), 4)


class SeedTest(TestCase):
    changes = ({"subsample_fraction": 0.5}, {"random_labels_fraction": 0.5}, {"unsupervised_labels": "rotation"})

    def test_the_transformation_seed_decides_and_the_runs_does_not(self):
        for change in self.changes:
            with self.subTest(**change):
                first = dataset(seed=1, **change)
                self.assertTrue(torch.equal(dataset(seed=2, **change).labels, first.labels))
                self.assertTrue(torch.equal(dataset(seed=1, transformation_seed=0, **change).labels, first.labels))
                self.assertFalse(torch.equal(dataset(seed=1, transformation_seed=5, **change).labels, first.labels))

    def test_drawing_leaves_the_global_random_state_alone(self):
        before = torch.get_rng_state()
        for change in self.changes:
            dataset(**change)
        self.assertTrue(torch.equal(torch.get_rng_state(), before))


class CheckTest(TestCase):
    def test_shares_out_of_range_are_refused(self):
        for name in ("subsample_fraction", "random_labels_fraction"):
            for value in (0.0, -0.1, 1.1, math.nan):
                with self.assertRaisesRegex(ConfigError, f"^--{name}: {value} is out of range; valid: more than 0 and at most 1$"):
                    hparams(**{name: value})
        with self.assertRaisesRegex(ConfigError, "^--blur_factor: 0 is out of range; valid: 1 or more$"):
            hparams(blur_factor=0)

    def test_a_teachers_answers_take_no_transformation(self):
        values = {
            "do_not_augment": True,
            "transformation_seed": 0,
            "subsample_fraction": 0.5,
            "random_labels_fraction": 0.5,
            "unsupervised_labels": "rotation",
            "blur_factor": 2,
        }
        self.assertEqual(set(values), set(transformations.NAMES))
        for name, value in values.items():
            flag = f"--{name}" if value is True else f"--{name}={value}"
            status, _, err = self.command("train", "--default_hparams=digits_lenet", "--dataset_name=teacher", "--teacher_name=x", flag)
            self.assertEqual(status, 2)
            self.assertRegex(err, f"--{name}: goes with datasets of images only, not with --dataset_name teacher\n$")
        self.assertEqual(self.files(), [])

    def test_a_network_trains_on_images_that_are_fewer_blurred_and_turned(self):
        flags = ["--default_hparams=mlp_64_6_4", "--dataset_name=digits", "--batch_size=50", "--global_seed=1", "--quiet"]
        flags += ["--subsample_fraction=0.3", "--unsupervised_labels=rotation", "--blur_factor=2", "--transformation_seed=3"]
        status, _, err = self.command("train", *flags, "--training_steps=3it")
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(sum(name.endswith("logger") for name in self.files()), 1)

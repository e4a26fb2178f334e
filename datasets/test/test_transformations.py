"""Transformations of images and labels, compared with torchvision, Pillow and numpy."""

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
    """Images whose red channel is the number of the image plus one; green and blue are the row and the column of the pixel."""

    image_shape, classes = (3, 12, 12), 2
    mean, std, max_value, is_augmented = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1, True
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
    """The number of each tagged image, the vertical and horizontal shift of its crop, and whether it is mirrored, read from its centre."""
    rows, columns = images[:, 1, 6, 6], images[:, 2, 6, 6]
    mirrored = images[:, 2, 6, 7] < columns
    numbers = images[:, 0, 6, 6] - 1
    shifts = torch.where(mirrored, 5 - columns, columns - 6)
    return list(zip(numbers.int().tolist(), (rows - 6).int().tolist(), shifts.int().tolist(), mirrored.tolist(), strict=True))


class AugmentationTest(TestCase):
    def test_crops_are_drawn_for_every_image_from_a_uniform_distribution(self):
        drawn = [draw for number in range(40) for draw in draws(epoch(tagged(), number))]
        counts = np.zeros((9, 9, 2))
        for _, top, left, mirrored in drawn:
            counts[top + 4, left + 4, int(mirrored)] += 1
        expected = len(drawn) / counts.size
        chi_square = ((counts - expected) ** 2 / expected).sum()
        self.assertLess(abs(chi_square - 161), 5 * math.sqrt(2 * 161))
        self.assertGreater(len({draw[1:] for draw in draws(epoch(tagged())[:60])}), 30)

    def test_a_crop_is_black_beyond_the_edge_and_the_image_elsewhere(self):
        for image, (number, top, left, mirrored) in zip(epoch(tagged()), draws(epoch(tagged())), strict=True):
            original = TaggedImages.read(True)[0][number].float()
            padded = torch.nn.functional.pad(original.flip(-1) if mirrored else original, [4] * 4)
            self.assertTrue(torch.equal(image, padded[:, top + 4 : top + 16, left + 4 : left + 16]))

    def test_an_epoch_depends_on_the_seeds_and_its_number(self):
        first = epoch(tagged(), 2)
        torch.rand(3)
        self.assertTrue(torch.equal(epoch(tagged(), 2), first))
        for other in (epoch(tagged(), 3), epoch(tagged(seed=1), 2), epoch(tagged(transformation_seed=1), 2)):
            self.assertNotEqual({*draws(other)}, {*draws(first)})
        self.assertTrue(torch.equal(epoch(tagged(transformation_seed=0), 2), first))

    def test_an_epoch_resumed_in_the_middle_is_the_rest_of_the_epoch(self):
        whole = epoch(tagged(), 1)
        for start in range(1, 5):
            self.assertTrue(torch.equal(epoch(tagged(), 1, start), whole[60 * start :]))
        self.assertEqual(list(tagged().epoch(1, 5)), [])

    def test_a_batch_of_the_complete_dataset_is_augmented(self):
        ((images, _),) = tagged(batch_size=1000).epoch(0)
        self.assertEqual({*draws(images)}, {*draws(epoch(tagged()))})

    def test_augmentation_does_not_change_the_global_random_state(self):
        before = torch.get_rng_state()
        epoch(tagged())
        self.assertTrue(torch.equal(torch.get_rng_state(), before))

    def test_do_not_augment_keeps_the_original_images(self):
        self.assertEqual({draw[1:] for draw in draws(epoch(tagged(do_not_augment=True)))}, {(0, 0, False)})

    def test_augmented_images_are_rotated_last_by_their_labels(self):
        plain = {number: image for image, (number, *_) in zip(epoch(tagged()), draws(epoch(tagged())), strict=True)}
        for images, labels in tagged(unsupervised_labels="rotation").epoch(0):
            for image, turn in zip(images, labels.tolist(), strict=True):
                upright = image.rot90(-turn, (1, 2))
                self.assertTrue(torch.equal(upright, plain[draws(upright[None])[0][0]]))

    def test_augmented_images_are_blurred(self):
        for sharp, blurred in zip(epoch(tagged()), epoch(tagged(blur_factor=3)), strict=True):
            torch.testing.assert_close(blurred, transformations.blur(sharp[None], 3)[0])


class BlurTest(TestCase):
    def test_blur_agrees_with_shrinking_and_enlarging_by_pillow(self):
        pixels = np.random.RandomState(0).randint(0, 256, (5, 28, 28), dtype=np.uint8)
        for factor in (1, 2, 3, 7, 28):
            ours = transformations.blur(torch.from_numpy(pixels).float()[:, None], factor)[:, 0]
            for image, blurred in zip(pixels, ours, strict=True):
                small = Image.fromarray(image).resize((28 // factor, 28 // factor), Image.Resampling.BILINEAR)
                theirs = torch.from_numpy(np.array(small.resize((28, 28), Image.Resampling.BILINEAR))).float()
                self.assertLess((blurred - theirs).abs().max().item(), 1.6)  # Pillow rounds to whole grey values, twice in each direction

    def test_only_the_training_set_is_blurred(self):
        sharp, blurred = dataset(), dataset(blur_factor=4)
        torch.testing.assert_close(blurred.examples, transformations.blur(sharp.examples, 4))
        self.assertTrue(torch.equal(dataset(False, blur_factor=4).examples, dataset(False).examples))

    def test_a_factor_larger_than_the_image_is_refused(self):
        registry.check(hparams(blur_factor=8))
        with self.assertRaisesRegex(ConfigError, "^--blur_factor: 9 is out of range; the images of digits have 8x8 pixels; valid: 1 to 8$"):
            registry.check(hparams(blur_factor=9))


class RotationTest(TestCase):
    def test_rotations_are_counterclockwise_by_the_label(self):
        images = torch.rand(40, 3, 6, 6)
        turns = torch.arange(40) % 4
        for image, turn, turned in zip(images, turns.tolist(), transformations.rotate(images, turns), strict=True):
            self.assertTrue(torch.equal(turned, torch.from_numpy(np.rot90(image.numpy(), turn, (1, 2)).copy())))
            self.assertTrue(torch.equal(turned, reference.rotate(image, 90 * turn)))

    def test_both_sets_are_rotated_at_random_and_labelled_with_the_rotation(self):
        for train in (True, False):
            upright, turned = dataset(train), dataset(train, unsupervised_labels="rotation")
            self.assertTrue(torch.equal(turned.examples, transformations.rotate(upright.examples, turned.labels)))
            counts = turned.labels.bincount(minlength=4)
            self.assertEqual(len(counts), 4)
            self.assertLess((counts - len(turned) / 4).abs().max().item(), 5 * math.sqrt(len(turned) * 3 / 16))

    def test_a_model_needs_four_outputs(self):
        self.assertEqual(registry.shape(hparams(unsupervised_labels="rotation")), (64, 4))
        self.assertEqual(registry.num_classes(hparams(unsupervised_labels="rotation")), 4)

    def test_an_unknown_kind_of_labels_is_refused(self):
        with self.assertRaisesRegex(
            ConfigError, "--unsupervised_labels: 'rotations' is not known, did you mean 'rotation'.*; valid: rotation$"
        ):
            hparams(unsupervised_labels="rotations")

    def test_random_labels_together_with_rotation_are_refused(self):
        with self.assertRaisesRegex(ConfigError, "--random_labels_fraction: cannot be combined with --unsupervised_labels"):
            hparams(unsupervised_labels="rotation", random_labels_fraction=0.5)


class RandomLabelsTest(TestCase):
    def test_a_fraction_of_the_training_labels_is_drawn_from_all_classes(self):
        true = dataset().labels
        for fraction in (0.3, 1.0):
            labels = dataset(random_labels_fraction=fraction).labels
            drawn = math.ceil(fraction * len(true))
            wrong = (labels != true).sum().item()  # one drawn label in ten is right by chance
            self.assertLess(abs(wrong - 0.9 * drawn), 5 * math.sqrt(0.09 * drawn))
            self.assertLess((labels[labels != true].bincount() - wrong / 10).abs().max().item(), 5 * math.sqrt(wrong / 10))

    def test_random_labels_do_not_change_images_or_the_test_set(self):
        self.assertTrue(torch.equal(dataset(random_labels_fraction=1.0).examples, dataset().examples))
        self.assertTrue(torch.equal(dataset(False, random_labels_fraction=1.0).labels, dataset(False).labels))


class SubsampleTest(TestCase):
    def test_a_fraction_of_the_training_set_is_kept_with_its_labels(self):
        pairs = [(*image, label) for image, label in zip(dataset().examples.flatten(1).tolist(), dataset().labels.tolist(), strict=True)]
        few = dataset(subsample_fraction=0.25)
        kept = [(*image, label) for image, label in zip(few.examples.flatten(1).tolist(), few.labels.tolist(), strict=True)]
        self.assertEqual(len(kept), math.ceil(1437 / 4))
        self.assertLessEqual(set(kept), set(pairs))
        self.assertEqual(len(set(kept)), len(kept))

    def test_a_fraction_is_rounded_up_in_floating_point(self):
        for fraction, count, expected in ((0.07, 100, 8), (0.1, 10, 1), (0.07, 101, 8), (1e-9, 5, 1), (1.0, 5, 5)):
            kept, _ = transformations.select_examples(hparams(subsample_fraction=fraction), True, torch.zeros(count, dtype=torch.int64), 10)
            self.assertEqual(len(kept), expected)

    def test_every_example_is_kept_with_equal_probability(self):
        kept = torch.zeros(20)
        for seed in range(400):
            half = hparams(subsample_fraction=0.5, transformation_seed=seed)
            chosen, _ = transformations.select_examples(half, True, torch.arange(20), 10)
            kept[chosen] += 1
        self.assertLess((kept - 200).abs().max().item(), 50)

    def test_the_test_set_is_not_subsampled(self):
        self.assertEqual(len(dataset(False, subsample_fraction=0.25)), 360)

    def test_an_epoch_has_fewer_batches(self):
        self.assertEqual(len(registry.get(hparams(subsample_fraction=0.25))), 4)


class SeedTest(TestCase):
    changes = ({"subsample_fraction": 0.5}, {"random_labels_fraction": 0.5}, {"unsupervised_labels": "rotation"})

    def test_the_dataset_depends_on_the_transformation_seed_and_not_on_the_seed_of_the_run(self):
        for change in self.changes:
            with self.subTest(**change):
                first = dataset(seed=1, **change)
                self.assertTrue(torch.equal(dataset(seed=2, **change).labels, first.labels))
                self.assertTrue(torch.equal(dataset(seed=1, transformation_seed=0, **change).labels, first.labels))
                self.assertFalse(torch.equal(dataset(seed=1, transformation_seed=5, **change).labels, first.labels))

    def test_transformations_do_not_change_the_global_random_state(self):
        before = torch.get_rng_state()
        for change in self.changes:
            dataset(**change)
        self.assertTrue(torch.equal(torch.get_rng_state(), before))


class CheckTest(TestCase):
    def test_fractions_out_of_range_are_refused(self):
        for name in ("subsample_fraction", "random_labels_fraction"):
            for value in (0.0, -0.1, 1.1, math.nan):
                with self.assertRaisesRegex(ConfigError, f"^--{name}: {value} is out of range; valid: more than 0 and at most 1$"):
                    hparams(**{name: value})
        with self.assertRaisesRegex(ConfigError, "^--blur_factor: 0 is out of range; valid: 1 or more$"):
            hparams(blur_factor=0)

    def test_the_dataset_teacher_refuses_transformations(self):
        values = {
            "do_not_augment": True,
            "transformation_seed": 0,
            "subsample_fraction": 0.5,
            "random_labels_fraction": 0.5,
            "unsupervised_labels": "rotation",
            "blur_factor": 2,
        }
        self.assertEqual(set(values), set(transformations.FIELDS))
        for name, value in values.items():
            flag = f"--{name}" if value is True else f"--{name}={value}"
            status, _, err = self.command("train", "--default_hparams=digits_lenet", "--dataset_name=teacher", "--teacher_name=x", flag)
            self.assertEqual(status, 2)
            self.assertRegex(err, f"--{name}: applies to image datasets only, not to --dataset_name teacher\n$")
        self.assertEqual(self.files(), [])

    def test_a_network_trains_on_subsampled_blurred_and_rotated_images(self):
        flags = ["--default_hparams=mlp_64_6_4", "--dataset_name=digits", "--batch_size=50", "--global_seed=1", "--quiet"]
        flags += ["--subsample_fraction=0.3", "--unsupervised_labels=rotation", "--blur_factor=2", "--transformation_seed=3"]
        status, _, err = self.command("train", *flags, "--training_steps=3it")
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(sum(name.endswith("logger") for name in self.files()), 1)

"""ImageNet: folders of JPEGs, compared with torchvision on single images, and errors for invalid folders."""

from __future__ import annotations

import os
import shutil
from unittest import mock

import torch
import torchvision
from torchvision import transforms

from datasets import imagenet, registry, transformations
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError
from platforms.base import installed
from testing import dataset_files
from testing.test_case import CpuPlatform, TestCase

CROP = transforms.RandomResizedCrop(224, scale=(0.1, 1), ratio=(0.8, 1.25)), transforms.RandomHorizontalFlip()  # those of OpenLTH
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def loader(train: bool = True, seed: int = 3, batch_size: int = 5, **changes) -> imagenet.DataLoader:
    return registry.get(DatasetHparams("imagenet", batch_size, **changes), train, seed)


def epoch(number: int = 0, start: int = 0, workers: int = 0, **changes) -> tuple[torch.Tensor, torch.Tensor]:
    """All images and labels of an epoch, from batch `start` on."""
    with installed(CpuPlatform(num_workers=workers)):
        images, labels = zip(*loader(**changes).epoch(number, start), strict=True)
    return torch.cat(images), torch.cat(labels)


class ImagenetTest(TestCase):
    def setUp(self):
        super().setUp()
        self.folder = os.environ["EC_IMAGENET_ROOT"]
        dataset_files.write_imagenet(self.folder)

    def reference(self, part: str, *cut) -> tuple[torch.Tensor, list[int]]:
        """The images of `train` or `val` and their labels, read with torchvision."""
        whole = transforms.Compose([*cut, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
        images, labels = zip(*torchvision.datasets.ImageFolder(os.path.join(self.folder, part), whole), strict=True)
        return torch.stack(images), list(labels)

    def path(self, part: str = "train", label: int = 1, number: int = 2) -> str:
        return os.path.join(self.folder, part, f"n{label:08d}", f"{part}_{label}_{number}.JPEG")

    def assert_refused(self, pattern: str, action) -> None:
        with self.assertRaisesRegex(ConfigError, f"^{pattern}$") as caught:
            action()
        self.assertNotIn("\n", str(caught.exception))

    def test_evaluation_uses_centre_crops_in_the_order_of_the_files(self):
        for train in (False, True):
            images, labels = zip(*loader(train), strict=True)
            expected, classes = self.reference("train" if train else "val", transforms.Resize(256), transforms.CenterCrop(224))
            torch.testing.assert_close(torch.cat(images), expected, rtol=0, atol=1e-5)
            self.assertEqual(torch.cat(labels).tolist(), classes)

    def test_training_without_augmentation_uses_centre_crops_in_random_order(self):
        expected, classes = self.reference("train", transforms.Resize(256), transforms.CenterCrop(224))
        images, labels = epoch(do_not_augment=True)
        places = torch.cdist(images.flatten(1), expected.flatten(1)).argmin(1)
        torch.testing.assert_close(images, expected[places], rtol=0, atol=1e-5)
        self.assertEqual(labels.tolist(), [classes[place] for place in places.tolist()])
        self.assertEqual(sorted(places.tolist()), list(range(12)))
        self.assertNotEqual(places.tolist(), list(range(12)))

    def test_training_uses_random_crops_that_change_in_every_epoch(self):
        for number in (0, 1):
            images, labels = epoch(number)
            middles, _ = epoch(number, do_not_augment=True)
            self.assertEqual((images.shape, images.dtype), ((12, 3, 224, 224), torch.float32))
            self.assertEqual(labels.bincount().tolist(), [4, 4, 4])
            self.assertGreater((images - middles).flatten(1).std(1).min().item(), 0.05)
        self.assertFalse(torch.equal(epoch(0)[0].sort(0).values, epoch(1)[0].sort(0).values))

    def test_a_random_crop_is_that_of_torchvision(self):
        cut = transforms.Compose([*CROP, transforms.PILToTensor()])
        decoder = imagenet.Decoder([self.path()], 5, open)
        torch.manual_seed(imagenet.derive(5, 0))
        self.assertTrue(torch.equal(decoder[0], cut(decoder.decode(self.path()))))

    def test_an_epoch_does_not_depend_on_the_number_of_workers_or_on_resuming(self):
        images, labels = epoch(2)
        again, labels_again = epoch(2, workers=2)
        self.assertTrue(torch.equal(again, images) and torch.equal(labels_again, labels))
        tail, labels_of_tail = epoch(2, start=1, workers=1)
        self.assertTrue(torch.equal(tail, images[5:]) and torch.equal(labels_of_tail, labels[5:]))

    def test_an_epoch_depends_on_the_seeds_only(self):
        images, _ = epoch(0)
        torch.rand(5)
        self.assertTrue(torch.equal(epoch(0)[0], images))
        for other in ({"seed": 4}, {"transformation_seed": 1}):
            self.assertFalse(torch.equal(epoch(0, **other)[0], images))

    def test_loading_does_not_change_the_global_random_state(self):
        for workers in (0, 1):
            before = torch.get_rng_state()
            epoch(workers=workers)
            self.assertTrue(torch.equal(torch.get_rng_state(), before))

    def test_grey_images_have_three_channels(self):
        images, _ = epoch(do_not_augment=True)
        pixels = images * torch.tensor(STD).view(-1, 1, 1) + torch.tensor(MEAN).view(-1, 1, 1)
        grey = (pixels.amax(1) - pixels.amin(1)).flatten(1).amax(1) < 1e-5
        self.assertEqual(grey.sum().item(), 3)

    def test_an_item_is_an_example_with_its_label(self):
        images, labels = next(iter(loader(train=False)))
        image, label = loader(train=False).dataset[3]
        self.assertTrue(torch.equal(image[0], images[3]) and label == labels[3])

    def test_the_shape_is_the_values_of_an_image_and_the_number_of_class_folders(self):
        self.assertEqual(registry.shape(DatasetHparams("imagenet", 5)), (3 * 224 * 224, 3))
        self.assertEqual(registry.shape(DatasetHparams("imagenet", 5, unsupervised_labels="rotation")), (3 * 224 * 224, 4))

    def test_images_are_converted_to_the_precision(self):
        images, _ = next(registry.get(DatasetHparams("imagenet", 2), dtype=torch.float64).epoch(0))
        self.assertEqual(images.dtype, torch.float64)

    def test_the_transformations_of_other_image_datasets_apply(self):
        upright, _ = epoch(do_not_augment=True)
        turned, turns = epoch(do_not_augment=True, unsupervised_labels="rotation")
        self.assertTrue(torch.equal(turned, transformations.rotate(upright, turns)))
        blurred, _ = epoch(do_not_augment=True, blur_factor=4)
        self.assertTrue(torch.equal(blurred, transformations.blur(upright, 4)))
        self.assertEqual(len(epoch(subsample_fraction=0.4)[1]), 5)
        self.assertEqual(sum(len(labels) for _, labels in loader(train=False, subsample_fraction=0.4)), 6)
        drawn = [epoch(random_labels_fraction=1.0, transformation_seed=seed)[1].tolist() for seed in range(3)]
        self.assertGreater(len(set(map(tuple, drawn))), 1)

    def test_a_missing_folder_is_named_with_the_remedy(self):
        shutil.rmtree(self.folder)
        for part in ("train", "val"):
            expected = f"ImageNet: {os.path.join(self.folder, part)} does not exist; set EC_IMAGENET_ROOT to .*"
            self.assert_refused(expected, lambda train=part == "train": loader(train))
            os.makedirs(os.path.join(self.folder, "train", "n0"), exist_ok=True)
            open(os.path.join(self.folder, "train", "n0", "a.jpg"), "w").close()

    def test_a_folder_without_class_folders_is_named(self):
        shutil.rmtree(os.path.join(self.folder, "val"))
        os.makedirs(os.path.join(self.folder, "val"))
        open(os.path.join(self.folder, "val", "a.JPEG"), "w").close()
        self.assert_refused(f"ImageNet: {self.folder}/val contains no class folders; .*", lambda: loader(train=False))

    def test_an_empty_class_folder_is_named(self):
        folder = os.path.dirname(self.path())
        for name in os.listdir(folder):
            os.rename(os.path.join(folder, name), os.path.join(folder, f"{name}.txt"))
        self.assert_refused(rf"ImageNet: {folder} contains no JPEGs \(.*\)", loader)

    def test_a_class_that_is_missing_in_one_folder_is_named(self):
        shutil.rmtree(os.path.dirname(self.path("val")))
        self.assert_refused(
            f"ImageNet: {self.folder}/val/n00000001: this class is in train but not in val; .*", lambda: loader(train=False)
        )

    def test_a_damaged_image_is_named_with_and_without_workers(self):
        with open(self.path(), "rb") as file:
            content = file.read()
        for damaged in (content[: len(content) // 2], b"", b"no image"):
            with open(self.path(), "wb") as file:
                file.write(damaged)
            expected = rf"{self.path()} cannot be read as an image \(.*\); replace it or delete it"
            self.assert_refused(expected, epoch)
            for workers in (0, 1):
                with mock.patch("datasets.image_files.check"):  # the image is damaged after the check
                    self.assert_refused(expected, lambda workers=workers: epoch(workers=workers))

    def test_runs_on_other_datasets_do_not_read_the_path_of_imagenet(self):
        no_path = mock.patch("platforms.local.Platform.imagenet_root", new_callable=mock.PropertyMock, side_effect=AssertionError)
        with no_path:
            flags = ["--default_hparams=digits_lenet_4", "--training_steps=2it", "--global_seed=1", "--quiet"]
            self.assertEqual(self.command("train", *flags)[0], 0)
            self.assertEqual(self.command("train", "--help")[0], 0)

    def test_a_run_without_the_files_is_refused_and_writes_nothing(self):
        shutil.rmtree(self.folder)
        flags = ["--default_hparams=mlp_150528_2_3", "--dataset_name=imagenet", "--training_steps=2it", "--quiet"]
        status, _, err = self.command("train", *flags)
        self.assertEqual((status, self.files()), (2, []))
        self.assertRegex(err, f"ImageNet: {self.folder}/train does not exist")

    def test_a_network_trains_on_it(self):
        flags = ["--default_hparams=mlp_150528_2_3", "--dataset_name=imagenet", "--batch_size=4", "--lr=0.001"]
        status, _, err = self.command("train", *flags, "--training_steps=2it", "--num_workers=1", "--global_seed=1", "--quiet")
        self.assertEqual((status, err), (0, ""))

"""The check of image files before training."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from unittest import mock

import numpy as np
from PIL import Image

from datasets import image_files, registry
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError
from platforms.system.signals import Stopped
from testing import dataset_files
from testing.test_case import TestCase


class ImageFilesTest(TestCase):
    def image(self, name: str, form: str = "JPEG", after: bytes = b"") -> str:
        """Writes an image with some bytes after it; returns its path."""
        path = os.path.join(self.root, "images", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Image.fromarray(np.random.RandomState(0).randint(0, 256, (30, 40, 3), dtype=np.uint8)).save(path, form)
        with open(path, "ab") as file:
            file.write(after)
        return path

    @contextlib.contextmanager
    def opened(self) -> Iterator[list[str]]:
        """The paths of the files that are checked."""
        seen: list[str] = []
        fault = image_files._fault
        with mock.patch("datasets.image_files._fault", side_effect=lambda path: (seen.append(path), fault(path))[1]):
            yield seen

    def test_images_of_any_format_and_with_bytes_after_their_end_are_accepted(self):
        paths = [
            self.image("a/1.jpeg"),
            self.image("a/2.jpeg", "PNG"),
            self.image("a/3.jpeg", "GIF"),
            self.image("b/1.jpeg", after=b"more"),
        ]
        with self.opened() as seen:
            image_files.check(paths, "photos")
        self.assertEqual(sorted(seen), paths)

    def test_files_that_are_no_whole_images_are_named(self):
        path = self.image("a/1.jpeg")
        with open(path, "rb") as file:
            content = file.read()
        picture = self.image("a/2.png", "PNG")
        with open(picture, "rb") as file:
            png = file.read()
        wrong = (b"", b"\xff", b"no image", content[:10], content[: len(content) // 2], content[:-2], png[: len(png) // 2], b"\0" * 100)
        for damaged in wrong:
            with open(path, "wb") as file:
                file.write(damaged)
            with self.assertRaisesRegex(ConfigError, rf"^{path} cannot be read as an image \(.*\); replace it or delete it$"):
                image_files.check([path], "photos")
        self.assertNotIn("datasets/photos_checked.json", self.files())

    def test_folders_broken_links_and_several_wrong_files_are_named(self):
        folder, link = os.path.join(self.root, "images", "a", "1.jpeg"), os.path.join(self.root, "images", "a", "2.jpeg")
        os.makedirs(folder)
        os.symlink("nowhere", link)
        for path in (folder, link):
            with self.assertRaisesRegex(ConfigError, f"^{path} cannot be read"):
                image_files.check([path], "photos")
        with self.assertRaisesRegex(ConfigError, rf"^{folder} cannot .*, and 1 more of the 3 files; replace it or delete it$"):
            image_files.check([folder, link, self.image("b/1.jpeg")], "photos")

    def test_only_folders_that_have_changed_are_checked_again(self):
        paths = [self.image(f"{folder}/{number}.jpeg") for folder in "ab" for number in range(2)]
        image_files.check(paths, "photos")
        with self.opened() as seen:
            image_files.check(paths, "photos")
            self.assertEqual(seen, [])
            with open(paths[2], "wb") as file:
                file.write(b"no image")
            with self.assertRaisesRegex(ConfigError, f"^{paths[2]} cannot"):
                image_files.check(paths, "photos")
            self.assertEqual(sorted(seen), paths[2:])
            self.image("b/0.jpeg")
            image_files.check(paths, "photos")
        self.assertEqual(sorted(seen), sorted(2 * paths[2:]))

    def test_a_damaged_or_unwritable_memory_is_no_error(self):
        paths, memory = [self.image("a/1.jpeg")], os.path.join(self.root, "datasets", "photos_checked.json")
        for content in ("", "[]", "{", '{"a": 3}'):
            os.makedirs(os.path.dirname(memory), exist_ok=True)
            with open(memory, "w") as file:
                file.write(content)
            image_files.check(paths, "photos")
        os.remove(memory)
        shutil.rmtree(os.path.dirname(memory))
        with open(os.path.dirname(memory), "w") as file:
            file.write("a file in place of the folder")
        image_files.check(paths, "photos")

    def test_a_stop_signal_ends_the_check(self):
        with mock.patch("platforms.system.signals._received", "SIGTERM"), self.assertRaises(Stopped):
            image_files.check([self.image("a/1.jpeg")], "photos")

    def test_progress_is_shown_without_a_terminal(self):
        err = io.StringIO()
        with mock.patch.multiple("datasets.image_files", LINE_SECONDS=0.0, CHUNK=1), contextlib.redirect_stderr(err):
            image_files.check([self.image("a/1.jpeg"), self.image("a/2.jpeg")], "photos")
        self.assertEqual(err.getvalue(), "Checking images: 1 of 2\nChecking images: 2 of 2\n")


class ImagenetTest(TestCase):
    def setUp(self):
        super().setUp()
        self.folder = os.environ["EC_IMAGENET_ROOT"]
        dataset_files.write_imagenet(self.folder, classes=2, train=2, test=1)

    def test_a_damaged_image_is_found_before_training(self):
        path = os.path.join(self.folder, "val", "n00000001", "val_1_0.JPEG")
        with open(path, "r+b") as file:
            file.truncate(100)
        flags = ["--default_hparams=mlp_150528_2_2", "--dataset_name=imagenet", "--training_steps=1it", "--quiet"]
        with mock.patch("training.train.train", side_effect=AssertionError):
            status, _, err = self.command("train", *flags)
        self.assertEqual((status, [name for name in self.files() if name.startswith("train_")]), (2, []))
        self.assertRegex(err, f"^EC.py train: {path} cannot be read as an image")

    def test_names_that_begin_with_a_dot_are_no_classes_and_no_images(self):
        sets = [registry.get(DatasetHparams("imagenet", 2), train).dataset.paths for train in (True, False)]
        for part in ("train", "val"):
            for name in (".ipynb_checkpoints", "._n00000000"):
                shutil.copytree(os.path.join(self.folder, part, "n00000000"), os.path.join(self.folder, part, name))
            for name in ("._train_0_0.JPEG", ".DS_Store", ".nfs00000001", ".JPEG", ".hidden.jpg"):
                with open(os.path.join(self.folder, part, "n00000001", name), "w") as file:
                    file.write("not an image")
        self.assertEqual([registry.get(DatasetHparams("imagenet", 2), train).dataset.paths for train in (True, False)], sets)
        self.assertEqual(registry.shape(DatasetHparams("imagenet", 2)), (150528, 2))

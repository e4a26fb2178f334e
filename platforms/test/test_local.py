"""Where the local platform keeps its files."""

import os
from unittest import mock

from platforms.local import Platform
from testing.test_case import TestCase

# The variable that sets each folder, and the folder under `data` where it is not set.
ROOTS = {
    "root": ("EC_ROOT", "sims"),
    "dataset_root": ("EC_DATASET_ROOT", "datasets"),
    "imagenet_root": ("EC_IMAGENET_ROOT", "imagenet"),
    "boruta_root": ("EC_BORUTA_ROOT", "boruta"),
}


class TestRoots(TestCase):
    def assert_default(self):
        for root, (_, folder) in ROOTS.items():
            with self.subTest(root=root):
                self.assertEqual(getattr(Platform(), root), os.path.join(os.getcwd(), "data", folder))

    def test_results_datasets_and_masks_lie_in_the_working_folder_by_default(self):
        with mock.patch.dict(os.environ):
            for variable, _ in ROOTS.values():
                del os.environ[variable]
            self.assert_default()

    def test_the_environment_says_where_else(self):
        for root, (variable, _) in ROOTS.items():
            with self.subTest(root=root), mock.patch.dict(os.environ, {variable: "/one"}):
                self.assertEqual(getattr(Platform(), root), "/one")
            with self.subTest(root=root), mock.patch.dict(os.environ, {variable: "two"}):
                self.assertEqual(getattr(Platform(), root), os.path.join(os.getcwd(), "two"))

    def test_an_empty_variable_is_as_good_as_none(self):
        with mock.patch.dict(os.environ, {variable: "" for variable, _ in ROOTS.values()}):
            self.assert_default()

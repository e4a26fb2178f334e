"""The folders of the local platform."""

import os
from unittest import mock

from platforms.local import Platform
from testing.test_case import TestCase

# The environment variable of each folder, and its default under `data`.
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

    def test_by_default_all_folders_are_in_the_working_directory(self):
        with mock.patch.dict(os.environ):
            for variable, _ in ROOTS.values():
                del os.environ[variable]
            self.assert_default()

    def test_a_tilde_in_a_variable_is_the_home_of_the_user(self):
        variables = {variable: "~/here" for variable, _ in ROOTS.values()}
        with mock.patch.dict(os.environ, {**variables, "HOME": "/home/anna"}):
            self.assertEqual({getattr(Platform(), root) for root in ROOTS}, {"/home/anna/here"})

    def test_environment_variables_set_the_folders(self):
        for root, (variable, _) in ROOTS.items():
            with self.subTest(root=root), mock.patch.dict(os.environ, {variable: "/one"}):
                self.assertEqual(getattr(Platform(), root), "/one")
            with self.subTest(root=root), mock.patch.dict(os.environ, {variable: "two"}):
                self.assertEqual(getattr(Platform(), root), os.path.join(os.getcwd(), "two"))

    def test_an_empty_variable_is_ignored(self):
        with mock.patch.dict(os.environ, {variable: "" for variable, _ in ROOTS.values()}):
            self.assert_default()

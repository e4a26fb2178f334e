"""Where the local platform keeps its files."""

import os
from unittest import mock

from platforms.local import Platform
from testing.test_case import TestCase


class TestRoots(TestCase):
    def test_results_and_datasets_lie_in_the_working_folder_by_default(self):
        with mock.patch.dict(os.environ):
            del os.environ["EC_ROOT"], os.environ["EC_DATASET_ROOT"]
            self.assertEqual(Platform().root, os.path.join(os.getcwd(), "data", "sims"))
            self.assertEqual(Platform().dataset_root, os.path.join(os.getcwd(), "data", "datasets"))

    def test_the_environment_says_where_else(self):
        with mock.patch.dict(os.environ, {"EC_ROOT": "/one", "EC_DATASET_ROOT": "two"}):
            self.assertEqual(Platform().root, "/one")
            self.assertEqual(Platform().dataset_root, os.path.join(os.getcwd(), "two"))

    def test_an_empty_variable_is_as_good_as_none(self):
        with mock.patch.dict(os.environ, {"EC_ROOT": "", "EC_DATASET_ROOT": ""}):
            self.assertEqual(Platform().root, os.path.join(os.getcwd(), "data", "sims"))
            self.assertEqual(Platform().dataset_root, os.path.join(os.getcwd(), "data", "datasets"))

"""Which trackers there are, and what is refused."""

from __future__ import annotations

import sys
from unittest import mock

from testing.test_case import TestCase
from training.trackers import registry

TRAIN = ("train", "--default_hparams=digits_lenet_4", "--training_steps=1ep", "--quiet")


class TestRegistry(TestCase):
    def assert_refused(self, *arguments: str) -> str:
        """The line of complaint of a command that writes nothing."""
        status, out, err = self.command(*arguments)
        self.assertEqual((status, out, err.count("\n"), self.files()), (2, "", 1, []))
        return err

    def test_what_is_not_known_is_refused(self):
        self.assertIn("did you mean 'tensorboard'?; valid: tensorboard, wandb", self.assert_refused(*TRAIN, "--tracker=tensorbord"))
        self.assertIn("--tracker: ''", self.assert_refused(*TRAIN, "--tracker=tensorboard+"))
        self.assertIn("valid: offline, online", self.assert_refused(*TRAIN, "--tracker=wandb", "--tracker_mode=off"))
        self.assertIn("offline needs another --tracker; valid: wandb", self.assert_refused(*TRAIN, "--tracker_mode=offline"))

    def test_a_missing_package_is_named_with_the_line_that_installs_it(self):
        for name, tracker in registry.registered_trackers.items():
            for command in (TRAIN, ("lottery", *TRAIN[1:], "--levels=1")):
                with mock.patch.dict(sys.modules, {tracker.module: None}):
                    self.assertRegex(
                        self.assert_refused(*command, f"--tracker={name}"), rf"--tracker {name} needs .*: pip install {name}\n$"
                    )

    def test_a_tracker_moves_no_folder(self):
        folders = []
        for tracker in registry.registered_trackers.values():
            with mock.patch.object(tracker, "check"):
                folders.append(self.command(*TRAIN, f"--tracker={tracker.package}", "--display_output_location"))
        self.assertEqual(folders, [self.command(*TRAIN, "--display_output_location")] * len(folders))

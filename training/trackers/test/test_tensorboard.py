"""What TensorBoard's own reader finds of a run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from foundations import paths
from training.trackers.test.following import FollowingTestCase, Table


class TestTensorBoard(FollowingTestCase):
    package = "tensorboard"
    flags = ("--tracker=tensorboard",)

    def reader(self, folder: str):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        return EventAccumulator(paths.tensorboard(folder), size_guidance={"scalars": 0})

    def read(self, reader) -> Table:
        """What a reader knows, or comes to know now; a value that is there twice is a failure."""
        reader.Reload()
        found = [((name, event.step), event.value) for name in reader.Tags()["scalars"] for event in reader.Scalars(name)]
        self.assertEqual(len(found), len(dict(found)))
        return dict(found)

    def assert_is_the_log(self, table: Table, folder: str) -> None:
        logged = self.logged(folder)
        self.assertGreater(len(logged), 0)
        self.assertEqual(table, {key: float(np.float32(value)) for key, value in logged.items()})

    def test_it_finds_what_is_in_the_log(self):
        (folder,) = self.run_folders("train", *self.digits)
        table = self.read(self.reader(folder))
        self.assert_is_the_log(table, folder)
        self.assertIn(("test_accuracy", 9), table)

    def test_every_student_is_a_series(self):
        (folder,) = self.run_folders("train", *self.students())
        table = self.read(self.reader(folder))
        self.assert_is_the_log(table, folder)
        self.assertEqual(len({name for name, _ in table if name.startswith("test_individual_losses/")}), 12)

    def test_a_resumed_run_is_there_once_and_whole_for_who_has_looked_before_too(self):
        self.interrupted("train", *self.digits, after=3)
        (folder,) = self.command("train", *self.digits, "--display_output_location")[1].splitlines()
        looking = self.reader(folder)
        self.assertTrue(self.read(looking))
        (events,) = Path(paths.tensorboard(folder)).iterdir()
        os.truncate(events, events.stat().st_size - 5)  # as a killed process leaves it
        self.run_folders("train", *self.digits)
        self.assert_is_the_log(self.read(self.reader(folder)), folder)
        self.assert_is_the_log(self.read(looking), folder)

    def test_a_tracker_that_comes_later_gets_what_came_before(self):
        flags, self.flags = self.flags, ()
        self.interrupted("train", *self.digits, after=3)
        self.flags = flags
        (folder,) = self.run_folders("train", *self.digits)
        self.assert_is_the_log(self.read(self.reader(folder)), folder)

    def test_every_level_is_a_run(self):
        folders = self.run_folders("lottery", *self.digits, "--levels=1")
        self.assertEqual(len(folders), 2)
        for folder in folders:
            self.assert_is_the_log(self.read(self.reader(folder)), folder)

    def test_it_changes_no_result(self):
        results = []
        for flags in (self.flags, ()):
            self.flags = flags
            (folder,) = self.run_folders("train", *self.digits)
            results.append([Path(folder, name).read_bytes() for name in ("logger", "model_ep3_it0.pth")])
            shutil.rmtree(folder)
        self.assertEqual(*results)

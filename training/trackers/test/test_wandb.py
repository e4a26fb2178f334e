"""What Weights & Biases keeps of a run without a network, read as its own messages."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import struct
from collections.abc import Iterator
from unittest import mock

from training.trackers.test.following import FollowingTestCase, Table
from training.trackers.wandb import run_id

BLOCK, HEADER = 32768, 7  # of the file format, which is that of LevelDB's log


def messages(path: str) -> Iterator[bytes]:
    """The messages in a file: fragments in blocks, each behind a checksum, a length, and its kind (1 whole, 2 first, 3 middle, 4 last)."""
    with open(path, "rb") as file:
        content = file.read()
    place, message = HEADER, b""  # the file begins with a mark of its own
    while place + HEADER <= len(content):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
        _, length, kind = struct.unpack("<IHB", content[place : place + HEADER])
        message += content[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):
            yield message
            message = b""


class TestWandB(FollowingTestCase):
    package = "wandb"
    flags = ("--tracker=wandb", "--tracker_mode=offline")

    @classmethod
    def tearDownClass(cls):
        import wandb

        wandb.teardown()  # at the end of the process it would fail on the exit status of unittest, which is a bool

    def records(self, folder: str) -> list:
        """The messages of the only run that is kept in a folder."""
        from wandb.proto.wandb_internal_pb2 import Record

        (path,) = glob.glob(os.path.join(folder, "wandb", "offline-run-*", "run-*.wandb"))
        return [Record.FromString(message) for message in messages(path)]

    def read(self, folder: str) -> Table:
        """What was logged; a value that is there twice is a failure."""
        found = []
        for record in self.records(folder):
            if record.HasField("history"):
                row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
                found += [((name, row["_step"]), value) for name, value in row.items() if not name.startswith("_")]
        self.assertEqual(len(found), len(dict(found)))
        return dict(found)

    def about(self, folder: str):
        """What the run is called."""
        return next(record.run for record in self.records(folder) if record.HasField("run"))

    def test_it_has_what_is_in_the_log_of_an_interrupted_run(self):
        self.interrupted("train", *self.digits, after=3)
        (folder,) = self.run_folders("train", *self.digits)
        self.assertEqual(self.read(folder), self.logged(folder))
        config = {item.key: json.loads(item.value_json) for item in self.about(folder).config.update}
        self.assertEqual((config["seed"], config["training_hparams"]["training_steps"]), (3, "3ep"))

    def test_every_student_is_a_series(self):
        (folder,) = self.run_folders("train", *self.students())
        self.assertEqual(self.read(folder), self.logged(folder))

    def test_every_level_is_a_run_of_one_group(self):
        folders = self.run_folders("lottery", *self.digits, "--levels=1")
        experiment = os.path.relpath(folders[0], self.root).split(os.sep)[0]
        for level, folder in enumerate(folders):
            self.assertEqual(self.read(folder), self.logged(folder))
            about = self.about(folder)
            self.assertEqual((about.run_group, about.job_type), (experiment, os.path.join(f"level_{level}", "main")))
        self.assertEqual(len({self.about(folder).run_id for folder in folders}), 2)

    def test_a_run_that_is_removed_and_made_again_has_another_id(self):
        folder = os.path.join(self.root, "train_0", "seed_3", "main")
        ids = []
        for _ in range(2):
            ids += [run_id(folder), run_id(folder)]
            shutil.rmtree(folder)
        self.assertEqual((ids[0], ids[2], len(set(ids))), (ids[1], ids[3], 2))

    def test_a_copy_of_a_run_has_another_id(self):
        folder = os.path.join(self.root, "train_0")
        number = run_id(folder)
        self.assertNotEqual(run_id(shutil.copytree(folder, f"{folder}_old")), number)

    def test_a_run_of_an_older_version_keeps_the_hash_of_its_path_as_id(self):
        folder = os.path.join(self.root, "train_0")
        os.makedirs(os.path.join(folder, "wandb"))
        number = hashlib.md5(os.path.realpath(folder).encode()).hexdigest()[:16]
        self.assertEqual((run_id(folder), os.listdir(folder)), (number, ["wandb"]))

    def test_the_environment_can_say_that_it_is_offline(self):
        import wandb

        self.flags = ("--tracker=wandb",)
        with mock.patch.dict(os.environ, WANDB_MODE="offline"):
            wandb.teardown()  # it looks to the environment once
            (folder,) = self.run_folders("train", *self.digits)
            wandb.teardown()
        self.assertEqual(self.read(folder), self.logged(folder))

    def test_who_is_not_known_to_the_service_is_refused_before_anything_is_written(self):
        import wandb

        unknown = mock.patch.object(wandb, "login", side_effect=wandb.errors.UsageError("No API key configured."))
        with unknown, mock.patch.dict(os.environ):
            os.environ.pop("WANDB_MODE", None)
            status, out, err = self.command("train", *self.digits, "--tracker=wandb")
        self.assertEqual((status, out, err.count("\n"), self.files()), (2, "", 1, []))
        self.assertIn("--tracker wandb: No API key configured; log in with `wandb login`", err)

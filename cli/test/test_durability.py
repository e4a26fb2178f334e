"""What is started twice, killed, or out of disk space, seen from the command line."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path
from unittest import mock

import numpy as np

from foundations import paths
from platforms.platform import get_platform
from platforms.system import processes
from testing import child
from testing.test_case import TestCase

TRAIN = ("train", "--default_hparams=digits_lenet_4", "--training_steps=3ep", "--momentum=0.9", "--global_seed=1")
LOTTERY = ("lottery", "--default_hparams=digits_lenet_4", "--training_steps=1ep", "--levels=1", "--global_seed=1")
BRANCH = ("lottery_branch", "randomly_prune", *LOTTERY[1:])
EXTRACT = (
    "extract", "--default_hparams=students_mlp(4)_3_6_1", "--act_fun=tanh", "--training_steps=300it", "--batch_size=30",
    "--finetune_training_steps=5it", "--gamma=0.5", "--global_seed=1", "--teacher_name=answers.npz",
)  # fmt: skip
ALWAYS = child.Checkpoints()
CHECKPOINT = 13  # the write of the tenth checkpoint; three files and a model come before


class DurabilityTest(TestCase):
    def setUp(self):
        super().setUp()
        self.sims = os.path.join(self.root, "sims")
        queries = np.random.RandomState(0).randn(60, 3)
        answers = np.tanh(queries @ [[1.0, -0.5], [0.5, 1.0], [0.3, -0.8]]) @ [[1.0], [-0.7]]
        np.savez(os.path.join(self.root, "answers.npz"), X=queries, y=answers)

    def start(self, *interferences, arguments=TRAIN) -> child.Child:
        arguments = [each.replace("answers.npz", os.path.join(self.root, "answers.npz")) for each in arguments]
        started = child.start(self.sims, arguments, *interferences)
        self.addCleanup(started.kill)
        return started

    def undisturbed(self, arguments=TRAIN) -> dict[str, bytes]:
        """What a run leaves that nobody disturbs, in another folder."""
        with mock.patch.object(self, "sims", os.path.join(self.root, f"undisturbed {arguments[0]}")):
            status, output = self.start(arguments=arguments).wait()
            self.assertEqual(status, 0, output)
            return child.contents(self.sims)

    def checkpoint(self) -> Path:
        (path,) = Path(self.sims).rglob("checkpoint.pth")
        return path

    def test_eight_starts_of_a_run_write_each_file_once_and_all_report_the_result(self):
        log = os.path.join(self.root, "writes")
        for arguments, outcome in (
            (TRAIN[:-1], "^Finished: test loss"),
            (EXTRACT, "^Verdict: "),
            (LOTTERY, "^Picture: .*levels_0-1.png"),
            (BRANCH, "^Picture: .*comparison.png"),
        ):
            with self.subTest(arguments[0]):
                ended = [each.wait() for each in [self.start(child.Writes(log), arguments=arguments) for _ in range(8)]]
                self.assertEqual([status for status, _ in ended], [0] * 8, ended)
                self.assertEqual(len({output.splitlines()[-1] for _, output in ended}), 1)
                self.assertRegex(ended[0][1].splitlines()[-1], outcome)
                with open(log) as file:
                    notes = [line.split() for line in file]
                again = "checkpoint.pth", "report.json"  # the report once before the pictures, and once with their seconds
                written = [path for _, path in notes if not path.endswith(again)]
                self.assertEqual(sorted(written), sorted(set(written)))
                for name in again:
                    self.assertLessEqual(len({process for process, path in notes if path.endswith(name)}), 1)
                self.assertTrue(any(path.endswith("checkpoint.pth") for _, path in notes))
                os.remove(log)
        self.assertEqual([path for path in child.files(self.sims) if os.path.basename(path).startswith(".")], [])

    def test_a_run_that_is_killed_in_a_write_ends_in_the_same_bits(self):
        expected = self.undisturbed()
        for stage in ("half", "whole", "between", "placed"):
            self.assertEqual(self.start(ALWAYS, child.DieInWrite(CHECKPOINT, stage)).wait()[0], -9)
            self.assertNotEqual(child.contents(self.sims), expected)
            self.assertEqual(self.start().wait()[0], 0)
            self.assertEqual(child.contents(self.sims), expected)
            self.clear()

    def test_the_error_for_a_file_over_the_size_limit_is_one_line_and_no_work_is_lost(self):
        self.assert_survives_full_disk(TRAIN, [("main/checkpoint.pth", 3)])

    def test_the_error_for_a_full_disk_is_one_line_and_no_work_is_lost(self):
        os.mkdir(self.sims)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", self.sims], capture_output=True, text=True, check=False)
        if mounted.returncode:
            self.skipTest(f"no small disk can be mounted here: {mounted.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "--lazy", self.sims], check=True)
        for arguments, places in (
            (TRAIN, [("main/checkpoint.pth", 3)]),
            (EXTRACT, [("main/checkpoint.pth", 3), ("finetune_checkpoints", 2)]),
            (LOTTERY, [("level_1/main/mask.pth", 1)]),
        ):
            with self.subTest(arguments[0]):
                self.assert_survives_full_disk(arguments, places, os.path.join(self.sims, "ballast"))
                self.clear()

    def clear(self):
        """Removes the files of all runs. The results folder stays, because it may be a mounted disk."""
        for each in Path(self.sims).iterdir():
            shutil.rmtree(each) if each.is_dir() else each.unlink()

    def assert_survives_full_disk(self, arguments: tuple[str, ...], places: list[tuple[str, int]], ballast: str | None = None):
        """Checks that starts fail at the n-th write of a path on a full disk, and that the last start ends in the same bits."""
        expected, before = self.undisturbed(arguments), Path(self.root, "before")
        error = "No space left on device" if ballast else "File too large"
        for part, number in places:
            before.unlink(missing_ok=True)
            full = child.DiskFull(part, number, str(before), ballast)
            status, output = self.start(ALWAYS, full, arguments=arguments).wait()
            line = output.splitlines()[-1]
            self.assertRegex(line, rf"^EC.py {arguments[0]}: {self.sims}.*{part}.* cannot be written \({error}\); .* intact$")
            self.assertEqual((status, "Traceback" in output), (2, False), output)
            path, left = Path(line.split()[2]), set(child.files(self.sims))
            self.assertEqual(path.exists() and path.read_bytes(), before.exists() and before.read_bytes())
            self.assertEqual([name for name in left if os.path.basename(name).startswith(".")], [])
            if ballast:
                status, output = self.start(arguments=arguments).wait()
                self.assertRegex(output.splitlines()[-1], rf"^EC.py {arguments[0]}: {self.sims}.* cannot be written \({error}\)")
                self.assertEqual((status, set(child.files(self.sims))), (2, left), output)
                os.remove(ballast)
        self.assertEqual(self.start(arguments=arguments).wait()[0], 0)
        self.assertEqual(child.contents(self.sims), expected)

    def test_a_run_with_a_damaged_checkpoint_continues_from_the_previous_one(self):
        expected = self.undisturbed()
        self.start(ALWAYS, child.DieInWrite(CHECKPOINT, "half")).wait()
        os.truncate(self.checkpoint(), 2000)
        status, output = self.start().wait()
        self.assertEqual(status, 0)
        self.assertRegex(output, rf"(?m)^{self.checkpoint()} is damaged .*resuming from the previous checkpoint$")
        self.assertEqual(child.contents(self.sims), expected)

    def test_a_start_that_does_not_wait_for_a_busy_run_exits_with_status_3(self):
        _, out, _ = self.command(*TRAIN, "--display_output_location")
        holder = dataclasses.replace(processes.this(), pid=os.getppid(), started=processes._start_of(os.getppid()) or "")
        get_platform().write(paths.lock(out.strip()), holder.to_json())
        before = self.files()
        status, _, err = self.command(*TRAIN, "--no-wait")
        self.assertEqual((status, err.count("\n"), self.files()), (3, 1, before))
        self.assertIn(f"process {os.getppid()} on {holder.host}", err)

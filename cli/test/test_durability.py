"""What is started twice, killed, or out of disk space, seen from the command line."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path

import numpy as np

from foundations import paths
from platforms import process
from platforms.platform import get_platform
from testing import child
from testing.test_case import TestCase

TRAIN = ("train", "--default_hparams=digits_lenet_4", "--training_steps=3ep", "--momentum=0.9", "--global_seed=1")
LOTTERY = ("lottery", "--default_hparams=digits_lenet_4", "--training_steps=1ep", "--levels=1", "--global_seed=1")
BRANCH = ("lottery_branch", "randomly_prune", *LOTTERY[1:])
ALWAYS = child.Checkpoints()
CHECKPOINT = 13  # the write of the tenth checkpoint; three files and a model come before
STARTED = ("checkpoint.pth", "provenance.json")


def extract(folder: str) -> tuple[str, ...]:
    """An extraction from a file of answers, which it makes."""
    path, queries = os.path.join(folder, "answers.npz"), np.random.RandomState(0).randn(60, 3)
    np.savez(path, X=queries, y=np.tanh(queries @ [[1.0, -0.5], [0.5, 1.0], [0.3, -0.8]]) @ [[1.0], [-0.7]])
    small = ("--training_steps=300it", "--batch_size=30", "--finetune_training_steps=5it", "--gamma=0.5", "--global_seed=1")
    return ("extract", "--default_hparams=students_mlp(4)_3_6_1", "--act_fun=tanh", f"--teacher_name={path}", *small)


class DurabilityTest(TestCase):
    def setUp(self):
        super().setUp()
        self.sims = os.path.join(self.root, "sims")

    def start(self, *interferences, arguments=TRAIN) -> child.Child:
        started = child.start(self.sims, arguments, *interferences)
        self.addCleanup(started.kill)
        return started

    def results(self) -> dict[str, bytes]:
        """The content of every file of the runs but pictures, checkpoints, and when they were started."""
        found = {path: path.read_bytes() for path in Path(self.sims).rglob("*") if path.is_file()}
        return {str(path): content for path, content in found.items() if path.suffix != ".png" and path.name not in STARTED}

    def undisturbed(self) -> dict[str, bytes]:
        """What the run leaves that nobody disturbs; afterwards its folder is gone."""
        self.assertEqual(self.start().wait()[0], 0)
        found = self.results()
        os.rename(self.sims, tempfile.mkdtemp(dir=self.root))
        return found

    def checkpoint(self) -> Path:
        (path,) = Path(self.sims).rglob("checkpoint.pth")
        return path

    def test_of_eight_that_start_the_same_run_one_works_all_report_and_nothing_is_written_twice(self):
        log = os.path.join(self.root, "writes")
        for arguments, outcome in (
            (TRAIN[:-1], "^Finished: test loss"),
            (extract(self.root), "^Verdict: "),
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
                written = [path for _, path in notes if not path.endswith("checkpoint.pth")]
                self.assertEqual(sorted(written), sorted(set(written)))
                self.assertEqual(len({process for process, path in notes if path.endswith("checkpoint.pth")}), 1)
                os.remove(log)
        self.assertEqual([path for path in self.results() if os.path.basename(path).startswith(".")], [])

    def test_a_run_that_is_killed_in_a_write_ends_in_the_same_bits(self):
        expected = self.undisturbed()
        for stage in ("half", "whole", "between"):
            self.assertEqual(self.start(ALWAYS, child.DieInWrite(CHECKPOINT, stage)).wait()[0], -9)
            self.assertNotEqual(self.results(), expected)
            self.assertEqual(self.start().wait()[0], 0)
            self.assertEqual(self.results(), expected)
            os.rename(self.sims, tempfile.mkdtemp(dir=self.root))

    def test_a_full_disk_is_named_in_one_line_and_costs_nothing(self):
        expected = self.undisturbed()
        self.start(ALWAYS, child.DieInWrite(CHECKPOINT, "half")).wait()
        before = self.checkpoint().read_bytes()
        status, output = self.start(ALWAYS, child.FileSizeLimit(len(before) - 1)).wait()
        self.assertEqual(status, 2)
        self.assertRegex(output.splitlines()[-1], f"^EC.py train: {self.checkpoint()} cannot be written .File too large.*intact$")
        self.assertNotIn("Traceback", output)
        self.assertEqual(self.checkpoint().read_bytes(), before)
        self.assertFalse([name for name in os.listdir(self.checkpoint().parent) if name.startswith(".")])
        self.assertEqual(self.start().wait()[0], 0)
        self.assertEqual(self.results(), expected)

    def test_a_damaged_checkpoint_costs_no_more_than_what_came_after_the_one_before(self):
        expected = self.undisturbed()
        self.start(ALWAYS, child.DieInWrite(CHECKPOINT, "half")).wait()
        os.truncate(self.checkpoint(), 2000)
        status, output = self.start().wait()
        self.assertEqual(status, 0)
        self.assertRegex(output, rf"(?m)^{self.checkpoint()} is damaged .*going on from the checkpoint before it$")
        self.assertEqual(self.results(), expected)

    def test_who_does_not_wait_for_a_run_leaves_with_a_status_of_its_own(self):
        _, out, _ = self.command(*TRAIN, "--display_output_location")
        holder = dataclasses.replace(process.this(), pid=os.getppid(), started=process._start_of(os.getppid()) or "")
        get_platform().write(paths.lock(out.strip()), holder.to_json())
        before = self.files()
        status, _, err = self.command(*TRAIN, "--no-wait")
        self.assertEqual((status, err.count("\n"), self.files()), (3, 1, before))
        self.assertIn(f"process {os.getppid()} on {holder.host}", err)

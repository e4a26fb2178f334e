"""An array of seeds on a real SLURM, where one is put back as its time is up and one makes way for somebody else."""

from __future__ import annotations

import os
import re
from unittest import mock

import torch

from testing import private_slurm
from testing.private_slurm import wait_until
from testing.test_case import TestCase, need

TRAIN = ("train", "--default_hparams=digits_lenet_16", "--training_steps=150ep")  # a second at least, in which it has to be caught
SUBMIT = (*TRAIN, "--platform=slurm", "--seeds=0-2", "--at_once=2")


class TestCluster(TestCase):
    @classmethod
    def setUpClass(cls):
        need(private_slurm.missing(), "EC_REQUIRE_SLURM")

    def setUp(self):
        super().setUp()
        patch = mock.patch.dict(os.environ, OMP_NUM_THREADS="1")  # other threads may add in another order
        patch.start()
        self.addCleanup(patch.stop)
        self.addCleanup(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)

    def run_locally(self, root: str) -> None:
        """The plain loop."""
        with mock.patch.dict(os.environ, EC_ROOT=root):
            for seed in range(3):
                self.assertEqual(self.command(*TRAIN, f"--global_seed={seed}", "--quiet"), (0, "", ""))

    def ask(self) -> tuple[list[str], str]:
        """Starts the command for the cluster; returns the state of each seed, and all that was printed."""
        status, out, err = self.command(*SUBMIT)
        self.assertEqual((status, err), (0, ""))
        return re.findall(r"(?m)^seed \d: (\w+)", out), out

    def has_begun(self, seed: int) -> bool:
        """Whether the first update of a run is being made, or others after it."""
        return any(f"seed_{seed}{os.sep}main{os.sep}model_ep0_it0.pth" in name for name in self.files())

    def results(self, root: str) -> dict[str, bytes]:
        """The weights and the telemetry of all runs under a root."""
        found = {}
        for folder, _, names in os.walk(root):
            for name in names:
                if name == "logger" or name.startswith("model_"):
                    path = os.path.join(folder, name)
                    with open(path, "rb") as file:
                        found[os.path.relpath(path, root)] = file.read()
        return found

    def log(self, job: str, seed: int) -> str:
        """What one task of a job has printed."""
        (name,) = (name for name in self.files() if name.endswith(f"{job}_{seed}.log"))
        with open(os.path.join(self.root, name)) as file:
            return file.read()

    def two_run(self) -> bool:
        """Whether seeds 0 and 1 run and seed 2 waits, which asking does not change."""
        states, out = self.ask()
        self.assertNotIn("Submitted", out)
        return states == ["running", "running", "pending"]

    def restarts(self, task: str) -> int:
        """How often SLURM has started a task again."""
        return int(re.search(r"Restarts=(\d+)", private_slurm.run("scontrol", "show", "job", task))[1])

    def test_an_array_with_a_requeue_and_a_preemption_gives_what_a_plain_loop_gives(self):
        with private_slurm.running():
            job = re.search(r"^Submitted job (\d+)", self.ask()[1])[1]
            wait_until(self.two_run, "two of three run")
            wait_until(lambda: self.has_begun(0), "seed 0 trains")
            private_slurm.run("scancel", "--batch", "--signal=USR1", f"{job}_0")

            wait_until(lambda: self.has_begun(2), "seed 2 trains")
            private_slurm.run("scancel", "--full", "--signal=STOP", f"{job}_2")  # it waits where it is until SLURM wants its place
            private_slurm.run("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
            wait_until(lambda: not private_slurm.run("squeue", "--noheader"), "all jobs are over")

            for seed in (0, 2):
                self.assertGreaterEqual(self.restarts(f"{job}_{seed}"), 1)
                self.assertRegex(self.log(job, seed), rf"seed_{seed}/main has stopped at ep\d+_it\d+")
            states, out = self.ask()
            self.assertEqual((states, "Submitted" in out), (["finished"] * 3, False))

        ours, local = self.results(self.root), os.path.join(self.root, "local")
        self.run_locally(local)
        self.assertEqual(len(ours), 9)
        self.assertEqual(self.results(local), ours)

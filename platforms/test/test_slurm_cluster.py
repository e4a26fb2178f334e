"""An array of seeds on a real SLURM. One task is requeued at its time limit, and one is preempted."""

from __future__ import annotations

import os
import re
from unittest import mock

import torch

from testing import private_slurm
from testing.private_slurm import wait_until
from testing.test_case import TestCase, need

TRAIN = ("train", "--default_hparams=digits_lenet_16", "--training_steps=150ep")  # long enough to be interrupted
SUBMIT = (*TRAIN, "--platform=slurm", "--seeds=0-2", "--at_once=2")


class TestCluster(TestCase):
    @classmethod
    def setUpClass(cls):
        need(private_slurm.missing(), "EC_REQUIRE_SLURM")

    def setUp(self):
        super().setUp()
        patch = mock.patch.dict(os.environ, OMP_NUM_THREADS="1")  # the order of additions depends on the number of threads
        patch.start()
        self.addCleanup(patch.stop)
        self.addCleanup(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)

    def run_locally(self, root: str) -> None:
        """Runs the seeds one after the other in this process."""
        with mock.patch.dict(os.environ, EC_ROOT=root):
            for seed in range(3):
                self.assertEqual(self.command(*TRAIN, f"--global_seed={seed}", "--quiet"), (0, "", ""))

    def submit(self) -> tuple[list[str], str]:
        """Starts the command for the cluster. Returns the state of each seed, and the whole output."""
        status, out, err = self.command(*SUBMIT)
        self.assertEqual((status, err), (0, ""))
        return re.findall(r"(?m)^seed \d: (\w+)", out), out

    def has_begun(self, seed: int) -> bool:
        """Whether the training of a run has started."""
        return any(f"seed_{seed}{os.sep}main{os.sep}model_ep0_it0.pth" in name for name in self.files())

    def results(self, root: str) -> dict[str, bytes]:
        """The weights and the metrics of all runs under a root."""
        contents = {}
        for folder, _, names in os.walk(root):
            for name in names:
                if name == "logger" or name.startswith("model_"):
                    path = os.path.join(folder, name)
                    with open(path, "rb") as file:
                        contents[os.path.relpath(path, root)] = file.read()
        return contents

    def log(self, job: str, seed: int) -> str:
        """The output of one task of a job."""
        (name,) = (name for name in self.files() if name.endswith(f"{job}_{seed}.log"))
        with open(os.path.join(self.root, name)) as file:
            return file.read()

    def two_tasks_run(self) -> bool:
        """Whether seeds 0 and 1 run and seed 2 waits. The command submits nothing more."""
        states, out = self.submit()
        self.assertNotIn("Submitted", out)
        return states == ["running", "running", "pending"]

    def restarts(self, task: str) -> int:
        """How often SLURM has restarted a task."""
        return int(re.search(r"Restarts=(\d+)", private_slurm.run("scontrol", "show", "job", task))[1])

    def test_an_array_with_a_requeue_and_a_preemption_gives_the_results_of_a_plain_loop(self):
        with private_slurm.running():
            job = re.search(r"^Submitted job (\d+)", self.submit()[1])[1]
            wait_until(self.two_tasks_run, "two of three tasks run")
            wait_until(lambda: self.has_begun(0), "seed 0 trains")
            private_slurm.run("scancel", "--batch", "--signal=USR1", f"{job}_0")

            wait_until(lambda: self.has_begun(2), "seed 2 trains")
            private_slurm.run("scancel", "--full", "--signal=STOP", f"{job}_2")  # the task is suspended until SLURM preempts it
            private_slurm.run("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
            wait_until(lambda: not private_slurm.run("squeue", "--noheader"), "all jobs are over")

            for seed in (0, 2):
                self.assertGreaterEqual(self.restarts(f"{job}_{seed}"), 1)
                self.assertRegex(self.log(job, seed), rf"seed_{seed}/main has stopped at ep\d+_it\d+")
            states, out = self.submit()
            self.assertEqual((states, "Submitted" in out), (["finished"] * 3, False))

        ours, local = self.results(self.root), os.path.join(self.root, "local")
        self.run_locally(local)
        self.assertEqual(len(ours), 9)
        self.assertEqual(self.results(local), ours)

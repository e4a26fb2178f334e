"""Sweeps: plans, runs, stops and restarts."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import stat
import time
from collections.abc import Callable
from unittest import mock

import EC
from cli.sweep import work
from cli.sweep.plan import STATES
from foundations import paths
from platforms.system import processes
from testing import child, run_folders
from testing.test_case import TestCase
from training.train import standard_train

TRAIN = ("train", "--default_hparams=digits_lenet_4", "--training_steps=1ep")
PATIENCE = 60.0


class Deadly:
    """A task that kills the process that receives it."""

    def __reduce__(self):
        return signal.raise_signal, (signal.SIGKILL,)


def planned(output: str) -> dict[tuple[str, int], str]:
    """The state of every run in a printed plan, by short hash and seed."""
    plan = {}
    for state, short, seeds in re.findall(rf"^  ({'|'.join(STATES)}) +(\w+) +seeds? ([\d,-]+)", output, re.MULTILINE):
        for part in seeds.split(","):
            first, _, last = part.partition("-")
            plan |= {(short, seed): state for seed in range(int(first), int(last or first) + 1)}
    return plan


class SweepTestCase(TestCase):
    def sweep(self, *arguments: str, status: int = 0) -> str:
        exit_status, out, err = self.command("sweep", *arguments)
        self.assertEqual(exit_status, status, out + err)
        return out if status == 0 else out + err

    def folder(self, *arguments: str) -> str:
        return self.command(*TRAIN, *arguments, "--display_output_location")[1].strip()

    def starts(self) -> dict[str, int]:
        """The number of starts of each run, by its folder."""
        starts = {}
        for folder, _, names in os.walk(self.root):
            if "provenance.json" in names:
                with open(paths.provenance(folder)) as file:
                    starts[folder] = len(json.load(file)["starts"])
        return starts


class TestPlan(SweepTestCase):
    def test_the_plan_shows_the_state_of_each_run_and_writes_nothing(self):
        folders = [self.folder(f"--lr={lr}", "--global_seed=3") for lr in (0.1, 0.2, 0.3, 0.4, 0.5)]
        run_folders.finish(folders[0])
        run_folders.write(paths.hparams_log(folders[1]), "cut sh")
        run_folders.write(paths.failure(folders[2]), json.dumps({"error": "ValueError: no"}))
        run_folders.write(paths.hparams_dict(folders[2]), "{}\n")
        holder = dataclasses.replace(processes.this(), pid=os.getppid(), started=processes._start_of(os.getppid()) or "")
        run_folders.write(paths.lock(folders[3]), holder.to_json())
        before = self.files()
        out = self.sweep(*TRAIN, "--lr=0.1,0.2,0.3,0.4,0.5", "--global_seed=3", "--dry_run")
        self.assertEqual(self.files(), before)
        self.assertIn("5 runs, 1 finished, 1 running, 1 resumes, 1 failed, 1 new", out.splitlines()[0])
        lines = out.splitlines()[1:6]
        for line, folder, state, lr in zip(
            lines, folders, ("finished", "resumes", "failed", "running", "new"), (0.1, 0.2, 0.3, 0.4, 0.5), strict=True
        ):
            short = folder.split("train_")[1][:6]
            self.assertRegex(line, rf"^  {state} +{short} +seed 3  lr={lr}\b")
        self.assertIn("(ValueError: no)", lines[2])
        self.assertIn(f"process {os.getppid()} on", lines[3])

    def test_seeds_of_an_experiment_share_a_line_and_different_spellings_of_a_model_are_one_run(self):
        out = self.sweep(*TRAIN, "--model_name=digits_lenet_4,digits_lenet,digits_lenet_16", "--global_seed=0-2,7", "--dry_run")
        self.assertEqual(out.splitlines()[0], "Sweep of train: 8 runs, 8 new")
        self.assertEqual([line.split("  ")[3] for line in out.splitlines()[1:]], ["seeds 0-2,7"] * 2)

    def test_an_invalid_sweep_is_an_error_in_one_line_before_anything_is_written(self):
        cluster = ("--platform=slurm", "--global_seed=0-1")
        for arguments, words in (
            ((*TRAIN, "--lr=0.1,0", "--momentum=0,0.9"), ("lr=0, momentum=0: --lr:", "more than 0")),
            ((*TRAIN, "--act_fun=relu,tahn"), ("act_fun=tahn: --act_fun:", "did you mean 'tanh'")),
            ((*TRAIN, "--lrr=1,2"), ("lrr=1: --lrr=1", "did you mean '--lr'")),
            ((*TRAIN, "--parallel=0"), ("--parallel: 0", "1 to 1,000")),
            ((*TRAIN, "--platform=distributed"), ("--platform: distributed", "local, slurm")),
            ((*TRAIN, *cluster, "--parallel=2"), ("--parallel:", "--at_once")),
            ((*TRAIN, "--platform=slurm", "--seeds=0-3"), ("--seeds:", "--global_seed 0-4")),
            ((*TRAIN, "--display_output_location"), ("--display_output_location:", "--dry_run")),
            (("trian",), ("'trian'", "did you mean 'train'", "extract, lottery, lottery_branch, train\n")),
            (("--lr=1", "train"), ("comes first", "--lr=1")),
            (("lottery", *TRAIN[1:], "--levels=0-2"), ("--levels", "'0-2'", "whole number")),
        ):
            with self.subTest(arguments):
                status, out, err = self.command("sweep", *arguments)
                self.assertEqual((status, out, err.count("\n"), self.files()), (2, "", 1, []), err)
                for word in words:
                    self.assertIn(word, err)


class TestSweep(SweepTestCase):
    def test_a_failed_run_does_not_stop_the_others_and_runs_again_with_retry_failed(self):
        def fail_once(*arguments: object, **options: object) -> None:
            if "seed_1" in arguments[3]:
                raise ZeroDivisionError("by zero")
            standard_train(*arguments, **options)

        command = (*TRAIN, "--global_seed=0-2", "--quiet")
        with mock.patch("training.train.standard_train", fail_once):
            out = self.sweep(*command, status=1)
        self.assertRegex(out, r"Not finished:\n  train \w+ seed 1: failed, ZeroDivisionError: by zero\n")
        self.assertRegex(out.splitlines()[-1], "^EC.py sweep: 1 of 3 runs not finished: 1 failed$")
        self.assertRegex(out, r"(?m)^train +\w+ +0-2 +2 finished, 1 failed")
        again = self.sweep(*command, status=1)
        self.assertEqual(sorted(planned(again).values()), ["failed", "finished", "finished"])
        self.assertIn("--retry_failed", again)
        self.assertNotIn("[", again)
        before = self.starts()
        out = self.sweep(*command, "--retry_failed")
        self.assertRegex(out, r"(?m)^train +\w+ +0-2 +finished .* ± ")
        self.assertEqual({folder: self.starts()[folder] for folder in before}, before)

    def test_a_run_records_the_command_that_repeats_this_run_alone(self):
        self.sweep(*TRAIN, "--lr", "0.1,0.2", "--global_seed=4", "--quiet")
        with open(paths.provenance(self.folder("--lr=0.2", "--global_seed=4"))) as file:
            recorded = json.load(file)["command"]
        self.assertEqual(recorded, f"python EC.py {' '.join(TRAIN)} --lr=0.2 --global_seed=4 --quiet")

    def test_a_run_of_another_process_is_tried_last_and_skipped_with_no_wait(self):
        holder = dataclasses.replace(processes.this(), pid=os.getppid(), started=processes._start_of(os.getppid()) or "")
        run_folders.write(paths.lock(self.folder("--global_seed=0")), holder.to_json())
        out = self.sweep(*TRAIN, "--global_seed=0-1", "--quiet", "--no-wait", status=3)
        self.assertRegex(out, rf"\[0/2\] busy: train \w+ seed 0 \(.* process {os.getppid()} on .*\)\n\[0/2\] running: .* seed 1\n")
        self.assertEqual([os.path.exists(paths.logger(self.folder(f"--global_seed={seed}"))) for seed in (0, 1)], [False, True])

    def test_on_a_cluster_the_seeds_of_an_experiment_are_an_array(self):
        for name, does in (("sbatch", f"cat >> {self.root}/scripts; echo 17"), ("squeue", "")):
            path = run_folders.write(os.path.join(self.root, "bin", name), f"#!/bin/bash\n{does}\n")
            os.chmod(path, stat.S_IRWXU)
        with mock.patch.dict(os.environ, PATH=f"{self.root}/bin{os.pathsep}{os.environ['PATH']}"):
            out = self.sweep(*TRAIN, "--lr=0.1,0.2", "--global_seed=0-2,5", "--platform=slurm", "--partition=a,b")
        with open(os.path.join(self.root, "scripts")) as file:
            scripts = file.read()
        self.assertEqual(re.findall("#SBATCH --(array|partition)=(.*)", scripts), [("array", "0-2,5"), ("partition", "a,b")] * 2)
        self.assertEqual(re.findall(r"--lr=(0\.\d)", scripts), ["0.1", "0.2"])
        self.assertEqual(len(re.findall("submitted as 17", out)), 8)


class TestStopping(SweepTestCase):
    def setUp(self):
        super().setUp()
        self.sims = os.path.join(self.root, "sims")

    def start(self, *arguments: str) -> child.Child:
        started = child.start(
            self.sims, ("sweep", *TRAIN, *arguments), child.Checkpoints(), child.Writes(os.path.join(self.root, "writes"))
        )
        self.addCleanup(started.kill)
        return started

    def loggers(self) -> list[str]:
        return [path for path in child.files(self.sims) if path.endswith("/logger")] if os.path.exists(self.sims) else []

    def interrupt(self, started: child.Child, number: int, when: Callable[[], bool]) -> tuple[int, str]:
        """Sends a signal as soon as `when` is true, and waits for the end of the process."""
        end = time.monotonic() + PATIENCE
        while not when() and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(started.process.pid, number)
        return started.wait()

    def test_the_third_start_finishes_twelve_runs_after_two_interruptions_and_trains_none_twice(self):
        command = ("--lr=0.05,0.1,0.2", "--global_seed=0-3", "--quiet")
        for finished in (3, 7):
            status, output = self.interrupt(self.start(*command), signal.SIGINT, lambda least=finished: len(self.loggers()) >= least)
            self.assertEqual((status, "Traceback" in output), (130, False), output)
            self.assertLess(len(self.loggers()), 12)
        finished, before = self.loggers(), self.starts()
        begun = {os.path.dirname(path) for path in child.files(self.sims)}
        status, output = self.start(*command).wait()
        self.assertEqual((status, len(self.loggers())), (0, 12), output)
        plan, after = planned(output), self.starts()
        self.assertEqual(len(plan), 12)
        for folder, starts in after.items():
            path = os.path.relpath(folder, self.sims)
            short, seed = re.match(r"train_(\w{6})\w+/seed_(\d)", path).groups()
            done = f"{path}/logger" in finished
            with self.subTest(path):
                self.assertEqual(plan[short, int(seed)], "finished" if done else "resumes" if path in begun else "new")
                self.assertEqual(starts, before[folder] if done else before.get(folder, 0) + 1)
        with open(os.path.join(self.root, "writes")) as file:
            written = [path for _, path in map(str.split, file) if os.path.basename(path).startswith(("logger", "model_"))]
        self.assertEqual((len(written), len(set(written))), (36, 36))
        self.assertEqual(self.start(*command).wait()[0], 0)
        self.assertEqual(self.starts(), after)

    def test_a_stopped_parallel_sweep_ends_in_the_same_bits_as_a_sequential_one(self):
        command = ("--lr=0.1,0.2", "--global_seed=0-1", "--quiet")
        status, output = self.interrupt(self.start(*command, "--parallel=2"), signal.SIGTERM, lambda: len(self.loggers()) >= 1)
        self.assertEqual((status, "Traceback" in output), (75, False), output)
        self.assertEqual([path for path in child.files(self.sims) if os.path.basename(path).startswith(".")], [])
        status, output = self.start(*command).wait()
        self.assertEqual((status, len(self.loggers())), (0, 4), output)
        contents = child.contents(self.sims)
        with mock.patch.object(self, "sims", os.path.join(self.root, "in sequence")):
            self.assertEqual(self.start(*command).wait()[0], 0)
            self.assertEqual(child.contents(self.sims), contents)

    def test_only_the_run_of_a_killed_process_fails(self):
        tasks = [Deadly(), work.Task(TRAIN[0], (*TRAIN[1:], "--global_seed=0"))]
        outcomes = dict(work.run_in_parallel(EC.COMMANDS, tasks, 1))
        self.assertEqual(outcomes, {0: work.Outcome("failed", "its process was killed by SIGKILL"), 1: work.Outcome("finished")})

    def test_worker_processes_share_cores_and_gpus(self):
        with mock.patch("torch.get_num_threads", return_value=7), mock.patch.dict(os.environ, CUDA_VISIBLE_DEVICES="4,GPU-x"):
            environments = work.worker_environments(3)
        self.assertEqual([threads for _, threads in environments], [2, 2, 2])
        self.assertEqual([values["CUDA_VISIBLE_DEVICES"] for values, _ in environments], ["4", "GPU-x", "4"])
        self.assertEqual({values["OMP_NUM_THREADS"] for values, _ in environments}, {"2"})

"""Several processes that share a job give the results of a single process. The processes are real and communicate by Gloo."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np
import torch

import EC
from foundations.errors import ConfigError
from platforms.system import signals
from testing import child, dataset_files
from testing.test_case import TestCase
from training.metric_logger import MetricLogger

CHECKOUT = os.path.dirname(os.path.abspath(EC.__file__))
EXACT = ("--precision=float64", "--global_seed=0")
TRAIN = ("train", "--default_hparams=digits_lenet_16", "--training_steps=2ep", *EXACT)
ODD = "--batch_size=359"  # the last batch has one of the 1437 examples, so the second process has none


@dataclass(frozen=True)
class JoinJob:
    """Sets the environment variables of torchrun or of srun that make a process part of a job, and further variables."""

    rank: int
    count: int
    port: int
    srun: bool = False
    variables: dict[str, str] = field(default_factory=dict)

    def __call__(self) -> None:
        names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID") if self.srun else ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        os.environ.update(zip(names, map(str, (self.rank, self.count, self.rank)), strict=True), MASTER_PORT=str(self.port))
        os.environ.update({} if self.srun else {"MASTER_ADDR": "127.0.0.1"}, **self.variables)


@dataclass(frozen=True)
class RejectPrecision:
    """Makes the check of the number format fail in this process only."""

    def __call__(self) -> None:
        def check(training_hparams):
            raise ConfigError("no --precision of this")

        child.train.arithmetic.check = check


@dataclass(frozen=True)
class StopAt:
    """Sends a signal to the process when its training reaches a step."""

    iteration: int

    def __call__(self) -> None:
        step = child.train.Schedule.step

        def step_and_signal(schedule, loss):
            step(schedule, loss)
            if schedule.iteration == self.iteration:
                os.kill(os.getpid(), signal.SIGUSR1)

        child.train.Schedule.step = step_and_signal


def free_port() -> int:
    with contextlib.closing(socket.socket()) as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def values_of(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of weights, or the values of each metric of a log, in float64."""
    if path.name != "logger":
        return {name: values.double() for name, values in torch.load(path, weights_only=True).items()}
    log = MetricLogger.load(str(path.parent))
    return {name: torch.tensor([value for _, value in log.get(name)], dtype=torch.float64) for name in log.names()}


class DistributedTest(TestCase):
    def together(self, name: str, arguments: Sequence[str], count: int = 2, interferences=(), **variables) -> list[tuple[int, str]]:
        """Runs a command in several processes that share it. Returns the exit status and the output of each process."""
        port, root, children = free_port(), os.path.join(self.root, name), []
        for rank in range(count):
            own = [interference for place, interference in interferences if place == rank]
            command = [*arguments, "--platform=distributed"]
            children.append(child.start(root, command, JoinJob(rank, count, port, **variables), *own))
            self.addCleanup(children[-1].kill)
        return [process.wait(60) for process in children]

    def alone(self, arguments: Sequence[str], name: str = "alone", variables: dict[str, str] | None = None) -> None:
        """Runs a command in one process. It must succeed."""
        started = child.start(os.path.join(self.root, name), arguments, JoinJob(0, 1, 0, variables=variables or {}))
        self.addCleanup(started.kill)
        status, output = started.wait(60)
        self.assertEqual(status, 0, output)

    def run_both(self, arguments: Sequence[str], count: int = 2, **variables) -> None:
        """Runs a command in one process (folder `alone`) and in several (folder `shared`)."""
        for status, output in self.together("shared", arguments, count, **variables):
            self.assertEqual(status, 0, output)
        self.alone(arguments, variables=variables.get("variables"))

    def files_of(self, name: str, pattern: str) -> dict[str, Path]:
        root = Path(self.root) / name
        return {str(path.relative_to(root)): path for path in root.rglob(pattern)}

    @contextlib.contextmanager
    def subfolder(self, name: str) -> Iterator[None]:
        """Within the block the root is a subfolder."""
        with mock.patch.object(self, "root", os.path.join(self.root, name)):
            os.mkdir(self.root)
            yield

    def difference(self, pattern: str) -> float:
        """The largest difference between the values in files of `shared` and `alone`, relative to the largest of a tensor or metric."""
        shared, alone = (self.files_of(name, "*") for name in ("shared", "alone"))
        self.assertEqual([name for name in {*shared} ^ {*alone} if "/finetune_checkpoints/" not in name], [])
        differences = []
        for name, path in self.files_of("alone", pattern).items():
            ours, theirs = values_of(shared[name]), values_of(path)
            self.assertEqual(ours.keys(), theirs.keys())
            for key, expected in theirs.items():
                differences.append(float((ours[key] - expected).abs().max() / expected.abs().max().clamp_min(1e-30)))
        return max(differences)


class TestBatches(DistributedTest):
    def test_torchrun_gives_the_results_of_one_process_with_one_seed_for_all_processes(self):
        arguments = ("train", "--default_hparams=digits_lenet_16", "--training_steps=2ep", "--precision=float64", ODD)
        folders = {"EC_ROOT": os.path.join(self.root, "shared"), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}", "EC.py"]
        command = [*torchrun, *arguments, "--momentum=0.9", "--platform=distributed"]
        done = subprocess.run(command, cwd=CHECKOUT, env=os.environ | folders, capture_output=True, text=True, timeout=120)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(len(re.findall("^Finished: test loss", done.stdout, re.MULTILINE)), 1)
        (record,) = self.files_of("shared", "hparams_dict").values()
        seed = json.loads(record.read_text())["seed"]
        self.alone([*arguments, "--momentum=0.9", f"--global_seed={seed}"])
        os.rename(record.parent.parent, record.parent.parent.with_name(f"seed_{seed}"))
        self.assertLess(max(self.difference("model_*.pth"), self.difference("logger")), 1e-10)

    def test_batchnorm_uses_whole_batches_and_each_image_is_read_by_one_process(self):
        dataset_files.write_imagenet(os.environ["EC_IMAGENET_ROOT"], classes=3, train=3, test=1)
        variables = {"EC_IMAGENET_ROOT": os.environ["EC_IMAGENET_ROOT"]}
        arguments = ("train", "--default_hparams=imagenet_resnet_18_2", "--training_steps=1ep", "--batch_size=4", *EXACT)
        self.run_both((*arguments, "--warmup_steps=1it", "--lr=0.01"), variables=variables)
        self.assertLess(max(self.difference("model_*.pth"), self.difference("logger")), 1e-10)

    def test_second_order_optimizers_and_plateau_schedules_use_whole_batches(self):
        for name, flags in (("lbfgs", ["--optimizer_name=lbfgs", "--lr=1"]), ("plateau", ["--plateau_opt", "--patience=0", "--lr=1"])):
            with self.subTest(name), self.subfolder(name):
                self.run_both((*TRAIN, ODD, *flags))
                self.assertLess(max(self.difference("model_*.pth"), self.difference("logger")), 1e-10)


class TestStudents(DistributedTest):
    def setUp(self):
        super().setUp()
        generator = torch.Generator().manual_seed(0)
        queries, weights = torch.randn(300, 3, generator=generator), torch.randn(3, 2, generator=generator)
        self.answers = os.path.join(self.root, "answers.npz")
        np.savez(self.answers, X=queries.numpy(), y=torch.tanh(queries @ weights).numpy())

    def students(self, networks: int, *flags: str) -> tuple[str, ...]:
        """The flags to train students of a small teacher."""
        name = f"--default_hparams=students_mlp({networks})_3_8_2"
        return (name, f"--teacher_name={self.answers}", "--act_fun=tanh", "--batch_size=64", "--training_steps=20it", *EXACT, *flags)

    def test_students_train_as_in_one_process_for_any_number_of_processes(self):
        for networks, count in ((5, 2), (3, 3), (1, 2)):
            with self.subTest(networks=networks), self.subfolder(str(networks)):
                self.run_both(("train", *self.students(networks)), count)
                self.assertLess(self.difference("model_*.pth"), 1e-12)
                self.assertLess(self.difference("logger"), 1e-12)

    def test_students_train_with_other_optimizers_as_in_one_process(self):
        for name, flags in (("lbfgs", ["--lr=1"]), ("levenberg_marquardt", ["--lr=1"]), ("sgd", ["--plateau_opt", "--patience=0"])):
            with self.subTest(name), self.subfolder(name):
                self.run_both(("train", *self.students(4, "--batch_size=270", f"--optimizer_name={name}", *flags)))
                self.assertLess(self.difference("model_*.pth"), 1e-10)

    def test_networks_are_extracted_as_in_one_process(self):
        polished = ("--training_steps=200it", "--polish_optimizer=levenberg_marquardt", "--polish_steps=20it")
        self.run_both(("extract", *self.students(4, *polished)))
        self.assertLess(self.difference("model_*.pth"), 1e-7)

    def test_tickets_are_drawn_and_trained_as_in_one_process(self):
        self.run_both(("lottery", *self.students(4, "--levels=1", "--rewinding_steps=5it", "--pruning_strategy=snip")))
        self.assertLess(self.difference("model_*.pth"), 1e-12)

    def test_a_job_that_stops_by_a_signal_to_one_process_resumes_with_other_processes(self):
        arguments = ("train", *self.students(5))
        for status, _ in (ended := self.together("shared", arguments, interferences=[(1, StopAt(7))])):
            self.assertEqual(status, signals.EXIT_STATUS)
        self.assertEqual("".join(output for _, output in ended).count("has stopped at"), 1)
        self.assertEqual(self.files_of("shared", "logger"), {})
        self.run_both(arguments, 1)
        self.assertLess(self.difference("model_*.pth"), 1e-12)


class TestErrors(DistributedTest):
    def assert_one_line(self, ended: Sequence[tuple[int, str]], *words: str) -> None:
        """Asserts that all processes exit with status 2 and that only one prints its error."""
        self.assertEqual([status for status, _ in ended], [2] * len(ended), ended)
        lines = [line for _, output in ended for line in output.splitlines() if line.startswith("EC.py")]
        self.assertEqual(len(lines), 1, ended)
        for word in words:
            self.assertIn(word, lines[0])

    def test_an_invalid_command_prints_one_error(self):
        self.assert_one_line(self.together("shared", (*TRAIN, "--lrr=1"), srun=True), "--lrr", "did you mean '--lr'")
        self.assert_one_line(self.together("shared", (*TRAIN, "--act_fun=rleu"), srun=True), "did you mean 'relu'")
        self.assertEqual(self.files_of("shared", "*"), {})

    def test_an_error_of_one_process_ends_all_processes(self):
        for rank, reason in ((0, "cannot be written"), (1, "no --precision of this")):
            fault = child.DiskFull("model_", 1, "nothing is there before") if rank == 0 else RejectPrecision()
            with self.subTest(rank=rank), self.subfolder(str(rank)):
                self.assert_one_line(self.together("shared", TRAIN, interferences=[(rank, fault)]), reason)

    def test_the_error_without_torchrun_or_srun_says_how_to_start(self):
        for variables, words in (({}, ("RANK is missing", "torchrun")), ({"RANK": "a"}, ("RANK is 'a'", "torchrun"))):
            with mock.patch.dict(os.environ, variables):
                status, out, err = self.command(*TRAIN, "--platform=distributed")
            self.assertEqual((status, out, err.count("\n")), (2, "", 1))
            for word in words:
                self.assertIn(word, err)
        self.assertEqual(self.files(), [])

"""The batch script, which a real shell runs with fake commands of SLURM, and the submission of jobs."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from unittest import mock

from foundations import ranges
from foundations.errors import ConfigError
from platforms import registry, slurm
from platforms.slurm import BatchJob, Platform, Run
from testing.test_case import TestCase

GOLDEN = os.path.join(os.path.dirname(__file__), "slurm_golden.sh")
PLAIN = os.path.join(os.path.dirname(os.path.dirname(__file__)), "seeds.sh")
TRAIN = ("train", "--default_hparams=digits_lenet_4", "--training_steps=1ep", "--platform=slurm")
PATIENCE = 60.0


class SlurmTestCase(TestCase):
    """A test with fake commands on its path that record their arguments."""

    def setUp(self):
        super().setUp()
        self.bin = os.path.join(self.root, "bin")
        os.mkdir(self.bin)
        patch = mock.patch.dict(os.environ, PATH=f"{self.bin}{os.pathsep}{os.environ['PATH']}")
        patch.start()
        self.addCleanup(patch.stop)

    def fake_command(self, name: str, does: str = "") -> str:
        """Installs a fake command. Returns the file in which it records its arguments, one line per call."""
        path = os.path.join(self.bin, name)
        with open(path, "w") as file:
            file.write(f'#!/bin/bash\necho "$*" >> {shlex.quote(path)}.calls\n{does}\n')
        os.chmod(path, stat.S_IRWXU)
        return f"{path}.calls"

    def read(self, path: str) -> str:
        """The content of a file. Empty if the file does not exist."""
        if not os.path.exists(path):
            return ""
        with open(path) as file:
            return file.read()


class TestHyperparameters(TestCase):
    def test_values_that_are_invalid_for_slurm_are_an_error(self):
        bad = {
            "seeds": ("", "0-", "a", "1;2", "3-1", "-1", "0,,2"),
            "time": ("4h", "1:2:3:4", "1-", "-1", "", "0:03:59", "3", "0-0"),
            "memory": ("16GB", "16 G", "0", "G", "1.5G"),
            "gpus": ("0", "a100", "a100:0", "two", "1,2"),
            "partition": ("", "a b", "a\n#SBATCH --wrap=b", 'a"'),
            "account": ("", "a b"),
            "extra_lines": ("", "Nice=1", "nice=1\nrm", "--", "nice=1;;qos=x", "array=0-3", "qos=x;--output=y", "signal=B:USR1"),
            "at_once": (0, 2),
            "cpus": (0, -1),
            "requeues": (-1,),
            "warning": (0, 65536),
        }
        for name, values in bad.items():
            for value in values:
                with self.subTest(name=name, value=value), self.assertRaisesRegex(ConfigError, f"^--{name}: [^\n]*$"):
                    slurm.parse_seeds(Platform(**{name: value}).seeds)

    def test_valid_values_are_accepted(self):
        good = {
            "seeds": ("0", "0-9", "3,0-1,7"),
            "time": ("4", "4:00", "1:00:00", "1-0", "2-12", "2-12:30", "2-12:30:59", "30:00:00"),
            "memory": ("4000", "16G", "16g", "1T"),
            "gpus": ("1", "a100:2", "nvidia_h100_80gb:1"),
            "extra_lines": ("nice=100", "--constraint=a100&ib;--exclusive", "mail-user=me@here.org"),
        }
        for name, values in good.items():
            for value in values:
                with self.subTest(name=name, value=value):
                    self.assertEqual(getattr(Platform(**{name: value}), name), value)

    def test_the_time_limit_must_leave_time_before_the_warning(self):
        for time_limit, warning, fits in (
            ("10", 480, True),
            ("10", 481, False),
            ("0:10:00", 480, True),
            ("1-0", 65535, True),
            ("1:00", 60, False),
        ):
            with self.subTest(time=time_limit, warning=warning), contextlib.nullcontext() if fits else self.assertRaises(ConfigError):
                Platform(time=time_limit, warning=warning)

    def test_seeds_are_numbers_and_ranges(self):
        for text, seeds in (("0-3", [0, 1, 2, 3]), ("7", [7]), ("5-7,0,3,6", [0, 3, 5, 6, 7])):
            self.assertEqual(slurm.parse_seeds(text), seeds)
            self.assertEqual(slurm.parse_seeds(ranges.to_text(seeds)), seeds)

    def test_submission_flags_are_those_of_slurm_only(self):
        self.assertTrue({"seeds", "dry_run", "partition", "time"} <= Platform.submission_flags())
        self.assertNotIn("num_workers", Platform.submission_flags())

    def test_it_is_registered(self):
        self.assertIs(registry.get("slurm"), Platform)


class TestScript(SlurmTestCase):
    def setUp(self):
        super().setUp()
        self.requeued = self.fake_command("scontrol")

    def array(self, *command: str, **changes) -> str:
        """A script for seeds 3 to 5."""
        runs = [Run(seed, f"{self.root}/train_x/seed_{seed}/main", False) for seed in (3, 4, 5)]
        environment = {"EC_ROOT": "/a b/$HOME/it's"}
        batch_job = BatchJob("train_x", command, f"{self.root}/slurm", self.root, environment)
        return Platform(seeds="3-5", **changes).render(batch_job, runs)

    @contextlib.contextmanager
    def started(self, script: str, **environment: str) -> Iterator[subprocess.Popen]:
        """A shell that runs a script as task 3 of array 17."""
        variables = os.environ | {"SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "18"} | environment
        with subprocess.Popen(["bash", "-c", script], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as shell:
            try:
                yield shell
            finally:
                shell.kill()

    def program(self, does: str) -> list[str]:
        """A command that runs a shell script. When it has started, it makes the file `$1` (`ready`)."""
        return ["bash", "-c", f"{does}", "program", os.path.join(self.root, "ready")]

    def wait_until_ready(self):
        end = time.monotonic() + PATIENCE
        while not os.path.exists(os.path.join(self.root, "ready")):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)

    def test_the_script_equals_the_golden_file(self):
        platform = Platform(
            seeds="0-9",
            at_once=4,
            partition="gpu",
            account="lab",
            time="1-12:00:00",
            cpus=4,
            gpus="a100:1",
            memory="16G",
            warning=300,
            requeues=7,
            extra_lines="constraint=a100;--nice=100",
        )
        runs = [Run(seed, f"/results/a b/extract_1f9a/seed_{seed}/main/clustering_7", False) for seed in (0, 1, 2, 4, 9)]
        command = ["/opt/python", "/code/EC.py", "extract", "--default_hparams=students_digits_lenet(6)_36_36"]
        environment = {"EC_ROOT": "/results/a b", "EC_DATASET_ROOT": "/data"}
        batch_job = BatchJob("extract_1f9a", command, "/results/a b/slurm/extract_1f9a", "/code", environment)
        self.assertEqual(platform.render(batch_job, runs), self.read(GOLDEN))

    def test_every_word_of_the_command_is_passed_unchanged(self):
        words = ["students_digits_lenet(6)_36_36", "it's", 'a "b"', "$HOME `ls` \\n", "*", "", "a\nb", "--lr=1e-3", "!x", "#", "@command"]
        show = "import json, os, sys; print(json.dumps([sys.argv[1:], os.getcwd(), os.environ['EC_ROOT']]))"
        with self.started(self.array(sys.executable, "-c", show, *words)) as shell:
            out, err = shell.communicate(timeout=PATIENCE)
        expected = [[*words, "--global_seed=3"], os.path.realpath(self.root), "/a b/$HOME/it's"]
        self.assertEqual((json.loads(out), err, shell.returncode), (expected, "", 0))

    def test_the_job_has_the_exit_status_of_the_run_and_is_not_requeued(self):
        for status in (0, 1, 2, 75):
            with self.subTest(status=status), self.started(self.array("bash", "-c", f"exit {status}")) as shell:
                self.assertEqual(shell.wait(PATIENCE), status)
        self.assertEqual(self.read(self.requeued), "")

    def test_a_warned_run_that_exits_with_75_requeues_its_task_only(self):
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            command = self.program("trap 'sleep 0.3; exit 75' USR1; touch $1; while :; do sleep 0.05; done")
            with self.subTest(signal=number.name), self.started(self.array(*command)) as shell:
                self.wait_until_ready()
                shell.send_signal(number)
                shell.send_signal(number)
                self.assertEqual(shell.wait(PATIENCE), 75)
            os.remove(os.path.join(self.root, "ready"))
        self.assertEqual(self.read(self.requeued), "requeue 17_3\n" * 2)

    def test_a_job_without_an_array_is_requeued_by_its_number(self):
        command = self.program("trap 'exit 75' USR1; touch $1; while :; do sleep 0.05; done")
        script = Platform().render(BatchJob("x", command, self.root, self.root, {}), [Run(None, "/x/seed_-1/main", False)])
        with self.started(script) as shell:
            self.wait_until_ready()
            shell.send_signal(signal.SIGUSR1)
            self.assertEqual(shell.wait(PATIENCE), 75)
        self.assertEqual(self.read(self.requeued), "requeue 18\n")

    def test_a_warning_before_the_run_handles_signals_requeues_the_task(self):
        with self.started(self.array(*self.program("touch $1; sleep 60"))) as shell:
            self.wait_until_ready()
            shell.send_signal(signal.SIGUSR1)
            self.assertEqual(shell.wait(PATIENCE), 128 + signal.SIGUSR1)
        self.assertEqual(self.read(self.requeued), "requeue 17_3\n")

    def test_a_run_that_finishes_after_a_warning_is_not_requeued(self):
        for status in (0, 1):
            command = self.program(f"trap : USR1; touch $1; sleep 0.5; sleep 0.5; exit {status}")
            with self.subTest(status=status), self.started(self.array(*command)) as shell:
                self.wait_until_ready()
                shell.send_signal(signal.SIGUSR1)
                self.assertEqual(shell.wait(PATIENCE), status)
            os.remove(os.path.join(self.root, "ready"))
        self.assertEqual(self.read(self.requeued), "")

    def test_term_is_passed_to_the_run_and_does_not_requeue(self):
        command = self.program("trap 'exit 75' TERM; touch $1; while :; do sleep 0.05; done")
        with self.started(self.array(*command)) as shell:
            self.wait_until_ready()
            shell.send_signal(signal.SIGTERM)
            self.assertEqual(shell.wait(PATIENCE), 75)
        self.assertEqual(self.read(self.requeued), "")

    def test_the_number_of_requeues_is_limited(self):
        for restarts, message in (("2", ""), ("3", "--requeues")):
            command = self.program("trap 'exit 75' USR1; touch $1; while :; do sleep 0.05; done")
            with self.subTest(restarts=restarts), self.started(self.array(*command, requeues=3), SLURM_RESTART_COUNT=restarts) as shell:
                self.wait_until_ready()
                shell.send_signal(signal.SIGUSR1)
                _, err = shell.communicate(timeout=PATIENCE)
                self.assertEqual(shell.returncode, 75)
                self.assertIn(message, err)
            os.remove(os.path.join(self.root, "ready"))
        self.assertEqual(self.read(self.requeued), "requeue 17_3\n")

    def test_the_example_script_runs_all_seeds_and_stops_at_the_first_that_fails(self):
        for status, seeds in ((0, 10), (2, 4)):
            called = self.fake_command("python", f"[[ $* == *_seed=3 ]] && exit {status}; exit 0")
            with self.subTest(status=status), self.started(self.read(PLAIN)) as shell:
                self.assertEqual(shell.wait(PATIENCE), status)
            self.assertEqual(self.read(called).splitlines(), [self.plain_command(seed) for seed in range(seeds)])
            os.remove(called)
        self.assertEqual(self.read(self.requeued), "")

    def test_the_example_script_is_requeued_after_a_warning(self):
        ready = shlex.quote(os.path.join(self.root, "ready"))
        waits = f"trap 'exit 75' USR1; touch {ready}; while :; do sleep 0.05; done"
        called = self.fake_command("python", f"[[ $* == *_seed=1 ]] || exit 0; {waits}")
        with self.started(self.read(PLAIN)) as shell:
            self.wait_until_ready()
            shell.send_signal(signal.SIGUSR1)
            self.assertEqual(shell.wait(PATIENCE), 75)
        self.assertEqual(self.read(self.requeued), "requeue 18\n")
        self.assertEqual(self.read(called).splitlines(), [self.plain_command(0), self.plain_command(1)])

    @staticmethod
    def plain_command(seed: int) -> str:
        return f"EC.py train --default_hparams=digits_lenet_16 --global_seed={seed}"


class TestSubmission(SlurmTestCase):
    def setUp(self):
        super().setUp()
        self.script = os.path.join(self.bin, "script")
        self.queue = os.path.join(self.bin, "queue")
        self.sbatch = self.fake_command("sbatch", f"cat > {shlex.quote(self.script)}; echo 17")
        self.fake_command("squeue", f"cat {shlex.quote(self.queue)} 2> /dev/null; exit 0")

    def location(self, seed: int) -> str:
        _, out, _ = self.command(*TRAIN[:-1], f"--global_seed={seed}", "--display_output_location")
        return out.strip()

    def results(self) -> list[str]:
        """All files except those of the fake commands."""
        return [name for name in self.files() if not name.startswith("bin")]

    def enqueue(self, *rows: str):
        with open(self.queue, "w") as file:
            file.writelines(f"{row}\n" for row in rows)

    def submit(self, *arguments: str) -> list[str]:
        """Starts a command that must succeed. Returns the lines of its output."""
        status, out, err = self.command(*TRAIN, *arguments)
        self.assertEqual((status, err), (0, ""))
        return out.splitlines()

    def test_seeds_are_submitted_as_an_array_and_states_and_folders_are_printed(self):
        lines = self.submit("--seeds=0-2", "--at_once=2", "--num_workers=1")
        script = self.read(self.script)
        self.assertIn("#SBATCH --array=0-2%2\n", script)
        words = [sys.executable, slurm.PROGRAM, "train", *TRAIN[1:-1], "--num_workers=1"]
        self.assertIn(f"\n{shlex.join(words)} --global_seed=$SLURM_ARRAY_TASK_ID &\n", script)
        self.assertRegex(lines[0], f"^Submitted job 17, .*{self.root}/slurm/train_[0-9a-f]{{32}}$")
        self.assertEqual(lines[1:], [f"seed {seed}: submitted as 17, {self.location(seed)}" for seed in range(3)])
        self.assertEqual(self.results(), [])

    def test_the_folder_of_the_logs_exists_when_the_job_starts(self):
        self.fake_command("sbatch", f"ls {self.root}/slurm > {self.script}; echo 17")
        self.submit()
        self.assertRegex(self.read(self.script), "^train_[0-9a-f]{32}\n$")

    def test_without_seeds_one_job_runs_the_same_command(self):
        self.submit("--global_seed=5")
        script = self.read(self.script)
        self.assertNotIn("--array", script)
        self.assertIn(" --global_seed=5 &\n", script)
        self.assertIn(f"#SBATCH --comment={self.location(5)}\n", script)

    def test_the_job_has_the_environment_and_the_working_directory_of_the_submission(self):
        with mock.patch.dict(os.environ, EC_ROOT="data", EC_IMAGENET_ROOT="/my images"):
            lines = self.submit("--dry_run", "--seeds=0")
        self.assertIn(f"export EC_ROOT={os.path.abspath('data')}", lines)
        self.assertIn("export EC_IMAGENET_ROOT='/my images'", lines)
        self.assertIn(f"cd -- {shlex.quote(os.getcwd())} || exit", lines)

    def test_runs_in_the_queue_are_not_submitted_again(self):
        pattern = self.location(7).replace("seed_7", "seed_*")
        rows = [f"17_0|0|RUNNING|None|{pattern}", f"17_1|1|PENDING|JobArrayTaskLimit|{pattern}", f"19|N/A|RUNNING|None|{self.location(2)}"]
        self.enqueue(*rows, "20|N/A|RUNNING|None|(null)", f"17_9|9|PENDING|None|/other/{pattern}|x")
        lines = self.submit("--seeds=0-3")
        self.assertIn("#SBATCH --array=3\n", self.read(self.script))
        states = ["running, job 17_0", "pending (JobArrayTaskLimit), job 17_1", "running, job 19", "submitted as 17"]
        self.assertEqual(lines[1:], [f"seed {seed}: {state}, {self.location(seed)}" for seed, state in enumerate(states)])

    def test_if_all_runs_are_in_the_queue_only_their_states_are_printed(self):
        pattern = self.location(7).replace("seed_7", "seed_*")
        self.enqueue(*(f"17_{seed}|{seed}|RUNNING|None|{pattern}" for seed in range(2)))
        lines = self.submit("--seeds=0,1")
        self.assertEqual(lines, [f"seed {seed}: running, job 17_{seed}, {self.location(seed)}" for seed in range(2)])
        self.assertEqual((self.read(self.sbatch), os.path.exists(f"{self.root}/slurm")), ("", False))

    def test_finished_seeds_are_not_run_again(self):
        self.assertEqual(self.command(*TRAIN[:-1], "--global_seed=1", "--quiet"), (0, "", ""))
        self.assertEqual(self.submit("--seeds=1"), [f"seed 1: finished, {self.location(1)}"])
        self.assertEqual(self.read(self.sbatch), "")
        self.submit("--seeds=0-2")
        self.assertIn("#SBATCH --array=0,2\n", self.read(self.script))

    def test_a_dry_run_prints_the_script_without_slurm(self):
        dry = self.submit("--seeds=0-2", "--time=1:00:00", "--dry_run")
        self.assertEqual((self.read(self.sbatch), self.results(), os.path.exists(f"{self.root}/slurm")), ("", [], False))
        self.submit("--seeds=0-2", "--time=1:00:00")
        self.assertEqual(dry, self.read(self.script).splitlines())
        with mock.patch.dict(os.environ, PATH="/nowhere"):
            self.assertEqual(self.submit("--seeds=0-2", "--time=1:00:00", "--dry_run"), dry)

    def test_display_output_location_prints_only_the_folders(self):
        lines = self.submit("--seeds=0-2", "--display_output_location")
        self.assertEqual((lines, self.read(self.sbatch)), ([self.location(seed) for seed in range(3)], ""))

    def assert_refused(self, pattern: str, *arguments: str):
        before = os.listdir(self.root)
        status, out, err = self.command(*TRAIN, *arguments)
        self.assertEqual((status, out, err.count("\n")), (2, "", 1))
        self.assertRegex(err, pattern)
        self.assertEqual(os.listdir(self.root), before)

    def test_the_error_for_a_rejected_job_is_one_line_and_no_file_is_written(self):
        messages = [
            "sbatch: error: invalid partition specified: x",
            "sbatch: error: Batch job submission failed: Invalid partition name specified",
        ]
        self.fake_command("sbatch", f"printf '%s\\n' {shlex.join(messages)} >&2; exit 1")
        self.assert_refused("sbatch fails: invalid partition specified: x Batch job submission failed: Invalid partition", "--partition=x")

    def test_a_timeout_of_slurm_is_an_error(self):
        self.fake_command("squeue", "sleep 60")
        with mock.patch.object(slurm, "ANSWER_SECONDS", 0.2):
            self.assert_refused("--platform: SLURM does not respond .*squeue")

    def test_a_machine_without_slurm_is_an_error(self):
        with mock.patch.dict(os.environ, PATH="/nowhere"):
            self.assert_refused("--platform: sbatch is not installed here.*--dry_run")

    def test_an_invalid_command_is_not_submitted(self):
        self.assert_refused("--act_fun: 'rleu'", "--act_fun=rleu", "--seeds=0-3")
        self.assert_refused("--global_seed: --seeds sets the seeds", "--global_seed=3", "--seeds=0-3")
        self.assert_refused("--seeds: the range 3-1", "--seeds=3-1")
        self.assertEqual(self.read(self.sbatch), "")

    def test_the_error_for_a_folder_that_cannot_be_made_names_it(self):
        with open(os.path.join(self.root, "slurm"), "w"):
            self.assert_refused(f"{self.root}/slurm/train_.* cannot be made")

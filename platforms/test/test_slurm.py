"""The batch script, run by a real shell among commands that only pretend, and what is submitted when."""

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
from platforms.slurm import Platform, Run
from testing.test_case import TestCase

GOLDEN = os.path.join(os.path.dirname(__file__), "slurm_golden.sh")
PLAIN = os.path.join(os.path.dirname(os.path.dirname(__file__)), "seeds.sh")
TRAIN = ("train", "--default_hparams=digits_lenet_4", "--training_steps=1ep", "--platform=slurm")
PATIENCE = 60.0


class SlurmTestCase(TestCase):
    """A test in whose path commands lie that write down how they were called."""

    def setUp(self):
        super().setUp()
        self.bin = os.path.join(self.root, "bin")
        os.mkdir(self.bin)
        patch = mock.patch.dict(os.environ, PATH=f"{self.bin}{os.pathsep}{os.environ['PATH']}")
        patch.start()
        self.addCleanup(patch.stop)

    def pretend(self, name: str, does: str = "") -> str:
        """Puts a command in place; returns the file to which it writes its arguments, a line for each call."""
        path = os.path.join(self.bin, name)
        with open(path, "w") as file:
            file.write(f'#!/bin/bash\necho "$*" >> {shlex.quote(path)}.calls\n{does}\n')
        os.chmod(path, stat.S_IRWXU)
        return f"{path}.calls"

    def read(self, path: str) -> str:
        """The content of a file; nothing where there is none."""
        if not os.path.exists(path):
            return ""
        with open(path) as file:
            return file.read()


class TestHyperparameters(TestCase):
    def test_values_that_slurm_would_not_understand_are_refused(self):
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

    def test_values_that_it_understands_are_taken(self):
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

    def test_a_time_limit_leaves_time_before_the_warning(self):
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
            self.assertEqual(slurm.parse_seeds(ranges.show(seeds)), seeds)

    def test_what_concerns_the_submission_is_not_passed_on(self):
        self.assertTrue({"seeds", "dry_run", "partition", "time"} <= Platform.submission_flags())
        self.assertNotIn("num_workers", Platform.submission_flags())

    def test_it_is_registered(self):
        self.assertIs(registry.get("slurm"), Platform)


class TestScript(SlurmTestCase):
    def setUp(self):
        super().setUp()
        self.requeued = self.pretend("scontrol")

    def array(self, *command: str, **changes) -> str:
        """A script for seeds 3 to 5."""
        runs = [Run(seed, f"{self.root}/train_x/seed_{seed}/main", False) for seed in (3, 4, 5)]
        environment = {"EC_ROOT": "/a b/$HOME/it's"}
        return Platform(seeds="3-5", **changes).render(command, runs, "train_x", f"{self.root}/slurm", self.root, environment)

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
        """A command that says in the file `ready` that it has started, and then does something; its signals are shell traps."""
        return ["bash", "-c", f"{does}", "program", os.path.join(self.root, "ready")]

    def wait_until_ready(self):
        end = time.monotonic() + PATIENCE
        while not os.path.exists(os.path.join(self.root, "ready")):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)

    def test_it_is_exactly_this(self):
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
        script = platform.render(command, runs, "extract_1f9a", "/results/a b/slurm/extract_1f9a", "/code", environment)
        self.assertEqual(script, self.read(GOLDEN))

    def test_every_word_of_the_command_arrives_as_it_was_given(self):
        words = ["students_digits_lenet(6)_36_36", "it's", 'a "b"', "$HOME `ls` \\n", "*", "", "a\nb", "--lr=1e-3", "!x", "#", "@command"]
        show = "import json, os, sys; print(json.dumps([sys.argv[1:], os.getcwd(), os.environ['EC_ROOT']]))"
        with self.started(self.array(sys.executable, "-c", show, *words)) as shell:
            out, err = shell.communicate(timeout=PATIENCE)
        expected = [[*words, "--global_seed=3"], os.path.realpath(self.root), "/a b/$HOME/it's"]
        self.assertEqual((json.loads(out), err, shell.returncode), (expected, "", 0))

    def test_the_status_of_a_run_is_that_of_the_job_and_nothing_is_requeued(self):
        for status in (0, 1, 2, 75):
            with self.subTest(status=status), self.started(self.array("bash", "-c", f"exit {status}")) as shell:
                self.assertEqual(shell.wait(PATIENCE), status)
        self.assertEqual(self.read(self.requeued), "")

    def test_a_warned_run_that_leaves_with_75_is_put_back_as_this_task_alone(self):
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            command = self.program("trap 'sleep 0.3; exit 75' USR1; touch $1; while :; do sleep 0.05; done")
            with self.subTest(signal=number.name), self.started(self.array(*command)) as shell:
                self.wait_until_ready()
                shell.send_signal(number)
                shell.send_signal(number)
                self.assertEqual(shell.wait(PATIENCE), 75)
            os.remove(os.path.join(self.root, "ready"))
        self.assertEqual(self.read(self.requeued), "requeue 17_3\n" * 2)

    def test_a_job_that_is_no_array_is_put_back_by_its_number(self):
        command = self.program("trap 'exit 75' USR1; touch $1; while :; do sleep 0.05; done")
        script = Platform().render(command, [Run(None, "/x/seed_-1/main", False)], "x", self.root, self.root, {})
        with self.started(script) as shell:
            self.wait_until_ready()
            shell.send_signal(signal.SIGUSR1)
            self.assertEqual(shell.wait(PATIENCE), 75)
        self.assertEqual(self.read(self.requeued), "requeue 18\n")

    def test_a_warning_that_comes_before_the_run_can_listen_puts_it_back_as_well(self):
        with self.started(self.array(*self.program("touch $1; sleep 60"))) as shell:
            self.wait_until_ready()
            shell.send_signal(signal.SIGUSR1)
            self.assertEqual(shell.wait(PATIENCE), 128 + signal.SIGUSR1)
        self.assertEqual(self.read(self.requeued), "requeue 17_3\n")

    def test_a_run_that_ends_all_the_same_after_a_warning_is_done(self):
        for status in (0, 1):
            command = self.program(f"trap : USR1; touch $1; sleep 0.5; sleep 0.5; exit {status}")
            with self.subTest(status=status), self.started(self.array(*command)) as shell:
                self.wait_until_ready()
                shell.send_signal(signal.SIGUSR1)
                self.assertEqual(shell.wait(PATIENCE), status)
            os.remove(os.path.join(self.root, "ready"))
        self.assertEqual(self.read(self.requeued), "")

    def test_what_is_preempted_or_cancelled_is_told_and_not_put_back(self):
        command = self.program("trap 'exit 75' TERM; touch $1; while :; do sleep 0.05; done")
        with self.started(self.array(*command)) as shell:
            self.wait_until_ready()
            shell.send_signal(signal.SIGTERM)
            self.assertEqual(shell.wait(PATIENCE), 75)
        self.assertEqual(self.read(self.requeued), "")

    def test_there_is_an_end_to_being_put_back(self):
        for restarts, said in (("2", ""), ("3", "--requeues")):
            command = self.program("trap 'exit 75' USR1; touch $1; while :; do sleep 0.05; done")
            with self.subTest(restarts=restarts), self.started(self.array(*command, requeues=3), SLURM_RESTART_COUNT=restarts) as shell:
                self.wait_until_ready()
                shell.send_signal(signal.SIGUSR1)
                _, err = shell.communicate(timeout=PATIENCE)
                self.assertEqual(shell.returncode, 75)
                self.assertIn(said, err)
            os.remove(os.path.join(self.root, "ready"))
        self.assertEqual(self.read(self.requeued), "requeue 17_3\n")

    def test_the_plain_script_runs_all_seeds_and_stops_at_the_first_that_fails(self):
        for status, seeds in ((0, 10), (2, 4)):
            called = self.pretend("python", f"[[ $* == *_seed=3 ]] && exit {status}; exit 0")
            with self.subTest(status=status), self.started(self.read(PLAIN)) as shell:
                self.assertEqual(shell.wait(PATIENCE), status)
            self.assertEqual(self.read(called).splitlines(), [self.plain_command(seed) for seed in range(seeds)])
            os.remove(called)
        self.assertEqual(self.read(self.requeued), "")

    def test_the_plain_script_is_put_back_when_it_is_warned(self):
        ready = shlex.quote(os.path.join(self.root, "ready"))
        waits = f"trap 'exit 75' USR1; touch {ready}; while :; do sleep 0.05; done"
        called = self.pretend("python", f"[[ $* == *_seed=1 ]] || exit 0; {waits}")
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
        self.sbatch = self.pretend("sbatch", f"cat > {shlex.quote(self.script)}; echo 17")
        self.pretend("squeue", f"cat {shlex.quote(self.queue)} 2> /dev/null; exit 0")

    def location(self, seed: int) -> str:
        _, out, _ = self.command(*TRAIN[:-1], f"--global_seed={seed}", "--display_output_location")
        return out.strip()

    def results(self) -> list[str]:
        """The files that are there but those of the pretended commands."""
        return [name for name in self.files() if not name.startswith("bin")]

    def enqueue(self, *rows: str):
        with open(self.queue, "w") as file:
            file.writelines(f"{row}\n" for row in rows)

    def submit(self, *arguments: str) -> list[str]:
        """Starts a command that succeeds, and returns the lines that it prints."""
        status, out, err = self.command(*TRAIN, *arguments)
        self.assertEqual((status, err), (0, ""))
        return out.splitlines()

    def test_seeds_become_an_array_of_which_the_job_the_states_and_the_folders_are_shown(self):
        lines = self.submit("--seeds=0-2", "--at_once=2", "--num_workers=1")
        script = self.read(self.script)
        self.assertIn("#SBATCH --array=0-2%2\n", script)
        words = [sys.executable, slurm.PROGRAM, "train", *TRAIN[1:-1], "--num_workers=1"]
        self.assertIn(f"\n{shlex.join(words)} --global_seed=$SLURM_ARRAY_TASK_ID &\n", script)
        self.assertRegex(lines[0], f"^Submitted job 17, .*{self.root}/slurm/train_[0-9a-f]{{32}}$")
        self.assertEqual(lines[1:], [f"seed {seed}: submitted as 17, {self.location(seed)}" for seed in range(3)])
        self.assertEqual(self.results(), [])

    def test_the_folder_of_the_logs_is_there_when_the_job_starts(self):
        self.pretend("sbatch", f"ls {self.root}/slurm > {self.script}; echo 17")
        self.submit()
        self.assertRegex(self.read(self.script), "^train_[0-9a-f]{32}\n$")

    def test_without_seeds_it_is_one_job_of_this_very_command(self):
        self.submit("--global_seed=5")
        script = self.read(self.script)
        self.assertNotIn("--array", script)
        self.assertIn(" --global_seed=5 &\n", script)
        self.assertIn(f"#SBATCH --comment={self.location(5)}\n", script)

    def test_the_job_has_the_environment_and_the_folder_of_the_submission(self):
        with mock.patch.dict(os.environ, EC_ROOT="data", EC_IMAGENET_ROOT="/my images"):
            lines = self.submit("--dry_run", "--seeds=0")
        self.assertIn(f"export EC_ROOT={os.path.abspath('data')}", lines)
        self.assertIn("export EC_IMAGENET_ROOT='/my images'", lines)
        self.assertIn(f"cd -- {shlex.quote(os.getcwd())} || exit", lines)

    def test_what_is_in_the_queue_is_not_submitted_again(self):
        pattern = self.location(7).replace("seed_7", "seed_*")
        rows = [f"17_0|0|RUNNING|None|{pattern}", f"17_1|1|PENDING|JobArrayTaskLimit|{pattern}", f"19|N/A|RUNNING|None|{self.location(2)}"]
        self.enqueue(*rows, "20|N/A|RUNNING|None|(null)", f"17_9|9|PENDING|None|/other/{pattern}|x")
        lines = self.submit("--seeds=0-3")
        self.assertIn("#SBATCH --array=3\n", self.read(self.script))
        states = ["running, job 17_0", "pending (JobArrayTaskLimit), job 17_1", "running, job 19", "submitted as 17"]
        self.assertEqual(lines[1:], [f"seed {seed}: {state}, {self.location(seed)}" for seed, state in enumerate(states)])

    def test_asked_again_when_nothing_is_left_to_submit_it_only_tells(self):
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

    def test_a_dry_run_prints_the_script_and_needs_no_slurm(self):
        dry = self.submit("--seeds=0-2", "--time=1:00:00", "--dry_run")
        self.assertEqual((self.read(self.sbatch), self.results(), os.path.exists(f"{self.root}/slurm")), ("", [], False))
        self.submit("--seeds=0-2", "--time=1:00:00")
        self.assertEqual(dry, self.read(self.script).splitlines())
        with mock.patch.dict(os.environ, PATH="/nowhere"):
            self.assertEqual(self.submit("--seeds=0-2", "--time=1:00:00", "--dry_run"), dry)

    def test_only_the_folders_can_be_shown(self):
        lines = self.submit("--seeds=0-2", "--display_output_location")
        self.assertEqual((lines, self.read(self.sbatch)), ([self.location(seed) for seed in range(3)], ""))

    def assert_refused(self, pattern: str, *arguments: str):
        before = os.listdir(self.root)
        status, out, err = self.command(*TRAIN, *arguments)
        self.assertEqual((status, out, err.count("\n")), (2, "", 1))
        self.assertRegex(err, pattern)
        self.assertEqual(os.listdir(self.root), before)

    def test_a_job_that_slurm_refuses_is_explained_in_one_line_and_leaves_nothing(self):
        said = [
            "sbatch: error: invalid partition specified: x",
            "sbatch: error: Batch job submission failed: Invalid partition name specified",
        ]
        self.pretend("sbatch", f"printf '%s\\n' {shlex.join(said)} >&2; exit 1")
        self.assert_refused(
            "sbatch refuses: invalid partition specified: x Batch job submission failed: Invalid partition", "--partition=x"
        )

    def test_a_slurm_that_does_not_answer_is_named(self):
        self.pretend("squeue", "sleep 60")
        with mock.patch.object(slurm, "ANSWER_SECONDS", 0.2):
            self.assert_refused("--platform: SLURM does not answer .*squeue")

    def test_where_there_is_no_slurm_that_is_said(self):
        with mock.patch.dict(os.environ, PATH="/nowhere"):
            self.assert_refused("--platform: sbatch is not installed here.*--dry_run")

    def test_what_could_not_be_run_is_not_submitted(self):
        self.assert_refused("--act_fun: 'rleu'", "--act_fun=rleu", "--seeds=0-3")
        self.assert_refused("--global_seed: --seeds says", "--global_seed=3", "--seeds=0-3")
        self.assert_refused("--seeds: the range 3-1", "--seeds=3-1")
        self.assertEqual(self.read(self.sbatch), "")

    def test_a_folder_that_cannot_be_made_is_named(self):
        with open(os.path.join(self.root, "slurm"), "w"):
            self.assert_refused(f"{self.root}/slurm/train_.* cannot be made")

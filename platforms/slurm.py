"""Clusters with SLURM: the command is submitted as a batch job, or as an array of jobs with one seed each.

A job that reaches its time limit or is preempted is requeued and resumes from its checkpoint. The comment of a job is the folder of its
results. The same command, started again, uses it to find the job and prints its state.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from foundations import ranges
from foundations.errors import ConfigError
from foundations.runner import Job
from platforms import local
from platforms.base import installed

TEMPLATE = os.path.join(os.path.dirname(__file__), "slurm.sh")
PROGRAM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "EC.py")
ANSWER_SECONDS = 60  # the timeout of SLURM's commands
WORKING_SECONDS = 120  # the minimum time before the warning, which may come a minute early
ANY_SEED = "seed_*"
UNBUFFERED = {"PYTHONUNBUFFERED": "1"}  # the log of a job can be read while it runs
CLOCK = r"\d+(:\d\d?){0,2}"
FORMATS = {
    "seeds": (r"\d{1,18}(-\d{1,18})?(,\d{1,18}(-\d{1,18})?)*", "0-9 or 0,3,5-7"),
    "partition": (r"[^\s\"'\\]+", "the name of a partition"),
    "account": (r"[^\s\"'\\]+", "the name of an account"),
    "time": (rf"{CLOCK}|\d+-{CLOCK}", "minutes, [hours:]minutes:seconds or days-hours[:minutes[:seconds]], such as 4:00:00"),
    "gpus": (r"([\w.-]+:)?[1-9]\d*", "a number, or a type and a number, such as 2 or a100:2"),
    "memory": (r"[1-9]\d*[KMGTkmgt]?", "megabytes, or a number and K, M, G or T, such as 16G"),
    "extra_lines": (r"(--)?[a-z][a-z-]+(=[^;\n]+)?(;(--)?[a-z][a-z-]+(=[^;\n]+)?)*", "options of sbatch, such as constraint=a100;nice=100"),
}
RESERVED = ("array", "comment", "job-name", "open-mode", "output", "requeue", "no-requeue", "signal")


class _Template(string.Template):
    """A template with `@name` as placeholder, because `$` has a meaning in the shell."""

    delimiter = "@"


@dataclass(frozen=True)
class Run:
    """The run of one seed.

    Attributes:
        seed: the seed; None if the command has its own seed.
        location: the folder of its results.
        is_finished: whether its results are complete.
    """

    seed: int | None
    location: str
    is_finished: bool

    @property
    def pattern(self) -> str:
        """The folder of the results with a wildcard for the seed."""
        if self.seed is None:
            return self.location
        head, _, tail = f"{self.location}{os.sep}".rpartition(f"{os.sep}seed_{self.seed}{os.sep}")
        return os.path.join(head, ANY_SEED, tail).rstrip(os.sep)


@dataclass(frozen=True)
class BatchJob:
    """What a batch script runs, and where.

    Attributes:
        name: the name of the job.
        command: the words of the command, without the seed.
        logs: the folder of the logs.
        folder: the working directory.
        environment: the environment variables to set.
    """

    name: str
    command: Sequence[str]
    logs: str
    folder: str
    environment: Mapping[str, str]


@dataclass
class Platform(local.Platform):
    """A cluster with SLURM. This process submits jobs to it; the jobs themselves run on the local platform."""

    seeds: str | None = None
    at_once: int | None = None
    dry_run: bool = False
    partition: str | None = None
    account: str | None = None
    time: str | None = None
    cpus: int | None = None
    gpus: str | None = None
    memory: str | None = None
    warning: int = 120
    requeues: int = 100
    extra_lines: str | None = None

    _description = "The job that runs the command on a cluster with SLURM. The same command, started again, prints the state of the job."
    _seeds = "The seeds to run, one job per seed, such as 0-9 or 0,3,5-7. They replace --global_seed."
    _at_once = "The maximum number of jobs that run at the same time (by default all)."
    _dry_run = "Print the batch script without submitting it."
    _partition = "The partition (by default that of the cluster)."
    _account = "The account that is charged."
    _time = "The time limit of one start, such as 4:00:00 or 2-12. A run is started again until it is finished."
    _cpus = "CPU cores per job."
    _gpus = "GPUs per job, such as 1 or a100:1."
    _memory = "Memory per job, such as 16G."
    _warning = "The number of seconds before the time limit at which a run writes its checkpoint and stops."
    _requeues = "How often a job may be requeued, including preemptions. After that, start the same command again to resume."
    _extra_lines = "Further options of sbatch, separated by semicolons, such as constraint=a100;nice=100."

    def __post_init__(self):
        super().__post_init__()
        for name, (pattern, valid) in FORMATS.items():
            value = getattr(self, name)
            if value is not None and not re.fullmatch(pattern, value):
                raise ConfigError(f"--{name}: {value!r} is invalid; valid: {valid}")
        self.require("at_once", self.at_once is None or self.at_once >= 1, "1 or more")
        if self.at_once and not self.seeds:
            raise ConfigError("--at_once: only valid with --seeds")
        self.require("cpus", self.cpus is None or self.cpus >= 1, "1 or more")
        self.require("requeues", self.requeues >= 0, "0 or more")
        self.require("warning", 0 < self.warning <= 65535, "1 to 65535 seconds")
        shortest = self.warning + WORKING_SECONDS
        is_long_enough = self.time is None or _seconds(self.time) >= shortest
        self.require("time", is_long_enough, f"{shortest} seconds or more, that is --warning plus two minutes")
        for line in self._extra:
            name = line.split("=")[0].removeprefix("--")
            if name in RESERVED:
                raise ConfigError(f"--extra_lines: {name} is set by other flags; valid: any option but {', '.join(RESERVED)}")

    @classmethod
    def submission_flags(cls) -> set[str]:
        inherited = {field.name for field in dataclasses.fields(local.Platform)}
        return {field.name for field in dataclasses.fields(cls)} - inherited

    @property
    def memory_bytes(self) -> int:
        return sys.maxsize  # the machine that computes is another one

    @property
    def _extra(self) -> list[str]:
        return self.extra_lines.split(";") if self.extra_lines else []

    def launch(self, job: Job) -> None:
        """Submits a job for the runs that are neither finished nor in the queue, and prints the state of all runs.

        Raises:
            ConfigError: the command is invalid, or SLURM rejects the job. Then nothing is written.
        """
        seeds = parse_seeds(self.seeds) if self.seeds else [None]
        if self.seeds and any(argument.split("=")[0] == "--global_seed" for argument in job.arguments):
            raise ConfigError("--global_seed: --seeds sets the seeds; valid: only one of the two flags")
        with installed(self):
            if job.only_display:
                for seed in seeds:
                    job(**_changes(seed))
            elif self.dry_run:
                runs = self._runs(job, seeds)
                print(self.script(job, [run for run in runs if not run.is_finished] or runs), end="")
            else:
                self._submit(job, seeds)

    def _runs(self, job: Job, seeds: Sequence[int | None]) -> list[Run]:
        """The checked run of each seed."""
        runners = [job.create(**_changes(seed)) for seed in seeds]
        return [Run(seed, runner.output_location, runner.is_finished) for seed, runner in zip(seeds, runners, strict=True)]

    def _submit(self, job: Job, seeds: Sequence[int | None]) -> None:
        if shutil.which("sbatch") is None:
            raise ConfigError("--platform: sbatch is not installed here; use a machine with SLURM, or print the script by --dry_run")
        runs, states = self._runs(job, seeds), queue()
        waiting = [run for run in runs if not run.is_finished and run.location not in states]
        if waiting:
            with _new_folder(self._logs(runs[0])):
                number = _run_slurm("sbatch", "--parsable", script=self.script(job, waiting)).split(";")[0].strip()
            print(f"Submitted job {number}, which logs to {self._logs(runs[0])}")
            submitted = {run.location: f"submitted as {number}" for run in waiting}
            runs, states = self._runs(job, seeds), submitted | queue()
        for run in runs:
            state = "finished" if run.is_finished else states.get(run.location, "not finished")
            print(f"{'' if run.seed is None else f'seed {run.seed}: '}{state}, {run.location}")

    def _experiment(self, run: Run) -> str:
        """The name of the experiment: the first part of the path of its results."""
        return os.path.relpath(run.location, self.root).split(os.sep)[0]

    def _logs(self, run: Run) -> str:
        """The folder of the logs of the jobs."""
        return os.path.join(self.root, "slurm", self._experiment(run))

    def script(self, job: Job, runs: Sequence[Run]) -> str:
        """The batch script that runs a job for the seeds of some runs, in the environment of this process."""
        environment = {name: value for name, value in os.environ.items() if name.startswith("EC_")} | self.environment | UNBUFFERED
        command = [sys.executable, PROGRAM, job.command, *job.arguments]
        return self.render(BatchJob(self._experiment(runs[0]), command, self._logs(runs[0]), os.getcwd(), environment), runs)

    def render(self, batch_job: BatchJob, runs: Sequence[Run]) -> str:
        """The batch script of a job for some runs: an array with one task per seed, or a single task if its run has no seed."""
        array = runs[0].seed is not None
        words = shlex.join(batch_job.command)
        environment = batch_job.environment
        return _Template(_template()).substitute(
            options="\n".join(f"#SBATCH --{option}" for option in self._options(batch_job, runs)),
            folder=shlex.quote(batch_job.folder),
            exports="\n".join(f"export {key}={shlex.quote(environment[key])}" for key in sorted(environment)),
            command=f"{words} --global_seed=$SLURM_ARRAY_TASK_ID" if array else words,
            requeues=self.requeues,
            task="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" if array else "$SLURM_JOB_ID",
        )

    def _options(self, batch_job: BatchJob, runs: Sequence[Run]) -> Iterator[str]:
        """The options of sbatch."""
        array = runs[0].seed is not None
        file = os.path.join(batch_job.logs.replace("%", "%%"), "%A_%a.log" if array else "%j.log")
        values = {
            "job-name": batch_job.name,
            "comment": _quoted(runs[0].pattern),
            "output": _quoted(file),
            "open-mode": "append",
            "export": "ALL",
            "signal": f"B:USR1@{self.warning}",
            "partition": self.partition,
            "account": self.account,
            "time": self.time,
            "cpus-per-task": self.cpus,
            "gres": self.gpus and f"gpu:{self.gpus}",
            "mem": self.memory,
        }
        if array:
            cap = f"%{self.at_once}" if self.at_once else ""
            yield f"array={ranges.to_text(run.seed for run in runs if run.seed is not None)}{cap}"
        yield "requeue" if self.requeues else "no-requeue"
        yield from (f"{option}={value}" for option, value in values.items() if value is not None)
        yield from (line.removeprefix("--") for line in self._extra)


def parse_seeds(text: str) -> list[int]:
    """The seeds of a list of numbers and ranges, sorted and without duplicates.

    Raises:
        ConfigError: a range ends before it starts.
    """
    valid = FORMATS["seeds"][1]
    make_error = lambda part, _: ConfigError(f"--seeds: the range {part} ends before it starts; valid: {valid}")  # noqa: E731
    return ranges.parse_list(text, make_error, "--seeds")


def queue() -> dict[str, str]:
    """The runs of this user in the queue: state and number of the job, by the folder of the results.

    Raises:
        ConfigError: SLURM does not answer.
    """
    states = {}
    rows = _run_slurm("squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i|%K|%T|%r|%k")
    for row in rows.splitlines():
        number, seed, state, reason, pattern = row.split("|", 4)
        because = "" if reason in ("None", "(null)") else f" ({reason})"
        states[pattern.replace(ANY_SEED, f"seed_{seed}")] = f"{state.lower()}{because}, job {number}"
    return states


def _run_slurm(*command: str, script: str | None = None) -> str:
    """The output of a command of SLURM.

    Raises:
        ConfigError: the command fails, or takes too long.
    """
    try:
        done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except (subprocess.TimeoutExpired, OSError) as error:
        raise ConfigError(f"--platform: SLURM does not respond ({error})") from None
    if done.returncode:
        message = " ".join(line.removeprefix(f"{command[0]}: ").removeprefix("error: ") for line in done.stderr.splitlines())
        raise ConfigError(f"--platform: {command[0]} fails: {message or f'exit status {done.returncode}'}")
    return done.stdout


@contextlib.contextmanager
def _new_folder(folder: str) -> Iterator[None]:
    """Makes a folder. If the block fails, the folders that were made are removed.

    Raises:
        ConfigError: the folder cannot be made.
    """
    parents = itertools.accumulate(folder.split(os.sep), lambda path, name: f"{path}{os.sep}{name}")
    new = [path for path in parents if path and not os.path.exists(path)]
    try:
        os.makedirs(folder, exist_ok=True)
        yield
    except BaseException as error:
        for path in reversed(new):
            with contextlib.suppress(OSError):
                os.rmdir(path)
        if not isinstance(error, OSError):
            raise
        raise ConfigError(f"{folder} cannot be made ({error.strerror or error})") from error


def _changes(seed: int | None) -> dict[str, int]:
    """The values of flags that a seed replaces."""
    return {} if seed is None else {"global_seed": seed}


def _seconds(time: str) -> int:
    """The seconds of a time limit in a form of SLURM. A single number means minutes, or hours after a number of days."""
    days, dash, clock = time.rpartition("-")
    numbers = [int(number) for number in clock.split(":")]
    if not dash and len(numbers) < 3:
        numbers.insert(0, 0)
    hours, minutes, seconds = (*numbers, 0, 0)[:3]
    return 86400 * int(days or 0) + 3600 * hours + 60 * minutes + seconds


def _template() -> str:
    with open(TEMPLATE, encoding="utf-8") as file:
        return file.read()


def _quoted(value: str) -> str:
    """A value quoted for a line of #SBATCH: as for a shell, but backslashes are escaped within quotes, too."""
    return shlex.quote(value.replace("\\", "\\\\"))

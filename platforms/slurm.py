"""Clusters with SLURM: the command becomes a batch job there, or an array of jobs with one seed each, that goes on from its checkpoint
whenever its time is up or its place is needed.

The job is found again by its comment, the folder of its results, so that the same command, started again, tells how things stand.
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
ANSWER_SECONDS = 60  # that SLURM may take
WORKING_SECONDS = 120  # that are left, at least, before the warning, which may come a minute early
ANY_SEED = "seed_*"
UNBUFFERED = {"PYTHONUNBUFFERED": "1"}  # so that the log of a job can be read while it runs
CLOCK = r"\d+(:\d\d?){0,2}"
FORMATS = {
    "seeds": (r"\d+(-\d+)?(,\d+(-\d+)?)*", "0-9 or 0,3,5-7"),
    "partition": (r"[^\s\"'\\]+", "the name of a partition"),
    "account": (r"[^\s\"'\\]+", "the name of an account"),
    "time": (rf"{CLOCK}|\d+-{CLOCK}", "minutes, [hours:]minutes:seconds or days-hours[:minutes[:seconds]], such as 4:00:00"),
    "gpus": (r"([\w.-]+:)?[1-9]\d*", "a number, or a type and a number, such as 2 or a100:2"),
    "memory": (r"[1-9]\d*[KMGTkmgt]?", "megabytes, or a number and K, M, G or T, such as 16G"),
    "extra_lines": (r"(--)?[a-z][a-z-]+(=[^;\n]+)?(;(--)?[a-z][a-z-]+(=[^;\n]+)?)*", "options of sbatch, such as constraint=a100;nice=100"),
}
RESERVED = ("array", "comment", "job-name", "open-mode", "output", "requeue", "no-requeue", "signal")


class _Template(string.Template):
    """Text with `@name` where a value goes, for a shell's `$` has a meaning of its own."""

    delimiter = "@"


@dataclass(frozen=True)
class Run:
    """The run of one seed (None: of the seed that the command itself gives), and whether it needs no job any more."""

    seed: int | None
    location: str
    is_finished: bool

    @property
    def pattern(self) -> str:
        """The folder of results of every seed's run."""
        if self.seed is None:
            return self.location
        head, _, tail = f"{self.location}{os.sep}".rpartition(f"{os.sep}seed_{self.seed}{os.sep}")
        return os.path.join(head, ANY_SEED, tail).rstrip(os.sep)


@dataclass
class Platform(local.Platform):
    """A cluster with SLURM, seen from a machine that submits jobs to it; they run on the local platform of theirs."""

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

    _description = "The job that runs the command on a cluster with SLURM. The same command tells later how it stands."
    _seeds = "The seeds to run, each as a job of its own, such as 0-9 or 0,3,5-7; they stand in for --global_seed."
    _at_once = "How many of them may run at the same time (all when left out)."
    _dry_run = "Print the batch script, and submit nothing."
    _partition = "The partition (that of the cluster when left out)."
    _account = "The account that is charged."
    _time = "The time limit of a start, such as 4:00:00 or 2-12; a run takes as many as it needs."
    _cpus = "CPU cores for each job."
    _gpus = "GPUs for each job, such as 1 or a100:1."
    _memory = "Memory for each job, such as 16G."
    _warning = "How many seconds before the time limit a run is told to write its checkpoint and leave."
    _requeues = "How often a job is put back into the queue, preemptions included; after that the same command goes on."
    _extra_lines = "More options of sbatch, separated by semicolons, such as constraint=a100;nice=100."

    def __post_init__(self):
        super().__post_init__()
        for name, (pattern, valid) in FORMATS.items():
            value = getattr(self, name)
            if value is not None and not re.fullmatch(pattern, value):
                raise ConfigError(f"--{name}: {value!r} is not understood; valid: {valid}")
        self.require("at_once", self.at_once is None or self.at_once >= 1, "1 or more")
        if self.at_once and not self.seeds:
            raise ConfigError("--at_once: goes with --seeds only")
        self.require("cpus", self.cpus is None or self.cpus >= 1, "1 or more")
        self.require("requeues", self.requeues >= 0, "0 or more")
        self.require("warning", 0 < self.warning <= 65535, "1 to 65535 seconds")
        least = self.warning + WORKING_SECONDS
        self.require(
            "time", self.time is None or _seconds(self.time) >= least, f"{least} seconds or more, that is --warning and two minutes"
        )
        for line in self._extra:
            name = line.split("=")[0].removeprefix("--")
            if name in RESERVED:
                raise ConfigError(f"--extra_lines: {name} is set already; valid: any option but {', '.join(RESERVED)}")

    @classmethod
    def submission_flags(cls) -> set[str]:
        inherited = {field.name for field in dataclasses.fields(local.Platform)}
        return {field.name for field in dataclasses.fields(cls)} - inherited

    @property
    def _extra(self) -> list[str]:
        return self.extra_lines.split(";") if self.extra_lines else []

    def launch(self, job: Job) -> None:
        """Submits a job for what is neither finished nor in the queue, and shows how everything stands.

        Raises:
            ConfigError: the command cannot be run, or SLURM does not take it; then nothing is written.
        """
        seeds = parse_seeds(self.seeds) if self.seeds else [None]
        if self.seeds and any(argument.split("=")[0] == "--global_seed" for argument in job.arguments):
            raise ConfigError("--global_seed: --seeds says which seeds to run; leave one of the two out")
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
        """The run of every seed, checked."""
        runners = [job.create(**_changes(seed)) for seed in seeds]
        return [Run(seed, runner.output_location, runner.is_finished) for seed, runner in zip(seeds, runners, strict=True)]

    def _submit(self, job: Job, seeds: Sequence[int | None]) -> None:
        if shutil.which("sbatch") is None:
            raise ConfigError("--platform: sbatch is not installed here; start this where SLURM is, or see the script by --dry_run")
        runs, states = self._runs(job, seeds), queue()
        waiting = [run for run in runs if not run.is_finished and run.location not in states]
        if waiting:
            with _made(self._logs(runs[0])):
                number = _ask("sbatch", "--parsable", script=self.script(job, waiting)).split(";")[0].strip()
            print(f"Submitted job {number}, which logs to {self._logs(runs[0])}")
            submitted = {run.location: f"submitted as {number}" for run in waiting}
            runs, states = self._runs(job, seeds), submitted | queue()
        for run in runs:
            state = "finished" if run.is_finished else states.get(run.location, "not finished")
            print(f"{'' if run.seed is None else f'seed {run.seed}: '}{state}, {run.location}")

    def _experiment(self, run: Run) -> str:
        """The name of the experiment, which the folder of its results begins with."""
        return os.path.relpath(run.location, self.root).split(os.sep)[0]

    def _logs(self, run: Run) -> str:
        return os.path.join(self.root, "slurm", self._experiment(run))

    def script(self, job: Job, runs: Sequence[Run]) -> str:
        """The batch script that runs a command for the seeds of some runs, in the environment of this process."""
        environment = {name: value for name, value in os.environ.items() if name.startswith("EC_")} | self.environment | UNBUFFERED
        command = [sys.executable, PROGRAM, job.command, *job.arguments]
        return self.render(command, runs, self._experiment(runs[0]), self._logs(runs[0]), os.getcwd(), environment)

    def render(self, command: Sequence[str], runs: Sequence[Run], name: str, logs: str, folder: str, environment: Mapping[str, str]) -> str:
        """A batch script.

        Args:
            command: what to run, word by word, without the seed.
            runs: of the seeds, or of no seed in particular, then one.
            name: of the job.
            logs: the folder of what is printed.
            folder: the working directory.
            environment: variables to set.
        """
        array = runs[0].seed is not None
        words = shlex.join(command)
        return _Template(_template()).substitute(
            options="\n".join(f"#SBATCH --{option}" for option in self._options(runs, name, logs)),
            folder=shlex.quote(folder),
            exports="\n".join(f"export {key}={shlex.quote(environment[key])}" for key in sorted(environment)),
            command=f"{words} --global_seed=$SLURM_ARRAY_TASK_ID" if array else words,
            requeues=self.requeues,
            task="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" if array else "$SLURM_JOB_ID",
        )

    def _options(self, runs: Sequence[Run], name: str, logs: str) -> Iterator[str]:
        """The options of sbatch, one by one."""
        array = runs[0].seed is not None
        file = os.path.join(logs.replace("%", "%%"), "%A_%a.log" if array else "%j.log")
        values = {
            "job-name": name,
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
            yield f"array={ranges.to_text([run.seed for run in runs])}{cap}"
        yield "requeue" if self.requeues else "no-requeue"
        yield from (f"{option}={value}" for option, value in values.items() if value is not None)
        yield from (line.removeprefix("--") for line in self._extra)


def parse_seeds(text: str) -> list[int]:
    """The seeds that a list of numbers and ranges names, in order, each once.

    Raises:
        ConfigError: a range ends before it begins.
    """
    valid = FORMATS["seeds"][1]
    return ranges.parse_list(text, lambda part, _: ConfigError(f"--seeds: the range {part} ends before it begins; valid: {valid}"))


def queue() -> dict[str, str]:
    """The runs of this user that are in the queue: folders of results, each with the state and the number of its job.

    Raises:
        ConfigError: SLURM does not answer.
    """
    found = {}
    rows = _ask("squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i|%K|%T|%r|%k")
    for row in rows.splitlines():
        number, seed, state, reason, pattern = row.split("|", 4)
        because = "" if reason in ("None", "(null)") else f" ({reason})"
        found[pattern.replace(ANY_SEED, f"seed_{seed}")] = f"{state.lower()}{because}, job {number}"
    return found


def _ask(*command: str, script: str | None = None) -> str:
    """What a command of SLURM's prints.

    Raises:
        ConfigError: it fails, or takes too long.
    """
    try:
        done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except (subprocess.TimeoutExpired, OSError) as error:
        raise ConfigError(f"--platform: SLURM does not answer ({error})") from None
    if done.returncode:
        said = " ".join(line.removeprefix(f"{command[0]}: ").removeprefix("error: ") for line in done.stderr.splitlines())
        raise ConfigError(f"--platform: {command[0]} refuses: {said or f'exit status {done.returncode}'}")
    return done.stdout


@contextlib.contextmanager
def _made(folder: str) -> Iterator[None]:
    """Makes a folder, and takes back what it has made where the block fails.

    Raises:
        ConfigError: the folder cannot be made.
    """
    above = itertools.accumulate(folder.split(os.sep), lambda path, name: f"{path}{os.sep}{name}")
    new = [path for path in above if path and not os.path.exists(path)]
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
    """The flags that a seed stands in for."""
    return {} if seed is None else {"global_seed": seed}


def _seconds(time: str) -> int:
    """The length of a time limit in one of SLURM's forms; a number alone is minutes, or after days hours."""
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
    """A value as sbatch reads it from a script: quoted as for a shell, but backslashes count within quotes as well."""
    return shlex.quote(value.replace("\\", "\\\\"))

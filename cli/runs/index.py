"""The index of the results folder: every run with its hyperparameters, its state and its final metrics. Nothing is written.

A folder may come from another program or be damaged, so that its contents are not trusted: a file that cannot be read is a state of the
run, not an error. A listing of ten thousand folders takes less than a second: few files are read, in few system calls, and metrics, dates
and sizes are read only for runs that need them.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cli.runs import listing, records
from extraction import report
from foundations import ancestors, json_text, paths
from foundations.errors import ConfigError
from platforms.system import processes

STATES = "finished", "running", "interrupted", "dropped", "failed", "damaged", "foreign"
FINISHED, RUNNING, INTERRUPTED, DROPPED, FAILED, DAMAGED, FOREIGN = STATES
KINDS = ("train", "extract", "lottery", "branch", "other")
TRASH = "trash"  # the folder in the results folder that `runs rm` moves runs to
OTHER_FOLDERS = {TRASH, "slurm"}  # folders of this framework that contain no runs
EXPERIMENT = re.compile(r"(train|extract|lottery|ec)_([0-9a-f]{32}|[0-9a-f]{10})")
SEED = ancestors.SEED_FOLDER
PART = re.compile(r"(clustering|lottery_branch_\w+)_([0-9a-f]{32}|[0-9a-f]{10})")
_FOLDER = re.compile(rf"{SEED.pattern}|level_(\d+|pretrain)|main|{PART.pattern}")  # of a seed, a level or a part
KIND_OF = {"ec": "extract"}  # the kind of runs by the prefix of a folder, where they differ
LOG_END_BYTES = 2**14  # the number of bytes that are read at the end of a log
STALE_LOCK_SECONDS = 120.0  # the age at which a listing ignores the lock of a process on another machine

Folder = tuple[str, frozenset[str]]  # a path, and the names of its files and folders


@dataclass(frozen=True)
class Run:
    """One seed of an experiment, or of a clustering or branch of the experiment.

    Attributes:
        kind: one of KINDS.
        name: the name of the experiment's folder.
        part: `clustering_<md5>` for a clustering, `lottery_branch_<name>_<md5>` for a branch, otherwise empty.
        seed: the number in the name of the seed's folder, -1 for a drawn seed; None without such a folder.
        location: the folder of the seed.
        folders: the folders with the run's files: one folder, or one for each level.
        hparams: the hyperparameters by the names of their flags.
        foreign: whether another program has made the run.
        defect: the reason why the run is damaged or foreign, as far as it is known without the metrics.
        students: for a clustering, the folder of its students.
    """

    kind: str
    name: str
    part: str
    seed: int | None
    location: str
    folders: tuple[Folder, ...]
    hparams: Mapping[str, object]
    foreign: bool = False
    defect: str = ""
    students: Folder | None = None

    @property
    def state(self) -> str:
        """One of STATES."""
        return self._outcome[0]

    @property
    def metrics(self) -> Mapping[str, float | bool]:
        """The last value of each metric by name."""
        return self._outcome[2]

    @property
    def trained_steps(self) -> object:
        """How long the run was trained; the planned length if no file shows another."""
        planned = self.hparams.get("training_steps")
        if self.kind not in ("train", "extract") or not self.folders or not isinstance(planned, str):
            return planned
        try:
            return paths.trained_steps((self.students or self.folders[0])[1], planned)
        except ConfigError:  # a damaged record
            return planned

    @property
    def deviates(self) -> bool:
        """Whether the run was trained for longer or shorter than its hyperparameters say."""
        return self.trained_steps != self.hparams.get("training_steps")

    @functools.cached_property
    def note(self) -> str:
        """Details of the state: the process that works on the run, the progress of the run, or the defect."""
        state, note, _ = self._outcome
        return note if state != INTERRUPTED else note or _progress(self)

    @property
    def lock_folders(self) -> list[str]:
        """The folders that a process locks while it works on the run. The run's own folders come first."""
        if self.kind == "lottery":
            return [self.location]
        return [folder for folder, _ in (*self.folders, *filter(None, [self.students]))]

    @property
    def is_empty(self) -> bool:
        """Whether the folders of the run contain no files, except hidden ones: a start ended before it wrote anything."""
        return all(map(_has_no_files, [folder for folder, _ in self.folders] if self.part else [self.location]))

    @functools.cached_property
    def date(self) -> str:
        """The time at which the result was written, as `2025-01-31 12:00:00` in local time."""
        folder, names = self.folders[-1] if self.folders else (self.location, frozenset())
        newest = listing.modification_time(folder, next((name for name in _RESULTS if name in names), ""))
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(newest))

    @functools.cached_property
    def size(self) -> int:
        """The number of bytes of the run's files, including a clustering's students and a lottery experiment's branches."""
        if self.kind in ("lottery", "other") or not self.folders:
            return listing.size_of(self.location)
        own = sum(listing.size_of(folder) for folder, _ in self.folders)
        if self.students is None:
            return own
        return own + sum(listing.size_of(f"{self.students[0]}/{name}") for name in self.students[1] if not name.startswith("clustering_"))

    @functools.cached_property
    def _outcome(self) -> tuple[str, str, Mapping[str, float | bool]]:
        """The state, the note (without the progress of an interrupted run), and the metrics."""
        try:
            is_finished, metrics, damage = *_METRICS[self.kind if self.folders else "other"](self), self.defect
        except records.Damaged as error:
            is_finished, metrics, damage = False, {}, self.defect or str(error)
        if self.foreign:
            return FOREIGN, self._foreign_note(damage), metrics
        process = self._process(is_finished)
        if process:
            return RUNNING, process.display, metrics
        if damage and self.is_empty:
            return INTERRUPTED, "nothing was written", metrics
        if damage:
            return DAMAGED, damage, metrics
        if is_finished:
            diverged = any(name.endswith("_loss") and not math.isfinite(value) for name, value in metrics.items())
            return FINISHED, "diverged" if diverged else "", metrics
        failures = (_failure(folder) for folder, names in self.folders if _FAILURE in names)
        failure = next(filter(None, failures), None)
        if not failure and any(_DROPPED in names for _, names in self.folders):
            return DROPPED, "out of the race", metrics
        return (FAILED, failure, metrics) if failure else (INTERRUPTED, "", metrics)

    def _foreign_note(self, damage: str) -> str:
        """The program that made the run, whether it has trained to the end, and what cannot be read."""
        program = ancestors.program_of(self.location)
        if program is None:
            return damage
        folders = [self.students] if self.students else self.folders
        trained = bool(folders) and all(_is_trained(files) for _, files in folders)
        return "; ".join(filter(None, [program, "finished" if trained else "unfinished", damage]))

    def _process(self, is_finished: bool) -> processes.Process | None:
        """The process that works on the run. A process that works on the students does not work on a finished clustering."""
        if self.kind == "lottery":
            return lock_holder(self.location)
        folders = self.folders if is_finished or not self.students else (*self.folders, self.students)
        return next(filter(None, (lock_holder(folder) for folder, names in folders if _LOCK in names)), None)


_LOCK, _FAILURE, _LOGGER = (os.path.basename(path("")) for path in (paths.lock, paths.failure, paths.logger))
_DROPPED = os.path.basename(paths.dropped(""))
_REPORT = os.path.basename(paths.report(""))
_SPARSITY, _BARRIER, _PROGRESS = (os.path.basename(path("")) for path in (paths.sparsity_report, paths.barrier, paths.progress))
_CHECKPOINT, _PREVIOUS = (os.path.basename(path("")) for path in (paths.checkpoint, paths.previous_checkpoint))
_PROVENANCE = os.path.basename(paths.provenance(""))
_RESULTS = (_REPORT, _BARRIER, _LOGGER, _CHECKPOINT, records.RECORD)  # the first of these files that exists dates a run


def identify(path: str) -> tuple[str, str, str]:
    """The kind, name and part of the run in a folder, whose path is relative to the results folder."""
    name, *inner = path.split(os.sep)
    part = next(filter(PART.fullmatch, inner), "")
    kind = name.partition("_")[0]
    return "branch" if part.startswith("lottery_branch_") else KIND_OF.get(kind, kind), name, part


def scan(root: str, leave_out: Iterable[str] = ()) -> list[Run]:
    """Every run in a results folder, sorted by name, part and seed.

    Args:
        root: the results folder; it may be absent.
        leave_out: folders that contain no runs, such as the folders of the datasets.
    """
    left_out = {os.path.abspath(path) for path in leave_out}
    runs: list[Run] = []
    absolute = os.path.abspath(root)
    with listing.garbage_collection_paused():
        for name in sorted(listing.folders_in(root)):
            if name not in OTHER_FOLDERS and not name.startswith(".") and f"{absolute}/{name}" not in left_out:
                runs += _experiment(root, name)
    return runs


def _experiment(root: str, name: str) -> Iterator[Run]:
    """The runs in a folder of the results folder."""
    location, match = f"{root}/{name}", EXPERIMENT.fullmatch(name)
    if match is None:
        yield Run("other", name, "", None, location, (), {}, foreign=True, defect="the folder is not named like a run")
        return
    seeds, known = [(SEED.fullmatch(folder), folder) for folder in sorted(listing.names_in(location))], {}
    if not any(seed for seed, _ in seeds):
        theirs = ancestors.program_of(name) is not None
        yield Run(KIND_OF.get(match[1], match[1]), name, "", None, location, (), {}, theirs, _why_empty(location))
    reader = _lottery if match[1] == "lottery" else _trained
    imported = {folder.removeprefix("replicate_") for _, folder in seeds if folder.startswith("replicate_")}
    imported = {seed for seed in imported if os.path.exists(paths.imported(f"{location}/seed_{seed}"))}
    for seed, folder in seeds:
        if seed and not (folder.startswith("replicate_") and seed[1] in imported):
            yield from reader(name, int(seed[1]), f"{location}/{folder}", known)


def _why_empty(location: str) -> str:
    """The reason why an experiment has no seeds."""
    try:
        names = [name for name in os.listdir(location) if not name.startswith(".")]
        return "the folder has no folder of a seed" if names else "the folder is empty"
    except OSError as error:
        return f"the folder cannot be read ({error.strerror})"


def _trained(name: str, seed: int, location: str, known: dict[str, object]) -> Iterator[Run]:
    """The runs of one seed of `train` or `extract`, one for each clustering. `known` are the hyperparameters of earlier seeds."""
    kind, main = identify(name)[0], f"{location}/main"
    files = listing.names_in(main)
    hparams, foreign, defect = records.hparams(main, files, known)
    clusterings = [part for part in sorted(files) if part.startswith("clustering_") and PART.fullmatch(part)]
    if kind == "train" or not clusterings:
        yield Run(kind, name, "", seed, location, ((main, files),), hparams, foreign, defect)
        return
    for part in clusterings:
        folder = os.path.join(main, part)
        own, damage = records.extraction(folder)
        yield Run(
            kind, name, part, seed, location, ((folder, listing.names_in(folder)),), hparams | own, foreign, defect or damage, (main, files)
        )


def _lottery(name: str, seed: int, location: str, known: dict[str, object]) -> Iterator[Run]:
    """The run of one seed of `lottery`, and the runs of its branches."""
    levels = sorted((int(level[6:]), level) for level in listing.names_in(location) if re.fullmatch(r"level_\d+", level))
    parts: dict[str, list[Folder]] = {}
    for _, level in levels:
        for part in sorted(listing.names_in(os.path.join(location, level))):
            if part == "main" or PART.fullmatch(part):
                folder = os.path.join(location, level, part)
                parts.setdefault(part, []).append((folder, listing.names_in(folder)))
    trunk = parts.pop("main", [])
    hparams, foreign, defect = records.hparams(*trunk[0], known) if trunk else ({}, False, "the folder has no level")
    yield Run("lottery", name, "", seed, location, tuple(trunk), hparams, foreign, defect)
    for part, folders in parts.items():
        branch = {"branch": part.removeprefix("lottery_branch_").rpartition("_")[0]}
        own, foreign, defect = records.hparams(*folders[0], {})
        if not own and os.path.exists(paths.imported(location)):  # OpenLTH does not record the arguments of branches
            own, foreign, defect = hparams, False, ""
        elif not own and foreign:
            own, defect = hparams, "the arguments of the branch are not recorded"
        yield Run("branch", name, part, seed, location, tuple(folders), branch | own, foreign, defect)


# Functions that return whether a run is finished, and its metrics.


def _logged(folder: str) -> dict[str, float]:
    """The last value of each scalar metric in a log. The log is read from its end until a name repeats, after one round of evaluation.

    Raises:
        records.Damaged: a line is not a record.
    """
    text = records.read(paths.logger(folder), LOG_END_BYTES, end=True).decode(errors="replace")
    if ancestors.is_log(text):
        return _logged_by_ancestor(text)
    if text and not text.endswith("\n"):
        raise records.Damaged("logger is cut short")
    metrics: dict[str, float] = {}
    seen: set[str] = set()
    for line in reversed(text.splitlines()):
        name, _, rest = line.partition("$")
        value = rest.partition("$")[2]
        if name in seen:
            break
        seen.add(name)
        if not value.startswith("["):
            try:
                metrics[name] = math.nan if value == "null" else float(value)
            except ValueError:
                raise records.Damaged("logger has a line that is no record") from None
    return metrics


def _logged_by_ancestor(text: str) -> dict[str, float]:
    """The last value of each scalar metric in the end of a log of OpenLTH or of the published code, whose first row may be incomplete."""
    metrics: dict[str, float] = {}
    for row in ancestors.rows(text):
        with contextlib.suppress(ValueError):
            name, _, value = ancestors.parse_row(row)
            if isinstance(value, float):
                metrics[name] = value
    return metrics


def _is_trained(files: frozenset[str]) -> bool:
    """Whether a folder with these files contains a trained network and its log."""
    return _LOGGER in files and paths.latest_model(files) is not None


def _training(run: Run) -> tuple[bool, dict[str, float]]:
    folder, files = run.folders[0]
    return _is_trained(files), _logged(folder) if _LOGGER in files else {}


def _extracting(run: Run) -> tuple[bool, dict[str, float | bool]]:
    folder, files = run.folders[0]
    if not run.part:
        return False, _training(run)[1]
    if _REPORT not in files:
        return False, {}
    content = records.read_json(paths.report(folder))
    try:
        figures = report.summary(content)
    except (KeyError, TypeError, AttributeError, OverflowError):
        raise records.Damaged("report.json is incomplete") from None
    return True, {name: value for name, value in figures.items() if value is not None}


def _levels(run: Run) -> tuple[bool, dict[str, float]]:
    """The metrics of the last finished level, with the level and the share of the weights that are left."""
    done = [(folder, files) for folder, files in run.folders if _is_trained(files) or _BARRIER in files]
    if not done:
        return False, {}
    folder, files = done[-1]
    level = int(os.path.basename(os.path.dirname(folder)).removeprefix("level_"))
    metrics = {"level": level} | (_logged(folder) if _LOGGER in files else {})
    try:
        if _SPARSITY in files or _BARRIER in files:
            weights = records.read_json((paths.sparsity_report if _SPARSITY in files else paths.barrier)(folder))
            metrics["weights_left"] = weights["unpruned"] / weights["total"]
            if _BARRIER in files:
                errors = [*map(json_text.number, weights["test"])]
                metrics["barrier"] = max(errors) - (errors[0] + errors[-1]) / 2
    except (KeyError, TypeError, IndexError, ZeroDivisionError):
        raise records.Damaged(f"a file in {os.path.basename(folder)} of level {level} is incomplete") from None
    ends = paths.levels(run.location, level), paths.levels_report(run.location, level), paths.imported(run.location)
    return len(done) == len(run.folders) and (bool(run.part) or any(map(os.path.exists, ends))), metrics


def _nothing(run: Run) -> tuple[bool, dict[str, float]]:
    return False, {}


_METRICS = {"train": _training, "extract": _extracting, "lottery": _levels, "branch": _levels, "other": _nothing}


def lock_holder(folder: str) -> processes.Process | None:
    """The live process that holds the lock of a folder. A process on another machine is live while it updates the lock."""
    try:
        process = processes.Process.from_json(records.read(paths.lock(folder), records.LONGEST_RECORD).decode(errors="replace"))
    except records.Damaged:
        return None
    alive = process.is_alive
    if alive is None:
        alive = time.time() - listing.modification_time(folder, os.path.basename(paths.lock(folder))) < STALE_LOCK_SECONDS
    return process if alive else None


def _failure(folder: str) -> str:
    """The reason why the last start of a run failed; empty if it is not known."""
    try:
        return str(records.read_json(paths.failure(folder))["error"])
    except (records.Damaged, KeyError):
        return ""


def _has_no_files(path: str) -> bool:
    """Whether a folder contains only folders of seeds, levels and parts, and no files except hidden ones. False if it cannot be read."""

    def raise_error(error: OSError) -> None:
        raise error

    try:
        return all(
            all(map(_FOLDER.fullmatch, folders)) and all(name.startswith(".") for name in names)
            for _, folders, names in os.walk(path, onerror=raise_error)
        )
    except OSError:
        return False


def _progress(run: Run) -> str:
    """The progress of an interrupted run."""
    if run.students is not None:
        return "students trained, no report yet" if _is_trained(run.students[1]) else _step(run.students, run.hparams)
    folder, files = run.folders[-1]
    if run.kind == "extract" and _is_trained(files):
        return "students trained, no report yet"
    level = f"level {os.path.basename(os.path.dirname(folder)).removeprefix('level_')}" if run.kind in ("lottery", "branch") else ""
    step = "trained" if _is_trained(files) else _step((folder, files), run.hparams)
    return f"{level}: {step}" if level else step


def _step(folder: Folder, hparams: Mapping[str, object]) -> str:
    """The iteration of the newest checkpoint and the length of training. The iteration is unknown for runs of older versions."""
    planned = hparams.get("training_steps", "?")
    location, names = folder
    if not names & {_CHECKPOINT, _PREVIOUS}:
        return f"before the first checkpoint of {planned}"
    with contextlib.suppress(records.Damaged):
        iteration = records.read_json(paths.progress(location)).get("iteration") if _PROGRESS in names else None
        if type(iteration) is int:
            return f"step {iteration} of {planned}"
    return f"an unknown step of {planned}"


def recorded_commands(run: Run) -> list[str]:
    """The command that made a run and other commands that continued it, from its provenance record; empty without a record."""
    for folder in (folder for folder, names in run.folders if _PROVENANCE in names):
        with contextlib.suppress(records.Damaged):
            content = records.read_json(os.path.join(folder, _PROVENANCE))
            starts = content.get("starts")
            later = [start.get("command") for start in starts if isinstance(start, dict)] if isinstance(starts, list) else []
            return [str(command) for command in dict.fromkeys([content.get("command"), *later]) if command]
    return []


def origin(run: Run) -> str | None:
    """The folder of the other program from which a run was imported, and the program; None for other runs."""
    with contextlib.suppress(records.Damaged):
        content = records.read_json(paths.imported(run.location))
        return f"{content.get('folder')} ({content.get('program')})"
    return None

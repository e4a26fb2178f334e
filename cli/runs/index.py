"""What there is under the root: every run with its hyperparameters, its state and its final metrics, read and never written.

A folder may be anybody's and in any condition, so that nothing in it is trusted: what cannot be read is a state, and no error. Ten thousand
folders are to take less than a second. So the few files that a listing needs are read in as few system calls as there can be, and metrics,
dates and sizes only of runs that somebody asks them of.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cli.runs import records
from extraction import report
from foundations import paths
from platforms.system import processes

FINISHED, RUNNING, INTERRUPTED, FAILED, DAMAGED, FOREIGN = STATES = "finished", "running", "interrupted", "failed", "damaged", "foreign"
KINDS = ("train", "extract", "lottery", "branch", "other")
TRASH = "trash"  # the folder under the root that `runs rm` moves to
NO_RUNS = {TRASH, "slurm"}
EXPERIMENT = re.compile(r"(train|extract|lottery)_([0-9a-f]{32})")
SEED = re.compile(r"(?:seed|replicate)_(-?\d+)")
PART = re.compile(r"(clustering|lottery_branch_\w+)_([0-9a-f]{32})")
TAIL = 2**14  # bytes of the end of a log that are read
SILENT_SECONDS = 120.0  # after which the holder of a lock on another machine counts as dead, as far as a listing goes

Folder = tuple[str, frozenset[str]]  # a path, and the names in it


@dataclass(frozen=True)
class Run:
    """One seed of an experiment, or of a part of it that has hyperparameters of its own.

    Attributes:
        kind: what made it, one of KINDS.
        name: the folder of the experiment, below the root.
        part: `clustering_<md5>` of an extraction, `lottery_branch_<name>_<md5>` of a branch, else empty.
        seed: the number in the name of the seed's folder, -1 where it was drawn; None where there is no such folder.
        location: the folder of the seed.
        folders: where the run keeps its files: one folder, or that of every level.
        hparams: hyperparameters by the names of their flags.
        foreign: whether it is no run of this framework's.
        defect: why it is no whole run, where that is known without its metrics.
        students: of a clustering, the folder of its students.
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

    @functools.cached_property
    def note(self) -> str:
        """What there is to say of the state: who is at work, how far it has come, or what is wrong."""
        state, note, _ = self._outcome
        return note if state != INTERRUPTED else note or _progress(self)

    @property
    def lock_folders(self) -> list[str]:
        """The folders whose lock whoever works on the run holds, its own first."""
        if self.kind == "lottery":
            return [self.location]
        return [folder for folder, _ in (*self.folders, *filter(None, [self.students]))]

    @functools.cached_property
    def date(self) -> str:
        """When its result was written, as `2025-01-31 12:00:00` in local time."""
        folder, names = self.folders[-1] if self.folders else (self.location, frozenset())
        newest = _stamp(folder, next((name for name in _RESULTS if name in names), ""))
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(newest))

    @functools.cached_property
    def size(self) -> int:
        """The bytes of its files; those of a clustering's students and of the branches of a lottery ticket experiment count as well."""
        if self.kind in ("lottery", "other") or not self.folders:
            return size_of(self.location)
        own = sum(size_of(folder) for folder, _ in self.folders)
        if self.students is None:
            return own
        return own + sum(size_of(f"{self.students[0]}/{name}") for name in self.students[1] if not name.startswith("clustering_"))

    @functools.cached_property
    def _outcome(self) -> tuple[str, str, Mapping[str, float | bool]]:
        """The state, what there is to say of it at once, and the metrics."""
        try:
            is_finished, metrics, damage = *_METRICS[self.kind](self), self.defect
        except records.Damaged as error:
            is_finished, metrics, damage = False, {}, self.defect or str(error)
        if self.foreign:
            return FOREIGN, self.defect, metrics
        who = self._holder(is_finished)
        if who:
            return RUNNING, who.display, metrics
        if damage:
            return DAMAGED, damage, metrics
        if is_finished:
            return FINISHED, "", metrics
        failures = (_failure(folder) for folder, names in self.folders if _FAILURE in names)
        failure = next(filter(None, failures), None)
        return (FAILED, failure, metrics) if failure else (INTERRUPTED, "", metrics)

    def _holder(self, is_finished: bool) -> processes.Process | None:
        """The process that is at work on it; where a clustering is finished, work on its students is none on it."""
        if self.kind == "lottery":
            return holder(self.location)
        folders = self.folders if is_finished or not self.students else (*self.folders, self.students)
        return next(filter(None, (holder(folder) for folder, names in folders if _LOCK in names)), None)


_LOCK, _FAILURE, _LOGGER = (os.path.basename(path("")) for path in (paths.lock, paths.failure, paths.logger))
_REPORT = os.path.basename(paths.report(""))
_SPARSITY, _BARRIER, _PROGRESS = (os.path.basename(path("")) for path in (paths.sparsity_report, paths.barrier, paths.progress))
_CHECKPOINT, _PREVIOUS = (os.path.basename(path("")) for path in (paths.checkpoint, paths.previous_checkpoint))
_PROVENANCE = os.path.basename(paths.provenance(""))
_RESULTS = (_REPORT, _BARRIER, _LOGGER, _CHECKPOINT, records.RECORD)  # the first that there is tells the date of a run


def place_of(path: str) -> tuple[str, str, str]:
    """Kind, name and part of the run whose results go to a folder, given below the root."""
    name, *inner = path.split(os.sep)
    part = next(filter(PART.fullmatch, inner), "")
    return "branch" if part.startswith("lottery_branch_") else name.partition("_")[0], name, part


# Finding runs.


def scan(root: str, leave_out: Iterable[str] = ()) -> list[Run]:
    """Every run under a root, sorted by name, part and seed.

    Args:
        root: the folder of all results; none is empty.
        leave_out: folders that hold no runs, such as those of the datasets.
    """
    others = {os.path.abspath(path) for path in leave_out}
    runs: list[Run] = []
    here = os.path.abspath(root)
    with uncollected():
        for name in sorted(_folders(root)):
            if name not in NO_RUNS and not name.startswith(".") and f"{here}/{name}" not in others:
                runs += _experiment(root, name)
    return runs


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Leaves garbage alone for a while: to look for it among many records takes as long as to read them."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _folders(path: str) -> list[str]:
    """The names of the folders in a folder."""
    found = []
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # a link to itself
                if entry.is_dir():
                    found.append(entry.name)
    return found


def _names(path: str) -> frozenset[str]:
    """The names in a folder; none where there is no folder that can be read."""
    try:
        return frozenset(os.listdir(path))
    except OSError:
        return frozenset()


def _experiment(root: str, name: str) -> Iterator[Run]:
    location, match = f"{root}/{name}", EXPERIMENT.fullmatch(name)
    if match is None:
        yield Run("other", name, "", None, location, (), {}, foreign=True, defect="no name of a run")
        return
    seeds, known = [(SEED.fullmatch(folder), folder) for folder in sorted(_names(location))], {}
    if not any(seed for seed, _ in seeds):
        yield Run(match[1], name, "", None, location, (), {}, defect=_why_empty(location))
    reader = _lottery if match[1] == "lottery" else _trained
    for seed, folder in seeds:
        if seed:
            yield from reader(name, int(seed[1]), f"{location}/{folder}", known)


def _why_empty(location: str) -> str:
    try:
        return "it has no folder of a seed" if os.listdir(location) else "it is empty"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"


def _trained(name: str, seed: int, location: str, known: dict[str, object]) -> Iterator[Run]:
    """The run of one seed of `train` or `extract`, the latter once for each clustering; `known` is of the seeds before."""
    kind, main = name.partition("_")[0], f"{location}/main"
    files = _names(main)
    hparams, foreign, defect = records.hparams(main, files, known)
    clusterings = [part for part in sorted(files) if part.startswith("clustering_") and PART.fullmatch(part)]
    if kind == "train" or not clusterings:
        yield Run(kind, name, "", seed, location, ((main, files),), hparams, foreign, defect)
        return
    for part in clusterings:
        folder = os.path.join(main, part)
        own, damage = records.extraction(folder)
        yield Run(kind, name, part, seed, location, ((folder, _names(folder)),), hparams | own, foreign, defect or damage, (main, files))


def _lottery(name: str, seed: int, location: str, known: dict[str, object]) -> Iterator[Run]:
    """The run of one seed of `lottery`, and those of its branches."""
    levels = sorted((int(level[6:]), level) for level in _names(location) if re.fullmatch(r"level_\d+", level))
    parts: dict[str, list[Folder]] = {}
    for _, level in levels:
        for part in sorted(_names(os.path.join(location, level))):
            if part == "main" or PART.fullmatch(part):
                folder = os.path.join(location, level, part)
                parts.setdefault(part, []).append((folder, _names(folder)))
    trunk = parts.pop("main", [])
    hparams, foreign, defect = records.hparams(*trunk[0], known) if trunk else ({}, False, "it has no level")
    yield Run("lottery", name, "", seed, location, tuple(trunk), hparams, foreign, defect)
    for part, folders in parts.items():
        hparams, foreign, defect = records.hparams(*folders[0], {})
        branch = {"branch": part.removeprefix("lottery_branch_").rpartition("_")[0]}
        yield Run("branch", name, part, seed, location, tuple(folders), branch | hparams, foreign, defect)


# Metrics: functions from a run to whether it is finished, and its metrics.


def _logged(folder: str) -> dict[str, float]:
    """The last value of each number in a log; read from its end until a name comes again, for then a round of evaluation has been seen.

    Raises:
        records.Damaged: a line is no record.
    """
    text = records.read(paths.logger(folder), TAIL, end=True).decode(errors="replace")
    if text and not text.endswith("\n"):
        raise records.Damaged("logger is cut short")
    separator = "$" if "$" in text else ","  # the second is OpenLTH's
    found: dict[str, float] = {}
    seen: set[str] = set()
    for line in reversed(text.splitlines()):
        name, _, rest = line.partition(separator)
        value = rest.partition(separator)[2]
        if name in seen:
            break
        seen.add(name)
        if not value.startswith("["):
            try:
                found[name] = float(value)
            except ValueError:
                raise records.Damaged("logger has a line that is no record") from None
    return found


def _is_trained(files: frozenset[str]) -> bool:
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
        raise records.Damaged("report.json is not whole") from None
    return True, {name: value for name, value in figures.items() if value is not None}


def _levels(run: Run) -> tuple[bool, dict[str, float]]:
    """The metrics of the last level that is done, with the level and the share of the weights that is left."""
    done = [(folder, files) for folder, files in run.folders if _is_trained(files) or _BARRIER in files]
    if not done:
        return False, {}
    folder, files = done[-1]
    level = int(os.path.basename(os.path.dirname(folder)).removeprefix("level_"))
    found = {"level": level} | (_logged(folder) if _LOGGER in files else {})
    try:
        if _SPARSITY in files or _BARRIER in files:
            weights = records.read_json((paths.sparsity_report if _SPARSITY in files else paths.barrier)(folder))
            found["weights_left"] = weights["unpruned"] / weights["total"]
        if _BARRIER in files:
            errors = weights["test"]
            found["barrier"] = max(errors) - (errors[0] + errors[-1]) / 2
    except (KeyError, TypeError, IndexError, ZeroDivisionError):
        raise records.Damaged(f"what is in {os.path.basename(folder)} of level {level} is not whole") from None
    drawn = run.part or os.path.exists(paths.levels(run.location, level))
    return len(done) == len(run.folders) and bool(drawn), found


def _nothing(run: Run) -> tuple[bool, dict[str, float]]:
    return False, {}


_METRICS = {"train": _training, "extract": _extracting, "lottery": _levels, "branch": _levels, "other": _nothing}


# Who is at work, how far a run has come, when, and how large it is.


def holder(folder: str) -> processes.Process | None:
    """The living process that holds the lock of a folder; one on another machine lives for as long as it touches the lock."""
    try:
        found = processes.Process.from_json(records.read(paths.lock(folder), records.LONGEST_RECORD).decode(errors="replace"))
    except records.Damaged:
        return None
    alive = found.is_alive
    if alive is None:
        alive = time.time() - _stamp(folder, os.path.basename(paths.lock(folder))) < SILENT_SECONDS
    return found if alive else None


def _failure(folder: str) -> str:
    """Why the last start of a run failed; empty where that is not known."""
    try:
        return str(records.read_json(paths.failure(folder))["error"])
    except (records.Damaged, KeyError):
        return ""


def _stamp(folder: str, name: str = "") -> float:
    """When a file was written last, in seconds since 1970; 0 where there is none."""
    try:
        return os.stat(f"{folder}/{name}" if name else folder).st_mtime
    except OSError:
        return 0.0


def size_of(path: str) -> int:
    """The bytes of a file, or of all files in a folder and below; links are not followed."""
    try:
        with os.scandir(path) as entries:
            return sum(size_of(entry.path) if entry.is_dir(follow_symlinks=False) else _bytes(entry) for entry in entries)
    except NotADirectoryError:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _bytes(entry: os.DirEntry) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0


def _progress(run: Run) -> str:
    """How far an interrupted run has come."""
    if run.part.startswith("clustering_"):
        return "students trained, no report yet" if _is_trained(run.students[1]) else _step(run.students, run.hparams)
    folder, files = run.folders[-1]
    if run.kind == "extract" and _is_trained(files):
        return "students trained, no report yet"
    where = f"level {os.path.basename(os.path.dirname(folder)).removeprefix('level_')}" if run.kind in ("lottery", "branch") else ""
    step = "trained" if _is_trained(files) else _step((folder, files), run.hparams)
    return f"{where}: {step}" if where else step


def _step(folder: Folder, hparams: Mapping[str, object]) -> str:
    """The iteration of the newest checkpoint, and the length of training; of runs of older versions the iteration is not known."""
    planned = hparams.get("training_steps", "?")
    location, names = folder
    if not names & {_CHECKPOINT, _PREVIOUS}:
        return f"before the first checkpoint of {planned}"
    with contextlib.suppress(records.Damaged):
        iteration = records.read_json(paths.progress(location)).get("iteration") if _PROGRESS in names else None
        if type(iteration) is int:
            return f"step {iteration} of {planned}"
    return f"an unknown step of {planned}"


def command(run: Run) -> str | None:
    """The command that made a run, from its record of provenance; None where there is none."""
    for folder in (folder for folder, names in run.folders if _PROVENANCE in names):
        with contextlib.suppress(records.Damaged):
            found = records.read_json(os.path.join(folder, _PROVENANCE)).get("command")
            return found and str(found)
    return None

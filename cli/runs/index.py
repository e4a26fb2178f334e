"""What there is under the root: every run with its hyperparameters, its state and its final metrics, read and never written.

A folder may be anybody's and in any condition, so that nothing in it is trusted: what cannot be read is a state, and no error. Ten thousand
folders are to take less than a second. So the few files that a listing needs are read in as few system calls as there can be, and metrics,
dates and sizes only of runs that somebody asks them of.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields

from cli.runs import checkpoint
from foundations import paths
from foundations.desc import parse_shown
from foundations.errors import ConfigError, did_you_mean
from foundations.hparams import DatasetHparams, ExtractionHparams, ModelHparams, TrainingHparams
from platforms import process

FINISHED, RUNNING, INTERRUPTED, FAILED, DAMAGED, FOREIGN = STATES = "finished", "running", "interrupted", "failed", "damaged", "foreign"
KINDS = ("train", "extract", "lottery", "branch", "other")
BUNDLES = {"dataset": DatasetHparams, "model": ModelHparams, "training": TrainingHparams, "extraction": ExtractionHparams}
TRASH = "trash"  # the folder under the root that `runs rm` moves to
NO_RUNS = {TRASH, "slurm"}
EXPERIMENT = re.compile(r"(train|extract|lottery)_([0-9a-f]{32})")
SEED = re.compile(r"(?:seed|replicate)_(-?\d+)")
PART = re.compile(r"(clustering|lottery_branch_\w+)_([0-9a-f]{32})")
LONGEST_RECORD, TAIL = 2**20, 2**14  # bytes of a record that are no sign of damage, and of the end of a log that are read
PIECE = 2**13  # bytes; most files are shorter, and room for more takes time to make
SHORTEST_HASH = 6  # digits
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
        except _Damaged as error:
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

    def _holder(self, is_finished: bool) -> process.Process | None:
        """The process that is at work on it; where a clustering is finished, work on its students is none on it."""
        if self.kind == "lottery":
            return holder(self.location)
        folders = self.folders if is_finished or not self.students else (*self.folders, self.students)
        return next(filter(None, (holder(folder) for folder, names in folders if _LOCK in names)), None)


_LOCK, _FAILURE, _LOGGER = (os.path.basename(path("")) for path in (paths.lock, paths.failure, paths.logger))
_RECORD, _LOG, _REPORT = (os.path.basename(path("")) for path in (paths.hparams_dict, paths.hparams_log, paths.report))
_SPARSITY, _BARRIER, _CHECKPOINT = (os.path.basename(path("")) for path in (paths.sparsity_report, paths.barrier, paths.checkpoint))
_PROVENANCE = os.path.basename(paths.provenance(""))
_RESULTS = (_REPORT, _BARRIER, _LOGGER, _CHECKPOINT, _RECORD)  # the first that there is tells the date of a run
_DECODER = json.JSONDecoder()


class _Damaged(Exception):
    """A file is there and not whole; the text says which and why."""


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
    hparams, foreign, defect = _hparams(main, files, known)
    clusterings = [part for part in sorted(files) if part.startswith("clustering_") and PART.fullmatch(part)]
    if kind == "train" or not clusterings:
        yield Run(kind, name, "", seed, location, ((main, files),), hparams, foreign, defect)
        return
    for part in clusterings:
        folder = os.path.join(main, part)
        own, damage = _extraction(folder)
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
    hparams, foreign, defect = _hparams(*trunk[0], known) if trunk else ({}, False, "it has no level")
    yield Run("lottery", name, "", seed, location, tuple(trunk), hparams, foreign, defect)
    for part, folders in parts.items():
        hparams, foreign, defect = _hparams(*folders[0], {})
        branch = {"branch": part.removeprefix("lottery_branch_").rpartition("_")[0]}
        yield Run("branch", name, part, seed, location, tuple(folders), branch | hparams, foreign, defect)


# Reading what is in a folder.


def _read(path: str, longest: int, end: bool = False) -> bytes:
    """The bytes of a file, or where it is longer and that will do, the lines at its end; what is a pipe is not waited for.

    Raises:
        _Damaged: it cannot be read, or is longer.
    """
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            content = os.read(file, PIECE)
            if len(content) == PIECE:
                content += os.read(file, longest + 1 - PIECE)
            if len(content) > longest and end:
                os.lseek(file, -longest, os.SEEK_END)
                content = os.read(file, longest).partition(b"\n")[2]
        finally:
            os.close(file)
    except OSError as error:
        raise _Damaged(f"{os.path.basename(path)} cannot be read ({error.strerror})") from None
    if len(content) > longest:
        raise _Damaged(f"{os.path.basename(path)} has more than {longest:,} bytes")
    return content


def _json(path: str) -> dict:
    """What a file of JSON holds.

    Raises:
        _Damaged: it does not hold a whole object.
    """
    try:
        content = _DECODER.decode(_read(path, LONGEST_RECORD).decode())
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise _Damaged(f"{os.path.basename(path)} is not whole")
    return content


def _hparams(folder: str, files: frozenset[str], known: dict[str, object]) -> tuple[dict[str, object], bool, str]:
    """The hyperparameters of a run folder, whether it is foreign, and what is wrong with it.

    Seeds of an experiment have them in common: of those but the first it is only looked at whether the record ends as it should.
    """
    if _RECORD in files:
        try:
            if known and _read(f"{folder}/{_RECORD}", LONGEST_RECORD).endswith(b"}\n"):
                return known, False, ""
            known.update(flatten(_json(f"{folder}/{_RECORD}")))
            return known, False, ""
        except _Damaged as error:
            if _LOG not in files or not _is_torch_file(os.path.join(folder, _RECORD)):
                return known, False, str(error)
    if _LOG in files:
        try:
            groups = parse_shown(_read(os.path.join(folder, _LOG), LONGEST_RECORD).decode(errors="replace"))
        except _Damaged as error:
            return {}, True, str(error)
        return {name: _value(text) for group in groups.values() for name, text in group.items()}, True, "no record of this framework's"
    return known, False, "it has no hparams_dict" if files else "it is empty or cannot be read"


def _is_torch_file(path: str) -> bool:
    """Whether a file begins as torch's do; the records of the published Expand-and-Cluster code are such files."""
    try:
        return _read(path, os.stat(path).st_size)[:2] in (b"PK", b"\x80\x02")
    except (OSError, _Damaged):
        return False


def _extraction(folder: str) -> tuple[dict[str, object], str]:
    """The hyperparameters of a clustering, and what is wrong with their record."""
    try:
        return flatten({"extraction_hparams": _json(paths.hparams_dict(folder, "extraction_"))}), ""
    except _Damaged as error:
        return {}, str(error)


@functools.cache
def defaults(bundle: str) -> dict[str, object]:
    """The defaults of the hyperparameters that need not be in an older record."""
    return {field.name: field.default for field in fields(BUNDLES[bundle]) if field.default is not MISSING}


def flatten(record: Mapping[str, object]) -> dict[str, object]:
    """The hyperparameters of a record by the names of their flags, those that it does not know of with their defaults.

    A bundle `dataset_hparams` gives `batch_size`, `pretrain_dataset_hparams` gives `pretrain_batch_size`, and a bundle among the arguments
    of a branch is prefixed with the argument's name. A branch's `seed` is `branch_seed`, for a run has a seed as well.
    """
    found: dict[str, object] = {}
    for name, values in record.items():
        if not isinstance(values, dict):
            continue
        if name in _COMPLETE and len(values) == _COMPLETE[name]:
            found.update(values)
        elif name.endswith("_hparams"):
            prefix, _, bundle = name.removesuffix("_hparams").rpartition("_")
            known = {**values, **_missing(defaults(bundle), values)} if bundle in BUNDLES else values
            found.update(_prefixed(known, f"{prefix}_" if prefix else ""))
    return found


_COMPLETE = {f"{name}_hparams": len(fields(bundle)) for name, bundle in BUNDLES.items()}


def _missing(known: Mapping[str, object], values: Mapping[str, object]) -> dict[str, object]:
    return {name: default for name, default in known.items() if name not in values}


def _prefixed(values: Mapping[str, object], prefix: str) -> dict[str, object]:
    """Hyperparameters under the names of their flags, those of nested bundles one by one."""
    found: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _prefixed(value, f"{prefix}{name}_")
        else:
            found["branch_seed" if prefix + name == "seed" else prefix + name] = value
    return found


def unhashed() -> set[str]:
    """The hyperparameters that do not name a run."""
    bundles = (field for bundle in BUNDLES.values() for field in fields(bundle))
    return {field.name for field in bundles if not field.metadata.get("hashed", True)}


def _value(text: str) -> object:
    """A value that OpenLTH has shown as text."""
    words = {"True": True, "False": False, "None": None}
    if text in words:
        return words[text]
    with contextlib.suppress(ValueError):
        return float(text) if "." in text or "e" in text else int(text)
    return text


# Metrics: functions from a run to whether it is finished, and its metrics.


def _logged(folder: str) -> dict[str, float]:
    """The last value of each number in a log; read from its end until a name comes again, for then a round of evaluation has been seen.

    Raises:
        _Damaged: a line is no record.
    """
    text = _read(paths.logger(folder), TAIL, end=True).decode(errors="replace")
    if text and not text.endswith("\n"):
        raise _Damaged("logger is cut short")
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
                raise _Damaged("logger has a line that is no record") from None
    return found


def _is_trained(files: frozenset[str]) -> bool:
    return _LOGGER in files and paths.latest_model(name for name in files if name.startswith("model_ep")) is not None


def _training(run: Run) -> tuple[bool, dict[str, float]]:
    folder, files = run.folders[0]
    return _is_trained(files), _logged(folder) if _LOGGER in files else {}


def _extracting(run: Run) -> tuple[bool, dict[str, float | bool]]:
    folder, files = run.folders[0]
    if not run.part:
        return False, _training(run)[1]
    if _REPORT not in files:
        return False, {}
    report = _json(paths.report(folder))
    try:
        found = {
            "identified": report["identified"],
            "accepted": report["certificate"]["accepted"],
            "max_relative_error": report["max_relative_error"],
            "max_abs_error": report["function"]["max_abs_error"],
            "seconds": sum(report["seconds"].values()),
        }
        if any(type(value) not in (bool, int, float, type(None)) for value in found.values()):
            raise TypeError
    except (KeyError, TypeError, AttributeError):
        raise _Damaged("report.json is not whole") from None
    return True, {name: value for name, value in found.items() if value is not None}


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
            weights = _json((paths.sparsity_report if _SPARSITY in files else paths.barrier)(folder))
            found["weights_left"] = weights["unpruned"] / weights["total"]
        if _BARRIER in files:
            errors = weights["test"]
            found["barrier"] = max(errors) - (errors[0] + errors[-1]) / 2
    except (KeyError, TypeError, IndexError, ZeroDivisionError):
        raise _Damaged(f"what is in {os.path.basename(folder)} of level {level} is not whole") from None
    drawn = run.part or os.path.exists(paths.levels(run.location, level))
    return len(done) == len(run.folders) and bool(drawn), found


def _nothing(run: Run) -> tuple[bool, dict[str, float]]:
    return False, {}


_METRICS = {"train": _training, "extract": _extracting, "lottery": _levels, "branch": _levels, "other": _nothing}


# Who is at work, how far a run has come, when, and how large it is.


def holder(folder: str) -> process.Process | None:
    """The living process that holds the lock of a folder; one on another machine lives for as long as it touches the lock."""
    try:
        found = process.Process.from_json(_read(paths.lock(folder), LONGEST_RECORD).decode(errors="replace"))
    except _Damaged:
        return None
    alive = found.is_alive
    if alive is None:
        alive = time.time() - _stamp(folder, os.path.basename(paths.lock(folder))) < SILENT_SECONDS
    return found if alive else None


def _failure(folder: str) -> str:
    """Why the last start of a run failed; empty where that is not known."""
    try:
        return str(_json(paths.failure(folder))["error"])
    except (_Damaged, KeyError):
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
    """How far an interrupted run has come, from its checkpoint."""
    if run.part.startswith("clustering_"):
        return "students trained, no report yet" if _is_trained(run.students[1]) else _step(run.students, run.hparams)
    folder, files = run.folders[-1]
    if run.kind == "extract" and _is_trained(files):
        return "students trained, no report yet"
    where = f"level {os.path.basename(os.path.dirname(folder)).removeprefix('level_')}" if run.kind in ("lottery", "branch") else ""
    step = "trained" if _is_trained(files) else _step((folder, files), run.hparams)
    return f"{where}: {step}" if where else step


def _step(folder: Folder, hparams: Mapping[str, object]) -> str:
    """The iteration of a checkpoint, and the length of training."""
    planned = hparams.get("training_steps", "?")
    if _CHECKPOINT not in folder[1]:
        return f"before the first checkpoint of {planned}"
    iteration = checkpoint.iteration(paths.checkpoint(folder[0]))
    return f"{'an unknown step' if iteration is None else f'step {iteration}'} of {planned}"


def command(run: Run) -> str | None:
    """The command that made a run, from its record of provenance; None where there is none."""
    for folder in (folder for folder, names in run.folders if _PROVENANCE in names):
        with contextlib.suppress(_Damaged):
            found = _json(os.path.join(folder, _PROVENANCE)).get("command")
            return found and str(found)
    return None


# Names of runs.


class Names:
    """The shortest hashes that tell the experiments under a root, and their parts, from each other; at least SHORTEST_HASH digits.

    Args:
        runs: all runs under the root, not only those that are shown.
    """

    def __init__(self, runs: Sequence[Run]):
        self._runs = runs
        self._short: dict[tuple[str, str], str] = {}
        self._shorten("", sorted({run.name for run in runs}), EXPERIMENT)
        parts: dict[str, set[str]] = {}
        for run in runs:
            if run.part:
                parts.setdefault(run.name, set()).add(run.part)
        for name, found in parts.items():
            self._shorten(name, sorted(found), PART)

    def _shorten(self, within: str, names: Sequence[str], pattern: re.Pattern) -> None:
        hashes = sorted((match[2], name) for match, name in ((pattern.fullmatch(name), name) for name in names) if match)
        for place, (digits, name) in enumerate(hashes):
            length = SHORTEST_HASH
            for other, _ in hashes[max(0, place - 1) : place] + hashes[place + 1 : place + 2]:
                while digits[:length] == other[:length] and digits != other:
                    length += 1
            self._short[within, name] = digits[:length]

    def short(self, run: Run) -> str:
        """The short hash of a run's experiment, and after a slash that of its part; of a foreign run its name."""
        name = self._short.get(("", run.name), run.name)
        return f"{name}/{self._short[run.name, run.part]}" if run.part else name

    @staticmethod
    def full(run: Run) -> str:
        """The same with all digits."""
        return "/".join(name.rpartition("_")[2] or name for name in (run.name, run.part) if name) if run.kind != "other" else run.name

    def shorten(self, text: str) -> str:
        """A text in which the full name of an experiment is cut short."""
        short = self._short.get(("", text))
        return text if short is None else f"{text.partition('_')[0]}_{short}"

    def find(self, text: str, whole: bool = False) -> list[Run]:
        """All seeds of the run that a unique prefix of a hash stands for, with or without the kind in front, with or without a part.

        Args:
            text: such as `71bc92`, `train_71bc92`, `72f755/7b9979` or, for branches, `d9c60d/retrain`.
            whole: whether without a part everything of the experiment is meant, rather than what is no part where there is such.

        Raises:
            ConfigError: no run or several begin like this.
        """
        head, _, tail = text.strip("/").partition("/")
        names = sorted({run.name for run in self._runs})
        name = _only(text, head, names, EXPERIMENT, self)
        runs = [run for run in self._runs if run.name == name]
        if not tail and (whole or any(not run.part for run in runs)):
            return [run for run in runs if whole or not run.part]
        parts = sorted({run.part for run in runs if run.part})
        part = _only(text, tail, parts, PART, self, f"{head}/")
        return [run for run in runs if run.part == part]


def _only(text: str, prefix: str, names: Sequence[str], pattern: re.Pattern, known: Names, within: str = "") -> str:
    """The one name that begins with a prefix, or whose hash does.

    Raises:
        ConfigError: there is none, or there are several.
    """
    if prefix in names:
        return prefix
    matches = {name: pattern.fullmatch(name) for name in names}
    fits = [name for name, match in matches.items() if name.startswith(prefix) or (match and _begins(match, prefix))]
    if len(fits) == 1:
        return fits[0]
    if not fits:
        hashes = [match[2][: len(prefix)] for match in matches.values() if match]
        raise ConfigError(f"{text!r}: no run begins with it{did_you_mean(prefix, [*names, *hashes])}; EC.py runs lists them all")
    shown = [f"{within}{_abridged(name, pattern, len(prefix))}" for name in fits[:8]]
    more = f" and {len(fits) - 8:,} more" if len(fits) > 8 else ""
    raise ConfigError(f"{text!r}: {len(fits):,} runs begin with it; valid: {', '.join(shown)}{more}")


def _begins(match: re.Match, prefix: str) -> bool:
    """Whether the hash in a name begins with a prefix, or the name of a branch does."""
    return match[2].startswith(prefix) or match[1].removeprefix("lottery_branch_").startswith(prefix)


def _abridged(name: str, pattern: re.Pattern, digits: int) -> str:
    """A name with a few more digits of its hash than were given."""
    match = pattern.fullmatch(name)
    return f"{match[1]}_{match[2][: max(10, digits + 2)]}" if match else name

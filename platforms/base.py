"""The base of every platform: where a run reads and writes, and on what hardware it computes."""

from __future__ import annotations

import abc
import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, TypeVar

from foundations.errors import ConfigError
from foundations.hparams import Hparams
from foundations.runner import Job
from platforms.system import lock_files, processes, signals

if TYPE_CHECKING:
    import torch

Plain = TypeVar("Plain", None, bool, int, str, list[str])


@dataclass
class Platform(Hparams, abc.ABC):
    """Hardware, folders and files. Its fields are flags, and none of them names a run."""

    num_workers: int = 0
    wait: bool = True

    _name = "Platform Hyperparameters"
    _description = "Where and on what the run computes."
    _num_workers = "Worker processes that load data."
    _wait = "Wait for another process that is at work on the same run; if not, leave at once with exit status 3."

    def __post_init__(self):
        self.require("num_workers", self.num_workers >= 0, "0 or more")

    @property
    @abc.abstractmethod
    def root(self) -> str:
        """The folder of all results."""

    @property
    @abc.abstractmethod
    def dataset_root(self) -> str:
        """The folder of the datasets."""

    @property
    @abc.abstractmethod
    def boruta_root(self) -> str:
        """The folder of the masks of informative inputs."""

    @property
    @abc.abstractmethod
    def imagenet_root(self) -> str:
        """The folder of ImageNet, which holds `train` and `val`."""

    @property
    def torch_device(self) -> torch.device:
        """The device that models and small datasets live on."""
        import torch

        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def data_parallel(self, forward: torch.nn.Module) -> torch.nn.Module:
        """The forward pass of a network on all devices of this process, a part of each batch on each; its weights stay its own."""
        return forward

    @property
    def rank(self) -> int:
        """The number of this process among `world_size`."""
        return 0

    @property
    def world_size(self) -> int:
        """How many processes share the job."""
        return 1

    @property
    def is_primary_process(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    @property
    def is_stopping(self) -> bool:
        """Whether this process has been asked to stop."""
        return signals.requested() is not None

    # What the processes of a job do together; all of them have to call these, in the same order.

    def on_primary(self, f: Callable[[], Plain]) -> Plain:
        """Has the primary process do something by itself, and gives what came of it, result or error, to all.

        It begins when all have come here. Within it the primary process is the only one that there is.

        Args:
            f: gives None, a truth value, a number, a text, or a list of them.
        """
        return f()

    def any_process(self, *notes: bool, immediate: bool = True) -> Sequence[bool]:
        """For each note whether it is true in any process; all processes get the same answer.

        Args:
            notes: of this process; a note that is true stays true until the answer is yes.
            at_once: whether the answer must be current; if not, it may be no for some steps more.
        """
        return notes

    def all_reduce_sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, which replaces the values."""
        return values

    def broadcast(self, values: torch.Tensor, source: int = 0) -> None:
        """Replaces the values by those of one process."""

    def wrap_distributed(self, network: torch.nn.Module) -> torch.nn.Module:
        """The forward pass of a network in training of whose batches every process has a part; gradients are summed over the processes."""
        return network

    @staticmethod
    def open(path: str, mode: str = "r") -> IO:
        """Opens a file of text (UTF-8) or, with `b` in the mode, of bytes; what would never end, such as a pipe, raises an OSError."""
        if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
            raise OSError(errno.EINVAL, "no regular file", path)
        return open(path, mode, encoding=None if "b" in mode else "utf-8")

    @staticmethod
    def exists(path: str) -> bool:
        """Whether there is such a file or folder."""
        return os.path.exists(path)

    @staticmethod
    def listdir(path: str) -> list[str]:
        """The sorted names in a folder; none where there is no folder.

        Raises:
            ConfigError: the folder may not be read.
        """
        try:
            return sorted(os.listdir(path)) if os.path.isdir(path) else []
        except OSError as error:
            raise ConfigError(f"{path} cannot be read ({error.strerror or error})") from error

    @staticmethod
    def move(source: str, target: str) -> None:
        """Renames a file or folder, in place of the target where there is one.

        Raises:
            ConfigError: the folder around may not be written to.
        """
        shutil.rmtree(target, ignore_errors=True)
        try:
            os.replace(source, target)
        except OSError as error:
            raise ConfigError(f"{target} cannot be written ({error.strerror or error}); {source} is left") from error
        _flush(os.path.dirname(target))

    @staticmethod
    def remove(path: str) -> None:
        """Removes a file, if there is one.

        Raises:
            ConfigError: the folder may not be written to.
        """
        try:
            os.remove(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ConfigError(f"{path} cannot be removed ({error.strerror or error})") from error

    @staticmethod
    def write(path: str, content: str | bytes, keep: str | None = None, durable: bool = True) -> None:
        """Puts a file in place in one stroke: whoever reads the path sees the old content or the new, never a part.

        A write that fails leaves nothing behind, and one whose process is killed a file whose name
        ends in the token of that process.

        Args:
            path: where; folders are made.
            content: text is written as UTF-8.
            keep: another path, in the same folder, to which the old content moves; for an instant there is no file under the first.
            durable: whether the file is on the disk when this returns; if not, a power cut may cost it, and writing takes much less time.

        Raises:
            ConfigError: the folder cannot be made or written to, or the disk is full.
            Busy: another process has taken over what this one was at work on.
        """
        lock_files.check()
        folder, name = os.path.split(path)
        aside = os.path.join(folder, f".{name}.{processes.this().token}.new")
        try:
            os.makedirs(folder, exist_ok=True)
            with open(aside, "wb") as file:
                file.write(content.encode("utf-8") if isinstance(content, str) else content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            if keep and os.path.exists(path):
                os.replace(path, keep)
            os.replace(aside, path)
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.unlink(aside)
            if not isinstance(error, OSError):
                raise
            raise ConfigError(f"{path} cannot be written ({error.strerror or error}); what was there before is intact") from error
        if durable:
            _flush(folder)

    @classmethod
    def submission_flags(cls) -> set[str]:
        """The flags that concern only how a job gets to where it runs, and are not passed on with it."""
        return set()

    @classmethod
    @contextlib.contextmanager
    def coordinated(cls) -> Iterator[None]:
        """Surrounds a command, the reading of its flags included; what the processes of a job have to say is said once."""
        yield

    def launch(self, job: Job) -> None:
        """Does what the command line asks for: here and now, unless a platform has others do it."""
        self.run_job(job)

    def run_job(self, f: Callable[[], None]) -> None:
        """Runs a job with this platform installed as the global one, and puts the old one back even if the job fails."""
        with installed(self):
            f()


_PLATFORM: Platform | None = None


def current() -> Platform | None:
    """The installed platform; None where none is."""
    return _PLATFORM


@contextlib.contextmanager
def installed(platform: Platform) -> Iterator[None]:
    """Makes a platform the global one for as long as the block takes."""
    global _PLATFORM
    before, _PLATFORM = _PLATFORM, platform
    try:
        yield
    finally:
        _PLATFORM = before


def _flush(folder: str) -> None:
    """Brings the names in a folder to the disk, where its file system can do that for folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

"""The base class of platforms. A platform provides the folders and files of a run and the hardware on which it computes."""

from __future__ import annotations

import abc
import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, TypeVar

from foundations import limits
from foundations.errors import ConfigError
from foundations.hparams import Hparams
from foundations.runner import Job
from platforms.system import lock_files, memory, processes, signals

if TYPE_CHECKING:
    import torch

Plain = TypeVar("Plain", None, bool, int, str, list[str])


@dataclass
class Platform(Hparams, abc.ABC):
    """Hardware, folders and files. The fields are flags that do not change the name of a run."""

    num_workers: int = 0
    wait: bool = True

    _name = "Platform Hyperparameters"
    _description = "The hardware on which the run computes, and how it starts."
    _num_workers = "The number of worker processes that load data."
    _wait = "Wait if another process works on the same run. With --no-wait, exit immediately with status 3."

    def __post_init__(self):
        self.require("num_workers", 0 <= self.num_workers <= limits.PROCESSES, f"0 to {limits.PROCESSES:,}, because each is a process")

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
        """The folder of the masks of informative inputs (`datasets/boruta.py`)."""

    @property
    @abc.abstractmethod
    def imagenet_root(self) -> str:
        """The folder of ImageNet, which contains `train` and `val`."""

    @property
    def memory_bytes(self) -> int:
        """The bytes of main memory of the machine that computes."""
        return memory.total()

    @property
    def torch_device(self) -> torch.device:
        """The device of models and small datasets."""
        import torch

        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def data_parallel(self, forward: torch.nn.Module) -> torch.nn.Module:
        """The forward pass of a network, with each batch divided over all devices of this process. The weights are those of the network."""
        return forward

    @property
    def devices(self) -> int:
        """The number of devices among which `data_parallel` divides a batch."""
        return 1

    @property
    def rank(self) -> int:
        """The index of this process among the `world_size` processes of the job."""
        return 0

    @property
    def world_size(self) -> int:
        """The number of processes that share the job."""
        return 1

    @property
    def is_primary_process(self) -> bool:
        """Whether this process writes the files and prints."""
        return self.rank == 0

    @property
    def is_stopping(self) -> bool:
        """Whether a signal has requested that this process stops."""
        return signals.requested() is not None

    # Collective operations: all processes of a job must call them, in the same order.

    def on_primary(self, f: Callable[[], Plain]) -> Plain:
        """Calls a function in the primary process only. All processes return its result, or raise its error.

        The call starts when all processes have reached it. Within it `world_size` is 1.

        Args:
            f: a function that returns None, a bool, an int, a str or a list of str.
        """
        return f()

    def any_process(self, *values: bool, immediate: bool = True) -> Sequence[bool]:
        """For each value whether it is true in any process. All processes return the same result.

        Args:
            values: the values of this process. The caller must pass a value that is true again until the result is true.
            immediate: whether the result must be up to date. If not, the result may remain false for some more steps.
        """
        return values

    def barrier(self) -> None:
        """Waits until all processes have reached this call."""
        self.on_primary(lambda: None)

    def all_reduce_sum(self, values: torch.Tensor) -> torch.Tensor:
        """Replaces the values by their sum over all processes, and returns them."""
        return values

    def broadcast(self, values: torch.Tensor, source: int = 0) -> None:
        """Replaces the values by those of the process with rank `source`."""

    def wrap_distributed(self, network: torch.nn.Module) -> torch.nn.Module:
        """The forward pass of a network in training. Each process has a part of each batch; gradients are summed over the processes."""
        return network

    @staticmethod
    def open(path: str, mode: str = "r") -> IO[Any]:
        """Opens a text file (UTF-8) or, with `b` in the mode, a binary file.

        Raises:
            OSError: the file cannot be opened, or is not a regular file. (A pipe, for example, might never end.)
        """
        if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return open(path, mode, encoding=None if "b" in mode else "utf-8")

    @staticmethod
    def exists(path: str) -> bool:
        """Whether a file or folder exists."""
        return os.path.exists(path)

    @staticmethod
    def listdir(path: str) -> list[str]:
        """The sorted names in a folder, without those that begin with a dot. Empty if the folder does not exist.

        Programs other than this one make files with such names: `.DS_Store`, `._name`, `.nfs...`, `.ipynb_checkpoints`.

        Raises:
            ConfigError: the folder cannot be read.
        """
        try:
            return sorted(name for name in os.listdir(path) if not name.startswith(".")) if os.path.isdir(path) else []
        except OSError as error:
            raise ConfigError(f"{path} cannot be read ({error.strerror or error})") from error

    @staticmethod
    def move(source: str, target: str) -> None:
        """Renames a file or folder. It replaces an existing target.

        Raises:
            ConfigError: the target cannot be written.
        """
        shutil.rmtree(target, ignore_errors=True)
        try:
            os.replace(source, target)
        except OSError as error:
            raise ConfigError(f"{target} cannot be written ({error.strerror or error}); {source} is unchanged") from error
        _flush(os.path.dirname(target))

    @staticmethod
    def remove(path: str) -> None:
        """Removes a file if it exists.

        Raises:
            ConfigError: the file cannot be removed.
        """
        try:
            os.remove(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ConfigError(f"{path} cannot be removed ({error.strerror or error})") from error

    @staticmethod
    def write(path: str, content: str | bytes, keep: str | None = None, durable: bool = True) -> None:
        """Writes a file atomically: readers see the old content or the new content, never a part.

        If the write fails, no new file remains. If the process is killed, a temporary file remains; its name contains the token of the
        process.

        Args:
            path: the path of the file. Missing folders are made.
            content: the new content. Text is written as UTF-8; bytes of paths that are not UTF-8 stay as they are.
            keep: a path in the same folder to which the old content is moved. For an instant no file exists at `path`.
            durable: whether the content is on the disk when this function returns. If not, writing is much faster, but a power failure may
                lose the file.

        Raises:
            ConfigError: the folder cannot be made or written to, or the disk is full.
            Busy: another process has taken over a lock of this process.
        """
        lock_files.check()
        folder, name = os.path.split(path)
        temporary = os.path.join(folder, f".{name}.{processes.this().token}.new")
        try:
            os.makedirs(folder, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            if keep and os.path.exists(path):
                os.replace(path, keep)
            os.replace(temporary, path)
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            if not isinstance(error, OSError):
                raise
            raise ConfigError(f"{path} cannot be written ({error.strerror or error}); the previous content is intact") from error
        if durable:
            _flush(folder)

    @classmethod
    def submission_flags(cls) -> set[str]:
        """The flags that only control the submission of a job. They are not passed to the submitted command."""
        return set()

    @classmethod
    @contextlib.contextmanager
    def coordinated(cls) -> Iterator[None]:
        """Surrounds a command, including the parsing of its flags. Only one process of a job prints, and only one reports an error."""
        yield

    def launch(self, job: Job) -> None:
        """Runs the job in this process. A subclass may submit it instead."""
        self.run_job(job)

    def run_job(self, f: Callable[[], None]) -> None:
        """Runs a job with this platform installed as the global one. The previous platform is restored even if the job fails."""
        with installed(self):
            f()


_PLATFORM: Platform | None = None


def current() -> Platform | None:
    """The installed platform, or None."""
    return _PLATFORM


@contextlib.contextmanager
def installed(platform: Platform) -> Iterator[None]:
    """Makes a platform the global one within the block."""
    global _PLATFORM
    previous, _PLATFORM = _PLATFORM, platform
    try:
        yield
    finally:
        _PLATFORM = previous


def _flush(folder: str) -> None:
    """Writes the names in a folder to the disk, if the file system supports this for folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

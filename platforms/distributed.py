"""Several processes that share a job, on one machine or on many, started by `torchrun` or by SLURM's `srun`.

All run the whole command. They divide the training of networks, which is what takes time; what is written, and what they have to find
there, is the primary process's alone. So every process takes the same way, and what one learns of the world (a file, a signal, the time)
counts only when all know of it.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foundations.errors import Busy, ConfigError
from foundations.runner import Job
from platforms import local, stopping
from platforms.base import Plain

if TYPE_CHECKING:
    import torch

START = "start it by torchrun --nproc_per_node=2 EC.py ..., or by srun -n2 python EC.py ..."
# What says how many processes there are, and which of them one is; of torchrun and, where that is absent, of srun.
NUMBERS = {
    "rank": ("RANK", "SLURM_PROCID"),
    "world_size": ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"),
    "local_rank": ("LOCAL_RANK", "SLURM_LOCALID"),
}
NODES = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
FIRST_PORT, PORTS = 10000, 20000  # for steps of SLURM, below those that systems hand out by themselves
ASK_SECONDS = 0.1  # between questions to the other processes that are not urgent
MOST_STEPS = 100  # between them
TOLD = {error.__name__: error for error in (ConfigError, Busy, stopping.Stopped)}  # errors of the primary process that the others share


@dataclass(frozen=True)
class Place:
    """Which of the processes of a job one is, on its machine as well, and where they meet."""

    rank: int
    world_size: int
    local_rank: int
    address: str
    port: int

    @staticmethod
    def of(environment: Mapping[str, str]) -> Place:
        """The place that environment variables assign.

        Raises:
            ConfigError: they assign none.
        """
        numbers = {field: _number(environment, names) for field, names in NUMBERS.items()}
        address, port = environment.get("MASTER_ADDR"), environment.get("MASTER_PORT")
        if address is None:
            address = _first_host(next((environment[name] for name in NODES if name in environment), "127.0.0.1"))
        if port is None:
            step = [environment.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID")]
            port = str(FIRST_PORT + sum(int(number) for number in step if number.isdecimal()) % PORTS)
        if not port.isdecimal() or numbers["rank"] >= numbers["world_size"]:
            raise ConfigError(f"--platform: RANK, WORLD_SIZE and MASTER_PORT do not make sense; {START}")
        return Place(**numbers, address=address, port=int(port))


def _number(environment: Mapping[str, str], names: Sequence[str]) -> int:
    """The first of some variables that is there."""
    value = next((environment[name] for name in names if name in environment), None)
    if value is None or not value.isdecimal():
        wrong = "is missing" if value is None else f"is {value!r}, which is no number"
        raise ConfigError(f"--platform: distributed is for one of several processes, and {names[0]} {wrong}; {START}")
    return int(value)


def _first_host(nodes: str) -> str:
    """The first of the machines in a list of SLURM's, such as n[07-09,12],m1; where there is only one, itself by another name."""
    match = re.match(r"([^\[,]+)(?:\[(\d+)[^\]]*\])?([^\[,]*)", nodes)
    if not match or match[0] == nodes and match[2] is None:
        return "127.0.0.1"
    return f"{match[1]}{match[2] or ''}{match[3]}"


@dataclass
class Platform(local.Platform):
    """One of several processes that share a job; it computes on a GPU of its own, or on the CPU."""

    _description = f"The processes that share the run; {START}."

    def __post_init__(self):
        super().__post_init__()
        self._place: Place | None = None
        self._alone = False
        self._unasked, self._patience, self._asked = 0, 0, 0.0

    @classmethod
    @contextlib.contextmanager
    def together(cls) -> Iterator[None]:
        """Silences all processes but the primary one, and of those that leave with an error lets the first one say so."""
        rank = next((os.environ[name] for name in NUMBERS["rank"] if name in os.environ), "0")
        primary = not rank.isdecimal() or int(rank) == 0
        with contextlib.ExitStack() as silence:
            if not primary:
                nowhere = silence.enter_context(open(os.devnull, "w"))
                silence.enter_context(contextlib.redirect_stdout(nowhere))
                silence.enter_context(contextlib.redirect_stderr(nowhere))
            try:
                yield
            except (Exception, stopping.Stopped, KeyboardInterrupt) as error:
                from platforms import meeting

                status = meeting.leave(_status(error), primary)
                if status is not None:
                    raise SystemExit(status) from None
                raise

    def launch(self, job: Job) -> None:
        """Runs the job together with the other processes.

        Raises:
            ConfigError: there are no others, or they cannot be reached.
        """
        from platforms import meeting

        self._place = Place.of(os.environ)
        with meeting.held(self._place, self.torch_device):
            super().launch(job)

    @property
    def torch_device(self) -> torch.device:
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            return torch.device("cpu")
        if self._place.local_rank >= count > 1:
            raise ConfigError(f"--platform: there are more processes than GPUs on a machine that has {count}; start as many as there are")
        return torch.device("cuda", self._place.local_rank % count)

    def spread(self, forward: torch.nn.Module) -> torch.nn.Module:
        return forward

    @property
    def rank(self) -> int:
        return self._place.rank

    @property
    def world_size(self) -> int:
        return 1 if self._alone else self._place.world_size

    def on_primary(self, f: Callable[[], Plain]) -> Plain:
        if self.world_size == 1:
            return f()
        from platforms import meeting

        self._patience = 0
        meeting.wait_for_all()
        told = None
        if self.is_primary_process:
            self._alone = True
            try:
                told = {"result": f()}
            except tuple(TOLD.values()) as error:
                told = {"error": type(error).__name__, "message": str(error)}
            finally:
                self._alone = False
        told = meeting.told(told)
        if "error" in told:
            raise TOLD[told["error"]](told["message"])
        return told["result"]

    def noticed(self, *notes: bool, at_once: bool = True) -> Sequence[bool]:
        """As in any platform; questions that are not urgent are put after as many steps as take a tenth of a second."""
        if self.world_size == 1:
            return notes
        self._unasked += 1
        if not at_once and self._unasked <= self._patience:
            return (False,) * len(notes)
        from platforms import meeting

        now = time.monotonic()
        pace = (now - self._asked) / self._unasked
        *notes, self._patience = meeting.least(*(not note for note in notes), min(MOST_STEPS, int(ASK_SECONDS / max(pace, 1e-9))))
        self._unasked, self._asked = 0, now
        return [not note for note in notes]

    def total(self, values: torch.Tensor) -> torch.Tensor:
        if self.world_size > 1:
            import torch.distributed

            torch.distributed.all_reduce(values)
        return values

    def broadcast(self, values: torch.Tensor, source: int = 0) -> None:
        if self.world_size > 1:
            import torch.distributed

            torch.distributed.broadcast(values, source)

    def joint(self, network: torch.nn.Module) -> torch.nn.Module:
        if self.world_size == 1:
            return network
        from platforms import data_parallel

        return data_parallel.joint(network)

    # Files are the primary process's: the others see what it sees.

    def exists(self, path: str) -> bool:
        exists = super().exists
        return self.on_primary(lambda: exists(path))

    def listdir(self, path: str) -> list[str]:
        listdir = super().listdir
        return self.on_primary(lambda: listdir(path))

    def move(self, source: str, target: str) -> None:
        move = super().move
        self.on_primary(lambda: move(source, target))

    def remove(self, path: str) -> None:
        remove = super().remove
        self.on_primary(lambda: remove(path))

    def write(self, path: str, content: str | bytes, keep: str | None = None, durable: bool = True) -> None:
        write = super().write
        self.on_primary(lambda: write(path, content, keep, durable))


def _status(error: BaseException) -> int:
    """The exit status that an error leads to."""
    if isinstance(error, stopping.Stopped):
        return stopping.EXIT_STATUS
    return 130 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_status", 1)

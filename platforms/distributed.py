"""Several processes that share a job, on one or more machines. `torchrun` or SLURM's `srun` starts them.

All processes run the whole command. The training of networks, which takes most of the time, is divided among them. Only the primary
process accesses the files. All processes must follow the same control flow, so a decision that depends on a file, a signal or the time
is made only after all processes have agreed on it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foundations.errors import Busy, ConfigError
from foundations.runner import Job
from platforms import local
from platforms.base import Plain
from platforms.system import output, signals
from platforms.system.rendezvous import NUMBERS, START, Rendezvous

if TYPE_CHECKING:
    import torch

SYNC_SECONDS = 0.1  # between synchronisations that are not urgent
MAX_SYNC_STEPS = 100  # the maximum number of steps between them
# Errors of the primary process that are raised in all processes.
SHARED_ERRORS = {error.__name__: error for error in (ConfigError, Busy, signals.Stopped)}


@dataclass
class Platform(local.Platform):
    """One of several processes that share a job. It computes on its own GPU, or on the CPU."""

    _description = f"The run is divided among several processes; {START}"

    def __post_init__(self):
        super().__post_init__()
        self._rendezvous: Rendezvous | None = None
        self._on_primary = False  # whether this process runs the function of `on_primary`
        self._steps = 0  # calls of `any_process` since its last synchronisation
        self._max_steps = 0  # calls without synchronisation until the next one
        self._synchronised = 0.0  # the time of the last synchronisation

    @classmethod
    @contextlib.contextmanager
    def coordinated(cls) -> Iterator[None]:
        """Silences all processes except the primary one. Of the processes that end with an error, only the first one reports it."""
        rank = next((os.environ[name] for name in NUMBERS["rank"] if name in os.environ), "0")
        primary = not rank.isdecimal() or int(rank) == 0
        with contextlib.ExitStack() as silence:
            if not primary:
                null = silence.enter_context(open(os.devnull, "w", encoding="utf-8", errors="replace"))
                silence.enter_context(contextlib.redirect_stdout(null))
                silence.enter_context(contextlib.redirect_stderr(null))
            try:
                yield
            except (Exception, signals.Stopped, output.ReaderGone, KeyboardInterrupt) as error:
                from platforms.system import collectives

                status = collectives.report_failure(_status(error), primary)
                if status is not None:
                    raise SystemExit(status) from None
                raise

    def launch(self, job: Job) -> None:
        """Runs the job together with the other processes.

        Raises:
            ConfigError: the environment variables define no other processes, or these cannot be reached.
        """
        from platforms.system import collectives

        self._rendezvous = Rendezvous.of(os.environ)
        with collectives.process_group(self.rendezvous, self.torch_device):
            super().launch(job)

    @property
    def rendezvous(self) -> Rendezvous:
        """The rank of this process and the address of the job. It exists after `launch` has started."""
        assert self._rendezvous is not None, "the job has not been launched"
        return self._rendezvous

    @property
    def torch_device(self) -> torch.device:
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            return torch.device("cpu")
        if self.rendezvous.local_rank >= count > 1:
            raise ConfigError(f"--platform: this machine has {count} GPUs and more processes; valid: at most {count} processes per machine")
        return torch.device("cuda", self.rendezvous.local_rank % count)

    def data_parallel(self, forward: torch.nn.Module) -> torch.nn.Module:
        return forward

    @property
    def devices(self) -> int:
        return 1

    @property
    def rank(self) -> int:
        return self.rendezvous.rank

    @property
    def world_size(self) -> int:
        return 1 if self._on_primary else self.rendezvous.world_size

    def on_primary(self, f: Callable[[], Plain]) -> Plain:
        """Calls a function in the primary process, see `base.Platform.on_primary`; the result or the error is broadcast."""
        if self.world_size == 1:
            return f()
        from platforms.system import collectives

        self._max_steps = 0
        collectives.wait_for_all()
        outcome: dict[str, Any] = {}
        if self.is_primary_process:
            self._on_primary = True
            try:
                outcome = {"result": f()}
            except tuple(SHARED_ERRORS.values()) as error:
                outcome = {"error": type(error).__name__, "message": str(error)}
            finally:
                self._on_primary = False
        outcome = collectives.broadcast_json(outcome)
        if "error" in outcome:
            raise SHARED_ERRORS[outcome["error"]](outcome["message"])
        return outcome["result"]

    def any_process(self, *values: bool, immediate: bool = True) -> Sequence[bool]:
        """As in the base class. If the result is not needed immediately, processes synchronise only about every SYNC_SECONDS."""
        if self.world_size == 1:
            return values
        self._steps += 1
        if not immediate and self._steps <= self._max_steps:
            return (False,) * len(values)
        from platforms.system import collectives

        now = time.monotonic()
        step_seconds = (now - self._synchronised) / self._steps
        max_steps = min(MAX_SYNC_STEPS, int(SYNC_SECONDS / max(step_seconds, 1e-9)))
        *all_false, self._max_steps = collectives.all_reduce_min(*(not value for value in values), max_steps)
        self._steps, self._synchronised = 0, now
        return [not value for value in all_false]

    def all_reduce_sum(self, values: torch.Tensor) -> torch.Tensor:
        if self.world_size > 1:
            import torch.distributed

            torch.distributed.all_reduce(values)
        return values

    def broadcast(self, values: torch.Tensor, source: int = 0) -> None:
        if self.world_size > 1:
            import torch.distributed

            torch.distributed.broadcast(values, source)

    def wrap_distributed(self, network: torch.nn.Module) -> torch.nn.Module:
        if self.world_size == 1:
            return network
        from platforms import distributed_data_parallel

        return distributed_data_parallel.wrap_distributed(network)

    # Only the primary process accesses files. The other processes receive its results.

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
    """The exit status of a process that ends with this error."""
    if isinstance(error, signals.Stopped):
        return signals.EXIT_STATUS
    return 130 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_status", 1)

"""Several processes that share a job, on one machine or on many, started by `torchrun` or by SLURM's `srun`.

All run the whole command. They divide the training of networks, which is what takes time; what is written, and what they have to find
there, is the primary process's alone. So every process takes the same way, and what one learns of the world (a file, a signal, the time)
counts only when all know of it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foundations.errors import Busy, ConfigError
from foundations.runner import Job
from platforms import local
from platforms.base import Plain
from platforms.system import signals
from platforms.system.rendezvous import NUMBERS, START, Rendezvous

if TYPE_CHECKING:
    import torch

ASK_SECONDS = 0.1  # between questions to the other processes that are not urgent
MOST_STEPS = 100  # between them
# Errors of the primary process that all processes raise.
SHARED_ERRORS = {error.__name__: error for error in (ConfigError, Busy, signals.Stopped)}


@dataclass
class Platform(local.Platform):
    """One of several processes that share a job; it computes on a GPU of its own, or on the CPU."""

    _description = f"The processes that share the run; {START}."

    def __post_init__(self):
        super().__post_init__()
        self._rendezvous: Rendezvous | None = None
        self._alone = False
        self._unasked, self._patience, self._asked = 0, 0, 0.0

    @classmethod
    @contextlib.contextmanager
    def coordinated(cls) -> Iterator[None]:
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
            except (Exception, signals.Stopped, KeyboardInterrupt) as error:
                from platforms.system import collectives

                status = collectives.leave(_status(error), primary)
                if status is not None:
                    raise SystemExit(status) from None
                raise

    def launch(self, job: Job) -> None:
        """Runs the job together with the other processes.

        Raises:
            ConfigError: there are no others, or they cannot be reached.
        """
        from platforms.system import collectives

        self._rendezvous = Rendezvous.of(os.environ)
        with collectives.process_group(self._rendezvous, self.torch_device):
            super().launch(job)

    @property
    def torch_device(self) -> torch.device:
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            return torch.device("cpu")
        if self._rendezvous.local_rank >= count > 1:
            raise ConfigError(f"--platform: there are more processes than GPUs on a machine that has {count}; start as many as there are")
        return torch.device("cuda", self._rendezvous.local_rank % count)

    def data_parallel(self, forward: torch.nn.Module) -> torch.nn.Module:
        return forward

    @property
    def rank(self) -> int:
        return self._rendezvous.rank

    @property
    def world_size(self) -> int:
        return 1 if self._alone else self._rendezvous.world_size

    def on_primary(self, f: Callable[[], Plain]) -> Plain:
        if self.world_size == 1:
            return f()
        from platforms.system import collectives

        self._patience = 0
        collectives.wait_for_all()
        outcome = None
        if self.is_primary_process:
            self._alone = True
            try:
                outcome = {"result": f()}
            except tuple(SHARED_ERRORS.values()) as error:
                outcome = {"error": type(error).__name__, "message": str(error)}
            finally:
                self._alone = False
        outcome = collectives.broadcast_json(outcome)
        if "error" in outcome:
            raise SHARED_ERRORS[outcome["error"]](outcome["message"])
        return outcome["result"]

    def any_process(self, *notes: bool, immediate: bool = True) -> Sequence[bool]:
        """As in any platform; questions that are not urgent are put after as many steps as take a tenth of a second."""
        if self.world_size == 1:
            return notes
        self._unasked += 1
        if not immediate and self._unasked <= self._patience:
            return (False,) * len(notes)
        from platforms.system import collectives

        now = time.monotonic()
        pace = (now - self._asked) / self._unasked
        patience = min(MOST_STEPS, int(ASK_SECONDS / max(pace, 1e-9)))
        *notes, self._patience = collectives.all_reduce_min(*(not note for note in notes), patience)
        self._unasked, self._asked = 0, now
        return [not note for note in notes]

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
    if isinstance(error, signals.Stopped):
        return signals.EXIT_STATUS
    return 130 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_status", 1)

"""Collective communication of the processes of a job: they connect, exchange values, and end together."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed
from torch.distributed import PrefixStore, Store, TCPStore  # pyright: ignore[reportPrivateImportUsage]

from foundations import json_text
from foundations.errors import ConfigError, reason
from platforms.system.rendezvous import Rendezvous

CONNECT_TIMEOUT = timedelta(minutes=10)  # in which all processes must connect
COLLECTIVE_TIMEOUT = timedelta(days=100)  # long, because processes may wait for the work of others
CHECK_SECONDS = 0.5  # between checks whether a process has ended with an error
GRACE_SECONDS = 5.0  # in which the other processes may end by themselves before they are forced to
FAILED, COUNT = "first process that ended with an error", "number of processes that know"  # keys of the store


@dataclass(frozen=True)
class Connection:
    """The connection of this process to the other processes of its job.

    Attributes:
        store: the key-value store that all processes share.
        rendezvous: the rank of this process, and the address of the store.
        closed: set when this process no longer watches the store for errors of others.
    """

    store: Store
    rendezvous: Rendezvous
    closed: threading.Event


_connection: Connection | None = None


@contextlib.contextmanager
def process_group(rendezvous: Rendezvous, device: torch.device) -> Iterator[None]:
    """Connects to the other processes. After the block it waits for them and disconnects.

    A process whose block ends with an error does not wait. It calls `report_failure`, which makes the other processes end, too.

    Raises:
        ConfigError: the other processes cannot be reached, or do not connect in time.
    """
    global _connection
    _connection = Connection(_connect(rendezvous, device), rendezvous, threading.Event())
    watch = threading.Thread(target=_watch, args=(_connection,), daemon=True)
    watch.start()
    yield
    _connection.closed.set()
    watch.join()
    wait_for_all()
    _connection = None
    gc.collect()  # without it, two starts in five ended in "terminate called without an active exception"
    distributed.destroy_process_group()


def _connect(rendezvous: Rendezvous, device: torch.device) -> Store:
    """Initialises the process group (Gloo for tensors on CPUs, NCCL for tensors on GPUs), and returns the store of the job."""
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    is_server = rendezvous.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        server = TCPStore(rendezvous.address, rendezvous.port, rendezvous.world_size, is_server, CONNECT_TIMEOUT)
        store = PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", server)
        rank, world_size = rendezvous.rank, rendezvous.world_size
        distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=COLLECTIVE_TIMEOUT)
        distributed.all_reduce(torch.zeros(1, device=device))
    except (RuntimeError, ValueError) as error:
        address = f"{rendezvous.address}:{rendezvous.port}"
        raise ConfigError(f"--platform: {rendezvous.world_size} processes cannot connect at {address} ({reason(error)})") from None
    return store


def wait_for_all() -> None:
    """Waits until all processes have called this function."""
    distributed.all_reduce(torch.zeros(1))


def broadcast_json(message: object = None) -> Any:
    """Returns the message of the primary process in all processes. It is sent as JSON. The messages of the others are ignored."""
    text = bytearray(json_text.dumps(message).encode())
    length = torch.tensor(len(text))
    distributed.broadcast(length, 0)
    content = torch.frombuffer(text, dtype=torch.uint8) if distributed.get_rank() == 0 else torch.empty(int(length), dtype=torch.uint8)
    distributed.broadcast(content, 0)
    return json.loads(content.numpy().tobytes())


def all_reduce_min(*values: int) -> list[int]:
    """The minimum of each value over all processes."""
    minima = torch.tensor(values, dtype=torch.int64)
    distributed.all_reduce(minima, distributed.ReduceOp.MIN)
    return minima.tolist()


def report_failure(status: int, primary: bool) -> int | None:
    """Tells the other processes that this process ends with an error. A process must call this before it ends with an error.

    Args:
        status: the exit status of the error.
        primary: whether this is the primary process.

    Returns:
        None if this process must print its error; otherwise the status with which it exits silently.
    """
    if _connection is None:  # before they connect, all processes have the same error, because they run the same command
        return None if primary else status
    _connection.closed.set()
    store, rendezvous = _connection.store, _connection.rendezvous
    try:
        mine = f"{rendezvous.rank} {status}"
        first = store.compare_set(FAILED, "", mine).decode()
        known, deadline = store.add(COUNT, 1), time.monotonic() + 2 * GRACE_SECONDS
        may_be_server = rendezvous.rank == 0  # the store ends with its server
        while may_be_server and known < rendezvous.world_size and time.monotonic() < deadline:
            time.sleep(CHECK_SECONDS / 5)
            known = store.add(COUNT, 0)
        return None if first == mine else int(first.split()[1])
    except RuntimeError:  # the store no longer exists, so another process has ended before
        return status


def _watch(connection: Connection) -> None:
    """Ends this process if another process has ended with an error. Otherwise this process would wait for it forever."""
    while not connection.closed.wait(CHECK_SECONDS):
        try:
            if not connection.store.check([FAILED]):
                continue
            status = int(connection.store.get(FAILED).decode().split()[1])
        except RuntimeError:
            status = 1
        if not connection.closed.wait(GRACE_SECONDS):
            with contextlib.suppress(RuntimeError):
                connection.store.add(COUNT, 1)
            sys.stdout.flush()
            os._exit(status)

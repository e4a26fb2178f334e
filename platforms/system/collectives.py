"""How the processes of a job find each other, hear from each other, and leave together."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

from foundations.errors import ConfigError, reason
from platforms.system.rendezvous import Rendezvous

ARRIVAL = timedelta(minutes=10)  # in which all processes have to come
PATIENCE = timedelta(days=100)  # in which a process that waits for the others' work is not lost
LOOK_SECONDS = 0.5  # between looks whether a process has left with an error
GRACE_SECONDS = 5.0  # in which the others leave by themselves, after which they are made to
LEFT, COUNT = "left with an error", "processes that know of it"


@dataclass(frozen=True)
class Meeting:
    """Where the processes of a job leave notes, which of them this is, and the end of its listening to them."""

    store: distributed.Store
    rendezvous: Rendezvous
    over: threading.Event


_meeting: Meeting | None = None


@contextlib.contextmanager
def process_group(rendezvous: Rendezvous, device: torch.device) -> Iterator[None]:
    """Meets the other processes, and after the block waits for them and parts.

    A process that leaves the block with an error does not wait; those that are waiting for it are made to leave, too (`leave`).

    Raises:
        ConfigError: the others cannot be reached, or do not come.
    """
    global _meeting
    _meeting = Meeting(_met(rendezvous, device), rendezvous, threading.Event())
    watch = threading.Thread(target=_watch, args=(_meeting,), daemon=True)
    watch.start()
    yield
    _meeting.over.set()
    watch.join()
    wait_for_all()
    _meeting = None
    distributed.destroy_process_group()


def _met(rendezvous: Rendezvous, device: torch.device) -> distributed.Store:
    """Where the processes leave notes, once all of them have come; messages go by Gloo, and what is on GPUs by NCCL."""
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    serves = rendezvous.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        store = distributed.TCPStore(rendezvous.address, rendezvous.port, rendezvous.world_size, serves, ARRIVAL)
        store = distributed.PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        distributed.init_process_group(backend, store=store, rank=rendezvous.rank, world_size=rendezvous.world_size, timeout=PATIENCE)
        distributed.all_reduce(torch.zeros(1, device=device))
    except (RuntimeError, ValueError) as error:
        where = f"{rendezvous.address}:{rendezvous.port}"
        raise ConfigError(f"--platform: {rendezvous.world_size} processes were to meet at {where}, and did not ({reason(error)})") from None
    return store


def wait_for_all() -> None:
    """Waits until all processes have come here."""
    distributed.all_reduce(torch.zeros(1))


def broadcast_json(message: object = None) -> object:
    """The message of the primary process, as JSON can hold it, in every process; the messages of the others are ignored."""
    text = bytearray(json.dumps(message).encode())
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


def leave(status: int, primary: bool) -> int | None:
    """To be called by a process that has an error, before it leaves.

    Args:
        status: the exit status that the error leads to.
        primary: whether this is the primary process.

    Returns:
        None if it is this process that has to say what is wrong; else the status to leave with, silently.
    """
    if _meeting is None:  # before they have met, processes have the errors of what they have in common
        return None if primary else status
    _meeting.over.set()
    store, rendezvous = _meeting.store, _meeting.rendezvous
    try:
        mine = f"{rendezvous.rank} {status}"
        first = store.compare_set(LEFT, "", mine).decode()
        known, deadline = store.add(COUNT, 1), time.monotonic() + 2 * GRACE_SECONDS
        keeps_notes = rendezvous.rank == 0  # it may be the process that serves the store
        while keeps_notes and known < rendezvous.world_size and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS / 5)
            known = store.add(COUNT, 0)
        return None if first == mine else int(first.split()[1])
    except RuntimeError:  # nobody keeps the notes any more, so that somebody has left before
        return status


def _watch(meeting: Meeting) -> None:
    """Ends this process when another one has left with an error, for which it would wait forever."""
    while not meeting.over.wait(LOOK_SECONDS):
        try:
            if not meeting.store.check([LEFT]):
                continue
            status = int(meeting.store.get(LEFT).decode().split()[1])
        except RuntimeError:
            status = 1
        if not meeting.over.wait(GRACE_SECONDS):
            with contextlib.suppress(RuntimeError):
                meeting.store.add(COUNT, 1)
            sys.stdout.flush()
            os._exit(status)

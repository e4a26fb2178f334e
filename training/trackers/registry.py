"""The trackers that `--tracker` offers, several of them joined by `+`. A new one is a line here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from foundations.errors import ConfigError, unknown
from platforms.platform import get_platform
from training.trackers import tensorboard, wandb
from training.trackers.base import Follower, Identity, Tracker

registered_trackers: dict[str, type[Tracker]] = {
    "tensorboard": tensorboard.TensorBoard,
    "wandb": wandb.WandB,
}


def get(names: str | None) -> list[type[Tracker]]:
    """The trackers with some names, joined by `+`.

    Raises:
        ConfigError: one is not known.
    """
    chosen = dict.fromkeys(names.split("+")) if names is not None else ()
    for name in chosen:
        if name not in registered_trackers:
            raise unknown("--tracker", name, registered_trackers)
    return [registered_trackers[name] for name in chosen]


def check(names: str | None, mode: str | None) -> None:
    """Raises a ConfigError where a tracker is not known or cannot be used, or where none has modes and one is given."""
    chosen = get(names)
    if mode is not None and not any(tracker.has_modes for tracker in chosen):
        valid = ", ".join(name for name, tracker in registered_trackers.items() if tracker.has_modes)
        raise ConfigError(f"--tracker_mode: {mode} goes with another --tracker; valid: {valid}")
    for tracker in chosen:
        tracker.check(mode)


@contextmanager
def following(identity: Identity | None) -> Iterator[list[Follower]]:
    """The callbacks that let trackers follow a training for as long as the block takes; of several processes only the first has some."""
    wanted = get(identity.trackers) if identity and get_platform().is_primary_process else []
    followers, complete = [Follower(kind, identity) for kind in wanted], False
    try:
        yield followers
        complete = True
    finally:
        for follower in followers:
            follower.close(complete)

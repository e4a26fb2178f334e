"""The registry of trackers for `--tracker`. A new tracker is one line here."""

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
    """The trackers of some names that are joined by `+`.

    Raises:
        ConfigError: a name is unknown.
    """
    chosen = dict.fromkeys(names.split("+")) if names is not None else ()
    for name in chosen:
        if name not in registered_trackers:
            raise unknown("--tracker", name, registered_trackers)
    return [registered_trackers[name] for name in chosen]


def check(names: str | None, mode: str | None) -> None:
    """Raises a ConfigError if a tracker is unknown or unusable, or if a mode is set for trackers without modes."""
    chosen = get(names)
    if mode is not None and not any(tracker.has_modes for tracker in chosen):
        valid = ", ".join(name for name, tracker in registered_trackers.items() if tracker.has_modes)
        raise ConfigError(f"--tracker_mode: {mode} needs another --tracker; valid: {valid}")
    for tracker in chosen:
        tracker.check(mode)


@contextmanager
def following(identity: Identity | None) -> Iterator[list[Follower]]:
    """The callbacks that send telemetry to trackers while the block runs; only the primary process has any."""
    followers, complete = [], False
    if identity is not None and get_platform().is_primary_process:
        followers = [Follower(kind, identity) for kind in get(identity.trackers)]
    try:
        yield followers
        complete = True
    finally:
        for follower in followers:
            follower.close(complete)

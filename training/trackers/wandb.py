"""Weights & Biases, a service. Without a network, `--tracker_mode offline` keeps all in the run folder for `wandb sync`."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping

from foundations.errors import ConfigError, reason
from platforms.platform import get_platform
from training.trackers import base

PROJECT = "expand-and-cluster"  # unless WANDB_PROJECT names another
UNCONNECTED = ("offline", "disabled", "dryrun")  # what WANDB_MODE may say beside `online`


class WandB(base.Tracker):
    """A run of the service for each run folder, the experiment its group, level and branch its type of job.

    It is known by the path of the folder, so that it is resumed with it. The service keeps what it has, which is what the same steps would
    give again; what is kept for it here is written anew.
    """

    package = "wandb"
    module = "wandb"
    has_modes = True

    def __init__(self, location: str, identity: base.Identity):
        import wandb

        place = os.path.relpath(location, get_platform().root)
        experiment, _, rest = place.partition(os.sep)
        number = hashlib.md5(os.path.realpath(location).encode()).hexdigest()[:16]
        with _named():
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or PROJECT,
                dir=location,
                id=number,
                name=place,
                group=experiment,
                job_type=rest.partition(os.sep)[2],
                config={**identity.hparams, "seed": identity.seed},
                mode=identity.mode,
                resume="allow",
                settings=wandb.Settings(silent=True, console="off"),
            )
        if self._run.offline:
            own = os.path.dirname(self._run.dir)
            for folder in glob.glob(os.path.join(glob.escape(os.path.dirname(own)), f"offline-run-*-{number}")):
                if folder != own:
                    shutil.rmtree(folder, ignore_errors=True)
        self._known = self._run.step

    @classmethod
    def check(cls, mode: str | None) -> None:
        super().check(mode)
        import wandb

        if (mode or os.environ.get("WANDB_MODE")) not in UNCONNECTED:
            with _named():
                wandb.login()

    def send(self, iteration: int, values: Mapping[str, float]) -> None:
        if iteration >= self._known:
            self._run.log(dict(values), step=iteration, commit=True)

    def close(self, complete: bool) -> None:
        self._run.finish(exit_code=0 if complete else 1)


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """Turns what the service complains of into one line."""
    import wandb

    try:
        yield
    except (wandb.errors.Error, OSError, ValueError) as error:
        raise ConfigError(
            f"--tracker wandb: {reason(error).rstrip(' .')}; `wandb login` makes you known to it, --tracker_mode offline needs no network"
        ) from error

"""Weights & Biases, a service. `--tracker_mode offline` needs no network: it writes to the run folder, for `wandb sync`."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping

from foundations import paths
from foundations.errors import ConfigError, reason
from platforms.platform import get_platform
from training.trackers import base

NONCE_BYTES = 8  # of random digits in the folder of a run
PROJECT = "expand-and-cluster"  # unless WANDB_PROJECT names another
UNCONNECTED = ("offline", "disabled", "dryrun")  # values of WANDB_MODE that need no login


class WandB(base.Tracker):
    """A wandb run for each run folder. Its group is the experiment, its job type the level and the branch.

    Its ID is a hash of the folder's path and of random digits in the folder. So a resumed run resumes the wandb run, and a run that is
    removed and made again has a wandb run of its own. Online, iterations that the service already has are
    not sent again. Offline, the files of earlier starts are replaced.
    """

    package = "wandb"
    module = "wandb"
    has_modes = True

    def __init__(self, location: str, identity: base.Identity):
        import wandb

        place = os.path.relpath(location, get_platform().root)
        experiment, _, rest = place.partition(os.sep)
        number = run_id(location)
        with _named():
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or PROJECT,
                dir=location,
                id=number,
                name=place,
                group=experiment,
                job_type=rest.partition(os.sep)[2],
                config={**identity.hparams, "seed": identity.seed},
                mode=identity.mode,  # pyright: ignore[reportArgumentType]  # one of TRACKER_MODES
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


def run_id(location: str) -> str:
    """The ID of a run. Random digits are written to its folder, unless it is a run of an older version, whose ID has none."""
    path = paths.wandb_nonce(location)
    if not get_platform().exists(path) and not get_platform().exists(paths.wandb(location)):
        get_platform().write(path, secrets.token_hex(NONCE_BYTES) + "\n")
    nonce = ""
    with contextlib.suppress(OSError), get_platform().open(path, "rb") as file:
        nonce = file.read(2 * NONCE_BYTES).hex()
    return hashlib.md5(f"{os.path.realpath(location)}{nonce}".encode()).hexdigest()[:16]


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """Turns errors of the service into a ConfigError."""
    from wandb.errors import Error

    try:
        yield
    except (Error, OSError, ValueError) as error:
        raise ConfigError(
            f"--tracker wandb: {reason(error).rstrip(' .')}; log in with `wandb login`, or use --tracker_mode offline"
        ) from error

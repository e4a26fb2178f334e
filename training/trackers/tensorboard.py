"""TensorBoard, which reads event files: `tensorboard --logdir` with the root of all results shows all runs."""

from __future__ import annotations

from collections.abc import Mapping

from foundations import paths
from foundations.errors import ConfigError, reason
from training.trackers import base

FLUSH_SECONDS = 10  # between writes to the disk


class TensorBoard(base.Tracker):
    """Event files in the run folder, one for each start of the run. Every file contains all events of the run.

    Its first event discards the events of earlier files, which may be incomplete if the run was killed.
    """

    package = "tensorboard"
    module = "torch.utils.tensorboard"

    def __init__(self, location: str, identity: base.Identity):
        from torch.utils.tensorboard import SummaryWriter

        self._folder = paths.tensorboard(location)
        try:
            self._writer = SummaryWriter(self._folder, purge_step=0, flush_secs=FLUSH_SECONDS)
        except OSError as error:
            raise self._failure(error) from error

    def send(self, iteration: int, values: Mapping[str, float]) -> None:
        try:
            for name, value in values.items():
                self._writer.add_scalar(name, value, iteration)
        except OSError as error:
            raise self._failure(error) from error

    def close(self, complete: bool) -> None:
        try:
            self._writer.close()
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> ConfigError:
        return ConfigError(f"{self._folder} cannot be written ({error.strerror or reason(error)}); free the path, or leave out --tracker")

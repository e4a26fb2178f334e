"""TensorBoard, which reads files: `tensorboard --logdir` with the folder of all results shows them all."""

from __future__ import annotations

from collections.abc import Mapping

from foundations import paths
from foundations.errors import ConfigError, reason
from training.trackers import base

FLUSH_SECONDS = 10  # until what is recorded can be seen


class TensorBoard(base.Tracker):
    """Files of events in the run folder, one for each start of the run. It has all events there are, and begins with the order to forget
    those of the files before, which may lack what was not on the disk when the run was killed."""

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
        return ConfigError(f"{self._folder} cannot be written ({error.strerror or reason(error)}); without --tracker the run goes on")

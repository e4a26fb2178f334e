"""What the folder of a run records: hyperparameters, seed and shape of the data, and whether the run is finished."""

from __future__ import annotations

import os

from foundations import paths, revisions
from foundations.desc import Desc
from foundations.seeds import NOT_CHOSEN, draw
from platforms.platform import get_platform
from platforms.system import files
from training import teachers


def is_finished(location: str) -> bool:
    """Whether training is complete: the log and the final weights exist."""
    return get_platform().exists(paths.logger(location)) and paths.latest_model(get_platform().listdir(location)) is not None


def summary(location: str) -> str:
    """The test metrics of a finished run on one line, and whether it has diverged."""
    from training import divergence, metric_logger

    logger = metric_logger.MetricLogger.load(location)
    shown = [f"loss {metric_logger.numbers(logger, 'test_loss', location)[-1][1]:.4g}"]
    if logger.get("test_accuracy"):
        shown.append(f"accuracy {metric_logger.numbers(logger, 'test_accuracy', location)[-1][1]:.2%}")
    diverged = divergence.remark(logger)
    return f"Diverged: test {', '.join(shown)}; {diverged}" if diverged else f"Finished: test {', '.join(shown)}"


def resolve_seed(location: str, global_seed: int) -> int:
    """The seed of a run: the recorded seed if the run has started before, else `global_seed`, or a drawn seed if that is -1.

    Raises:
        ConfigError: the recorded hyperparameters are damaged.
    """
    path = paths.hparams_dict(location)
    if not get_platform().exists(path):
        return get_platform().on_primary(draw) if global_seed == NOT_CHOSEN else global_seed
    remedy = f"move {os.path.dirname(path)} away to start again"
    content = files.read_json(path, remedy)
    seed = content.get("seed") if isinstance(content, dict) else None
    if type(seed) is not int or seed < 0:
        raise files.damaged(path, "it contains no valid seed", remedy)
    return seed


def record(desc: Desc, location: str, seed: int, shape: tuple[int, int]) -> None:
    """Writes the hyperparameters, the seed and the dataset's shape of a run to its folder, unless they are there."""
    teachers.check_unchanged(desc, location)
    if get_platform().exists(paths.hparams_dict(location)):
        return
    digests = teachers.digests(desc)
    more = {revisions.ENTRY: revisions.RESULTS} | ({teachers.DIGESTS: digests} if digests else {})
    get_platform().write(paths.hparams_log(location), desc.log + "\n")
    get_platform().write(paths.hparams_dict(location), desc.to_json(seed=seed, shape=list(shape), **more))

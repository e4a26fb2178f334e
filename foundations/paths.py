"""Names of the files in a run folder, in one place."""

import os
import re
from collections.abc import Iterable

from foundations.step import Step

MODEL = re.compile(r"model_ep(\d+)_it(\d+)\.pth")


def checkpoint(location: str) -> str:
    """Everything that resuming needs: model, optimizer, schedule, random states, step and log."""
    return os.path.join(location, "checkpoint.pth")


def previous_checkpoint(location: str) -> str:
    """The checkpoint before, which serves where the newest is damaged."""
    return os.path.join(location, "checkpoint_previous.pth")


def progress(location: str) -> str:
    """How far training has come, as JSON; there only until it is complete."""
    return os.path.join(location, "progress.json")


def lock(location: str) -> str:
    """Who is at work on the run; there only while somebody is."""
    return os.path.join(location, ".lock")


def lock_of(path: str) -> str:
    """Who is writing a file that several runs share."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.lock")


def failure(location: str) -> str:
    """Why the last start of the run ended in an error; the next start removes it."""
    return os.path.join(location, ".failure.json")


def model(location: str, step: Step) -> str:
    """The weights of a model at a step."""
    return os.path.join(location, f"model_{step}.pth")


def latest_model(files: Iterable[str]) -> str | None:
    """The name of the latest weights of a trained network among some files; None where there are none."""
    matches = map(MODEL.fullmatch, files)
    found = [((int(match[1]), int(match[2])), match[0]) for match in matches if match]
    return max((entry for entry in found if entry[0] != (0, 0)), default=(None, None))[1]


def logger(location: str) -> str:
    """The telemetry; it appears when training is complete."""
    return os.path.join(location, "logger")


def hparams_dict(location: str, kind: str = "") -> str:
    """The full hyperparameters as JSON; `kind` is a prefix such as `extraction_`."""
    return os.path.join(location, f"{kind}hparams_dict")


def hparams_log(location: str, kind: str = "") -> str:
    """The hyperparameters as text."""
    return os.path.join(location, f"{kind}hparams.log")


def provenance(location: str) -> str:
    """How the run was started, and where."""
    return os.path.join(location, "provenance.json")


def mask(location: str) -> str:
    """Which weights of a pruned network are left."""
    return os.path.join(location, "mask.pth")


def sparsity_report(location: str) -> str:
    """How many they are."""
    return os.path.join(location, "sparsity_report.json")


def tensorboard(location: str) -> str:
    """The folder of what TensorBoard reads."""
    return os.path.join(location, "tensorboard")


def curves(location: str) -> str:
    """The picture of the training curves."""
    return os.path.join(location, "curves.png")


def levels(location: str, last: int) -> str:
    """The picture of a lottery ticket experiment up to a level."""
    return os.path.join(location, f"levels_0-{last}.png")


def comparison(location: str) -> str:
    """The picture of lottery tickets beside their branches, over all seeds."""
    return os.path.join(location, "comparison.png")


def barrier(location: str) -> str:
    """The error along the line between two networks."""
    return os.path.join(location, "barrier.json")


def report(location: str) -> str:
    """What an extraction found."""
    return os.path.join(location, "report.json")


def page(location: str) -> str:
    """The same as a page for people, which stands alone."""
    return os.path.join(location, "report.html")


def plots(location: str) -> str:
    """The folder of an extraction's pictures."""
    return os.path.join(location, "ECplots")


def finetune_checkpoints(location: str) -> str:
    """The folder of what an extraction had recovered before fine-tuning."""
    return os.path.join(location, "finetune_checkpoints")


def polish(location: str, weights: str) -> str:
    """The folder in which students are polished that begin from some weights."""
    return os.path.join(location, "polish", weights)


def reconstructed_model(location: str) -> str:
    """The folder of the network that an extraction recovered."""
    return os.path.join(location, "reconstructed_model")

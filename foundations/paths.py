"""The names of all files in a run folder."""

import os
import re
from collections.abc import Iterable

from foundations.step import Step, parse

MODEL = re.compile(r"model_ep(\d+)_it(\d+)\.pth")


def checkpoint(location: str) -> str:
    """The state from which training resumes: model, optimizer, schedule, random states, step and log."""
    return os.path.join(location, "checkpoint.pth")


def previous_checkpoint(location: str) -> str:
    """The checkpoint before the newest one. It is used if the newest is damaged."""
    return os.path.join(location, "checkpoint_previous.pth")


def progress(location: str) -> str:
    """The progress of training, as JSON. It exists only until training is complete."""
    return os.path.join(location, "progress.json")


def dropped(location: str) -> str:
    """The mark of students whose hypothesis a race has dropped: the hypothesis, as JSON."""
    return os.path.join(location, "dropped.json")


def lock(location: str) -> str:
    """The lock of the run: it names the process that works on the run, and exists only as long as that process works."""
    return os.path.join(location, ".lock")


def lock_of(path: str) -> str:
    """The lock of a file that several runs share: it names the process that writes the file."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.lock")


def failure(location: str) -> str:
    """The error that ended the last start of the run. The next start removes the file."""
    return os.path.join(location, ".failure.json")


def model(location: str, step: Step) -> str:
    """The weights of the model at a step."""
    return os.path.join(location, f"model_{step}.pth")


def latest_model(files: Iterable[str]) -> str | None:
    """The file name of the latest trained weights among some file names; None if no file has trained weights."""
    matches = map(MODEL.fullmatch, files)
    models = [((int(match[1]), int(match[2])), match[0]) for match in matches if match]
    return max((model for model in models if model[0] != (0, 0)), default=(None, None))[1]


def trained_steps(files: Iterable[str], planned: str) -> str:
    """How long a run was trained, such as `7ep` or `3ep20it`, by the names of its files of weights; `planned` if that does not differ.

    Training is longer than planned with `--extra_training` or `--further_training`, and shorter if it has ended early. The length of an
    epoch is not known here: if the plan counts iterations, only weights within the first epoch or of a second end show a difference.
    """
    matches = map(MODEL.fullmatch, files)
    ends = sorted({(int(match[1]), int(match[2])) for match in matches if match} - {(0, 0)})
    if not ends:
        return planned
    (epoch, iteration), (epochs, iterations) = ends[-1], parse(planned)
    is_comparable = len(ends) > 1 or not iterations or not (epoch or epochs)
    if not is_comparable or (epoch, iteration) == (epochs, iterations):
        return planned
    return (f"{epoch}ep" if epoch else "") + (f"{iteration}it" if iteration else "")


def scaling(location: str) -> str:
    """How inputs and outputs were transformed for students, if they were."""
    return os.path.join(location, "scaling.pth")


def set_aside(location: str) -> str:
    """The rows of a file of answers that students do not learn from, if there are any."""
    return os.path.join(location, "rows_set_aside.json")


def logger(location: str) -> str:
    """The metrics. The file is written when training is complete."""
    return os.path.join(location, "logger")


def hparams_dict(location: str, kind: str = "") -> str:
    """All hyperparameters as JSON; `kind` is a prefix such as `extraction_`."""
    return os.path.join(location, f"{kind}hparams_dict")


def hparams_log(location: str, kind: str = "") -> str:
    """The hyperparameters as text; `kind` as in `hparams_dict`."""
    return os.path.join(location, f"{kind}hparams.log")


def imported(location: str) -> str:
    """The origin of a run that another program has made, as JSON, in the folder of its seed."""
    return os.path.join(location, "imported.json")


def provenance(location: str) -> str:
    """The command, the program version and the machine of the run, as JSON."""
    return os.path.join(location, "provenance.json")


def mask(location: str) -> str:
    """The mask of a pruned network: which weights remain."""
    return os.path.join(location, "mask.pth")


def sparsity_report(location: str) -> str:
    """The number of weights that remain in a pruned network, as JSON."""
    return os.path.join(location, "sparsity_report.json")


def tensorboard(location: str) -> str:
    """The folder of the files for TensorBoard."""
    return os.path.join(location, "tensorboard")


def wandb(location: str) -> str:
    """The folder of the files of Weights & Biases."""
    return os.path.join(location, "wandb")


def wandb_nonce(location: str) -> str:
    """Random digits in the ID that Weights & Biases has of the run: a run that is removed and made again has another ID."""
    return os.path.join(location, "wandb_nonce")


def curves(location: str) -> str:
    """The plot of the training curves."""
    return os.path.join(location, "curves.png")


def levels(location: str, last: int) -> str:
    """The plot of a lottery ticket experiment, from level 0 to the level `last`."""
    return os.path.join(location, f"levels_0-{last}.png")


def levels_report(location: str, last: int) -> str:
    """The outcomes of a lottery ticket experiment, from level 0 to `last`, as JSON. It is written if their plot fails."""
    return os.path.join(location, f"levels_0-{last}.json")


def comparison(location: str) -> str:
    """The plot that compares lottery tickets with their branches, over all seeds."""
    return os.path.join(location, "comparison.png")


def barrier(location: str) -> str:
    """The error along the line between two networks, as JSON."""
    return os.path.join(location, "barrier.json")


def report(location: str) -> str:
    """The report of an extraction, as JSON."""
    return os.path.join(location, "report.json")


def page(location: str) -> str:
    """The report of an extraction as a page of HTML that needs no other file."""
    return os.path.join(location, "report.html")


def plots(location: str) -> str:
    """The folder of the plots of an extraction."""
    return os.path.join(location, "ECplots")


def finetune_checkpoints(location: str) -> str:
    """The folder of the networks that an extraction had before fine-tuning."""
    return os.path.join(location, "finetune_checkpoints")


def polish(location: str, weights: str) -> str:
    """The folder in which students are polished; `weights` names the weights from which they start."""
    return os.path.join(location, "polish", weights)


def reconstructed_model(location: str) -> str:
    """The folder of the network that an extraction has reconstructed."""
    return os.path.join(location, "reconstructed_model")


def exported_program(location: str) -> str:
    """The file of the reconstructed network that torch opens without this program."""
    return os.path.join(reconstructed_model(location), "network.pt2")

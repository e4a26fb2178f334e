"""Finds runs of OpenLTH and of the published code that have the hyperparameters of a run, and copies them to the run's own folder.

The originals are only read. A copy has the same weights, masks, checkpoints and logs, byte for byte. `imported.json` in the folder of its
seed records where it comes from.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from foundations import ancestors, json_text, paths
from foundations.ancestors import Groups
from foundations.desc import Desc
from foundations.errors import ConfigError
from foundations.hparams import Bundle
from foundations.seeds import NOT_CHOSEN, draw
from platforms.platform import get_platform
from platforms.system import files
from training import run_records

if TYPE_CHECKING:
    from training.desc import TrainingDesc

_FOLDER = re.compile(r"main|level_(?:\d+|pretrain)/(?:main|lottery_branch_\w+)")
_FILES = [os.path.basename(path("")) for path in (paths.checkpoint, paths.mask, paths.sparsity_report)]
_LOGGER = os.path.basename(paths.logger(""))


def hyperparameters(location: str) -> Groups:
    """The hyperparameters in the folder of a seed, by their names in this framework.

    Raises:
        ConfigError: the log is missing, or its hyperparameters do not give the folder of the experiment its name.
    """
    folders = (os.path.join(location, folder) for folder in ("main", "level_0/main"))
    path = next((path for path in map(paths.hparams_log, folders) if get_platform().exists(path)), None)
    if path is None:
        raise ConfigError(f"{location} has no hparams.log, so that its hyperparameters are unknown; its logs can still be listed and drawn")
    name = os.path.basename(os.path.dirname(location))
    groups = ancestors.recognise(name, ancestors.parse_log(files.read_text(path, "it is left as it is", files.LONGEST_JSON)))
    if groups is None:
        raise ConfigError(f"the hyperparameters in {path} do not give the name {name}: this framework lacks one, or the file was changed")
    return ancestors.renamed(groups)


def bundle(kind: type[Bundle], values: Mapping[str, str]) -> Bundle:
    """A bundle of hyperparameters from their texts.

    Raises:
        ConfigError: a hyperparameter does not exist here, or its value is not valid.
    """
    known = {field.name for field, _ in kind.hyperparameters()}
    for name, text in values.items():
        if name not in known:
            raise ConfigError(f"{name} = {text} has no equivalent in this framework")
    try:
        return kind.from_text(values)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"its {kind._name} are incomplete ({error})") from None


def find(desc: Desc, seed: int) -> str | None:
    """The folder of a seed that another program has trained with the same hyperparameters; None if there is none."""
    root, prefix = get_platform().root, f"{desc.name_prefix()}_"
    candidates = [os.path.join(root, desc.hashname, f"replicate_{seed}")]
    if get_platform().exists(candidates[0]):
        return candidates[0]
    for name in get_platform().listdir(root):
        location = os.path.join(root, name, f"seed_{seed}")
        if ancestors.THEIR_NAME.fullmatch(name) and name.startswith(prefix) and get_platform().exists(location) and _fits(desc, location):
            return location
    return None


def _fits(desc: Desc, location: str) -> bool:
    """Whether the hyperparameters in the folder of a seed are those of a descriptor."""
    bundles = desc.bundles()
    if "pruning_hparams" in bundles and "students_" in str(bundles["model_hparams"]):
        return False  # their masks and logs have other names
    try:
        groups = hyperparameters(location)
        return groups.keys() == bundles.keys() and all(str(bundle(type(own), groups[name])) == str(own) for name, own in bundles.items())
    except ConfigError:
        return False


def replicates(desc: Desc) -> list[int]:
    """The numbers of the replicates of an experiment that OpenLTH has trained."""
    names = get_platform().listdir(os.path.join(get_platform().root, desc.hashname))
    return sorted(int(name.removeprefix("replicate_")) for name in names if re.fullmatch(r"replicate_\d+", name))


def note(desc: Desc, seed: int) -> str:
    """A line about replicates that a run without a chosen seed does not use; empty if there are none."""
    numbers = replicates(desc) if seed == NOT_CHOSEN else []
    if not numbers:
        return ""
    trained = ", ".join(f"replicate_{number}" for number in numbers)
    return f"Note: OpenLTH has trained {trained} of this experiment, which this run does not use; --global_seed {numbers[0]} does."


def copy(source: str, target: str, record: Callable[[], None]) -> None:
    """Copies the folder of a seed. An interrupted copy is completed by the next.

    Args:
        source: the folder of a seed of another program.
        target: the folder of the seed in this framework.
        record: writes the hyperparameters of the run. It is called before the logs, which mark runs as finished, are copied.

    Raises:
        ConfigError: a file cannot be read or written.
    """
    names = _files(source)
    logs = {name for name in names if name.endswith(_LOGGER)}
    digests = {name: _copy(os.path.join(source, name), None if name in logs else os.path.join(target, name)) for name in names}
    _complete_branches(target)
    content = {
        "program": ancestors.program_of(source),
        "folder": os.path.abspath(source),
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        "md5": digests,
    }
    get_platform().write(paths.imported(target), json_text.dumps(content, indent=2) + "\n")
    record()
    for name in sorted(logs):
        _copy(os.path.join(source, name), os.path.join(target, name))


def is_copy(location: str) -> bool:
    """Whether a run folder is in the folder of a seed that has been copied from another program."""
    seed, outer = os.path.dirname(location), os.path.dirname(os.path.dirname(location))
    return any(get_platform().exists(paths.imported(folder)) for folder in (seed, outer))


def _files(source: str) -> list[str]:
    """The files of a seed that a copy needs, relative to its folder."""
    found = []
    for folder, _, names in os.walk(source):
        inner = os.path.relpath(folder, source)
        if _FOLDER.fullmatch(inner):
            found += [f"{inner}/{name}" for name in sorted(names) if name in (*_FILES, _LOGGER) or paths.MODEL.fullmatch(name)]
    return sorted(found)


def _copy(source: str, target: str | None) -> str:
    """Copies a file, or only reads it if there is no target; returns the MD5 of its content."""
    try:
        with get_platform().open(source, "rb") as file:
            content = file.read()
    except OSError as error:
        raise ConfigError(f"{source} cannot be read ({error.strerror or error})") from None
    if target is not None:
        get_platform().write(target, content)
    return hashlib.md5(content).hexdigest()


def _complete_branches(target: str) -> None:
    """Adds the masks of branches that have none: they use those of their level."""
    for level in get_platform().listdir(target):
        for name in get_platform().listdir(os.path.join(target, level)):
            branch, main = (os.path.join(target, level, folder) for folder in (name, "main"))
            if name.startswith("lottery_branch_") and not get_platform().exists(paths.mask(branch)):
                for path in filter(lambda path: get_platform().exists(path(main)), (paths.sparsity_report, paths.mask)):
                    shutil.copyfile(path(main), path(branch))


def adopt(desc: TrainingDesc, seed: int, shape: tuple[int, int], quiet: bool) -> None:
    """Copies a run that OpenLTH or the published code has trained with the same hyperparameters and seed, unless the run has started.

    Raises:
        ConfigError: a file cannot be read or written.
    """
    line = get_platform().on_primary(lambda: _adopt(desc, seed, shape))
    if line and not quiet:
        print(line, flush=True)


def _adopt(desc: TrainingDesc, seed: int, shape: tuple[int, int]) -> str:
    """The part of `adopt` that one process does; returns a line about it, or an empty text."""
    if get_platform().exists(paths.hparams_dict(desc.run_path(get_platform().root, seed))):
        return ""
    source = find(desc, seed)
    if source is None:
        return note(desc, seed)
    import_run(desc, seed, shape, source)
    return f"Copied from {source}, which is left as it is."


def import_run(desc: TrainingDesc, seed: int, shape: tuple[int, int], source: str) -> None:
    """Copies a seed of another program to the folder of a run.

    Args:
        desc: the hyperparameters of the run.
        seed: the number of its seed; -1 draws the seed that is recorded.
        shape: the number of values of an example, and the number of outputs that the model needs.
        source: the folder of the seed of the other program.

    Raises:
        ConfigError: a file cannot be read or written.
    """
    location, folder = desc.run_path(get_platform().root, seed), os.path.join(get_platform().root, desc.hashname, f"seed_{seed}")
    copy(source, folder, lambda: run_records.record(desc, location, draw() if seed == NOT_CHOSEN else seed, shape))

"""Run folders of OpenLTH and of the published Expand-and-Cluster code: their names, their hyperparameters and their logs, as text.

Both programs name a folder after the hyperparameters of its runs, `<kind>_<hash>`, and write them to `hparams.log`. OpenLTH hashes with
MD5 (32 digits) and calls a seed `replicate_<n>`. The published code hashes with BLAKE2b (10 digits), and its students are in `ec_<hash>`.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Mapping

from foundations.desc import parse_display_text

OPENLTH, PUBLISHED = "OpenLTH", "the published code"
SEED_FOLDER = re.compile(r"(?:seed|replicate)_(-?\d+)")
THEIR_NAME = re.compile(r"(?:train|lottery)_[0-9a-f]{10}|(?:ec|extract)_[0-9a-f]{10}")
ROW_END = "//\n"  # between the records in a log of the published code, whose values may have several lines
OPENLTH_ROW = re.compile(r"[^,$\n]+,\d+,[^,$\n]+")

Groups = dict[str, dict[str, str]]  # the text of each hyperparameter, by the name of its bundle, such as `dataset_hparams`

_TITLES = {"Dataset": "dataset_hparams", "Model": "model_hparams", "Training": "training_hparams", "Extraction": "extraction_hparams"}
_TEXTS = {"dataset_name", "unsupervised_labels", "teacher_name", "teacher_seed", "datagen", "model_name", "model_init", "batchnorm_init"}
_TEXTS |= {"act_fun", "others_frozen_exceptions", "optimizer_name", "training_steps", "milestone_steps", "warmup_steps"}
_TEXTS |= {"further_training", "pruning_strategy", "pruning_layers_to_ignore", "finetune_traning_steps", "boruta"}
# Defaults that are in the log, because they are neither zero nor empty, but not in the hash.
_SHOWN_DEFAULTS = {"act_fun": "relu", "pruning_fraction": "0.2", "finetune_traning_steps": "5000ep", "finetune_lr": "0.0001"}
_SHOWN_DEFAULTS["subset_stride"] = "1"
# Values that are in the hash, because they differ from the default None, but not in the log, because they are zero.
_HIDDEN_ZEROS = {"dataset_hparams": {"transformation_seed": "0"}, "training_hparams": {"data_order_seed": "0", "weight_decay": "0.0"}}


def program_of(path: str) -> str | None:
    """The program that made a folder or file, by the names in its path; None for this framework, and where the names do not tell it."""
    for part in path.split(os.sep):
        if THEIR_NAME.fullmatch(part):
            return PUBLISHED
        if part.startswith("replicate_") and SEED_FOLDER.fullmatch(part):
            return OPENLTH
    return None


def parse_log(text: str) -> Groups:
    """The hyperparameters in an `hparams.log`."""
    groups: Groups = {}
    for title, values in parse_display_text(text).items():
        prefix = "pretrain_" if title.startswith("Pretraining ") else ""
        kind = title.removeprefix("Pretraining ").partition(" ")[0]
        name = "pruning_hparams" if "pruning_strategy" in values else _TITLES.get(kind, title)
        groups[prefix + name] = values
    return groups


def recognise(name: str, groups: Groups) -> Groups | None:
    """The complete hyperparameters of a run folder, if they give the folder its name; otherwise None.

    A log lacks values that are zero. Those that the name proves are added.

    Args:
        name: the name of the folder.
        groups: the hyperparameters in its log.
    """
    hidden = [
        (bundle, field, zero)
        for bundle in groups
        for field, zero in _HIDDEN_ZEROS.get(bundle.removeprefix("pretrain_"), {}).items()
        if field not in groups[bundle]
    ]
    digits = name.rpartition("_")[2]
    for count in range(len(hidden) + 1):
        for added in itertools.combinations(hidden, count):
            complete = {bundle: dict(values) for bundle, values in groups.items()}
            for bundle, field, zero in added:
                complete[bundle][field] = zero
            if digest(complete, len(digits)) == digits:
                return complete
    return None


def digest(groups: Mapping[str, Mapping[str, str]], digits: int) -> str:
    """The hash of hyperparameters in the names of both programs: 32 digits of MD5, or 10 digits of BLAKE2b."""
    text = ";".join(_canonical(groups[bundle]) for bundle in sorted(groups)).encode()
    return hashlib.md5(text).hexdigest() if digits == 32 else hashlib.blake2b(text, digest_size=5).hexdigest()


def _canonical(values: Mapping[str, str]) -> str:
    shown = {name: f"'{text}'" if name in _TEXTS else text for name, text in values.items() if _SHOWN_DEFAULTS.get(name) != text}
    return f"Hparams({', '.join(f'{name}={shown[name]}' for name in sorted(shown))})"


def renamed(groups: Groups) -> Groups:
    """The hyperparameters by their names in this framework, without those that are not set."""
    names = {"training_hparams": {"gamma": "delta"}, "extraction_hparams": {"finetune_traning_steps": "finetune_training_steps"}}
    result = {}
    for bundle, values in groups.items():
        new = names.get(bundle.removeprefix("pretrain_"), {})
        result[bundle] = {new.get(name, name): text for name, text in values.items() if text != "None" and name != "subset_stride"}
    return {bundle: values for bundle, values in result.items() if bundle != "extraction_hparams" or "gamma" in values}


def is_log(text: str) -> bool:
    """Whether a text is a log in the format of one of the two programs."""
    return ROW_END in text or OPENLTH_ROW.fullmatch(text.rstrip("\n").rpartition("\n")[2]) is not None


def rows(text: str) -> list[str]:
    """The rows of such a log."""
    return [row for row in (text.split(ROW_END) if ROW_END in text else text.splitlines()) if row.strip()]


def parse_row(row: str) -> tuple[str, int, float | list[float] | None]:
    """Name, iteration and value of a row; the value is None if the row does not contain all of it.

    Raises:
        ValueError: the row is not a record.
    """
    name, iteration, value = row.split("$" if "$" in row else ",")
    return name, int(iteration), parse_value(value)


def parse_value(text: str) -> float | list[float] | None:
    """A number, or the numbers of a tensor that has been printed; None if the tensor is abridged."""
    tensor = re.fullmatch(r"tensor\((.*?)(?:,\s*(?:dtype|device|requires_grad|grad_fn)=.*)?\)", text.strip(), re.DOTALL)
    if tensor is None:
        return float(text)
    content = tensor[1].strip()
    if not content.startswith("["):
        return float(content)
    numbers = [number.strip() for number in content.strip("[]").split(",")]
    return None if "..." in numbers else [float(number) for number in numbers if number]

"""The flags of OpenLTH and of the published Expand-and-Cluster that have another name here, or no counterpart."""

from __future__ import annotations

from collections.abc import Collection

# The name there, and the name of the flag that took over.
RENAMED = {
    "replicate": "global_seed",
    "gamma": "delta",
    "finetune_traning_steps": "finetune_training_steps",
}

# The name there, and what to use here instead.
WITHOUT_COUNTERPART = {
    "conv_level": "extract recovers fully connected networks only, all layers in one run; leave it out",
    "subset_start": "--subsample_fraction keeps a random part of the examples",
    "subset_end": "--subsample_fraction keeps a random part of the examples",
    "subset_stride": "--subsample_fraction keeps a random part of the examples",
}
PRETRAIN = "pretrain"


def explanation(name: str, flags: Collection[str]) -> str | None:
    """What a flag of an ancestor is here; None for a flag that neither ancestor has, or whose successor the command does not have.

    Args:
        name: the flag without dashes, such as `gamma` or, with the prefix of a bundle, `retrain_t_gamma`.
        flags: the names of all flags of the command, without dashes.
    """
    for old, new in RENAMED.items():
        successor = name.removesuffix(old) + new
        if _ends_with(name, old) and successor in flags:
            return f"--{name} is called --{successor} here"
    for old, instead in WITHOUT_COUNTERPART.items():
        if _ends_with(name, old):
            return f"--{name} does not exist here: {instead}"
    if name.startswith(f"{PRETRAIN}_") and PRETRAIN in flags:
        return f"--{name} is valid only together with --{PRETRAIN}"
    return None


def _ends_with(name: str, old: str) -> bool:
    """Whether a flag is `old`, with or without the prefix of a bundle."""
    return name == old or name.endswith(f"_{old}")

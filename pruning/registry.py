"""All pruning strategies. To add a strategy, add a file to this package and a line to the table."""

from __future__ import annotations

import argparse

from foundations.arguments import ArgumentParser
from foundations.errors import unknown
from models.base import Model
from pruning import base, erdos_renyi_kernel, fc19, grasp, han, random, snip, sparse_global, sparse_layerwise, synflow
from pruning.hparams import PruningHparams

registered_strategies: dict[str, type[base.Strategy]] = {
    "sparse_global": sparse_global.Strategy,
    "sparse_layerwise": sparse_layerwise.Strategy,
    "fc19": fc19.Strategy,
    "han": han.Strategy,
    "random": random.Strategy,
    "erdos_renyi_kernel": erdos_renyi_kernel.Strategy,
    "snip": snip.Strategy,
    "grasp": grasp.Strategy,
    "synflow": synflow.Strategy,
}


def get(pruning_hparams: PruningHparams) -> type[base.Strategy]:
    """The strategy that the hyperparameters name.

    Raises:
        ConfigError: no strategy has this name.
    """
    return _find(pruning_hparams.pruning_strategy)


def get_pruning_hparams(pruning_strategy: str) -> type[PruningHparams]:
    """The class of a strategy's hyperparameters.

    Raises:
        ConfigError: no strategy has this name.
    """
    return _find(pruning_strategy).get_pruning_hparams()


def default_hparams(pruning_strategy: str, layers_to_ignore: str | None) -> PruningHparams:
    """The default hyperparameters of a strategy, with the names of the layers to ignore, joined by commas.

    Raises:
        ConfigError: no strategy has this name.
    """
    return get_pruning_hparams(pruning_strategy)(pruning_strategy, pruning_layers_to_ignore=layers_to_ignore)


def check(pruning_hparams: PruningHparams, model: Model) -> None:
    """Raises a ConfigError unless the strategy exists and the model has a layer to prune. The model may be on the meta device."""
    get(pruning_hparams)
    base.prunable_layers(pruning_hparams, model)


def add_args(parser: ArgumentParser, defaults: PruningHparams | None = None) -> None:
    """Adds `--pruning_strategy` and the flags of the strategy that the arguments or the defaults name.

    If the arguments name another strategy than the defaults, its own defaults are used.
    """
    name = parser.peek("pruning_strategy", defaults and defaults.pruning_strategy)
    hparams_class = get_pruning_hparams(name) if name else PruningHparams
    used_defaults = defaults if defaults and defaults.pruning_strategy == name else None
    hparams_class.add_args(parser, used_defaults, choices={"pruning_strategy": list(registered_strategies)})


def create_from_args(args: argparse.Namespace) -> PruningHparams:
    """The hyperparameters from parsed flags.

    Raises:
        ConfigError: no strategy is named, or a value is out of range.
    """
    hparams_class = get_pruning_hparams(args.pruning_strategy) if args.pruning_strategy else PruningHparams
    return hparams_class.create_from_args(args)


def _find(name: str) -> type[base.Strategy]:
    if name not in registered_strategies:
        raise unknown("--pruning_strategy", name, registered_strategies)
    return registered_strategies[name]

"""Every pruning strategy. A new one is a file beside this and a line here."""

from __future__ import annotations

import argparse

from foundations.arguments import ArgumentParser
from foundations.errors import unknown
from models.base import Model
from pruning import base, erdos_renyi_kernel, fc19, grasp, han, hparams, random, snip, sparse_global, synflow

registered_strategies: dict[str, type[base.Strategy]] = {
    "sparse_global": sparse_global.Strategy,
    "fc19": fc19.Strategy,
    "han": han.Strategy,
    "random": random.Strategy,
    "erdos_renyi_kernel": erdos_renyi_kernel.Strategy,
    "snip": snip.Strategy,
    "grasp": grasp.Strategy,
    "synflow": synflow.Strategy,
}


def get(pruning_hparams: hparams.PruningHparams) -> type[base.Strategy]:
    """The strategy that some hyperparameters ask for.

    Raises:
        ConfigError: there is none of this name.
    """
    return _find(pruning_hparams.pruning_strategy)


def get_pruning_hparams(pruning_strategy: str) -> type[base.PruningHparams]:
    """The class of a strategy's hyperparameters.

    Raises:
        ConfigError: there is no such strategy.
    """
    return _find(pruning_strategy).get_pruning_hparams()


def default_hparams(pruning_strategy: str, layers_to_ignore: str | None) -> base.PruningHparams:
    """The default hyperparameters of a strategy for a network whose layers to ignore are given, joined by commas.

    Raises:
        ConfigError: there is no such strategy.
    """
    return get_pruning_hparams(pruning_strategy)(pruning_strategy, pruning_layers_to_ignore=layers_to_ignore)


def check(pruning_hparams: base.PruningHparams, model: Model) -> None:
    """Raises a ConfigError unless a strategy of this name has something to prune in a model, which may lie on the meta device."""
    get(pruning_hparams)
    base.prunable_layers(pruning_hparams, model)


def add_args(parser: ArgumentParser, defaults: hparams.PruningHparams | None = None) -> None:
    """Adds `--pruning_strategy`, and the flags of the strategy that the arguments or the defaults choose.

    Another strategy than that of the defaults has defaults of its own.
    """
    name = parser.peek("pruning_strategy", defaults and defaults.pruning_strategy)
    kind = get_pruning_hparams(name) if name else hparams.PruningHparams
    fitting = defaults if defaults and defaults.pruning_strategy == name else None
    kind.add_args(parser, fitting, choices={"pruning_strategy": list(registered_strategies)})


def create_from_args(args: argparse.Namespace) -> base.PruningHparams:
    """The hyperparameters that parsed flags describe.

    Raises:
        ConfigError: no strategy was chosen, or a value is out of its range.
    """
    kind = get_pruning_hparams(args.pruning_strategy) if args.pruning_strategy else hparams.PruningHparams
    return kind.create_from_args(args)


def _find(name: str) -> type[base.Strategy]:
    if name not in registered_strategies:
        raise unknown("--pruning_strategy", name, registered_strategies)
    return registered_strategies[name]

"""Tickets with random masks, as in *The Lottery Ticket Hypothesis* (Frankle & Carbin 2019, arXiv:1803.03635)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Literal

import torch

from foundations import paths
from foundations.errors import unknown
from foundations.seeds import derive
from foundations.step import Step
from lottery import outdated
from lottery.branch import base
from lottery.branch.arguments import BranchArguments
from models import registry as models
from models.base import Model
from pruning import base as pruning
from pruning.hparams import PruningHparams
from pruning.mask import Mask
from pruning.random import uniform_score
from training import run_records


class Branch(base.Branch):
    """Randomly prune the model.

    As many weights remain as in the levels, at random positions. With `--seed`, masks equal those of OpenLTH for the same ticket: a mask is
    the ticket, shuffled. Three of its bugs are not followed. It loads the weights of the ticket, in which pruned weights are 0, so that
    remaining weights outside the ticket start at 0; here they have the values that `--start_at` names. Its strategy `even` ends with an
    error. So does its `--start_at init` if levels are rewound to a later step.
    """

    def branch_function(
        self,
        seed: int | None = None,
        strategy: Literal["layerwise", "global", "even", "identity"] = "layerwise",
        start_at: Literal["rewind", "init", "end"] = "rewind",
        layers_to_ignore: str = "",
    ) -> None:
        """Trains a network with a random mask.

        Args:
            seed: the seed of the mask (if left out, it is derived from --global_seed).
            strategy: the number of remaining weights per layer: as in the ticket (layerwise), random with the same total (global), or the
                same share in all layers that the experiment prunes (even); identity uses the mask of the ticket itself.
            start_at: the weights before training: those that the experiment rewinds to (rewind), those at initialisation (init), or those
                at the end of the level, where pruned weights are 0 (end). Training starts at step 0, for rewind at the step of the weights.
            layers_to_ignore: names of layers that are not pruned, whatever the ticket and the strategy, joined by commas.
        """
        self.train(self._start(start_at), self._random_mask(self.level), from_zero=start_at != "rewind")

    @staticmethod
    def validate(arguments: BranchArguments) -> None:
        arguments.require("seed", arguments.seed is None or -(2**63) <= arguments.seed < 2**63, "a number of 64 bits")

    @classmethod
    def create_from_args(cls, args: argparse.Namespace) -> base.Branch:
        branch = super().create_from_args(args)
        valid = models.meta_model(branch.desc.lottery_desc.model_hparams).prunable_layer_names
        for name in _names(branch.arguments.layers_to_ignore):
            if name not in valid:
                raise unknown("--layers_to_ignore", name, valid)
        return branch

    @property
    def obstacle(self) -> str | None:
        for level in self.levels:
            mask = outdated.readable_mask(self.location(level))
            if mask is not None and mask != self._random_mask(level):
                return (
                    f"an earlier version of this program drew the random mask of {self.location(level)}, and this version draws another; "
                    "its finished levels can be read, but not continued: move this folder away, or use another --seed"
                )
        return None

    def _trunk_seed(self) -> int:
        """The seed of the experiment, which has started before."""
        return run_records.resolve_seed(self.location(0, trunk=True), self.job.global_seed)

    def _start(self, start_at: str) -> Model:
        """The network before training, with the weights of a point of the experiment."""
        if start_at == "rewind":
            return self.trunk.rewound()
        model = self.trunk.new(self.trunk.seed)
        if start_at == "end":
            end = Step.from_str(self.lottery_desc.training_hparams.training_steps, len(self.trunk.loaders[0]))
            models.load_weights(paths.model(self.level_root, end), model)
        return model

    def _random_mask(self, level: int) -> Mask:
        """The mask of a level, from the arguments of the branch and the seed of the experiment."""
        arguments, ticket = self.arguments, Mask.load(self.location(level, trunk=True))
        outline = models.meta_model(self.lottery_desc.model_hparams, self.shape[1])
        networks, derived = getattr(outline, "networks", 1), derive(self._trunk_seed(), self.name)
        seed = derived if arguments.seed is None else arguments.seed
        if arguments.strategy == "layerwise":
            mask = shuffled_in_layers(ticket, networks, seed)
        elif arguments.strategy == "global":
            mask = shuffled(ticket, networks, seed)
        elif arguments.strategy == "even":
            own = derived if arguments.seed is None else derive(arguments.seed, self.name)
            mask = _even(self.lottery_desc.pruning_hparams, outline, ticket, own)
        else:
            mask = ticket
        whole = _names(arguments.layers_to_ignore)
        return Mask({name: torch.ones_like(kept) if name in whole else mask[name] for name, kept in ticket.items()})


def shuffled_in_layers(mask: Mask, networks: int, seed: int) -> Mask:
    """The mask with the values of each layer in random order. The seed grows by one from layer to layer, in the order of their names."""
    return Mask({name: _shuffle(mask[name].reshape(networks, -1), seed + i).view_as(mask[name]) for i, name in enumerate(sorted(mask))})


def shuffled(mask: Mask, networks: int, seed: int) -> Mask:
    """The mask with the values of all layers, in the order of their names, in random order."""
    names = sorted(mask)
    rows = [mask[name].reshape(networks, -1) for name in names]
    parts = _shuffle(torch.cat(rows, 1), seed).split([row.shape[1] for row in rows], 1)
    return Mask({name: part.reshape(mask[name].shape) for name, part in zip(names, parts, strict=True)})


def _shuffle(rows: torch.Tensor, seed: int) -> torch.Tensor:
    """The values of each network `[N, n]` in the order of n normal numbers; OpenLTH's order for the first network, or the only one."""
    generators = [torch.Generator().manual_seed(derive(seed, "network", network) if network else seed) for network in range(len(rows))]
    orders = [torch.randn(rows.shape[1], generator=generator).argsort() for generator in generators]
    return torch.stack([row[order] for row, order in zip(rows, orders, strict=True)])


def _even(pruning_hparams: PruningHparams, outline: Model, ticket: Mask, seed: int) -> Mask:
    """A random mask with as many remaining weights as the ticket in each network, and the same share in all layers that are pruned.

    With the same seed, the mask of a later level is a subset of the masks of earlier levels.
    """
    layers = pruning.prunable_layers(pruning_hparams, outline)
    left, whole = (pruning.Problem(pruning_hparams, outline, mask, layers, seed=seed) for mask in (ticket, Mask.ones_like(outline)))
    removed = [size - count for size, count in zip(whole.remaining(layers), left.remaining(layers), strict=True)]
    mask = whole.mask
    for name, counts in _evenly(removed, {name: whole.remaining([name])[0] for name in layers}).items():
        mask = pruning.prune_lowest(mask, [name], uniform_score(whole), counts)
    return mask


def _evenly(total: Sequence[int], sizes: dict[str, int]) -> dict[str, list[int]]:
    """The parts of each total in proportion to the sizes. They sum to the total, and differ from exact proportion by less than one."""
    whole, before, shares = sum(sizes.values()), 0, {}
    for name, size in sizes.items():
        after = before + size
        shares[name] = [count * after // whole - count * before // whole for count in total]
        before = after
    return shares


def _names(layers: str) -> list[str]:
    """The names in a list that is joined by commas."""
    return [name.strip() for name in layers.split(",") if name.strip()]
